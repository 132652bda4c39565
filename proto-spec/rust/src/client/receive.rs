//! What the server sends: ACK, REJECT, WELCOME. What does not fit what was sent is ignored whole, before anything
//! changes: the path may reorder, repeat and forge (PROTOCOL.md#duty-ignore).

use super::acks;
use super::doubt::Doubt;
use super::queue::{Outcome, Queue};
use super::{AskSlot, Client, FailReason, Ignored, Slot};
use crate::backoff;
use crate::codec::{Ack, Datagram, Reject, RejectCode, Welcome};
use crate::{Epoch, Seq};

/// A datagram is lost when one that was sent this many transmissions later has arrived (PROTOCOL.md#duty-loss).
const REORDERING_MAX: u64 = 3;
/// By such a part the answer to a retransmission may come sooner than any answer did: what is sent again goes in smaller flights
/// than what the samples were taken of.
const SOONER_PART: u64 = 4;

impl<M, B, A, Y> Client<M, B, A, Y>
where
    M: AsRef<[Slot]> + AsMut<[Slot]>,
    B: AsRef<[u8]> + AsMut<[u8]>,
    A: AsRef<[AskSlot]> + AsMut<[AskSlot]>,
    Y: AsRef<[u8]> + AsMut<[u8]>,
{
    /// Handles a datagram from the server. What came sealed is decrypted where it stands.
    pub fn handle_datagram(&mut self, now_us: u64, datagram: &mut [u8]) -> Result<(), Ignored> {
        self.handle(now_us, datagram)?;
        self.silent = false;
        Ok(())
    }

    fn handle(&mut self, now_us: u64, datagram: &mut [u8]) -> Result<(), Ignored> {
        let hello = self.hello.map(|hello| hello.nonce);
        let waits_in = |epoch| self.asks.waits_in(epoch);
        match self.wire.decode(datagram, self.config.client, self.epoch, hello, waits_in)? {
            Datagram::Ack(ack) => self.handle_ack(now_us, &ack),
            Datagram::Reject(reject) => self.handle_reject(now_us, &reject),
            Datagram::Welcome(welcome) => self.handle_welcome(now_us, &welcome),
            Datagram::Answer(answer) => self.handle_answer(now_us, &answer),
            Datagram::Data(_) | Datagram::Hello(_) | Datagram::Ping(_) | Datagram::Take(_) => Err(Ignored::ForServers),
        }
    }

    fn handle_ack(&mut self, now_us: u64, ack: &Ack<'_>) -> Result<(), Ignored> {
        if ack.client != self.config.client {
            return Err(Ignored::OtherClient);
        }
        if Some(ack.epoch) != self.epoch {
            return Err(Ignored::OtherEpoch);
        }
        let highest_acked = acks::highest_acked(ack).filter(|seq| *seq <= self.queue.highest_sent());
        let Some(highest_acked) = highest_acked else {
            self.note_never_sent(now_us);
            return Err(Ignored::NeverSent);
        };
        if !self.may_believe(ack) {
            self.arm(now_us, true);
            return Ok(());
        }

        let mut newly = NewlyAcked::default();
        for seq in self.queue.base_seq().0..=ack.floor.0 {
            self.acked(now_us, Seq(seq), ack, &mut newly);
        }
        for w in 0..ack.bitmap.len() / 8 {
            let mut bits = self.acks.new_bits(ack, w);
            while bits != 0 {
                let bit = 64 * w as u64 + u64::from(bits.trailing_zeros());
                self.acked(now_us, Seq(ack.floor.0 + 1 + bit), ack, &mut newly);
                bits &= bits - 1;
            }
        }
        // Of an ack overtaken by a newer one the credit is out of date, unless nothing is in flight: then it answers a
        // PING, and the server has forgotten the session.
        if ack.floor >= self.acks.floor || self.queue.awaited() == 0 && self.pinged {
            let was_blocked = self.is_blocked_by_credit();
            self.acks.set_credit(ack.credit);
            if was_blocked && !self.is_blocked_by_credit() {
                self.tries = 0;
            }
        }
        self.acks.note(ack);
        if ack.ready {
            self.asks.wake(now_us, self.epoch);
        }
        self.pinged = false;
        if let Some(newest) = newly.newest {
            self.learn(now_us, ack, &newly, &newest, highest_acked);
        }
        self.arm(now_us, newly.newest.is_some());
        Ok(())
    }

    fn acked(&mut self, now_us: u64, seq: Seq, ack: &Ack<'_>, newly: &mut NewlyAcked) {
        let Some(at) = self.queue.transmitted(seq) else { return };
        if self.queue.slot(at).ask {
            self.asks.note_acked(now_us, self.queue.slot(at).message, ack.epoch, seq);
        }
        newly.add(self.queue.slot(at), self.congestion.grows_by(self.queue.slot(at).transmission));
        self.queue.decide(at, Outcome::Acked(ack.durability), Some(ack.epoch));
    }

    /// What newly acked datagrams tell of the path, and of those before them that are not acked.
    fn learn(&mut self, now_us: u64, ack: &Ack<'_>, newly: &NewlyAcked, newest: &Slot, highest_acked: Seq) {
        self.stats.acked += u64::from(newly.count);
        self.acks.fruitful = true;
        self.fruitless_epochs = 0;
        self.tries = 0;
        // Karn's rule: which transmission of several is answered cannot be known.
        if newest.attempt == 0 && !ack.duplicate {
            self.rtt.sample(now_us.saturating_sub(newest.sent_at_us), u64::from(ack.delay_us));
        }
        // That one of several has arrived is known only of what the server did not have before the last. Even so it is not
        // the last when the server has nothing above the floor and got there over first transmissions, for then it may be
        // reading them only now; nor when the answer came sooner than any did, but a probe waited for all of them before.
        let again = newly.newest_missed;
        let answers_probe = again.is_some_and(|slot| self.expired == Some(slot.transmission));
        let catches_up = ack.complete && highest_acked == ack.floor && newly.newest_once > 0;
        let soonest_us = self.rtt.min_us() - self.rtt.min_us() / SOONER_PART;
        let in_time = |slot: &Slot| answers_probe || now_us.saturating_sub(slot.sent_at_us) >= soonest_us;
        let again = again.filter(|slot| !catches_up && in_time(slot)).map_or(0, |slot| slot.transmission);
        self.acks.newest_arrived = self.acks.newest_arrived.max(newly.newest_once).max(again);
        if self.congestion_limited {
            self.congestion.acked(newly.growing);
        }
        self.find_losses(now_us, ack);
        if answers_probe && catches_up {
            // One after the other while it reads, and at the end of what it had all the rest is known to be missing.
            self.probe_lowest();
        }
    }

    /// Takes for lost what later acks have overtaken (PROTOCOL.md#duty-loss).
    fn find_losses(&mut self, now_us: u64, ack: &Ack<'_>) {
        let arrived = self.acks.newest_arrived;
        // What a timeout has sent waited for all that was sent before: that has left the path, however little came between.
        let answered = self.expired.filter(|expired| *expired <= arrived);
        let before_answered = answered.map_or(0, |expired| expired - 1);
        self.queue.overtake(arrived.saturating_sub(REORDERING_MAX).max(before_answered));
        let mut before_expiry = false;
        let mut lost = |queue: &mut Queue<M, B>, at| {
            let transmission = queue.slot(at).transmission;
            before_expiry |= self.expired.is_some_and(|expired| transmission < expired);
            self.stats.losses += 1;
            self.congestion.lost(transmission, self.next_transmission, self.rtt.short_window());
            queue.mark_lost(at);
        };
        // What no ack has told of in as long as an answer takes at most, while later ones were answered, is missing or might
        // as well be: sent twice it costs less than silence.
        let timeout_us = self.rtt.timeout_us(self.config.rto_initial_us, self.config.rto_min_us);
        while let Some(at) = self.queue.oldest_overtaken() {
            let slot = self.queue.slot(at);
            if slot.seq > self.acks.told && slot.sent_at_us.saturating_add(timeout_us) > now_us {
                break;
            }
            lost(&mut self.queue, at);
        }
        // Behind one that it cannot tell of there may be others that it does tell of.
        let is_newest = ack.floor == self.acks.floor;
        if is_newest && self.queue.oldest_overtaken().is_some() {
            for seq in acks::told_missing(ack) {
                if let Some(at) = self.queue.transmitted(seq).filter(|at| self.queue.is_overtaken(*at)) {
                    lost(&mut self.queue, at);
                }
            }
        }
        if self.expired.is_some_and(|expired| expired <= arrived) {
            self.expired = None;
            if before_expiry {
                self.congestion.restart_after_expiry(self.next_transmission);
            }
        }
    }

    /// Does what the code of a REJECT asks for (PROTOCOL.md#duty-reject).
    fn handle_reject(&mut self, now_us: u64, reject: &Reject) -> Result<(), Ignored> {
        if reject.client != self.config.client {
            return Err(Ignored::OtherClient);
        }
        if let Some(hello) = self.hello {
            if reject.epoch != 0 || reject.refused != hello.nonce {
                return Err(Ignored::NotInFlight);
            }
            match failure(reject.code) {
                Some(reason) => {
                    self.fail_all(reason);
                    self.hello = None;
                }
                None => self.pause(now_us, reject),
            }
            self.arm(now_us, true);
            return Ok(());
        }
        if Epoch::new(reject.epoch) != self.epoch || self.epoch.is_none() {
            return Err(Ignored::OtherEpoch);
        }
        let refused = self.queue.transmitted(Seq(reject.refused));
        if refused.is_none() && !(reject.refused == 0 && self.pinged) {
            return Err(Ignored::NotInFlight);
        }
        match (refused, failure(reject.code)) {
            (Some(at), Some(reason)) => {
                self.asks.drop_message(self.queue.slot(at).message);
                self.queue.decide(at, Outcome::Failed(reason), self.epoch);
            }
            (Some(at), None) if reject.code == RejectCode::Busy && self.hold_back(now_us, at, reject) => {
                self.arm(now_us, false);
                return Ok(());
            }
            (Some(at), None) => self.queue.mark_lost(at),
            // The answer to a PING names no message, and each would get the same.
            (None, Some(reason)) => self.fail_all(reason),
            (None, None) => {}
        }
        match reject.code {
            RejectCode::StaleEpoch => {
                if !self.acks.fruitful {
                    self.fruitless_epochs = self.fruitless_epochs.saturating_add(1);
                }
                self.leave_epoch(now_us);
            }
            RejectCode::BeyondWindow if refused.is_some() => {
                let below = Seq(reject.refused).above(self.queue.base_seq());
                self.acks.credit = Some(self.acks.credit.map_or(below, |credit| credit.min(below)));
            }
            RejectCode::Busy | RejectCode::Storage | RejectCode::Unknown(_) => self.pause(now_us, reject),
            _ => {}
        }
        self.arm(now_us, false);
        Ok(())
    }

    /// Fails every message that has not ended, the oldest first.
    pub(super) fn fail_all(&mut self, reason: FailReason) {
        while self.decide_oldest(Outcome::Failed(reason)).is_some() {}
        (self.pinged, self.ping_due) = (false, false);
    }

    fn pause(&mut self, now_us: u64, reject: &Reject) {
        if self.paused_until_us.is_some() {
            return; // The answers to what was in flight with the first one.
        }
        let wait_us = if reject.retry_after_ms == 0 {
            self.tries = self.tries.saturating_add(1);
            self.next_try_us()
        } else {
            let asked_us = u64::from(reject.retry_after_ms) * 1_000;
            backoff::jittered_us(asked_us.min(self.config.retry_after_max_us), 2, &mut self.random)
        };
        let until_us = now_us.saturating_add(wait_us);
        self.paused_until_us = Some(until_us);
        self.server_waits = Some((reject.code, until_us));
    }

    fn handle_welcome(&mut self, now_us: u64, welcome: &Welcome) -> Result<(), Ignored> {
        if welcome.client != self.config.client {
            return Err(Ignored::OtherClient);
        }
        let asked = self.hello.is_some_and(|hello| hello.nonce == welcome.nonce);
        // The epoch that has just been refused would number other messages with the same seqs.
        // And in sealed mode the server gives none but higher ones.
        let backwards = self.wire.epochs_only_rise() && self.epoch >= Some(welcome.epoch);
        if !asked || self.epoch == Some(welcome.epoch) || backwards {
            return Err(Ignored::Unasked);
        }
        self.enter_epoch(welcome.epoch);
        self.acks.set_credit(welcome.credit);
        self.tries = 0;
        self.arm(now_us, true);
        Ok(())
    }

    /// Ends the session (PROTOCOL.md#duty-epoch): a client that counts its own epochs takes the next one; where that was
    /// refused too, and where it does not count, the server knows which one is next.
    pub(super) fn leave_epoch(&mut self, now_us: u64) {
        let own = match (self.config.epoch, self.fruitless_epochs) {
            (Some(_), 0 | 1) => self.epoch.and_then(Epoch::next),
            _ => None,
        };
        match own {
            Some(next) => {
                let unix_s = self.config.unix_us_at_zero.map_or(0, |zero| zero.saturating_add(now_us) / 1_000_000);
                let unix = u32::try_from(unix_s).ok().and_then(Epoch::new);
                self.enter_epoch(unix.map_or(next, |unix| unix.max(next)));
            }
            None => self.ask_for_epoch(self.fruitless_epochs <= 2),
        }
    }

    fn enter_epoch(&mut self, epoch: Epoch) {
        let from = self.epoch.replace(epoch);
        self.wire.enter(epoch);
        self.doubt = Doubt::Settled;
        self.hello = None;
        self.queue.renumber();
        self.asks.enter_epoch();
        self.acks = self.acks.of_next_session();
        self.expired = None;
        self.probe = false;
        self.ping_due = false;
        self.pinged = false;
        self.epoch_changed = Some((from, epoch));
    }

    /// Begins to ask by HELLO, at once or, where asking has been of no use, after a wait.
    pub(super) fn ask_for_epoch(&mut self, at_once: bool) {
        if !at_once {
            self.tries = self.fruitless_epochs;
        }
        self.hello = Some(super::Hello { nonce: self.random.next(), due: at_once });
    }
}

/// The codes that are final for a message (PROTOCOL.md#reject-codes).
fn failure(code: RejectCode) -> Option<FailReason> {
    match code {
        RejectCode::Version => Some(FailReason::Version),
        RejectCode::Unsupported => Some(FailReason::Unsupported),
        RejectCode::TooLarge => Some(FailReason::TooLarge),
        RejectCode::Channel => Some(FailReason::Channel),
        RejectCode::SealedOnly => Some(FailReason::SealedOnly),
        RejectCode::StaleEpoch
        | RejectCode::BeyondWindow
        | RejectCode::Busy
        | RejectCode::Storage
        | RejectCode::Unknown(_) => None,
    }
}

/// What one ACK acked that was not acked before.
#[derive(Default)]
struct NewlyAcked {
    count: u32,
    /// Of these, those that let the congestion window grow.
    growing: u32,
    /// The one whose latest transmission is the newest, as it was when it was acked.
    newest: Option<Slot>,
    /// The newest of those transmitted once; 0 when there is none.
    newest_once: u64,
    /// The newest of those transmitted again when the server did not have them.
    newest_missed: Option<Slot>,
}

impl NewlyAcked {
    fn add(&mut self, slot: &Slot, grows: bool) {
        self.count += 1;
        self.growing += u32::from(grows);
        let newer = |than: Option<Slot>| than.is_none_or(|than| slot.transmission > than.transmission);
        if slot.attempt == 0 {
            self.newest_once = self.newest_once.max(slot.transmission);
        } else if slot.missed && newer(self.newest_missed) {
            self.newest_missed = Some(*slot);
        }
        if newer(self.newest) {
            self.newest = Some(*slot);
        }
    }
}
