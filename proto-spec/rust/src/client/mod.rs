//! The client's half of the protocol as a state machine: it is told of messages, datagrams and time, and asked for
//! datagrams, a deadline and events. It knows no socket, no clock and no allocator (PROTOCOL.md#client-duties).
//!
//! # Driving it
//! After each call that changes it ([`send`](Client::send), [`handle_datagram`](Client::handle_datagram),
//! [`handle_timeout`](Client::handle_timeout), [`abandon_oldest`](Client::abandon_oldest)), drain it:
//! 1. [`poll_event`](Client::poll_event) until `None`. A message keeps its slot until its event was taken.
//! 2. [`poll_transmit`](Client::poll_transmit) until `None`, sending each datagram. A datagram that the socket would
//!    not take counts as lost on the way: the machine will send it again.
//! 3. [`poll_timeout`](Client::poll_timeout): call `handle_timeout` then, or later.
//!
//! # Answers
//! A client that lends room for it ([`Client::with_asks`]) can [`ask`](Client::ask) for an answer to a message, and hears it
//! from [`poll_answer`](Client::poll_answer), which is drained after the events.
//!
//! ```
//! use duragram_proto::client::{Client, ClientConfig, Event, Outgoing, Slot};
//! use duragram_proto::codec::{Ack, Durability};
//! use duragram_proto::{ClientId, Epoch, Seq};
//!
//! // One message in flight, all of its memory in arrays.
//! let config = ClientConfig::new(ClientId(0xa1), Epoch::new(3));
//! let mut client = Client::new(config, [Slot::EMPTY; 1], [0; 256], 0x5eed);
//! let message = client.send(0, Outgoing { channel: 0, batch: false, payload: b"21.5 C" }).expect("room for one");
//!
//! let mut datagram = [0; 1200];
//! let len = client.poll_transmit(0, &mut datagram).expect("something to send");
//! // A socket sends datagram[..len] and receives the server's answer, here made by hand.
//! let (client_id, epoch) = (ClientId(0xa1), Epoch::new(3).expect("not 0"));
//! let ack = Ack {
//!     client: client_id, epoch, floor: Seq(1), credit: 64,
//!     durability: Durability::Synced, duplicate: false, complete: true, ready: false, delay_us: 90, bitmap: &[],
//! };
//! let mut answer = [0; 64];
//! let answer_len = ack.encode(&mut answer).expect("an ACK without a bitmap has 32 bytes");
//!
//! client.handle_datagram(700, &mut answer[..answer_len]).expect("it fits what was sent");
//! assert!(matches!(client.poll_event(), Some(Event::Acked { message: acked, .. }) if acked == message));
//! assert!(client.is_idle() && client.poll_timeout().is_none());
//! # assert_eq!(len, 38);
//! ```
//!
//! # Time
//! `now_us` is in microseconds of a clock that never steps back, from any origin.
//!
//! # Cost
//! Constant for a message sent, transmitted, acked or reported; each ACK costs a constant and what it newly covers, and the
//! length of its bitmap where it leaves something in doubt.
//! Only a change of epoch looks at every slot.

mod acks;
mod asking;
mod asks;
mod doubt;
mod list;
mod payloads;
mod queue;
mod receive;
mod transmit;
mod wire;

use crate::codec::{self, DATAGRAM_LEN_MAX, Durability, RejectCode};
use crate::congestion::Congestion;
use crate::random::Random;
use crate::rtt::Rtt;
use crate::{ClientId, Epoch, Seq};

use acks::Acks;
use asks::Asks;
use doubt::Doubt;
use queue::{Decided, Outcome, Queue};
use transmit::Timer;
use wire::Wire;

pub use asks::{ASKS_MAX, Answered, AskConfig, AskSlot, Status};
pub use queue::Slot;
#[cfg(feature = "sealed")]
pub use wire::Sealing;

/// A message as the caller names it: counted from 0 in the order of [`Client::send`], and the same message for good,
/// also where a new epoch gives it another seq.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(pub u64);

/// What a client is, and its limits. Start from [`ClientConfig::new`] and change fields.
#[derive(Clone, Copy, Debug)]
pub struct ClientConfig {
    /// The server tells clients apart by this id, and deduplicates for each of them alone.
    pub client: ClientId,
    /// This run's epoch, never used before by this client (PROTOCOL.md#duty-epoch); `None`: ask the server by HELLO.
    pub epoch: Option<Epoch>,
    /// The epoch may have been used before, as where a person chose it or a stored count may be lost. Then the first
    /// message goes alone, and if its answer shows that the server holds other data in this epoch, that message and all
    /// others fail ([`FailReason::EpochUsed`]) instead of being taken for those of the run before
    /// (PROTOCOL.md#epoch-used). Without effect when `epoch` is `None`.
    pub epoch_doubted: bool,
    /// Unix time in microseconds at `now_us` = 0, if the caller has a clock: a new epoch after STALE_EPOCH is then at
    /// least the Unix time in seconds. Without effect when `epoch` is `None`.
    pub unix_us_at_zero: Option<u64>,
    /// The longest datagram that it sends, in bytes of UDP payload. At most 65,507.
    pub datagram_len_max: usize,
    /// The retransmission timeout before the first RTT sample, in microseconds.
    pub rto_initial_us: u64,
    /// The shortest retransmission timeout, in microseconds. The server's delay comes on top of it. It should be 10 ms
    /// (PROTOCOL.md#duty-retransmission).
    pub rto_min_us: u64,
    /// The longest interval between two tries when nothing comes back, in microseconds.
    pub rto_max_us: u64,
    /// The longest wait that a REJECT can impose, in microseconds: a forged one cannot silence the client for weeks.
    pub retry_after_max_us: u64,
    /// The first congestion window, in datagrams. At least 1 is used.
    pub window_initial: u32,
}

impl ClientConfig {
    /// Defaults: 1,200 bytes, RTO 1 s at first (RFC 6298 §2), then between 10 ms and 60 s, waits up to 60 s, ten datagrams
    /// at first (RFC 6928).
    pub const fn new(client: ClientId, epoch: Option<Epoch>) -> Self {
        Self {
            client,
            epoch,
            epoch_doubted: false,
            unix_us_at_zero: None,
            datagram_len_max: crate::codec::DATAGRAM_LEN_RECOMMENDED,
            rto_initial_us: 1_000_000,
            rto_min_us: 10_000,
            rto_max_us: 60_000_000,
            retry_after_max_us: 60_000_000,
            window_initial: 10,
        }
    }
}

/// The caller gives it, and the machine numbers and copies it.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The application routes by this number, which the protocol only carries.
    pub channel: u16,
    /// The payload is a run of records, each `len` u16 little-endian and `len` bytes.
    pub batch: bool,
    /// Copied into the machine's buffer.
    pub payload: &'a [u8],
}

/// Why a message was not taken. The machine is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// No free slot or not enough buffer now; there will be after acks.
    Full,
    /// Longer than [`Client::payload_len_max`]; it will never fit.
    TooLarge,
    /// `batch` is set and the payload is not a run of at least one record.
    BrokenBatch,
    /// The epoch was used before ([`FailReason::EpochUsed`]): nothing can be sent in it.
    EpochUsed,
}

/// Why a datagram was ignored. Nothing but statistics has changed; for counting and logging, the caller need not act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignored {
    /// Not a valid datagram of this protocol.
    Undecodable(crate::codec::DecodeError),
    /// DATA, HELLO or PING: what only a server handles.
    ForServers,
    /// It names another client, as where two share an address.
    OtherClient,
    /// For another epoch of this client, mostly the one before.
    OtherEpoch,
    /// An ACK for seqs that were never sent. Many of these: another run uses the same client id and epoch.
    NeverSent,
    /// A REJECT of something that is not in flight.
    NotInFlight,
    /// A WELCOME that was not asked for, or with another nonce.
    Unasked,
}

/// What the caller is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The server is responsible for this message from now on.
    Acked {
        /// The message that was acked.
        message: MessageId,
        /// Its number in the session that acked it.
        seq: Seq,
        /// The message was acked in the session of this epoch.
        epoch: Epoch,
        /// The server promises this with its ack.
        durability: Durability,
    },
    /// The server will never take this message. It was not journaled.
    Failed {
        /// The message that was refused.
        message: MessageId,
        /// Why the server refuses it.
        reason: FailReason,
    },
    /// The caller gave it up by [`Client::abandon_oldest`]; it may have been journaled all the same.
    Abandoned {
        /// The message that was given up.
        message: MessageId,
    },
    /// A session begins: the first one after HELLO, or another one after STALE_EPOCH. What is unacked is sent (again)
    /// in it. Of several changes the latest is told.
    EpochChanged {
        /// `None` when there was none before.
        from: Option<Epoch>,
        /// The epoch that it has now.
        to: Epoch,
    },
    /// The server asks for patience: BUSY, STORAGE or a code unknown to this version. Nothing is sent until then. Of
    /// several waits the latest is told.
    ServerWaits {
        /// The code of the REJECT that asked for it.
        code: RejectCode,
        /// The client waits until `now_us` has reached this, in microseconds.
        until_us: u64,
    },
}

/// Why a message failed: mostly the REJECT's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailReason {
    /// The server speaks another version of the protocol.
    Version,
    /// The server does not have a feature that the message needs.
    Unsupported,
    /// Longer than the server accepts.
    TooLarge,
    /// The server does not accept the channel.
    Channel,
    /// The server takes sealed traffic alone.
    SealedOnly,
    /// No REJECT: the server holds other data under the seqs of this epoch, which another run has used
    /// ([`ClientConfig::epoch_doubted`]).
    EpochUsed,
}

/// Counters since the machine's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// DATA datagrams given to the caller to send.
    pub transmissions: u64,
    /// Of these, how many had been sent before in their epoch.
    pub retransmissions: u64,
    /// Transmissions taken for lost by later acks.
    pub losses: u64,
    /// So many retransmission timeouts have expired.
    pub timeouts: u64,
    /// Messages that the server acked.
    pub acked: u64,
    /// TAKEs given to the caller to send.
    pub takes: u64,
}

/// The client's state machine.
///
/// `M` holds the slots (as many messages as may wait or be in flight, at most 65,536 are used) and `B` the bytes of
/// their payloads, as a ring: arrays on a microcontroller, `Vec`s elsewhere. `A` and `Y` are the same for asks and the
/// bodies of answers ([`Client::with_asks`]); who never asks lends nothing.
///
/// It cannot be cloned: two machines with one epoch and one counter would use each number twice.
#[derive(Debug)]
pub struct Client<M, B, A = [AskSlot; 0], Y = [u8; 0]> {
    config: ClientConfig,
    wire: Wire,
    queue: Queue<M, B>,
    asks: Asks<A, Y>,
    random: Random,
    rtt: Rtt,
    congestion: Congestion,
    /// The session; `None` before the first WELCOME. Stays while a HELLO asks for the next one: its late acks count.
    epoch: Option<Epoch>,
    hello: Option<Hello>,
    doubt: Doubt,
    acks: Acks,
    /// The number of the next transmission.
    next_transmission: u64,
    timer: Option<Timer>,
    /// Tries since something came back: timeouts, HELLOs or PINGs in a row.
    tries: u32,
    /// Sessions in a row that were refused as stale before an ack of theirs came.
    fruitless_epochs: u32,
    paused_until_us: Option<u64>,
    /// Timeouts in a row and nothing heard since: one datagram for each timeout, not more, whatever becomes free.
    silent: bool,
    /// The number of the first transmission after an expiry, until its answer has come.
    expired: Option<u64>,
    /// One datagram may be sent in spite of silence and congestion window.
    probe: bool,
    ping_due: bool,
    /// A PING was sent, and no ACK has come since.
    pinged: bool,
    /// The congestion window was what kept the last `poll_transmit` from sending.
    congestion_limited: bool,
    epoch_changed: Option<(Option<Epoch>, Epoch)>,
    server_waits: Option<(RejectCode, u64)>,
    stats: Stats,
}

/// A HELLO that is not answered.
#[derive(Clone, Copy, Debug)]
struct Hello {
    nonce: u64,
    due: bool,
}

impl<M, B> Client<M, B>
where
    M: AsRef<[Slot]> + AsMut<[Slot]>,
    B: AsRef<[u8]> + AsMut<[u8]>,
{
    /// A client with nothing to send. `random_seed` feeds jitter and the HELLO's nonce; it must differ from run to run
    /// and from device to device.
    pub fn new(config: ClientConfig, slots: M, buffer: B, random_seed: u64) -> Self {
        Self::with_wire(config, Wire::Plain, slots, buffer, random_seed)
    }

    /// A client that speaks sealed mode alone (PROTOCOL.md#sealed-client). Here `random_seed` must be 64 random bits, drawn
    /// anew at every start: a HELLO's nonce that came twice would let recorded answers pass for new ones.
    #[cfg(feature = "sealed")]
    pub fn sealed(config: ClientConfig, sealing: Sealing, slots: M, buffer: B, random_seed: u64) -> Self {
        let seal = wire::Seal::new(sealing, config.client, config.epoch);
        Self::with_wire(config, Wire::Sealed(seal), slots, buffer, random_seed)
    }

    fn with_wire(config: ClientConfig, wire: Wire, slots: M, buffer: B, random_seed: u64) -> Self {
        let queue = Queue::new(slots, buffer);
        let window_max = u32::try_from(queue.capacity()).unwrap_or(u32::MAX);
        Self {
            congestion: Congestion::new(config.window_initial, window_max),
            queue,
            asks: Asks::new(AskConfig::HELD, [], []),
            random: Random::new(random_seed),
            rtt: Rtt::default(),
            epoch: config.epoch,
            hello: None,
            doubt: Doubt::new(config.epoch_doubted && config.epoch.is_some()),
            acks: Acks::NONE,
            next_transmission: 1,
            timer: None,
            tries: 0,
            fruitless_epochs: 0,
            paused_until_us: None,
            silent: false,
            expired: None,
            probe: false,
            ping_due: false,
            pinged: false,
            congestion_limited: false,
            epoch_changed: None,
            server_waits: None,
            stats: Stats::default(),
            wire,
            config,
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
    /// Takes a message. It will end in exactly one of the events `Acked`, `Failed` and `Abandoned`.
    pub fn send(&mut self, now_us: u64, message: Outgoing<'_>) -> Result<MessageId, SendError> {
        self.push(now_us, message, false)
    }

    fn push(&mut self, now_us: u64, message: Outgoing<'_>, ask: bool) -> Result<MessageId, SendError> {
        if message.payload.len() > self.payload_len_max() {
            return Err(SendError::TooLarge);
        }
        if message.batch && !codec::is_batch(message.payload) {
            return Err(SendError::BrokenBatch);
        }
        if self.doubt == Doubt::Used {
            return Err(SendError::EpochUsed);
        }
        let id = self.queue.push(message, ask).ok_or(SendError::Full)?;
        if self.epoch.is_none() && self.hello.is_none() {
            self.ask_for_epoch(true);
        }
        self.arm(now_us, false);
        Ok(id)
    }

    /// Takes the next event; `None` when all were taken.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some((from, to)) = self.epoch_changed.take() {
            return Some(Event::EpochChanged { from, to });
        }
        if let Some((code, until_us)) = self.server_waits.take() {
            return Some(Event::ServerWaits { code, until_us });
        }
        let Decided { message, seq, epoch, outcome } = self.queue.pop_decided()?;
        Some(match (outcome, epoch) {
            (Outcome::Acked(durability), Some(epoch)) => Event::Acked { message, seq, epoch, durability },
            (Outcome::Failed(reason), _) => Event::Failed { message, reason },
            (Outcome::Abandoned | Outcome::Acked(_), _) => Event::Abandoned { message },
        })
    }

    /// Gives up the oldest message that is not acked (SKIP, PROTOCOL.md#duty-skip), to make room for newer ones. Its event
    /// `Abandoned` follows. `None`, and no change, when all are acked.
    pub fn abandon_oldest(&mut self) -> Option<MessageId> {
        self.decide_oldest(Outcome::Abandoned)
    }

    /// The path to the server is another one (a new address, a new network): forgets RTT, congestion window and what the
    /// server asked to wait for, and tries at once instead of waiting for the next timeout.
    pub fn path_changed(&mut self, now_us: u64) {
        self.rtt = Rtt::default();
        self.congestion.reset();
        self.paused_until_us = None;
        self.tries = 0;
        self.silent = false;
        self.expired = None;
        self.lose_awaited();
        self.asks.path_changed(now_us);
        match &mut self.hello {
            Some(hello) => hello.due = true,
            None => self.ping_due = self.is_blocked_by_credit(),
        }
        self.arm(now_us, true);
    }

    /// Messages transmitted in this epoch and neither acked nor taken for lost.
    pub fn in_flight(&self) -> usize {
        self.queue.awaited() as usize
    }

    /// Messages neither acked nor given up, in flight or not.
    pub fn queued(&self) -> usize {
        self.queue.undecided()
    }

    /// Whether no message is queued. Events may still be there.
    pub fn is_idle(&self) -> bool {
        self.queued() == 0
    }

    /// How many seqs, from the lowest unacked one on, the server allows to be sent; `None` before it told.
    pub fn credit(&self) -> Option<u64> {
        self.acks.credit
    }

    /// The smoothed round-trip time without the server's delay, in microseconds; `None` before the first sample.
    pub fn rtt_us(&self) -> Option<u64> {
        self.rtt.smoothed_us()
    }

    /// The retransmission timeout as it is now, before it is doubled, in microseconds.
    pub fn rto_us(&self) -> u64 {
        self.timeout_us()
    }

    /// The congestion window, in datagrams.
    pub fn congestion_window(&self) -> u32 {
        self.congestion.window()
    }

    /// The session's epoch; `None` while the first HELLO is not answered.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The longest datagram that [`Client::poll_transmit`] may write, in bytes.
    pub fn datagram_len_max(&self) -> usize {
        self.config.datagram_len_max.clamp(self.wire.overhead(), DATAGRAM_LEN_MAX)
    }

    /// The longest payload that fits in a datagram and in the buffer, in bytes.
    pub fn payload_len_max(&self) -> usize {
        (self.datagram_len_max() - self.wire.overhead()).min(self.queue.payload_capacity())
    }

    /// What has been counted since it began.
    pub fn stats(&self) -> Stats {
        self.stats
    }
}

#[cfg(test)]
mod tests;
