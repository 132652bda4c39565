//! Asks and their answers: what every part between a datagram that asks and the datagram that answers speaks of.

use std::sync::Arc;

use duragram_proto::Seq;

use super::{Offset, SessionId};

/// What names an ask: a message whose sender wants an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AskId {
    /// The client asked in this session.
    pub session: SessionId,
    /// The number of the message within the session. Never 0.
    pub seq: Seq,
}

/// An ask as the journal keeps it. Once its answer is had, or cannot come any more, there is no record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskRecord {
    /// What names it among all asks of all times.
    pub id: AskId,
    /// The offset of its entry: a seq may be sent again after its session was forgotten, and then asks anew.
    pub offset: Offset,
    /// `None` until it is answered.
    pub answer: Option<AnswerRecord>,
}

/// What became of a message that asked, as the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnswerRecord {
    /// Its handler gave up: FAILED, else DONE.
    pub failed: bool,
    /// What the handler gave as an answer, often nothing.
    pub body: Arc<[u8]>,
    /// When it was answered, in seconds of service.
    pub answered_s: u64,
}

/// The answers that became durable with one commit, beside the records of their asks: one record for all, since a record for
/// each would cost more than all else that an answer costs. A checkpoint includes them in the asks' records and deletes this.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnswersRecord {
    /// Counts up from one such record to the next, over restarts too.
    pub number: u64,
    /// What became of each, in this order: it was answered; or, without an answer, it is forgotten.
    pub answers: Vec<AskRecord>,
}

/// What a lane has to say of one record that asked: it is finished, and its effect is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneAnswer {
    /// The ask that it finishes.
    pub id: AskId,
    /// The offset of its entry.
    pub offset: Offset,
    /// It was given up, and its dead letter is durable.
    pub failed: bool,
    /// What the handler gave as an answer, at most as long as the configuration allows.
    pub body: Arc<[u8]>,
}

/// What processing says of all open asks below an offset, beside the answers that it has given before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Processed {
    /// Every sink that holds the journal has processed what lies below, durably: open asks below are DONE.
    ByAll(Offset),
    /// The sink that answers is beyond, and has said all that it will ever say of what lies below: open asks below are gone.
    Passed(Offset),
}
