//! What sealed mode changes: who opens a session, what is remembered of its client, how HELLO is answered.

use duragram_proto::codec::RejectCode;
use duragram_proto::{ClientId, Seq};

use super::{Committer, Downstream, PendingWelcome};
use crate::commit::Counts;
use crate::commit::out::ReplyTo;
use crate::dialect::duragram::DataRequest;
use crate::dialect::duragram::session::{FloorMove, HelloAnswer, Unopened};
use crate::journal::Journal;
use crate::limits;
use crate::model::{Now, SessionId};
use crate::net::Transmit;

impl<J: Journal, T: Transmit, D: Downstream> Committer<J, T, D> {
    /// Why a DATA is refused for the mode in which it came (PROTOCOL.md#sealed-mix), or for an epoch that was used before
    /// (PROTOCOL.md#sealed-epoch).
    pub(super) fn refuses_mode(&mut self, id: SessionId, known: Option<u32>, sealed: bool) -> Option<RejectCode> {
        match (sealed, known) {
            // Nothing is remembered at a server without keys, which so is not slowed down.
            (false, _) if self.epochs.is_empty() => None,
            (false, _) => self.epochs.has_opened(id.client).then_some(RejectCode::SealedOnly),
            (true, Some(index)) => (!self.sessions.at(index).is_sealed()).then_some(RejectCode::StaleEpoch),
            (true, None) => (self.epochs.may_open(id) == Err(Unopened::Used)).then_some(RejectCode::StaleEpoch),
        }
    }

    /// Whether a sealed session would begin where no client can have come, and all below count as lost (PROTOCOL.md#sealed-epoch).
    pub(super) fn begins_beyond_reason(&mut self, data: &DataRequest, base: Seq, sealed: bool, now: Now) -> bool {
        let beyond = sealed && !data.skip && base.0 - 1 > limits::SEALED_GAP_MAX;
        if beyond && let Some(suppressed) = self.client_log.allows(now) {
            tracing::error!(
                session = %data.session, %base, suppressed,
                "a client begins its epoch at a seq that it cannot have reached; it must open a new epoch, and count from 1",
            );
        }
        beyond
    }

    pub(super) fn refuse_mode(
        &mut self,
        to: &ReplyTo,
        data: &DataRequest,
        code: RejectCode,
        unknown: bool,
        now: Now,
        counts: &mut Counts,
    ) {
        if code == RejectCode::StaleEpoch && unknown {
            counts.replayed_session += 1;
            if let Some(suppressed) = self.client_log.allows(now) {
                tracing::warn!(
                    session = %data.session, peer = %to.peer.addr, suppressed,
                    "sealed data of a session that has ended: recorded and played back, or its client was idle for too long",
                );
            }
        } else {
            counts.refuse(code);
        }
        self.refuse(to, data, code, 0);
    }

    /// Opens the session of its first DATA; `None` when there is no room.
    pub(super) fn open(&mut self, data: &DataRequest, base: Seq, sealed: bool, now: Now) -> Option<u32> {
        let (id, floor) = (data.session, Seq(base.0 - 1));
        if !sealed {
            return self.sessions.open(id, floor, None).ok();
        }
        self.epochs.may_open(id).ok()?;
        let idle_before_s = self.service_s(now).saturating_sub(limits::PLAIN_IDLE_S);
        let (index, given_up) = self.sessions.open_sealed(id, floor, idle_before_s).ok()?;
        self.given_up.extend(given_up);
        self.epochs.open(id);
        self.clients.push(id.client);
        if floor > Seq::ZERO && !data.skip {
            // Nothing but a restored backup forgets an epoch in which something was acked.
            let moved = FloorMove { abandoned: 0, lost: vec![(Seq(1), floor)] };
            self.journal_losses(id, true, &moved, now);
        }
        Some(index)
    }

    /// PROTOCOL.md#sealed-hello.
    pub(super) fn sealed_hello(&mut self, client: ClientId, nonce: u64, to: ReplyTo, now: Now, counts: &mut Counts) {
        let refused = match self.epochs.hello(client, nonce, now, !self.storage_short) {
            HelloAnswer::New(epoch) => {
                self.clients.push(client);
                Ok(epoch)
            }
            HelloAnswer::Again(epoch) => Ok(epoch),
            HelloAnswer::Replayed => {
                counts.replayed_hello += 1;
                return;
            }
            HelloAnswer::NotNow => Err((RejectCode::Storage, limits::STORAGE_RETRY_MS)),
            HelloAnswer::TooOften => Err((RejectCode::Busy, limits::HELLO_RETRY_MS)),
            HelloAnswer::NoRoom => Err((RejectCode::Busy, limits::BUSY_RETRY_MS)),
            // Waiting is not the remedy.
            HelloAnswer::UsedUp => {
                if let Some(suppressed) = self.client_log.allows(now) {
                    tracing::error!(
                        %client, peer = %to.peer.addr, suppressed,
                        "a client has used up its epochs, by opening or being given the last there is; give it another client id",
                    );
                }
                Err((RejectCode::Unsupported, 0))
            }
        };
        match refused {
            Ok(epoch) => {
                counts.hello += 1;
                self.welcomes.push(PendingWelcome { id: SessionId { client, epoch }, nonce, to });
            }
            Err((code, retry_after_ms)) => {
                counts.refuse(code);
                self.reject(&to, client, 0, nonce, code, retry_after_ms);
            }
        }
    }
}
