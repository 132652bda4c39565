//! Dialects: what turns a datagram into "new, duplicate or refused", and a receipt into a reply.
//!
//! A dialect is a protocol that clients speak to this server. [`duragram`] is the project's own. Neither the receivers
//! ([`net`](crate::net): bytes in, bytes out) nor the committer ([`commit`](crate::commit): group commit) know what a
//! datagram means; they call these two traits, which are resolved at compile time:
//!
//! | trait | where | what |
//! |---|---|---|
//! | [`Admit`] | on each receiver's thread, one state for each | verifies and opens datagrams, refuses early, makes requests |
//! | [`Dialect`] | on the committer's thread, one state in all | judges requests, remembers what was accepted, makes replies |
//!
//! # The way of a datagram
//!
//! 1. A receiver fills a [`Slab`] and [`Arrivals::admit`] makes requests of it.
//! 2. [`Dialect::absorb`] judges each request. What is new goes into the block of the commit that is being built. What is
//!    refused may be answered at once. What is to be confirmed is noted: no receipt is at hand here, so no ack can be made.
//! 3. [`Dialect::close`] ends the building of a commit. It answers what rests on earlier commits alone, on the strength of
//!    their receipt, moves the rest into what is owed ([`Dialect::Owed`]), and names the records that must be durable beside
//!    the block. What is owed is opaque to the committer, and holds what an answer says as it was at that moment: later
//!    datagrams may change sessions while the commit is on its way to the disk.
//!    What processing has finished comes by [`Dialect::answered`] and [`Dialect::processed`] while the commit is built, and
//!    becomes durable with it; what is told of it is owed as acks are.
//! 4. When the commit is durable, [`Dialect::landed`] learns it, and [`Dialect::answer`] makes the replies.
//!
//! At each start, [`Dialect::replay`] takes up what the journal holds, by the code that has accepted it.
//!
//! # Invariants
//!
//! - A reply that says that something is durable is made from a [`Durable`], which the journal alone can make, and which
//!   only `close` and `answer` get to see. It can be neither kept nor copied.
//! - What makes an accepted datagram be recognised again is in the block, in the records beside it, or in a checkpoint
//!   before it is confirmed, and outlives the trimming of its entry.
//! - A dialect reads no clock and does no I/O: time, bytes and the place for replies come as arguments, so that the
//!   simulator steps the same code.
//! - Everything that a dialect keeps for a request is bounded by `limits`: [`Dialect::is_full`] asks for a commit.
//!
//! # Adding a dialect
//!
//! A dialect is a folder beside `duragram`, and nothing outside of it but the server's composition changes:
//!
//! | file | what stands in it |
//! |---|---|
//! | `mod.rs` | the type that implements [`Dialect`], with an [`ID`](Dialect::ID) that no other has and that is never used again |
//! | `admission.rs` | the type that implements [`Admit`]: the decoder, keys, limits, and the type of its requests |
//! | a file for its rules | when a request is new, a duplicate, or refused; the table of what was accepted, with a named bound |
//! | a file for its replies | each function that confirms something takes `&Durable` |
//! | `tests.rs` | golden frames, the rules by example, and both traits driven by hand over a [`Slab`] |
//!
//! Then `server` makes its admissions beside the receivers of its sockets and gives it to the committer. A committer has one
//! dialect; several in one server are an `enum` of requests and a struct of dialects that implements both traits by passing
//! each call on, by [`Peer::socket`](crate::model::Peer::socket) on the way in and by the entry's dialect in `replay`. The
//! journal, the committer, the lanes and the sinks stay as they are.

pub mod duragram;

use std::fmt;

use crate::journal::{BlockBuilder, Durable, Records, Replay};
use crate::model::{
    AskId, AskRecord, AskTotals, AsksReport, AsksRequest, DialectId, DurabilityLevel, LaneAnswer, Now, Offset,
    Processed, SessionId, SessionRecord,
};
use crate::net::{ReplyQueue, Slab, Transmit};

/// A receiver's way in, on the receiver's thread: verifies datagrams, opens them, and refuses early what needs no session
/// for that. There is one for each receiver.
pub trait Admit: Send + 'static {
    /// What a datagram asks for, for the committer's thread.
    type Request: Send;
    /// What was dropped in silence.
    type Dropped: Default + Send;

    /// Makes requests of a slab's datagrams, in their order, and counts those that it drops.
    fn admit(&mut self, slab: &mut Slab, requests: &mut Vec<Self::Request>, dropped: &mut Self::Dropped);
}

/// What has arrived with one receive: the datagrams, and what admission has made of them.
#[derive(Debug)]
pub struct Arrivals<A: Admit> {
    /// The datagrams. The requests refer to its bytes.
    pub slab: Slab,
    requests: Vec<A::Request>,
    dropped: A::Dropped,
}

impl<A: Admit> Arrivals<A> {
    /// None yet, over a slab that may be filled.
    pub fn new(slab: Slab) -> Self {
        Self { slab, requests: Vec::new(), dropped: A::Dropped::default() }
    }

    /// Takes in what the slab holds now; what was admitted before is forgotten.
    pub fn admit(&mut self, admission: &mut A) {
        self.requests.clear();
        self.dropped = A::Dropped::default();
        admission.admit(&mut self.slab, &mut self.requests, &mut self.dropped);
    }

    /// What needs an answer, in the order of arrival.
    pub fn requests(&self) -> &[A::Request] {
        &self.requests
    }

    /// What was dropped in silence.
    pub fn dropped(&self) -> &A::Dropped {
        &self.dropped
    }
}

/// What the committer lends to a dialect that judges a request.
pub struct Work<'a, T> {
    /// The block of the commit that is being built.
    pub block: &'a mut BlockBuilder,
    /// The offset that the first entry of the block has or will have.
    pub first: Offset,
    /// Where refusals go, and answers that say nothing of what is durable.
    pub replies: &'a mut ReplyQueue<T>,
    /// How full the queue before the committer is, from 0 to 1024.
    pub pressure: u16,
    /// The journal has no room: nothing new may be accepted.
    pub storage_short: bool,
    /// How safe what the journal makes durable is.
    pub level: DurabilityLevel,
}

/// A protocol's rules and memory, on the committer's thread. The page of this module tells in which order it is called.
pub trait Dialect: Send + 'static {
    /// What names this dialect in the journal, for as long as journals exist.
    const ID: DialectId;
    /// The receivers' side of the dialect, which makes its requests.
    type Admission: Admit;
    /// What is owed for a closed block until it is durable.
    type Owed: Default + Send;

    /// Takes up a record or a block of the journal, in the order in which a start reads them. Applying an entry twice must
    /// change nothing.
    fn replay(&mut self, replay: Replay<'_>);

    /// Everything is replayed.
    ///
    /// # Errors
    /// A record is one that this dialect cannot have made: the journal is damaged.
    fn replayed(&mut self) -> Result<(), InvalidRecord>;

    /// What is absorbed from now on has arrived at this time.
    fn begin(&mut self, arrived: Now);

    /// Judges a request. What is new goes into the block of `work`; what is to be confirmed is noted for [`close`](Self::close).
    fn absorb<T: Transmit>(
        &mut self,
        request: &<Self::Admission as Admit>::Request,
        slab: &Slab,
        work: &mut Work<'_, T>,
    );

    /// All that arrived together is absorbed: counts it, and what was dropped of it, in the metrics.
    fn end(&mut self, dropped: &<Self::Admission as Admit>::Dropped);

    /// Whether so much waits for a commit that nothing more may be absorbed before it.
    fn is_full(&self) -> bool;

    /// Ends the building of a commit: answers on the strength of `receipt` what rests on commits that have landed alone,
    /// moves what rests on this commit, or on one that is in flight, to `owed`, and returns what must be durable beside the
    /// block. When there is nothing to write at all, `owed` is answered when the last commit in flight has landed; when none
    /// is, with the same receipt.
    fn close<T: Transmit>(
        &mut self,
        receipt: &Durable,
        owed: &mut Self::Owed,
        replies: &mut ReplyQueue<T>,
        pressure: u16,
        now: Now,
    ) -> Records;

    /// The commit for which this is owed is durable, as are all that were closed before it, and `answer` follows. Not called
    /// for what is owed where there was nothing to write.
    fn landed(&mut self, receipt: &Durable, owed: &Self::Owed);

    /// Makes the replies that are owed for a commit. Leaves `owed` empty, to be used again.
    fn answer<T: Transmit>(
        &mut self,
        receipt: &Durable,
        owed: &mut Self::Owed,
        replies: &mut ReplyQueue<T>,
        pressure: u16,
        now: Now,
    );

    /// Processing has finished these records that asked, and their effects are durable. What was not answered before becomes part
    /// of the commit that is being built.
    fn answered(&mut self, _answers: Vec<LaneAnswer>, _now: Now) {}

    /// What processing says of all asks that are open below an offset. The marks that a checkpoint stores with the commit that is
    /// being built are not above it.
    fn processed(&mut self, _processed: Processed, _now: Now) {}

    /// How many asks there are. Called after each commit, so it costs nothing.
    fn asks(&self) -> AskTotals {
        AskTotals::default()
    }

    /// Does what an operator wants of the asks, as a part of the commit that is being built; the committer tells him when that has
    /// landed. What is forgotten is durable then.
    fn tell_of_asks(&mut self, _request: AsksRequest, _now: Now) -> AsksReport {
        AsksReport::default()
    }

    /// Whether a checkpoint is to begin soon, rather than by its own rhythm: since the last one so much was accepted that a start
    /// would have to remember more than the dialect has room for.
    fn wants_checkpoint(&self) -> bool {
        false
    }

    /// A checkpoint begins: sessions that are idle for too long expire. Returns how many have changed since the last one,
    /// whose records the checkpoint needs.
    fn begin_checkpoint(&mut self, now: Now) -> usize;

    /// Takes the next of the changed ones: `count_max` of them at most, and until their records come to `bytes_max` bytes of
    /// memory.
    fn take_touched(&mut self, count_max: usize, bytes_max: usize) -> Touched;

    /// Takes the sessions whose records the checkpoint is to delete.
    fn take_expired(&mut self) -> Vec<SessionId>;

    /// The checkpoint that ends now has taken all that was changed before it began: records of answers with a number below are
    /// part of what it has taken.
    fn answers_below(&self) -> u64 {
        0
    }

    /// How many sessions it remembers.
    fn sessions(&self) -> usize;
}

/// A part of what has changed since the last checkpoint.
#[derive(Debug, Default)]
pub struct Touched {
    /// How many were taken off the list. Those that live no more have no record.
    pub taken: usize,
    /// The records of the others.
    pub sessions: Vec<SessionRecord>,
    /// The records of asks that have changed.
    pub asks: Vec<AskRecord>,
    /// Asks that are gone, and may have a record.
    pub forgotten: Vec<AskId>,
}

/// The record of a session is one that no session can have made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidRecord(pub SessionId);

impl fmt::Display for InvalidRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record of session {} is one that no session can have made", self.0)
    }
}

impl std::error::Error for InvalidRecord {}
