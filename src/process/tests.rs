//! Tests of lanes, and what they share: a journal in memory, lanes on it that are driven by hand, a handler that does as told.

mod answers;
mod attempts;
mod commands;
mod delivery;
mod doorbell_model;
mod flushing;
mod hand_off_model;
mod mailbox;
mod property;
mod recent;
mod sinks;

use std::sync::{Arc, Mutex, MutexGuard};

use duragram_proto::{ClientId, Epoch, Seq};
use prometheus_client::registry::Registry;

use super::*;
use crate::journal::testing::memory::{MemoryDisk, MemoryJournal};
use crate::journal::{BlockBuilder, Checkpoint, DeadLetter, DeadLetterId, DeadLetters, Journal, ReadJournal};
use crate::metrics::Metrics;
use crate::model::{DialectId, EntryMeta, Lane, Now, Offset, SessionId};

/// A record is named by its entry's offset and its index there.
type Key = (u64, u16);

fn session(client: u64) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(1).unwrap() }
}

fn meta(client: u64, seq: u64) -> EntryMeta {
    EntryMeta {
        dialect: DialectId::DURAGRAM,
        session: session(client),
        seq: Seq(seq),
        span: 0,
        skip: false,
        batch: false,
        asks: false,
        sealed: false,
        channel: 0,
        received_unix_us: 1_700_000_000_000_000 + seq,
    }
}

fn at(mono_us: u64) -> Now {
    Now { mono_us, unix_us: 1_700_000_100_000_000 + mono_us }
}

/// What a handler does with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
    Done,
    Retry,
    GiveUp,
    /// The same, with many words.
    Verbose,
    Panic,
    /// Stops without an answer for this record and those after it.
    Stop,
    /// The same, and says that its sink is away.
    Away,
    /// Is done, durably at once, and says so before it goes on.
    Tell,
    /// Is said to be done, and then to be tried again.
    DoneAndRetry,
}

type Behaviour = Box<dyn FnMut(&Record<'_>) -> Does + Send>;

/// What the handlers of all lanes did.
#[derive(Default)]
struct Log {
    /// Records of each call, with their lane.
    calls: Vec<(Lane, Vec<Key>)>,
    /// Records that were done, with their lane, in order.
    done: Vec<(Lane, Key)>,
    flushes: usize,
    /// How often what was done was settled; `None` for a handler that cannot.
    settled: Option<usize>,
    reopened: usize,
    /// Each `flush` fails with this text; `None` lets it succeed.
    flush_error: Option<&'static str>,
}

/// A handler that asks a closure about each record, goes on after one that it could not do, and keeps how many it has done
/// as its state.
struct Scripted {
    lane: Lane,
    log: Arc<Mutex<Log>>,
    behaviour: Arc<Mutex<Behaviour>>,
    done: u64,
}

impl Handler for Scripted {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        lock(&self.log).calls.push((self.lane, records.iter().map(key).collect()));
        for (i, record) in records.iter().enumerate() {
            let does = lock(&self.behaviour)(record);
            match does {
                Does::Done | Does::Tell => {
                    self.done += 1;
                    lock(&self.log).done.push((self.lane, key(record)));
                    outcomes.done_with_what_fits(i, format!("re: {}", record.seq.0).as_bytes());
                    if does == Does::Tell {
                        outcomes.tell_done();
                    }
                }
                Does::DoneAndRetry => {
                    outcomes.done(i);
                    outcomes.retry(i, "try later");
                }
                Does::Retry => outcomes.retry(i, "try later"),
                Does::GiveUp => outcomes.give_up(i, "never"),
                Does::Verbose => outcomes.give_up(i, "\u{1f980}".repeat(100_000)),
                Does::Panic => panic!("cannot bear record {}", record.offset),
                Does::Stop => return,
                Does::Away => return outcomes.unavailable("gone fishing"),
            }
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        let mut log = lock(&self.log);
        log.flushes += 1;
        log.flush_error.map_or_else(|| Ok(self.done.to_le_bytes().to_vec()), |error| Err(HandlerError::new(error)))
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        let mut log = lock(&self.log);
        if let Some(error) = log.flush_error {
            return Err(HandlerError::new(error));
        }
        Ok(log.settled.as_mut().map(|settled| *settled += 1).is_some())
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        lock(&self.log).reopened += 1;
        Ok(())
    }
}

fn key(record: &Record<'_>) -> Key {
    (record.offset.0, record.index)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A server without sockets: a journal, the lanes on it, and who publishes.
struct Rig {
    disk: MemoryDisk,
    journal: MemoryJournal,
    dead: Arc<dyn DeadLetters>,
    progress: Arc<Progress>,
    metrics: Metrics,
    lanes: Lanes,
    log: Arc<Mutex<Log>>,
    behaviour: Arc<Mutex<Behaviour>>,
    seqs: u64,
}

fn config() -> LaneConfig {
    let retry = RetryPolicy {
        attempts_max: 3,
        first_delay: std::time::Duration::from_millis(100),
        longest_delay: std::time::Duration::from_secs(1),
    };
    LaneConfig { retry, ..LaneConfig::default() }
}

impl Rig {
    /// On an empty journal, with handlers to which everything succeeds.
    fn new(lanes: u16) -> Self {
        Self::on(MemoryDisk::default(), lanes, config())
    }

    /// The server starts on what a disk holds.
    fn on(disk: MemoryDisk, lanes: u16, config: LaneConfig) -> Self {
        let reader: Arc<dyn ReadJournal> = Arc::new(disk.clone());
        Self::reading(reader, disk, lanes, config)
    }

    /// The same with a reader of the test's own.
    fn reading(reader: Arc<dyn ReadJournal>, disk: MemoryDisk, lanes: u16, config: LaneConfig) -> Self {
        let opened = disk.open(&mut |_| ());
        let metrics = Metrics::register(&mut Registry::default());
        let progress = Progress::resume(opened.end, &opened.lanes, opened.former, lanes, &metrics);
        let parts = LaneParts {
            progress: Arc::clone(&progress),
            journal: reader,
            dead: Arc::clone(&opened.dead),
            metrics: metrics.clone(),
            config,
            seed: 7,
        };
        let log = Arc::new(Mutex::new(Log::default()));
        let done: Behaviour = Box::new(|_| Does::Done);
        let behaviour = Arc::new(Mutex::new(done));
        let (log_, behaviour_) = (Arc::clone(&log), Arc::clone(&behaviour));
        let mut factory: HandlerFactory = Box::new(move |start| {
            let states = start.inherited().filter_map(|state| state.first_chunk());
            let done = states.map(|state| u64::from_le_bytes(*state)).sum();
            let (log, behaviour) = (Arc::clone(&log_), Arc::clone(&behaviour_));
            Ok(Box::new(Scripted { lane: start.lane, log, behaviour, done }))
        });
        let lanes = Lanes::build(&parts, &mut factory).unwrap();
        Self { disk, journal: opened.journal, dead: opened.dead, progress, metrics, lanes, log, behaviour, seqs: 0 }
    }

    fn behave(&self, behaviour: impl FnMut(&Record<'_>) -> Does + Send + 'static) {
        *lock(&self.behaviour) = Box::new(behaviour);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// Commits and publishes a block with an entry of each of these clients.
    fn publish(&mut self, clients: &[u64]) {
        let mut builder = BlockBuilder::default();
        for &client in clients {
            self.seqs += 1;
            builder.push(&meta(client, self.seqs), format!("record {}", self.seqs).as_bytes());
        }
        self.publish_block(builder);
    }

    fn publish_block(&mut self, mut builder: BlockBuilder) {
        let durable = self.journal.commit(&mut builder, &[]).unwrap();
        self.lanes.fanout.publish(durable.block().unwrap());
    }

    /// A block in the journal of which the lanes hear nothing.
    fn commit_unpublished(&mut self, clients: &[u64]) {
        let mut builder = BlockBuilder::default();
        for &client in clients {
            self.seqs += 1;
            builder.push(&meta(client, self.seqs), b"quiet");
        }
        self.journal.commit(&mut builder, &[]).unwrap();
    }

    /// One step of the only lane.
    fn step(&mut self, mono_us: u64) -> LaneStep {
        self.lanes.workers[0].step(at(mono_us))
    }

    /// Steps of all lanes until each has nothing to do at this time.
    fn settle(&mut self, mono_us: u64) {
        for worker in &mut self.lanes.workers {
            while matches!(worker.step(at(mono_us)), LaneStep::Worked) {}
        }
    }

    /// Whether the lanes have asked for a checkpoint since this was last called.
    fn takes_checkpoint_request(&self) -> bool {
        std::iter::from_fn(|| self.progress.mailbox().take()).count() > 0
    }

    /// The watermark of the only lane.
    fn watermark(&self) -> u64 {
        self.progress.watermark(Lane(0)).0
    }

    /// What was done, without the lanes.
    fn done(&self) -> Vec<Key> {
        self.log().done.iter().map(|(_, key)| *key).collect()
    }

    /// The records of each call, without the lanes.
    fn calls(&self) -> Vec<Vec<Key>> {
        self.log().calls.iter().map(|(_, call)| call.clone()).collect()
    }

    /// What all handlers have kept, added up, as the journal has it.
    fn stored_sum(&self) -> u64 {
        let states = self.disk.lanes().into_iter().filter_map(|mark| mark.sink_state.first_chunk().copied());
        states.map(u64::from_le_bytes).sum()
    }

    fn letters(&self) -> Vec<DeadLetter> {
        self.dead.list(DeadLetterId::FIRST, 1000).unwrap()
    }

    /// Writes the lanes' marks as the committer does.
    fn checkpoint(&mut self) {
        let retried = self.progress.retried();
        let lanes = self.progress.marks();
        let former = self.progress.former(&lanes);
        let trim_below = lanes.iter().map(|mark| mark.watermark).min().unwrap();
        let at = self.journal.end();
        let checkpoint = Checkpoint { at, lanes, former, retried, trim_below, ..Checkpoint::default() };
        self.journal.checkpoint(&checkpoint).unwrap();
        self.progress.checkpointed(&checkpoint.retried);
    }

    /// The server is killed and started again, with handlers to which everything succeeds.
    fn restart(self, lanes: u16, config: LaneConfig) -> Self {
        let seqs = self.seqs;
        Self { seqs, ..Self::on(self.disk.clone(), lanes, config) }
    }
}

/// A journal of which blocks are missing.
struct Forgetful {
    disk: MemoryDisk,
    lost: std::ops::Range<u64>,
}

impl ReadJournal for Forgetful {
    fn read(
        &self,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Arc<crate::journal::Block>>, crate::journal::StorageError> {
        let mut blocks = self.disk.read(from, bytes_max)?;
        blocks.retain(|block| !self.lost.contains(&block.first().0));
        Ok(blocks)
    }
}

fn keys(offsets: std::ops::Range<u64>) -> Vec<Key> {
    offsets.map(|offset| (offset, 0)).collect()
}

fn retry_at(step: LaneStep) -> u64 {
    match step {
        LaneStep::RetryAt(at) => at,
        other => panic!("{other:?}"),
    }
}
