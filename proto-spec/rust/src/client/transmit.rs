//! What is sent next, and when the machine wants to be woken.
//!
//! There is one timer. What it is for follows from the state, so that no two timers can contradict each other.

use super::doubt::Doubt;
use super::{AskSlot, Client, Slot};
use crate::Seq;
use crate::backoff;
use crate::codec::{Data, Datagram, Hello, OPTION_ASK, Ping};

/// A deadline, and what is waited for until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    waits_for: WaitsFor,
    at_us: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WaitsFor {
    /// The end of a wait that the server asked for.
    Resume,
    /// A WELCOME, which gives the epoch that it needs.
    Epoch,
    /// An ACK of what is in flight, or the next try in silence.
    Ack,
    /// An ACK with more credit; nothing is in flight (PROTOCOL.md#duty-probe).
    Credit,
}

impl<M, B, A, Y> Client<M, B, A, Y>
where
    M: AsRef<[Slot]> + AsMut<[Slot]>,
    B: AsRef<[u8]> + AsMut<[u8]>,
    A: AsRef<[AskSlot]> + AsMut<[AskSlot]>,
    Y: AsRef<[u8]> + AsMut<[u8]>,
{
    /// Writes the next datagram to send now into `out` and returns its length in bytes; `None` when there is nothing to
    /// send now, or `out` is shorter than [`Client::datagram_len_max`].
    pub fn poll_transmit(&mut self, now_us: u64, out: &mut [u8]) -> Option<usize> {
        // What waits for an ack is in more of a hurry than a TAKE, unless the server needs that to have room for it.
        let len = if self.asks.is_tight() {
            self.transmit_take(now_us, out).or_else(|| self.transmit(now_us, out))
        } else {
            self.transmit(now_us, out).or_else(|| self.transmit_take(now_us, out))
        };
        self.arm(now_us, false);
        len
    }

    fn transmit(&mut self, now_us: u64, out: &mut [u8]) -> Option<usize> {
        if self.paused_until_us.is_some() || out.len() < self.datagram_len_max() {
            return None;
        }
        let client = self.config.client;
        if let Some(hello) = &mut self.hello {
            if !core::mem::take(&mut hello.due) {
                return None;
            }
            let hello = Hello { client, nonce: hello.nonce };
            return self.wire.encode(&Datagram::Hello(hello), out);
        }
        // What is in flight in a session that can send no more is waited for: in the next it would be journaled again.
        if self.wire.is_used_up() && self.queue.awaited() > 0 {
            return None;
        }
        // First of the two: the epoch after it is doubted as well.
        if self.flee_doubted(now_us) {
            return self.transmit(now_us, out);
        }
        if self.queue.undecided() > 0 && (self.is_beyond_skipping() || self.wire.is_used_up()) {
            self.leave_epoch(now_us);
            return self.transmit(now_us, out);
        }
        let epoch = self.epoch?;
        if core::mem::take(&mut self.ping_due) {
            self.pinged = true;
            return self.wire.encode(&Datagram::Ping(Ping { client, epoch }), out);
        }
        self.congestion_limited = false;
        let (at, seq) = self.queue.candidate()?;
        if self.is_beyond_limit(seq) || self.doubt.holds_back(self.queue.in_flight()) {
            return None;
        }
        if !core::mem::take(&mut self.probe) && (self.silent || self.queue.in_flight() >= self.congestion.window()) {
            self.congestion_limited = true;
            return None;
        }
        self.stats.transmissions += 1;
        let missed = seq <= self.acks.told || self.expired == Some(self.next_transmission);
        let again = self.queue.transmit(at, self.next_transmission, now_us, missed);
        self.stats.retransmissions += u64::from(again);
        self.next_transmission += 1;
        let slot = self.queue.slot(at);
        if slot.ask && !again {
            self.asks.note_sent(slot.message, epoch, seq);
        }
        // No more than the capacity, which is at most 65,536, lies between the oldest and the newest.
        let span = u16::try_from(seq.above(self.queue.base_seq())).ok()?;
        let data = Data {
            attempt: slot.attempt,
            batch: slot.batch,
            skip: self.queue.skipped() > self.acks.floor,
            channel: slot.channel,
            options: if slot.ask { OPTION_ASK } else { 0 },
            ..Data::whole(client, epoch, seq, span, self.queue.payload(at))
        };
        self.wire.encode(&Datagram::Data(data), out)
    }

    /// When to call [`Client::handle_timeout`], as `now_us`; `None` while nothing is waited for.
    pub fn poll_timeout(&self) -> Option<u64> {
        match (self.timer.map(|timer| timer.at_us), self.ask_deadline_us()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Does what is due. Early and repeated calls do no harm.
    pub fn handle_timeout(&mut self, now_us: u64) {
        self.handle_ask_timeout(now_us);
        let Some(timer) = self.timer.filter(|timer| timer.at_us <= now_us) else { return };
        match timer.waits_for {
            WaitsFor::Resume => {
                self.paused_until_us = None;
                // What got no answer in all of the wait is not on the path any more: it would keep the one datagram back.
                self.lose_awaited();
                self.congestion.resume();
                if let Some(hello) = &mut self.hello {
                    hello.due = true;
                }
            }
            WaitsFor::Epoch => {
                self.tries = self.tries.saturating_add(1);
                match &mut self.hello {
                    Some(hello) if self.queue.undecided() > 0 => hello.due = true,
                    // Nobody needs the answer any more; the next message asks again.
                    hello => *hello = None,
                }
            }
            WaitsFor::Ack => self.handle_ack_timeout(),
            WaitsFor::Credit => {
                self.tries = self.tries.saturating_add(1);
                self.ping_due = true;
            }
        }
        self.arm(now_us, true);
    }

    fn handle_ack_timeout(&mut self) {
        if self.queue.undecided() == 0 {
            // All was given up. The silence has lasted long enough for the next message to be tried at once.
            (self.silent, self.tries) = (false, 0);
            return;
        }
        if self.is_exposed() {
            return;
        }
        self.stats.timeouts += 1;
        self.tries = self.tries.saturating_add(1);
        if self.tries == 1 {
            // It may be the tail that was lost, or an ack. The lowest one is sent again: its ack tells about all others,
            // and what they did not arrive in is no reason yet to slow down (RFC 9002 §6.2).
            self.probe_lowest();
        } else {
            // On a short path one that is lost in its turn is not waited for twice as long again: as many go out as it bears.
            if self.tries == 2 {
                self.congestion.collapse(self.next_transmission, self.rtt.short_window());
            } else {
                self.congestion.fall_silent(self.next_transmission);
                self.silent = true;
            }
            self.lose_awaited();
        }
        self.expired = Some(self.next_transmission);
        self.probe = true;
        if matches!(self.doubt, Doubt::Open { .. }) {
            self.wire.rise();
        }
        // The server may have shrunk its window below what is to be sent again.
        self.ping_due = self.queue.candidate().is_some_and(|(_, seq)| self.is_beyond_limit(seq));
    }

    /// All that is waited for is to be sent again.
    pub(super) fn lose_awaited(&mut self) {
        while let Some(at) = self.queue.any_awaited() {
            self.queue.mark_lost(at);
        }
    }

    /// The lowest one is sent again, whatever the congestion window is.
    pub(super) fn probe_lowest(&mut self) {
        if let Some(at) = self.queue.base_transmitted() {
            if self.queue.is_held_back(at) {
                // It goes when its time has come, and what is above it has no ack to wait for.
                self.lose_awaited();
            }
            self.queue.mark_lost(at);
            self.expired = Some(self.next_transmission);
            self.probe = true;
        }
    }

    /// The timer expires in so long at the latest, unless the server asked for the wait.
    pub(super) fn hasten(&mut self, now_us: u64, wait_us: u64) {
        if self.paused_until_us.is_none()
            && let Some(timer) = &mut self.timer
        {
            timer.at_us = timer.at_us.min(now_us.saturating_add(wait_us));
        }
    }

    /// Sets the timer to what is waited for now. One that waits for the same as before goes on, unless `anew`.
    pub(super) fn arm(&mut self, now_us: u64, anew: bool) {
        let Some(waits_for) = self.waits_for() else {
            self.timer = None;
            return;
        };
        if !anew && self.timer.is_some_and(|timer| timer.waits_for == waits_for) {
            return;
        }
        let at_us = match (waits_for, self.paused_until_us) {
            (WaitsFor::Resume, Some(until_us)) => until_us,
            _ => now_us.saturating_add(self.next_try_us()),
        };
        self.timer = Some(Timer { waits_for, at_us });
    }

    fn waits_for(&self) -> Option<WaitsFor> {
        if self.paused_until_us.is_some() {
            Some(WaitsFor::Resume)
        } else if self.hello.is_some() {
            Some(WaitsFor::Epoch)
        } else if self.is_blocked_by_credit() {
            Some(WaitsFor::Credit)
        } else if self.queue.awaited() > 0 || self.silent {
            Some(WaitsFor::Ack)
        } else {
            None
        }
    }

    /// The retransmission timeout (RTO), in microseconds.
    pub(super) fn timeout_us(&self) -> u64 {
        self.rtt.timeout_us(self.config.rto_initial_us, self.config.rto_min_us)
    }

    /// How long to wait for an answer now.
    pub(super) fn next_try_us(&mut self) -> u64 {
        let timeout_us = self.timeout_us();
        backoff::interval_us(timeout_us, self.tries, self.config.rto_max_us, &mut self.random)
    }

    /// Whether there is something to send, nothing awaited, and no credit to send it.
    pub(super) fn is_blocked_by_credit(&self) -> bool {
        self.queue.awaited() == 0 && self.queue.candidate().is_some_and(|(_, seq)| self.is_beyond_limit(seq))
    }

    /// The credit counts from the floor, which each DATA moves up to its base (PROTOCOL.md#duty-window).
    fn is_beyond_limit(&self, seq: Seq) -> bool {
        self.acks.credit.is_some_and(|credit| seq.above(self.queue.base_seq()) >= credit)
    }

    /// Whether so many seqs in a row were given up that the server would not move its floor over them (rule 4).
    fn is_beyond_skipping(&self) -> bool {
        let skipped = self.queue.base_seq().above(self.acks.floor).saturating_sub(1);
        self.acks.credit.is_some() && skipped > self.acks.credit_max
    }
}
