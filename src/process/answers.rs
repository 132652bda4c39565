//! What a lane has to say to the committer of records that asked: who waits for an answer gets it from there.
//!
//! Nothing is said before it is true. A record that is done is told when its effect is durable, which a flush or a settling says; a
//! record that was given up, as soon as its dead letter is durable. And nothing is forgotten: what finds no room in the committer's
//! mailbox waits here, and the lane with it, before its watermark moves and before anything else is presented. So what is kept here
//! is bounded, and a watermark that is stored never covers an ask of which nobody has heard.

use std::mem;
use std::sync::Arc;

use super::mailbox::Mailbox;
use super::outcomes::Outcomes;
use crate::limits;
use crate::model::{AskId, Content, LaneAnswer, LaneMessage, Now, Offset, Record};

/// What a sink says of records that asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Answering {
    /// Nothing: another sink answers, or nothing can ask.
    #[default]
    Nothing,
    /// It answers: for each what its handler gave, or that it was given up.
    Bodies,
    /// It is one of several of which none answers alone: it says what it gives up, when it has come further, and what it has of a
    /// batch in which others wait for a retry. What all of them have processed is done.
    Receipts,
}

/// The records of one lane that asked, from when they are finished until the committer has heard of it.
#[derive(Debug)]
pub(super) struct Answers {
    answering: Answering,
    /// Done, and perhaps not durable where they went.
    done: Vec<LaneAnswer>,
    done_bytes: usize,
    /// Since when somebody waits for what is done, in microseconds of the monotonic clock.
    since_us: Option<u64>,
    /// These are durable where they went, and may be told.
    told: Vec<LaneAnswer>,
    /// Somebody may wait for the watermark to move beyond what is finished.
    passing: bool,
    /// The watermark has moved since.
    passed: bool,
    /// Somebody has asked since the lane was last about to nap.
    asked: bool,
    /// The handler makes nothing durable while records are open.
    cannot_settle: bool,
}

impl Answers {
    pub(super) fn new(answering: Answering) -> Self {
        Self {
            answering,
            done: Vec::new(),
            done_bytes: 0,
            since_us: None,
            told: Vec::new(),
            passing: false,
            passed: false,
            asked: false,
            cannot_settle: false,
        }
    }

    /// The record is done: it was the one of this index in the call of which these are the outcomes.
    pub(super) fn done(&mut self, now: Now, record: &Record<'_>, outcomes: &Outcomes, index: usize) {
        if !self.are_asked_by(record) || outcomes.is_told(index) {
            return;
        }
        self.since_us.get_or_insert(now.mono_us);
        // A receipt has no body.
        self.passing |= self.answering == Answering::Receipts;
        let body = outcomes.body(index).map_or_else(Arc::default, Arc::clone);
        self.done_bytes += body.len() + limits::ANSWER_OVERHEAD_BYTES;
        self.done.push(answer(record, false, body));
    }

    /// The record is a dead letter, durably. Never the reason: that is the operator's.
    pub(super) fn failed(&mut self, record: &Record<'_>) {
        if self.are_asked_by(record) {
            self.told.push(answer(record, true, Arc::from([])));
        }
    }

    /// Whether whoever sent the record hears from this sink what becomes of it.
    pub(super) fn will_tell(&self, record: &Record<'_>) -> bool {
        // A gap is news of this journal's, and no message of somebody who could ask.
        record.asks && self.answering != Answering::Nothing && matches!(record.content, Content::Payload(_))
    }

    fn are_asked_by(&mut self, record: &Record<'_>) -> bool {
        let asks = self.will_tell(record);
        self.asked |= asks;
        asks
    }

    /// Records that asked are not for this sink: who waits for the watermark to move beyond them is to hear of it.
    pub(super) fn pass_over(&mut self, now: Now) {
        if self.answering != Answering::Nothing {
            self.since_us.get_or_insert(now.mono_us);
            self.passing = true;
        }
    }

    /// Since when somebody waits for the next flush, in microseconds of the monotonic clock.
    pub(super) fn wait_since_us(&self) -> Option<u64> {
        self.since_us
    }

    /// Whether somebody waits for what is done and could be told while other records are open.
    pub(super) fn wait_for_settling(&self) -> bool {
        !self.done.is_empty() && !self.cannot_settle
    }

    /// Whether so much is done that it is to be flushed before more is presented.
    pub(super) fn are_full(&self) -> bool {
        self.done_bytes >= limits::LANE_ANSWERS_BYTES
    }

    /// What is done is durable. Returns what others are to know of that, when this sink answers with others and its watermark does
    /// not say it all, since records before these are `open`.
    pub(super) fn settled(&mut self, open: bool) -> Vec<(AskId, Offset)> {
        self.done_bytes = 0;
        if self.answering != Answering::Receipts {
            self.told.append(&mut self.done);
            return Vec::new();
        }
        self.passed |= open;
        self.done.drain(..).filter(|_| open).map(|done| (done.id, done.offset)).collect()
    }

    /// The handler cannot make anything durable while records are open.
    pub(super) fn cannot_settle(&mut self) {
        self.cannot_settle = true;
    }

    /// The watermark has moved, over all that is finished.
    pub(super) fn passed(&mut self) {
        self.since_us = None;
        self.passed |= mem::take(&mut self.passing);
    }

    /// What is not flushed is forgotten with the handler that has done it.
    pub(super) fn forget(&mut self) {
        self.done.clear();
        (self.done_bytes, self.since_us) = (0, None);
        (self.passing, self.cannot_settle) = (false, false);
    }

    /// Whether anything may be told that has found no room.
    pub(super) fn wait_for_room(&self) -> bool {
        !self.told.is_empty()
    }

    /// Whether there is something to post again.
    pub(super) fn have_news(&self) -> bool {
        self.wait_for_room() || self.passed
    }

    /// Tells the committer what may be told, as far as there is room.
    pub(super) fn post(&mut self, mailbox: &Mailbox<LaneMessage>) {
        if self.wait_for_room() {
            let bytes = self.told.iter().map(|answer| answer.body.len() + limits::ANSWER_OVERHEAD_BYTES).sum();
            let told = LaneMessage::Answers(mem::take(&mut self.told));
            if let Err(LaneMessage::Answers(told)) = mailbox.post_of(told, bytes) {
                self.told = told;
            }
        }
        if self.passed {
            self.passed = mailbox.post(LaneMessage::Processed).is_err();
        }
    }

    /// Whether somebody has asked since this was last called.
    pub(super) fn take_asked(&mut self) -> bool {
        mem::take(&mut self.asked)
    }
}

fn answer(record: &Record<'_>, failed: bool, body: Arc<[u8]>) -> LaneAnswer {
    LaneAnswer { id: AskId { session: record.session, seq: record.seq }, offset: record.offset, failed, body }
}
