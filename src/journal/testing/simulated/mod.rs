//! A database for the simulator (`tests/sim`): one disk whose every write, sync and power cut a simulation decides.
//!
//! Above it runs the code that runs above RocksDB: committing, trimming, reading, dead letters, the scan and the decision of
//! recovery. [`SimulatedDisk`] outlives the journals that are opened on it, as a data directory does. Nothing here looks
//! at a clock or draws from any randomness but its seeds.

mod database;
mod disk;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::database::{DEAD, JOURNAL, META};
use crate::journal::error::OpenError;
use crate::journal::mask::mask_into;
use crate::journal::meta::{CHECKPOINT_KEY, COUNTER_KEY, CheckpointState, MetaRecord, decode, encode_counter_limit};
use crate::journal::recovery::{self, Format, Outcome, Scan, Visit, Witness, survey};
use crate::journal::store::{self, Shared, StoredWriter, Written};
use crate::journal::testing::by_hand::{ByHand, Hand, WriteCommit};
use crate::journal::{Commit, Durable, JournalError, Landed, Opened, Replay, Room, StorageError};
use crate::model::{AnswersRecord, AskRecord, ClientRecord, Offset, SessionRecord, SinkRecord};
pub use database::{Directory, SimulatedCursor, SimulatedError, SimulatedStore};
use disk::{Disk, State, StoredWitness};

/// Column families have keys of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// The family that holds blocks.
    Journal,
    /// The family that holds sessions, the checkpoint and all other small records.
    Meta,
    /// The family that holds dead letters.
    Dead,
}

impl Family {
    const ALL: [Self; 3] = [Self::Journal, Self::Meta, Self::Dead];

    fn named(name: &str) -> Self {
        match name {
            JOURNAL => Self::Journal,
            META => Self::Meta,
            DEAD => Self::Dead,
            other => unreachable!("the journal has no family {other}"),
        }
    }
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// The key gets a value, in place of one that it had.
    Put {
        /// The column family that it is put into.
        family: Family,
        /// The key under which it is put.
        key: Vec<u8>,
        /// The value as the journal gave it.
        value: Vec<u8>,
        /// The value masked, as it is stored.
        stored: Arc<[u8]>,
    },
    /// The key is gone, with its value.
    Delete {
        /// The column family that holds it.
        family: Family,
        /// The key that is deleted.
        key: Vec<u8>,
    },
    /// The keys `from..to` are deleted.
    DeleteRange {
        /// The column family that holds them.
        family: Family,
        /// The first key that is deleted.
        from: Vec<u8>,
        /// The first key that stays.
        to: Vec<u8>,
    },
}

/// What is about to be written.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    /// A batch that is to be durable when the write returns, and with it all that was written ahead.
    Batch(&'a [Change]),
    /// A batch that a later sync makes durable.
    Ahead(&'a [Change]),
    /// All that was written ahead is to be durable when this returns.
    Sync,
    /// The witness as it was stored last.
    Witness(Witness),
    /// What recovery has read goes to tables of its own.
    Settle,
}

/// What becomes of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is durable, and the process hears so.
    Synced,
    /// It is durable, and the process dies before it hears of it.
    SyncedThenKilled,
    /// It is written, the sync fails: a reader sees it until the power fails.
    SyncFails,
    /// Of the record only this part of 256 is written, and an error is returned.
    WriteFails(u8),
    /// It is written, and the process is killed before the sync: a later process sees it.
    Killed,
    /// It is written, and the power fails before the sync: any part survives, drawn from this seed.
    PowerFails(u64),
    /// The disk says that it is durable, and does not keep it at a power cut. Real disks must not; for tests of the tests.
    Lies,
}

/// Decides what becomes of each write.
pub type Decide = Box<dyn FnMut(Write<'_>) -> Fate + Send>;

/// A disk. Clones are the same one.
#[derive(Clone)]
pub struct SimulatedDisk {
    disk: Arc<Mutex<Disk>>,
    /// Apart, so that it may look at the disk.
    decide: Arc<Mutex<Decide>>,
    machine: Arc<Mutex<Machine>>,
}

/// The process and the machine around the disk.
struct Machine {
    /// Raised when the process dies: what an earlier one holds open no longer reaches the disk.
    process: u64,
    unix_us: u64,
    free_bytes: u64,
    masks: u64,
}

/// A disk as it was at a moment, which can be put back.
#[derive(Clone, PartialEq, Eq)]
pub struct Image(Disk);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedDisk {
    /// An empty disk. `decide` is asked about each write; it may let time pass.
    pub fn new(decide: Decide) -> Self {
        let machine = Machine { process: 0, unix_us: 0, free_bytes: u64::MAX, masks: 1 };
        Self { disk: Arc::default(), decide: Arc::new(Mutex::new(decide)), machine: Arc::new(Mutex::new(machine)) }
    }

    /// The process dies. What it has written stays, synced or not, until the power fails.
    pub fn kill(&self) {
        lock(&self.machine).process += 1;
    }

    /// The power fails, and the process dies with it.
    pub fn cut_power(&self, seed: u64) {
        self.kill();
        lock(&self.disk).cut_power(seed);
    }

    /// Sets the time of day.
    pub fn set_time(&self, unix_us: u64) {
        lock(&self.machine).unix_us = unix_us;
    }

    /// Sets how many bytes the file system has left.
    pub fn set_free_bytes(&self, bytes: u64) {
        lock(&self.machine).free_bytes = bytes;
    }

    /// The disk as it is.
    pub fn image(&self) -> Image {
        Image(lock(&self.disk).clone())
    }

    /// Makes the disk what it was, but for the witness if `keep_witness`.
    pub fn put_back(&self, image: &Image, keep_witness: bool) {
        let mut disk = lock(&self.disk);
        let witness = disk.witness;
        *disk = image.0.clone();
        if keep_witness {
            disk.witness = witness;
        }
    }

    /// How many changes the disk has seen, as its database finds it.
    pub fn changes(&self) -> u64 {
        lock(&self.disk).read().state.sequence
    }

    /// How many changes the witness proves.
    pub fn witnessed(&self) -> u64 {
        match lock(&self.disk).witness {
            Some(StoredWitness::Good(Witness::Durable { changes, .. })) => changes,
            _ => 0,
        }
    }

    /// Does damage that must not go unnoticed; says what it did, if anything.
    pub fn damage(&self, seed: u64) -> Option<String> {
        lock(&self.disk).damage(seed)
    }

    /// What a recovery would do that leaves out what is damaged: for tests of the tests.
    pub fn skip_damage(&self) {
        lock(&self.disk).skip_damage();
    }

    /// Opens the journal, as `RocksJournal::open` does.
    ///
    /// # Errors
    /// As there.
    pub fn open(
        &self,
        replay: &mut dyn FnMut(Replay<'_>),
    ) -> Result<(Opened<SimulatedJournal>, Housekeeping), OpenError> {
        self.kill();
        let process = lock(&self.machine).process;
        let (scan, state) = match self.survey(process, replay)? {
            Some(found) => found,
            None => {
                self.create();
                let found = self.survey(process, replay)?;
                found.ok_or_else(|| OpenError::storage("making a new database", "it is not there"))?
            }
        };
        self.decided(process, Write::Settle, |disk, durable, _| {
            if durable {
                disk.settle(state.clone());
            }
        })
        .map_err(|error| OpenError::storage("opening the database for writing", error))?;
        let store = SimulatedStore { disk: self.clone(), process, state: Mutex::new(state) };
        let writer = StoredWriter::new(store, Directory { disk: self.clone(), process }, &scan);
        let shared = writer.shared();
        let done =
            store::Housekeeping::begin(&shared).map_err(|error| OpenError::storage(error.action, error.cause))?;
        let opened = store::opened(ByHand::new(SimulatedWriter(writer)), &shared, scan, Vec::new());
        Ok((opened, Housekeeping { shared, done }))
    }

    fn create(&self) {
        let mask = self.mask();
        let mut disk = lock(&self.disk);
        let mut stored = Vec::new();
        mask_into(&mut stored, &CheckpointState::default().encode(), mask);
        let mut state = State::default();
        state.apply(&Change::Put {
            family: Family::Meta,
            key: CHECKPOINT_KEY.to_vec(),
            value: Vec::new(),
            stored: stored.into(),
        });
        disk.witness = Some(StoredWitness::Good(Witness::Durable { end: Offset(0), changes: state.sequence }));
        disk.settle(state);
        disk.exists = true;
    }

    /// Looks at everything and changes nothing; `None` when there is no journal yet.
    fn survey(&self, process: u64, replay: &mut dyn FnMut(Replay<'_>)) -> Result<Option<(Scan, State)>, OpenError> {
        let (exists, read, witness) = {
            let disk = lock(&self.disk);
            (disk.exists, disk.read(), disk.witness)
        };
        let store = SimulatedStore { disk: self.clone(), process, state: Mutex::new(read.state) };
        let directory = recovery::Directory {
            format: Format::Known,
            witness: match witness {
                Some(StoredWitness::Good(witness)) => Ok(Some(witness)),
                Some(StoredWitness::Damaged) => Err("it is not what was written".into()),
                None => Ok(None),
            },
            database: Ok(exists.then_some(&store)),
            tail: Ok(read.tail),
            reading: recovery::Reading::ALL,
        };
        let mut visit = |visit: Visit<'_>| {
            if let Some(told) = visit.replay() {
                replay(told);
            }
        };
        let found = survey(&directory, &mut visit);
        match found.outcome() {
            Outcome::GoOn | Outcome::DropTorn => {
                let state = store.state.into_inner().unwrap_or_else(PoisonError::into_inner);
                Ok(Some((found.scan, state)))
            }
            Outcome::Create => Ok(None),
            Outcome::NewerFormat => Err(OpenError::storage("opening a simulated disk", "there is one format")),
            Outcome::Refuse(kind) => Err(OpenError::Damaged(found.finding(kind))),
        }
    }

    fn mask(&self) -> u64 {
        let mut machine = lock(&self.machine);
        machine.masks = machine.masks.wrapping_add(0x9e37_79b9_7f4a_7c15);
        machine.masks ^ machine.masks >> 29
    }

    /// Asks what becomes of a write by a process, and does that. `apply` is told whether it is to be durable, and of how many of 256
    /// parts the disk gets.
    fn decided(
        &self,
        process: u64,
        write: Write<'_>,
        apply: impl FnOnce(&mut Disk, bool, usize),
    ) -> Result<(), SimulatedError> {
        if lock(&self.machine).process != process {
            return Err(SimulatedError("the process is dead"));
        }
        let fate = lock(&self.decide)(write);
        let mut disk = lock(&self.disk);
        let is_logged = matches!(write, Write::Batch(_) | Write::Ahead(_));
        match fate {
            // What is not logged is there as a whole or not at all.
            Fate::WriteFails(part) if is_logged => apply(&mut disk, false, part.into()),
            Fate::WriteFails(_) => {}
            Fate::PowerFails(seed) => {
                apply(&mut disk, !is_logged && seed & 1 == 0, 256);
                disk.cut_power(seed);
            }
            Fate::Synced | Fate::SyncedThenKilled => {
                apply(&mut disk, true, 256);
                if matches!(write, Write::Batch(_) | Write::Sync) {
                    disk.sync();
                }
            }
            Fate::Lies | Fate::SyncFails | Fate::Killed => apply(&mut disk, !is_logged, 256),
        }
        drop(disk);
        match fate {
            Fate::Synced | Fate::Lies => Ok(()),
            Fate::SyncFails => Err(SimulatedError("the sync fails")),
            Fate::WriteFails(_) => Err(SimulatedError("the write fails")),
            Fate::SyncedThenKilled | Fate::Killed | Fate::PowerFails(_) => {
                self.kill();
                Err(SimulatedError("the process is dead"))
            }
        }
    }
}

/// The journal on a [`SimulatedDisk`]. What is appended may stay under way until the simulation lets it land.
pub type SimulatedJournal = ByHand<SimulatedWriter>;

/// Lets commits of a [`SimulatedJournal`] land.
pub type SimulatedHand = Hand<SimulatedWriter>;

/// The writer on a [`SimulatedDisk`].
pub struct SimulatedWriter(StoredWriter<SimulatedStore>);

/// A commit that is written to a [`SimulatedDisk`], and not synced.
pub struct SimulatedWritten(Written);

impl WriteCommit for SimulatedWriter {
    type Written = SimulatedWritten;

    fn durable(&self) -> Durable {
        self.0.shared().durable()
    }

    fn write(&mut self, commit: Commit) -> Result<Landed, JournalError> {
        Ok(self.0.write(commit)?)
    }

    fn write_ahead(&mut self, commit: Commit) -> Result<SimulatedWritten, JournalError> {
        Ok(SimulatedWritten(self.0.write_ahead(commit)?))
    }

    fn sync(&mut self, written: Vec<SimulatedWritten>) -> Vec<Result<Landed, JournalError>> {
        let written = written.into_iter().map(|SimulatedWritten(written)| Ok(written));
        let landed = store::sync_all(&self.0.shared(), written.collect());
        landed.into_iter().map(|landed| landed.map_err(JournalError::Failed)).collect()
    }

    fn room(&self, reserve_bytes: u64) -> Result<Room, StorageError> {
        self.0.shared().room(reserve_bytes)
    }

    fn failure(&self) -> Option<JournalError> {
        self.0.shared().failure()
    }
}

/// What the housekeeping's thread does beside a journal on RocksDB.
pub struct Housekeeping {
    shared: Arc<Shared<SimulatedStore>>,
    done: store::Housekeeping,
}

impl Housekeeping {
    /// What is due about once a second.
    pub fn run(&mut self) {
        self.done.run(&self.shared);
    }
}

/// Key and value under which a session is kept: what an oracle compares.
pub fn encoded(session: &SessionRecord) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = session.encode();
    (key.to_vec(), value)
}

/// The same of a client in sealed mode.
pub fn encoded_client(client: &ClientRecord) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = client.encode();
    (key.to_vec(), value)
}

/// The same of the limit of the server's counter.
pub fn encoded_counter_limit(limit: u64) -> (Vec<u8>, Vec<u8>) {
    (COUNTER_KEY.to_vec(), encode_counter_limit(limit))
}

/// The same of an ask.
pub fn encoded_ask(ask: &AskRecord) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = ask.encode();
    (key.to_vec(), value)
}

/// The same of what became of asks with one commit.
pub fn encoded_answers(answers: &AnswersRecord) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = answers.encode();
    (key.to_vec(), value)
}

/// What became of asks, when key and value are those of an ask's own record or of the answers of a commit; else nothing.
pub fn stored_answers(key: &[u8], value: &[u8]) -> Vec<AskRecord> {
    match decode(key, value) {
        Ok(MetaRecord::Ask(ask)) => vec![ask],
        Ok(MetaRecord::Answers(answers)) => answers.answers,
        _ => Vec::new(),
    }
}

/// What is kept of the configured sinks, when key and value are those of a checkpoint.
pub fn stored_sinks(key: &[u8], value: &[u8]) -> Option<Vec<SinkRecord>> {
    match decode(key, value) {
        Ok(MetaRecord::Checkpoint(state)) if key == CHECKPOINT_KEY => Some(state.sinks),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
