//! What the benchmarks share: datagrams, entries, and a journal in memory that does not grow.

use std::sync::Arc;

use duragram::journal::testing::memory::MemoryJournal;
use duragram::journal::{Block, BlockBuilder, Checkpoint, Journal};
use duragram::model::{DialectId, EntryMeta, SessionId};
use duragram_proto::codec::{Ack, Data, Datagram, Durability};
use duragram_proto::{ClientId, Epoch, Seq};

/// A kind of payload, with the name that it has in the results.
pub(crate) struct Payload {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) batch: bool,
}

impl Payload {
    pub(crate) fn plain(name: &'static str, len: usize) -> Self {
        Self { name, bytes: vec![7; len], batch: false }
    }

    /// A run of `records` records of `len` bytes.
    pub(crate) fn batch(name: &'static str, records: usize, len: u16) -> Self {
        let record = [&len.to_le_bytes()[..], &vec![7; usize::from(len)]].concat();
        Self { name, bytes: record.repeat(records), batch: true }
    }

    pub(crate) fn hundred_bytes() -> Self {
        Self::plain("100 B", 100)
    }

    pub(crate) fn all() -> [Self; 5] {
        [
            Self::plain("0 B", 0),
            Self::hundred_bytes(),
            Self::plain("1200 B", 1200),
            Self::batch("11 records of 100 B", 11, 100),
            Self::batch("20 records of 50 B", 20, 50),
        ]
    }
}

pub(crate) fn session(client: u64) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(1).expect("1 is not 0") }
}

pub(crate) fn data(session: SessionId, seq: u64, span: u16, payload: &Payload) -> Data<'_> {
    Data { batch: payload.batch, ..Data::whole(session.client, session.epoch, Seq(seq), span, &payload.bytes) }
}

pub(crate) fn ack(bitmap: &[u8]) -> Ack<'_> {
    Ack {
        client: session(1).client,
        epoch: session(1).epoch,
        floor: Seq(100_000),
        credit: 4096,
        durability: Durability::Synced,
        duplicate: false,
        complete: false,
        ready: false,
        delay_us: 100,
        bitmap,
    }
}

pub(crate) fn encoded(datagram: &Datagram<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let len = datagram.encode(&mut buffer).expect("none here is longer");
    buffer.truncate(len);
    buffer
}

pub(crate) fn meta(session: SessionId, seq: u64, payload: &Payload) -> EntryMeta {
    EntryMeta {
        dialect: DialectId::DURAGRAM,
        session,
        seq: Seq(seq),
        span: 0,
        skip: false,
        batch: payload.batch,
        asks: false,
        sealed: false,
        channel: 0,
        received_unix_us: 1_800_000_000_000_000,
    }
}

/// Commits a block and forgets it at once. Returns it.
pub(crate) fn commit_and_trim(journal: &mut MemoryJournal, block: &mut BlockBuilder) -> Arc<Block> {
    let receipt = journal.commit(block, &[]).expect("memory does not fail");
    let at = journal.end();
    journal.checkpoint(&Checkpoint { at, trim_below: at, ..Checkpoint::default() }).expect("memory does not fail");
    receipt.block().expect("it had entries").clone()
}
