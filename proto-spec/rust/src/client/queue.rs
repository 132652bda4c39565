//! The messages that wait, are in flight or await that their end is reported: a ring of slots, in the order of `send`.
//!
//! It knows which message is where and which seq is whose; nothing of time, windows or datagrams.
//!
//! A message has a *position*, counted from 1; its slot is the position modulo the capacity. Four cursors:
//! `tail ≤ base ≤ unsent ≤ next`. From `tail` on slots are taken, from `base` on messages are undecided (some may be
//! decided, but not `base` itself), from `unsent` on they have not been transmitted in this epoch, `next` is the next
//! to be taken. The seq of a message is its position minus an offset, which a new epoch sets anew.

use super::list::{Linked, Links, List};
use super::payloads::Payloads;
use super::{FailReason, MessageId, Outgoing};
use crate::codec::Durability;
use crate::{Epoch, Seq};

/// More slots than this are not used: `span` has 16 bits (PROTOCOL.md#duty-seq).
const SLOTS_MAX: usize = 1 << 16;

/// Where a message waits. The caller provides them and sees nothing inside.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub(super) message: MessageId,
    /// Its seq in the epoch in which it was last transmitted.
    pub(super) seq: Seq,
    /// The number of its latest transmission.
    pub(super) transmission: u64,
    pub(super) sent_at_us: u64,
    payload_start: u32,
    pub(super) payload_len: u16,
    pub(super) channel: u16,
    links: Links,
    /// The epoch in which it was acked.
    epoch: Option<Epoch>,
    /// Transmissions in this epoch, less one; saturates.
    pub(super) attempt: u8,
    pub(super) batch: bool,
    /// The message asks: its sender wants an answer.
    pub(super) ask: bool,
    /// The server did not have it when it was transmitted last.
    pub(super) missed: bool,
    state: State,
}

impl Slot {
    /// Free: what an array or a `Vec` of slots is filled with.
    pub const EMPTY: Self = Self {
        message: MessageId(0),
        seq: Seq::ZERO,
        transmission: 0,
        sent_at_us: 0,
        payload_start: 0,
        payload_len: 0,
        channel: 0,
        links: Links::NONE,
        epoch: None,
        attempt: 0,
        batch: false,
        ask: false,
        missed: false,
        state: State::Free { skipped: false },
    };
}

impl Linked for Slot {
    fn links(&self) -> Links {
        self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Taken by no message, or by one whose end was reported. `skipped`: its seq will never come.
    Free { skipped: bool },
    /// Not transmitted in this epoch.
    Unsent,
    /// It is in the list `in_flight`: neither acked nor taken for lost.
    InFlight,
    /// In the list `overtaken`: has left the path, whether it has arrived or not.
    Overtaken,
    /// In the list `lost`: to be transmitted again.
    Lost,
    /// In the list `held_back`: refused for the time being, to be transmitted again later.
    HeldBack,
    /// In the list `decided`: its end is to be reported.
    Decided(Outcome),
}

/// A message ends in one of these ways, and never changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Acked(Durability),
    Failed(FailReason),
    Abandoned,
}

/// A message whose end is reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decided {
    pub(super) message: MessageId,
    pub(super) seq: Seq,
    pub(super) epoch: Option<Epoch>,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(super) struct Queue<M, B> {
    slots: M,
    payloads: Payloads<B>,
    messages: u64,
    tail: u64,
    base: u64,
    unsent: u64,
    next: u64,
    seq_offset: u64,
    undecided: usize,
    /// The highest seq below `base` that will never come.
    skipped: Seq,
    /// In the order of transmission.
    in_flight: List,
    /// In the order of transmission too.
    overtaken: List,
    /// In the order of seqs.
    lost: List,
    /// In the order in which they were refused.
    held_back: List,
    /// In the order in which they were decided.
    decided: List,
}

impl<M, B> Queue<M, B>
where
    M: AsRef<[Slot]> + AsMut<[Slot]>,
    B: AsRef<[u8]> + AsMut<[u8]>,
{
    pub(super) fn new(mut slots: M, bytes: B) -> Self {
        slots.as_mut().fill(Slot::EMPTY);
        Self {
            slots,
            payloads: Payloads::new(bytes),
            messages: 0,
            tail: 1,
            base: 1,
            unsent: 1,
            next: 1,
            seq_offset: 0,
            undecided: 0,
            skipped: Seq::ZERO,
            in_flight: List::EMPTY,
            overtaken: List::EMPTY,
            lost: List::EMPTY,
            held_back: List::EMPTY,
            decided: List::EMPTY,
        }
    }

    /// The queue holds so many messages at most, however many slots the caller gave.
    pub(super) fn capacity(&self) -> usize {
        self.slots.as_ref().len().min(SLOTS_MAX)
    }

    /// Bytes of payload that an empty queue takes.
    pub(super) fn payload_capacity(&self) -> usize {
        self.payloads.capacity()
    }

    /// Messages neither acked nor given up.
    pub(super) fn undecided(&self) -> usize {
        self.undecided
    }

    /// Messages that may be on the path.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.len()
    }

    /// Messages transmitted and neither decided nor lost: those in flight, and those that were overtaken.
    pub(super) fn awaited(&self) -> u32 {
        self.in_flight.len() + self.overtaken.len()
    }

    /// Takes a message; `None`, unchanged, when there is no room now.
    pub(super) fn push(&mut self, message: Outgoing<'_>, ask: bool) -> Option<MessageId> {
        let payload_len = u16::try_from(message.payload.len()).ok()?;
        if self.next - self.tail >= self.capacity() as u64 {
            return None;
        }
        let payload_start = self.payloads.push(message.payload)?;
        let id = MessageId(self.messages);
        self.messages += 1;
        let at = self.index(self.next);
        self.slots.as_mut()[at] = Slot {
            message: id,
            payload_start,
            payload_len,
            channel: message.channel,
            batch: message.batch,
            ask,
            state: State::Unsent,
            ..Slot::EMPTY
        };
        self.next += 1;
        self.undecided += 1;
        Some(id)
    }

    pub(super) fn slot(&self, at: usize) -> &Slot {
        &self.slots.as_ref()[at]
    }

    pub(super) fn payload(&self, at: usize) -> &[u8] {
        let slot = self.slot(at);
        self.payloads.slice(slot.payload_start, slot.payload_len)
    }

    /// The seq of the oldest undecided message, or of the next to be taken.
    pub(super) fn base_seq(&self) -> Seq {
        self.seq(self.base)
    }

    /// The highest seq that was transmitted in this epoch; 0 when none was.
    pub(super) fn highest_sent(&self) -> Seq {
        self.seq(self.unsent - 1)
    }

    /// The highest seq below [`base_seq`](Self::base_seq) that will never come; 0 when all came.
    pub(super) fn skipped(&self) -> Seq {
        self.skipped
    }

    /// The transmitted, undecided message with this seq.
    pub(super) fn transmitted(&self, seq: Seq) -> Option<usize> {
        let position = seq.0.checked_add(self.seq_offset)?;
        if !(self.base..self.unsent).contains(&position) {
            return None;
        }
        let at = self.index(position);
        let is_transmitted =
            matches!(self.slot(at).state, State::InFlight | State::Overtaken | State::Lost | State::HeldBack);
        is_transmitted.then_some(at)
    }

    /// The oldest undecided message, if it was transmitted.
    pub(super) fn base_transmitted(&self) -> Option<usize> {
        self.transmitted(self.base_seq())
    }

    pub(super) fn is_overtaken(&self, at: usize) -> bool {
        self.slot(at).state == State::Overtaken
    }

    /// The overtaken message whose latest transmission is the oldest.
    pub(super) fn oldest_overtaken(&self) -> Option<usize> {
        self.overtaken.first()
    }

    /// Any message that is neither decided nor lost.
    pub(super) fn any_awaited(&self) -> Option<usize> {
        self.overtaken.first().or(self.in_flight.first())
    }

    /// Transmissions up to this one have left the path.
    pub(super) fn overtake(&mut self, last: u64) {
        while let Some(at) = self.in_flight.first().filter(|at| self.slot(*at).transmission <= last) {
            let slots = self.slots.as_mut();
            self.in_flight.remove(slots, at);
            slots[at].state = State::Overtaken;
            self.overtaken.push_back(slots, at);
        }
    }

    /// What to transmit next, and its seq: the lowest lost one, else the first that was not transmitted.
    pub(super) fn candidate(&self) -> Option<(usize, Seq)> {
        if let Some(at) = self.lost.first() {
            return Some((at, self.slot(at).seq));
        }
        (self.unsent < self.next).then(|| (self.index(self.unsent), self.seq(self.unsent)))
    }

    /// Notes that the candidate is transmitted; `missed`: the server is known not to have it. Returns whether it was
    /// transmitted before, in this epoch.
    pub(super) fn transmit(&mut self, at: usize, transmission: u64, now_us: u64, missed: bool) -> bool {
        let again = self.slot(at).state == State::Lost;
        let seq = self.seq(self.unsent);
        let slots = self.slots.as_mut();
        if again {
            self.lost.remove(slots, at);
            slots[at].attempt = slots[at].attempt.saturating_add(1);
        } else {
            slots[at].seq = seq;
        }
        slots[at].state = State::InFlight;
        slots[at].transmission = transmission;
        slots[at].sent_at_us = now_us;
        slots[at].missed = missed;
        self.in_flight.push_back(slots, at);
        self.unsent += u64::from(!again);
        again
    }

    /// An awaited message is to be transmitted again.
    pub(super) fn mark_lost(&mut self, at: usize) {
        let slots = self.slots.as_mut();
        match slots[at].state {
            State::InFlight => self.in_flight.remove(slots, at),
            State::Overtaken => self.overtaken.remove(slots, at),
            _ => return,
        }
        slots[at].state = State::Lost;
        let seq = slots[at].seq;
        self.lost.insert_sorted(slots, at, |other| other.seq < seq);
    }

    pub(super) fn is_held_back(&self, at: usize) -> bool {
        self.slot(at).state == State::HeldBack
    }

    /// A transmitted message is not transmitted again before [`release_held_back`](Self::release_held_back).
    pub(super) fn hold_back(&mut self, at: usize) {
        self.mark_lost(at);
        let slots = self.slots.as_mut();
        if slots[at].state == State::Lost {
            self.lost.remove(slots, at);
            slots[at].state = State::HeldBack;
            self.held_back.push_back(slots, at);
        }
    }

    /// What was held back is to be transmitted again.
    pub(super) fn release_held_back(&mut self) {
        while let Some(at) = self.held_back.first() {
            let slots = self.slots.as_mut();
            self.held_back.remove(slots, at);
            slots[at].state = State::Lost;
            let seq = slots[at].seq;
            self.lost.insert_sorted(slots, at, |other| other.seq < seq);
        }
    }

    /// Ends a message that was transmitted, and takes it out of its list.
    pub(super) fn decide(&mut self, at: usize, outcome: Outcome, epoch: Option<Epoch>) {
        let slots = self.slots.as_mut();
        match slots[at].state {
            State::InFlight => self.in_flight.remove(slots, at),
            State::Overtaken => self.overtaken.remove(slots, at),
            State::Lost => self.lost.remove(slots, at),
            State::HeldBack => self.held_back.remove(slots, at),
            State::Unsent => {}
            State::Free { .. } | State::Decided(_) => return,
        }
        slots[at].state = State::Decided(outcome);
        slots[at].epoch = epoch;
        self.decided.push_back(slots, at);
        self.undecided -= 1;
        self.pass_decided();
    }

    /// Decides the oldest undecided message. One that was never transmitted takes no seq with it.
    pub(super) fn decide_oldest(&mut self, outcome: Outcome) -> Option<MessageId> {
        if self.base == self.next {
            return None;
        }
        let at = self.index(self.base);
        let message = self.slot(at).message;
        if self.base == self.unsent {
            // All that was transmitted is decided: the ones after it move up by one seq.
            self.seq_offset += 1;
            self.unsent += 1;
            self.base += 1;
        }
        self.decide(at, outcome, None);
        Some(message)
    }

    /// The next message whose end is to be reported. Frees its slot.
    pub(super) fn pop_decided(&mut self) -> Option<Decided> {
        let at = self.decided.first()?;
        let slots = self.slots.as_mut();
        self.decided.remove(slots, at);
        let slot = &mut slots[at];
        let State::Decided(outcome) = slot.state else { return None };
        slot.state = State::Free { skipped: !matches!(outcome, Outcome::Acked(_)) };
        let decided = Decided { message: slot.message, seq: slot.seq, epoch: slot.epoch, outcome };
        self.free_tail();
        Some(decided)
    }

    /// A new epoch: what is undecided gets new seqs, from 1 on and without holes, and counts as not transmitted
    /// (PROTOCOL.md#duty-epoch).
    pub(super) fn renumber(&mut self) {
        // Undecided messages move to the end of the ring, in their order; the places before them are left to the rest.
        let mut to = self.next;
        for from in (self.base..self.next).rev() {
            let (from, state) = (self.index(from), self.slot(self.index(from)).state);
            if is_undecided(state) {
                to -= 1;
                let to = self.index(to);
                self.slots.as_mut().swap(from, to);
            }
        }
        (self.in_flight, self.overtaken) = (List::EMPTY, List::EMPTY);
        (self.lost, self.decided) = (List::EMPTY, List::EMPTY);
        self.held_back = List::EMPTY;
        for position in self.tail..self.next {
            let at = self.index(position);
            let slots = self.slots.as_mut();
            slots[at].links = Links::NONE;
            if position >= to {
                slots[at].state = State::Unsent;
                slots[at].attempt = 0;
            } else if let State::Decided(_) = slots[at].state {
                self.decided.push_back(slots, at);
            }
        }
        self.base = to;
        self.unsent = to;
        self.seq_offset = to - 1;
        self.skipped = Seq::ZERO;
        self.free_tail();
    }

    /// Moves the cursors over decided messages and frees their payloads.
    fn pass_decided(&mut self) {
        while self.base < self.next {
            let slot = self.slot(self.index(self.base));
            let skipped = match slot.state {
                State::Free { skipped } => skipped,
                State::Decided(outcome) => !matches!(outcome, Outcome::Acked(_)),
                State::Unsent | State::InFlight | State::Overtaken | State::Lost | State::HeldBack => break,
            };
            if skipped {
                self.skipped = self.seq(self.base);
            }
            self.base += 1;
        }
        let oldest = (self.base < self.next).then(|| self.slot(self.index(self.base)).payload_start);
        self.payloads.release(oldest);
    }

    fn free_tail(&mut self) {
        while self.tail < self.base && matches!(self.slot(self.index(self.tail)).state, State::Free { .. }) {
            self.tail += 1;
        }
    }

    fn seq(&self, position: u64) -> Seq {
        Seq(position - self.seq_offset)
    }

    #[allow(clippy::cast_possible_truncation)] // below the capacity, a usize
    fn index(&self, position: u64) -> usize {
        (position % self.capacity() as u64) as usize
    }
}

/// Whether a message has no end yet.
fn is_undecided(state: State) -> bool {
    !matches!(state, State::Free { .. } | State::Decided(_))
}
