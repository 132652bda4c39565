//! When a checkpoint is written, of what, and what may be trimmed with it.
//!
//! A checkpoint is part of a commit: at that moment the dialect's memory is exactly what the journal and the block hold.
//!
//! # Marks and answers
//!
//! No checkpoint stores a mark above an ask whose answer is not durable with the same commit or an earlier one: after a crash nobody
//! would process that record again, and nobody would answer it. A lane says what became of an ask before its mark moves beyond it. So
//! it is enough to read in another order than lanes write: first every mark that is stored, then all that was said
//! ([`listen`](Committer::listen)), then the dialect closes the commit, with the answers in it. As many messages are taken as wait
//! then: none of those is left that were there when the marks were read, and however many come meanwhile, what one commit writes is
//! bounded by what the mailbox holds.
//!
//! The same holds for [`processed`](Downstream::processed), which says that nothing more will come of what lies below an offset: it is
//! read before the messages, and told to the dialect after them.

use super::{Committer, Downstream};
use crate::dialect::{Dialect, Touched};
use crate::journal::{Checkpoint, DeadLetterId, Journal, Records};
use crate::limits;
use crate::model::{LaneMark, LaneMessage, Now, Offset, SinkRecord};
use crate::net::Transmit;

/// It knows what the last checkpoint holds, and how far the next one is.
#[derive(Debug)]
pub(super) struct Checkpointing {
    /// The offset of the last one that is durable, and the marks in it.
    at: Offset,
    marks: Vec<LaneMark>,
    sinks: Vec<SinkRecord>,
    /// Requests up to this number are answered by it.
    asked: u64,
    /// It has deleted the records of answers with a number below.
    answers_below: u64,
    /// When the last one began, in monotonic microseconds, and bytes journaled since then.
    begun_us: u64,
    bytes_since: u64,
    trimmed_below: Offset,
    /// A lane has asked for a checkpoint soon.
    wanted: bool,
    /// The checkpoint that is being written, if one is.
    round: Option<Round>,
}

/// A checkpoint that is being written, over as many commits as its records need.
#[derive(Debug)]
struct Round {
    /// The records will include every entry below.
    at: Offset,
    /// Records that are still to be written.
    left: usize,
    /// Some of its records were written, and the rest must follow.
    begun: bool,
}

/// What is to be noted of a checkpoint when it is durable.
#[derive(Debug)]
pub(super) struct Written {
    at: Offset,
    marks: Vec<LaneMark>,
    sinks: Vec<SinkRecord>,
    retried: Vec<DeadLetterId>,
    asked: u64,
    answers_below: u64,
}

impl Checkpointing {
    /// After a start: the last one is at `at`, and the journal begins at `low`.
    pub(super) fn new(at: Offset, low: Offset) -> Self {
        Self {
            at,
            marks: Vec::new(),
            sinks: Vec::new(),
            asked: 0,
            answers_below: 0,
            begun_us: 0,
            bytes_since: 0,
            trimmed_below: low,
            wanted: false,
            round: None,
        }
    }

    /// The offset of the last durable one.
    pub(super) fn last(&self) -> Offset {
        self.at
    }

    /// Notes that somebody wants a checkpoint soon.
    pub(super) fn ask(&mut self) {
        self.wanted = true;
    }

    /// Whether one is being written that needs more commits.
    pub(super) fn is_under_way(&self) -> bool {
        self.round.is_some()
    }

    /// A block of so many bytes is to be written.
    pub(super) fn journals(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }
}

impl Written {
    pub(super) fn of((checkpoint, asked): &(Checkpoint, u64)) -> Self {
        let Checkpoint { at, lanes, sinks, retried, answers_below, .. } = checkpoint;
        let (marks, sinks, retried) = (lanes.clone(), sinks.clone(), retried.clone());
        Self { at: *at, marks, sinks, retried, asked: *asked, answers_below: *answers_below }
    }
}

impl<D: Dialect, J: Journal, T: Transmit, L: Downstream> Committer<D, J, T, L> {
    /// What processing has to say before the commit ending at `end` is closed: answers for the dialect, and marks for the checkpoint,
    /// in the order that the page of this module explains. Of the checkpoint it returns what [`checkpoint`](Self::checkpoint) does.
    pub(super) fn listen(&mut self, now: Now, end: Offset, records: &mut Records) -> Option<(Checkpoint, u64)> {
        // So that a checkpoint that is asked for is part of this commit already.
        self.hear(now);
        let checkpoint = self.checkpoint(now, end, records);
        let processed = self.downstream.processed();
        self.hear(now);
        for processed in processed {
            self.dialect.processed(processed, now);
        }
        checkpoint
    }

    /// Takes all that processing had to say when this was called, and perhaps one thing that it has said since.
    fn hear(&mut self, now: Now) {
        for _ in 0..=self.downstream.messages() {
            match self.downstream.next_message() {
                Some(LaneMessage::Checkpoint) => self.checkpointing.wanted = true,
                Some(LaneMessage::Answers(answers)) => self.dialect.answered(answers, now),
                // It had to wake the committer, and has.
                Some(LaneMessage::Processed) => {}
                None => {
                    self.unheard = false;
                    return;
                }
            }
        }
        self.unheard = true;
    }

    /// Whether the next commit is to follow at once, without waiting for datagrams: for messages of processing that the last one has
    /// left, for which nobody is woken any more, or for a checkpoint that these have asked for.
    pub fn has_more_to_do(&self) -> bool {
        self.unheard || self.checkpointing.wanted
    }

    /// The checkpoint that the commit ending at `end` completes, if it completes one. Else the next piece of one that is
    /// being written is added to `records`: records may be newer than the checkpoint that recovery starts from, since
    /// applying an entry twice changes nothing. With it comes the number of the last request that it answers.
    fn checkpoint(&mut self, now: Now, end: Offset, records: &mut Records) -> Option<(Checkpoint, u64)> {
        if !self.checkpointing.is_under_way() && self.is_checkpoint_due(now) {
            self.begin_round(now, end);
        }
        let round = self.checkpointing.round.as_mut()?;
        let Touched { taken, sessions, asks, forgotten } =
            self.dialect.take_touched(round.left, limits::CHECKPOINT_RECORD_BYTES);
        round.left -= taken;
        let asks_changed = !asks.is_empty() || !forgotten.is_empty();
        records.asks.extend(asks);
        records.forgotten.extend(forgotten);
        if round.left > 0 {
            round.begun = true;
            records.sessions.extend(sessions);
            return None;
        }
        let Round { at, begun, .. } = self.checkpointing.round.take()?;
        let expired = self.dialect.take_expired();
        // Before the marks, which then cover them.
        let (retried, asked) = (self.downstream.retried(), self.downstream.asked());
        let (lanes, sinks) = (self.downstream.marks(), self.downstream.sinks());
        let answers_below = self.dialect.answers_below();
        let last = &self.checkpointing;
        let is_same =
            (&lanes, &sinks, asked, answers_below) == (&last.marks, &last.sinks, last.asked, last.answers_below);
        if !begun && !asks_changed && sessions.is_empty() && expired.is_empty() && retried.is_empty() && is_same {
            return None;
        }
        // With nobody to hold anything, and nobody who does not, nothing is known of what follows. A sink that was removed since the
        // start is among the holdings alone.
        let is_known = !lanes.is_empty() || !sinks.is_empty() || !self.downstream.holdings().is_empty();
        let watermark = if is_known { lowest_held(&lanes, &sinks).unwrap_or(at) } else { Offset(0) };
        if let Some(below) = self.backlog.trim(watermark.min(at), self.config.retain_bytes) {
            self.checkpointing.trimmed_below = below;
        }
        // Below, when a loss was accepted: the lanes have yet to pass what is gone.
        let trim_below = self.checkpointing.trimmed_below.min(watermark).min(at);
        self.downstream.trimmed(trim_below, now);
        let sinks = self.downstream.sinks();
        // An operator may have let a sink go back since they were looked at.
        let held = sinks.iter().filter(|sink| sink.holds).map(|sink| sink.mark.watermark).min();
        let trim_below = held.map_or(trim_below, |held| trim_below.min(held));
        let former = self.downstream.former(&lanes);
        Some((Checkpoint { at, sessions, expired, lanes, former, sinks, retried, answers_below, trim_below }, asked))
    }

    pub(super) fn begin_round(&mut self, now: Now, at: Offset) {
        self.checkpointing.begun_us = now.mono_us;
        self.checkpointing.bytes_since = 0;
        self.checkpointing.wanted = false;
        // Sessions expire as of when the first of what this commit is to answer arrived: who was heard then is still alive, however
        // long the commit has taken to be closed.
        let left = self.dialect.begin_checkpoint(Now { mono_us: now.mono_us.min(self.absorbed_from_us), ..now });
        self.checkpointing.round = Some(Round { at, left, begun: false });
    }

    /// Notes a checkpoint that became durable, and tells the lanes.
    pub(super) fn checkpointed(&mut self, written: Written) {
        let Written { at, marks, sinks, retried, asked, answers_below } = written;
        self.downstream.checkpointed(&retried, &sinks, asked);
        (self.checkpointing.at, self.checkpointing.asked) = (at, asked);
        self.checkpointing.answers_below = answers_below;
        (self.checkpointing.marks, self.checkpointing.sinks) = (marks, sinks);
        self.metrics.checkpoints.inc();
    }

    fn is_checkpoint_due(&self, now: Now) -> bool {
        self.checkpointing.bytes_since >= self.config.checkpoint_bytes
            || now.mono_us.saturating_sub(self.checkpointing.begun_us) >= self.config.checkpoint_interval_us
            || self.checkpointing.wanted
            || self.dialect.wants_checkpoint()
    }
}

/// The lowest entry that a lane or a sink holds, if one holds anything.
fn lowest_held(lanes: &[LaneMark], sinks: &[SinkRecord]) -> Option<Offset> {
    let held = sinks.iter().filter(|sink| sink.holds).map(|sink| sink.mark.watermark);
    lanes.iter().map(|mark| mark.watermark).chain(held).min()
}
