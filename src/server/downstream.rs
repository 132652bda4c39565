//! What the lanes are to the committer.

use std::sync::Arc;

use crate::commit::{Downstream, Holding, Verdict};
use crate::journal::{DeadLetterId, Durable};
use crate::model::{BacklogConfig, FormerLanes, LaneMark, LaneMessage, Now, Offset, Processed, SinkRecord};
use crate::process::{Cursor, Cursors, Fanout, Progress};

/// The configured sinks, those too that were removed since the start: so that each stays in its place.
fn at_work(cursors: &Cursors) -> impl Iterator<Item = (&Arc<Progress>, &Cursor)> {
    cursors.groups().iter().filter_map(|group| Some((group, group.cursor()?)))
}

impl Downstream for Fanout {
    fn committed(&mut self, receipt: &Durable) {
        if let Some(block) = receipt.block() {
            self.publish(block);
        }
    }

    fn rest(&mut self) {
        Fanout::rest(self);
    }

    fn marks(&self) -> Vec<LaneMark> {
        self.cursors().embedded().map(|lanes| lanes.marks()).unwrap_or_default()
    }

    fn sinks(&self) -> Vec<SinkRecord> {
        self.cursors().records()
    }

    fn holdings(&self) -> Vec<Holding> {
        let at_work = at_work(self.cursors()).map(|(group, cursor)| Holding {
            mark: if cursor.is_removed() { group.durable_end() } else { group.lowest_watermark() },
            holds: cursor.holds(),
            blocks: cursor.blocks(),
            backlog: cursor.backlog(),
        });
        let unbounded = BacklogConfig::default();
        let gone = self.cursors().not_configured().into_iter().map(|record| Holding {
            mark: record.mark.watermark,
            holds: record.holds,
            blocks: false,
            backlog: unbounded,
        });
        at_work.chain(gone).collect()
    }

    fn bound(&mut self, verdicts: &[Verdict], now: Now) -> bool {
        let mut is_new = false;
        for ((group, cursor), verdict) in at_work(self.cursors()).zip(verdicts) {
            if cursor.is_removed() {
                continue;
            }
            is_new |= cursor.set_holds(verdict.holds);
            cursor.show(verdict.held_bytes, now.unix_us);
            cursor.set_bound(verdict.is_near, verdict.blocks);
            let lost = verdict.lose_below.and_then(|below| group.lose_below(below, now.unix_us));
            is_new |= lost.is_some();
        }
        is_new
    }

    fn trimmed(&mut self, below: Offset, now: Now) {
        for (group, cursor) in at_work(self.cursors()) {
            if !cursor.holds() && !cursor.is_removed() {
                group.lose_below(below, now.unix_us);
            }
        }
        self.cursors().trimmed_of_unconfigured(below, now.unix_us);
    }

    fn next_message(&mut self) -> Option<LaneMessage> {
        self.cursors().next_message()
    }

    fn messages(&self) -> usize {
        self.cursors().messages()
    }

    fn processed(&self) -> Vec<Processed> {
        self.cursors().processed()
    }

    fn wake_by(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        self.cursors().wake_by(wake);
    }

    fn former(&self, marks: &[LaneMark]) -> Vec<FormerLanes> {
        self.cursors().embedded().map(|lanes| lanes.former(marks)).unwrap_or_default()
    }

    fn retried(&self) -> Vec<DeadLetterId> {
        self.cursors().retried()
    }

    fn asked(&self) -> u64 {
        self.cursors().asked()
    }

    fn checkpointed(&mut self, retried: &[DeadLetterId], sinks: &[SinkRecord], asked: u64) {
        self.cursors().checkpointed(retried, sinks, asked);
    }
}
