//! One accepted datagram as the journal keeps it.

use duragram_proto::Seq;
use duragram_proto::codec::Records;

use super::{DialectId, Offset, SessionId};

/// An entry of the journal is one of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A client sent it, as one message or a batch of records.
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
    /// The protocol in which it came.
    pub dialect: DialectId,
    /// The session that sent it.
    pub session: SessionId,
    /// Its number within the session.
    pub seq: Seq,
    /// What the client sent: `seq − span` is the lowest seq that the client held unacked. Recovery replays the floor from it.
    /// Below `seq`.
    pub span: u16,
    /// What the client sent: it had abandoned seqs below.
    pub skip: bool,
    /// The payload is a run of at least one record.
    pub batch: bool,
    /// Its sender wants an answer. Never together with `batch`.
    pub asks: bool,
    /// It came sealed: its epoch can never be opened again (PROTOCOL.md#sealed-epoch).
    pub sealed: bool,
    /// The application routes by this number.
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
    /// What came with the payload.
    pub meta: EntryMeta,
    /// The payload, as it came.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The application's records. Empty for a gap.
    pub fn records(&self) -> Records<'a> {
        if self.meta.batch || self.kind != EntryKind::Data {
            Records::new(self.payload)
        } else {
            Records::whole(self.payload)
        }
    }
}
