//! What a handler says of the records that it was given: what came of each, and what their senders are answered.

use std::mem;
use std::sync::Arc;

use super::handler_error::HandlerError;
use super::mailbox::Mailbox;
use crate::limits;
use crate::model::{AskId, LaneAnswer, LaneMessage, Offset, Record};

/// What came of the records of one call of [`Handler::process`](crate::process::Handler::process). What was said last of a
/// record counts.
#[derive(Debug, Default)]
pub struct Outcomes {
    len: usize,
    /// Empty until a record gets an outcome of its own: [`done_all`](Self::done_all) alone touches nothing per record.
    outcomes: Vec<Outcome>,
    rest_done: bool,
    unavailable: Option<HandlerError>,
    /// Who asks for an answer of this handler; empty when nobody does.
    asking: Vec<bool>,
    /// The answers given to them; empty until there is one.
    bodies: Vec<Option<Arc<[u8]>>>,
    answer_bytes_max: usize,
    too_long: u64,
    /// Where the answers go that are given before the call ends, and what is to be told there.
    telling: Option<Telling>,
}

/// Who asks, and hears of it while the call goes on.
#[derive(Debug)]
struct Telling {
    mailbox: Arc<Mailbox<LaneMessage>>,
    /// What names the records, in the order of the call; empty when nobody asks.
    names: Vec<(AskId, Offset)>,
    /// Of whom it is told already.
    told: Vec<bool>,
    /// The records that are done since that was last told.
    done: Vec<usize>,
}

/// An answer is longer than the configuration allows. Nothing is said of the record yet: it may be done without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the answer has {bytes} bytes, and at most {bytes_max} are kept (answer_bytes_max)")]
pub struct AnswerTooLong {
    /// How many bytes it has.
    pub bytes: usize,
    /// How many it may have.
    pub bytes_max: usize,
}

/// What a handler said of one record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// It said nothing: the record is presented again.
    #[default]
    Unanswered,
    /// The record is processed, and never comes again once that is durable.
    Done,
    /// The record cannot be processed now, for this reason.
    Retry(String),
    /// The record can never be processed, for this reason.
    GiveUp(String),
}

impl Outcomes {
    /// Nothing said yet of `len` records, whose senders all want an answer. Tests of handlers call it; lanes make their own.
    pub fn new(len: usize) -> Self {
        Self { len, asking: vec![true; len], answer_bytes_max: limits::LANE_ANSWER_BYTES, ..Self::default() }
    }

    /// The record is processed.
    ///
    /// # Panics
    /// This and the other outcomes panic when `index` is not one of a record.
    pub fn done(&mut self, index: usize) {
        self.set(index, Outcome::Done);
    }

    /// The record is processed, and this is the answer for its sender, if that wants one; else the body is dropped. Without a
    /// body, as by [`done`](Self::done), its sender hears that it is processed.
    ///
    /// # Errors
    /// The body is longer than the configuration allows (`answer_bytes_max`), and its sender waits for it. Nothing is said of the
    /// record by that.
    pub fn done_with(&mut self, index: usize, body: &[u8]) -> Result<(), AnswerTooLong> {
        let asks = self.awaits(index).is_some();
        if asks && body.len() > self.answer_bytes_max {
            self.too_long += 1;
            return Err(AnswerTooLong { bytes: body.len(), bytes_max: self.answer_bytes_max });
        }
        self.done(index);
        if asks && !body.is_empty() {
            if self.bodies.is_empty() {
                self.bodies.resize(self.len, None);
            }
            self.bodies[index] = Some(body.into());
        }
        Ok(())
    }

    /// The record is processed, with this answer; or without one, when it is too long: that is counted, and the operator is told.
    pub fn done_with_what_fits(&mut self, index: usize, body: &[u8]) {
        if self.done_with(index, body).is_err() {
            self.done(index);
        }
    }

    /// What was said to be *done* so far is durable where it went: who waits for an answer to it may have it now, though the call goes
    /// on. For a handler that works at the records of a call one after the other, or has others work at them: an answer that is there
    /// waits neither for a slower one nor for a `flush`. What was said by [`done_all`](Self::done_all) is not told before the call
    /// ends.
    ///
    /// It changes nothing else, and what finds no room at the committer now is told after the call. The handler must not say anything
    /// else of these records afterwards.
    pub fn tell_done(&mut self) {
        let Some(telling) = &mut self.telling else { return };
        let done = mem::take(&mut telling.done);
        let done: Vec<_> = done.into_iter().filter(|&i| self.outcomes[i] == Outcome::Done).collect();
        let mut answers = Vec::new();
        let mut bytes = 0;
        for &i in &done {
            let (id, offset) = telling.names[i];
            let body = self.bodies.get(i).and_then(Option::as_ref).map_or_else(Arc::default, Arc::clone);
            bytes += body.len() + limits::ANSWER_OVERHEAD_BYTES;
            answers.push(LaneAnswer { id, offset, failed: false, body });
        }
        if !answers.is_empty() && telling.mailbox.post_of(LaneMessage::Answers(answers), bytes).is_ok() {
            done.into_iter().for_each(|i| telling.told[i] = true);
        }
    }

    /// Every record is processed, except those with another outcome.
    pub fn done_all(&mut self) {
        self.rest_done = true;
    }

    /// The record could not be processed now. It comes again after a delay that grows with each attempt; after the last
    /// attempt that [`RetryPolicy`](crate::process::RetryPolicy) allows it becomes a dead letter.
    ///
    /// For what may be this record's fault. When the sink as a whole does not answer, use [`unavailable`](Self::unavailable).
    pub fn retry(&mut self, index: usize, reason: impl Into<String>) {
        self.set(index, Outcome::Retry(reason.into()));
    }

    /// The record cannot ever be processed: it becomes a dead letter at once.
    pub fn give_up(&mut self, index: usize, reason: impl Into<String>) {
        self.set(index, Outcome::GiveUp(reason.into()));
    }

    /// What the handler writes to is away. Records without an outcome come again after a delay, as often as it takes: an
    /// outage makes no dead letters.
    pub fn unavailable(&mut self, reason: impl Into<String>) {
        self.unavailable_for(HandlerError::new(reason.into()));
    }

    /// Like [`unavailable`](Self::unavailable), for an error that may be [`soon`](HandlerError::soon).
    pub fn unavailable_for(&mut self, error: HandlerError) {
        self.unavailable = Some(error);
    }

    /// What was said of the record.
    pub fn outcome(&self, index: usize) -> &Outcome {
        match self.outcomes.get(index).unwrap_or(&Outcome::Unanswered) {
            Outcome::Unanswered if self.rest_done => &Outcome::Done,
            outcome => outcome,
        }
    }

    /// The answer for the sender of a record that is done, if there is one.
    pub fn body(&self, index: usize) -> Option<&Arc<[u8]>> {
        self.bodies.get(index)?.as_ref()
    }

    /// How many bytes the answer to the record may have; `None` when nobody waits for one of this handler's.
    pub fn awaits(&self, index: usize) -> Option<usize> {
        self.asking.get(index).copied().unwrap_or(false).then_some(self.answer_bytes_max)
    }

    /// Whether its sender has been told already.
    pub(super) fn is_told(&self, index: usize) -> bool {
        self.telling.as_ref().and_then(|telling| telling.told.get(index)).copied().unwrap_or(false)
    }

    /// How many answers were too long.
    pub(super) fn too_long(&self) -> u64 {
        self.too_long
    }

    /// The reason given to [`unavailable`](Self::unavailable).
    pub fn unavailable_reason(&self) -> Option<&str> {
        self.unavailable.as_ref().map(HandlerError::message)
    }

    pub(crate) fn unavailable_error(&self) -> Option<&HandlerError> {
        self.unavailable.as_ref()
    }

    /// Whether each record is done; costs nothing when [`done_all`](Self::done_all) was all that was said.
    pub(crate) fn all_done(&self) -> bool {
        let done = |outcome: &Outcome| *outcome == Outcome::Done || (self.rest_done && *outcome == Outcome::Unanswered);
        if self.outcomes.is_empty() { self.rest_done } else { self.outcomes.iter().all(done) }
    }

    /// Whether nothing at all was said.
    pub(crate) fn is_silent(&self) -> bool {
        self.unavailable.is_none()
            && !self.rest_done
            && self.outcomes.iter().all(|outcome| *outcome == Outcome::Unanswered)
    }

    /// Takes [`done_all`](Self::done_all) back; outcomes of their own stand.
    pub(crate) fn withdraw_done_all(&mut self) {
        self.rest_done = false;
    }

    /// Makes this ready for the next call, keeping the memory.
    pub(crate) fn reset(&mut self, len: usize) {
        self.len = len;
        self.outcomes.clear();
        self.rest_done = false;
        self.unavailable = None;
        self.asking.clear();
        self.bodies.clear();
        self.too_long = 0;
        if let Some(telling) = &mut self.telling {
            telling.names.clear();
            telling.told.clear();
            telling.done.clear();
        }
    }

    /// Answers may be told in this mailbox while a call goes on.
    pub(super) fn tell_by(&mut self, mailbox: Arc<Mailbox<LaneMessage>>) {
        self.telling = Some(Telling { mailbox, names: Vec::new(), told: Vec::new(), done: Vec::new() });
    }

    /// The senders of some of these records want an answer, and this handler gives it, with up to so many bytes.
    pub(super) fn are_asked_by(&mut self, records: &[Record<'_>], answer_bytes_max: usize) {
        if records.iter().any(|record| record.asks) {
            self.asking.extend(records.iter().map(|record| record.asks));
            if let Some(telling) = &mut self.telling {
                let name = |record: &Record<'_>| (AskId { session: record.session, seq: record.seq }, record.offset);
                telling.names.extend(records.iter().map(name));
                telling.told.resize(records.len(), false);
            }
        }
        self.answer_bytes_max = answer_bytes_max;
    }

    fn set(&mut self, index: usize, outcome: Outcome) {
        assert!(index < self.len, "outcome of record {index} of {}", self.len);
        if self.outcomes.is_empty() {
            self.outcomes.resize(self.len, Outcome::Unanswered);
        }
        if outcome == Outcome::Done
            && self.asking.get(index).copied().unwrap_or(false)
            && let Some(telling) = &mut self.telling
        {
            telling.done.push(index);
        }
        self.outcomes[index] = outcome;
        // What was said before does not stand any more.
        if let Some(body) = self.bodies.get_mut(index) {
            *body = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use duragram_proto::{ClientId, Epoch, Seq};

    use super::*;
    use crate::model::{Content, Offset, SessionId};

    #[test]
    fn an_outcome_of_its_own_stands_beside_done_all_in_either_order() {
        for first in [true, false] {
            let mut outcomes = Outcomes::new(3);
            if first {
                outcomes.done_all();
            }
            outcomes.retry(1, "busy");
            if !first {
                outcomes.done_all();
            }
            assert_eq!(outcomes.outcome(0), &Outcome::Done);
            assert_eq!(outcomes.outcome(1), &Outcome::Retry("busy".into()));
            assert_eq!(outcomes.outcome(2), &Outcome::Done);
            assert!(!outcomes.all_done());
            outcomes.done(1);
            assert!(outcomes.all_done());
        }
    }

    #[test]
    fn no_outcome_survives_a_reset() {
        let mut outcomes = Outcomes::new(2);
        outcomes.done_all();
        outcomes.give_up(0, "broken");
        outcomes.unavailable("gone");
        outcomes.reset(1);
        assert_eq!(outcomes.outcome(0), &Outcome::Unanswered);
        assert_eq!(outcomes.unavailable_reason(), None);
        assert!(!outcomes.all_done());
    }

    #[test]
    #[should_panic(expected = "outcome of record 2 of 2")]
    fn an_outcome_of_a_record_that_is_not_there_panics() {
        Outcomes::new(2).done(2);
    }

    #[test]
    fn an_answer_goes_with_the_outcome_that_it_was_given_with() {
        let mut outcomes = Outcomes::new(3);
        outcomes.done_with(1, b"early").unwrap();
        outcomes.done_with(1, b"late").unwrap();
        outcomes.done_with(2, b"").unwrap();
        outcomes.done_all();
        assert!(outcomes.all_done());
        assert_eq!([0, 1, 2].map(|i| outcomes.body(i).map(|body| body.to_vec())), [None, Some(b"late".to_vec()), None]);
        outcomes.retry(1, "not yet");
        assert_eq!(outcomes.body(1), None);
        outcomes.done_with(1, b"again").unwrap();
        outcomes.reset(3);
        assert_eq!((outcomes.outcome(1), outcomes.body(1)), (&Outcome::Unanswered, None));
    }

    #[test]
    fn an_answer_that_is_too_long_is_refused_to_who_waits_for_it_and_dropped_for_who_does_not() {
        let session = SessionId { client: ClientId(7), epoch: Epoch::new(3).unwrap() };
        let record = |asks| Record {
            offset: Offset(5),
            index: 0,
            session,
            seq: Seq(9),
            channel: 0,
            received_unix_us: 0,
            asks,
            content: Content::Payload(b"x"),
        };
        let mut outcomes = Outcomes::default();
        outcomes.reset(2);
        outcomes.are_asked_by(&[record(true), record(false)], 4);
        assert_eq!(outcomes.done_with(0, b"12345"), Err(AnswerTooLong { bytes: 5, bytes_max: 4 }));
        assert_eq!((outcomes.outcome(0), outcomes.too_long()), (&Outcome::Unanswered, 1));
        outcomes.done_with(0, b"1234").unwrap();
        outcomes.done_with(1, b"12345").unwrap();
        assert!(outcomes.all_done());
        assert_eq!((outcomes.body(0).map(|body| body.len()), outcomes.body(1)), (Some(4), None));
    }
}
