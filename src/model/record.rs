//! What an application sends and a handler gets: a message, or the news that some were lost.

use duragram_proto::Seq;

use super::{Entry, EntryKind, Offset, SessionId};

/// One application message, or the news that some were lost. Durable in the journal before a handler sees it.
///
/// (`offset`, `index`) names a record forever: who stores it beside the effect gets each effect exactly once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Of the entry that holds it.
    pub offset: Offset,
    /// Its place within the entry, from 0; above 0 only in batches.
    pub index: u16,
    /// The session that sent it.
    pub session: SessionId,
    /// The number of its datagram within the session. Of a gap: its last seq.
    pub seq: Seq,
    /// The application routes by this number.
    pub channel: u16,
    /// Arrival of its datagram, in microseconds since 1970.
    pub received_unix_us: u64,
    /// Its sender wants an answer.
    pub asks: bool,
    /// The message, or what is missing.
    pub content: Content<'a>,
}

/// A [`Record`] holds one of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    /// A client sent these bytes, which the server does not look into.
    Payload(&'a [u8]),
    /// The client holds acks for these seqs, and this journal does not hold them: data was lost before it came here
    /// (a lying disk, a restored backup).
    Gap {
        /// First seq that is missing.
        from: Seq,
        /// Last seq that is missing.
        to: Seq,
    },
}

/// The records of an entry, in order; of a gap, the news of it.
pub(crate) fn records_of<'a>(entry: &Entry<'a>) -> impl Iterator<Item = Record<'a>> + use<'a> {
    let (offset, meta) = (entry.offset, entry.meta);
    let gap = match entry.kind {
        EntryKind::Gap { from, to } => Some((0, Content::Gap { from, to })),
        EntryKind::Data => None,
    };
    // A gap has no records. A datagram holds at most 32,753: two bytes each for the length, and 65,507 at most in all.
    let payloads = (0..=u16::MAX).zip(entry.records().map(Content::Payload));
    gap.into_iter().chain(payloads).map(move |(index, content)| Record {
        offset,
        index,
        session: meta.session,
        seq: meta.seq,
        channel: meta.channel,
        received_unix_us: meta.received_unix_us,
        asks: meta.asks,
        content,
    })
}
