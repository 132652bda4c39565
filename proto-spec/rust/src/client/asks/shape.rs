//! What an ask looks like: to the caller, and in its slot.

use crate::client::MessageId;
use crate::{Epoch, Seq};

/// How a client takes answers. Start from [`AskConfig::HELD`] or [`AskConfig::SLEEPER`] and change fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskConfig {
    /// How long the server may hold the first TAKE of a message until the answer is there, in milliseconds. A TAKE that is lost
    /// is sent again after the time for which it may be held and a timeout: a short one finds it soon, also over a bad path.
    pub first_wait_ms: u16,
    /// How long it may hold a later one, at most, in milliseconds: each that brought no answer lets the next be held for twice
    /// as long, so that what takes long costs few datagrams. A server holds none for more than 20,000.
    pub wait_ms: u16,
    /// Bytes of body for which the first TAKE has room, each a byte sent. A longer body takes another TAKE. No more is
    /// used than fits in a datagram and in the buffer for bodies.
    pub room: u16,
    /// Nothing is taken but what the server says is ready, and after [`Client::wake`](crate::client::Client::wake): for
    /// devices that sleep. TAKEs are not held then, whatever `wait_ms` is.
    pub sleeps: bool,
}

impl AskConfig {
    /// TAKEs that the server holds, at first for a second, later for up to 20: an answer comes as soon as it is there.
    pub const HELD: Self = Self { first_wait_ms: 1_000, wait_ms: 20_000, room: 256, sleeps: false };
    /// For a device that sleeps between its messages.
    pub const SLEEPER: Self = Self { first_wait_ms: 0, wait_ms: 0, room: 256, sleeps: true };
}

/// What became of a message that asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// It was processed; the body, often empty, is what the handler answered.
    Done,
    /// It was given up; an operator may still have it processed.
    Failed,
    /// No answer will come: it was had before, has expired or was lost. Says nothing of what became of the message.
    Gone,
}

/// The end of an ask, told once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered<'a> {
    /// The message that asked; `None` where [`Client::take`](crate::client::Client::take) brought it from an earlier run.
    pub message: Option<MessageId>,
    /// The session in which it was acked.
    pub epoch: Epoch,
    /// The message had this number in that session.
    pub seq: Seq,
    /// The server has told this of the message.
    pub status: Status,
    /// The length of the answer's body in bytes.
    pub length: u32,
    /// The body; empty where it is longer than a datagram or than the buffer for bodies.
    pub body: &'a [u8],
}

/// Where an ask waits. The caller provides them and sees nothing inside.
#[derive(Clone, Copy, Debug)]
pub struct AskSlot {
    pub(in crate::client) message: Option<MessageId>,
    /// `None` before the message was transmitted in the epoch that is now.
    pub(in crate::client) epoch: Option<Epoch>,
    pub(in crate::client) seq: Seq,
    /// What time it is depends on the state; the place among the ends once it is finished.
    pub(in crate::client) at_us: u64,
    pub(super) length: u32,
    pub(super) body_start: u32,
    pub(super) body_len: u16,
    /// Bytes of body for which the next TAKE has room, or the last one had.
    pub(in crate::client) room: u16,
    /// TAKEs in a row that nothing answered.
    pub(in crate::client) tries: u8,
    /// TAKEs that were answered before the answer was there.
    pub(in crate::client) early: u8,
    /// It will be left once it is acked.
    pub(super) is_left: bool,
    pub(in crate::client) state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::client) enum State {
    Free,
    /// The message is not acked.
    Unacked,
    /// To be taken since `at_us`.
    Due,
    /// A TAKE was sent, and is waited for until `at_us`.
    Open,
    /// The server had no answer yet: not before `at_us`.
    Paused,
    /// Not to be taken unless the caller names it: it stays at the server for another run.
    Left,
    /// To be taken when the caller or the server says so, after `at_us`.
    Asleep,
    /// Its end is to be handed out.
    Finished(Status),
    /// Its end was handed out, and the server keeps it all the same: a lower one of its session is not finished.
    Had,
}

impl AskSlot {
    /// Free: what an array or a `Vec` of slots is filled with.
    pub const EMPTY: Self = Self {
        message: None,
        epoch: None,
        seq: Seq::ZERO,
        at_us: 0,
        length: 0,
        body_start: 0,
        body_len: 0,
        room: 0,
        tries: 0,
        early: 0,
        is_left: false,
        state: State::Free,
    };

    /// How long the server may hold its next TAKE, in milliseconds.
    pub(in crate::client) fn wait_ms(&self, config: &AskConfig) -> u32 {
        (u32::from(config.first_wait_ms) << self.early.min(16)).min(config.wait_ms.into())
    }

    /// Whether its answer is waited for.
    pub(super) fn is_acked(&self) -> bool {
        matches!(self.state, State::Due | State::Open | State::Paused | State::Asleep)
    }
}

impl Default for AskSlot {
    fn default() -> Self {
        Self::EMPTY
    }
}
