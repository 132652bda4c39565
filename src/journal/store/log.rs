//! Writing and syncing: the one place where the journal's database is changed.
//!
//! A write and its sync are two steps, so that one commit is written while another is synced. What is written can be read, and a
//! power cut may take it back; what a sync covers that began after the write had returned is durable, and [`Synced`] says so. After
//! an error of either nothing is written or synced any more.
//!
//! What may be lost in a power cut is the end of one log, and the database has to see where that is. So nothing is written while
//! something is not synced where it would not ([`Database::may_overtake`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::journal::StorageError;
use crate::journal::database::Database;
use crate::journal::store::{Shared, database_error};
use crate::limits::OVERLAP_SYNC_FACTOR;
use crate::model::DeadLetterId;

/// How far the database is written and synced, in changes since it was made.
pub(super) struct Log {
    /// Held by whoever writes, also without syncing: nobody else may begin another log meanwhile. Taken before `syncing`.
    writing: Mutex<()>,
    /// Held by whoever syncs, until a failure of it is known to all: who has waited for it must not sync again what has failed.
    syncing: Mutex<()>,
    synced: AtomicU64,
    /// How long writes without a sync, and syncs, have taken of late, in microseconds: the latest counts for an eighth.
    write_us: AtomicU64,
    sync_us: AtomicU64,
}

/// Proof that so many changes are on the disk. A sync alone makes it.
#[derive(Clone, Copy, Debug)]
pub(in crate::journal) struct Synced(u64);

impl Synced {
    /// So many changes are on the disk, the oldest first.
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
        let (write_us, sync_us) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            writing: Mutex::default(),
            syncing: Mutex::default(),
            synced: AtomicU64::new(changes),
            write_us,
            sync_us,
        }
    }

    /// So many changes are known to be on the disk.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Whether writing a commit beside the sync of another one gains more than it costs.
    pub(super) fn overlap_pays(&self) -> bool {
        let of = |time: &AtomicU64| time.load(Ordering::Relaxed);
        of(&self.sync_us) <= OVERLAP_SYNC_FACTOR.saturating_mul(of(&self.write_us))
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
        let _writing = lock(&self.log.writing);
        self.sync_what_is_not_to_be_overtaken()?;
        let _syncing = lock(&self.log.syncing);
        self.check()?;
        // It syncs all of its log, and the others are synced.
        self.apply(batch, action, D::write).map(|changes| self.log.note(changes))
    }

    /// Writes a batch, and returns how many changes the database has seen with it: [`sync`](Self::sync) makes them durable.
    ///
    /// # Errors
    /// As those of [`write`](Self::write).
    pub(super) fn write_ahead(&self, batch: D::Batch, action: impl FnOnce() -> String) -> Result<u64, StorageError> {
        let _writing = lock(&self.log.writing);
        self.sync_what_is_not_to_be_overtaken()?;
        self.check()?;
        timed(&self.log.write_us, || self.apply(batch, action, D::write_ahead))
    }

    /// Syncs what was written before this call, unless another sync has by then. Others may write meanwhile.
    ///
    /// # Errors
    /// The first one poisons the journal. How much is on the disk is unknown.
    pub(super) fn sync(&self) -> Result<Synced, StorageError> {
        let _syncing = lock(&self.log.syncing);
        self.check()?;
        if self.is_ahead() { self.sync_now() } else { Ok(Synced(self.log.synced())) }
    }

    fn sync_now(&self) -> Result<Synced, StorageError> {
        // Read before the sync begins: what can be read was written.
        let changes = self.store.sequence();
        let synced = timed(&self.log.sync_us, || self.store.sync());
        synced.map_err(|error| self.fail_with(database_error::<D>("syncing the write-ahead log".into(), &error)))?;
        // Whatever has failed meanwhile, the database may have synced anew.
        self.check()?;
        Ok(self.log.note(changes))
    }

    /// Begins another log if that is due. Writers wait no longer than it takes to begin one.
    ///
    /// # Errors
    /// As those of [`write`](Self::write).
    pub(super) fn tend_log(&self) -> Result<(), StorageError> {
        if !self.store.is_log_due() {
            return Ok(());
        }
        self.with_all_synced("beginning another write-ahead log", |store| store.begin_log())
    }

    /// Does what may begin another log, with nothing unsynced and nobody writing.
    ///
    /// # Errors
    /// As those of [`write`](Self::write).
    pub(super) fn with_all_synced<T>(
        &self,
        action: &str,
        work: impl FnOnce(&D) -> Result<T, D::Error>,
    ) -> Result<T, StorageError> {
        let _writing = lock(&self.log.writing);
        self.sync()?;
        work(&self.store).map_err(|error| self.fail_with(database_error::<D>(action.into(), &error)))
    }

    fn apply(
        &self,
        batch: D::Batch,
        action: impl FnOnce() -> String,
        write: impl FnOnce(&D, D::Batch) -> Result<(), D::Error>,
    ) -> Result<u64, StorageError> {
        write(&self.store, batch).map_err(|error| self.fail_with(database_error::<D>(action(), &error)))?;
        Ok(self.store.sequence())
    }

    /// Whether anything is written that is not known to be synced.
    fn is_ahead(&self) -> bool {
        self.store.sequence() > self.log.synced()
    }

    /// Before a write: syncs what was written, where a power cut may not keep the write and lose that.
    fn sync_what_is_not_to_be_overtaken(&self) -> Result<(), StorageError> {
        if self.is_ahead() && !self.store.may_overtake() { self.sync().map(drop) } else { Ok(()) }
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

/// Does something, and takes how long it was into account.
fn timed<T>(smoothed_us: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    // One thread does each of these at a time.
    let before_us = smoothed_us.load(Ordering::Relaxed);
    let smoothed = if before_us == 0 { took_us } else { before_us - before_us / 8 + took_us / 8 };
    smoothed_us.store(smoothed, Ordering::Relaxed);
    done
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_written_beside_a_sync_unless_that_takes_far_longer_than_the_write() {
        let log = Log::new(0);
        assert!(log.overlap_pays(), "nothing is known yet");
        for (write_us, sync_us, pays) in
            [(600, 600, true), (600, 2_400, true), (600, 2_401, false), (600, 5_600, false)]
        {
            log.write_us.store(write_us, Ordering::Relaxed);
            log.sync_us.store(sync_us, Ordering::Relaxed);
            assert_eq!(log.overlap_pays(), pays, "{write_us} and {sync_us}");
        }
    }
}
