//! The journal on a database: over RocksDB, and over the simulator's (`simulated`).
//!
//! | part | what it does |
//! |---|---|
//! | `writer` | writes commits, and trims |
//! | `write_thread` | the thread that writes large ones beside the committer |
//! | `reader` | reads committed blocks back, and verifies them |
//! | `dead_letters` | keeps dead letters |
//! | `housekeeping` | looks after witness, table files and write-ahead log |
//! | `quiet` | gives memory back while nothing is written |
//!
//! What all these need of a database is in `journal::database`.
//!
//! One thread writes at a time; the others work beside it on the same database. Whatever fails to be written poisons them all
//! for good: after a failed sync nobody knows what is on the disk, and asking again gets a lie. How a database is opened, and
//! why that is most of the work, is in `rocksdb::open`.

mod dead_letters;
mod housekeeping;
mod quiet;
pub(in crate::journal) mod reader;
mod write_thread;
mod writer;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::journal::database::{DEAD, Database, Sidecar as _};
use crate::journal::error::{Damage, DamageKind, DamagePlace};
use crate::journal::recovery::{Scan, Witness, holes};
pub(in crate::journal) use crate::journal::store::dead_letters::StoredDeadLetters;
pub(in crate::journal) use crate::journal::store::housekeeping::Housekeeping;
use crate::journal::store::housekeeping::HousekeepingThread;
#[cfg(test)]
pub(in crate::journal) use crate::journal::store::housekeeping::LOOK_INTERVAL;
use crate::journal::store::reader::Reader;
use crate::journal::store::write_thread::WriteThread;
pub(in crate::journal) use crate::journal::store::writer::StoredWriter;
use crate::journal::{Commit, Durable, Journal, JournalError, Landed, LetterCounts, Opened, Room, StorageError};
use crate::limits::LAUNCH_BYTES;
use crate::model::{DeadLetterId, DurabilityLevel, Offset};

/// The journal in a data directory, which it holds until it and its readers are dropped.
///
/// Dropping it waits for the commit under way and writes the witness; there is nothing else to close.
pub struct StoredJournal<D: Database> {
    shared: Arc<Shared<D>>,
    /// Away while the write thread has a commit.
    writer: Option<StoredWriter<D>>,
    /// A commit that [`Journal::land`] will write itself.
    waiting: Option<Commit>,
    thread: Option<WriteThread<D>>,
    housekeeping: Option<HousekeepingThread>,
}

/// What writer, readers and dead letters have in common.
pub(in crate::journal) struct Shared<D: Database> {
    pub(in crate::journal) store: D,
    /// Every entry below is synced. Readers do not look beyond.
    end: AtomicU64,
    /// No entry below is kept. RocksDB may still show some.
    low: AtomicU64,
    /// Offsets that were given up, in order.
    pub(in crate::journal) holes: Vec<(Offset, Offset)>,
    /// The start has not read what is below.
    pub(in crate::journal) unread_below: Offset,
    /// Where reads of that have ended, with the checksum of the last block: the next reads go on there.
    pub(in crate::journal) read_ends: Mutex<VecDeque<(Offset, u32)>>,
    /// The first failure of a write. Set once, never cleared.
    failed: OnceLock<StorageError>,
    /// Dead letters; held while one is put or deleted, so that they are counted right.
    dead: Mutex<LetterCounts>,
    /// After the store: the directory is free only when the database is closed.
    pub(in crate::journal) dir: D::Sidecar,
}

/// An error of the database, which may have met damage while it merged tables, and says so whatever is asked of it next.
fn database_error<D: Database>(action: String, error: &D::Error) -> StorageError {
    match D::is_damage(error) {
        true => {
            StorageError::damaged(action, Damage::new(DamageKind::DatabaseUnreadable, DamagePlace::Database, error))
        }
        false => StorageError::new(action, error),
    }
}

impl<D: Database> Shared<D> {
    /// Of a database that a scan has found good.
    fn new(store: D, dir: D::Sidecar, scan: &Scan) -> Self {
        Self {
            store,
            end: AtomicU64::new(scan.end.0),
            low: AtomicU64::new(scan.low.0),
            holes: holes(&scan.losses),
            unread_below: scan.unread_below,
            read_ends: Mutex::default(),
            failed: OnceLock::new(),
            dead: Mutex::new(scan.dead.clone()),
            dir,
        }
    }

    fn check(&self) -> Result<(), StorageError> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Poisons the journal, unless it is poisoned already, and returns the first cause.
    fn fail(&self, action: String, cause: impl std::fmt::Display) -> StorageError {
        self.fail_with(StorageError::new(action, cause))
    }

    fn fail_with(&self, error: StorageError) -> StorageError {
        self.failed.get_or_init(|| error).clone()
    }

    fn write(&self, batch: D::Batch, action: impl FnOnce() -> String) -> Result<(), StorageError> {
        self.check()?;
        self.store.write(batch).map_err(|error| self.fail_with(database_error::<D>(action(), &error)))
    }

    /// The same for a batch that deletes these dead letters.
    fn write_retried(
        &self,
        batch: D::Batch,
        retried: &[DeadLetterId],
        action: impl FnOnce() -> String,
    ) -> Result<(), StorageError> {
        if retried.is_empty() {
            return self.write(batch, action);
        }
        // Held up by no more than a write of letters, behind which the database would put this one anyway; and only when an
        // operator has asked for it.
        let mut counts = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = Vec::with_capacity(retried.len());
        for id in retried {
            if self.has_letter(*id).map_err(|error| self.fail_with(error))? {
                kept.push(*id);
            }
        }
        self.write(batch, action)?;
        kept.into_iter().for_each(|id| counts.remove(id));
        Ok(())
    }

    fn has_letter(&self, id: DeadLetterId) -> Result<bool, StorageError> {
        let found = self.store.get(DEAD, &id.key()).map(|value| value.is_some());
        found.map_err(|error| database_error::<D>(format!("reading the dead letter of entry {}", id.offset), &error))
    }

    pub(in crate::journal) fn room(&self, reserve_bytes: u64) -> Result<Room, StorageError> {
        Ok(Room::of(self.dir.free_bytes()?, reserve_bytes))
    }

    pub(in crate::journal) fn failure(&self) -> Option<JournalError> {
        self.failed.get().cloned().map(JournalError::Failed)
    }

    /// The receipt for everything that is synced.
    pub(in crate::journal) fn durable(&self) -> Durable {
        Durable { block: None, end: self.end(), level: DurabilityLevel::Synced }
    }

    pub(in crate::journal) fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }

    /// The database counts a change when it can be read, which is after its sync.
    fn witness(&self) -> Witness {
        Witness::Durable { end: self.end(), changes: self.store.sequence() }
    }

    pub(in crate::journal) fn low(&self) -> Offset {
        Offset(self.low.load(Ordering::Acquire))
    }
}

/// A journal over a database that a scan has found good, and what is known of it.
pub(in crate::journal) fn opened<D: Database, J>(
    journal: J,
    shared: &Arc<Shared<D>>,
    scan: Scan,
    given_up: Vec<Damage>,
) -> Opened<J> {
    Opened {
        journal,
        reader: Arc::new(Reader(Arc::clone(shared))),
        dead: Arc::new(StoredDeadLetters(Arc::clone(shared))),
        lanes: scan.lanes,
        former: scan.former,
        sinks: scan.sinks,
        checkpoint_at: scan.checkpoint_at,
        low: scan.low,
        end: scan.end,
        extents: scan.extents,
        given_up,
    }
}

impl<D: Database> StoredJournal<D> {
    /// A journal that this writer writes.
    pub(in crate::journal) fn new(writer: StoredWriter<D>) -> Self {
        let shared = writer.shared();
        Self { shared, writer: Some(writer), waiting: None, thread: None, housekeeping: None }
    }

    /// Starts a thread for the duties of a journal that stands still.
    pub(in crate::journal) fn start_housekeeping(&mut self, interval: Duration) -> Result<(), StorageError> {
        let housekeeping = Housekeeping::begin(&self.shared)?;
        self.housekeeping = Some(HousekeepingThread::start(self.shared(), housekeeping, interval)?);
        Ok(())
    }

    pub(in crate::journal) fn shared(&self) -> Arc<Shared<D>> {
        self.shared.clone()
    }
}

impl<D: Database> Journal for StoredJournal<D> {
    fn durable(&self) -> Durable {
        self.shared.durable()
    }

    fn append(&mut self, commit: Commit) -> Result<(), JournalError> {
        self.shared.check()?;
        if self.waiting.is_some() {
            return Err(self.shared.fail("appending a commit".into(), "another one is under way").into());
        }
        let Some(writer) = self.writer.take() else {
            return Err(self.shared.fail("appending a commit".into(), "another one is being written").into());
        };
        match &self.thread {
            Some(thread) if commit.size() >= LAUNCH_BYTES => {
                thread.write(writer, commit).map_err(|error| self.shared.fail_with(error))?;
            }
            _ => (self.writer, self.waiting) = (Some(writer), Some(commit)),
        }
        Ok(())
    }

    fn landed(&self) -> bool {
        self.waiting.is_some() || self.writer.is_none() && self.thread.as_ref().is_none_or(WriteThread::has_written)
    }

    fn land(&mut self) -> Result<Landed, JournalError> {
        if let (Some(writer), Some(commit)) = (&mut self.writer, self.waiting.take()) {
            return Ok(writer.write(commit)?);
        }
        let Some(thread) = self.thread.as_ref().filter(|_| self.writer.is_none()) else {
            return Err(self.shared.fail("landing a commit".into(), "none is under way").into());
        };
        let (writer, result) = thread.written().map_err(|error| self.shared.fail_with(error))?;
        self.writer = Some(writer);
        Ok(result?)
    }

    fn notify_landings(&mut self, notify: Box<dyn Fn() + Send>) -> io::Result<()> {
        self.thread = Some(WriteThread::start(notify)?);
        Ok(())
    }

    fn room(&self, reserve_bytes: u64) -> Result<Room, StorageError> {
        self.shared.room(reserve_bytes)
    }

    fn failure(&self) -> Option<JournalError> {
        self.shared.failure()
    }
}

impl<D: Database> Drop for StoredJournal<D> {
    fn drop(&mut self) {
        // What is under way is written before the last witness is.
        drop(self.thread.take());
        let Some(housekeeping) = self.housekeeping.take() else { return };
        housekeeping.stop();
        if let Some(error) = self.shared.failed.get() {
            tracing::error!(%error, "the journal is closed after a failure");
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // runs of entries, of which some tests commit one
pub(in crate::journal) mod tests;
