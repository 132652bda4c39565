//! How far the lanes have come, and how committed blocks reach them.
//!
//! A lane's channel is a cache over the journal: [`Fanout`] never waits for a lane. Where the channel is full the block is
//! not sent, and the lane reads it back from the journal when it gets there.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use prometheus_client::metrics::gauge::Gauge;

use super::hand_off::HandOff;
use crate::journal::{Block, LaneMark};
use crate::limits;
use crate::metrics::{LaneLabel, Metrics};
use crate::types::{Lane, Offset};

/// Shared by the committer, the lanes and the admin interface.
#[derive(Debug)]
pub struct Progress {
    durable_end: AtomicU64,
    checkpoint_wanted: AtomicBool,
    lanes: Box<[LaneState]>,
}

#[derive(Debug)]
struct LaneState {
    /// The same as in `mark`, readable without the lock.
    watermark: AtomicU64,
    mark: Mutex<LaneMark>,
    hand_off: HandOff,
    lag: Gauge,
}

impl Progress {
    /// After recovery: the journal's end, and where each lane goes on. The number of marks is the number of lanes.
    pub fn new(durable_end: Offset, marks: Vec<LaneMark>, metrics: &Metrics) -> Arc<Self> {
        let state = |(lane, mark): (u16, LaneMark)| LaneState {
            watermark: AtomicU64::new(mark.watermark.0),
            mark: Mutex::new(mark),
            hand_off: HandOff::new(durable_end.0, limits::LANE_CHANNEL_BYTES as u64),
            lag: metrics.lane_lag.get_or_create(&LaneLabel { lane }).clone(),
        };
        let progress = Self {
            durable_end: AtomicU64::new(durable_end.0),
            checkpoint_wanted: AtomicBool::new(false),
            lanes: (0..u16::MAX).zip(marks).map(state).collect(),
        };
        progress.lanes.iter().for_each(|lane| lane.show_lag(durable_end));
        Arc::new(progress)
    }

    /// The marks with which `lanes` lanes go on after a run that left `recovered`.
    ///
    /// When the number has changed, each session may be in another lane: all start at the lowest watermark, and without a
    /// sink state, since none fits. Handlers then see some records again; the file sink finds them by themselves.
    pub fn marks_for(recovered: &[LaneMark], lanes: u16) -> Vec<LaneMark> {
        if recovered.len() == usize::from(lanes) {
            return recovered.to_vec();
        }
        let watermark = recovered.iter().map(|mark| mark.watermark).min().unwrap_or_default();
        vec![LaneMark { watermark, sink_state: Vec::new() }; usize::from(lanes)]
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

    /// Asks for a checkpoint soon rather than by its own rhythm: a mark has moved to another file.
    pub fn request_checkpoint(&self) {
        self.checkpoint_wanted.store(true, Ordering::Release);
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn take_checkpoint_request(&self) -> bool {
        self.checkpoint_wanted.load(Ordering::Relaxed) && self.checkpoint_wanted.swap(false, Ordering::AcqRel)
    }

    /// A lane has come further, or has a new sink state.
    pub(super) fn set_mark(&self, lane: Lane, watermark: Offset, sink_state: Option<Vec<u8>>) {
        let state = self.lane(lane);
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
    }

    /// The next block of the lane's channel; or, when that is empty, the offset below which the lane reads from the journal
    /// what it has not seen.
    pub(super) fn take(&self, lane: Lane, receive: impl FnOnce() -> Option<Arc<Block>>) -> Result<Arc<Block>, Offset> {
        self.lane(lane).hand_off.take(receive, |block| block.size() as u64).map_err(Offset)
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

/// The committer's end of the lanes' channels.
pub struct Fanout {
    progress: Arc<Progress>,
    senders: Vec<Sender<Arc<Block>>>,
}

impl fmt::Debug for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fanout").field("lanes", &self.senders.len()).finish_non_exhaustive()
    }
}

impl Fanout {
    /// The channels, with each lane's end of its own, in lane order.
    pub(super) fn new(progress: &Arc<Progress>) -> (Self, Vec<Receiver<Arc<Block>>>) {
        let (senders, receivers) = progress.lanes.iter().map(|_| bounded(limits::LANE_CHANNEL_BLOCKS)).unzip();
        (Self { progress: Arc::clone(progress), senders }, receivers)
    }

    /// How far the lanes have come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Hands a durable block to every lane that has room for it. Never waits and never allocates; wakes each lane at most
    /// once.
    pub fn publish(&self, block: &Arc<Block>) {
        let end = block.end();
        self.progress.durable_end.store(end.0, Ordering::Release);
        for (lane, sender) in self.progress.lanes.iter().zip(&self.senders) {
            lane.hand_off.publish(block.size() as u64, end.0, || {
                // A lane that is gone misses nothing.
                !sender.try_send(Arc::clone(block)).is_err_and(|error| error.is_full())
            });
            lane.show_lag(end);
        }
    }
}
