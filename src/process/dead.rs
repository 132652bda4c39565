//! Dead letters: records whose handler gave up, kept with the reason until an operator acts.

use duragram_proto::Seq;

use super::handler::{Content, Record};
use crate::journal::StorageError;
use crate::types::{Offset, SessionId};

/// A record that its handler could not process, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// Of the entry that held it.
    pub offset: Offset,
    /// Its place within the entry.
    pub index: u16,
    /// Whose.
    pub session: SessionId,
    /// The number of its datagram within the session. Of a gap: its last seq.
    pub seq: Seq,
    /// The application's routing number.
    pub channel: u16,
    /// Arrival, in microseconds since 1970.
    pub received_unix_us: u64,
    /// The message. Empty for a gap.
    pub payload: Vec<u8>,
    /// Of a gap: its first seq.
    pub gap_from: Option<Seq>,
    /// What the handler said last.
    pub error: String,
    /// How often it was tried.
    pub attempts: u16,
    /// When it was given up, in microseconds since 1970.
    pub died_unix_us: u64,
}

impl DeadLetter {
    /// The letter for a record that was given up at `died_unix_us`.
    pub fn new(record: &Record<'_>, error: &str, attempts: u16, died_unix_us: u64) -> Self {
        let (payload, gap_from) = match record.content {
            Content::Payload(payload) => (payload.to_vec(), None),
            Content::Gap { from, .. } => (Vec::new(), Some(from)),
        };
        Self {
            offset: record.offset,
            index: record.index,
            session: record.session,
            seq: record.seq,
            channel: record.channel,
            received_unix_us: record.received_unix_us,
            payload,
            gap_from,
            error: error.to_owned(),
            attempts,
            died_unix_us,
        }
    }

    /// The record as its handler saw it.
    pub fn record(&self) -> Record<'_> {
        Record {
            offset: self.offset,
            index: self.index,
            session: self.session,
            seq: self.seq,
            channel: self.channel,
            received_unix_us: self.received_unix_us,
            content: self.gap_from.map_or(Content::Payload(&self.payload), |from| Content::Gap { from, to: self.seq }),
        }
    }
}

/// Where lanes put dead letters.
pub trait DeadLetterStore: Send + Sync {
    /// Stores a letter, synced: when this returns, the watermark may pass its record. Replaces one of the same record.
    ///
    /// # Errors
    /// The letter may or may not be stored. The server must stop.
    fn put(&self, letter: &DeadLetter) -> Result<(), StorageError>;

    /// Deletes the letter of a record, if there is one.
    ///
    /// # Errors
    /// The letter may or may not be deleted. The server must stop.
    fn remove(&self, offset: Offset, index: u16) -> Result<(), StorageError>;
}
