//! Writing and syncing: the one place where the journal's database is changed.
//!
//! A write and its sync are two steps, so that one commit is written while another is synced. What is written can be read, and a
//! power cut may take it back; what a sync covers that began after the write had returned is durable, and [`Synced`] says so. After
//! an error of either nothing is written or synced any more.
//!
//! What may be lost in a power cut is the end of one log, never the end of one log but not what the next one begins with: the
//! database would read on behind the loss, and not see it. So no log is begun while anything is not synced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::journal::StorageError;
use crate::journal::database::Database;
use crate::journal::store::{Shared, database_error};
use crate::model::DeadLetterId;

/// How far the database is written and synced, in changes since it was made.
pub(super) struct Log {
    /// Held by whoever writes, also without syncing: nobody else may begin another log meanwhile.
    writing: Mutex<()>,
    synced: AtomicU64,
}

/// Proof that so many changes are on the disk. A sync alone makes it.
#[derive(Clone, Copy, Debug)]
pub(in crate::journal) struct Synced(u64);

impl Synced {
    /// So many changes are.
    pub(super) fn changes(self) -> u64 {
        self.0
    }

    /// Whether the first so many changes are on the disk.
    pub(super) fn covers(self, changes: u64) -> bool {
        changes <= self.0
    }
}

impl Log {
    /// Of a database all of whose changes are on the disk.
    pub(super) fn new(changes: u64) -> Self {
        Self { writing: Mutex::default(), synced: AtomicU64::new(changes) }
    }

    /// So many changes are known to be on the disk.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    fn note(&self, changes: u64) -> Synced {
        self.synced.fetch_max(changes, Ordering::AcqRel);
        Synced(changes)
    }
}

impl<D: Database> Shared<D> {
    /// A batch that is to be written next.
    pub(super) fn batch(&self, bytes: usize) -> D::Batch {
        self.store.batch(bytes, self.log.synced())
    }

    /// Writes a batch and syncs it, and with it all that was written before.
    ///
    /// # Errors
    /// The first one poisons the journal. Whether the batch is on the disk is unknown.
    pub(super) fn write(&self, batch: D::Batch, action: impl FnOnce() -> String) -> Result<Synced, StorageError> {
        let _writing = self.writing();
        self.write_with(batch, action, D::write).map(|changes| self.log.note(changes))
    }

    /// Writes a batch, and returns how many changes the database has seen with it: [`sync`](Self::sync) makes them durable.
    ///
    /// # Errors
    /// As those of [`write`](Self::write).
    pub(super) fn write_ahead(&self, batch: D::Batch, action: impl FnOnce() -> String) -> Result<u64, StorageError> {
        let _writing = self.writing();
        self.write_with(batch, action, D::write_ahead)
    }

    /// Syncs all that was written before this call. Others may write meanwhile.
    ///
    /// # Errors
    /// The first one poisons the journal. How much is on the disk is unknown.
    pub(super) fn sync(&self) -> Result<Synced, StorageError> {
        self.check()?;
        // Read before the sync begins: what can be read was written.
        let changes = self.store.sequence();
        let synced = self.store.sync();
        synced.map_err(|error| self.fail_with(database_error::<D>("syncing the write-ahead log".into(), &error)))?;
        Ok(self.log.note(changes))
    }

    /// Lets the database look after its log, with nothing unsynced in it.
    ///
    /// # Errors
    /// As those of [`write`](Self::write).
    pub(super) fn tend_log(&self) -> Result<(), StorageError> {
        let _writing = self.writing();
        self.sync_what_is_written()?;
        let tended = self.store.tend_log();
        tended.map_err(|error| self.fail_with(database_error::<D>("beginning another write-ahead log".into(), &error)))
    }

    fn writing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.log.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_with(
        &self,
        batch: D::Batch,
        action: impl FnOnce() -> String,
        write: impl FnOnce(&D, D::Batch) -> Result<(), D::Error>,
    ) -> Result<u64, StorageError> {
        self.check()?;
        if self.is_ahead() && self.store.may_begin_log() {
            self.sync()?;
        }
        write(&self.store, batch).map_err(|error| self.fail_with(database_error::<D>(action(), &error)))?;
        Ok(self.store.sequence())
    }

    /// Whether anything is written that is not known to be synced.
    fn is_ahead(&self) -> bool {
        self.store.sequence() > self.log.synced()
    }

    fn sync_what_is_written(&self) -> Result<(), StorageError> {
        if self.is_ahead() { self.sync().map(drop) } else { Ok(()) }
    }

    /// Writes a batch that deletes these dead letters by `write`, and counts them.
    pub(super) fn write_retried<T>(
        &self,
        retried: &[DeadLetterId],
        write: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if retried.is_empty() {
            return write();
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
        let written = write()?;
        kept.into_iter().for_each(|id| counts.remove(id));
        Ok(written)
    }
}
