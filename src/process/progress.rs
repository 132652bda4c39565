//! How far the lanes have come, and how committed blocks reach them.
//!
//! [`Fanout`] never waits for a lane: the newest blocks are in memory, once for all lanes (`recent`), and what has left it a lane
//! reads back from the journal when it gets there.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use super::mailbox::Mailbox;
use super::recent::{RecentBlocks, RecentReader};
use super::retried::{RetriedLetters, RetryReply};
use crate::journal::{Block, DeadLetterId};
use crate::limits;
use crate::metrics::{LaneLabel, Metrics};
use crate::model::{FormerLanes, Lane, LaneMark, LaneMessage, Offset, SessionId};

/// Shared by the committer, the lanes and the admin interface.
#[derive(Debug)]
pub struct Progress {
    durable_end: AtomicU64,
    /// What the lanes have to say to the committer.
    mailbox: Mailbox<LaneMessage>,
    lanes: Box<[LaneState]>,
    /// How far the lanes of earlier runs had come, whose number was another.
    former: Vec<FormerLanes>,
    /// No entry from here on was processed by any of these.
    former_end: Offset,
    /// What the lanes of the run before had left, if their number was another.
    left: Vec<LaneMark>,
    retried: Mutex<RetriedLetters>,
}

#[derive(Debug)]
struct LaneState {
    /// The watermark of `mark`, readable without the lock.
    watermark: AtomicU64,
    mark: Mutex<LaneMark>,
    lag: Gauge,
}

impl Progress {
    /// After recovery: the journal's end, and where `lanes` lanes go on after a run that left `recovered`, and before that
    /// `former`.
    ///
    /// When the number has changed, each session may be in another lane: all start at the lowest watermark, without a sink
    /// state of their own, and pass over what the lane that had the session then has processed.
    pub fn resume(
        durable_end: Offset,
        recovered: &[LaneMark],
        mut former: Vec<FormerLanes>,
        lanes: u16,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let lowest = recovered.iter().map(|mark| mark.watermark).min().unwrap_or_default();
        let (marks, left) = if recovered.len() == usize::from(lanes) {
            (recovered.to_vec(), Vec::new())
        } else {
            former.push(FormerLanes(recovered.iter().map(|mark| mark.watermark).collect()));
            let mark = LaneMark { watermark: lowest, sink_state: Vec::new() };
            (vec![mark; usize::from(lanes)], recovered.to_vec())
        };
        former.retain(|lanes| lanes.end() > lowest);
        if let Some(too_many) = former.len().checked_sub(limits::FORMER_LANES).filter(|&too_many| too_many > 0) {
            tracing::warn!(
                "the number of lanes has changed {} times in a row before all was processed: some records come again",
                former.len()
            );
            former.drain(..too_many);
        }
        let state = |(lane, mark): (u16, LaneMark)| LaneState {
            watermark: AtomicU64::new(mark.watermark.0),
            mark: Mutex::new(mark),
            lag: metrics.lane_lag.get_or_create(&LaneLabel { lane }).clone(),
        };
        let progress = Self {
            durable_end: AtomicU64::new(durable_end.0),
            mailbox: Mailbox::new(limits::LANE_MESSAGES),
            lanes: (0..u16::MAX).zip(marks).map(state).collect(),
            former_end: former.iter().map(FormerLanes::end).max().unwrap_or_default(),
            former,
            left,
            retried: Mutex::default(),
        };
        progress.lanes.iter().for_each(|lane| lane.show_lag(durable_end));
        Arc::new(progress)
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    /// Every entry below is durable.
    pub fn durable_end(&self) -> Offset {
        Offset(self.durable_end.load(Ordering::Acquire))
    }

    /// Every entry of the lane below is processed, durably.
    pub fn watermark(&self, lane: Lane) -> Offset {
        Offset(self.lane(lane).watermark.load(Ordering::Acquire))
    }

    /// Every entry below is processed, durably.
    ///
    /// A checkpoint trims by the marks that it stores itself, not by this: it may have moved on since they were taken.
    pub fn lowest_watermark(&self) -> Offset {
        let lowest = self.lanes.iter().map(|lane| lane.watermark.load(Ordering::Acquire)).min();
        Offset(lowest.unwrap_or(0))
    }

    /// A copy of each lane's mark, in lane order, for a checkpoint. Waits for no more than a lane's swap of its mark.
    pub fn marks(&self) -> Vec<LaneMark> {
        self.lanes.iter().map(|lane| lane.mark.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Those lanes of earlier runs of which a start at these marks still has to know.
    pub fn former(&self, marks: &[LaneMark]) -> Vec<FormerLanes> {
        let lowest = marks.iter().map(|mark| mark.watermark).min().unwrap_or_default();
        self.former.iter().filter(|lanes| lanes.end() > lowest).cloned().collect()
    }

    /// What the lanes of the run before had left, if their number was another.
    pub(super) fn left(&self) -> &[LaneMark] {
        &self.left
    }

    /// Whether a lane of an earlier run has processed the entry.
    pub(super) fn is_passed(&self, session: SessionId, offset: Offset) -> bool {
        offset < self.former_end && self.former.iter().any(|lanes| lanes.have_passed(session, offset))
    }

    /// Dead letters that were processed at last, durably: the next checkpoint deletes them. Ask for them before the marks: a
    /// mark may be newer than that, but not older.
    pub fn retried(&self) -> Vec<DeadLetterId> {
        self.lock_retried().durable()
    }

    /// These are deleted: whoever asked for it hears of it.
    pub fn checkpointed(&self, retried: &[DeadLetterId]) {
        if !retried.is_empty() {
            self.lock_retried().deleted(retried);
        }
    }

    /// The same dead letter is processed already, or another who asks for it cannot be remembered: then nothing is left to do.
    pub(super) fn joins_retry(&self, id: DeadLetterId, reply: &RetryReply) -> bool {
        self.lock_retried().join(id, reply)
    }

    /// A lane has processed a dead letter. It goes when the lane's next flush is stored.
    pub(super) fn is_retried(&self, lane: Lane, id: DeadLetterId, reply: RetryReply) {
        self.lock_retried().add(lane, id, reply);
    }

    /// Dead letters of the lane that wait for their checkpoint.
    pub(super) fn retries_of(&self, lane: Lane) -> usize {
        self.lock_retried().of_lane(lane)
    }

    fn lock_retried(&self) -> MutexGuard<'_, RetriedLetters> {
        self.retried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the lanes put what they have to say to the committer.
    pub fn mailbox(&self) -> &Mailbox<LaneMessage> {
        &self.mailbox
    }

    /// A lane has come further, or has a new sink state. Returns whether a dead letter waits for the checkpoint that stores it.
    pub(super) fn set_mark(&self, lane: Lane, watermark: Offset, sink_state: Option<Vec<u8>>) -> bool {
        let state = self.lane(lane);
        let flushed = sink_state.is_some();
        {
            let mut mark = state.mark.lock().unwrap_or_else(PoisonError::into_inner);
            debug_assert!(mark.watermark <= watermark, "a watermark moved back");
            mark.watermark = watermark;
            if let Some(sink_state) = sink_state {
                mark.sink_state = sink_state;
            }
        }
        state.watermark.store(watermark.0, Ordering::Release);
        state.show_lag(self.durable_end());
        flushed && self.lock_retried().flushed(lane)
    }

    fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[usize::from(lane.0)]
    }
}

impl LaneState {
    fn show_lag(&self, durable_end: Offset) {
        let lag = durable_end.since(Offset(self.watermark.load(Ordering::Relaxed)));
        self.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }
}

/// The committer's end of the lanes.
pub struct Fanout {
    progress: Arc<Progress>,
    recent: RecentBlocks,
}

impl fmt::Debug for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fanout").field("lanes", &self.recent.readers()).finish_non_exhaustive()
    }
}

impl Fanout {
    /// One cache of the newest blocks, with each lane's end of its own, in lane order.
    pub(super) fn new(progress: &Arc<Progress>) -> (Self, Vec<RecentReader>) {
        let mut recent = RecentBlocks::new(progress.durable_end());
        let readers = progress.lanes.iter().map(|_| recent.reader()).collect();
        (Self { progress: Arc::clone(progress), recent }, readers)
    }

    /// How far the lanes have come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Lets every lane see a durable block. Never waits and never allocates; wakes each lane that sleeps, once.
    pub fn publish(&mut self, block: &Arc<Block>) {
        let end = block.end();
        self.progress.durable_end.store(end.0, Ordering::Release);
        self.recent.publish(block);
        self.progress.lanes.iter().for_each(|lane| lane.show_lag(end));
    }
}
