//! Which sessions are to be answered, and with what: noted while a commit is being built, fixed when it is closed, sent when
//! it has landed.

use duragram_proto::codec::{Reject, RejectCode};

use crate::dialect::Work;
use crate::dialect::duragram::acks::{self, AckState, Bitmaps};
use crate::dialect::duragram::asks::Due;
use crate::dialect::duragram::replier::ReplyTo;
use crate::dialect::duragram::{Duragram, Request};
use crate::journal::{Durable, Records};
use crate::limits;
use crate::model::{AnswersRecord, AskId, Now, SessionId};
use crate::net::{ReplyQueue, Transmit};

/// A session that waits for its ack, in the commit being built.
#[derive(Debug)]
pub(super) struct PendingAck {
    session: u32,
    pub(super) to: ReplyTo,
    /// When the first of the datagrams arrived, in monotonic microseconds.
    first_us: u64,
    /// The block holds a datagram of this session.
    journaled: bool,
}

/// A HELLO that waits for its WELCOME.
#[derive(Debug)]
pub(super) struct PendingWelcome {
    pub(super) id: SessionId,
    pub(super) nonce: u64,
    pub(super) to: ReplyTo,
}

/// What is owed for a commit.
#[derive(Debug, Default)]
pub struct Owed {
    /// The number of the commit.
    number: u64,
    acks: Vec<OwedAck>,
    bitmaps: Bitmaps,
    welcomes: Vec<PendingWelcome>,
    /// The limit of the counter that is part of the commit.
    counter_limit: Option<u64>,
    /// The block holds so many datagrams.
    journaled: u64,
    answers: Vec<Due>,
    /// Asks whose entries are in the block.
    opened: Vec<AskId>,
    /// When the asks that are answered with the commit were acked, in monotonic microseconds.
    waited_since: Vec<u64>,
}

#[derive(Debug)]
struct OwedAck {
    state: AckState,
    /// When the first of its datagrams arrived, in monotonic microseconds.
    first_us: u64,
    journaled: bool,
}

const _: () = assert!(
    size_of::<OwedAck>() <= limits::OWED_ACK_BYTES
        && size_of::<PendingAck>() <= limits::PENDING_ACK_BYTES
        && size_of::<PendingWelcome>() <= limits::PENDING_ACK_BYTES
        && size_of::<SessionId>() <= limits::RENEWED_SESSION_BYTES
);

impl Duragram {
    pub(super) fn ping<T: Transmit>(
        &mut self,
        id: SessionId,
        request: &Request,
        to: ReplyTo,
        now: Now,
        work: &mut Work<'_, T>,
    ) {
        let sealed = request.seal.is_some();
        if !sealed && self.epochs.has_opened(id.client) {
            self.counts.refuse(RejectCode::SealedOnly);
            let (client, epoch, code) = (id.client, id.epoch.value(), RejectCode::SealedOnly);
            return self.reject(&to, Reject { client, epoch, code, refused: 0, retry_after_ms: 0 }, work);
        }
        self.counts.ping += 1;
        match self.sessions.find(id) {
            Some(index) if self.sessions.at(index).is_sealed() == sealed => {
                self.refresh_activity(index, now);
                self.await_ack(index, request, now, false);
            }
            _ => {
                if self.replier.may_refuse(&to, id.client) {
                    let credit = self.credit(work.pressure);
                    acks::ack_of_nothing(work.level, id, &to, credit, &mut self.replier, work.replies);
                }
            }
        }
    }

    /// Notes that a session is to be acked, to the address of its newest datagram (PROTOCOL.md#rule-6); of a sealed session
    /// that is the one with the highest counter (PROTOCOL.md#sealed-address).
    pub(super) fn await_ack(&mut self, index: u32, request: &Request, arrived: Now, journaled: bool) {
        let session = self.sessions.at(index);
        let newest = request.seal.as_ref().and_then(|seal| session.heard_from(seal.counter, request.peer));
        match self.pending.get_mut(session.pending as usize) {
            Some(pending) => {
                if newest.is_none() {
                    pending.to = ReplyTo::to(request, arrived.mono_us);
                }
                pending.journaled |= journaled;
            }
            None => {
                let mut to = ReplyTo::to(request, arrived.mono_us);
                to.peer = newest.unwrap_or(to.peer);
                session.pending = u32::try_from(self.pending.len()).expect("pending acks are bounded by a batch");
                self.pending.push(PendingAck { session: index, to, first_us: arrived.mono_us, journaled });
            }
        }
    }

    /// Acks the sessions that have not changed since the last commit that has landed, on the strength of its receipt; notes
    /// what the others are owed. Returns what must be durable beside the block.
    pub(super) fn owe<T: Transmit>(
        &mut self,
        receipt: &Durable,
        owed: &mut Owed,
        replies: &mut ReplyQueue<T>,
        pressure: u16,
        now: Now,
    ) -> Records {
        self.replier.set_time(now);
        let credit = self.credit(pressure);
        let (mut bitmaps, mut changed) = (Bitmaps::new(), false);
        let mut pending = std::mem::take(&mut self.pending);
        for PendingAck { session, to, first_us, journaled } in pending.drain(..) {
            let session = self.sessions.at(session);
            session.pending = u32::MAX;
            if session.changed_for > self.landed {
                changed |= session.changed_for == self.number;
                let state = AckState::of(session, to, !journaled, &mut owed.bitmaps);
                owed.acks.push(OwedAck { state, first_us, journaled });
            } else {
                bitmaps.clear();
                let state = AckState::of(session, to, !journaled, &mut bitmaps);
                acks::ack(receipt, &state, &bitmaps, credit, now.mono_us, &mut self.replier, replies);
            }
        }
        self.pending = pending;
        self.end_holds(now);
        for due in self.due.drain(..) {
            if due.rests_on_what_landed(self.landed) {
                due.send(receipt, &mut self.replier, replies);
            } else {
                owed.answers.push(due);
            }
        }
        owed.opened.append(&mut self.opened);
        owed.waited_since.append(&mut self.waited_since);
        self.replier.report(&self.metrics);

        let mut records = Records {
            sessions: Vec::with_capacity(self.records.len()),
            clients: self.clients.drain(..).map(|client| self.epochs.record(client)).collect(),
            given_up: std::mem::take(&mut self.renewed),
            counter_limit: self.replier.limit_due().filter(|_| self.config.sealed),
            ..Records::default()
        };
        for index in self.records.drain(..) {
            let session = self.sessions.at(index);
            session.recorded = false;
            records.sessions.push(session.record());
        }
        // Asks that were forgotten are no reason to write but where an operator waits for it, and go along with what is written.
        if self.answers_bytes > 0 || self.journaled > 0 || (!records.is_empty() && !self.answers.is_empty()) {
            let answers = std::mem::take(&mut self.answers);
            if !answers.is_empty() {
                records.answers = Some(AnswersRecord { number: self.answers_number, answers });
                self.answers_number += 1;
            }
            self.answers_bytes = 0;
        }
        owed.welcomes.append(&mut self.welcomes);
        owed.counter_limit = records.counter_limit;
        owed.journaled = std::mem::take(&mut self.journaled);
        debug_assert!(
            !changed || owed.journaled > 0 || !records.is_empty(),
            "a session changed and nothing is written"
        );
        owed.number = self.number;
        self.number += 1;
        records
    }

    /// The commit is durable, and the limit that was part of it.
    pub(super) fn note_landing(&mut self, owed: &Owed) {
        self.landed = owed.number;
        if let Some(limit) = owed.counter_limit {
            self.replier.limit_stored(limit);
        }
    }

    /// Sends what is owed for a commit, on the strength of its receipt.
    pub(super) fn pay<T: Transmit>(
        &mut self,
        receipt: &Durable,
        owed: &mut Owed,
        replies: &mut ReplyQueue<T>,
        pressure: u16,
        now: Now,
    ) {
        self.metrics.count("journaled", std::mem::take(&mut owed.journaled));
        self.replier.set_time(now);
        let credit = self.credit(pressure);
        for OwedAck { state, first_us, journaled } in owed.acks.drain(..) {
            acks::ack(receipt, &state, &owed.bitmaps, credit, now.mono_us, &mut self.replier, replies);
            if journaled {
                #[allow(clippy::cast_precision_loss)] // a metric
                self.metrics.ack_delay_seconds.observe(now.mono_us.saturating_sub(first_us) as f64 / 1e6);
            }
        }
        owed.bitmaps.clear();
        for PendingWelcome { id, nonce, to } in owed.welcomes.drain(..) {
            acks::welcome(receipt, id, nonce, &to, credit, &mut self.replier, replies);
        }
        owed.counter_limit = None;
        for due in owed.answers.drain(..) {
            due.send(receipt, &mut self.replier, replies);
        }
        for id in owed.opened.drain(..) {
            if let Some(ask) = self.asks.find(id) {
                ask.acked_at(now);
            }
        }
        for since_us in owed.waited_since.drain(..) {
            #[allow(clippy::cast_precision_loss)] // a metric
            self.metrics.answer_delay_seconds.observe(now.mono_us.saturating_sub(since_us) as f64 / 1e6);
        }
        self.report_asks();
        self.replier.report(&self.metrics);
    }
}
