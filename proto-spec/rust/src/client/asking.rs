//! The client's side of asks: what the caller does with them, what comes for them, and the TAKEs that it sends
//! (PROTOCOL.md#answers-client).

use super::asks::{Asks, State};
use super::doubt::Doubt;
use super::queue::Outcome;
use super::{Answered, AskConfig, AskSlot, Client, Ignored, MessageId, Outgoing, SendError, Slot, Status};
use crate::backoff;
use crate::codec::{Answer, AnswerStatus, Datagram, Reject, Take};
use crate::{Epoch, Seq};

/// The longest wait for a TAKE's reply beyond what the server may hold it, and the longest after PENDING, in microseconds, before
/// up to a quarter more at random.
const TAKE_INTERVAL_US_MAX: u64 = 60_000_000;
/// How soon to look again where GONE may be the answer to something else, in milliseconds.
const DOUBTED_RETRY_MS: u32 = 1_000;

impl<M, B> Client<M, B>
where
    M: AsRef<[Slot]> + AsMut<[Slot]>,
    B: AsRef<[u8]> + AsMut<[u8]>,
{
    /// The same client, able to ask: with slots for as many asks as may be unfinished at a time, of which at most 64
    /// are used, and bytes for the bodies of answers that were not handed out yet. A body that is longer than these
    /// bytes can never be had.
    pub fn with_asks<A, Y>(self, config: AskConfig, slots: A, bodies: Y) -> Client<M, B, A, Y>
    where
        A: AsRef<[AskSlot]> + AsMut<[AskSlot]>,
        Y: AsRef<[u8]> + AsMut<[u8]>,
    {
        let mut asks = Asks::new(config, slots, bodies);
        let room_max = self.datagram_len_max() - self.wire.overhead();
        let room = room_max.min(asks.body_capacity()).min(usize::from(config.room));
        asks.config.room = u16::try_from(room).unwrap_or(u16::MAX);
        Client {
            asks,
            config: self.config,
            wire: self.wire,
            queue: self.queue,
            random: self.random,
            rtt: self.rtt,
            congestion: self.congestion,
            epoch: self.epoch,
            hello: self.hello,
            doubt: self.doubt,
            acks: self.acks,
            next_transmission: self.next_transmission,
            timer: self.timer,
            tries: self.tries,
            fruitless_epochs: self.fruitless_epochs,
            paused_until_us: self.paused_until_us,
            silent: self.silent,
            expired: self.expired,
            probe: self.probe,
            ping_due: self.ping_due,
            pinged: self.pinged,
            congestion_limited: self.congestion_limited,
            epoch_changed: self.epoch_changed,
            server_waits: self.server_waits,
            stats: self.stats,
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
    /// Takes a message whose answer is wanted. As [`Client::send`]; and once it is acked, its answer is waited for and
    /// handed out exactly once by [`Client::poll_answer`]. A message that is not acked has no answer.
    ///
    /// # Errors
    /// As [`Client::send`]. `Full` also when as many asks are unfinished as there are slots: there will be room after
    /// answers. A client that was made without [`Client::with_asks`] is always full.
    pub fn ask(&mut self, now_us: u64, channel: u16, payload: &[u8]) -> Result<MessageId, SendError> {
        if payload.len() <= self.payload_len_max() && self.doubt != Doubt::Used && !self.asks.has_room() {
            return Err(SendError::Full);
        }
        let message = self.push(now_us, Outgoing { channel, batch: false, payload }, true)?;
        self.asks.add_message(message);
        Ok(message)
    }

    /// Waits for an answer whose message was acked in an earlier run of this client id: what [`Client::waiting`] told
    /// then. It is taken in its old epoch; who had more than one waiting there gives all before the next datagram is
    /// sent, since what lies below the lowest one known is forgotten by the server.
    ///
    /// # Errors
    /// `Full` when as many asks are unfinished as there are slots; nothing has changed. One that waits already waits on, and one
    /// that was left ([`Client::leave_ask`]) is taken after all.
    pub fn take(&mut self, now_us: u64, epoch: Epoch, seq: Seq) -> Result<(), SendError> {
        if let Some(at) = self.asks.of_place(epoch, seq) {
            self.asks.take_back(now_us, at);
            return Ok(());
        }
        if seq == Seq::ZERO {
            return Ok(());
        }
        if !self.asks.has_room() {
            return Err(SendError::Full);
        }
        self.asks.add_acked(now_us, epoch, seq);
        Ok(())
    }

    /// The next answer. To be drained like events, after them; a body stays until the next call.
    pub fn poll_answer(&mut self) -> Option<Answered<'_>> {
        self.asks.pop_finished()
    }

    /// What is acked and whose answer was not handed out: who stores this can go on after a restart
    /// ([`Client::take`]). An answer that was handed out just before may then be told as gone, or come twice.
    pub fn waiting(&self) -> impl Iterator<Item = (Epoch, Seq)> + '_ {
        self.asks.acked()
    }

    /// Asks that are not finished, acked or not, and those whose answer was not handed out.
    pub fn asking(&self) -> usize {
        self.asks.unfinished()
    }

    /// The answer to this message is not wanted any more. The message itself is sent on until it is acked. Returns
    /// whether it was wanted.
    pub fn forget_ask(&mut self, message: MessageId) -> bool {
        let at = self.asks.of_message(message);
        at.map(|at| self.asks.free(at)).is_some()
    }

    /// As [`Client::forget_ask`], for one that is named by its place.
    pub fn forget_taken(&mut self, epoch: Epoch, seq: Seq) -> bool {
        let at = self.asks.of_place(epoch, seq);
        at.map(|at| self.asks.free(at)).is_some()
    }

    /// The answer to this message stays at the server for another run, which can [`take`](Client::take) it: it is told as
    /// waiting, and not handed out in this run unless this run takes it. Returns whether it was waited for.
    pub fn leave_ask(&mut self, message: MessageId) -> bool {
        let at = self.asks.of_message(message);
        at.map(|at| self.asks.leave(at)).is_some()
    }

    /// As [`Client::leave_ask`], for one that is named by its place.
    pub fn leave_taken(&mut self, epoch: Epoch, seq: Seq) -> bool {
        let at = self.asks.of_place(epoch, seq);
        at.map(|at| self.asks.leave(at)).is_some()
    }

    /// The device has woken up: each answer that is waited for is asked for once, but for those of which the server said
    /// that it is too early. Without effect on a client that does not sleep.
    pub fn wake(&mut self, now_us: u64) {
        self.asks.wake(now_us, None);
    }

    /// No other ask will follow: when none waits the server is told so at once, not a second later.
    pub fn finish_asks(&mut self) {
        self.asks.hasten_farewell();
    }

    /// Whether answers were had and the server is not told yet that it need not keep them ([`Client::finish_asks`]).
    pub fn owes_farewell(&self) -> bool {
        self.asks.owes_farewell(self.epoch)
    }

    /// Whether TAKEs go out and nothing comes back.
    pub fn takes_in_silence(&self) -> bool {
        self.asks.is_unheard()
    }

    /// TAKEs that were sent and not answered.
    pub fn takes_open(&self) -> usize {
        self.asks.open()
    }

    pub(super) fn handle_answer(&mut self, now_us: u64, answer: &Answer<'_>) -> Result<(), Ignored> {
        if answer.client != self.config.client {
            return Err(Ignored::OtherClient);
        }
        let Some(at) = self.asks.waiting(answer.epoch, answer.seq) else {
            return Err(if Some(answer.epoch) == self.epoch { Ignored::Unasked } else { Ignored::OtherEpoch });
        };
        match answer.status {
            AnswerStatus::Done => self.handle_body(now_us, at, Status::Done, answer),
            AnswerStatus::Failed => self.handle_body(now_us, at, Status::Failed, answer),
            AnswerStatus::Gone if self.asks.may_be_farewells(now_us, answer.epoch, answer.seq) => {
                self.handle_pending(now_us, at, DOUBTED_RETRY_MS);
            }
            AnswerStatus::Gone => _ = self.asks.finish(at, Status::Gone, 0, &[]),
            AnswerStatus::Pending | AnswerStatus::Unknown(_) => self.handle_pending(now_us, at, answer.number),
        }
        Ok(())
    }

    fn handle_body(&mut self, now_us: u64, at: usize, status: Status, answer: &Answer<'_>) {
        let (length, body) = (answer.number, answer.body);
        let room_max = (self.datagram_len_max() - self.wire.overhead()).min(self.asks.body_capacity());
        let wanted = u16::try_from(length).ok().filter(|&length| usize::from(length) <= room_max);
        let timeout_us = self.timeout_us();
        let Some(wanted) = wanted else {
            self.asks.finish(at, status, length, &[]);
            return;
        };
        let slot = self.asks.slot_mut(at);
        if body.len() < usize::from(wanted) {
            // What had room for it already is repeated when its time has come: this may be the answer to an earlier one.
            if slot.room < wanted || slot.state == State::Asleep {
                (slot.room, slot.state, slot.at_us, slot.tries) = (slot.room.max(wanted), State::Due, now_us, 0);
            }
        } else if !self.asks.finish(at, status, length, body) {
            // Nobody has fetched the answers before it: as if it had been lost.
            let slot = self.asks.slot_mut(at);
            (slot.state, slot.at_us) = (State::Paused, now_us.saturating_add(timeout_us));
        }
    }

    /// Only one for each TAKE counts: else repeated ones would put it off for ever.
    fn handle_pending(&mut self, now_us: u64, at: usize, retry_after_ms: u32) {
        if self.asks.slot(at).state != State::Open {
            return;
        }
        let asked_us = u64::from(retry_after_ms) * 1_000;
        let wait_us = asked_us.max(self.timeout_us()).min(TAKE_INTERVAL_US_MAX);
        let at_us = now_us.saturating_add(backoff::jittered_us(wait_us, 4, &mut self.random));
        let state = if self.asks.config.sleeps { State::Asleep } else { State::Paused };
        let slot = self.asks.slot_mut(at);
        (slot.state, slot.at_us, slot.tries) = (state, at_us, 0);
        slot.early = slot.early.saturating_add(1);
    }

    /// Writes the next TAKE to send now.
    pub(super) fn transmit_take(&mut self, now_us: u64, out: &mut [u8]) -> Option<usize> {
        if out.len() < self.datagram_len_max() {
            return None;
        }
        while let Some(next) = self.asks.next_take(now_us, self.epoch, self.congestion.window()) {
            let config = self.asks.config;
            let slot = next.at.map(|at| *self.asks.slot(at));
            let tries = slot.map_or(0, |slot| slot.tries);
            let is_current = Some(next.epoch) == self.epoch;
            if !is_current && tries > 0 {
                self.wire.rise_in_old_epochs();
            }
            let take = Take {
                client: self.config.client,
                epoch: next.epoch,
                seq: next.seq,
                span: next.span,
                wait_ms: slot.filter(|_| !config.sleeps).map_or(0, |slot| slot.wait_ms(&config)),
                room: slot.map_or(0, |slot| usize::from(slot.room)),
            };
            let Some(len) = self.wire.encode_take(&Datagram::Take(take), is_current, out) else {
                // All numbers of its key are used: nothing can be asked for there any more.
                match next.at {
                    Some(at) => _ = self.asks.finish(at, Status::Gone, 0, &[]),
                    None => self.asks.note_taken(now_us, &next, now_us, 0),
                }
                continue;
            };
            let (timeout_us, tries) = (self.timeout_us(), u32::from(tries));
            let late_us = backoff::interval_us(timeout_us, tries, TAKE_INTERVAL_US_MAX, &mut self.random);
            let interval_us = u64::from(take.wait_ms).saturating_mul(1_000).saturating_add(late_us);
            let round_trip_us = self.rtt.smoothed_us().unwrap_or(timeout_us).max(1);
            self.asks.note_taken(now_us, &next, now_us.saturating_add(interval_us), round_trip_us);
            self.stats.takes += 1;
            return Some(len);
        }
        None
    }

    /// A server without room for one more ask refuses it for the time being: others are not held up (PROTOCOL.md#answers-client).
    /// Returns whether it was such a refusal.
    pub(super) fn hold_back(&mut self, now_us: u64, at: usize, reject: &Reject) -> bool {
        // Before anything was acked it may as well be the session that there is no room for.
        if !self.queue.slot(at).ask || !self.acks.fruitful || self.doubt != Doubt::Settled {
            return false;
        }
        self.queue.hold_back(at);
        let asked_us = match reject.retry_after_ms {
            0 => self.timeout_us(),
            ms => (u64::from(ms) * 1_000).min(self.config.retry_after_max_us),
        };
        let until_us = now_us.saturating_add(backoff::jittered_us(asked_us, 2, &mut self.random));
        self.asks.note_held_back(until_us);
        true
    }

    pub(super) fn handle_ask_timeout(&mut self, now_us: u64) {
        self.asks.time_out(now_us);
        if self.asks.held_back_until_us.is_some_and(|at| at <= now_us) {
            self.asks.held_back_until_us = None;
            self.queue.release_held_back();
        }
    }

    pub(super) fn ask_deadline_us(&self) -> Option<u64> {
        self.asks.deadline_us(self.congestion.window())
    }

    /// Decides the oldest message; its answer is not waited for.
    pub(super) fn decide_oldest(&mut self, outcome: Outcome) -> Option<MessageId> {
        let message = self.queue.decide_oldest(outcome)?;
        self.asks.drop_message(message);
        Some(message)
    }
}
