//! DATA: what is new is journaled, what is known is acked again, and what does not fit is refused (PROTOCOL.md#server-rules).

use duragram_proto::Seq;
use duragram_proto::codec::RejectCode;

use crate::dialect::Work;
use crate::dialect::duragram::replier::ReplyTo;
use crate::dialect::duragram::session::{FloorMove, Judgement, Unopened};
use crate::dialect::duragram::{DataRequest, Duragram, Request};
use crate::journal::BlockBuilder;
use crate::limits;
use crate::model::{AskId, DialectId, EntryMeta, Now, SessionId};
use crate::net::{Slab, Transmit};

impl Duragram {
    pub(super) fn data<T: Transmit>(
        &mut self,
        request: &Request,
        data: &DataRequest,
        slab: &Slab,
        work: &mut Work<'_, T>,
    ) {
        // Made where it is needed: as a rule it is not, and moving it costs more than all else here.
        let to = || ReplyTo::to(request, slab.arrived.mono_us);
        let base = Seq(data.seq.0 - u64::from(data.span));
        let sealed = request.seal.is_some();
        let known = self.sessions.find(data.session);
        if let Some(code) = self.refuses_mode(data.session, known, sealed) {
            return self.refuse_mode(&to(), data, code, known.is_none(), slab.arrived, work);
        }
        if work.storage_short && !known.is_some_and(|index| self.sessions.at(index).holds(data.seq)) {
            self.counts.refuse(RejectCode::Storage);
            self.refuse(&to(), data, RejectCode::Storage, limits::STORAGE_RETRY_MS, work);
            return;
        }
        // An ask that would be forgotten is not accepted (PROTOCOL.md#ask).
        let no_room = data.asks && !self.may_ask(data.session, sealed);
        let index = match known {
            Some(index) => index,
            // Refused without opening a session: nothing of it would be on disk.
            None if data.span >= self.config.window => {
                self.counts.refuse(RejectCode::BeyondWindow);
                self.refuse(&to(), data, RejectCode::BeyondWindow, 0, work);
                return;
            }
            None if self.begins_beyond_reason(data, base, sealed, slab.arrived) => {
                self.counts.refuse(RejectCode::StaleEpoch);
                self.refuse(&to(), data, RejectCode::StaleEpoch, 0, work);
                return;
            }
            None if !sealed && !self.may_open_from(&to()) => {
                self.counts.limited += 1;
                return;
            }
            None if no_room => return self.refuse_ask(&to(), data, work),
            // PROTOCOL.md#rule-1.
            None => match self.open(data, base, sealed, slab.arrived, work.block) {
                Some(index) => index,
                None => {
                    self.counts.refuse(RejectCode::Busy);
                    self.refuse(&to(), data, RejectCode::Busy, limits::BUSY_RETRY_MS, work);
                    return;
                }
            },
        };
        let (session, window) = (self.sessions.at(index), self.config.window);
        let judgement = session.judge(data.seq, base, data.skip, window);
        if matches!(judgement, Judgement::New(_)) && !no_room {
            session.take(data.seq);
        }
        match judgement {
            Judgement::New(moved) if no_room => {
                self.make_durable(index, data.session, &moved, slab.arrived, work.block);
                self.refuse_ask(&to(), data, work);
            }
            Judgement::New(moved) => {
                self.journal_losses(data.session, sealed, &moved, slab.arrived, work.block);
                let meta = EntryMeta {
                    dialect: DialectId::DURAGRAM,
                    session: data.session,
                    seq: data.seq,
                    span: data.span,
                    skip: data.skip,
                    batch: data.batch,
                    asks: data.asks,
                    sealed,
                    channel: data.channel,
                    received_unix_us: slab.arrived.unix_us,
                };
                if data.asks {
                    let offset = work.first.plus(work.block.len() as u64);
                    self.ask(AskId { session: data.session, seq: data.seq }, offset, sealed);
                }
                work.block.push(&meta, slab.bytes(data.payload.clone()));
                self.journaled += 1;
                self.changed(index, slab.arrived);
                self.await_ack(index, request, slab.arrived, true);
            }
            Judgement::Duplicate(moved) => {
                self.counts.duplicate += 1;
                self.make_durable(index, data.session, &moved, slab.arrived, work.block);
                self.refresh_activity(index, slab.arrived);
                self.await_ack(index, request, slab.arrived, false);
            }
            Judgement::BeyondWindow(moved) => {
                self.counts.refuse(RejectCode::BeyondWindow);
                self.make_durable(index, data.session, &moved, slab.arrived, work.block);
                self.refuse(&to(), data, RejectCode::BeyondWindow, 0, work);
            }
            Judgement::Stale => {
                self.counts.refuse(RejectCode::StaleEpoch);
                let floor = self.sessions.at(index).floor();
                if let Some(suppressed) = self.client_log.allows(slab.arrived) {
                    tracing::error!(
                        session = %data.session, peer = %request.peer.addr, %floor, %base, suppressed,
                        "a client counts seqs as acked that this journal never accepted; it must open a new epoch",
                    );
                }
                self.refuse(&to(), data, RejectCode::StaleEpoch, 0, work);
            }
        }
    }

    /// A floor move without an entry of its own must reach the disk before the session is acked again.
    fn make_durable(&mut self, index: u32, id: SessionId, moved: &FloorMove, now: Now, block: &mut BlockBuilder) {
        if moved.is_some() {
            let sealed = self.sessions.at(index).is_sealed();
            self.journal_losses(id, sealed, moved, now, block);
            self.record(index);
            self.changed(index, now);
        }
    }

    /// Counts what rule 4 passed over, and journals gap entries for what was lost (PROTOCOL.md#rule-4).
    fn journal_losses(&mut self, id: SessionId, sealed: bool, moved: &FloorMove, now: Now, block: &mut BlockBuilder) {
        if !moved.is_some() {
            return;
        }
        self.metrics.abandoned.inc_by(moved.abandoned);
        let mut lost = 0;
        for &(from, to) in &moved.lost {
            lost += (to.0 - from.0).saturating_add(1);
            block.push_gap(id, sealed, from, to, now.unix_us);
        }
        self.metrics.lost.inc_by(lost);
        if let (Some((from, _)), Some((_, to))) = (moved.lost.first(), moved.lost.last())
            && let Some(suppressed) = self.client_log.allows(now)
        {
            tracing::error!(
                session = %id, %from, %to, lost, suppressed,
                "acked data was lost: the client counts these seqs as acked and this journal does not hold them",
            );
        }
    }

    /// Adds the session's record to the commit being built.
    pub(super) fn record(&mut self, index: u32) {
        let session = self.sessions.at(index);
        if !session.recorded {
            session.recorded = true;
            self.records.push(index);
        }
    }

    /// The commit being built holds something of this session: it is not acked before that is durable.
    pub(super) fn changed(&mut self, index: u32, now: Now) {
        self.sessions.at(index).changed_for = self.number;
        self.sessions.touch(index, self.service_s(now));
    }

    /// The session's client lives, though it brought nothing new. Where that matters it is on disk before the answer leaves:
    /// a crash must not make the session expire of whose life the client has just heard. Returns whether that matters now.
    pub(super) fn refresh_activity(&mut self, index: u32, now: Now) -> bool {
        let mut step_s = self.config.session_ttl_s / 16;
        if self.config.sealed && !self.sessions.at(index).is_sealed() {
            // Else it might have to give way to a sealed one though it was heard.
            step_s = step_s.min(limits::PLAIN_IDLE_S / 16);
        }
        let matters = self.sessions.keep_alive(index, self.service_s(now), step_s);
        if matters {
            self.record(index);
            self.sessions.at(index).changed_for = self.number;
        }
        matters
    }

    /// Why a DATA is refused for the mode in which it came (PROTOCOL.md#sealed-mix), or for an epoch that was used before
    /// (PROTOCOL.md#sealed-epoch).
    fn refuses_mode(&mut self, id: SessionId, known: Option<u32>, sealed: bool) -> Option<RejectCode> {
        match (sealed, known) {
            // Nothing is remembered at a server without keys, which so is not slowed down.
            (false, _) if self.epochs.is_empty() => None,
            (false, _) => self.epochs.has_opened(id.client).then_some(RejectCode::SealedOnly),
            (true, Some(index)) => (!self.sessions.at(index).is_sealed()).then_some(RejectCode::StaleEpoch),
            (true, None) => (self.epochs.may_open(id) == Err(Unopened::Used)).then_some(RejectCode::StaleEpoch),
        }
    }

    /// Whether a sealed session would begin where no client can have come, and all below count as lost (PROTOCOL.md#sealed-epoch).
    fn begins_beyond_reason(&mut self, data: &DataRequest, base: Seq, sealed: bool, now: Now) -> bool {
        let beyond = sealed && !data.skip && base.0 - 1 > limits::SEALED_GAP_MAX;
        if beyond && let Some(suppressed) = self.client_log.allows(now) {
            tracing::error!(
                session = %data.session, %base, suppressed,
                "a client begins its epoch at a seq that it cannot have reached; it must open a new epoch, and count from 1",
            );
        }
        beyond
    }

    /// There is no room for one more ask. Taking an answer makes some.
    fn refuse_ask<T: Transmit>(&mut self, to: &ReplyTo, data: &DataRequest, work: &mut Work<'_, T>) {
        self.counts.refuse(RejectCode::Busy);
        self.metrics.asks_refused.inc();
        self.refuse(to, data, RejectCode::Busy, limits::ASK_RETRY_MS, work);
    }

    fn refuse_mode<T: Transmit>(
        &mut self,
        to: &ReplyTo,
        data: &DataRequest,
        code: RejectCode,
        unknown: bool,
        now: Now,
        work: &mut Work<'_, T>,
    ) {
        if code == RejectCode::StaleEpoch && unknown {
            self.counts.replayed_session += 1;
            if let Some(suppressed) = self.client_log.allows(now) {
                tracing::warn!(
                    session = %data.session, peer = %to.peer.addr, suppressed,
                    "sealed data of a session that has ended: recorded and played back, or its client was idle for too long",
                );
            }
        } else {
            self.counts.refuse(code);
        }
        self.refuse(to, data, code, 0, work);
    }

    /// Opens the session of its first DATA; `None` when there is no room.
    fn open(&mut self, data: &DataRequest, base: Seq, sealed: bool, now: Now, block: &mut BlockBuilder) -> Option<u32> {
        let (id, floor) = (data.session, Seq(base.0 - 1));
        if !sealed {
            return self.sessions.open(id, floor, None).ok();
        }
        self.epochs.may_open(id).ok()?;
        let idle_before_s = self.service_s(now).saturating_sub(limits::PLAIN_IDLE_S);
        let (index, evicted) = self.sessions.open_sealed(id, floor, idle_before_s).ok()?;
        if let Some(evicted) = evicted {
            self.evicted.push(evicted);
            self.end_asks_of(evicted);
        }
        self.epochs.open(id);
        self.clients.push(id.client);
        if floor > Seq::ZERO && !data.skip {
            // Nothing but a restored backup forgets an epoch in which something was acked.
            let moved = FloorMove { abandoned: 0, lost: vec![(Seq(1), floor)] };
            self.journal_losses(id, true, &moved, now, block);
        }
        Some(index)
    }
}
