//! Dead letters: records whose handler gave up, kept with their error until an operator acts.
//!
//! What the column family `dead` holds, numbers of keys big-endian, values in an [`envelope`]:
//!
//! | key | whose letter it is |
//! |---|---|
//! | offset u64, index u16 | the embedded handler's |
//! | offset u64, index u16, id u128 | the sink's with this id, which is not 0 (since format 4 of the data directory) |

mod counts;

pub use counts::LetterCounts;
use duragram_proto::{ClientId, Epoch, Seq};
use rkyv::{Archive, Deserialize, Serialize};

use crate::journal::StorageError;
use crate::journal::envelope::{self, Record, RecordError};
use crate::limits::DEAD_LETTERS_AT_ONCE;
use crate::model::{DeadLetter, DeadLetterId, Offset, SessionId, SinkId};

/// What dead letters may take of the disk. Without room for them nothing is written: the lane waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeadLetterRoom {
    /// Letters that are kept at most.
    pub letters_max: u64,
    /// Free space that they must leave, in bytes.
    pub reserve_bytes: u64,
}

impl DeadLetterRoom {
    /// All the room that there is.
    pub const ANY: Self = Self { letters_max: u64::MAX, reserve_bytes: 0 };

    /// Whether `new` letters more fit beside `kept` ones on a disk with so much free space.
    pub(in crate::journal) fn for_more(self, kept: u64, new: u64, free_bytes: u64) -> Result<(), NoRoom> {
        if new > 0 && kept.saturating_add(new) > self.letters_max {
            return Err(NoRoom::Letters { kept, letters_max: self.letters_max });
        }
        if free_bytes < self.reserve_bytes {
            return Err(NoRoom::Space { free_bytes, reserve_bytes: self.reserve_bytes });
        }
        Ok(())
    }
}

/// Why dead letters were not kept for now. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoRoom {
    /// Too many are kept already.
    #[error(
        "{kept} dead letters are kept, of {letters_max} that may be (dead_letters_max): retry or discard some (`duragram dead`)"
    )]
    Letters {
        /// So many dead letters are kept now.
        kept: u64,
        /// How many may be kept.
        letters_max: u64,
    },
    /// The disk is nearly full.
    #[error("{free_bytes} bytes are free, less than reserve_bytes = {reserve_bytes}: free some space")]
    Space {
        /// The file system has so many bytes left.
        free_bytes: u64,
        /// How much must stay free.
        reserve_bytes: u64,
    },
}

/// The store of dead letters. Every change is synced before it returns, and a failed one poisons the journal like a failed
/// commit. A letter that was processed at last goes with the checkpoint that says so
/// ([`Checkpoint::retried`](crate::journal::Checkpoint::retried)).
pub trait DeadLetters: Send + Sync {
    /// Keeps dead letters, all in one write or none, if there is room for them; each replaces the one with the same id, as
    /// after a crash. The inner error says that there is no room now.
    fn put_all(&self, letters: &[DeadLetter], room: DeadLetterRoom) -> Result<Result<(), NoRoom>, StorageError>;

    /// Keeps one, whatever room there is.
    fn put(&self, letter: &DeadLetter) -> Result<(), StorageError> {
        let kept = self.put_all(std::slice::from_ref(letter), DeadLetterRoom::ANY)?;
        kept.map_err(|no_room| StorageError::new("putting a dead letter", no_room))
    }

    /// At most `limit` dead letters in order, the first being `from` or the next one after it.
    fn list(&self, from: DeadLetterId, limit: usize) -> Result<Vec<DeadLetter>, StorageError>;

    /// Reads one dead letter; `None` when it is not kept.
    fn get(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, StorageError>;

    /// Forgets one dead letter, and returns whether it was there.
    fn delete(&self, id: DeadLetterId) -> Result<bool, StorageError> {
        self.delete_all(&[id]).map(|deleted| deleted > 0)
    }

    /// Forgets several, all in one write or none; how many of them were there.
    fn delete_all(&self, ids: &[DeadLetterId]) -> Result<u64, StorageError>;

    /// Forgets all letters of a sink that is removed; how many there were. It must not put any meanwhile.
    ///
    /// # Errors
    /// Some may be forgotten and some not: asking again goes on with the rest, unless the journal has failed.
    fn delete_of(&self, sink: SinkId) -> Result<u64, StorageError> {
        let (mut deleted, mut next) = (0, Some(DeadLetterId::FIRST));
        while let Some(from) = next {
            let letters = self.list(from, DEAD_LETTERS_AT_ONCE)?;
            next = letters.last().and_then(|last| last.id.next());
            let ids: Vec<_> = letters.iter().map(|letter| letter.id).filter(|id| id.sink == sink).collect();
            deleted += self.delete_all(&ids)?;
        }
        Ok(deleted)
    }

    /// How many are kept of each sink. Costs no reading.
    fn counts(&self) -> LetterCounts;

    /// Counts the dead letters of all sinks, without reading them.
    fn count(&self) -> u64 {
        self.counts().total()
    }
}

impl DeadLetterId {
    /// The id before all others.
    pub const FIRST: Self = Self { offset: Offset(0), index: 0, sink: SinkId::EMBEDDED };

    /// The one that sorts right after it, if any can: that of the next sink, of the next record, of the next entry.
    pub fn next(self) -> Option<Self> {
        if let Some(sink) = self.sink.0.checked_add(1) {
            return Some(Self { sink: SinkId(sink), ..self });
        }
        let sink = SinkId::EMBEDDED;
        match self.index.checked_add(1) {
            Some(index) => Some(Self { index, sink, ..self }),
            None => self.offset.0.checked_add(1).map(|offset| Self { offset: Offset(offset), index: 0, sink }),
        }
    }

    /// The length of the longest key in bytes, that of a configured sink.
    pub(in crate::journal) const KEY_LEN_MAX: usize = 26;
    /// The range of all keys ends here: every key sorts before it.
    pub(in crate::journal) const KEYS_END: [u8; Self::KEY_LEN_MAX + 1] = [0xff; Self::KEY_LEN_MAX + 1];

    /// Sorts as the id does: what a longer key begins with comes before it.
    pub(in crate::journal) fn key(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(Self::KEY_LEN_MAX);
        key.extend_from_slice(&self.offset.0.to_be_bytes());
        key.extend_from_slice(&self.index.to_be_bytes());
        if self.sink != SinkId::EMBEDDED {
            key.extend_from_slice(&self.sink.0.to_be_bytes());
        }
        key
    }

    /// `None` when it is no id's key. Each id has one: the embedded handler's is never written out.
    fn from_key(key: &[u8]) -> Option<Self> {
        let (offset, rest) = key.split_first_chunk()?;
        let (index, sink) = rest.split_first_chunk()?;
        let (offset, index) = (Offset(u64::from_be_bytes(*offset)), u16::from_be_bytes(*index));
        let sink = match sink {
            [] => SinkId::EMBEDDED,
            sink => Some(SinkId(u128::from_be_bytes(sink.try_into().ok()?))).filter(|id| *id != SinkId::EMBEDDED)?,
        };
        Some(Self { offset, index, sink })
    }
}

/// What is done when so many letters are deleted, of which this is the first: for errors.
pub(in crate::journal) fn deleting(count: usize, first: DeadLetterId) -> String {
    match count {
        1 => format!("deleting the dead letter of entry {}", first.offset),
        _ => format!("deleting {count} dead letters from entry {} on", first.offset),
    }
}

/// A dead letter as it is stored.
#[derive(Archive, Serialize, Deserialize)]
struct Stored {
    client: u64,
    seq: u64,
    received_unix_us: u64,
    since_unix_us: u64,
    /// 0 when it is no gap.
    gap_from: u64,
    epoch: u32,
    attempts: u16,
    /// Up to format 4 of the data directory these were the upper half of `attempts`, which never came to so many: 0.
    flags: u16,
    channel: u16,
    payload: Vec<u8>,
    error: String,
}

/// The sender asked, and hears that it failed.
const TOLD_FAILED: u16 = 1;

impl Record for Stored {
    const VERSION: u32 = 1;
}

impl DeadLetter {
    /// The value to store under the id's key.
    pub(in crate::journal) fn encode(&self) -> Vec<u8> {
        envelope::encode(&self.id.key(), &self.stored())
    }

    fn stored(&self) -> Stored {
        Stored {
            client: self.session.client.0,
            seq: self.seq.0,
            received_unix_us: self.received_unix_us,
            since_unix_us: self.since_unix_us,
            gap_from: self.gap_from.map_or(0, |seq| seq.0),
            epoch: self.session.epoch.value(),
            attempts: self.attempts,
            flags: if self.told_failed { TOLD_FAILED } else { 0 },
            channel: self.channel,
            payload: self.payload.clone(),
            error: self.error.clone(),
        }
    }

    /// The dead letter stored under `key`.
    pub(in crate::journal) fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let malformed = |what: &str| RecordError::Malformed(what.into());
        let id = DeadLetterId::from_key(key).ok_or_else(|| malformed("its key is not that of a dead letter"))?;
        let stored: Stored = envelope::decode(key, value)?;
        if stored.flags & !TOLD_FAILED != 0 {
            return Err(malformed("flags that this program does not know"));
        }
        let epoch = Epoch::new(stored.epoch).ok_or_else(|| malformed("epoch 0"))?;
        Ok(Self {
            id,
            session: SessionId { client: ClientId(stored.client), epoch },
            seq: Seq(stored.seq),
            channel: stored.channel,
            received_unix_us: stored.received_unix_us,
            payload: stored.payload,
            gap_from: (stored.gap_from > 0).then_some(Seq(stored.gap_from)),
            error: stored.error,
            attempts: stored.attempts,
            since_unix_us: stored.since_unix_us,
            told_failed: stored.flags & TOLD_FAILED != 0,
        })
    }
}

#[cfg(test)]
pub(in crate::journal) mod tests;
