//! What the journal needs of the database beneath it. [`crate::journal::rocksdb::database`] is the one on disk; [`crate::journal::testing::simulated`] is the
//! simulator's, so that the very code that commits, trims, reads and recovers runs there too.

use std::fmt::Display;
use std::io;

use crate::journal::error::StorageError;
use crate::model::{Instance, JournalId, Offset};

/// The family of blocks; their keys are [`block_key`]s.
pub(in crate::journal) const JOURNAL: &str = "journal";
/// The family that holds the records of [`crate::journal::meta`].
pub(in crate::journal) const META: &str = "meta";
/// The family of dead letters.
pub(in crate::journal) const DEAD: &str = "dead";

/// The key of the block that begins at `first`.
pub(in crate::journal) fn block_key(first: Offset) -> [u8; 8] {
    first.0.to_be_bytes()
}

/// The witness lies outside of the database, and shows whether the database has lost something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Witness {
    /// The directory is being made: there was never a journal in it.
    NotInService,
    /// So much was durable when it was written.
    Durable {
        /// Every entry below was durable.
        end: Offset,
        /// That many changes of the database were: entries, sessions, dead letters.
        changes: u64,
    },
}

impl Witness {
    /// Every entry below was durable.
    pub fn end(self) -> Offset {
        match self {
            Self::NotInService => Offset(0),
            Self::Durable { end, .. } => end,
        }
    }
}

/// Column families of keys and values. Values are masked where they are stored.
pub trait Database: Sized + Send + Sync + 'static {
    /// Changes that are applied together.
    type Batch;
    type Error: Display;
    type Cursor<'a>: Cursor<Error = Self::Error>;
    /// What lies beside the database.
    type Sidecar: Sidecar;

    /// An empty batch; `bytes` is about what will be put into it. Where the log keeps it, but not in the database, it says that the
    /// first `synced` changes were known to be synced when it was made: what a start tells damage from a torn write by.
    fn batch(&self, bytes: usize, synced: u64) -> Self::Batch;
    /// Adds a value to a batch. `scratch` is for the stored form, and may be used again.
    fn put(&self, batch: &mut Self::Batch, family: &'static str, key: &[u8], value: &[u8], scratch: &mut Vec<u8>);
    /// Adds the deletion of a key.
    fn delete(&self, batch: &mut Self::Batch, family: &'static str, key: &[u8]);
    /// Adds the deletion of the keys `from..to`.
    fn delete_range(&self, batch: &mut Self::Batch, family: &'static str, from: &[u8], to: &[u8]);
    /// Applies a batch, all or nothing, and syncs it, and with it all that was written before.
    fn write(&self, batch: Self::Batch) -> Result<(), Self::Error>;
    /// Applies a batch, all or nothing. Readers see it; a power cut may take it back, and with it all that was written after it,
    /// until a [`sync`](Self::sync) that began later has returned.
    fn write_ahead(&self, batch: Self::Batch) -> Result<(), Self::Error>;
    /// Syncs all that was written before this call. Others may write meanwhile.
    fn sync(&self) -> Result<(), Self::Error>;
    /// Whether the next write may be made while the one before is not synced: a power cut may keep the next one and not that, and the
    /// database has to see that something is missing. It does not where the next write begins another log, nor where what is lost
    /// would read as zeros, as in a log that grows.
    fn may_overtake(&self) -> bool {
        true
    }

    /// The value of a key.
    fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;
    /// A cursor over the keys `from..to`, whose values are masked.
    fn iterate(&self, family: &'static str, from: &[u8], to: &[u8]) -> Self::Cursor<'_>;
    /// Counts every change that the database has seen.
    fn sequence(&self) -> u64;
    /// The files that may hold this key.
    fn files_of(&self, family: &'static str, key: &[u8]) -> Vec<String>;
    /// Removes table files that hold nothing but entries below `low`. What such a file deletes may come back:
    /// readers must not look below `low`.
    fn delete_files_below(&self, low: Offset) -> Result<(), Self::Error>;
    /// Whether another write-ahead log is to be begun, since a better one waits. Asked several times a second.
    fn is_log_due(&self) -> bool {
        false
    }
    /// Begins another write-ahead log, without waiting for more than that. Nothing may be unsynced, nor be written meanwhile.
    fn begin_log(&self) -> Result<(), Self::Error> {
        Ok(())
    }
    /// Nothing was written for a while: gives up memory that is kept for what is written, as far as that makes the next writes no
    /// slower. Returns whether something is left to be done at the next look. May begin another write-ahead log, as
    /// [`begin_log`](Self::begin_log) does.
    fn rest(&self) -> Result<bool, Self::Error> {
        Ok(false)
    }
    /// The time of day, in microseconds since 1970.
    fn unix_us(&self) -> u64;
    /// The tables of a family in the order of their last keys.
    fn tables(&self, _family: &'static str) -> Vec<Table> {
        Vec::new()
    }
    /// Whether an error says that what is stored is not what was written, and not that it cannot be read now.
    fn is_damage(_error: &Self::Error) -> bool {
        true
    }
    /// What is not any more where the database has put it, and why it was that: a file that was deleted or replaced. With
    /// `tables`, their files are looked for too. Cheap enough for once a second, without `tables` for ten times a second.
    fn lost(&self, _tables: bool) -> Option<String> {
        None
    }
}

/// A file of a family's keys and values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// The highest key in it. The lowest is no help: a table also deletes what lies far below.
    pub last: Vec<u8>,
    /// The length of the file in bytes.
    pub bytes: u64,
}

/// A place among the keys of a family. Invalid at first, at the end, and where the database cannot read on.
pub trait Cursor {
    type Error: Display;

    /// To the first key at or after this one.
    fn seek(&mut self, key: &[u8]);
    /// To the last key at or before this one.
    fn seek_for_prev(&mut self, key: &[u8]);
    fn seek_to_first(&mut self);
    fn next(&mut self);
    fn valid(&self) -> bool;
    /// Returns the key, and the value as it is stored, masked.
    fn item(&self) -> Option<(&[u8], &[u8])>;
    /// Why the cursor is invalid, if that is not the end.
    fn status(&self) -> Result<(), Self::Error>;
}

/// The directory around the database.
pub trait Sidecar: Send + Sync + 'static {
    /// Replaces the witness, and returns when the new one is on the disk.
    fn write_witness(&self, witness: Witness) -> io::Result<()>;
    /// Bytes that this process may still write; `u64::MAX` where the file system does not tell.
    fn free_bytes(&self) -> Result<u64, StorageError>;
    /// Which journal this is, if it has a name.
    fn id(&self) -> Option<JournalId> {
        None
    }
    /// Which of its starts this is, where they are counted.
    fn instance(&self) -> Option<Instance> {
        None
    }
    /// What of the directory is not any more what this process has opened.
    fn lost(&self) -> Option<String> {
        None
    }
    /// The same of the witness, when this was written last.
    fn lost_witness(&self, _written: Witness) -> Option<String> {
        None
    }
}
