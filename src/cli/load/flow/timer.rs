//! A flow's timer: what is due when no answer came, and how long answers are waited for.

use super::{
    ALLOWANCE_AFTER_EXPIRY, ANSWER_NS_MIN, Flow, MS, NEVER, PAUSE_MAX_NS, RTO_INITIAL_NS, RTO_MAX_NS, RTO_MIN_NS,
    State, US,
};

impl Flow {
    /// Does what time has made due. Returns whether there may be something to send now.
    pub(in super::super) fn handle_time(&mut self, now_ns: u64) -> bool {
        let takes = self.asks.as_mut().is_some_and(|asks| asks.handle_time(now_ns));
        self.handle_timeout(now_ns) || takes
    }

    fn handle_timeout(&mut self, now_ns: u64) -> bool {
        if let Some(until_ns) = self.paused_until_ns {
            if now_ns < until_ns {
                return false;
            }
            self.paused_until_ns = None;
            self.arm(now_ns);
            return true;
        }
        if now_ns < self.deadline_ns {
            return false;
        }
        self.tries = self.tries.saturating_add(1);
        // Its ack may be what was lost; the next one to cover it would measure the timeout.
        self.timed = None;
        self.ping_due = self.candidate().is_some_and(|(seq, _)| seq > self.limit);
        // With nothing in flight it waits for credit, and nothing was lost.
        if self.in_flight > 0 || !self.ping_due {
            if self.tries == 2 && self.rtt.smoothed_us().is_some() {
                // One that is lost in its turn is not waited for twice as long again.
                (self.allowance, self.cut) = (Some(ALLOWANCE_AFTER_EXPIRY - 1), self.transmissions);
                self.lose_lowest(ALLOWANCE_AFTER_EXPIRY);
            } else if self.tries > 1 && !self.silent {
                (self.silent, self.allowance, self.cut) = (true, Some(0), self.transmissions);
            }
            self.probe_lowest();
            self.ping_due = self.base > self.limit;
        }
        self.arm(now_ns);
        true
    }

    /// The lowest that is not acked is sent again, whatever the allowance is: its answer tells of all others.
    pub(super) fn probe_lowest(&mut self) {
        if self.base < self.next {
            if self.slot(self.base).state == State::InFlight {
                self.mark_lost(self.base);
            }
            self.expired = Some(self.transmissions + 1);
            self.probe = true;
        }
    }

    /// So many of the lowest that are not acked are sent again.
    fn lose_lowest(&mut self, count: u64) {
        let (mut seq, mut left) = (self.base, count);
        while seq < self.next && left > 0 {
            let state = self.slot(seq).state;
            if state == State::InFlight {
                self.mark_lost(seq);
            }
            left -= u64::from(state != State::Acked);
            seq += 1;
        }
    }

    /// Sets the timer, if there is something to wait for.
    pub(super) fn arm(&mut self, now_ns: u64) {
        let waits = self.base < self.next || (self.is_behind() && self.next > self.limit);
        self.deadline_ns = if waits { now_ns.saturating_add(self.timeout_ns()) } else { NEVER };
    }

    pub(super) fn timeout_ns(&mut self) -> u64 {
        self.jittered((self.rto_ns() << self.tries.min(10)).min(RTO_MAX_NS))
    }

    pub(super) fn rto_ns(&self) -> u64 {
        self.rtt.timeout_us(RTO_INITIAL_NS / US, RTO_MIN_NS / US) * US
    }

    /// The shortest that an answer takes; longer than any does, before there was one.
    pub(super) fn answer_ns(&self) -> u64 {
        if self.rtt.smoothed_us().is_none() { RTO_INITIAL_NS } else { (self.rtt.min_us() * US).min(ANSWER_NS_MIN) }
    }

    pub(super) fn pause(&mut self, now_ns: u64, retry_after_ms: u32) {
        if self.paused_until_ns.is_some() {
            return; // The answers to what was in flight with the first one.
        }
        let wait_ns = if retry_after_ms == 0 {
            self.tries = self.tries.saturating_add(1);
            self.timeout_ns()
        } else {
            self.jittered((u64::from(retry_after_ms) * MS).min(PAUSE_MAX_NS))
        };
        self.paused_until_ns = Some(now_ns.saturating_add(wait_ns));
    }

    /// Up to a quarter longer: thousands of clients must not act in step.
    fn jittered(&mut self, ns: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        ns + (ns >> 2) * u64::from(self.random & 0xff) / 0x100
    }
}
