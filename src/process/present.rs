//! One call of a handler, and what becomes of each record by it: finished, presented again, or a dead letter.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rand::rngs::SmallRng;

use super::dead;
use super::handler::{Answer, Handler, HandlerError, Outcomes};
use super::lane::LaneConfig;
use super::retried::RetryError;
use super::retry::{Outage, RetryPolicy};
use crate::journal::{DeadLetterId, DeadLetterRoom, DeadLetters, NoRoom, StorageError};
use crate::limits;
use crate::metrics::{LaneLabel, Metrics};
use crate::model::{Lane, Now, Record};

/// A handler with all that decides about its records.
pub(super) struct Presenter {
    lane: Lane,
    handler: Box<dyn Handler>,
    dead: Arc<dyn DeadLetters>,
    dead_letter_room: DeadLetterRoom,
    policy: RetryPolicy,
    rng: SmallRng,
    metrics: Metrics,
    processed: Counter,
    down: Gauge,
    outcomes: Outcomes,
    /// The handler says that its sink is away.
    unavailable: Outage,
    /// The handler cannot flush.
    flushing: Outage,
    /// There is no room for dead letters.
    burying: Outage,
}

/// The records of a batch that are not finished, in order.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) records: Vec<OpenRecord>,
    /// Those of the batch that are given up and are no dead letters yet. They are not presented again.
    given_up: Vec<GivenUp>,
    /// A panic hit several records: they are presented one by one until the batch is finished.
    pub(super) one_by_one: bool,
    /// When to present them, in microseconds of the monotonic clock.
    due_us: u64,
}

/// A record that is to become a dead letter.
#[derive(Debug)]
struct GivenUp {
    /// Its place among all records of the batch.
    nth: usize,
    attempts: u16,
    reason: String,
    since_unix_us: u64,
}

#[derive(Debug)]
pub(super) struct OpenRecord {
    /// Its place among all records of the batch.
    pub(super) nth: usize,
    /// Attempts that failed.
    attempts: u16,
}

impl Open {
    /// Makes this a batch of `len` records, none finished, due at once.
    pub(super) fn reset(&mut self, len: usize) {
        self.records.clear();
        self.records.extend((0..len).map(|nth| OpenRecord { nth, attempts: 0 }));
        self.given_up.clear();
        self.one_by_one = false;
        self.due_us = 0;
    }

    /// Whether each record of the batch is done, or a dead letter.
    pub(super) fn is_finished(&self) -> bool {
        self.records.is_empty() && self.given_up.is_empty()
    }
}

impl Presenter {
    pub(super) fn new(
        lane: Lane,
        handler: Box<dyn Handler>,
        dead: Arc<dyn DeadLetters>,
        config: &LaneConfig,
        rng: SmallRng,
        metrics: &Metrics,
    ) -> Self {
        let label = LaneLabel { lane: lane.0 };
        Self {
            lane,
            handler,
            dead,
            dead_letter_room: config.dead_letter_room,
            policy: config.retry,
            rng,
            processed: metrics.processed.get_or_create(&label).clone(),
            down: metrics.lane_down.get_or_create(&label).clone(),
            metrics: metrics.clone(),
            outcomes: Outcomes::default(),
            unavailable: Outage::default(),
            flushing: Outage::default(),
            burying: Outage::default(),
        }
    }

    /// When to go on with a batch that is not finished, in microseconds of the monotonic clock.
    pub(super) fn due_us(&self, open: &Open, now: Now) -> u64 {
        let records = (!open.records.is_empty()).then_some(open.due_us);
        let given_up = (!open.given_up.is_empty()).then(|| self.burying.wait_until(now.mono_us).unwrap_or(0));
        records.into_iter().chain(given_up).min().unwrap_or(0)
    }

    /// Presents what is open of a batch (`records` are all of its records), and takes out what is finished by it. What is given
    /// up becomes dead letters, as soon as there is room for them.
    ///
    /// # Errors
    /// A dead letter could not be stored. The server must stop.
    pub(super) fn present(&mut self, now: Now, records: &[Record<'_>], open: &mut Open) -> Result<(), StorageError> {
        if !open.records.is_empty() && open.due_us <= now.mono_us {
            self.show(now, records, open);
        }
        self.bury(now, records, open)
    }

    /// Calls the handler.
    fn show(&mut self, now: Now, records: &[Record<'_>], open: &mut Open) {
        let shown = if open.one_by_one { 1 } else { open.records.len() };
        let panic = if shown == records.len() {
            self.call(records)
        } else {
            let some: Vec<_> = open.records[..shown].iter().map(|left| records[left.nth]).collect();
            self.call(&some)
        };
        if panic.is_none() && self.outcomes.unavailable_reason().is_none() && self.outcomes.all_done() {
            self.is_available(now);
            self.processed.inc_by(shown as u64);
            open.records.drain(..shown);
            open.due_us = 0;
            return;
        }
        self.blame(now, shown, panic, open);
        let mut charged_most = 0;
        let mut kept = Vec::with_capacity(open.records.len());
        for (settled, mut left) in open.records.drain(..).enumerate() {
            let answer = if settled < shown { self.outcomes.answer(settled).clone() } else { Answer::Unanswered };
            let attempts = left.attempts;
            if !self.settle(now, &records[left.nth], &mut left, answer, &mut open.given_up) {
                charged_most = charged_most.max(if left.attempts > attempts { left.attempts } else { 0 });
                kept.push(left);
            }
        }
        open.records = kept;
        let retry_us = match charged_most {
            0 => 0,
            failures => now.mono_us.saturating_add(self.policy.delay_us(failures.into(), &mut self.rng)),
        };
        open.due_us = retry_us.max(self.unavailable.wait_until(now.mono_us).unwrap_or(0));
    }

    /// Makes dead letters of what is given up: one write for all, but that it takes no more memory than it may.
    fn bury(&mut self, now: Now, records: &[Record<'_>], open: &mut Open) -> Result<(), StorageError> {
        if open.given_up.is_empty() || self.burying.wait_until(now.mono_us).is_some() {
            return Ok(());
        }
        let mut letters = Vec::new();
        let mut buried = 0;
        let mut no_room = None;
        while buried < open.given_up.len() && no_room.is_none() {
            letters.clear();
            let mut bytes = 0;
            for left in &open.given_up[buried..] {
                let letter = dead::letter(&records[left.nth], left.reason.clone(), left.attempts, left.since_unix_us);
                bytes += letter.payload.len() + letter.error.len() + limits::DEAD_LETTER_BYTES;
                letters.push(letter);
                if bytes >= limits::DEAD_LETTERS_WRITE_BYTES {
                    break;
                }
            }
            let mut kept = self.dead.put_all(&letters, self.dead_letter_room)?;
            if let Err(NoRoom::Letters { kept: others, letters_max }) = kept
                && others < letters_max
            {
                letters.truncate(usize::try_from(letters_max - others).unwrap_or(usize::MAX));
                kept = self.dead.put_all(&letters, self.dead_letter_room)?;
            }
            match kept {
                Ok(()) => {
                    buried += letters.len();
                    self.metrics.dead_letters.inc_by(letters.len() as u64);
                    let (lane, first) = (self.lane.0, &letters[0]);
                    let (offset, index, attempts) = (first.id.offset.0, first.id.index, first.attempts);
                    let (records, reason) = (letters.len(), &first.error);
                    tracing::warn!(lane, offset, index, attempts, records, reason, "a record became a dead letter");
                }
                Err(problem) => no_room = Some(problem),
            }
        }
        open.given_up.drain(..buried);
        if let Some(problem) = no_room {
            if self.burying.failed(now.mono_us, false, &self.policy, &mut self.rng) {
                tracing::error!(lane = self.lane.0, %problem, "there is no room for dead letters; the lane waits");
            }
        } else if let Some(waited) = self.burying.over(now.mono_us) {
            tracing::info!(lane = self.lane.0, ?waited, "there is room for dead letters again");
        }
        self.show_down();
        Ok(())
    }

    /// Presents one dead letter again, if it is still there.
    ///
    /// # Errors
    /// It is not, cannot be read, or what the handler said.
    pub(super) fn retry(&mut self, id: DeadLetterId) -> Result<(), RetryError> {
        let letter = self.dead.get(id).map_err(|error| RetryError::Failed(error.to_string()))?;
        let letter = letter.ok_or(RetryError::Gone)?;
        if let Some(panic) = self.call(&[dead::record(&letter)]) {
            return Err(RetryError::Failed(format!("the handler panicked: {panic}")));
        }
        let reason = match (self.outcomes.answer(0), self.outcomes.unavailable_reason()) {
            (Answer::Done, _) => return Ok(()),
            (Answer::Retry(reason) | Answer::GiveUp(reason), _) => reason,
            (Answer::Unanswered, reason) => reason.unwrap_or("the handler gave no answer"),
        };
        Err(RetryError::Failed(reason.to_owned()))
    }

    /// Lets the handler make durable what it has done.
    ///
    /// # Errors
    /// The handler's; it is logged, and [`flush_due`](Self::flush_due) says when to try again.
    pub(super) fn flush(&mut self, now: Now) -> Result<Vec<u8>, HandlerError> {
        let flushed = catch_unwind(AssertUnwindSafe(|| self.handler.flush())).unwrap_or_else(|panic| {
            self.metrics.handler_panics.inc();
            Err(HandlerError::new(format_args!("the handler panicked: {}", panic_text(&*panic))))
        });
        match &flushed {
            Ok(_) => {
                if let Some(away) = self.flushing.over(now.mono_us) {
                    tracing::info!(lane = self.lane.0, ?away, "the sink takes records again");
                }
            }
            Err(error) => {
                self.metrics.sink_failures.inc();
                if self.flushing.failed(now.mono_us, error.is_soon(), &self.policy, &mut self.rng) {
                    tracing::error!(lane = self.lane.0, %error, "the sink cannot be written; its records wait in the journal");
                }
            }
        }
        self.show_down();
        flushed
    }

    /// Whether the last flush failed.
    pub(super) fn flush_failed(&self) -> bool {
        self.flushing.is_on()
    }

    /// When to try a failed flush again, if not now.
    pub(super) fn flush_due(&self, now: Now) -> Option<u64> {
        self.flushing.wait_until(now.mono_us)
    }

    /// Lets the handler open its files anew. What waits for the sink need not wait any longer: that may be why.
    pub(super) fn reopen(&mut self, open: &mut Open) {
        if self.unavailable.is_on() {
            open.due_us = 0;
        }
        let reopened = catch_unwind(AssertUnwindSafe(|| self.handler.reopen())).unwrap_or_else(|panic| {
            self.metrics.handler_panics.inc();
            Err(HandlerError::new(format_args!("the handler panicked: {}", panic_text(&*panic))))
        });
        if let Err(error) = reopened {
            tracing::error!(lane = self.lane.0, %error, "the sink could not be opened anew; it goes on as before");
        }
    }

    /// Calls the handler; returns what it said when it panicked.
    fn call(&mut self, records: &[Record<'_>]) -> Option<String> {
        self.outcomes.reset(records.len());
        // The handler is asked to stay valid when it panics; `outcomes` holds whole answers at any time.
        let panic = catch_unwind(AssertUnwindSafe(|| self.handler.process(records, &mut self.outcomes))).err()?;
        // "All done" may have been said before the work was.
        self.outcomes.withdraw_done_all();
        self.metrics.handler_panics.inc();
        let text = panic_text(&*panic);
        tracing::error!(lane = self.lane.0, from = %records[0].offset, records = records.len(), "the handler panicked: {text}");
        Some(text)
    }

    /// Turns what is no answer of one record into answers: a panic, silence, an outage.
    fn blame(&mut self, now: Now, shown: usize, panic: Option<String>, open: &mut Open) {
        if let Some(error) = self.outcomes.unavailable_error() {
            self.metrics.sink_failures.inc();
            if self.unavailable.failed(now.mono_us, error.is_soon(), &self.policy, &mut self.rng) {
                tracing::error!(
                    lane = self.lane.0,
                    reason = %error,
                    "the sink is not available; its records wait in the journal"
                );
            }
            self.show_down();
        } else {
            self.is_available(now);
        }
        match panic {
            Some(text) if shown == 1 && *self.outcomes.answer(0) == Answer::Unanswered => {
                self.outcomes.retry(0, format!("the handler panicked: {text}"));
            }
            Some(_) => open.one_by_one = true,
            // Silence must not become a busy loop.
            None if self.outcomes.is_silent() => self.outcomes.retry(0, "the handler gave no answer"),
            None => {}
        }
    }

    /// Returns whether the record need not be presented again.
    fn settle(
        &self,
        now: Now,
        record: &Record<'_>,
        open: &mut OpenRecord,
        answer: Answer,
        given_up: &mut Vec<GivenUp>,
    ) -> bool {
        let (mut reason, again) = match answer {
            Answer::Unanswered => return false,
            Answer::Done => {
                self.processed.inc();
                return true;
            }
            Answer::Retry(reason) => (reason, true),
            Answer::GiveUp(reason) => (reason, false),
        };
        open.attempts = open.attempts.saturating_add(1);
        let (lane, offset, index, attempts) = (self.lane.0, record.offset.0, record.index, open.attempts);
        if again && attempts < self.policy.attempts_max {
            self.metrics.retries.inc();
            tracing::debug!(lane, offset, index, attempts, reason, "a record is to be retried");
            return false;
        }
        if reason.len() > limits::DEAD_ERROR_BYTES {
            let end = (0..=limits::DEAD_ERROR_BYTES).rfind(|&end| reason.is_char_boundary(end)).unwrap_or(0);
            reason.truncate(end);
        }
        reason.shrink_to_fit();
        given_up.push(GivenUp { nth: open.nth, attempts, reason, since_unix_us: now.unix_us });
        true
    }

    fn is_available(&mut self, now: Now) {
        if let Some(away) = self.unavailable.over(now.mono_us) {
            tracing::info!(lane = self.lane.0, ?away, "the sink is available again");
            self.show_down();
        }
    }

    fn show_down(&self) {
        let down = self.unavailable.is_on() || self.flushing.is_on() || self.burying.is_on();
        self.down.set(i64::from(down));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no text)").to_owned()
}
