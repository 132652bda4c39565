//! How a lane and the committer speak: what is to be told before the watermark moves, and what may be told while records are open.

use std::mem;

use super::LaneWorker;
use crate::model::{LaneMessage, Now};

impl LaneWorker {
    /// Tells the committer what is still to be told, and moves the watermark when all has been told that lies below. What finds no
    /// room is told by a later step: a lane waits for nobody.
    pub(super) fn post(&mut self) {
        let mailbox = self.progress.mailbox();
        self.attempts.answers.post(mailbox);
        if !self.attempts.answers.wait_for_room()
            && let Some((watermark, sink_state)) = self.flushed.take()
        {
            let retried = self.progress.set_mark(self.lane, watermark, Some(sink_state));
            self.wants_checkpoint |= retried | mem::take(&mut self.reopened.checkpoint);
            self.attempts.answers.passed();
            self.attempts.answers.post(mailbox);
        }
        if self.wants_checkpoint {
            self.wants_checkpoint = mailbox.post(LaneMessage::Checkpoint).is_err();
        }
    }

    /// Whether somebody has waited for as long as a flush may take to come, or for as many answers as may be kept, while the handler
    /// works at one batch for long.
    pub(super) fn is_settling_due(&self, now: Now) -> bool {
        let answers = &self.attempts.answers;
        let interval_us = u64::try_from(self.config.flush_interval.as_micros()).unwrap_or(u64::MAX);
        let due = answers.wait_since_us().is_some_and(|since| now.mono_us >= since.saturating_add(interval_us));
        due || answers.are_full()
    }

    /// Lets who has asked have the answers to what is done while other records of the batch are open. What fails is logged, counted
    /// and tried again by a later step.
    pub(super) fn settle(&mut self, now: Now) {
        if !self.attempts.answers.wait_for_settling() || self.attempts.flush_due(now).is_some() {
            return;
        }
        match self.attempts.settle(now) {
            Ok(true) => {
                let early = self.attempts.answers.settled(true);
                let mark = self.progress.watermark(self.lane);
                self.progress.cursor().iter().for_each(|cursor| cursor.keep_early(&early, mark));
            }
            Ok(false) => self.attempts.answers.cannot_settle(),
            Err(_) => {}
        }
        self.post();
    }
}
