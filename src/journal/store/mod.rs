//! The journal on a database: over RocksDB, and over the simulator's (`simulated`).
//!
//! | part | what it does |
//! |---|---|
//! | `log` | the one place where anything is written or synced |
//! | `writer` | writes commits, and trims |
//! | `pipeline` | the threads that write and sync large ones beside the committer |
//! | `reader` | reads committed blocks back, and verifies them |
//! | `dead_letters` | keeps dead letters |
//! | `housekeeping` | looks after witness, table files and write-ahead log |
//! | `quiet` | gives memory back while nothing is written |
//!
//! What all these need of a database is in `journal::database`.
//!
//! One thread writes commits at a time; the others work beside it on the same database. Whatever fails to be written poisons them all
//! for good: after a failed sync nobody knows what is on the disk, and asking again gets a lie. How a database is opened, and
//! why that is most of the work, is in `rocksdb::open`.

mod dead_letters;
mod housekeeping;
mod log;
mod pipeline;
mod quiet;
pub(in crate::journal) mod reader;
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
use crate::journal::store::log::Log;
use crate::journal::store::pipeline::Pipeline;
pub(in crate::journal) use crate::journal::store::pipeline::sync_all;
use crate::journal::store::reader::Reader;
pub(in crate::journal) use crate::journal::store::writer::{StoredWriter, Written};
use crate::journal::{Commit, Durable, Journal, JournalError, Landed, LetterCounts, Opened, Room, StorageError};
use crate::limits::{COMMITS_UNDER_WAY, LAUNCH_BYTES};
use crate::model::{DeadLetterId, DurabilityLevel, Offset};

/// The journal in a data directory, which it holds until it and its readers are dropped.
///
/// Dropping it waits for the commits under way and writes the witness; there is nothing else to close.
pub struct StoredJournal<D: Database> {
    shared: Arc<Shared<D>>,
    /// Shared with the pipeline: whoever has a commit to write holds it. Nobody waits for it, since this thread writes only when
    /// nothing is under way there.
    writer: Arc<Mutex<StoredWriter<D>>>,
    /// A commit that [`Journal::land`] will write itself.
    waiting: Option<Commit>,
    /// So many commits are in the pipeline, or have left it and were not landed.
    under_way: usize,
    pipeline: Option<Pipeline>,
    housekeeping: Option<HousekeepingThread>,
}

/// What writer, readers and dead letters have in common.
pub(in crate::journal) struct Shared<D: Database> {
    pub(in crate::journal) store: D,
    log: Log,
    /// Every entry below is synced. Readers do not look beyond.
    end: AtomicU64,
    /// No entry below is kept. RocksDB may still show some.
    low: AtomicU64,
    /// The same as far as it is synced: a power cut brings back nothing below.
    trimmed: AtomicU64,
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
            // What was there when the database was opened is in its tables.
            log: Log::new(store.sequence()),
            store,
            end: AtomicU64::new(scan.end.0),
            low: AtomicU64::new(scan.low.0),
            trimmed: AtomicU64::new(scan.low.0),
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

    fn witness(&self) -> Witness {
        Witness::Durable { end: self.end(), changes: self.log.synced() }
    }

    pub(in crate::journal) fn low(&self) -> Offset {
        Offset(self.low.load(Ordering::Acquire))
    }

    fn trimmed(&self) -> Offset {
        Offset(self.trimmed.load(Ordering::Acquire))
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
        let (shared, writer) = (writer.shared(), Arc::new(Mutex::new(writer)));
        Self { shared, writer, waiting: None, under_way: 0, pipeline: None, housekeeping: None }
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

    /// How many commits may be under way.
    fn under_way_max(&self) -> usize {
        if self.pipeline.is_some() { COMMITS_UNDER_WAY } else { 1 }
    }
}

impl<D: Database> Journal for StoredJournal<D> {
    fn durable(&self) -> Durable {
        self.shared.durable()
    }

    fn has_place(&self, bytes: usize) -> bool {
        match self.waiting {
            Some(_) => false,
            None => {
                self.under_way == 0
                    || self.under_way < self.under_way_max() && bytes >= LAUNCH_BYTES && self.shared.log.overlap_pays()
            }
        }
    }

    fn append(&mut self, commit: Commit) -> Result<(), JournalError> {
        self.shared.check()?;
        let under_way = self.under_way + usize::from(self.waiting.is_some());
        if self.waiting.is_some() || under_way >= self.under_way_max() {
            let cause = format!("{under_way} are under way, and no more may be");
            return Err(self.shared.fail("appending a commit".into(), cause).into());
        }
        match &self.pipeline {
            // Behind others it goes where they are, whatever its size: commits land in their order.
            Some(pipeline) if self.under_way > 0 || commit.size() >= LAUNCH_BYTES => {
                pipeline.write(commit).map_err(|error| self.shared.fail_with(error))?;
                self.under_way += 1;
            }
            _ => self.waiting = Some(commit),
        }
        Ok(())
    }

    fn landed(&self) -> bool {
        self.waiting.is_some() || self.under_way > 0 && self.pipeline.as_ref().is_none_or(Pipeline::has_landed)
    }

    fn land(&mut self) -> Result<Landed, JournalError> {
        if let Some(commit) = self.waiting.take() {
            return Ok(self.writer.lock().unwrap_or_else(PoisonError::into_inner).write(commit)?);
        }
        let Some(pipeline) = self.pipeline.as_ref().filter(|_| self.under_way > 0) else {
            return Err(self.shared.fail("landing a commit".into(), "none is under way").into());
        };
        self.under_way -= 1;
        Ok(pipeline.landed().unwrap_or_else(Err).map_err(|error| self.shared.fail_with(error))?)
    }

    fn notify_landings(&mut self, notify: Box<dyn Fn() + Send>) -> io::Result<()> {
        self.pipeline = Some(Pipeline::start(&self.writer, &self.shared, notify)?);
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
        // What is under way is written and synced before the last witness is.
        drop(self.pipeline.take());
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
