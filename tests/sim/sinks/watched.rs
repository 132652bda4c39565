//! What stands between the committer and the lanes: it sees which blocks are handed on, and how many of them stay in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use duragram::commit::{Downstream, Holding, Verdict};
use duragram::journal::{Block, DeadLetterId, Durable};
use duragram::limits;
use duragram::model::{FormerLanes, LaneMark, LaneMessage, Now, Offset, Processed, SinkRecord};
use duragram::process::Fanout;

use super::Seen;
use crate::core::{Sabotage, Shared};

/// So often the committer listens before it hears of an answer, with a defect.
const MESSAGES_LATE: u32 = 12;

pub(crate) struct Watched {
    fanout: Fanout,
    core: Shared,
    lanes: usize,
    /// The blocks that have left the ring for sure, since as many as it has room for have come after them, and their sizes.
    old: VecDeque<(Weak<Block>, usize)>,
    /// The blocks that may still be in the ring, with their sizes.
    recent: VecDeque<(Weak<Block>, usize)>,
    /// Answers that a defect holds back, and how many times more it does.
    late: VecDeque<(LaneMessage, u32)>,
}

impl Watched {
    pub(crate) fn new(fanout: Fanout, core: &Shared, lanes: usize) -> Self {
        Self { fanout, core: core.clone(), lanes, old: VecDeque::new(), recent: VecDeque::new(), late: VecDeque::new() }
    }

    /// A lane keeps what it has fetched, and no lane keeps more than that of what all share.
    fn memory(&mut self, block: &Arc<Block>) {
        self.recent.push_back((Arc::downgrade(block), block.size()));
        if self.recent.len() <= limits::RECENT_BLOCKS {
            return;
        }
        self.old.extend(self.recent.pop_front());
        self.old.retain(|(block, _)| block.strong_count() > 0);
        let kept: usize = self.old.iter().map(|(_, size)| size).sum();
        let core = &mut *self.core.lock();
        core.oracle.saw(Seen::RingFull);
        // One more fetch may begin below the bound; and the last receipts are the committer's.
        let may = self.lanes * (limits::LANE_QUEUE_BYTES + limits::LANE_READ_BYTES) + (1 << 20);
        if kept > may {
            core.oracle.fail(|| format!("{kept} bytes of blocks that left the ring stay in memory"));
        }
    }
}

impl Downstream for Watched {
    fn committed(&mut self, receipt: &Durable) {
        self.fanout.committed(receipt);
        if let Some(block) = receipt.block() {
            self.core.lock().oracle.truth.published = block.end().0;
            self.memory(block);
        }
    }

    fn rest(&mut self) {
        Downstream::rest(&mut self.fanout);
    }

    fn marks(&self) -> Vec<LaneMark> {
        self.fanout.marks()
    }

    fn sinks(&self) -> Vec<SinkRecord> {
        let mut sinks = self.fanout.sinks();
        match self.core.lock().sabotage {
            Some(Sabotage::LossesHidden) => sinks.iter_mut().for_each(|sink| sink.losses.clear()),
            Some(Sabotage::HolderIgnored) => sinks.iter_mut().take(1).for_each(|sink| sink.holds = false),
            _ => {}
        }
        sinks
    }

    fn next_message(&mut self) -> Option<LaneMessage> {
        if self.core.lock().sabotage != Some(Sabotage::MarkBeforeAnswer) {
            return self.fanout.next_message();
        }
        while let Some(message) = self.fanout.next_message() {
            match message {
                LaneMessage::Answers(_) => self.late.push_back((message, MESSAGES_LATE)),
                message => return Some(message),
            }
        }
        let (_, left) = self.late.front_mut()?;
        *left = left.saturating_sub(1);
        if *left == 0 { self.late.pop_front().map(|(message, _)| message) } else { None }
    }

    fn messages(&self) -> usize {
        self.fanout.messages() + self.late.len()
    }

    fn processed(&self) -> Vec<Processed> {
        if self.late.is_empty() { self.fanout.processed() } else { Vec::new() }
    }

    fn wake_by(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        self.fanout.wake_by(wake);
    }

    fn former(&self, marks: &[LaneMark]) -> Vec<FormerLanes> {
        self.fanout.former(marks)
    }

    fn retried(&self) -> Vec<DeadLetterId> {
        self.fanout.retried()
    }

    fn holdings(&self) -> Vec<Holding> {
        self.fanout.holdings()
    }

    fn bound(&mut self, verdicts: &[Verdict], now: Now) -> bool {
        self.fanout.bound(verdicts, now)
    }

    fn trimmed(&mut self, below: Offset, now: Now) {
        self.fanout.trimmed(below, now);
    }

    fn asked(&self) -> u64 {
        self.fanout.asked()
    }

    fn checkpointed(&mut self, retried: &[DeadLetterId], sinks: &[SinkRecord], asked: u64) {
        self.fanout.checkpointed(retried, sinks, asked);
    }
}
