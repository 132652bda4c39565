//! A lane: takes its sessions' entries in order, presents them to its handler, and moves its watermark.
//!
//! Invariants:
//! - Entries are presented in offset order, each batch only when the one before is finished.
//! - A handler is flushed only while no batch is open, and the watermark moves only after a flush that succeeded. So with
//!   the watermark is stored the sink state that covers exactly the entries below it.
//! - Who has asked hears what came of it before the watermark moves beyond it (`answers`).
//! - What a lane holds in memory is bounded: fetched blocks (`block_queue`), one batch, and what its handler has not flushed.

mod answering;
mod stopped;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, TryRecvError};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::asked::{Asked, LaneCommand, Seek};
use super::attempts::{Attempts, OpenBatch};
use super::block_queue::{BlockQueue, Limits};
use super::config::LaneConfig;
use super::handler::{Handler, HandlerError, HandlerFactory};
use super::lane_name::LaneName;
use super::progress::Progress;
use super::recent::RecentReader;
use super::retried::{RetryError, RetryReply};
use crate::journal::{DeadLetterId, DeadLetters, ReadJournal, StorageError};
use crate::limits;
use crate::metrics::Metrics;
use crate::model::{Lane, Now, Offset, Record};

/// A step tells its thread what it did, and so what to do next.
#[derive(Debug)]
pub enum LaneStep {
    /// Something; the next step may find more.
    Worked,
    /// Nothing is there. Step again when a block or a command comes, or at this time of the monotonic clock.
    Idle {
        /// The time in microseconds; `None` when no time ends the wait.
        until_us: Option<u64>,
    },
    /// A retry is not due. Step again at this time of the monotonic clock, in microseconds, or when a command comes;
    /// blocks wait.
    RetryAt(u64),
    /// The lane has ended because it was asked to.
    Finished {
        /// Whether it had processed all that was durable.
        drained: bool,
    },
    /// The journal or the dead letters failed. Nothing was skipped; the server must stop.
    Failed(StorageError),
}

/// What the lanes of a sink need beside their handlers.
#[derive(Clone)]
pub struct LaneParts {
    /// How far the lanes have come, shared with the committer.
    pub progress: Arc<Progress>,
    /// The journal, from which a lane reads what is not in memory any more.
    pub journal: Arc<dyn ReadJournal>,
    /// The store of records that are given up.
    pub dead: Arc<dyn DeadLetters>,
    /// The metrics in which lanes count.
    pub metrics: Metrics,
    /// How lanes batch, flush and retry.
    pub config: LaneConfig,
    /// The seed of the jitter between retries.
    pub seed: u64,
}

/// One lane, without its thread: whoever has a clock can drive it by [`step`](Self::step).
pub struct LaneWorker {
    lane: Lane,
    name: LaneName,
    lanes: u16,
    config: LaneConfig,
    progress: Arc<Progress>,
    blocks: BlockQueue,
    attempts: Attempts,
    asked: Asked,
    metrics: Metrics,
    /// Makes the handler anew, where that can be asked for.
    remake: Option<Arc<Mutex<HandlerFactory>>>,
    /// Where an operator wants it to go on.
    seek: Option<Seek>,
    /// Every entry of the lane below is finished.
    cursor: Offset,
    /// The end of the batch that is being presented; some of it is `open`.
    batch_end: Option<Offset>,
    open: OpenBatch,
    /// Since when records wait for others to fill a call.
    gathers_since_us: Option<u64>,
    unflushed: Unflushed,
    /// Where the watermark may move, with the state that the flush returned, when who has asked is told.
    flushed: Option<(Offset, Vec<u8>)>,
    /// Dead letters to present when no batch is open.
    retries: VecDeque<(DeadLetterId, RetryReply)>,
    reopened: Reopened,
    /// The committer is to be asked for a checkpoint, as soon as there is room in its mailbox.
    wants_checkpoint: bool,
    drain_by_us: Option<u64>,
    /// Memory for the next batch.
    spare: Vec<Record<'static>>,
}

/// What came of looking for a batch.
enum Taking {
    /// It was presented, or what there is was for others.
    Took,
    /// Nothing is there that the lane could take.
    Nothing,
    /// Records are there that wait for others until this time of the monotonic clock, in microseconds.
    Gathers { until_us: u64 },
}

/// What was finished since the last flush.
#[derive(Debug, Default)]
struct Unflushed {
    records: usize,
    bytes: usize,
    /// When the first of the records was presented.
    since_us: u64,
}

/// What is left to do after the handler has opened its files anew.
#[derive(Debug, Default)]
struct Reopened {
    /// To flush as soon as no batch is open, also when a flush has just failed: that may be why the operator asked.
    flush: bool,
    /// When the flush has succeeded, to ask for a checkpoint: before the watermark names the new file, a crash would find the
    /// records in the old one only.
    checkpoint: bool,
}

impl Drop for LaneWorker {
    /// A channel keeps what was sent when its receiver goes: whoever waits for an answer would wait forever.
    fn drop(&mut self) {
        self.asked.commands.try_iter().for_each(drop);
    }
}

impl fmt::Debug for LaneWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneWorker({} of {}, at {})", self.lane, self.lanes, self.cursor)
    }
}

impl LaneWorker {
    /// A lane at its watermark.
    ///
    /// # Errors
    /// The handler's first flush failed.
    pub(super) fn new(
        lane: Lane,
        parts: &LaneParts,
        blocks: RecentReader,
        asked: Asked,
        handler: Box<dyn Handler>,
    ) -> Result<Self, HandlerError> {
        let progress = &parts.progress;
        let rng = SmallRng::seed_from_u64(parts.seed.wrapping_add(lane.0.into()));
        let name = progress.lane_name(lane);
        let mut attempts = Attempts::new(
            name.clone(),
            handler,
            Arc::clone(&parts.dead),
            progress.mailbox(),
            &parts.config,
            rng,
            &parts.metrics,
        );
        // The first checkpoint is to know each lane's sink, also of a lane to which nothing ever comes.
        let sink_state = attempts.flush(Now::default())?;
        let cursor = progress.watermark(lane);
        progress.set_mark(lane, cursor, Some(sink_state));
        let queue_bytes_max = limits::LANE_QUEUE_BYTES.max(parts.config.batch_bytes_max);
        let (reader, shared) = (Arc::clone(&parts.journal), Arc::clone(progress));
        Ok(Self {
            lane,
            name,
            lanes: progress.lanes(),
            config: parts.config,
            progress: Arc::clone(progress),
            blocks: BlockQueue::new(lane, shared, blocks, reader, queue_bytes_max),
            attempts,
            asked,
            metrics: parts.metrics.clone(),
            remake: None,
            seek: None,
            cursor,
            batch_end: None,
            open: OpenBatch::default(),
            gathers_since_us: None,
            unflushed: Unflushed::default(),
            flushed: None,
            retries: VecDeque::new(),
            reopened: Reopened::default(),
            wants_checkpoint: false,
            drain_by_us: None,
            spare: Vec::new(),
        })
    }

    /// What names it to people.
    pub fn name(&self) -> &LaneName {
        &self.name
    }

    /// Returns the lane's number, which is also its place among the lanes.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Does one thing: obeys commands, and then presents a batch, or flushes, or finds that there is nothing to do.
    pub fn step(&mut self, now: Now) -> LaneStep {
        self.obey(now);
        self.post();
        let step = match (self.work(now).unwrap_or_else(LaneStep::Failed), self.drain_by_us) {
            (LaneStep::RetryAt(at), Some(deadline)) => LaneStep::RetryAt(at.min(deadline)),
            (step, _) => step,
        };
        if !self.wants_checkpoint && !self.attempts.answers.have_news() {
            return step;
        }
        // There was no room for its message.
        let again_us = now.mono_us.saturating_add(limits::LANE_POST_AGAIN_US);
        match step {
            LaneStep::Idle { until_us } => {
                LaneStep::Idle { until_us: Some(until_us.map_or(again_us, |at| at.min(again_us))) }
            }
            LaneStep::RetryAt(at) => LaneStep::RetryAt(at.min(again_us)),
            step => step,
        }
    }

    fn work(&mut self, now: Now) -> Result<LaneStep, StorageError> {
        if self.drain_by_us.is_some_and(|deadline| now.mono_us >= deadline) {
            // What an open batch has done so far comes again after the next start.
            if self.batch_end.is_none() {
                self.flush(now);
            }
            return Ok(LaneStep::Finished { drained: self.watermark_is_at_the_end() });
        }
        if self.attempts.answers.wait_for_room() {
            // The committer is behind: nothing is done that would add to it.
            return Ok(LaneStep::RetryAt(now.mono_us.saturating_add(limits::LANE_POST_AGAIN_US)));
        }
        if let Some(step) = self.stop_or_jump(now)? {
            return Ok(step);
        }
        if let Some(end) = self.batch_end {
            let due_us = self.attempts.due_us(&self.open, now);
            if due_us > now.mono_us {
                self.settle(now);
                return Ok(LaneStep::RetryAt(due_us));
            }
            if self.is_settling_due(now) {
                self.settle(now);
            }
            self.present(now, end)?;
            return Ok(LaneStep::Worked);
        }
        if std::mem::take(&mut self.reopened.flush) {
            self.flush(now);
            return Ok(LaneStep::Worked);
        }
        if let Some(at) = self.attempts.flush_due(now) {
            return Ok(LaneStep::RetryAt(at));
        }
        // After a flush that failed the handler gets nothing new: what it holds stays bounded.
        if self.attempts.flush_failed() || self.is_flush_due(now) {
            self.flush(now);
            return Ok(LaneStep::Worked);
        }
        if !self.retries.is_empty() {
            self.retry_dead_letters(now);
            return Ok(LaneStep::Worked);
        }
        let reads = self.blocks.fill()?;
        self.metrics.lane_journal_reads.inc_by(reads);
        if self.progress.floor() > self.cursor {
            // Lost while it was fetched, and perhaps trimmed: what comes behind it has to wait until that is durable.
            return Ok(LaneStep::Worked);
        }
        let gathers_until_us = match self.take_batch(now)? {
            Taking::Took => return Ok(LaneStep::Worked),
            Taking::Nothing => None,
            Taking::Gathers { until_us } => Some(until_us),
        };
        if self.attempts.answers.wait_since_us().is_some() {
            self.flush(now);
            return Ok(LaneStep::Worked);
        }
        if self.drain_by_us.is_none() {
            let flush_at_us = (self.unflushed.records > 0).then(|| self.flush_at_us());
            return Ok(LaneStep::Idle { until_us: flush_at_us.into_iter().chain(gathers_until_us).min() });
        }
        if self.unflushed.records > 0 {
            self.flush(now);
            return Ok(LaneStep::Worked);
        }
        Ok(LaneStep::Finished { drained: self.watermark_is_at_the_end() })
    }

    /// Takes the next batch and presents it, unless its records are to wait for others.
    fn take_batch(&mut self, now: Now) -> Result<Taking, StorageError> {
        let mut records = recycle(std::mem::take(&mut self.spare));
        let limits = Limits { records: self.config.batch_records_max, bytes: self.config.batch_bytes_max };
        let taken = self.blocks.records(self.lanes, self.cursor, None, limits, &mut records);
        if taken.end == self.cursor {
            self.spare = recycle(records);
            return Ok(Taking::Nothing);
        }
        if taken.passes_asks {
            self.attempts.answers.pass_over(now);
        }
        if !records.is_empty() {
            let mut gathers = None;
            let is_full = records.len() >= limits.records || taken.bytes >= limits.bytes || self.blocks.is_full();
            let delay_us = u64::try_from(self.config.batch_delay.as_micros()).unwrap_or(u64::MAX);
            if delay_us > 0 && !is_full && self.drain_by_us.is_none() {
                let until_us = self.gathers_since_us.get_or_insert(now.mono_us).saturating_add(delay_us);
                gathers = (now.mono_us < until_us).then_some(until_us);
            }
            if let Some(until_us) = gathers {
                self.spare = recycle(records);
                return Ok(Taking::Gathers { until_us });
            }
            self.gathers_since_us = None;
            if self.unflushed.records == 0 {
                self.unflushed.since_us = now.mono_us;
                self.note_oldest(records.first());
            }
            self.unflushed.records += records.len();
            self.open.reset(records.len());
            self.open.may_ask = taken.may_ask;
            self.batch_end = Some(taken.end);
            self.attempts.present(now, &records, &mut self.open)?;
        }
        self.unflushed.bytes += taken.bytes;
        self.spare = recycle(records);
        if self.open.is_finished() {
            self.finish_batch(taken.end);
        }
        Ok(Taking::Took)
    }

    /// How long its oldest record waits is of interest for a configured sink.
    fn note_oldest(&self, oldest: Option<&Record<'_>>) {
        if let Some(cursor) = self.progress.cursor() {
            cursor.set_oldest(oldest.map(|record| record.received_unix_us));
        }
    }

    /// Presents what is left of the batch that ends at `end`.
    fn present(&mut self, now: Now, end: Offset) -> Result<(), StorageError> {
        let mut records = recycle(std::mem::take(&mut self.spare));
        let no_limits = Limits { records: usize::MAX, bytes: usize::MAX };
        self.blocks.records(self.lanes, self.cursor, Some(end), no_limits, &mut records);
        self.attempts.present(now, &records, &mut self.open)?;
        self.spare = recycle(records);
        if self.open.is_finished() {
            self.finish_batch(end);
        }
        Ok(())
    }

    fn finish_batch(&mut self, end: Offset) {
        self.batch_end = None;
        self.cursor = end;
        self.blocks.release(end);
        if self.unflushed.records == 0 {
            // All of it was other lanes': the handler's state covers it as it is.
            self.progress.set_mark(self.lane, end, None);
            self.attempts.answers.passed();
            self.post();
        }
    }

    /// By bytes also without a record: the state of a lane to which nothing comes must not stay where it was long ago, since
    /// a sink may look after a crash at all that was written since.
    fn is_flush_due(&self, now: Now) -> bool {
        let unflushed = &self.unflushed;
        let due = unflushed.records >= self.config.flush_records_max || now.mono_us >= self.flush_at_us();
        unflushed.bytes >= self.config.flush_bytes_max
            || self.attempts.answers.are_full()
            || (unflushed.records > 0 && due)
    }

    fn flush_at_us(&self) -> u64 {
        let interval_us = u64::try_from(self.config.flush_interval.as_micros()).unwrap_or(u64::MAX);
        self.unflushed.since_us.saturating_add(interval_us)
    }

    /// Flushes, tells who has asked, and moves the watermark. What fails is logged, counted and tried again by a later step.
    fn flush(&mut self, now: Now) {
        debug_assert!(self.batch_end.is_none(), "with an open batch the handler's state is of no single place");
        let Ok(sink_state) = self.attempts.flush(now) else { return };
        self.unflushed = Unflushed::default();
        self.note_oldest(None);
        self.flushed = Some((self.cursor, sink_state));
        self.attempts.answers.settled(false);
        self.post();
    }

    fn watermark_is_at_the_end(&self) -> bool {
        self.progress.watermark(self.lane) >= self.progress.durable_end()
    }

    fn obey(&mut self, now: Now) {
        loop {
            match self.asked.commands.try_recv() {
                Ok(LaneCommand::Look) => {}
                Ok(LaneCommand::Seek(mut seek)) => {
                    // As if the one before had been carried out just before it: both are done when this one is durable.
                    seek.replies.extend(self.seek.take().into_iter().flat_map(|before| before.replies));
                    self.seek = Some(seek);
                }
                Ok(LaneCommand::RetryDead { id, reply }) => {
                    if self.retries.len() + self.progress.retries_of(self.lane) < limits::LANE_RETRIES {
                        self.retries.push_back((id, reply));
                    } else {
                        drop(reply.try_send(Err(RetryError::Busy(limits::LANE_RETRIES))));
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    // Nobody is left who could ask for an end.
                    self.drain_by_us.get_or_insert(now.mono_us);
                    break;
                }
            }
        }
        // After the queue: whoever found it full has left a note before.
        if self.asked.take_reopen() {
            self.attempts.reopen(&mut self.open);
            self.reopened = Reopened { flush: true, checkpoint: true };
        }
        if let Some(deadline) = self.asked.drain_by_us() {
            self.drain_by_us = Some(self.drain_by_us.map_or(deadline, |before| before.min(deadline)));
        }
    }

    /// Presents the dead letters that are asked for, one by one, and flushes: only with a state that covers them may they go.
    fn retry_dead_letters(&mut self, now: Now) {
        let mut flush = false;
        while let Some((id, reply)) = self.retries.pop_front() {
            if self.progress.joins_retry(id, &reply) {
                continue;
            }
            match self.attempts.retry(id) {
                Ok(()) => {
                    self.progress.is_retried(self.lane, id, reply);
                    flush = true;
                }
                // Who asked may have gone away meanwhile.
                Err(error) => drop(reply.try_send(Err(error))),
            }
        }
        if flush {
            self.flush(now);
        }
    }

    /// Whether somebody has asked since this was last called: then who waits for an answer must not wait for a nap.
    pub(super) fn take_asked(&mut self) -> bool {
        self.attempts.answers.take_asked()
    }

    /// Whether to wait on the [`channels`](Self::channels) for a block; no, when one has come since the last step.
    pub(super) fn may_sleep(&mut self) -> bool {
        self.blocks.lie_down()
    }

    /// The channels to wait on after a step that returned [`LaneStep::Idle`]: of blocks, unless none can come, and of commands.
    pub(super) fn channels(&self) -> (Option<&Receiver<()>>, &Receiver<LaneCommand>) {
        (self.blocks.channel(), &self.asked.commands)
    }
}

/// An empty vector with the memory of another: the records borrow from blocks that are gone by the next batch.
fn recycle<'a>(mut records: Vec<Record<'_>>) -> Vec<Record<'a>> {
    records.clear();
    // The standard library collects in place here, since source and target have one layout; it would be correct without.
    records.into_iter().map(|_| unreachable!("the vector is empty")).collect()
}
