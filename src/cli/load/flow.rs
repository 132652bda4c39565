//! One client of the load: the protocol's duties without socket and clock, made for millions of datagrams a second.
//!
//! Why not the client machine of the protocol crate: here the load must cost little beside the server that shares the
//! machine (a state machine that keeps its payloads takes 80 ns a datagram, this one a tenth), must keep the window that
//! was asked for (a congestion window would make each run another load), and must know for each datagram when it was meant to
//! leave. The payloads are made anew for each transmission, so a flow keeps 24 bytes for each datagram in flight.
//!
//! What it does as every client must: seqs without holes, retransmission after a timeout that follows the RTT and backs
//! off, selective acks, credit, PING when out of credit, every REJECT by its code, another epoch after STALE_EPOCH.

use std::collections::VecDeque;

use duragram_proto::codec::{Ack, Reject, RejectCode};
use duragram_proto::{ClientId, Epoch};

use super::sent_times::SentTimes;
use super::tally::Tally;

/// A datagram is lost when one that was sent this many transmissions later has arrived (RFC 9002 §6.1.1).
const REORDERING_MAX: u64 = 3;
const MS: u64 = 1_000_000;
/// The timeout before the first RTT sample, and its bounds, in nanoseconds.
const RTO_INITIAL_NS: u64 = 1_000 * MS;
const RTO_MIN_NS: u64 = 100 * MS;
const RTO_MAX_NS: u64 = 5_000 * MS;
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
    /// The datagram whose answer gives the next RTT sample, and when it was sent.
    timed: Option<(u64, u64)>,
    /// Smoothed RTT and its variance.
    rtt: Option<(u64, u64)>,
    rtt_min_ns: u64,
    deadline_ns: u64,
    /// Tries since something came back.
    tries: u32,
    recovery: Option<Recovery>,
    sent: SentTimes,
    ping_due: bool,
    pinged: bool,
    paused_until_ns: Option<u64>,
    fruitless_epochs: u32,
    random: u32,
}

/// After a timeout all that is in flight is in doubt, and is sent again as TCP does it: one datagram, then two for each
/// that is acked (RFC 5681 §3.1), until all are acked or sent again.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    /// In doubt are transmissions up to this one,
    began: u64,
    /// of seqs from here,
    next: u64,
    /// to before here.
    end: u64,
    /// Datagrams that may be sent now.
    allowance: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// When it was meant to be sent first.
    due_ns: u64,
    transmission: u64,
    attempt: u8,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    InFlight,
    /// To be sent again.
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
            timed: None,
            rtt: None,
            rtt_min_ns: RTO_INITIAL_NS,
            deadline_ns: NEVER,
            tries: 0,
            recovery: None,
            sent: SentTimes::default(),
            ping_due: false,
            pinged: false,
            paused_until_ns: None,
            fruitless_epochs: 0,
            random: seed | 1,
        }
    }

    /// Nothing new is to be sent.
    pub(super) fn stop(&mut self) {
        self.released = self.started;
    }

    /// Whether not all that is due has been sent.
    pub(super) fn is_behind(&self) -> bool {
        self.started < self.released
    }

    /// What to send now; `None` when that is nothing. `due_ns` tells when the n-th message, counted from 0, was meant to
    /// be sent; it is asked once for each message.
    pub(super) fn next(&mut self, now_ns: u64, due_ns: impl FnOnce(u64) -> u64, tally: &mut Tally) -> Option<Outgoing> {
        if self.paused_until_ns.is_some() {
            return None;
        }
        if std::mem::take(&mut self.ping_due) {
            self.pinged = true;
            return Some(Outgoing::Ping);
        }
        if self.recovery.is_some_and(|recovery| recovery.allowance == 0) {
            return None;
        }
        let (seq, again) = self.candidate()?;
        if seq > self.limit {
            // With nothing in flight no ack will tell of more credit unless it is asked for.
            if self.deadline_ns == NEVER {
                self.arm(now_ns);
            }
            return None;
        }
        if again {
            if self.slot(seq).state == State::InFlight {
                self.in_flight -= 1; // In doubt, and about to be sent anew.
            } else {
                self.lost.pop_front();
            }
            let slot = self.slot_mut(seq);
            slot.attempt = slot.attempt.saturating_add(u8::from(slot.state != State::Renumbered));
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
        if let Some(recovery) = &mut self.recovery {
            recovery.allowance -= 1;
        }
        self.transmissions += 1;
        self.sent.note(now_ns, self.transmissions, self.rtt_min_ns);
        let transmission = self.transmissions;
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
        let mut newly = Newly::default();
        while self.base <= floor {
            self.acked(self.base, now_ns, &mut newly, tally);
            self.base += 1;
        }
        for (word, first) in words(ack.bitmap).zip((floor + 1..).step_by(64)) {
            let mut rest = word;
            while rest != 0 {
                let seq = first + u64::from(rest.trailing_zeros());
                if seq >= self.base {
                    self.acked(seq, now_ns, &mut newly, tally);
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
            self.newest_arrived = self.newest_arrived.max(newly.newest);
            if !newly.in_doubt {
                self.newest_arrived = self.newest_arrived.max(newly.newest_again);
            }
            self.recover(&newly);
            if newest {
                self.find_lost(highest);
            }
            self.arm(now_ns);
        }
        true
    }

    /// Handles a REJECT of this client. Returns whether it concerns something in flight.
    pub(super) fn handle_reject(&mut self, now_ns: u64, reject: &Reject) -> Result<bool, Refused> {
        if reject.epoch != self.epoch.value() {
            return Ok(false);
        }
        let seq = reject.refused;
        let concerns_data = (self.base..self.next).contains(&seq) && self.slot(seq).state != State::Acked;
        let concerns_ping = seq == 0 && self.pinged;
        if !concerns_data && !concerns_ping {
            return Ok(false);
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.allowance += 1;
        }
        if concerns_data && self.slot(seq).state == State::InFlight {
            self.mark_lost(seq);
        }
        match reject.code {
            RejectCode::BeyondWindow => {
                if concerns_data {
                    self.limit = self.limit.min(seq - 1);
                }
            }
            RejectCode::Busy | RejectCode::Storage | RejectCode::Unknown(_) => {
                self.pause(now_ns, reject.retry_after_ms)
            }
            RejectCode::StaleEpoch => {
                self.fruitless_epochs += 1;
                let epoch = self.epoch.next().filter(|_| self.fruitless_epochs <= FRUITLESS_EPOCHS_MAX);
                self.enter_epoch(epoch.ok_or(Refused(reject.code))?);
            }
            RejectCode::Version
            | RejectCode::Unsupported
            | RejectCode::TooLarge
            | RejectCode::Channel
            | RejectCode::SealedOnly => return Err(Refused(reject.code)),
        }
        self.arm(now_ns);
        Ok(true)
    }

    /// Does what time has made due. Returns whether there may be something to send now.
    pub(super) fn handle_time(&mut self, now_ns: u64) -> bool {
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
        self.recovery = (self.in_flight > 0).then_some(Recovery {
            began: self.transmissions,
            next: self.base,
            end: self.next,
            allowance: 1,
        });
        self.ping_due = self.candidate().is_some_and(|(seq, _)| seq > self.limit);
        self.arm(now_ns);
        true
    }

    /// What an ack means for what is in doubt.
    fn recover(&mut self, newly: &Newly) {
        let Some(recovery) = &mut self.recovery else { return };
        recovery.allowance += 2 * newly.count;
        // What was sent once and before the timeout is arriving: the server was slow, the rest is on its way too, and what
        // is not will be found missing between what arrives (RFC 5682 calls it F-RTO).
        if newly.in_doubt {
            self.recovery = None;
        }
    }

    fn acked(&mut self, seq: u64, now_ns: u64, newly: &mut Newly, tally: &mut Tally) {
        let slot = self.slot_mut(seq);
        let Slot { due_ns, transmission, attempt, state } = *slot;
        slot.state = State::Acked;
        match state {
            State::Acked => return,
            State::InFlight => self.in_flight -= 1,
            State::Lost | State::Renumbered => {}
        }
        newly.add(now_ns.saturating_sub(due_ns), tally);
        // Which transmission of several has arrived cannot be known, but hardly the last when that was sent only now.
        if attempt == 0 {
            newly.newest = newly.newest.max(transmission);
        } else if transmission <= self.sent.by(now_ns.saturating_sub(self.rtt_min_ns)) {
            newly.newest_again = newly.newest_again.max(transmission);
        }
        if attempt == 0 && self.rtt.is_none() {
            // The one that was to be timed may be lost; this one was sent when it was due, or later.
            self.sample(now_ns.saturating_sub(due_ns));
        }
        newly.in_doubt |= attempt == 0 && self.recovery.is_some_and(|recovery| transmission <= recovery.began);
        if let Some((timed, sent_ns)) = self.timed
            && timed == seq
        {
            self.timed = None;
            if attempt == 0 {
                self.sample(now_ns.saturating_sub(sent_ns));
            }
        }
    }

    /// What was sent before something that has arrived, and is told to be missing: the lowest, and all between bits.
    fn find_lost(&mut self, highest: u64) {
        if self.base == self.next {
            return;
        }
        for seq in self.base..=highest.max(self.base) {
            let slot = self.slot(seq);
            if slot.state == State::InFlight && slot.transmission + REORDERING_MAX <= self.newest_arrived {
                // One that was sent in a recovery leaves its place to another.
                let transmission = slot.transmission;
                if let Some(recovery) = self.recovery.as_mut().filter(|recovery| transmission > recovery.began) {
                    recovery.allowance += 1;
                }
                self.mark_lost(seq);
            }
        }
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

    /// What to send next, credit aside, and whether it was sent before: the lowest of what is lost or in doubt, then what
    /// is new.
    fn candidate(&mut self) -> Option<(u64, bool)> {
        let lost = self.first_lost();
        let in_doubt = self.first_in_doubt();
        if let Some(seq) = lost.into_iter().chain(in_doubt).min() {
            return Some((seq, true));
        }
        self.recovery = None;
        let may_be_new = self.is_behind() && self.next - self.base < self.window;
        may_be_new.then_some((self.next, false))
    }

    fn first_in_doubt(&mut self) -> Option<u64> {
        let Recovery { began, next, end, .. } = self.recovery?;
        let in_doubt = |slot: &Slot| slot.state == State::InFlight && slot.transmission <= began;
        let seq = (next.max(self.base)..end).find(|seq| in_doubt(self.slot(*seq)));
        if let Some(recovery) = &mut self.recovery {
            recovery.next = seq.unwrap_or(end);
        }
        seq
    }

    /// Sets the timer, if there is something to wait for.
    fn arm(&mut self, now_ns: u64) {
        let waits = self.base < self.next || (self.is_behind() && self.next > self.limit);
        self.deadline_ns = if waits { now_ns.saturating_add(self.timeout_ns()) } else { NEVER };
    }

    fn timeout_ns(&mut self) -> u64 {
        let timeout_ns = self.rtt.map_or(RTO_INITIAL_NS, |(smoothed, variance)| smoothed + 4 * variance);
        let backed_off_ns = timeout_ns.max(RTO_MIN_NS) << self.tries.min(6);
        self.jittered(backed_off_ns.min(RTO_MAX_NS))
    }

    /// RFC 6298 §2, with the server's delay, which a load generator wants to bear, in the RTT.
    fn sample(&mut self, rtt_ns: u64) {
        self.rtt_min_ns = self.rtt_min_ns.min(rtt_ns);
        self.rtt = Some(match self.rtt {
            None => (rtt_ns, rtt_ns / 2),
            Some((smoothed, variance)) => ((7 * smoothed + rtt_ns) / 8, (3 * variance + smoothed.abs_diff(rtt_ns)) / 4),
        });
    }

    fn pause(&mut self, now_ns: u64, retry_after_ms: u32) {
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

    /// What is unacked is sent again in another session, with seqs from 1 on and without holes.
    fn enter_epoch(&mut self, epoch: Epoch) {
        let unacked = (self.base..self.next).map(|seq| *self.slot(seq)).filter(|slot| slot.state != State::Acked);
        let unacked: Vec<Slot> = unacked.collect();
        self.epoch = epoch;
        (self.base, self.next) = (1, 1 + unacked.len() as u64);
        (self.floor, self.limit) = (0, NEVER);
        (self.in_flight, self.newest_arrived, self.timed) = (0, 0, None);
        (self.recovery, self.ping_due, self.pinged) = (None, false, false);
        self.lost.clear();
        for (seq, slot) in (1..).zip(unacked) {
            *self.slot_mut(seq) = Slot { due_ns: slot.due_ns, state: State::Renumbered, ..Slot::default() };
            self.lost.push_back(seq);
        }
    }

    /// Up to a quarter longer: thousands of clients must not act in step.
    fn jittered(&mut self, ns: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        ns + (ns >> 2) * u64::from(self.random & 0xff) / 0x100
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

/// What an ACK acked that was not acked before; runs of the same latency are counted together.
#[derive(Default)]
struct Newly {
    count: u64,
    /// The newest of its first transmissions.
    newest: u64,
    /// The newest of its later ones that can have been answered.
    newest_again: u64,
    /// Whether something sent once, before a timeout, is among them.
    in_doubt: bool,
    latency_ns: u64,
    run: u64,
}

impl Newly {
    fn add(&mut self, latency_ns: u64, tally: &mut Tally) {
        self.count += 1;
        if latency_ns != self.latency_ns {
            self.tell(tally);
            self.latency_ns = latency_ns;
        }
        self.run += 1;
    }

    fn tell(&mut self, tally: &mut Tally) {
        tally.acked(self.latency_ns, std::mem::take(&mut self.run));
    }
}

/// The bitmap in words of 64 bits, least significant bit first.
fn words(bitmap: &[u8]) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + '_ {
    bitmap.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
}

/// The highest set bit of a bitmap, counted from 1; 0 when none is set.
fn highest_bit(bitmap: &[u8]) -> u64 {
    let last = words(bitmap).enumerate().rfind(|(_, word)| *word != 0);
    last.map_or(0, |(at, word)| at as u64 * 64 + u64::from(64 - word.leading_zeros()))
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "flow_burst_tests.rs"]
mod burst_tests;
