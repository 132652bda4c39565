//! How far the lanes of a sink have come, and what is known of the journal's end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use super::cursor::Cursor;
use super::lane_name::LaneName;
use super::mailbox::Mailbox;
use super::passing::Place;
use super::retried::{RetriedLetters, RetryReply};
use crate::journal::DeadLetterId;
use crate::limits;
use crate::metrics::Metrics;
use crate::model::{EntryMeta, FormerLanes, Lane, LaneMark, LaneMessage, Offset, SinkId, SinkLoss, SinkRecord};

/// How far the lanes of one sink have come: of a handler that a program embeds, whose lanes share the sessions, or of a
/// configured sink, which has one lane. Shared by the committer, the lanes and the admin interface.
#[derive(Debug)]
pub struct Progress {
    durable_end: AtomicU64,
    /// What the lanes have to say to the committer, those of all sinks.
    mailbox: Arc<Mailbox<LaneMessage>>,
    /// What a configured sink has beside its lane; `None` for an embedded handler.
    cursor: Option<Cursor>,
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
    /// The same of a configured sink, whose only lane it is.
    sink_lag: Option<Gauge>,
}

impl Progress {
    /// Of an embedded handler, after recovery: the journal's end, and where `lanes` lanes go on after a run that left
    /// `recovered`, and before that `former`.
    ///
    /// When the number has changed, each session may be in another lane: all start at the lowest watermark, without a sink
    /// state of their own, and pass over what the lane that had the session then has processed.
    pub fn resume(
        durable_end: Offset,
        recovered: &[LaneMark],
        former: Vec<FormerLanes>,
        lanes: u16,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let renumbered = Renumbered::of(recovered, former, lanes);
        Self::of(durable_end, renumbered, None, Self::new_mailbox(), metrics)
    }

    /// Of a configured sink: where its only lane goes on. All sinks of a server share a mailbox.
    pub fn resume_sink(
        durable_end: Offset,
        renumbered: Renumbered,
        cursor: Cursor,
        mailbox: &Arc<Mailbox<LaneMessage>>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        debug_assert_eq!(renumbered.marks.len(), 1, "a configured sink has one lane");
        Self::of(durable_end, renumbered, Some(cursor), Arc::clone(mailbox), metrics)
    }

    /// An empty mailbox for the sinks of a server.
    pub fn new_mailbox() -> Arc<Mailbox<LaneMessage>> {
        Arc::new(Mailbox::new(limits::LANE_MESSAGES, limits::LANE_ANSWERS_BYTES))
    }

    fn of(
        durable_end: Offset,
        Renumbered { marks, left, former }: Renumbered,
        cursor: Option<Cursor>,
        mailbox: Arc<Mailbox<LaneMessage>>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let name = |lane| LaneName::new(cursor.as_ref().map(|cursor| (cursor.id(), cursor.name())), lane);
        let state = |(lane, mark): (u16, LaneMark)| LaneState {
            watermark: AtomicU64::new(mark.watermark.0),
            mark: Mutex::new(mark),
            lag: metrics.lane_lag.get_or_create(&name(Lane(lane)).label()).clone(),
            sink_lag: cursor.as_ref().map(|cursor| cursor.metrics().lag.clone()),
        };
        let lanes = (0..u16::MAX).zip(marks).map(state).collect();
        let progress = Self {
            durable_end: AtomicU64::new(durable_end.0),
            mailbox,
            lanes,
            former_end: former.iter().map(FormerLanes::end).max().unwrap_or_default(),
            former,
            left,
            cursor,
            retried: Mutex::default(),
        };
        progress.lanes.iter().for_each(|lane| lane.show_lag(durable_end));
        Arc::new(progress)
    }

    /// Returns the sink to which these lanes belong.
    pub fn sink(&self) -> SinkId {
        self.cursor.as_ref().map_or(SinkId::EMBEDDED, Cursor::id)
    }

    /// What names one of its lanes to people.
    pub fn lane_name(&self, lane: Lane) -> LaneName {
        LaneName::new(self.cursor().map(|cursor| (cursor.id(), cursor.name())), lane)
    }

    /// What lies below is not for these lanes any more: it is lost to the sink.
    pub(super) fn floor(&self) -> Offset {
        self.cursor.as_ref().map_or(Offset(0), Cursor::floor)
    }

    /// What is kept of a configured sink on disk, with its lane's mark; `None` for an embedded handler and a sink that was
    /// removed.
    pub fn record(&self) -> Option<SinkRecord> {
        let cursor = self.cursor.as_ref().filter(|cursor| !cursor.is_removed())?;
        Some(self.change_mark(|mark| cursor.record(mark, self.former(std::slice::from_ref(mark)))))
    }

    /// Entries below `to` that are not processed are lost to the configured sink. Returns what it has lost by that, if
    /// anything. The next checkpoint stores it, and may trim them.
    pub fn lose_below(&self, to: Offset, unix_us: u64) -> Option<SinkLoss> {
        let cursor = self.cursor.as_ref()?;
        self.change_mark(|mark| {
            let from = mark.watermark;
            if to <= from {
                return None;
            }
            mark.watermark = to;
            Some(cursor.lose(SinkLoss { from, to, entries: to.since(from), unix_us }))
        })
    }

    /// Moves a configured sink to where an operator wants it, with what of its state is true there.
    pub(super) fn seek(&self, to: LaneMark) {
        if let Some(cursor) = &self.cursor {
            self.change_mark(|mark| {
                cursor.sought(mark.watermark, to.watermark);
                *mark = to;
            });
            self.lock_retried().forget_unflushed(Lane(0));
        }
    }

    /// Where these lanes stand for who has asked, at one moment: an operator may let a sink go on elsewhere at any time.
    pub(super) fn place(&self) -> Place {
        match &self.cursor {
            Some(cursor) => self.change_mark(|mark| cursor.place(mark.watermark)),
            None => Place::at(self.lowest_watermark()),
        }
    }

    /// What a configured sink has beside its lane; `None` for an embedded handler.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
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
        if self.cursor.as_ref().is_some_and(Cursor::was_sought) {
            return Vec::new();
        }
        let lowest = marks.iter().map(|mark| mark.watermark).min().unwrap_or_default();
        self.former.iter().filter(|lanes| lanes.end() > lowest).cloned().collect()
    }

    /// What the lanes of the run before had left, if their number was another.
    pub(super) fn left(&self) -> &[LaneMark] {
        &self.left
    }

    /// Whether the entry is not for these lanes: one of an earlier run has processed it, or its channel is not taken.
    pub(super) fn passes_over(&self, meta: &EntryMeta, offset: Offset) -> bool {
        let is_passed = offset < self.former_end
            && self.former.iter().any(|lanes| lanes.have_passed(meta.session, offset))
            && !self.cursor.as_ref().is_some_and(Cursor::was_sought);
        is_passed || self.cursor.as_ref().is_some_and(|cursor| !cursor.takes(meta.channel))
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
    pub fn mailbox(&self) -> &Arc<Mailbox<LaneMessage>> {
        &self.mailbox
    }

    /// A lane has come further, or has a new sink state. Returns whether a dead letter waits for the checkpoint that stores it.
    pub(super) fn set_mark(&self, lane: Lane, mut watermark: Offset, sink_state: Option<Vec<u8>>) -> bool {
        let state = self.lane(lane);
        let flushed = sink_state.is_some();
        {
            let mut mark = state.mark.lock().unwrap_or_else(PoisonError::into_inner);
            debug_assert!(mark.watermark <= watermark || self.cursor.is_some(), "a watermark moved back");
            // A sink that has lost entries is beyond them, whatever its lane is still at.
            watermark = watermark.max(mark.watermark);
            mark.watermark = watermark;
            if let Some(sink_state) = sink_state {
                mark.sink_state = sink_state;
                self.cursor.iter().for_each(Cursor::told);
            }
            // Under the lock: who has read the mark for a checkpoint, and then asks how far the lanes are, must not hear of less.
            state.watermark.store(watermark.0, Ordering::Release);
        }
        state.show_lag(self.durable_end());
        flushed && self.lock_retried().flushed(lane)
    }

    /// Moves the mark of a configured sink to where the change puts it, in one step with what the change does beside it.
    pub(super) fn change_mark<T>(&self, change: impl FnOnce(&mut LaneMark) -> T) -> T {
        let state = self.lane(Lane(0));
        let mut mark = state.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut mark);
        state.watermark.store(mark.watermark.0, Ordering::Release);
        state.show_lag(self.durable_end());
        changed
    }

    /// Every entry below is durable from now on. Never waits.
    pub(super) fn set_durable_end(&self, end: Offset) {
        self.durable_end.store(end.0, Ordering::Release);
    }

    /// Shows how far its lanes are behind.
    pub(super) fn show_lag(&self) {
        self.lanes.iter().for_each(|lane| lane.show_lag(self.durable_end()));
    }

    fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[usize::from(lane.0)]
    }
}

impl LaneState {
    fn show_lag(&self, durable_end: Offset) {
        let lag = durable_end.since(Offset(self.watermark.load(Ordering::Relaxed)));
        let lag = i64::try_from(lag).unwrap_or(i64::MAX);
        self.lag.set(lag);
        if let Some(of_sink) = &self.sink_lag {
            of_sink.set(lag);
        }
    }
}

/// Where lanes go on when their number may have changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Renumbered {
    /// Where each lane goes on, in lane order.
    pub marks: Vec<LaneMark>,
    /// What the lanes of the run before had left, if their number was another.
    pub left: Vec<LaneMark>,
    /// How far the lanes of earlier runs had come, whose number was another.
    pub former: Vec<FormerLanes>,
}

impl Renumbered {
    /// So many lanes after a run that left `recovered`, and before that `former`.
    pub fn of(recovered: &[LaneMark], mut former: Vec<FormerLanes>, lanes: u16) -> Self {
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
        Self { marks, left, former }
    }
}
