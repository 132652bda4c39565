//! One call of a handler, and what becomes of each record by it: finished, presented again, or a dead letter.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rand::rngs::SmallRng;

use super::dead;
use super::handler::{Answer, Handler, HandlerError, Outcomes, Record};
use super::retry::{Outage, RetryPolicy};
use crate::journal::{DeadLetters, StorageError};
use crate::metrics::{LaneLabel, Metrics};
use crate::types::{Lane, Now};

/// A handler with all that decides about its records.
pub(super) struct Presenter {
    lane: Lane,
    handler: Box<dyn Handler>,
    pub(super) dead: Arc<dyn DeadLetters>,
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
}

/// The records of a batch that are not finished, in order.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) records: Vec<OpenRecord>,
    /// A panic hit several records: they are presented one by one until the batch is finished.
    pub(super) one_by_one: bool,
    /// When to present them, in microseconds of the monotonic clock.
    pub(super) due_us: u64,
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
        self.one_by_one = false;
        self.due_us = 0;
    }
}

impl Presenter {
    pub(super) fn new(
        lane: Lane,
        handler: Box<dyn Handler>,
        dead: Arc<dyn DeadLetters>,
        policy: RetryPolicy,
        rng: SmallRng,
        metrics: &Metrics,
    ) -> Self {
        let label = LaneLabel { lane: lane.0 };
        Self {
            lane,
            handler,
            dead,
            policy,
            rng,
            processed: metrics.processed.get_or_create(&label).clone(),
            down: metrics.lane_down.get_or_create(&label).clone(),
            metrics: metrics.clone(),
            outcomes: Outcomes::default(),
            unavailable: Outage::default(),
            flushing: Outage::default(),
        }
    }

    /// Presents what is open of a batch (`records` are all of its records), and takes out what is finished by it.
    ///
    /// # Errors
    /// A dead letter could not be stored. The server must stop.
    pub(super) fn present(&mut self, now: Now, records: &[Record<'_>], open: &mut Open) -> Result<(), StorageError> {
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
            return Ok(());
        }
        self.blame(now, shown, panic, open);
        let mut charged_most = 0;
        let mut kept = Vec::with_capacity(open.records.len());
        for (settled, mut left) in open.records.drain(..).enumerate() {
            let answer = if settled < shown { self.outcomes.answer(settled).clone() } else { Answer::Unanswered };
            let attempts = left.attempts;
            if !self.settle(now, &records[left.nth], &mut left, answer)? {
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
        Ok(())
    }

    /// Presents one dead letter again.
    ///
    /// # Errors
    /// What the handler said.
    pub(super) fn present_again(&mut self, record: &Record<'_>) -> Result<(), String> {
        if let Some(panic) = self.call(&[*record]) {
            return Err(format!("the handler panicked: {panic}"));
        }
        match (self.outcomes.answer(0), self.outcomes.unavailable_reason()) {
            (Answer::Done, _) => Ok(()),
            (Answer::Retry(reason) | Answer::GiveUp(reason), _) => Err(reason.clone()),
            (Answer::Unanswered, reason) => Err(reason.unwrap_or("the handler gave no answer").to_owned()),
        }
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
                if self.flushing.failed(now.mono_us, &self.policy, &mut self.rng) {
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

    /// Lets the handler open its files anew.
    pub(super) fn reopen(&mut self) {
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
        if let Some(reason) = self.outcomes.unavailable_reason() {
            self.metrics.sink_failures.inc();
            if self.unavailable.failed(now.mono_us, &self.policy, &mut self.rng) {
                tracing::error!(
                    lane = self.lane.0,
                    reason,
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

    /// Returns whether the record is finished.
    fn settle(
        &mut self,
        now: Now,
        record: &Record<'_>,
        open: &mut OpenRecord,
        answer: Answer,
    ) -> Result<bool, StorageError> {
        let (reason, again) = match answer {
            Answer::Unanswered => return Ok(false),
            Answer::Done => {
                self.processed.inc();
                return Ok(true);
            }
            Answer::Retry(reason) => (reason, true),
            Answer::GiveUp(reason) => (reason, false),
        };
        open.attempts = open.attempts.saturating_add(1);
        let (lane, offset, index, attempts) = (self.lane.0, record.offset.0, record.index, open.attempts);
        if again && attempts < self.policy.attempts_max {
            self.metrics.retries.inc();
            tracing::debug!(lane, offset, index, attempts, reason, "a record is to be retried");
            return Ok(false);
        }
        let letter = dead::letter(record, reason, attempts, now.unix_us);
        self.dead.put(&letter)?;
        self.metrics.dead_letters.inc();
        tracing::warn!(lane, offset, index, attempts, reason = letter.error, "a record became a dead letter");
        Ok(true)
    }

    fn is_available(&mut self, now: Now) {
        if let Some(away) = self.unavailable.over(now.mono_us) {
            tracing::info!(lane = self.lane.0, ?away, "the sink is available again");
            self.show_down();
        }
    }

    fn show_down(&self) {
        self.down.set(i64::from(self.unavailable.is_on() || self.flushing.is_on()));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no text)").to_owned()
}
