//! The journal on a database: commits, checkpoints and trimming, reading, dead letters.
//!
//! The database is RocksDB, or the simulator's (`simulated`). One thread writes ([`RocksJournal`]); readers and dead letters
//! work beside it on the same database. Whatever fails to
//! be written poisons them all for good: after a failed sync nobody knows what is on the disk, and asking again gets a lie.
//! How blocks are read back is in `reader`. How a database is opened, and why that is most of the work, is in `rocksdb::open`.

pub(in crate::journal) mod database;
pub(in crate::journal) mod reader;

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::journal::block::Place;
use crate::journal::dead_letter::{DeadLetter, DeadLetterId, DeadLetterRoom, DeadLetters, NoRoom};
use crate::journal::directory::is_shortage;
use crate::journal::error::{Damage, DamageKind, DamagePlace};
use crate::journal::mask::unmask;
use crate::journal::meta::{CHECKPOINT_KEY, COUNTER_KEY, CheckpointState, encode_counter_limit, session_key};
use crate::journal::recovery::{Scan, Witness, holes};
use crate::journal::rocksdb::database::{DEAD, JOURNAL, META, Store, block_key};
use crate::journal::store::database::{Cursor as _, Database, Sidecar as _};
use crate::journal::store::reader::parse;
use crate::journal::{Block, BlockBuilder, Checkpoint, Durable, Journal, Records, StorageError};
use crate::limits::{RESERVE_BYTES, TRIM_PLACES};
use crate::model::{Offset, SessionRecord};

/// The journal on RocksDB.
pub type RocksJournal = StoredJournal<Store>;

/// The writer of the journal in a data directory, which it holds until it and its readers are dropped.
///
/// Dropping it writes the witness; there is nothing else to close.
pub struct StoredJournal<D: Database> {
    shared: Arc<Shared<D>>,
    end: Offset,
    low: Offset,
    low_previous_checksum: u32,
    last_checksum: u32,
    /// The blocks committed last.
    places: Places,
    /// For values as they are stored. Bounded by the caller's bound on blocks.
    scratch: Vec<u8>,
    keeper: Option<Keeper>,
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
    dead: Mutex<u64>,
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
        let mut count = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = 0;
        for id in retried {
            kept += u64::from(self.has_letter(*id).map_err(|error| self.fail_with(error))?);
        }
        self.write(batch, action)?;
        *count -= kept;
        Ok(())
    }

    fn has_letter(&self, id: DeadLetterId) -> Result<bool, StorageError> {
        let found = self.store.get(DEAD, &id.key()).map(|value| value.is_some());
        found.map_err(|error| database_error::<D>(format!("reading the dead letter of entry {}", id.offset), &error))
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

impl<D: Database> StoredJournal<D> {
    /// Takes over a database that a scan has found good. Whoever calls it sees to it that the returned duties are done
    /// about once a second.
    pub(in crate::journal) fn start(store: D, dir: D::Sidecar, scan: &Scan) -> Result<(Self, Kept), StorageError> {
        let shared = Arc::new(Shared {
            store,
            end: AtomicU64::new(scan.end.0),
            low: AtomicU64::new(scan.low.0),
            holes: holes(&scan.losses),
            unread_below: scan.unread_below,
            read_ends: Mutex::default(),
            failed: OnceLock::new(),
            dead: Mutex::new(scan.dead),
            dir,
        });
        let kept = Kept::first(&shared)?;
        let journal = Self {
            shared,
            end: scan.end,
            low: scan.low,
            low_previous_checksum: scan.low_previous_checksum,
            last_checksum: scan.last_checksum,
            places: Places::default(),
            scratch: Vec::new(),
            keeper: None,
        };
        Ok((journal, kept))
    }

    /// Starts a thread for these duties.
    pub(in crate::journal) fn start_keeper(&mut self, kept: Kept, interval: Duration) -> Result<(), StorageError> {
        self.keeper = Some(Keeper::start(self.shared(), kept, interval)?);
        Ok(())
    }

    pub(in crate::journal) fn shared(&self) -> Arc<Shared<D>> {
        self.shared.clone()
    }

    /// Where the journal would begin if it were trimmed, and the checksum that the first block there repeats.
    fn trimmed(&self, below: Offset) -> Result<(Offset, u32), StorageError> {
        if below >= self.end {
            return Ok((self.end, self.last_checksum));
        }
        if below <= self.low {
            return Ok((self.low, self.low_previous_checksum));
        }
        if let Some(place) = self.places.at_or_before(below) {
            return Ok(place);
        }
        let mut blocks = self.shared.store.iterate(JOURNAL, &block_key(self.low), &block_key(self.end));
        blocks.seek_for_prev(&block_key(below));
        match blocks.item().map(|(key, value)| parse(&self.shared.store, below, key, value)) {
            Some(block) => block.map(|block| (block.first(), block.previous_checksum())),
            None => {
                blocks.status().map_err(|error| StorageError::new("looking for the block to trim at", error))?;
                Ok((self.low, self.low_previous_checksum))
            }
        }
    }
}

/// Where the blocks begin that were committed last, and the checksum that each repeats: what trimming needs to know of
/// the block it stops at, without reading that back.
#[derive(Default)]
struct Places(VecDeque<(Offset, u32)>);

impl Places {
    fn push(&mut self, first: Offset, previous_checksum: u32) {
        if self.0.len() == TRIM_PLACES {
            self.0.pop_front();
        }
        self.0.push_back((first, previous_checksum));
    }

    /// The last block that begins at `offset` or before; `None` when that is older than what is remembered.
    fn at_or_before(&self, offset: Offset) -> Option<(Offset, u32)> {
        let after = self.0.partition_point(|&(first, _)| first <= offset);
        self.0.get(after.checked_sub(1)?).copied()
    }
}

impl<D: Database> Journal for StoredJournal<D> {
    fn failure(&self) -> Option<StorageError> {
        self.shared.failed.get().cloned()
    }

    fn end(&self) -> Offset {
        self.end
    }

    fn durable(&self) -> Durable {
        Durable { block: None, end: self.end }
    }

    fn write(
        &mut self,
        block: &mut BlockBuilder,
        records: &Records,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Durable, StorageError> {
        self.shared.check()?;
        if block.is_empty() && records.is_empty() && checkpoint.is_none() {
            return Ok(self.durable());
        }
        let first = self.end;
        let without_entries = block.is_empty();
        let action = || match without_entries {
            true => format!("checkpoint or records at offset {first}"),
            false => format!("commit of the block at offset {first}"),
        };
        let mut batch = self.shared.store.batch(block.size() + 64);
        let mut built = None;
        if !block.is_empty() {
            let place =
                Place { first, previous_checksum: self.last_checksum, committed_unix_us: self.shared.store.unix_us() };
            let block = block.build(place).map_err(|error| self.shared.fail(action(), error))?;
            self.shared.store.put(&mut batch, JOURNAL, &block_key(first), block.bytes(), &mut self.scratch);
            built = Some(block);
        }
        for id in &records.given_up {
            self.shared.store.delete(&mut batch, META, &session_key(*id));
        }
        put_records(&self.shared.store, &mut batch, records, &mut self.scratch);
        let end = built.as_ref().map_or(first, Block::end);
        let mut low = self.low;
        let mut low_previous_checksum = self.low_previous_checksum;
        if let Some(checkpoint) = checkpoint {
            checkpoint.verify(end).map_err(|problem| self.shared.fail(action(), problem))?;
            (low, low_previous_checksum) =
                self.trimmed(checkpoint.trim_below).map_err(|error| self.shared.fail_with(error))?;
            let store = &self.shared.store;
            put_sessions(store, &mut batch, &checkpoint.sessions, &mut self.scratch);
            for id in &checkpoint.expired {
                store.delete(&mut batch, META, &session_key(*id));
            }
            for id in &checkpoint.retried {
                store.delete(&mut batch, DEAD, &id.key());
            }
            let (lanes, former) = (checkpoint.lanes.clone(), checkpoint.former.clone());
            let state = CheckpointState { at: checkpoint.at, low, low_previous_checksum, lanes, former };
            store.put(&mut batch, META, CHECKPOINT_KEY, &state.encode(), &mut self.scratch);
            if low > self.low {
                store.delete_range(&mut batch, JOURNAL, &block_key(self.low), &block_key(low));
            }
        }
        // Before it is gone: whoever then misses something below looks here again.
        self.shared.low.store(low.0, Ordering::Release);
        let retried = checkpoint.map_or(&[][..], |checkpoint| &checkpoint.retried);
        self.shared.write_retried(batch, retried, action)?;
        block.clear();
        if let Some(block) = &built {
            self.places.push(first, self.last_checksum);
            self.end = end;
            self.last_checksum = block.checksum();
            self.shared.end.store(self.end.0, Ordering::Release);
        }
        self.low = low;
        self.low_previous_checksum = low_previous_checksum;
        Ok(Durable { block: built.map(Arc::new), end: self.end })
    }

    fn free_bytes(&self) -> Result<u64, StorageError> {
        self.shared.dir.free_bytes()
    }
}

fn put_records<D: Database>(store: &D, batch: &mut D::Batch, records: &Records, scratch: &mut Vec<u8>) {
    put_sessions(store, batch, &records.sessions, scratch);
    for client in &records.clients {
        let (key, value) = client.encode();
        store.put(batch, META, &key, &value, scratch);
    }
    if let Some(limit) = records.counter_limit {
        store.put(batch, META, COUNTER_KEY, &encode_counter_limit(limit), scratch);
    }
}

fn put_sessions<D: Database>(store: &D, batch: &mut D::Batch, sessions: &[SessionRecord], scratch: &mut Vec<u8>) {
    for session in sessions {
        let (key, value) = session.encode();
        store.put(batch, META, &key, &value, scratch);
    }
}

/// Dead letters in the database.
pub(in crate::journal) struct StoredDeadLetters<D: Database>(pub(in crate::journal) Arc<Shared<D>>);

impl<D: Database> DeadLetters for StoredDeadLetters<D> {
    fn put_all(&self, letters: &[DeadLetter], room: DeadLetterRoom) -> Result<Result<(), NoRoom>, StorageError> {
        let Some(first) = letters.first() else { return Ok(Ok(())) };
        let mut count = self.0.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = 0;
        for letter in letters {
            new += u64::from(!self.0.has_letter(letter.id)?);
        }
        // Looked at for each write, and by one lane at a time: what is written before the next look is bounded.
        if let Err(no_room) = room.for_more(*count, new, self.0.dir.free_bytes()?) {
            return Ok(Err(no_room));
        }
        let (mut batch, mut scratch) = (self.0.store.batch(0), Vec::new());
        for letter in letters {
            self.0.store.put(&mut batch, DEAD, &letter.id.key(), &letter.encode(), &mut scratch);
        }
        let action = || format!("putting {} dead letters from entry {} on", letters.len(), first.id.offset);
        self.0.write(batch, action)?;
        *count += new;
        Ok(Ok(()))
    }

    fn list(&self, from: DeadLetterId, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        let action = || format!("listing dead letters from entry {} on", from.offset);
        let mut records = self.0.store.iterate(DEAD, &from.key(), &[0xff; DeadLetterId::KEY_LEN + 1]);
        let mut letters = Vec::new();
        records.seek_to_first();
        while let (Some((key, value)), true) = (records.item(), letters.len() < limit) {
            letters.push(DeadLetter::decode(key, &unmask(value)).map_err(|error| StorageError::new(action(), error))?);
            records.next();
        }
        records.status().map_err(|error| StorageError::new(action(), error))?;
        Ok(letters)
    }

    fn get(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, StorageError> {
        let action = || format!("reading the dead letter of entry {}", id.offset);
        let value = self.0.store.get(DEAD, &id.key()).map_err(|error| StorageError::new(action(), error))?;
        let letter = value.map(|value| DeadLetter::decode(&id.key(), &value)).transpose();
        letter.map_err(|error| StorageError::new(action(), error))
    }

    fn delete(&self, id: DeadLetterId) -> Result<bool, StorageError> {
        let mut count = self.0.dead.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(id)?.is_none() {
            return Ok(false);
        }
        let mut batch = self.0.store.batch(0);
        self.0.store.delete(&mut batch, DEAD, &id.key());
        self.0.write(batch, || format!("deleting the dead letter of entry {}", id.offset))?;
        *count -= 1;
        Ok(true)
    }

    fn count(&self) -> u64 {
        *self.0.dead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often the keeper looks at the write-ahead log.
const TEND_INTERVAL: Duration = Duration::from_millis(100);
/// How often it looks whether all files are there. Those whose loss harms at once it looks for each time.
pub(in crate::journal) const LOOK_INTERVAL: Duration = Duration::from_millis(800);
/// What to do about files that are gone.
const LOST_ADVICE: &str = "files of a running server must be left alone. Nothing more is acked. Put back what was there, or \
                           look with `duragram journal verify` before the next start";

/// The thread that does what need not hold a commit up: about once a second the witness and the removal of table files that
/// trimming has emptied, and between these the choice of a write-ahead log that was filled before.
struct Keeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    fn start<D: Database>(shared: Arc<Shared<D>>, mut kept: Kept, interval: Duration) -> Result<Self, StorageError> {
        let (stop, stopped) = channel();
        let run = move || {
            let (mut kept_at, mut looked_at) = (Instant::now(), Instant::now());
            // What is there now is what must stay.
            kept.is_all_there(&shared, true);
            let between = TEND_INTERVAL.min(interval);
            while matches!(stopped.recv_timeout(between), Err(RecvTimeoutError::Timeout)) {
                let all = kept.missed || looked_at.elapsed() >= LOOK_INTERVAL;
                if all {
                    looked_at = Instant::now();
                }
                if !kept.is_all_there(&shared, all) {
                    continue;
                }
                tend_log(&shared);
                if kept_at.elapsed() >= interval {
                    kept_at = Instant::now();
                    kept.keep(&shared);
                }
            }
            let again = |kept: &mut Kept| {
                std::thread::sleep(between);
                kept.is_all_there(&shared, true)
            };
            if kept.is_all_there(&shared, true) || again(&mut kept) {
                kept.witness(&shared);
            }
        };
        let thread = std::thread::Builder::new().name("journal-keeper".into()).spawn(run);
        let thread = thread.map_err(|error| StorageError::new("starting the journal's keeper thread", error))?;
        Ok(Self { stop, thread })
    }
}

/// What the keeper has done so far.
pub(in crate::journal) struct Kept {
    witnessed: Witness,
    /// It could not be written the last time.
    behind: bool,
    cleared: Offset,
    /// Something was missing at the last look.
    missed: bool,
    /// Something is not where it was: nothing is written any more to what lies there now.
    lost: bool,
}

impl Kept {
    /// Writes the first witness.
    pub(in crate::journal) fn first<D: Database>(shared: &Shared<D>) -> Result<Self, StorageError> {
        let witnessed = shared.witness();
        shared.dir.write_witness(witnessed).map_err(|error| StorageError::new("writing the witness", error))?;
        Ok(Self { witnessed, behind: false, cleared: Offset(0), missed: false, lost: false })
    }

    /// Whether the journal's files are where they were; poisons the journal when they are not. With `all`, also looks for those
    /// that only the next start, or a reader, would miss.
    ///
    /// What is missing must be missing at two looks in a row: there are file systems in which a name is gone for a moment while
    /// its file is replaced, or while their server begins anew, and a false alarm would end a server that has lost nothing.
    pub(in crate::journal) fn is_all_there<D: Database>(&mut self, shared: &Shared<D>, all: bool) -> bool {
        if self.lost {
            return false;
        }
        let lost = shared.dir.lost().or_else(|| shared.store.lost(all));
        // After an attempt that failed nobody knows which one is there; it is written anew as soon as that is possible.
        let witness = || (all && !self.behind).then(|| shared.dir.lost_witness(self.witnessed)).flatten();
        let Some(lost) = lost.or_else(witness) else {
            self.missed = false;
            return true;
        };
        if mem::replace(&mut self.missed, true) {
            self.lost = true;
            drop(shared.fail("looking after the journal's files".into(), format!("{lost}; {LOST_ADVICE}")));
        }
        false
    }

    /// What is due about once a second.
    pub(in crate::journal) fn keep<D: Database>(&mut self, shared: &Shared<D>) {
        let low = shared.low();
        self.witness(shared);
        if low > self.cleared {
            match shared.store.delete_files_below(low) {
                Ok(()) => self.cleared = low,
                Err(error) => {
                    drop(shared.fail_with(database_error::<D>("deleting emptied table files".into(), &error)))
                }
            }
        }
    }

    fn witness<D: Database>(&mut self, shared: &Shared<D>) {
        let witness = shared.witness();
        if witness != self.witnessed || self.behind {
            // Else a disk that has begun to fail would go unnoticed until it loses a commit.
            match shared.dir.write_witness(witness) {
                Ok(()) => (self.witnessed, self.behind) = (witness, false),
                // Whoever fills the disk up while new data is refused must not end the server.
                Err(error) if is_shortage(&error) => {
                    if !self.behind {
                        tracing::warn!(%error, "the witness cannot be written for now; it is tried again");
                    }
                    self.behind = true;
                }
                Err(error) => drop(shared.fail("writing the witness".into(), error)),
            }
        }
    }
}

/// Beginning another log writes table files, for which there must be room.
fn tend_log<D: Database>(shared: &Shared<D>) {
    if shared.dir.free_bytes().is_ok_and(|free| free >= *RESERVE_BYTES.start())
        && let Err(error) = shared.store.tend_log()
    {
        drop(shared.fail_with(database_error::<D>("beginning another write-ahead log".into(), &error)));
    }
}

impl<D: Database> Drop for StoredJournal<D> {
    fn drop(&mut self) {
        let Some(Keeper { stop, thread }) = self.keeper.take() else { return };
        drop(stop);
        if thread.join().is_err() {
            tracing::error!("the journal's keeper thread panicked; the witness may be old");
        }
        if let Some(error) = self.shared.failed.get() {
            tracing::error!(%error, "the journal is closed after a failure");
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // runs of entries, of which some tests commit one
pub(in crate::journal) mod tests;
