//! A journal in memory, with faults, for tests of what stands above it.
//!
//! A [`MemoryDisk`] stands for the data directory: it outlives the journals that are opened on it, and holds just what
//! their commits have synced. It can be made to fail, to be slow (a hook runs while a commit is written, and a [`Hand`] says
//! when), to be full, to be taken over by another owner, and to lose what it held.
//! Blocks are those of [`crate::journal::block`], built and verified by the same code as on disk. There is no clock: a block's
//! time is that of its newest arrival.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duragram_proto::ClientId;

use crate::journal::block::Place;
use crate::journal::dead_letter::{LetterCounts, deleting};
use crate::journal::testing::by_hand::{ByHand, Hand, WriteCommit};
use crate::journal::{
    Block, Checkpoint, Commit, DeadLetter, DeadLetterId, DeadLetterRoom, DeadLetters, Durable, Extent, JournalError,
    Landed, NoRoom, Opened, ReadJournal, Records, Replay, Room, StorageError,
};
use crate::model::{
    AnswersRecord, AskId, AskRecord, ClientRecord, DurabilityLevel, FormerLanes, JournalId, LaneMark, Offset,
    SessionId, SessionRecord, SinkRecord,
};

/// What becomes of a write that a hook was asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFate {
    /// It becomes durable when the hook returns.
    Durable,
    /// It fails, and is not on the disk.
    FailedAndLost,
    /// It fails, and is on the disk all the same: a later start finds it.
    FailedButWritten,
}

/// A write in flight, as a hook sees it.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    /// Entries, session records, a checkpoint: whatever one batch holds.
    Commit {
        /// The block, if the commit has entries.
        block: Option<&'a Block>,
        /// The checkpoint, if one is part of it.
        checkpoint: Option<&'a Checkpoint>,
        /// What is written beside the block.
        records: &'a Records,
    },
    /// Dead letters are put, or deleted.
    DeadLetters(&'a [DeadLetterId]),
}

type Hook = Box<dyn FnMut(Write<'_>) -> WriteFate + Send>;

/// What survives a crash. Clones are the same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    id: JournalId,
    synced: Arc<Mutex<Synced>>,
    /// Apart from `synced`, so that a hook may look at the disk while it runs.
    faults: Arc<Mutex<Faults>>,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self { id: JournalId::random(), synced: Arc::default(), faults: Arc::default() }
    }
}

#[derive(Default)]
struct Synced {
    blocks: VecDeque<Arc<Block>>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    clients: BTreeMap<ClientId, ClientRecord>,
    counter_limit: Option<u64>,
    asks: BTreeMap<AskId, AskRecord>,
    answers: BTreeMap<u64, AnswersRecord>,
    dead: BTreeMap<DeadLetterId, DeadLetter>,
    lanes: Vec<LaneMark>,
    former: Vec<FormerLanes>,
    sinks: Vec<SinkRecord>,
    checkpoint_at: Offset,
    low: Offset,
    end: Offset,
    last_checksum: u32,
    /// Raised by a crash: writers of an earlier one no longer reach the disk.
    generation: u64,
}

impl Synced {
    fn put(&mut self, records: &Records) {
        records.given_up.iter().for_each(|id| drop(self.sessions.remove(id)));
        self.sessions.extend(records.sessions.iter().map(|session| (session.id, session.clone())));
        self.clients.extend(records.clients.iter().map(|client| (client.client, *client)));
        self.counter_limit = records.counter_limit.or(self.counter_limit);
        records.forgotten.iter().for_each(|id| drop(self.asks.remove(id)));
        self.asks.extend(records.asks.iter().map(|ask| (ask.id, ask.clone())));
        self.answers.extend(records.answers.iter().map(|answers| (answers.number, answers.clone())));
    }

    fn apply(&mut self, checkpoint: &Checkpoint) {
        self.sessions.extend(checkpoint.sessions.iter().map(|session| (session.id, session.clone())));
        checkpoint.expired.iter().for_each(|id| drop(self.sessions.remove(id)));
        self.lanes.clone_from(&checkpoint.lanes);
        self.sinks.clone_from(&checkpoint.sinks);
        self.former.clone_from(&checkpoint.former);
        checkpoint.retried.iter().for_each(|id| drop(self.dead.remove(id)));
        self.checkpoint_at = checkpoint.at;
        self.answers.retain(|number, _| *number >= checkpoint.answers_below);
        while self.blocks.front().is_some_and(|block| block.end() <= checkpoint.trim_below) {
            self.blocks.pop_front();
        }
        self.low = self.blocks.front().map_or(self.end, |block| block.first());
    }
}

struct Faults {
    hook: Option<Hook>,
    free_bytes: u64,
    /// Who has taken the journal over. Noticed by the next write.
    owner: Option<String>,
    level: DurabilityLevel,
    failed: Option<JournalError>,
}

impl Default for Faults {
    fn default() -> Self {
        let level = DurabilityLevel::Synced;
        Self { hook: None, free_bytes: u64::MAX, owner: None, level, failed: None }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    /// Opens the journal as the disk holds it, as after a start of the server. An earlier journal on the same disk is cut
    /// off, as by a crash.
    pub fn open(&self, replay: &mut dyn FnMut(Replay<'_>)) -> Opened<MemoryJournal> {
        self.crash();
        {
            let mut faults = lock(&self.faults);
            (faults.failed, faults.owner) = (None, None);
        }
        let synced = lock(&self.synced);
        synced.sessions.values().for_each(|session| replay(Replay::Session(session.clone())));
        synced.clients.values().for_each(|client| replay(Replay::Client(*client)));
        if let Some(limit) = synced.counter_limit {
            replay(Replay::CounterLimit(limit));
        }
        synced.asks.values().for_each(|ask| replay(Replay::Ask(ask.clone())));
        let mut extents = Vec::new();
        for block in &synced.blocks {
            Extent::add(&mut extents, block);
            if block.end() > synced.checkpoint_at {
                replay(Replay::Block(block));
            }
        }
        synced.answers.values().for_each(|answers| replay(Replay::Answers(answers.clone())));
        let handle = Handle { disk: self.clone(), generation: synced.generation };
        Opened {
            reader: Arc::new(self.clone()),
            dead: Arc::new(handle.clone()),
            lanes: synced.lanes.clone(),
            former: synced.former.clone(),
            sinks: synced.sinks.clone(),
            checkpoint_at: synced.checkpoint_at,
            low: synced.low,
            end: synced.end,
            extents,
            given_up: Vec::new(),
            journal: ByHand::new(MemoryWriter { end: synced.end, handle }),
        }
    }

    /// Cuts off every journal that is open on this disk: what they have not synced is lost, and their writes fail.
    pub fn crash(&self) {
        lock(&self.synced).generation += 1;
    }

    /// Runs `hook` in each write, before it becomes durable; what it returns decides the write's fate. It may block, and
    /// look at what has been sent meanwhile. Replaces an earlier hook.
    pub fn on_write(&self, hook: impl FnMut(Write<'_>) -> WriteFate + Send + 'static) {
        lock(&self.faults).hook = Some(Box::new(hook));
    }

    /// Another owner takes the journal over: what is written from now on is refused, until it is opened again.
    pub fn fence(&self, owner: &str) {
        lock(&self.faults).owner = Some(owner.to_owned());
    }

    /// Forgets the newest blocks, down to the one that holds this entry, although they were durable.
    pub fn lose_from(&self, offset: Offset) {
        let mut synced = lock(&self.synced);
        while let Some(last) = synced.blocks.back().filter(|block| block.end() > offset) {
            (synced.end, synced.last_checksum) = (last.first(), last.previous_checksum());
            synced.blocks.pop_back();
        }
    }

    /// How safe receipts say that entries are, from now on.
    pub fn set_level(&self, level: DurabilityLevel) {
        lock(&self.faults).level = level;
    }

    /// What is free from now on, as [`Room`] and dead letters see it.
    pub fn set_free_bytes(&self, bytes: u64) {
        lock(&self.faults).free_bytes = bytes;
    }

    /// Every entry below is durable.
    pub fn end(&self) -> Offset {
        lock(&self.synced).end
    }

    /// Entries below are trimmed, and not in the journal any more.
    pub fn low(&self) -> Offset {
        lock(&self.synced).low
    }

    /// The durable state of a session.
    pub fn session(&self, id: SessionId) -> Option<SessionRecord> {
        lock(&self.synced).sessions.get(&id).cloned()
    }

    /// The durable epochs of a client.
    pub fn client(&self, client: ClientId) -> Option<ClientRecord> {
        lock(&self.synced).clients.get(&client).copied()
    }

    /// The durable limit of the server's counter.
    pub fn counter_limit(&self) -> Option<u64> {
        lock(&self.synced).counter_limit
    }

    /// The durable record of an ask.
    pub fn ask(&self, id: AskId) -> Option<AskRecord> {
        lock(&self.synced).asks.get(&id).cloned()
    }

    /// The durable records of answers, in the order of their numbers.
    pub fn answers(&self) -> Vec<AnswersRecord> {
        lock(&self.synced).answers.values().cloned().collect()
    }

    /// The durable state of the lanes.
    pub fn lanes(&self) -> Vec<LaneMark> {
        lock(&self.synced).lanes.clone()
    }

    /// The durable state of the configured sinks.
    pub fn sinks(&self) -> Vec<SinkRecord> {
        lock(&self.synced).sinks.clone()
    }
}

/// One opening of the disk.
#[derive(Clone)]
struct Handle {
    disk: MemoryDisk,
    generation: u64,
}

impl Handle {
    /// Asks the hook, then applies the change, all of it or nothing. The first failure is final. `known_end`: every entry
    /// below was durable.
    fn write(
        &self,
        action: String,
        known_end: Offset,
        write: Write<'_>,
        apply: impl FnOnce(&mut Synced),
    ) -> Result<(), JournalError> {
        let mut faults = lock(&self.disk.faults);
        if let Some(failed) = &faults.failed {
            return Err(failed.clone());
        }
        let fate = faults.hook.as_mut().map_or(WriteFate::Durable, |hook| hook(write));
        let mut synced = lock(&self.disk.synced);
        if synced.generation != self.generation {
            return Err(StorageError::new(action, "the machine has crashed").into());
        }
        let refusal = match faults.owner.clone() {
            Some(owner) => Some(JournalError::Fenced { owner }),
            None if synced.end < known_end => Some(JournalError::Lost { acked_end: known_end, end: synced.end }),
            None => (fate != WriteFate::Durable).then(|| StorageError::new(action, "injected fault").into()),
        };
        let written = match refusal {
            None => true,
            Some(JournalError::Failed(_)) => fate == WriteFate::FailedButWritten,
            Some(_) => false,
        };
        if written {
            apply(&mut synced);
        }
        faults.failed.clone_from(&refusal);
        refusal.map_or(Ok(()), Err)
    }

    /// A failure of the caller's making, final like the others.
    fn refuse(&self, error: StorageError) -> JournalError {
        lock(&self.disk.faults).failed.get_or_insert(error.into()).clone()
    }

    fn write_letters(
        &self,
        action: String,
        ids: &[DeadLetterId],
        apply: impl FnOnce(&mut Synced),
    ) -> Result<(), StorageError> {
        let result = self.write(action.clone(), Offset(0), Write::DeadLetters(ids), apply);
        result.map_err(|error| error.stops(action))
    }
}

/// The journal on a [`MemoryDisk`].
pub type MemoryJournal = ByHand<MemoryWriter>;

/// Lets commits of a [`MemoryJournal`] land.
pub type MemoryHand = Hand<MemoryWriter>;

/// The writer on a [`MemoryDisk`].
pub struct MemoryWriter {
    handle: Handle,
    /// Every entry below was durable.
    end: Offset,
}

impl WriteCommit for MemoryWriter {
    /// Memory has no sync: it is written then.
    type Written = Commit;

    fn write_ahead(&mut self, commit: Commit) -> Result<Commit, JournalError> {
        Ok(commit)
    }

    fn sync(&mut self, written: Vec<Commit>) -> Vec<Result<Landed, JournalError>> {
        written.into_iter().map(|commit| self.write(commit)).collect()
    }

    fn durable(&self) -> Durable {
        Durable { block: None, end: self.end, level: lock(&self.handle.disk.faults).level }
    }

    fn write(&mut self, commit: Commit) -> Result<Landed, JournalError> {
        let Commit { mut block, records, checkpoint } = commit;
        let (records, checkpoint) = (&records, checkpoint.as_ref());
        let (first, previous_checksum) = (self.end, lock(&self.handle.disk.synced).last_checksum);
        let action = format!("write at offset {first}");
        let place = Place { first, previous_checksum, committed_unix_us: block.newest_arrival_unix_us() };
        let built = match block.is_empty() {
            true => None,
            false => match block.build(place) {
                Ok(built) => Some(Arc::new(built)),
                Err(error) => return Err(self.handle.refuse(StorageError::new(action, error))),
            },
        };
        block.clear();
        let end = built.as_ref().map_or(first, |block| block.end());
        if let Some(Err(problem)) = checkpoint.map(|checkpoint| checkpoint.verify(end)) {
            return Err(self.handle.refuse(StorageError::new(action, problem)));
        }
        let write = Write::Commit { block: built.as_deref(), checkpoint, records };
        self.handle.write(action, self.end, write, |synced| {
            synced.put(records);
            if let Some(block) = &built {
                synced.end = block.end();
                synced.last_checksum = block.checksum();
                synced.blocks.push_back(block.clone());
            }
            if let Some(checkpoint) = checkpoint {
                synced.apply(checkpoint);
            }
        })?;
        self.end = end;
        let receipt = Durable { block: built, ..self.durable() };
        Ok(Landed { receipt, block })
    }

    fn room(&self, reserve_bytes: u64) -> Result<Room, StorageError> {
        Ok(Room::of(lock(&self.handle.disk.faults).free_bytes, reserve_bytes))
    }

    fn failure(&self) -> Option<JournalError> {
        lock(&self.handle.disk.faults).failed.clone()
    }
}

impl ReadJournal for MemoryDisk {
    fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Arc<Block>>, StorageError> {
        let synced = lock(&self.synced);
        let start = synced.blocks.partition_point(|block| block.end() <= from);
        let mut bytes = 0;
        let mut blocks = Vec::new();
        for block in synced.blocks.range(start..) {
            blocks.push(block.clone());
            bytes += block.size();
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(blocks)
    }

    fn id(&self) -> Option<JournalId> {
        Some(self.id)
    }
}

impl DeadLetters for Handle {
    fn put_all(&self, letters: &[DeadLetter], room: DeadLetterRoom) -> Result<Result<(), NoRoom>, StorageError> {
        let Some(first) = letters.first() else { return Ok(Ok(())) };
        let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        let free_bytes = lock(&self.disk.faults).free_bytes;
        let no_room = {
            let dead = &lock(&self.disk.synced).dead;
            let new = ids.iter().filter(|id| !dead.contains_key(id)).count();
            room.for_more(dead.len() as u64, new as u64, free_bytes).err()
        };
        if let Some(no_room) = no_room {
            return Ok(Err(no_room));
        }
        let action = format!("putting {} dead letters from entry {} on", letters.len(), first.id.offset);
        self.write_letters(action, &ids, |synced| {
            synced.dead.extend(letters.iter().map(|letter| (letter.id, letter.clone())));
        })?;
        Ok(Ok(()))
    }

    fn list(&self, from: DeadLetterId, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        Ok(lock(&self.disk.synced).dead.range(from..).take(limit).map(|(_, letter)| letter.clone()).collect())
    }

    fn get(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, StorageError> {
        Ok(lock(&self.disk.synced).dead.get(&id).cloned())
    }

    fn delete_all(&self, ids: &[DeadLetterId]) -> Result<u64, StorageError> {
        let Some(first) = ids.first() else { return Ok(0) };
        let action = deleting(ids.len(), *first);
        let mut deleted = 0;
        self.write_letters(action, ids, |synced| {
            deleted = ids.iter().filter(|id| synced.dead.remove(id).is_some()).count() as u64;
        })?;
        Ok(deleted)
    }

    fn counts(&self) -> LetterCounts {
        let mut counts = LetterCounts::default();
        lock(&self.disk.synced).dead.keys().for_each(|id| counts.add(*id));
        counts
    }
}

#[cfg(test)]
mod tests;
