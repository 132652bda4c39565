//! What processes records: the [`Handler`] trait, and what goes in and comes out of it.

use std::fmt;

use crate::model::{Instance, JournalId, Lane, LaneMark, Offset, Record, SinkId};

/// Processes the records of one lane. Every lane has its own handler, which runs on the lane's thread.
///
/// # What a handler can rely on
/// - Records come in offset order. While one of them waits for a retry, no record of a later call comes. The one exception is
///   a dead letter that an operator retries: it comes again alone, when nothing else is open, and a `flush` follows.
/// - Every record comes at least once, however often the server is killed; normally exactly once.
/// - [`flush`](Self::flush) is called only when each record that was presented is finished (done, or a dead letter), so
///   the state it returns covers exactly the entries below the watermark that it is stored with, but for those that are dead
///   letters. A dead letter that was retried with success is deleted in the very write that stores the state.
/// - When the server is stopped while a record is open, `flush` is not called any more: what was done since the last one comes
///   again after the next start.
/// - A panic costs nothing but the record that causes it: the lane finds that record by presenting the records one by one,
///   retries it as if [`Outcomes::retry`] had been called, and goes on. A handler that holds state must leave it valid when
///   it panics.
///
/// # What is asked of it
/// - A record that is said to be *done* is either durable where it went, or is made durable by the next `flush` that succeeds.
/// - To block is allowed: the journal absorbs what comes meanwhile, and no client notices.
pub trait Handler: Send {
    /// Processes `records`, never empty, and says of each by its index in the slice what came of it.
    ///
    /// Records of which nothing is said are presented again; so it is fine to stop early. A handler to which order matters
    /// stops at the first record that it cannot process.
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes);

    /// Makes everything that is *done* so far durable, and returns what the journal is to keep with the watermark.
    ///
    /// These bytes come back in [`LaneStart::mark`] after a restart. They are stored with the watermark in one write, so
    /// they can name a position in the sink, or hold a small aggregate over exactly the entries below it.
    ///
    /// # Errors
    /// The watermark stays where it is; nothing new is presented, and `flush` is called again after a while, as often as
    /// it takes. The handler still owns what it has said to be *done*: it is not presented again before a restart.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError>;

    /// The operator asks to open files anew (SIGHUP, after log rotation). Called also while records are open. A `flush`
    /// follows, as soon as none is.
    ///
    /// # Errors
    /// Logged; the handler goes on with what it had.
    fn reopen(&mut self) -> Result<(), HandlerError> {
        Ok(())
    }

    /// Processes one dead letter that an operator retries. It was presented before, and what came after it may have been
    /// processed since: a handler that takes what lies below its position for a repetition must not do so here.
    fn retry(&mut self, record: &Record<'_>, outcomes: &mut Outcomes) {
        self.process(std::slice::from_ref(record), outcomes);
    }

    /// The entries from `from` up to `to` will not be presented any more, since the sink had fallen too far behind. The
    /// next checkpoint records it; after a crash before that they may come all the same. None of them is half done: what was
    /// done is flushed before.
    fn lost(&mut self, _from: Offset, _to: Offset) {}

    /// An operator lets the sink go on elsewhere, back or forward: this handler is not called any more, and what it has not flushed
    /// counts for nothing. Returns what of its state is true at any other place too: the handler that is made in its stead finds
    /// that in [`LaneStart::mark`], and so does the one of a restart until a `flush` is stored. Nothing by default: a position in
    /// the target, or a sum over the entries below the watermark, is true at one place only.
    ///
    /// Called also while records are open. It waits for nothing: the target may be away.
    fn moved(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// Why a handler could not start, flush or reopen, for the operator to read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct HandlerError {
    message: String,
    soon: bool,
}

impl HandlerError {
    /// Makes one of any error or text.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), soon: false }
    }

    /// Part of it was done, or to ask again costs nothing: the next try comes after the first delay of the
    /// [`RetryPolicy`](crate::process::RetryPolicy), which does not grow.
    pub fn soon(self) -> Self {
        Self { soon: true, ..self }
    }

    pub(crate) fn is_soon(&self) -> bool {
        self.soon
    }
}

/// What a lane knows when its handler is made.
#[derive(Clone, Copy, Debug)]
pub struct LaneStart<'a> {
    /// The journal that the records come from, if it has a name.
    pub journal: Option<JournalId>,
    /// Which start of the journal this is, where they are counted.
    pub instance: Option<Instance>,
    /// The sink whose handler is made.
    pub sink: SinkId,
    /// The lane whose handler is made.
    pub lane: Lane,
    /// Where each lane goes on, in lane order.
    pub marks: &'a [LaneMark],
    /// The journal's end. Entries from the lane's watermark up to here may have been presented before the restart.
    pub durable_end: Offset,
    /// When the number of lanes has changed: what the lanes of the run before had left, in their order. Else empty.
    pub left: &'a [LaneMark],
}

impl<'a> LaneStart<'a> {
    /// Where this lane goes on, and what its handler's last stored `flush` returned (empty at the very first start, and when
    /// the number of lanes has changed). After an operator has let the sink go on elsewhere, and nothing was flushed since:
    /// what [`Handler::moved`] returned.
    pub fn mark(&self) -> &'a LaneMark {
        &self.marks[usize::from(self.lane.0)]
    }

    /// What this lane's handler goes on from: as a rule what its last stored `flush` returned. When the number of lanes has
    /// changed, each session may be in another lane: then the first lane takes over what all lanes have left, and the others
    /// begin with nothing. So what is summed up over all lanes' states is neither lost nor counted twice: no record that one
    /// of them covers comes again.
    pub fn inherited(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let own = std::slice::from_ref(self.mark());
        let marks = match (self.left.is_empty(), self.lane) {
            (true, _) => own,
            (false, Lane(0)) => self.left,
            (false, _) => &[],
        };
        marks.iter().map(|mark| mark.sink_state.as_slice()).filter(|state| !state.is_empty())
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> u16 {
        u16::try_from(self.marks.len()).unwrap_or(u16::MAX)
    }
}

/// Makes the lanes' handlers; called once for each lane, in lane order, before the first record.
pub type HandlerFactory = Box<dyn FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send>;

/// What came of the records of one call of [`Handler::process`]. What was said last of a record counts.
#[derive(Debug, Default)]
pub struct Outcomes {
    len: usize,
    /// Empty until a record gets an outcome of its own: [`done_all`](Self::done_all) alone touches nothing per record.
    outcomes: Vec<Outcome>,
    rest_done: bool,
    unavailable: Option<HandlerError>,
}

/// What a handler said of one record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// It said nothing: the record is presented again.
    #[default]
    Unanswered,
    /// The record is processed.
    Done,
    /// The record cannot be processed now, for this reason.
    Retry(String),
    /// The record can never be processed, for this reason.
    GiveUp(String),
}

impl Outcomes {
    /// Nothing said yet of `len` records. Tests of handlers call it; lanes make their own.
    pub fn new(len: usize) -> Self {
        Self { len, ..Self::default() }
    }

    /// The record is processed.
    ///
    /// # Panics
    /// This and the other outcomes panic when `index` is not one of a record.
    pub fn done(&mut self, index: usize) {
        self.set(index, Outcome::Done);
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
        self.unavailable_for(HandlerError { message: reason.into(), soon: false });
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

    /// The reason given to [`unavailable`](Self::unavailable).
    pub fn unavailable_reason(&self) -> Option<&str> {
        self.unavailable.as_ref().map(|error| error.message.as_str())
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
    }

    fn set(&mut self, index: usize, outcome: Outcome) {
        assert!(index < self.len, "outcome of record {index} of {}", self.len);
        if self.outcomes.is_empty() {
            self.outcomes.resize(self.len, Outcome::Unanswered);
        }
        self.outcomes[index] = outcome;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
