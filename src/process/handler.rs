//! What processes records: the [`Handler`] trait, and what goes in. What comes out of it is in `outcomes`.

pub use super::handler_error::HandlerError;
pub use super::outcomes::{AnswerTooLong, Outcome, Outcomes};
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
/// - [`settle`](Self::settle) alone is called while records are open, and only when somebody waits for an answer.
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

    /// Makes everything that is *done* so far durable while other records of the same call are open, as far as that can be had
    /// before they are finished, and returns whether it is. Called when somebody who has asked waits for the answer to a record
    /// that is done, and what is open has to wait for a retry: so that one bad record does not hold the answers of a thousand
    /// others. The watermark stays where it is, and after a crash what was settled comes again.
    ///
    /// By default nothing is done, and the answers wait until nothing is open any more: a handler whose effect is the state that
    /// `flush` returns can have it stored only then. One that writes to somewhere else says
    /// `self.flush().map(|_| true)`, if its `flush` is right also when a later record is done and an earlier one is not.
    ///
    /// # Errors
    /// As those of `flush`: nothing of what it has done is answered yet, and it is called again after a while.
    fn settle(&mut self) -> Result<bool, HandlerError> {
        Ok(false)
    }

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
