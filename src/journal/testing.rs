//! What the tests of both journals share: entries, sessions, and a record of what a replay gave.

use duragram_proto::{ClientId, Epoch, Seq};

use super::{Block, BlockBuilder, EntryMeta, ReadJournal, Replay, SessionRecord};
use crate::types::{Offset, SessionId};

pub(crate) fn session(client: u64) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(1).unwrap() }
}

pub(crate) fn record(client: u64, floor: u64) -> SessionRecord {
    SessionRecord { id: session(client), floor: Seq(floor), above: vec![2, 5], last_active_s: 7, hello_nonce: Some(9) }
}

/// Adds one entry; its payload repeats its seq, so that a test sees which it reads.
pub(crate) fn push(builder: &mut BlockBuilder, seq: u64, payload_bytes: usize) {
    let meta = EntryMeta {
        session: session(0xa1),
        seq: Seq(seq),
        span: 0,
        skip: false,
        batch: false,
        channel: 0,
        received_unix_us: 1_000_000 + seq,
    };
    builder.push(&meta, &payload(seq, payload_bytes));
}

pub(crate) fn payload(seq: u64, bytes: usize) -> Vec<u8> {
    seq.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// The seqs of the entries, whose payloads are checked.
pub(crate) fn seqs(block: &Block) -> Vec<u64> {
    let seq = |entry: super::Entry<'_>| {
        assert_eq!(entry.payload, payload(entry.meta.seq.0, entry.payload.len()));
        entry.meta.seq.0
    };
    block.entries().map(seq).collect()
}

/// All that a reader gives from an offset on, asked for in small steps.
pub(crate) fn read_all(reader: &dyn ReadJournal, from: Offset) -> Vec<u64> {
    let (mut at, mut all) = (from, Vec::new());
    loop {
        let blocks = reader.read(at, 1).unwrap();
        let Some(last) = blocks.last() else { return all };
        all.extend(blocks.iter().flat_map(|block| seqs(block)));
        assert!(last.end() > at, "reading on must make progress");
        at = last.end();
    }
}

/// What a replay gave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) sessions: Vec<SessionRecord>,
    pub(crate) seqs: Vec<u64>,
}

impl Replayed {
    pub(crate) fn take(&mut self, replay: Replay<'_>) {
        match replay {
            Replay::Session(session) => self.sessions.push(session),
            Replay::Block(block) => self.seqs.extend(seqs(block)),
        }
    }
}
