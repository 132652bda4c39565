//! The block: the entries of one group commit as one RocksDB value.

use duragram_proto::Seq;
use duragram_proto::codec::Records;

use crate::types::{Offset, SessionId};

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A client's datagram.
    Data,
    /// Seqs that a client counts as acked but this journal does not hold: acked data was lost (design rule 4).
    Gap {
        /// First seq of the gap.
        from: Seq,
        /// Last seq of the gap.
        to: Seq,
    },
}

/// What is known of a datagram beside its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryMeta {
    /// Whose.
    pub session: SessionId,
    /// Its number within the session.
    pub seq: Seq,
    /// As sent: `seq − span` is the lowest seq that the client held unacked. Recovery replays the floor from it.
    pub span: u16,
    /// As sent: the client had abandoned seqs below.
    pub skip: bool,
    /// The payload is a run of records.
    pub batch: bool,
    /// The application's routing number.
    pub channel: u16,
    /// Arrival, in microseconds since 1970.
    pub received_unix_us: u64,
}

/// One accepted datagram (or gap) in a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Its place in the journal.
    pub offset: Offset,
    /// Data or gap. For a gap, `meta.seq` is the last seq of the gap and the payload is empty.
    pub kind: EntryKind,
    /// As it came.
    pub meta: EntryMeta,
    /// As it came.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The application's records. Empty for a gap.
    pub fn records(&self) -> Records<'a> {
        todo!()
    }
}

/// A committed block.
#[derive(Debug)]
pub struct Block {}

impl Block {
    /// The offset of its first entry.
    pub fn first(&self) -> Offset {
        todo!()
    }
    /// The offset after its last entry.
    pub fn end(&self) -> Offset {
        todo!()
    }
    /// Its size on disk, in bytes.
    pub fn size(&self) -> usize {
        todo!()
    }
    /// Its entries, in offset order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        std::iter::empty()
    }
}

/// A block being built. Reused from commit to commit; offsets are given when it is committed.
#[derive(Debug, Default)]
pub struct BlockBuilder {}

impl BlockBuilder {
    /// Adds a datagram.
    pub fn push(&mut self, _meta: &EntryMeta, _payload: &[u8]) {
        todo!()
    }
    /// Adds a gap: seqs `from..=to` of the session.
    pub fn push_gap(&mut self, _session: SessionId, _from: Seq, _to: Seq, _received_unix_us: u64) {
        todo!()
    }
    /// Entries so far.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// The size on disk so far, in bytes, nearly.
    pub fn size(&self) -> usize {
        todo!()
    }
}
