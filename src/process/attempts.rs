//! The attempts at a batch: what becomes of each record by a call of its handler. It is finished, presented again, or a dead
//! letter; and what the handler cannot do for now (take records, flush, bury the dead) is tried again later.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rand::rngs::SmallRng;

use super::answers::{Answering, Answers};
use super::config::LaneConfig;
use super::dead_letters::{self, Burial, GivenUp};
use super::handler::{Handler, HandlerError, Outcome};
use super::handler_calls::HandlerCalls;
use super::lane_name::LaneName;
use super::mailbox::Mailbox;
use super::retried::RetryError;
use super::retry::{Outage, RetryPolicy};
use crate::journal::{DeadLetterId, DeadLetters, StorageError};
use crate::limits;
use crate::metrics::{Metrics, SinkMetrics};
use crate::model::{LaneMessage, Now, Offset, Record};

/// A handler with all that decides about its records.
pub(super) struct Attempts {
    name: LaneName,
    calls: HandlerCalls,
    burial: Burial,
    policy: RetryPolicy,
    rng: SmallRng,
    metrics: Metrics,
    processed: Counter,
    down: Gauge,
    /// A configured sink has metrics of its own; `None` for an embedded handler.
    of_sink: Option<SinkMetrics>,
    /// The handler says that its sink is away.
    unavailable: Outage,
    /// The handler says that it cannot flush.
    flushing: Outage,
    /// What is said of records that asked.
    pub(super) answers: Answers,
    /// When the operator may be told again of answers that are too long, in microseconds of the monotonic clock.
    tell_too_long_us: u64,
}

/// The records of a batch that are not finished, in order.
#[derive(Debug, Default)]
pub(super) struct OpenBatch {
    pub(super) records: Vec<OpenRecord>,
    /// The sender of one of its records may want an answer.
    pub(super) may_ask: bool,
    /// Those of the batch that are given up and are no dead letters yet. They are not presented again.
    given_up: Vec<GivenUp>,
    /// A panic hit several records: they are presented one by one until the batch is finished.
    pub(super) one_by_one: bool,
    /// When to present them, in microseconds of the monotonic clock.
    due_us: u64,
}

/// A record of the batch that is not finished.
#[derive(Debug)]
pub(super) struct OpenRecord {
    /// Its number among all records of the batch, from 0.
    pub(super) nth: usize,
    /// How many attempts at it have failed.
    attempts: u16,
}

impl OpenBatch {
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

impl Attempts {
    pub(super) fn new(
        name: LaneName,
        handler: Box<dyn Handler>,
        dead: Arc<dyn DeadLetters>,
        mailbox: &Arc<Mailbox<LaneMessage>>,
        config: &LaneConfig,
        rng: SmallRng,
        metrics: &Metrics,
    ) -> Self {
        let label = name.label();
        let answering = (config.answering == Answering::Bodies).then(|| (config.answer_bytes_max, Arc::clone(mailbox)));
        Self {
            calls: HandlerCalls::new(name.clone(), handler, answering, metrics),
            burial: Burial::new(name.clone(), dead, config.dead_letter_room, metrics),
            of_sink: name.sink().map(|sink| metrics.of_sink(sink)),
            name,
            policy: config.retry,
            rng,
            processed: metrics.processed.get_or_create(&label).clone(),
            down: metrics.lane_down.get_or_create(&label).clone(),
            metrics: metrics.clone(),
            unavailable: Outage::default(),
            flushing: Outage::default(),
            answers: Answers::new(config.answering),
            tell_too_long_us: 0,
        }
    }

    /// When to go on with a batch that is not finished, in microseconds of the monotonic clock.
    pub(super) fn due_us(&self, open: &OpenBatch, now: Now) -> u64 {
        let records = (!open.records.is_empty()).then_some(open.due_us);
        let given_up = (!open.given_up.is_empty()).then(|| self.burial.wait_until(now).unwrap_or(0));
        records.into_iter().chain(given_up).min().unwrap_or(0)
    }

    /// Presents what is open of a batch (`records` are all of its records), and takes out what is finished by it. What is given
    /// up becomes dead letters, as soon as there is room for them.
    ///
    /// # Errors
    /// A dead letter could not be stored. The server must stop.
    pub(super) fn present(
        &mut self,
        now: Now,
        records: &[Record<'_>],
        open: &mut OpenBatch,
    ) -> Result<(), StorageError> {
        if !open.records.is_empty() && open.due_us <= now.mono_us {
            self.show(now, records, open);
        }
        if !open.given_up.is_empty() {
            let how = (&self.policy, &mut self.rng);
            self.burial.bury(now, records, &mut open.given_up, how, &mut self.answers)?;
            self.show_down(now);
        }
        Ok(())
    }

    /// Calls the handler with these records, and notes what became of each.
    fn show(&mut self, now: Now, records: &[Record<'_>], open: &mut OpenBatch) {
        let shown = if open.one_by_one { 1 } else { open.records.len() };
        let panic = if shown == records.len() {
            self.calls.process(records, open.may_ask)
        } else {
            let some: Vec<_> = open.records[..shown].iter().map(|left| records[left.nth]).collect();
            self.calls.process(&some, open.may_ask)
        };
        self.tell_too_long(now);
        if panic.is_none() && self.calls.outcomes.unavailable_reason().is_none() && self.calls.outcomes.all_done() {
            self.is_available(now);
            self.processed.inc_by(shown as u64);
            let done = open.records.drain(..shown);
            // Nothing is touched for each record where nobody asks.
            if open.may_ask {
                for (i, left) in done.enumerate() {
                    self.answers.done(now, &records[left.nth], &self.calls.outcomes, i);
                }
            }
            open.due_us = 0;
            return;
        }
        self.blame(now, shown, panic, open);
        let mut charged_most = 0;
        let mut kept = Vec::with_capacity(open.records.len());
        for (settled, mut left) in open.records.drain(..).enumerate() {
            let outcome =
                if settled < shown { self.calls.outcomes.outcome(settled).clone() } else { Outcome::Unanswered };
            let attempts = left.attempts;
            if outcome == Outcome::Done {
                self.answers.done(now, &records[left.nth], &self.calls.outcomes, settled);
            }
            if !self.judge(now, &records[left.nth], &mut left, outcome, &mut open.given_up) {
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

    /// Presents one dead letter again, if it is still there.
    ///
    /// # Errors
    /// It is not, cannot be read, or what the handler said.
    pub(super) fn retry(&mut self, id: DeadLetterId) -> Result<(), RetryError> {
        let letter = self.burial.get(id).map_err(|error| RetryError::Failed(error.to_string()))?;
        let letter = letter.ok_or(RetryError::Gone)?;
        if let Some(panic) = self.calls.retry(&dead_letters::record(&letter)) {
            return Err(RetryError::Failed(format!("the handler panicked: {panic}")));
        }
        let reason = match (self.calls.outcomes.outcome(0), self.calls.outcomes.unavailable_reason()) {
            (Outcome::Done, _) => return Ok(()),
            (Outcome::Retry(reason) | Outcome::GiveUp(reason), _) => reason,
            (Outcome::Unanswered, reason) => reason.unwrap_or("the handler said nothing of it"),
        };
        Err(RetryError::Failed(reason.to_owned()))
    }

    /// Lets the handler make durable what it has done.
    ///
    /// # Errors
    /// The handler's; it is logged, and [`flush_due`](Self::flush_due) says when to try again.
    pub(super) fn flush(&mut self, now: Now) -> Result<Vec<u8>, HandlerError> {
        let flushed = self.calls.flush();
        self.note_flush(now, flushed.as_ref().err());
        flushed
    }

    fn note_flush(&mut self, now: Now, error: Option<&HandlerError>) {
        let (sink, lane) = (self.name.sink(), self.name.number());
        match error {
            None => {
                if let Some(away) = self.flushing.over(now.mono_us) {
                    tracing::info!(sink, lane, ?away, "the sink takes records again");
                }
            }
            Some(error) => {
                self.metrics.sink_failures.inc();
                if self.flushing.failed(now.mono_us, error.is_soon(), &self.policy, &mut self.rng) {
                    tracing::error!(
                        sink, lane, %error,
                        "the sink cannot be written; its records wait in the journal"
                    );
                }
            }
        }
        self.show_down(now);
    }

    /// Lets the handler make durable what it has done while records are open; returns whether it has.
    ///
    /// # Errors
    /// As those of [`flush`](Self::flush).
    pub(super) fn settle(&mut self, now: Now) -> Result<bool, HandlerError> {
        let settled = self.calls.settle();
        self.note_flush(now, settled.as_ref().err());
        settled
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
    pub(super) fn reopen(&mut self, open: &mut OpenBatch) {
        if self.unavailable.is_on() {
            open.due_us = 0;
        }
        if let Err(error) = self.calls.reopen() {
            tracing::error!(sink = self.name.sink(), lane = self.name.number(), %error, "the sink could not be opened anew; it goes on as before");
        }
    }

    /// Tells the handler what it will not be shown.
    pub(super) fn lost(&mut self, from: Offset, to: Offset) {
        self.calls.lost(from, to);
    }

    /// What of the handler's state is true wherever the sink goes on.
    pub(super) fn moved(&mut self) -> Vec<u8> {
        self.calls.moved()
    }

    /// Another handler takes the place of the one that there was, and begins without an outage.
    pub(super) fn replace_handler(&mut self, now: Now, handler: Box<dyn Handler>) {
        self.calls.replace(handler);
        (self.unavailable, self.flushing) = (Outage::default(), Outage::default());
        self.show_down(now);
    }

    /// Turns what is said of no single record into outcomes: a panic, silence, an outage.
    fn blame(&mut self, now: Now, shown: usize, panic: Option<String>, open: &mut OpenBatch) {
        if let Some(error) = self.calls.outcomes.unavailable_error() {
            self.metrics.sink_failures.inc();
            if self.unavailable.failed(now.mono_us, error.is_soon(), &self.policy, &mut self.rng) {
                tracing::error!(
                    sink = self.name.sink(),
                    lane = self.name.number(),
                    reason = %error,
                    "the sink is not available; its records wait in the journal"
                );
            }
            self.show_down(now);
        } else {
            self.is_available(now);
        }
        match panic {
            Some(text) if shown == 1 && *self.calls.outcomes.outcome(0) == Outcome::Unanswered => {
                self.calls.outcomes.retry(0, format!("the handler panicked: {text}"));
            }
            Some(_) => open.one_by_one = true,
            // Silence must not become a busy loop.
            None if self.calls.outcomes.is_silent() => self.calls.outcomes.retry(0, "the handler said nothing of it"),
            None => {}
        }
    }

    /// Returns whether the record need not be presented again.
    fn judge(
        &self,
        now: Now,
        record: &Record<'_>,
        open: &mut OpenRecord,
        outcome: Outcome,
        given_up: &mut Vec<GivenUp>,
    ) -> bool {
        let (mut reason, again) = match outcome {
            Outcome::Unanswered => return false,
            Outcome::Done => {
                self.processed.inc();
                return true;
            }
            Outcome::Retry(reason) => (reason, true),
            Outcome::GiveUp(reason) => (reason, false),
        };
        open.attempts = open.attempts.saturating_add(1);
        let (offset, index, attempts) = (record.offset.0, record.index, open.attempts);
        if again && attempts < self.policy.attempts_max {
            self.metrics.retries.inc();
            let (sink, lane) = (self.name.sink(), self.name.number());
            tracing::debug!(sink, lane, offset, index, attempts, reason, "a record is to be retried");
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

    /// Counts the answers that were too long, and tells the operator of them now and then.
    fn tell_too_long(&mut self, now: Now) {
        let answers = self.calls.outcomes.too_long();
        if answers == 0 {
            return;
        }
        self.metrics.answers_too_long.inc_by(answers);
        if now.mono_us >= self.tell_too_long_us {
            self.tell_too_long_us = now.mono_us.saturating_add(limits::LANE_TOO_LONG_LOG_US);
            tracing::warn!(
                sink = self.name.sink(),
                lane = self.name.number(),
                answers,
                "the handler gives answers that are longer than answer_bytes_max: who asked hears DONE without a body"
            );
        }
    }

    fn is_available(&mut self, now: Now) {
        if let Some(away) = self.unavailable.over(now.mono_us) {
            tracing::info!(sink = self.name.sink(), lane = self.name.number(), ?away, "the sink is available again");
            self.show_down(now);
        }
    }

    fn show_down(&self, now: Now) {
        let down = self.unavailable.is_on() || self.flushing.is_on() || self.burial.waits();
        self.down.set(i64::from(down));
        if let Some(metrics) = &self.of_sink {
            metrics.set_up(!down, now.unix_us);
        }
    }
}
