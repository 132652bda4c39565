//! What is remembered of clients that speak in sealed mode: the epochs that they have opened and that were issued to them
//! (PROTOCOL.md#sealed-epoch), for as long as their keys exist. Sessions come and go beside it.
//!
//! Whoever has no key cannot add a client here: all that comes to this has a good seal.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;

use duragram_proto::{ClientId, Epoch};

use crate::limits;
use crate::model::{ClientRecord, Now, SessionId};
use crate::rate::Buckets;

/// The epochs of all clients.
#[derive(Debug)]
pub struct EpochBook {
    clients: HashMap<ClientId, Epochs>,
    clients_max: usize,
    /// What was issued to the clients that asked last.
    hellos: HashMap<ClientId, Hellos>,
    /// They in the order in which they came.
    asked: VecDeque<ClientId>,
    /// How often a client gets a new epoch (PROTOCOL.md#sealed-hello).
    rate: Buckets,
}

/// The highest epochs of one client; 0 stands for none yet.
#[derive(Clone, Copy, Default, Debug)]
struct Epochs {
    opened: u32,
    issued: u32,
}

/// Nonces of a client's last HELLOs, and the epochs that they got.
#[derive(Clone, Copy, Default, Debug)]
struct Hellos {
    issued: [(u64, u32); HELLOS],
    next: usize,
}

/// So many HELLOs are answered alike when they come again (PROTOCOL.md#sealed-hello).
const HELLOS: usize = 8;

/// What a client gets for a HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HelloAnswer {
    /// An epoch that was never issued to it before: to be durable before the client hears of it.
    New(Epoch),
    /// The one that the same HELLO has got.
    Again(Epoch),
    /// Silence: a recorded HELLO, whose epoch or a later one has been opened since.
    Replayed,
    /// Nothing: no new ones are given now.
    NotNow,
    /// Nothing yet: new epochs are given at a bounded rate.
    TooOften,
    /// Nothing now: as many clients are remembered as there is room for.
    NoRoom,
    /// Nothing, ever: the client has used up all epochs, or was given the last.
    UsedUp,
}

/// Why a session does not open. Nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unopened {
    /// The client has opened this epoch, or a later one.
    Used,
    /// As many clients are remembered as there is room for.
    NoRoom,
}

impl EpochBook {
    /// Nothing is remembered yet. Room for `clients_max` clients.
    pub fn new(clients_max: usize) -> Self {
        Self {
            clients: HashMap::new(),
            clients_max,
            hellos: HashMap::new(),
            asked: VecDeque::new(),
            rate: Buckets::new(limits::HELLO_BUCKETS, NonZeroU32::MIN, limits::HELLO_BURST),
        }
    }

    /// Takes up what the journal has kept. Recovery does not refuse what was accepted before a lower maximum was set.
    pub fn restore(&mut self, record: &ClientRecord) {
        let epochs = self.clients.entry(record.client).or_default();
        epochs.opened = epochs.opened.max(record.opened);
        epochs.issued = epochs.issued.max(record.given);
    }

    /// A journaled entry shows that the session was open.
    pub fn replay(&mut self, id: SessionId) {
        self.restore(&ClientRecord { client: id.client, opened: id.epoch.value(), given: 0 });
    }

    /// What is to be kept of a client.
    pub fn record(&self, client: ClientId) -> ClientRecord {
        let Epochs { opened, issued } = self.epochs(client);
        ClientRecord { client, opened, given: issued }
    }

    /// Whether the client has ever opened a sealed session.
    pub fn has_opened(&self, client: ClientId) -> bool {
        self.epochs(client).opened > 0
    }

    /// Counts the clients whose epochs are remembered.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether no client is remembered.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whether a session may be opened: its epoch is above all that its client has opened.
    pub fn may_open(&self, id: SessionId) -> Result<(), Unopened> {
        if id.epoch.value() <= self.epochs(id.client).opened {
            Err(Unopened::Used)
        } else if self.has_room(id.client) {
            Ok(())
        } else {
            Err(Unopened::NoRoom)
        }
    }

    /// A session was opened. Its client's record must be durable with its first entry.
    pub fn open(&mut self, id: SessionId) {
        self.replay(id);
    }

    /// Answers a HELLO; `gives`: with a new epoch too.
    pub fn hello(&mut self, client: ClientId, nonce: u64, now: Now, gives: bool) -> HelloAnswer {
        let Epochs { opened, issued } = self.epochs(client);
        let hellos = self.hellos.get(&client).copied().unwrap_or_default();
        if let Some(&(_, epoch)) = hellos.issued.iter().find(|&&(known, epoch)| known == nonce && epoch > 0) {
            let epoch = Epoch::new(epoch).filter(|_| epoch > opened);
            return epoch.map_or(HelloAnswer::Replayed, HelloAnswer::Again);
        }
        let unix_s = u32::try_from(now.unix_us / 1_000_000).unwrap_or(0);
        let next = opened.max(issued).checked_add(1).map(|next| next.max(unix_s)).and_then(Epoch::new);
        let Some(epoch) = next else { return HelloAnswer::UsedUp };
        if !self.has_room(client) {
            return HelloAnswer::NoRoom;
        }
        if !gives {
            return HelloAnswer::NotNow;
        }
        if !self.rate.allows(client, now.mono_us) {
            return HelloAnswer::TooOften;
        }
        self.restore(&ClientRecord { client, opened: 0, given: epoch.value() });
        self.remember(client, nonce, epoch);
        HelloAnswer::New(epoch)
    }

    /// Memory held for the clients, in bytes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        // Of std's table, what is allocated is at most 8/7 of the capacity, and a byte more for each place.
        self.clients.capacity() * 8 / 7 * (size_of::<(ClientId, Epochs)>() + 1)
    }

    fn epochs(&self, client: ClientId) -> Epochs {
        self.clients.get(&client).copied().unwrap_or_default()
    }

    fn has_room(&self, client: ClientId) -> bool {
        self.clients.len() < self.clients_max || self.clients.contains_key(&client)
    }

    fn remember(&mut self, client: ClientId, nonce: u64, epoch: Epoch) {
        if !self.hellos.contains_key(&client) {
            if self.asked.len() == limits::HELLO_CLIENTS
                && let Some(oldest) = self.asked.pop_front()
            {
                self.hellos.remove(&oldest);
            }
            self.asked.push_back(client);
        }
        let hellos = self.hellos.entry(client).or_default();
        hellos.issued[hellos.next] = (nonce, epoch.value());
        hellos.next = (hellos.next + 1) % HELLOS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn id(client: u64, epoch: u32) -> SessionId {
        SessionId { client: ClientId(client), epoch: Epoch::new(epoch).unwrap() }
    }

    fn at(mono_s: u64, unix_s: u64) -> Now {
        Now { mono_us: mono_s * S, unix_us: unix_s * S }
    }

    fn new(epoch: u32) -> HelloAnswer {
        HelloAnswer::New(Epoch::new(epoch).unwrap())
    }

    fn again(epoch: u32) -> HelloAnswer {
        HelloAnswer::Again(Epoch::new(epoch).unwrap())
    }

    const CLIENT: ClientId = ClientId(1);

    #[test]
    fn an_epoch_opens_once_and_none_below_it_does() {
        let mut book = EpochBook::new(10);
        assert!(!book.has_opened(CLIENT));
        assert_eq!(book.may_open(id(1, 5)), Ok(()));
        book.open(id(1, 5));
        for epoch in [1, 4, 5] {
            assert_eq!(book.may_open(id(1, epoch)), Err(Unopened::Used), "{epoch}");
        }
        assert_eq!(book.may_open(id(1, 6)), Ok(()));
        assert_eq!(book.may_open(id(2, 1)), Ok(()), "of another client");
        assert!(book.has_opened(CLIENT) && !book.has_opened(ClientId(2)));
    }

    #[test]
    fn what_was_given_rises_and_is_no_lower_than_the_time_of_day() {
        let mut book = EpochBook::new(10);
        assert_eq!(book.hello(CLIENT, 1, at(0, 1_000), true), new(1_000));
        assert_eq!(book.hello(CLIENT, 2, at(0, 1_000), true), new(1_001));
        assert_eq!(book.hello(CLIENT, 3, at(0, 5), true), new(1_002), "the clock was set back");
        book.open(id(1, 2_000));
        assert_eq!(book.hello(CLIENT, 4, at(0, 1_000), true), new(2_001));
        assert_eq!(book.may_open(id(1, 1_000)), Err(Unopened::Used));
        let record = book.record(CLIENT);
        assert_eq!(record, ClientRecord { client: CLIENT, opened: 2_000, given: 2_001 });
        let mut restarted = EpochBook::new(10);
        restarted.restore(&record);
        assert_eq!(restarted.hello(CLIENT, 4, at(0, 1_000), true), new(2_002), "nonces are not kept");
    }

    #[test]
    fn giving_opens_nothing_and_ends_nothing() {
        let mut book = EpochBook::new(10);
        assert_eq!(book.hello(CLIENT, 1, at(0, 1_000), true), new(1_000));
        assert!(!book.has_opened(CLIENT));
        assert_eq!(book.may_open(id(1, 7)), Ok(()), "of its own choice, below what was given");
    }

    #[test]
    fn the_same_hello_gets_the_same_epoch_until_that_or_a_later_one_is_opened() {
        let mut book = EpochBook::new(10);
        for nonce in 0..8 {
            let epoch = 1_000 + u32::try_from(nonce).unwrap();
            assert_eq!(book.hello(CLIENT, nonce, at(nonce, 1_000), true), new(epoch));
            assert_eq!(book.hello(CLIENT, nonce, at(nonce, 9_000), true), again(epoch));
        }
        book.open(id(1, 1_003));
        for nonce in 0..8 {
            let expected =
                if nonce <= 3 { HelloAnswer::Replayed } else { again(1_000 + u32::try_from(nonce).unwrap()) };
            assert_eq!(book.hello(CLIENT, nonce, at(9, 9_000), true), expected, "{nonce}");
        }
        // The ninth takes the first one's place.
        assert_eq!(book.hello(CLIENT, 8, at(20, 1_000), true), new(1_008));
        assert_eq!(book.hello(CLIENT, 1, at(20, 1_000), true), HelloAnswer::Replayed);
        assert_eq!(book.hello(CLIENT, 0, at(20, 1_000), true), new(1_009));
    }

    #[test]
    fn new_epochs_come_at_a_bounded_rate_and_repetitions_are_free() {
        let mut book = EpochBook::new(10);
        let given =
            (0..100).filter(|&nonce| matches!(book.hello(CLIENT, nonce, at(0, 1), true), HelloAnswer::New(_))).count();
        assert_eq!(given, 8);
        assert_eq!(book.hello(CLIENT, 100, at(0, 1), true), HelloAnswer::TooOften);
        assert_eq!(book.hello(CLIENT, 7, at(0, 1), true), again(8));
        assert_eq!(book.hello(CLIENT, 100, at(1, 1), true), new(9));
        assert_eq!(book.hello(CLIENT, 101, at(1, 1), true), HelloAnswer::TooOften);
        assert_eq!(book.record(CLIENT).given, 9);
    }

    #[test]
    fn epochs_never_wrap() {
        let mut book = EpochBook::new(10);
        book.open(id(1, u32::MAX));
        assert_eq!(book.hello(CLIENT, 1, at(0, 1), true), HelloAnswer::UsedUp);
        assert_eq!(book.may_open(id(1, 1)), Err(Unopened::Used));
    }

    #[test]
    fn when_there_is_no_room_known_clients_go_on_and_none_is_forgotten() {
        let mut book = EpochBook::new(2);
        book.open(id(1, 1));
        assert_eq!(book.hello(ClientId(2), 1, at(0, 1), true), new(1));
        assert_eq!(book.may_open(id(3, 1)), Err(Unopened::NoRoom));
        assert_eq!(book.hello(ClientId(3), 1, at(0, 1), true), HelloAnswer::NoRoom);
        assert_eq!(book.may_open(id(1, 2)), Ok(()));
        assert_eq!(book.hello(ClientId(2), 2, at(0, 1), true), new(2));
        // More than the maximum may have been kept.
        book.restore(&ClientRecord { client: ClientId(4), opened: 1, given: 0 });
        assert_eq!(book.may_open(id(4, 1)), Err(Unopened::Used));
    }

    #[test]
    fn a_client_takes_no_more_memory_than_the_documented_sum_says() {
        let mut book = EpochBook::new(usize::MAX);
        for client in 0..300_000 {
            book.open(id(client, 1));
            if client > 4_096 {
                assert!(book.bytes() / book.len() <= limits::SEALED_CLIENT_BYTES, "{} with {client}", book.bytes());
            }
        }
        for client in 0..limits::HELLO_CLIENTS as u64 + 10 {
            book.hello(ClientId(client), 1, at(client, 1), true);
        }
        assert_eq!((book.hellos.len(), book.asked.len()), (limits::HELLO_CLIENTS, limits::HELLO_CLIENTS));
        assert!(size_of::<Hellos>() + size_of::<ClientId>() <= limits::HELLO_CLIENT_BYTES);
    }
}
