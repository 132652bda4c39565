//! Whether the epoch that the client was given is really unused (PROTOCOL.md#epoch-used).
//!
//! What a server says after it has taken the client's first message is the same, whether the numbers below were used by
//! this run or by another. So the first message goes alone, and its answer is judged.

use super::{Client, FailReason, Outcome, Slot};
use crate::Seq;
use crate::codec::Ack;

/// ACKs for seqs that were never sent which betray another user of the epoch, where nothing vouches for who made them: one
/// forged datagram must not end a run.
const STRANGE_MAX: u8 = 2;

/// What is known of the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doubt {
    /// Nothing was acked yet. `strange`: so many ACKs came for what was never sent; `asked`: by PING, whose answers have
    /// DUPLICATE too.
    Open { strange: u8, asked: bool },
    /// It is the client's own, or was not doubted.
    Settled,
    /// Another run has used it.
    Used,
}

impl Doubt {
    pub(super) fn new(doubted: bool) -> Self {
        if doubted { Self::Open { strange: 0, asked: false } } else { Self::Settled }
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

impl<M, B> Client<M, B>
where
    M: AsRef<[Slot]> + AsMut<[Slot]>,
    B: AsRef<[u8]> + AsMut<[u8]>,
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

    /// Notes an ACK for seqs that were never sent. Returns whether it shows that the epoch was used before.
    pub(super) fn note_never_sent(&mut self) -> bool {
        let Doubt::Open { strange, asked } = self.doubt else { return false };
        let enough = self.wire.is_authentic() || strange.saturating_add(1) >= STRANGE_MAX;
        // Before anything was sent there is nothing that it could be the answer to.
        if enough && self.queue.highest_sent() > Seq::ZERO {
            self.epoch_is_used();
            return true;
        }
        self.doubt = Doubt::Open { strange: strange.saturating_add(1), asked };
        false
    }

    fn epoch_is_used(&mut self) {
        self.doubt = Doubt::Used;
        while self.queue.decide_oldest(Outcome::Failed(FailReason::EpochUsed)).is_some() {}
    }
}
