//! A record that no handler could process.

use duragram_proto::Seq;

use super::{Offset, SessionId, SinkId};

/// Which record, and whose dead letter it is: in the journal's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeadLetterId {
    /// The offset of its entry.
    pub offset: Offset,
    /// Which record of the entry it is, from 0.
    pub index: u16,
    /// The sink that gave it up.
    pub sink: SinkId,
}

/// A record that could not be processed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// It names the sink and the record, and with them the dead letter.
    pub id: DeadLetterId,
    /// The session that sent it.
    pub session: SessionId,
    /// The seq of its datagram.
    pub seq: Seq,
    /// The application routes by this number.
    pub channel: u16,
    /// Arrival of its datagram, in microseconds since 1970.
    pub received_unix_us: u64,
    /// The record as it came; empty for a gap.
    pub payload: Vec<u8>,
    /// The first seq of a gap, whose last one is `seq`; `None` for a record.
    pub gap_from: Option<Seq>,
    /// What its handler said last.
    pub error: String,
    /// How often a handler has tried.
    pub attempts: u16,
    /// When it became a dead letter, in microseconds since 1970.
    pub since_unix_us: u64,
    /// Its sender asked, and hears that it failed: that stands, whatever becomes of the letter.
    pub told_failed: bool,
}
