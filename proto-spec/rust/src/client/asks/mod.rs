//! The messages whose answers are waited for: at most 64, in slots that the caller lends, and the bodies of the answers
//! that were had and not yet handed out (PROTOCOL.md#answers).
//!
//! It knows which seq of which epoch waits and since when; nothing of datagrams or windows. A client that never asks
//! lends no slots and pays for a few words.

mod shape;
mod take;

use super::MessageId;
use super::payloads::Payloads;
use crate::{Epoch, Seq};

pub(super) use shape::State;
pub use shape::{Answered, AskConfig, AskSlot, Status};

/// Asks of one client that are not finished, at most: a server keeps no more (PROTOCOL.md#answers-client).
pub const ASKS_MAX: usize = 64;
/// TAKEs that are sent and not answered, at most.
const OPEN_MAX: usize = 16;

/// The asks of a client. `A` holds the slots, `Y` the bytes of bodies as a ring.
#[derive(Debug)]
pub(super) struct Asks<A, Y> {
    pub(super) config: AskConfig,
    slots: A,
    bodies: Payloads<Y>,
    /// Slots that are not free.
    used: usize,
    /// Of these, those whose end was not handed out.
    unfinished: u8,
    /// Answers had so far, which gives their order.
    finished: u64,
    /// The highest seq of this epoch that asked and was acked.
    last_asked: Seq,
    farewell: Farewell,
    /// Places that are free here, and of which the server may not have been told: it takes them for taken.
    untold: u8,
    /// The highest seq that asked of those that a farewell told of.
    farewelled_to: Seq,
    /// Where the last one went, and until when its answer may still be on its way.
    farewelled: Option<(Epoch, Seq, u64)>,
    /// TAKEs sent in the round trip that ends at the time given.
    round: Round,
    /// When messages that asked and were refused for the time being are sent again.
    pub(super) held_back_until_us: Option<u64>,
}

/// The TAKE that tells the server that no answer to what is acked is waited for any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Farewell {
    None,
    At(u64),
    Due,
    /// As soon as nothing waits, without waiting for another ask.
    Hastened,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    ends_us: u64,
    sent: u32,
}

impl<A, Y> Asks<A, Y>
where
    A: AsRef<[AskSlot]> + AsMut<[AskSlot]>,
    Y: AsRef<[u8]> + AsMut<[u8]>,
{
    pub(super) fn new(config: AskConfig, mut slots: A, bodies: Y) -> Self {
        slots.as_mut().fill(AskSlot::EMPTY);
        Self {
            config,
            slots,
            bodies: Payloads::new(bodies),
            used: 0,
            unfinished: 0,
            untold: 0,
            finished: 0,
            last_asked: Seq::ZERO,
            farewell: Farewell::None,
            farewelled_to: Seq::ZERO,
            farewelled: None,
            round: Round { ends_us: 0, sent: 0 },
            held_back_until_us: None,
        }
    }

    fn slots(&self) -> &[AskSlot] {
        let slots = self.slots.as_ref();
        if self.used == 0 { &[] } else { &slots[..slots.len().min(ASKS_MAX)] }
    }

    fn slots_mut(&mut self) -> &mut [AskSlot] {
        let slots = self.slots.as_mut();
        let len = slots.len().min(ASKS_MAX);
        if self.used == 0 { &mut [] } else { &mut slots[..len] }
    }

    pub(super) fn find(&self, fits: impl Fn(&AskSlot) -> bool) -> Option<usize> {
        self.slots().iter().position(|slot| slot.state != State::Free && fits(slot))
    }

    pub(super) fn slot(&self, at: usize) -> &AskSlot {
        &self.slots.as_ref()[at]
    }

    pub(super) fn slot_mut(&mut self, at: usize) -> &mut AskSlot {
        &mut self.slots.as_mut()[at]
    }

    /// Asks that have no end yet, or whose end was not handed out.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.into()
    }

    /// What was had above one that is not finished takes room here as it does at the server, which would else refuse the
    /// lower one for ever, if that is not acked yet.
    pub(super) fn has_room(&self) -> bool {
        self.used < self.slots.as_ref().len().min(ASKS_MAX)
    }

    /// Takes one in; the caller has seen that there is room.
    fn add(&mut self, slot: AskSlot) {
        self.used += 1;
        self.unfinished += 1;
        if let Some(free) = self.slots_mut().iter_mut().find(|slot| slot.state == State::Free) {
            *free = slot;
        }
    }

    /// A message that asks was taken.
    pub(super) fn add_message(&mut self, message: MessageId) {
        self.add(AskSlot { message: Some(message), state: State::Unacked, ..AskSlot::EMPTY });
    }

    /// Adds one whose message was acked in an earlier run; it is taken at once.
    pub(super) fn add_acked(&mut self, now_us: u64, epoch: Epoch, seq: Seq) {
        let room = self.config.room;
        self.add(AskSlot { epoch: Some(epoch), seq, at_us: now_us, room, state: State::Due, ..AskSlot::EMPTY });
    }

    pub(super) fn of_message(&self, message: MessageId) -> Option<usize> {
        self.find(|slot| slot.message == Some(message) && slot.state != State::Had)
    }

    /// What was acked under this number and not handed out.
    pub(super) fn of_place(&self, epoch: Epoch, seq: Seq) -> Option<usize> {
        let is_here = |slot: &AskSlot| (slot.epoch, slot.seq) == (Some(epoch), seq);
        self.find(|slot| is_here(slot) && !matches!(slot.state, State::Had | State::Unacked))
    }

    /// A message that asks is transmitted under this number.
    pub(super) fn note_sent(&mut self, message: MessageId, epoch: Epoch, seq: Seq) {
        if let Some(at) = self.of_message(message) {
            let slot = self.slot_mut(at);
            (slot.epoch, slot.seq) = (Some(epoch), seq);
        }
    }

    /// The message is on the server's disk: its answer is waited for.
    pub(super) fn note_acked(&mut self, now_us: u64, message: MessageId, epoch: Epoch, seq: Seq) {
        self.last_asked = self.last_asked.max(seq);
        let (state, room) = (if self.config.sleeps { State::Asleep } else { State::Due }, self.config.room);
        if let Some(at) = self.of_message(message) {
            let slot = self.slot_mut(at);
            let state = if slot.is_left { State::Left } else { state };
            *slot = AskSlot { epoch: Some(epoch), seq, at_us: now_us, room, state, ..*slot };
        }
    }

    /// Its message will never be acked.
    pub(super) fn drop_message(&mut self, message: MessageId) {
        if let Some(at) = self.find(|slot| slot.message == Some(message) && slot.state == State::Unacked) {
            self.free(at);
        }
    }

    /// A new epoch: what is not acked gets another seq, what is acked waits on in its old epoch.
    pub(super) fn enter_epoch(&mut self) {
        for slot in self.slots_mut() {
            if slot.state == State::Unacked {
                (slot.epoch, slot.seq) = (None, Seq::ZERO);
            }
        }
        (self.last_asked, self.farewelled_to) = (Seq::ZERO, Seq::ZERO);
        self.farewell = Farewell::None;
        self.held_back_until_us = None;
    }

    /// Its answer is not taken in this run, and the server not told that it is unwanted.
    pub(super) fn leave(&mut self, at: usize) {
        let slot = self.slot_mut(at);
        slot.is_left = true;
        if slot.is_acked() {
            slot.state = State::Left;
        }
    }

    /// What was left is wanted after all.
    pub(super) fn take_back(&mut self, now_us: u64, at: usize) {
        let slot = self.slot_mut(at);
        if slot.state == State::Left {
            (slot.state, slot.at_us, slot.is_left) = (State::Due, now_us, false);
        }
    }

    /// The answer of this one is not wanted any more, or was handed out.
    pub(super) fn free(&mut self, at: usize) {
        let is_acked = self.slot(at).state != State::Unacked;
        let slot = self.slot_mut(at);
        slot.state = if is_acked { State::Had } else { State::Free };
        let epoch = slot.epoch;
        self.unfinished -= 1;
        self.used -= usize::from(!is_acked);
        let lowest = self.lowest(epoch);
        let mut freed = 0;
        for slot in self.slots_mut() {
            let is_forgotten = lowest.is_none_or(|lowest| slot.seq < lowest);
            if slot.state == State::Had && slot.epoch == epoch && is_forgotten {
                slot.state = State::Free;
                freed += 1;
            }
        }
        self.used -= freed;
        // No more than there are places.
        self.untold = self.untold.saturating_add(u8::try_from(freed).unwrap_or(u8::MAX));
    }

    /// Whether a message that asks might find no room at the server before that is told what was had.
    pub(super) fn is_tight(&self) -> bool {
        self.untold > 0 && self.used + usize::from(self.untold) > ASKS_MAX
    }

    /// What waits in this session for an answer.
    pub(super) fn waiting(&self, epoch: Epoch, seq: Seq) -> Option<usize> {
        self.find(|slot| slot.is_acked() && slot.epoch == Some(epoch) && slot.seq == seq)
    }

    pub(super) fn waits_in(&self, epoch: Epoch) -> bool {
        self.find(|slot| slot.is_acked() && slot.epoch == Some(epoch)).is_some()
    }

    /// The lowest seq of a session whose answer was not handed out, acked or not.
    fn lowest(&self, epoch: Option<Epoch>) -> Option<Seq> {
        let of_epoch = |slot: &&AskSlot| !matches!(slot.state, State::Free | State::Had) && slot.epoch == epoch;
        self.slots().iter().filter(of_epoch).map(|slot| slot.seq).min()
    }

    /// The longest body that can ever be kept.
    pub(super) fn body_capacity(&self) -> usize {
        self.bodies.capacity().min(usize::from(u16::MAX))
    }

    /// Notes the end of one that waits; `false`, unchanged, when there is no room for its body before others are handed
    /// out.
    pub(super) fn finish(&mut self, at: usize, status: Status, length: u32, body: &[u8]) -> bool {
        let (Some(body_start), Ok(body_len)) = (self.bodies.push(body), u16::try_from(body.len())) else {
            return false;
        };
        let order = self.finished;
        self.finished += 1;
        let slot = self.slot_mut(at);
        *slot = AskSlot { at_us: order, length, body_start, body_len, state: State::Finished(status), ..*slot };
        true
    }

    /// The next end to hand out, in the order in which they came. The body stays until the next call.
    pub(super) fn pop_finished(&mut self) -> Option<Answered<'_>> {
        let order = |slot: &AskSlot| matches!(slot.state, State::Finished(_)).then_some(slot.at_us);
        let first =
            (0..self.slots().len()).filter(|at| order(self.slot(*at)).is_some()).min_by_key(|at| self.slot(*at).at_us);
        self.bodies.release(first.map(|at| self.slot(at).body_start));
        let at = first?;
        let slot = *self.slot(at);
        let (State::Finished(status), Some(epoch)) = (slot.state, slot.epoch) else { return None };
        self.free(at);
        let body = self.bodies.slice(slot.body_start, slot.body_len);
        Some(Answered { message: slot.message, epoch, seq: slot.seq, status, length: slot.length, body })
    }

    /// Answers told to the caller by no one yet, and those that are waited for: what to store before a restart.
    pub(super) fn acked(&self) -> impl Iterator<Item = (Epoch, Seq)> + '_ {
        let known = |slot: &AskSlot| matches!(slot.state, State::Finished(_) | State::Left) || slot.is_acked();
        self.slots().iter().filter(move |slot| known(slot)).filter_map(|slot| Some((slot.epoch?, slot.seq)))
    }

    /// Asks in which the next sleeping ones are due again.
    pub(super) fn wake(&mut self, now_us: u64, only_in: Option<Epoch>) {
        for slot in self.slots_mut() {
            let fits = only_in.is_none() || slot.epoch == only_in;
            if slot.state == State::Asleep && slot.at_us <= now_us && fits {
                (slot.state, slot.at_us) = (State::Due, now_us);
            }
        }
    }
}
