//! One client of the load: the protocol's duties without socket and clock, made for millions of datagrams a second.
//!
//! Why not the client machine of the protocol crate: here the load must cost little beside the server that shares the
//! machine (a state machine that keeps its payloads takes 80 ns a datagram, this one a tenth), must keep the window that
//! was asked for (a congestion window would make each run another load), and must know for each datagram when it was meant to
//! leave. The payloads are made anew for each transmission, so a flow keeps 24 bytes for each datagram in flight.
//!
//! What it does as every client must: seqs without holes, retransmission after a timeout that follows the RTT and backs
//! off, selective acks, losses found and made good by the rules of PROTOCOL.md#duty-loss and PROTOCOL.md#duty-expiry, credit,
//! PING when out of credit, every REJECT by its code, another epoch after STALE_EPOCH.

use std::collections::VecDeque;

use duragram_proto::codec::{Ack, Answer, RejectCode};
use duragram_proto::rtt::Rtt;
use duragram_proto::{ClientId, Epoch};

use super::sent_times::SentTimes;
use super::tally::Tally;

mod asks;
mod newly;
mod refusals;
#[cfg(test)]
mod tests;
mod timer;

pub(super) use asks::{Asks, Taking, UNFINISHED_MAX};
use newly::{Newly, highest_bit, words};

/// A datagram is lost when one that was sent this many transmissions later has arrived (RFC 9002 §6.1.1).
const REORDERING_MAX: u64 = 3;
const MS: u64 = 1_000_000;
const US: u64 = 1_000;
/// The timeout before the first RTT sample, and its bounds (PROTOCOL.md#duty-retransmission), in nanoseconds.
const RTO_INITIAL_NS: u64 = 1_000 * MS;
const RTO_MIN_NS: u64 = 10 * MS;
/// Shorter than clients should have it: a load that waits for a minute measures nothing.
const RTO_MAX_NS: u64 = 5_000 * MS;
/// What may be sent at first when the answer to a timeout's datagram shows losses (PROTOCOL.md#duty-congestion).
const ALLOWANCE_AFTER_EXPIRY: u64 = 10;
/// How long an answer takes at least: where the window was always full, one to a small flight comes far sooner than any did.
const ANSWER_NS_MIN: u64 = RTO_MIN_NS / 10;
/// The longest wait that a REJECT can impose, in nanoseconds.
const PAUSE_MAX_NS: u64 = 60_000 * MS;
/// Epochs in a row that may end before an ack of theirs came.
const FRUITLESS_EPOCHS_MAX: u32 = 3;
const NEVER: u64 = u64::MAX;

/// One client in one epoch. Times are nanoseconds of one clock.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) client: ClientId,
    pub(super) epoch: Epoch,
    /// Most datagrams unacked at once.
    window: u64,
    /// The lowest seq that is not acked, and the next that was never sent.
    base: u64,
    next: u64,
    /// Messages that there are to send, and how many of them have been sent at least once.
    pub(super) released: u64,
    started: u64,
    /// The highest floor told, and the highest seq that the server allows.
    floor: u64,
    limit: u64,
    /// A ring: the slot of seq `s` is `s & mask`.
    slots: Box<[Slot]>,
    mask: u64,
    /// Seqs to send again; those acked meanwhile are passed over.
    lost: VecDeque<u64>,
    in_flight: u64,
    transmissions: u64,
    /// The newest transmission known to have arrived.
    newest_arrived: u64,
    /// What is not acked up to here was missing when the ack with the highest floor was made.
    told: u64,
    /// The datagram whose answer gives the next RTT sample, and when it was sent.
    timed: Option<(u64, u64)>,
    rtt: Rtt,
    deadline_ns: u64,
    /// Tries since something came back.
    tries: u32,
    /// The first transmission after a timeout, until its answer has come.
    expired: Option<u64>,
    /// Timeouts in a row and nothing heard since: one datagram for each.
    silent: bool,
    /// One datagram may be sent in spite of silence and allowance.
    probe: bool,
    /// What may be sent, until all that is lost is: after a timeout it opens by slow start. `None`: the window is the limit.
    allowance: Option<u64>,
    /// Acks of transmissions after this one raise the allowance.
    cut: u64,
    /// When all that is not acked was last looked at for what no ack tells of.
    looked_ns: u64,
    sent: SentTimes,
    /// The same in steps of half a timeout.
    sent_long_ago: SentTimes,
    ping_due: bool,
    pinged: bool,
    paused_until_ns: Option<u64>,
    fruitless_epochs: u32,
    random: u32,
    /// What is asked, if each message asks.
    asks: Option<Box<Asks>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// When it was meant to be sent first.
    due_ns: u64,
    transmission: u64,
    attempt: u8,
    /// The server did not have it when it was sent last.
    missed: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    InFlight,
    /// It is taken for lost, and to be sent again.
    Lost,
    /// Numbered anew and not sent in this epoch.
    Renumbered,
    Acked,
}

/// What a flow sends next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outgoing {
    Data { seq: u64, span: u16, attempt: u8 },
    Ping,
    Take(Taking),
}

/// The server will never take what this load sends; it is the same for every datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused(pub(super) RejectCode);

impl Flow {
    pub(super) fn new(client: ClientId, epoch: Epoch, window: u16, seed: u32) -> Self {
        let capacity = usize::from(window).next_power_of_two();
        Self {
            client,
            epoch,
            window: u64::from(window),
            base: 1,
            next: 1,
            released: 0,
            started: 0,
            floor: 0,
            limit: NEVER,
            slots: vec![Slot::default(); capacity].into_boxed_slice(),
            mask: capacity as u64 - 1,
            lost: VecDeque::new(),
            in_flight: 0,
            transmissions: 0,
            newest_arrived: 0,
            told: 0,
            timed: None,
            rtt: Rtt::default(),
            deadline_ns: NEVER,
            tries: 0,
            expired: None,
            silent: false,
            probe: false,
            allowance: None,
            cut: 0,
            looked_ns: 0,
            sent: SentTimes::default(),
            sent_long_ago: SentTimes::default(),
            ping_due: false,
            pinged: false,
            paused_until_ns: None,
            fruitless_epochs: 0,
            random: seed | 1,
            asks: None,
        }
    }

    /// From now on each message asks.
    pub(super) fn ask(&mut self, asks: Asks) {
        self.asks = Some(Box::new(asks));
    }

    /// Whether each message of the flow asks for an answer.
    pub(super) fn asks(&self) -> bool {
        self.asks.is_some()
    }

    /// All is over: the server need not keep the answers that were had. Returns whether it is to be told so.
    pub(super) fn tell_had(&mut self) -> bool {
        self.asks.as_mut().is_some_and(|asks| asks.tell_had())
    }

    /// Nothing new is to be sent.
    pub(super) fn stop(&mut self) {
        self.released = self.started;
    }

    /// Whether not all that is due has been sent.
    pub(super) fn is_behind(&self) -> bool {
        self.started < self.released
    }

    /// The TAKE to send now, when there is no message: what waits for an ack is in more of a hurry, as with the client library. Neither a
    /// REJECT nor a lack of credit stops it.
    pub(super) fn next_take(&mut self, now_ns: u64) -> Option<Taking> {
        let rto_ns = self.rto_ns();
        self.asks.as_mut()?.next(now_ns, rto_ns)
    }

    /// What to send now beside TAKEs; `None` when that is nothing. `due_ns` tells when the n-th message, counted from 0, was meant to
    /// be sent; it is asked once for each message.
    pub(super) fn next(&mut self, now_ns: u64, due_ns: impl FnOnce(u64) -> u64, tally: &mut Tally) -> Option<Outgoing> {
        if self.paused_until_ns.is_some() {
            return None;
        }
        if std::mem::take(&mut self.ping_due) {
            self.pinged = true;
            return Some(Outgoing::Ping);
        }
        let (seq, again) = self.candidate()?;
        if seq > self.limit {
            // With nothing in flight no ack will tell of more credit unless it is asked for.
            if self.deadline_ns == NEVER {
                self.arm(now_ns);
            }
            return None;
        }
        if !std::mem::take(&mut self.probe) {
            if self.silent || self.allowance == Some(0) {
                return None;
            }
            self.allowance = self.allowance.map(|allowance| allowance - 1);
        }
        self.transmissions += 1;
        let transmission = self.transmissions;
        if again {
            self.lost.pop_front();
            let missed = seq <= self.told || self.expired == Some(transmission);
            let slot = self.slot_mut(seq);
            slot.attempt = slot.attempt.saturating_add(u8::from(slot.state != State::Renumbered));
            slot.missed = missed;
            tally.resent += 1;
        } else {
            let due_ns = due_ns(self.started);
            *self.slot_mut(seq) = Slot { due_ns, ..Slot::default() };
            self.next += 1;
            self.started += 1;
            tally.started += 1;
            if self.timed.is_none() {
                self.timed = Some((seq, now_ns));
            }
        }
        self.sent.note(now_ns, transmission, self.answer_ns());
        self.sent_long_ago.note(now_ns, transmission, self.rto_ns());
        let slot = self.slot_mut(seq);
        slot.state = State::InFlight;
        slot.transmission = transmission;
        let attempt = slot.attempt;
        self.in_flight += 1;
        if self.deadline_ns == NEVER {
            self.arm(now_ns);
        }
        // No more than the window, which is at most 65,535, lies between the oldest and the newest.
        let span = u16::try_from(seq - self.base).unwrap_or(u16::MAX);
        Some(Outgoing::Data { seq, span, attempt })
    }

    /// Handles an ACK of this client. Returns whether it concerns the session.
    pub(super) fn handle_ack(&mut self, now_ns: u64, ack: &Ack<'_>, tally: &mut Tally) -> bool {
        let floor = ack.floor.0;
        let highest = floor.saturating_add(highest_bit(ack.bitmap));
        if ack.epoch != self.epoch || highest >= self.next {
            return false;
        }
        // What answers a duplicate or a PING is not the answer that came in time, and no sample.
        let (mut newly, delay_us) = (Newly::default(), (!ack.duplicate).then_some(u64::from(ack.delay_us)));
        while self.base <= floor {
            self.acked(self.base, now_ns, delay_us, &mut newly, tally);
            self.base += 1;
        }
        for (word, first) in words(ack.bitmap).zip((floor + 1..).step_by(64)) {
            let mut rest = word;
            while rest != 0 {
                let seq = first + u64::from(rest.trailing_zeros());
                if seq >= self.base {
                    self.acked(seq, now_ns, delay_us, &mut newly, tally);
                }
                rest &= rest - 1;
            }
        }
        while self.base < self.next && self.slot(self.base).state == State::Acked {
            self.base += 1;
        }
        newly.tell(tally);

        // Of an ack overtaken by a newer one the credit is out of date, unless nothing is in flight: then it answers a PING.
        let newest = floor >= self.floor;
        self.silent = false;
        if newest {
            let bits = (8 * ack.bitmap.len() as u64).max(1);
            self.told = if ack.complete { u64::MAX } else { floor.saturating_add(bits) };
        }
        if newest || (self.in_flight == 0 && self.pinged) {
            self.floor = self.floor.max(floor);
            let limit = self.floor.saturating_add(u64::from(ack.credit));
            if limit > self.limit && self.in_flight == 0 {
                self.tries = 0;
                self.arm(now_ns);
            }
            self.limit = limit;
        }
        self.pinged = false;
        if newly.count > 0 {
            self.tries = 0;
            self.fruitless_epochs = 0;
            self.learn(now_ns, ack, &newly, highest);
            self.arm(now_ns);
        }
        true
    }

    /// Handles an ANSWER to this client. Returns whether it was waited for.
    pub(super) fn handle_answer(&mut self, now_ns: u64, answer: &Answer<'_>, tally: &mut Tally) -> bool {
        let rto_ns = self.rto_ns();
        answer.epoch == self.epoch && self.asks.as_mut().is_some_and(|asks| asks.handle(now_ns, rto_ns, answer, tally))
    }

    /// What newly acked datagrams tell of those before them (PROTOCOL.md#duty-loss).
    fn learn(&mut self, now_ns: u64, ack: &Ack<'_>, newly: &Newly, highest: u64) {
        self.allowance = self.allowance.map(|allowance| allowance + 2 * newly.fresh);
        self.newest_arrived = self.newest_arrived.max(newly.newest);
        // The server may be reading first transmissions only now: then this is the answer to those.
        let catches_up = ack.complete && highest == ack.floor.0 && newly.newest > 0;
        if !catches_up {
            self.newest_arrived = self.newest_arrived.max(newly.newest_again);
        }
        let before_expiry = self.find_lost(now_ns, highest);
        if self.expired.is_some_and(|expired| expired <= self.newest_arrived) {
            self.expired = None;
            if before_expiry {
                self.allowance = Some(self.allowance.unwrap_or(NEVER).min(ALLOWANCE_AFTER_EXPIRY));
                self.cut = self.transmissions;
            }
        }
        if self.base == self.next {
            (self.expired, self.allowance, self.probe) = (None, None, false);
        } else if catches_up && newly.answers_probe {
            self.probe_lowest();
        }
    }

    fn acked(&mut self, seq: u64, now_ns: u64, delay_us: Option<u64>, newly: &mut Newly, tally: &mut Tally) {
        let slot = self.slot_mut(seq);
        let Slot { due_ns, transmission, attempt, missed, state } = *slot;
        slot.state = State::Acked;
        match state {
            State::Acked => return,
            State::InFlight => self.in_flight -= 1,
            State::Lost | State::Renumbered => {}
        }
        if let Some(asks) = &mut self.asks {
            asks.acked(seq, due_ns);
        }
        newly.add(now_ns.saturating_sub(due_ns), tally);
        newly.fresh += u64::from(transmission > self.cut && state == State::InFlight);
        // Which transmission of several has arrived cannot be known but of what the server did not have before the last, and
        // hardly the last even so when that was sent only now; but a probe waited for all answers before.
        let answers_probe = missed && self.expired == Some(transmission);
        newly.answers_probe |= answers_probe;
        if attempt == 0 {
            newly.newest = newly.newest.max(transmission);
        } else if answers_probe || missed && transmission <= self.sent.by(now_ns.saturating_sub(self.answer_ns())) {
            newly.newest_again = newly.newest_again.max(transmission);
        }
        let delay_us = delay_us.filter(|_| attempt == 0);
        if let Some(delay_us) = delay_us
            && self.rtt.smoothed_us().is_none()
        {
            // The one that was to be timed may be lost; this one was sent when it was due, or later.
            self.rtt.sample(now_ns.saturating_sub(due_ns) / US, delay_us);
        }
        if let Some((timed, sent_ns)) = self.timed
            && timed == seq
        {
            self.timed = None;
            if let Some(delay_us) = delay_us {
                self.rtt.sample(now_ns.saturating_sub(sent_ns) / US, delay_us);
            }
        }
    }

    /// What was sent before something that has arrived, and is told to be missing, or was not told of in all of a timeout.
    /// `highest` is the highest that was acked. Returns whether any of it was sent before the last timeout.
    fn find_lost(&mut self, now_ns: u64, highest: u64) -> bool {
        // What a timeout has sent waited for all that was sent before: that has left the path, however little came between.
        let answered = self.expired.filter(|expired| *expired <= self.newest_arrived);
        let overtaken =
            self.newest_arrived.saturating_sub(REORDERING_MAX).max(answered.map_or(0, |expired| expired - 1));
        // The lowest was sent before all others, unless it was sent again.
        if self.base == self.next || self.slot(self.base).attempt == 0 && self.slot(self.base).transmission > overtaken
        {
            return false;
        }
        // Beyond the highest that was acked little is found, and not each time; but the answer to a timeout tells of all.
        let rto_ns = self.rto_ns();
        let mut end = highest.max(self.base) + 1;
        if answered.is_some() || now_ns >= self.looked_ns + rto_ns / 2 {
            self.looked_ns = now_ns;
            end = self.next;
        }
        let long_ago = self.sent_long_ago.by(now_ns.saturating_sub(rto_ns));
        let mut before_expiry = false;
        for seq in self.base..end {
            let Slot { state, transmission, .. } = *self.slot(seq);
            if state == State::InFlight && transmission <= overtaken && (seq <= self.told || transmission <= long_ago) {
                before_expiry |= self.expired.is_some_and(|expired| transmission < expired);
                self.leave(transmission);
                self.mark_lost(seq);
            }
        }
        before_expiry
    }

    /// A transmission since the window was cut is not under way any more, and leaves its place to another.
    fn leave(&mut self, transmission: u64) {
        let places = u64::from(transmission > self.cut);
        self.allowance = self.allowance.map(|allowance| allowance + places);
    }

    fn mark_lost(&mut self, seq: u64) {
        self.slot_mut(seq).state = State::Lost;
        self.in_flight -= 1;
        // In order, since the lowest lets the window move and is the first within the credit. Mostly found in order too.
        match self.lost.back() {
            Some(&last) if seq < last => self.lost.insert(self.lost.partition_point(|&other| other < seq), seq),
            _ => self.lost.push_back(seq),
        }
    }

    fn first_lost(&mut self) -> Option<u64> {
        while let Some(&seq) = self.lost.front() {
            if seq >= self.base && matches!(self.slot(seq).state, State::Lost | State::Renumbered) {
                return Some(seq);
            }
            self.lost.pop_front();
        }
        None
    }

    /// What to send next, credit aside, and whether it was sent before: the lowest of what is lost, then what is new.
    fn candidate(&mut self) -> Option<(u64, bool)> {
        if let Some(seq) = self.first_lost() {
            return Some((seq, true));
        }
        // All that was lost is on its way again, and no timeout is unanswered.
        if self.expired.is_none() {
            self.allowance = None;
        }
        let may_be_new = self.is_behind()
            && self.next - self.base < self.window
            && self.asks.as_mut().is_none_or(|asks| asks.has_room(self.next));
        may_be_new.then_some((self.next, false))
    }

    fn slot(&self, seq: u64) -> &Slot {
        &self.slots[self.index(seq)]
    }

    fn slot_mut(&mut self, seq: u64) -> &mut Slot {
        &mut self.slots[self.index(seq)]
    }

    #[allow(clippy::cast_possible_truncation)] // masked to the ring's length, a usize
    fn index(&self, seq: u64) -> usize {
        (seq & self.mask) as usize
    }
}
