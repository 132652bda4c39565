//! The state machine with what the library adds to it: tickets for records, and batches. No socket, no clock, no task.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use duragram_proto::Epoch;
use duragram_proto::client::{
    AskSlot, Client as Machine, Event, FailReason, MessageId, Outgoing, SendError as MachineError, Slot,
};
use duragram_proto::codec::RejectCode;
use tokio::sync::oneshot;

use super::{Batching, Incomplete, Receipt, SendError, Stats};

mod asks;
#[cfg(test)]
mod tests;

pub(super) use asks::{AnswerOutcome, Asker, PushedAsk};
pub(super) use asks::{DEFAULT as ASK_CONFIG, memory as ask_memory};

/// The machine with memory of its own.
pub(super) type HeapMachine = Machine<Vec<Slot>, Vec<u8>, Vec<AskSlot>, Vec<u8>>;

/// Bytes of a record's length in a batch.
const LEN_BYTES: usize = 2;
/// The low nibble of a REJECT's first byte.
const TYPE_REJECT: u8 = 3;

/// What a ticket ends with.
pub(super) type Outcome = Result<Receipt, SendError>;

/// All that a client decides is decided here, so that tests need neither network nor time.
pub(super) struct Core {
    machine: HeapMachine,
    /// Of the messages from `lowest` on; `None` where the outcome was reported.
    tickets: VecDeque<Option<Tickets>>,
    lowest: u64,
    /// A batch waits so long for more records; `None` sends each record in a datagram of its own.
    linger_us: Option<u64>,
    batch: Batch,
    /// The machine had no room for the batch, and nothing has left it since.
    batch_blocked: bool,
    intake: Intake,
    /// The epoch that the client was given and that was used before.
    epoch_used: Option<Epoch>,
    acked: u64,
    failed: u64,
    abandoned: u64,
    unacked: u64,
    rejects: u64,
    /// The latest of them, until something is acked.
    refusal: Option<RejectCode>,
    ignored: u64,
    askers: asks::Askers,
    /// Something has asked before, so that answers may come.
    has_asked: bool,
    answered: u64,
    /// There is room, or progress of a flush, that nobody was told of.
    has_news: bool,
}

/// Who waits for a message: one record, or the records of a batch.
#[derive(Debug)]
enum Tickets {
    One(oneshot::Sender<Outcome>),
    Batch(Vec<oneshot::Sender<Outcome>>),
}

/// Records that will share the next message. Empty when it holds no ticket.
#[derive(Debug, Default)]
struct Batch {
    channel: u16,
    /// The run of records as it goes into the datagram.
    payload: Vec<u8>,
    tickets: Vec<oneshot::Sender<Outcome>>,
    since_us: u64,
    /// Someone waits for it: do not linger.
    hurry: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Intake {
    Open,
    /// No more records; those that are here go on.
    Closing,
    Ended(Incomplete),
}

/// Why a record cannot be taken, ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    TooLarge { bytes: usize, bytes_max: usize },
    Closed,
    EpochUsed(Epoch),
}

impl From<Refused> for SendError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
            Refused::Closed => Self::Closed,
            Refused::EpochUsed(epoch) => Self::EpochUsed(epoch),
        }
    }
}

/// A record's way into the core.
#[derive(Debug)]
pub(super) enum Push {
    Taken(oneshot::Receiver<Outcome>),
    /// Not now; there will be room after acks.
    Full,
}

impl Core {
    pub(super) fn new(machine: HeapMachine, batching: Batching) -> Self {
        Self {
            machine,
            tickets: VecDeque::new(),
            lowest: 0,
            linger_us: match batching {
                Batching::Off => None,
                Batching::Linger(linger) => Some(u64::try_from(linger.as_micros()).unwrap_or(u64::MAX)),
            },
            batch: Batch::default(),
            batch_blocked: false,
            intake: Intake::Open,
            epoch_used: None,
            acked: 0,
            failed: 0,
            abandoned: 0,
            unacked: 0,
            rejects: 0,
            refusal: None,
            ignored: 0,
            askers: Vec::new(),
            has_asked: false,
            answered: 0,
            has_news: false,
        }
    }

    /// Takes a record, if there is room. On `Full` and `Refused` nothing has changed for it.
    pub(super) fn push(&mut self, now_us: u64, channel: u16, record: &[u8]) -> Result<Push, Refused> {
        let bytes_max = self.check_intake(record)?;
        let in_batch = LEN_BYTES + record.len();
        let fits = self.batch.payload.len() + in_batch <= bytes_max;
        if !self.batch.tickets.is_empty() && (self.batch.channel != channel || !fits) && !self.send_batch(now_us) {
            return Ok(Push::Full);
        }
        let (ticket, outcome) = oneshot::channel();
        if self.linger_us.is_some() && in_batch <= bytes_max {
            self.batch.add(now_us, channel, record, ticket);
        } else if self.send_message(now_us, Outgoing { channel, batch: false, payload: record }) {
            self.tickets.push_back(Some(Tickets::One(ticket)));
        } else {
            return Ok(Push::Full);
        }
        self.unacked += 1;
        Ok(Push::Taken(outcome))
    }

    /// Whether a record can be taken at all; the longest possible.
    fn check_intake(&self, record: &[u8]) -> Result<usize, Refused> {
        if self.intake != Intake::Open {
            return Err(Refused::Closed);
        }
        if let Some(epoch) = self.epoch_used {
            return Err(Refused::EpochUsed(epoch));
        }
        let bytes_max = self.machine.payload_len_max();
        if record.len() > bytes_max {
            return Err(Refused::TooLarge { bytes: record.len(), bytes_max });
        }
        Ok(bytes_max)
    }

    /// Handles a datagram; `false` when it was not from this session's server.
    pub(super) fn receive(&mut self, now_us: u64, datagram: &mut [u8]) -> bool {
        match self.machine.handle_datagram(now_us, datagram) {
            Ok(()) => {
                if let [first, _, low, high, ..] = &*datagram
                    && first & 0x0f == TYPE_REJECT
                {
                    self.rejects += 1;
                    // In clear in sealed mode too, and the seal was verified.
                    self.refusal = Some(RejectCode::from_wire(u16::from_le_bytes([*low, *high])));
                }
                if self.has_asked {
                    // Before the next one, whose body would find no room. Receipts come before answers.
                    self.has_news |= self.tell_events();
                    self.tell_answers();
                }
                true
            }
            Err(ignored) => {
                tracing::debug!(?ignored, "datagram ignored");
                self.ignored += 1;
                false
            }
        }
    }

    /// Does what is due and tells outcomes. `true` when there is news: room, or progress of a flush.
    pub(super) fn advance(&mut self, now_us: u64) -> bool {
        if self.machine.poll_timeout().is_some_and(|at| at <= now_us) {
            self.machine.handle_timeout(now_us);
        }
        let news = self.tell_events() | std::mem::take(&mut self.has_news);
        if self.batch_due().is_some_and(|at| at <= now_us) {
            self.send_batch(now_us);
        }
        news
    }

    /// Gives up the oldest message, or, when there is none, the records of the open batch; returns how many records that were.
    pub(super) fn abandon_oldest(&mut self) -> u64 {
        let before = self.abandoned;
        // Events that are due already come first: what was acked is not the oldest any more.
        self.tell_events();
        if self.machine.abandon_oldest().is_some() {
            self.tell_events();
        } else {
            for ticket in self.batch.tickets.drain(..) {
                ticket.send(Err(SendError::Abandoned)).ok();
                self.abandoned += 1;
                self.unacked -= 1;
            }
            self.batch.clear();
        }
        self.abandoned - before
    }

    /// The next datagram to send now.
    pub(super) fn transmit(&mut self, now_us: u64, out: &mut [u8]) -> Option<usize> {
        let len = self.machine.poll_transmit(now_us, out);
        if self.has_asked {
            // What cannot be asked for any more is gone.
            self.tell_answers();
        }
        len
    }

    /// When to call [`Core::advance`] again.
    pub(super) fn wake_us(&self) -> Option<u64> {
        match (self.machine.poll_timeout(), self.batch_due()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Ends the lingering of the open batch; returns the message id that a flush waits for to be passed.
    pub(super) fn hurry(&mut self) -> u64 {
        let next = self.lowest + self.tickets.len() as u64;
        if self.batch.tickets.is_empty() {
            return next;
        }
        self.batch.hurry = true;
        next + 1
    }

    /// Whether every message below `id` has its outcome, or none will have one any more. An open batch that [`Core::hurry`]
    /// counted may have ended without ever being a message.
    pub(super) fn is_settled(&self, id: u64) -> bool {
        self.lowest >= id || self.is_idle() || matches!(self.intake, Intake::Ended(_))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unacked == 0
    }

    pub(super) fn path_changed(&mut self, now_us: u64) {
        self.machine.path_changed(now_us);
    }

    pub(super) fn refuse_more(&mut self) {
        if self.intake == Intake::Open {
            self.intake = Intake::Closing;
        }
    }

    /// Gives up what is unacked, for good.
    pub(super) fn end(&mut self) -> Incomplete {
        if let Intake::Ended(incomplete) = self.intake {
            return incomplete;
        }
        let incomplete = Incomplete { unacked: self.unacked, failed: self.failed };
        self.intake = Intake::Ended(incomplete);
        // A ticket without its sender reads as `Closed`.
        self.tickets.clear();
        self.batch.clear();
        self.askers.clear();
        incomplete
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.machine.epoch()
    }

    /// All but what the driver counts.
    pub(super) fn stats(&self) -> Stats {
        let machine = self.machine.stats();
        Stats {
            acked: self.acked,
            failed: self.failed,
            abandoned: self.abandoned,
            unacked: self.unacked,
            asking: self.machine.asking() as u64,
            answered: self.answered,
            takes_unheard: self.machine.takes_in_silence(),
            transmissions: machine.transmissions,
            retransmissions: machine.retransmissions,
            rejects: self.rejects,
            refusal: self.refusal,
            ignored: self.ignored,
            reroutes: 0,
            rtt: self.machine.rtt_us().map(Duration::from_micros),
            epoch: self.epoch(),
        }
    }

    /// When the open batch goes: at once when nothing else is under way. While messages wait for the window, or there is
    /// no room, sending it would win nothing; it fills up instead, and acks call again.
    fn batch_due(&self) -> Option<u64> {
        let linger_us = self.linger_us?;
        if self.batch.tickets.is_empty() || self.batch_blocked {
            return None;
        }
        let queued = self.machine.queued();
        if queued == 0 {
            Some(0)
        } else if queued > self.machine.in_flight() {
            None
        } else if self.batch.hurry {
            Some(0)
        } else {
            Some(self.batch.since_us.saturating_add(linger_us))
        }
    }

    /// Turns the batch into a message; `false` when there is no room.
    fn send_batch(&mut self, now_us: u64) -> bool {
        // A lone record needs no length, and no server's support of batches.
        let alone = self.batch.tickets.len() == 1;
        let payload = std::mem::take(&mut self.batch.payload);
        let message = Outgoing {
            channel: self.batch.channel,
            batch: !alone,
            payload: if alone { &payload[LEN_BYTES..] } else { &payload },
        };
        let sent = self.send_message(now_us, message);
        self.batch.payload = payload;
        self.batch_blocked = !sent;
        if sent {
            self.tickets.push_back(Some(Tickets::Batch(std::mem::take(&mut self.batch.tickets))));
            self.batch.clear();
        }
        sent
    }

    /// `false` when there is no room. The caller adds the message's tickets.
    fn send_message(&mut self, now_us: u64, message: Outgoing<'_>) -> bool {
        match self.machine.send(now_us, message) {
            Ok(MessageId(id)) => {
                debug_assert_eq!(id, self.lowest + self.tickets.len() as u64, "ids count from 0");
                true
            }
            // Before the event that says so was taken, nothing has room in a used epoch.
            Err(MachineError::Full | MachineError::EpochUsed) => false,
            Err(error @ (MachineError::TooLarge | MachineError::BrokenBatch)) => {
                unreachable!("lengths are checked before and batches are built here: {error:?}")
            }
        }
    }

    /// Passes on what the machine reports, and returns whether that was anything.
    fn tell_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.machine.poll_event() {
            any = true;
            self.batch_blocked = false;
            self.tell(event);
        }
        any
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Acked { message, seq, epoch, durability } => {
                let receipt = |index| Ok(Receipt { epoch, seq, index, durability });
                self.refusal = None;
                self.acked += self.settle(message, receipt);
            }
            Event::Failed { message, reason: FailReason::EpochUsed } => {
                let outcome = self.epoch_is_used();
                self.fail_asker(message, outcome);
                self.failed += self.settle(message, |_| Err(outcome));
            }
            Event::Failed { message, reason } => {
                tracing::warn!(?reason, "the server refused a message for good");
                self.fail_asker(message, SendError::Rejected(reason));
                self.failed += self.settle(message, |_| Err(SendError::Rejected(reason)));
            }
            Event::Abandoned { message } => {
                self.fail_asker(message, SendError::Abandoned);
                self.abandoned += self.settle(message, |_| Err(SendError::Abandoned));
            }
            Event::EpochChanged { from, to } => {
                tracing::info!(from = from.map(Epoch::value), to = to.value(), "a session begins");
            }
            Event::ServerWaits { code, until_us } => {
                tracing::warn!(?code, until_us, "the server asks for patience");
            }
        }
    }

    /// Nothing can be sent any more, nor can what waits in the open batch.
    fn epoch_is_used(&mut self) -> SendError {
        self.epoch_used = self.epoch();
        let outcome = self.epoch_used.map_or(SendError::Closed, SendError::EpochUsed);
        for ticket in self.batch.tickets.drain(..) {
            ticket.send(Err(outcome)).ok();
            self.failed += 1;
            self.unacked -= 1;
        }
        self.batch.clear();
        outcome
    }

    /// Tells the records of a message their outcome; returns how many they were.
    fn settle(&mut self, MessageId(id): MessageId, outcome: impl Fn(u16) -> Outcome) -> u64 {
        let place = id.checked_sub(self.lowest).and_then(|place| usize::try_from(place).ok());
        let Some(tickets) = place.and_then(|place| self.tickets.get_mut(place)).and_then(Option::take) else {
            return 0;
        };
        let records = match tickets {
            Tickets::One(ticket) => {
                // Nobody may be waiting: the caller has dropped its `Pending`.
                ticket.send(outcome(0)).ok();
                1
            }
            Tickets::Batch(tickets) => {
                let records = tickets.len() as u64;
                for (index, ticket) in (0..).zip(tickets) {
                    ticket.send(outcome(index)).ok();
                }
                records
            }
        };
        self.unacked -= records;
        while self.tickets.front().is_some_and(Option::is_none) {
            self.tickets.pop_front();
            self.lowest += 1;
        }
        records
    }
}

/// The buffers are not for reading.
impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("intake", &self.intake).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Batch {
    fn add(&mut self, now_us: u64, channel: u16, record: &[u8], ticket: oneshot::Sender<Outcome>) {
        if self.tickets.is_empty() {
            self.channel = channel;
            self.since_us = now_us;
        }
        // A record fits in a datagram, so its length fits in 16 bits.
        let len = u16::try_from(record.len()).unwrap_or(u16::MAX);
        self.payload.extend_from_slice(&len.to_le_bytes());
        self.payload.extend_from_slice(record);
        self.tickets.push(ticket);
    }

    fn clear(&mut self) {
        self.payload.clear();
        self.tickets.clear();
        self.hurry = false;
    }
}
