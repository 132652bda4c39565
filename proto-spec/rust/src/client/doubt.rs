//! Whether the epoch that the client was given is really unused (PROTOCOL.md#epoch-used).
//!
//! What a server says after it has taken the client's first message is the same, whether the numbers below were used by
//! this run or by another. So the first message goes alone, and its answer is judged.

use super::{AskSlot, Client, FailReason, Slot};
use crate::Seq;
use crate::codec::Ack;

/// After so many retransmissions of the first message an ACK for what was never sent betrays another user of the epoch, where
/// nothing vouches for who made it: some seconds of lies must not end a run.
const RETRANSMISSIONS: u8 = 2;
/// How long the true answer to the last of them may take to come after a strange one, in microseconds.
const TRUTH_WAIT_US: u64 = 1_000_000;

/// What is known of the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doubt {
    /// Nothing was acked yet. `strange`: the last ACK for what was never sent came after so many retransmissions; `asked`: by
    /// PING, whose answers have DUPLICATE too.
    Open { strange: Option<u8>, asked: bool },
    /// It is the client's own, or was not doubted.
    Settled,
    /// Another run has used it.
    Used,
}

impl Doubt {
    pub(super) fn new(doubted: bool) -> Self {
        if doubted { Self::Open { strange: None, asked: false } } else { Self::Settled }
    }

    /// Whether nothing may be sent beside what is in flight.
    pub(super) fn holds_back(self, in_flight: u32) -> bool {
        match self {
            Self::Open { .. } => in_flight > 0,
            Self::Settled => false,
            Self::Used => true,
        }
    }
}

impl<M, B, A, Y> Client<M, B, A, Y>
where
    M: AsRef<[Slot]> + AsMut<[Slot]>,
    B: AsRef<[u8]> + AsMut<[u8]>,
    A: AsRef<[AskSlot]> + AsMut<[AskSlot]>,
    Y: AsRef<[u8]> + AsMut<[u8]>,
{
    /// Looks at an ACK before it is believed; `false` when it must not be, since the epoch was used before. Then all that is
    /// queued has failed.
    pub(super) fn may_believe(&mut self, ack: &Ack<'_>) -> bool {
        if self.doubt == Doubt::Used {
            return false;
        }
        let Doubt::Open { strange, asked } = self.doubt else { return true };
        let asked = asked || self.pinged;
        self.doubt = Doubt::Open { strange, asked };
        let first = self.queue.base_transmitted().map(|at| *self.queue.slot(at));
        let Some(first) = first.filter(|first| first.seq <= ack.floor) else { return true };
        // Without a retransmission and a PING nothing that this client did is a duplicate.
        if ack.duplicate && first.attempt == 0 && !asked {
            self.epoch_is_used();
            return false;
        }
        self.doubt = Doubt::Settled;
        true
    }

    /// Notes an ACK for seqs that were never sent.
    pub(super) fn note_never_sent(&mut self, now_us: u64) {
        let Doubt::Open { asked, .. } = self.doubt else { return };
        // Before anything was sent there is nothing that it could be the answer to.
        let Some(at) = self.queue.base_transmitted() else { return };
        let attempt = self.queue.slot(at).attempt;
        if self.wire.is_authentic() {
            self.epoch_is_used();
            self.arm(now_us, true);
            return;
        }
        self.doubt = Doubt::Open { strange: Some(attempt), asked };
        if attempt >= RETRANSMISSIONS {
            self.hasten(now_us, TRUTH_WAIT_US);
        }
    }

    /// The timer has expired. Whether it shows that the epoch was used before: in plain mode anyone can have made the strange
    /// ACKs, but who answers one transmission after the other so, and lets no true answer through, is the server, or could have
    /// acked what is not journaled just as well.
    pub(super) fn is_exposed(&mut self) -> bool {
        let Doubt::Open { strange: Some(at_attempt), .. } = self.doubt else { return false };
        let attempt = self.queue.base_transmitted().map(|at| self.queue.slot(at).attempt);
        let exposed = at_attempt >= RETRANSMISSIONS && attempt == Some(at_attempt);
        if exposed {
            self.epoch_is_used();
        }
        exposed
    }

    /// Leaves an epoch that is still doubted when a seq was used up in vain, given up or refused for good: what another run has
    /// acked up to there can no longer be told from an answer to this one. The next is doubted as well. Returns whether it did.
    pub(super) fn flee_doubted(&mut self, now_us: u64) -> bool {
        let Doubt::Open { .. } = self.doubt else { return false };
        if self.queue.undecided() == 0 || self.queue.skipped() == Seq::ZERO {
            return false;
        }
        self.leave_epoch(now_us);
        // Unless there is no next one, and the server is asked.
        if self.hello.is_none() {
            self.doubt = Doubt::new(true);
        }
        true
    }

    fn epoch_is_used(&mut self) {
        self.doubt = Doubt::Used;
        // Nothing is waited for any more.
        (self.silent, self.probe) = (false, false);
        self.fail_all(FailReason::EpochUsed);
    }
}
