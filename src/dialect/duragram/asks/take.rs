//! TAKE: a client takes an answer, says which ones it has had, and may wait for it (PROTOCOL.md#take).

use duragram_proto::Seq;
use duragram_proto::codec::{Reject, RejectCode};

use super::answer::{self, Due, Says};
use crate::dialect::Work;
use crate::dialect::duragram::replier::ReplyTo;
use crate::dialect::duragram::{Duragram, Request, TakeRequest};
use crate::limits;
use crate::model::{AskId, Now};
use crate::net::Transmit;

impl Duragram {
    pub(in crate::dialect::duragram) fn take<T: Transmit>(
        &mut self,
        take: &TakeRequest,
        request: &Request,
        mut to: ReplyTo,
        now: Now,
        work: &mut Work<'_, T>,
    ) {
        let TakeRequest { session: id, seq, span, wait_ms } = *take;
        let ask = AskId { session: id, seq };
        let sealed = request.seal.is_some();
        if !sealed && self.epochs.has_opened(id.client) {
            self.counts.refuse(RejectCode::SealedOnly);
            let (client, epoch, code) = (id.client, id.epoch.value(), RejectCode::SealedOnly);
            return self.reject(&to, Reject { client, epoch, code, refused: 0, retry_after_ms: 0 }, work);
        }
        self.counts.take += 1;
        let known = self.sessions.find(id).filter(|&index| self.sessions.at(index).is_sealed() == sealed);
        let Some(index) = known else {
            if self.replier.may_refuse(&to, id.client) {
                answer::gone(ask, &to, &mut self.replier, work.replies);
            }
            return;
        };
        // As with PING, a crash must not make a session expire of whose life its client has just heard.
        let alive_with = if self.refresh_activity(index, now) { self.number } else { 0 };
        let session = self.sessions.at(index);
        let newest = request.seal.as_ref().and_then(|seal| session.heard_from(seal.counter, request.peer));
        // Of a sealed session's TAKEs the one with the highest counter alone may be held, and end another one's hold.
        let is_newest = newest.is_none();
        to.peer = newest.unwrap_or(to.peer);
        if sealed
            && is_newest
            && let Some(pending) = self.pending.get_mut(session.pending as usize)
        {
            pending.to.peer = to.peer;
        }

        let had = self.asks.forget_below(id, Seq(seq.0 - u64::from(span)));
        if !had.is_empty() {
            self.metrics.asks_taken.inc_by(had.iter().filter(|gone| gone.answered).count() as u64);
            self.ended(had);
        }
        let mut due = |to, says, rests_on| self.due.push(Due { to, id: ask, says, rests_on });
        let Some(open) = self.asks.find(ask) else { return due(to, Says::Gone, alive_with) };
        let rests_on = open.rests_on().max(alive_with);
        if let Some(answer) = open.answer() {
            return due(to, Says::of(answer), rests_on);
        }
        if is_newest && let Some(held) = open.held.take() {
            // In silence.
            drop(self.held.release(*held));
        }
        let may_hold = is_newest && wait_ms > 0 && self.asks.held_of(id) < limits::HELD_TAKES_PER_SESSION;
        if may_hold
            && self.held.has_room(&to)
            && let Some(open) = self.asks.find(ask)
        {
            open.held = Some(Box::new(self.held.hold(ask, to, wait_ms, alive_with)));
        } else {
            due(to, Says::Pending { retry_after_ms: limits::PENDING_RETRY_MS }, rests_on);
        }
    }

    /// TAKEs that were held for as long as they may be are due.
    pub(in crate::dialect::duragram) fn end_holds(&mut self, now: Now) {
        while let Some(id) = self.held.pop_overdue(now.mono_us) {
            let Some(ask) = self.asks.find(id) else { continue };
            let rests_on = ask.rests_on();
            let Some(held) = ask.held.take() else { continue };
            let held = self.held.release(*held);
            let rests_on = rests_on.max(held.rests_on);
            self.due.push(Due { to: held.to, id, says: Says::Pending { retry_after_ms: 0 }, rests_on });
        }
    }
}
