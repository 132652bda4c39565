//! Which TAKE goes next, and when.

use super::{AskSlot, Asks, Farewell, OPEN_MAX, State};
use crate::{Epoch, Seq};

/// Another ask may come so soon that its TAKE says all that a farewell does, in microseconds.
const FAREWELL_US: u64 = 1_000_000;
/// How long an answer to a farewell may be on its way, in microseconds: it says GONE of a seq that will not ask soon, but may
/// in a minute of a thousand messages a second.
const FAREWELL_LATE_US: u64 = 60_000_000;

/// A TAKE as it is to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::client) struct Next {
    /// The ask in this slot is asked for; `None` says a farewell, which asks for nothing.
    pub(in crate::client) at: Option<usize>,
    pub(in crate::client) epoch: Epoch,
    pub(in crate::client) seq: Seq,
    pub(in crate::client) span: u16,
}

impl<A, Y> Asks<A, Y>
where
    A: AsRef<[AskSlot]> + AsMut<[AskSlot]>,
    Y: AsRef<[u8]> + AsMut<[u8]>,
{
    /// The TAKE to send now; `window`: how many may be sent in one round trip.
    pub(in crate::client) fn next_take(&mut self, now_us: u64, current: Option<Epoch>, window: u32) -> Option<Next> {
        self.plan_farewell(now_us, current);
        if now_us >= self.round.ends_us {
            self.round.sent = 0;
        }
        if self.is_round_full(window) {
            return None;
        }
        if self.farewell == Farewell::Due {
            return self.farewell_now(current);
        }
        let due = |at: &usize| self.slot(*at).state == State::Due && self.span(*at).is_some();
        let places = if self.open() < OPEN_MAX { 0..self.slots().len() } else { 0..0 };
        let Some(at) = places.filter(due).min_by_key(|at| (self.slot(*at).at_us, self.slot(*at).seq)) else {
            return if self.is_tight() { self.farewell_now(current) } else { None };
        };
        let slot = self.slot(at);
        Some(Next { at: Some(at), epoch: slot.epoch?, seq: slot.seq, span: self.span(at)? })
    }

    /// Says what was had, and takes nothing.
    fn farewell_now(&self, current: Option<Epoch>) -> Option<Next> {
        let epoch = current?;
        // What is not finished yet may lie below.
        let next = self.last_asked.checked_add(1)?;
        let base = self.lowest(current).map_or(next, |lowest| lowest.min(next));
        let span = u16::MAX;
        base.checked_add(u64::from(span)).map(|seq| Next { at: None, epoch, seq, span })
    }

    /// `None` where the lowest one lies too far below to be named: a TAKE would forget it.
    fn span(&self, at: usize) -> Option<u16> {
        let slot = self.slot(at);
        u16::try_from(slot.seq.above(self.lowest(slot.epoch)?)).ok()
    }

    /// Notes that it is sent. Its reply is waited for until `until_us`.
    pub(in crate::client) fn note_taken(&mut self, now_us: u64, next: &Next, until_us: u64, round_trip_us: u64) {
        if self.round.sent == 0 {
            self.round.ends_us = now_us.saturating_add(round_trip_us);
        }
        self.round.sent += 1;
        if self.is_of_the_newest(next.epoch) {
            self.untold = 0;
        }
        match next.at {
            Some(at) => {
                let slot = self.slot_mut(at);
                (slot.state, slot.at_us) = (State::Open, until_us);
            }
            None => {
                self.farewell = Farewell::None;
                // What is not finished is told of when it is.
                let lowest = self.lowest(Some(next.epoch));
                self.farewelled_to = lowest.map_or(self.last_asked, |lowest| Seq(lowest.0 - 1).min(self.last_asked));
                self.farewelled = Some((next.epoch, next.seq, now_us.saturating_add(FAREWELL_LATE_US)));
            }
        }
    }

    /// Whether no ask is of a later epoch.
    fn is_of_the_newest(&self, epoch: Epoch) -> bool {
        self.slots().iter().filter(|slot| slot.state != State::Free).all(|slot| slot.epoch <= Some(epoch))
    }

    /// Whether a GONE of this seq may be the answer to a farewell that went out before the seq asked.
    pub(in crate::client) fn may_be_farewells(&self, now_us: u64, epoch: Epoch, seq: Seq) -> bool {
        self.farewelled.is_some_and(|(of, named, until_us)| (of, named) == (epoch, seq) && now_us < until_us)
    }

    /// Nothing may follow: a farewell is not put off for another ask.
    pub(in crate::client) fn hasten_farewell(&mut self) {
        self.farewell = Farewell::Hastened;
    }

    /// Makes every TAKE due again whose time has come.
    pub(in crate::client) fn time_out(&mut self, now_us: u64) {
        for slot in self.slots_mut() {
            if slot.at_us > now_us || !matches!(slot.state, State::Open | State::Paused) {
                continue;
            }
            if slot.state == State::Open {
                slot.tries = slot.tries.saturating_add(1);
            }
            slot.state = State::Due;
        }
        if self.round.ends_us <= now_us {
            self.round.sent = 0;
        }
        if matches!(self.farewell, Farewell::At(at_us) if at_us <= now_us) {
            self.farewell = Farewell::Due;
        }
    }

    /// When [`time_out`](Self::time_out) has something to do.
    pub(in crate::client) fn deadline_us(&self, window: u32) -> Option<u64> {
        let mut first = self.held_back_until_us;
        let mut due = self.farewell == Farewell::Due;
        let mut earlier = |at_us: u64| first = Some(first.map_or(at_us, |first| first.min(at_us)));
        for slot in self.slots() {
            match slot.state {
                State::Open | State::Paused => earlier(slot.at_us),
                State::Due => due = true,
                _ => {}
            }
        }
        if due && self.is_round_full(window) {
            earlier(self.round.ends_us);
        }
        if let Farewell::At(at_us) = self.farewell {
            earlier(at_us);
        }
        first
    }

    /// The path is another one: no reply will come to where the TAKEs were sent from.
    pub(in crate::client) fn path_changed(&mut self, now_us: u64) {
        for slot in self.slots_mut() {
            if slot.state == State::Open {
                (slot.state, slot.at_us, slot.tries) = (State::Due, now_us, 0);
            }
        }
        self.round.sent = 0;
    }

    /// TAKEs sent and not answered.
    pub(in crate::client) fn open(&self) -> usize {
        self.slots().iter().filter(|slot| slot.state == State::Open).count()
    }

    fn is_round_full(&self, window: u32) -> bool {
        self.round.sent >= window.max(1)
    }

    /// A message that asks was refused, since the server has no room for it: until then it is held back. What fills the
    /// server may be answers that were had, so it is told of them again.
    pub(in crate::client) fn note_held_back(&mut self, until_us: u64) {
        // One time for all: the refusals of what was in flight with the first one follow it.
        _ = self.held_back_until_us.get_or_insert(until_us);
        self.farewelled_to = Seq::ZERO;
    }

    /// Whether an answer of the session that is now is waited for, or left for later.
    fn waits_now(&self, current: Option<Epoch>) -> bool {
        self.find(|slot| !matches!(slot.state, State::Unacked | State::Had) && slot.epoch == current).is_some()
    }

    pub(in crate::client) fn owes_farewell(&self, current: Option<Epoch>) -> bool {
        self.last_asked > self.farewelled_to && current.is_some() && !self.waits_now(current)
    }

    /// Whether a TAKE was not answered in time, nor one after it.
    pub(in crate::client) fn is_unheard(&self) -> bool {
        self.find(|slot| slot.is_acked() && slot.tries > 0).is_some()
    }

    /// PROTOCOL.md#answers-client: when nothing that is acked waits in this session, the server is told once, unless another
    /// ask follows soon.
    fn plan_farewell(&mut self, now_us: u64, current: Option<Epoch>) {
        let hastened = self.farewell == Farewell::Hastened;
        if !hastened && self.last_asked == Seq::ZERO {
            return;
        }
        let waits = self.waits_now(current) || hastened && self.find(|slot| slot.state == State::Unacked).is_some();
        let told = self.last_asked <= self.farewelled_to;
        if waits {
            self.farewell = if hastened { Farewell::Hastened } else { Farewell::None };
        } else if told || current.is_none() {
            self.farewell = Farewell::None;
        } else if hastened || self.config.sleeps || self.held_back_until_us.is_some() {
            self.farewell = Farewell::Due;
        } else if self.farewell == Farewell::None {
            self.farewell = Farewell::At(now_us.saturating_add(FAREWELL_US));
        }
    }
}
