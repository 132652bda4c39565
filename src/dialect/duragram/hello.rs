//! HELLO: a client asks for an epoch. A plain one opens a session in it; a sealed one gets an epoch, and opens nothing.

use duragram_proto::codec::{Reject, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};

use crate::dialect::Work;
use crate::dialect::duragram::Duragram;
use crate::dialect::duragram::answers::PendingWelcome;
use crate::dialect::duragram::replier::ReplyTo;
use crate::dialect::duragram::session::HelloAnswer;
use crate::limits;
use crate::model::{Now, SessionId};
use crate::net::Transmit;

impl Duragram {
    pub(super) fn hello<T: Transmit>(
        &mut self,
        client: ClientId,
        nonce: u64,
        to: ReplyTo,
        now: Now,
        work: &mut Work<'_, T>,
    ) {
        if self.epochs.has_opened(client) {
            self.counts.refuse(RejectCode::SealedOnly);
            return self.reject(&to, refusal(client, nonce, RejectCode::SealedOnly, 0), work);
        }
        if !self.may_open_from(&to) {
            self.counts.limited += 1;
            return;
        }
        self.counts.hello += 1;
        let newest = self.sessions.newest_of(client);
        let repeated = newest.filter(|&index| self.sessions.at(index).is_fresh_from(nonce));
        let unused = self.sessions.unused_of(client);
        let index = match repeated {
            // Else it might expire with the very commit that is its answer's turn.
            Some(index) => {
                self.refresh_activity(index, now);
                index
            }
            None if work.storage_short => {
                self.counts.refuse(RejectCode::Storage);
                return self.reject(&to, refusal(client, nonce, RejectCode::Storage, limits::STORAGE_RETRY_MS), work);
            }
            None => {
                let room = unused.is_some() || !self.sessions.is_full();
                let epoch = room.then(|| self.sessions.unused_epoch(client, now.unix_us / 1_000_000)).flatten();
                let opened = epoch.and_then(|epoch| match unused {
                    Some(index) => Some(self.renew(index, epoch, nonce)),
                    None => self.sessions.open(SessionId { client, epoch }, Seq::ZERO, Some(nonce)).ok(),
                });
                let Some(index) = opened else {
                    self.counts.refuse(RejectCode::Busy);
                    return self.reject(&to, refusal(client, nonce, RejectCode::Busy, limits::BUSY_RETRY_MS), work);
                };
                self.record(index);
                self.changed(index, now);
                index
            }
        };
        let id = self.sessions.at(index).id();
        self.welcomes.push(PendingWelcome { id, nonce, to });
    }

    /// Gives the place of a client's session in which nothing has come to the one that it asks for now.
    fn renew(&mut self, index: u32, epoch: Epoch, nonce: u64) -> u32 {
        // Then the block that is being built holds the record under the new epoch alone.
        let unwritten = self.sessions.at(index).recorded;
        let old = self.sessions.renew(index, epoch, nonce);
        if unwritten {
            self.welcomes.retain(|welcome| welcome.id != old);
        }
        self.renewed.push(old);
        index
    }

    /// Answers a HELLO that came sealed (PROTOCOL.md#sealed-hello).
    pub(super) fn sealed_hello<T: Transmit>(
        &mut self,
        client: ClientId,
        nonce: u64,
        to: ReplyTo,
        now: Now,
        work: &mut Work<'_, T>,
    ) {
        let refused = match self.epochs.hello(client, nonce, now, !work.storage_short) {
            HelloAnswer::New(epoch) => {
                self.clients.push(client);
                Ok(epoch)
            }
            HelloAnswer::Again(epoch) => Ok(epoch),
            HelloAnswer::Replayed => {
                self.counts.replayed_hello += 1;
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
                self.counts.hello += 1;
                self.welcomes.push(PendingWelcome { id: SessionId { client, epoch }, nonce, to });
            }
            Err((code, retry_after_ms)) => {
                self.counts.refuse(code);
                self.reject(&to, refusal(client, nonce, code, retry_after_ms), work);
            }
        }
    }
}

/// A REJECT of a HELLO.
fn refusal(client: ClientId, nonce: u64, code: RejectCode, retry_after_ms: u32) -> Reject {
    Reject { client, epoch: 0, code, refused: nonce, retry_after_ms }
}
