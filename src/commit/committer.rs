//! The committer: what it keeps, and how requests are absorbed. How blocks reach the disk, and what happens then, is in
//! [`commit`]; checkpoints are in [`checkpoint`], the reserve of free space in [`space`].

mod checkpoint;
mod commit;
mod holding;
mod rest;
mod space;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::commit::ask_control::{AskControl, AskRequests};
use crate::commit::{Backlog, Holding, Recovered, Verdict};
use crate::dialect::{Arrivals, Dialect, Work};
use crate::journal::{BlockBuilder, DeadLetterId, Durable, Journal, JournalError};
use crate::limits;
use crate::metrics::Metrics;
use crate::model::{AskTotals, Clock, FormerLanes, LaneMark, LaneMessage, Now, Offset, Processed, SinkRecord};
use crate::net::{ReplyQueue, Transmit};
use checkpoint::Checkpointing;
use commit::Flight;
use holding::Bounds;
use space::Space;

/// The lanes stand behind the committer, and hear from it what is durable.
pub trait Downstream: Send {
    /// A commit is durable: its block may be processed. Must not block.
    fn committed(&mut self, receipt: &Durable);
    /// Nothing was committed for a while: memory that is kept for speed alone may be given back. Must not block.
    fn rest(&mut self) {}
    /// How far each lane of an embedded handler has come, durably, in lane order; none with configured sinks.
    fn marks(&self) -> Vec<LaneMark>;
    /// The configured sinks as they are now, and those that keep their place.
    fn sinks(&self) -> Vec<SinkRecord> {
        Vec::new()
    }
    /// The next thing that processing has to say, in the order in which it was said. Must not block. After `None` the committer may
    /// sleep until it is woken.
    fn next_message(&mut self) -> Option<LaneMessage> {
        None
    }
    /// How many of these wait: those at least that were said before this call.
    fn messages(&self) -> usize {
        0
    }
    /// What processing says of all asks below some offsets, which grow. Whatever it has to say of one of these it has said before, so
    /// that the messages which are taken after this call have it.
    fn processed(&self) -> Vec<Processed> {
        Vec::new()
    }
    /// Says how to wake the committer when there is a message for it.
    fn wake_by(&mut self, _wake: Box<dyn Fn() + Send + Sync>) {}
    /// Of the lanes of earlier runs those that a start at these marks has to know of.
    fn former(&self, _marks: &[LaneMark]) -> Vec<FormerLanes> {
        Vec::new()
    }
    /// Dead letters that a checkpoint may delete which stores marks that are taken after this call.
    fn retried(&self) -> Vec<DeadLetterId> {
        Vec::new()
    }
    /// What each sink holds, in an order that does not change.
    fn holdings(&self) -> Vec<Holding> {
        Vec::new()
    }
    /// What follows for each, in the same order. Returns whether a checkpoint is to store something soon.
    fn bound(&mut self, _verdicts: &[Verdict], _now: Now) -> bool {
        false
    }
    /// What lies below is trimmed with the next checkpoint: to sinks that hold nothing and have not processed it, it is lost.
    fn trimmed(&mut self, _below: Offset, _now: Now) {}
    /// The number of the last request that a checkpoint answers which stores what is read after this call. They are numbered
    /// from 1 on.
    fn asked(&self) -> u64 {
        0
    }
    /// A checkpoint is durable, has deleted these dead letters, keeps the sinks like this, and answers requests up to this number.
    /// Must not block.
    fn checkpointed(&mut self, _retried: &[DeadLetterId], _sinks: &[SinkRecord], _asked: u64) {}
}

/// What of the configuration the committer needs.
#[derive(Clone, Debug)]
pub struct CommitterConfig {
    /// A block is committed when it has reached this size, in bytes.
    pub commit_bytes_max: usize,
    /// A checkpoint is written when this many bytes were journaled since the last, or at the interval below.
    pub checkpoint_bytes: u64,
    /// Microseconds between checkpoints while anything changes.
    pub checkpoint_interval_us: u64,
    /// Processed bytes that trimming keeps, for `tail`.
    pub retain_bytes: u64,
    /// New data is refused while less is free on the journal's file system, in bytes.
    pub reserve_bytes: u64,
}

/// The committer's state, for whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IngestStatus {
    /// Every entry below is durable.
    pub end: Offset,
    /// Offset of the last checkpoint.
    pub checkpoint: Offset,
    /// Sessions that the dialect remembers.
    pub sessions: usize,
    /// Asks that the dialect remembers.
    pub asks: AskTotals,
    /// Bytes of blocks in the journal.
    pub backlog_bytes: u64,
    /// Bytes free on the journal's file system, if it tells.
    pub free_bytes: Option<u64>,
    /// The journal has no room, such as when free space is below the reserve: new data is refused.
    pub storage_short: bool,
}

/// Turns requests into durable entries and replies. One thread owns it; every method is synchronous.
///
/// `D` is the dialect, `J` the journal, `T` the way out to the network, `L` the lanes.
pub struct Committer<D: Dialect, J, T, L> {
    config: CommitterConfig,
    dialect: D,
    journal: J,
    /// What is owed when the commits in flight have landed, the oldest first.
    flights: VecDeque<Flight<D::Owed>>,
    replies: ReplyQueue<T>,
    downstream: L,
    metrics: Metrics,
    backlog: Backlog,
    block: BlockBuilder,
    /// Everything that is durable so far. What is known already is confirmed on its strength.
    receipt: Arc<Durable>,
    failed: Option<JournalError>,

    /// Requests absorbed for the commit that is being built.
    absorbed: usize,
    /// When the first of them arrived, in monotonic microseconds; `u64::MAX` without any.
    absorbed_from_us: u64,
    /// When clients were last acked, in monotonic microseconds; `None` if that never was.
    acked_us: Option<u64>,
    /// How long it takes from then until the next message comes, in microseconds: of late, the latest counting for an eighth.
    turnaround_us: u64,
    /// What is kept for speed alone was given up since then.
    rests: bool,
    /// There may be messages of processing that the last commit has not heard.
    unheard: bool,
    /// Kept for the next flights: one more at most is in use than may be in flight.
    spares: Vec<Flight<D::Owed>>,
    spare_blocks: Vec<BlockBuilder>,

    /// 0 (nothing waits) to 1024 (the queue before the committer is full).
    pressure: u16,
    checkpointing: Checkpointing,
    space: Space,
    bounds: Bounds,
    /// What operators ask about asks.
    ask_requests: AskRequests,
}

impl<D: Dialect, J: Journal, T: Transmit, L: Downstream> Committer<D, J, T, L> {
    /// A committer that goes on where the journal stands.
    pub fn new(
        config: CommitterConfig,
        recovered: Recovered<D>,
        journal: J,
        transmit: T,
        downstream: L,
        metrics: Metrics,
    ) -> Self {
        let receipt = Arc::new(journal.durable());
        let mut committer = Self {
            config,
            dialect: recovered.dialect,
            journal,
            flights: VecDeque::new(),
            replies: ReplyQueue::new(transmit),
            downstream,
            metrics,
            backlog: recovered.backlog,
            block: BlockBuilder::default(),
            receipt,
            failed: None,
            absorbed: 0,
            absorbed_from_us: u64::MAX,
            acked_us: None,
            rests: false,
            turnaround_us: 2 * limits::LINGER_US,
            unheard: false,
            spares: Vec::new(),
            spare_blocks: Vec::new(),
            pressure: 0,
            checkpointing: Checkpointing::new(recovered.checkpoint_at, recovered.low),
            space: Space::default(),
            bounds: Bounds::default(),
            ask_requests: AskRequests::default(),
        };
        committer.report();
        committer
    }

    /// Says how the thread that drives the committer is woken when processing has a message for it.
    pub fn wake_by(&mut self, wake: impl Fn() + Send + Sync + 'static) {
        self.downstream.wake_by(Box::new(wake));
    }

    /// How operators ask about asks, from any thread.
    pub fn ask_control(&self) -> AskControl {
        self.ask_requests.control()
    }

    /// Reports how full the queue before the committer is, from 0 to 1024: clients are asked to send less.
    pub fn set_pressure(&mut self, pressure: u16) {
        self.pressure = pressure.min(1024);
    }

    /// Whether enough is absorbed for a commit.
    pub fn is_full(&self) -> bool {
        self.block.size() >= self.config.commit_bytes_max
            || self.absorbed >= limits::DATAGRAMS_PER_COMMIT
            || self.dialect.is_full()
    }

    /// How long the next commit may still wait for messages. Answers, and what clients say that they have had, need a sync; in a
    /// commit of their own it would be in the way of those clients that were just acked and send at once. So it waits for twice as long
    /// as these have taken of late. Zero when that is too long, as soon as there is anything to be journaled, and where nobody has
    /// asked.
    pub fn linger(&self, clock: &impl Clock) -> Duration {
        let asks = self.dialect.asks();
        let may_wait = self.block.is_empty() && !self.is_in_flight() && !self.has_more_to_do();
        let wait_us = 2 * self.turnaround_us;
        let Some(acked_us) = self.acked_us.filter(|_| may_wait && asks.open + asks.answered > 0) else {
            return Duration::ZERO;
        };
        if wait_us > limits::LINGER_US {
            return Duration::ZERO;
        }
        let since_us = clock.now().mono_us.saturating_sub(acked_us);
        Duration::from_micros(wait_us.saturating_sub(since_us))
    }

    /// The first message since clients were last acked has arrived at this time.
    fn note_turnaround(&mut self, arrived_us: u64) {
        if let Some(acked_us) = self.acked_us {
            let took_us = arrived_us.saturating_sub(acked_us).min(2 * limits::LINGER_US);
            self.turnaround_us = (7 * self.turnaround_us + took_us) / 8;
        }
    }

    /// Lets the dialect judge what has arrived, and takes what is new into the block. Confirms nothing, unless the block
    /// becomes full on the way: then it is launched as by `launch`, so that no block is larger than `commit_bytes_max`, a
    /// datagram and the gaps that this reveals.
    ///
    /// Errors are final as those of `commit`.
    pub fn absorb(&mut self, arrivals: &Arrivals<D::Admission>, clock: &impl Clock) -> Result<(), JournalError> {
        self.check_journal()?;
        if !self.space.is_known() {
            self.check_space(clock.now());
        }
        if !self.bounds.is_known() {
            self.check_bounds(clock.now());
        }
        let slab = &arrivals.slab;
        let had_none = self.block.is_empty();
        self.dialect.begin(slab.arrived);
        for request in arrivals.requests() {
            if self.is_full() {
                self.launch(clock)?;
            }
            self.absorbed += 1;
            self.absorbed_from_us = self.absorbed_from_us.min(slab.arrived.mono_us);
            let first = self.appended_end();
            let mut work = Work {
                block: &mut self.block,
                first,
                replies: &mut self.replies,
                pressure: self.pressure,
                storage_short: self.space.is_short() || self.bounds.is_blocked(),
                level: self.receipt.level(),
            };
            self.dialect.absorb(request, slab, &mut work);
        }
        self.dialect.end(arrivals.dropped());
        if had_none && !self.block.is_empty() {
            self.note_turnaround(slab.arrived.mono_us);
        }
        self.metrics.received_bytes.inc_by(slab.received_bytes());
        Ok(())
    }

    /// Nothing is confirmed any more once anything has failed, be it beside the commits: the files that hold what was
    /// confirmed may be gone.
    fn check_journal(&mut self) -> Result<(), JournalError> {
        if self.failed.is_none() {
            self.failed = self.journal.failure();
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Returns what others may know of the committer, as it is now.
    pub fn status(&self) -> IngestStatus {
        IngestStatus {
            end: self.receipt.end(),
            checkpoint: self.checkpointing.last(),
            sessions: self.dialect.sessions(),
            asks: self.dialect.asks(),
            backlog_bytes: self.backlog.bytes(),
            free_bytes: self.space.free_bytes(),
            storage_short: self.space.is_short(),
        }
    }

    /// Tests look at what the dialect remembers.
    #[cfg(test)]
    pub(super) fn dialect(&self) -> &D {
        &self.dialect
    }

    fn report(&mut self) {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.sessions.set(gauge(self.dialect.sessions() as u64));
        self.metrics.backlog_bytes.set(gauge(self.backlog.bytes()));
    }
}
