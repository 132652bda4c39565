//! The committer's steps with the project's own dialect, called directly, over a journal in memory.

mod answers;
mod asks;
mod commits;
mod flight;
mod property;
mod sealed;
mod sessions;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use duragram_proto::codec::{self, Ack, Data, Datagram, Hello, Ping, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};
use prometheus_client::registry::Registry;

use super::*;
use crate::dialect::Arrivals;
use crate::dialect::duragram::{Admission, AdmissionConfig, AskConfig, Duragram, DuragramConfig};
use crate::journal::testing::memory::{MemoryDisk, MemoryHand, MemoryJournal, Write, WriteFate};
use crate::journal::{Durable, JournalError};
use crate::metrics::Metrics;
use crate::model::{Clock, EntryKind, LaneMark, Now, Offset, Peer, SessionId};
use crate::net::{Outbox, Slab, Transmit};

const WINDOW: u16 = 100;

/// A server without threads and sockets.
struct Rig {
    disk: MemoryDisk,
    /// Lets commits land that it holds.
    hand: MemoryHand,
    committer: Committer<Duragram, MemoryJournal, Wire, Lanes>,
    wire: Wire,
    lanes: Lanes,
    clock: TestClock,
    config: Config,
    admission_config: AdmissionConfig,
    admission: Admission,
    metrics: Metrics,
}

/// What the server sent, newest last.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Sent>>);

type Sent = Vec<(Peer, Vec<u8>)>;

impl Transmit for Wire {
    fn transmit(&mut self, outbox: &Outbox) {
        self.0.lock().unwrap().extend(outbox.iter().map(|(peer, bytes)| (peer, bytes.to_vec())));
    }
}

impl Wire {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Their marks, where the journal ends, and how often they were told to rest.
#[derive(Clone, Default)]
struct Lanes(Arc<Mutex<(Vec<LaneMark>, Offset, u32)>>);

impl Downstream for Lanes {
    fn committed(&mut self, receipt: &Durable) {
        self.0.lock().unwrap().1 = receipt.end();
    }

    fn rest(&mut self) {
        self.0.lock().unwrap().2 += 1;
    }

    fn marks(&self) -> Vec<LaneMark> {
        self.0.lock().unwrap().0.clone()
    }
}

/// The monotonic clock, and by how many seconds the other was set.
#[derive(Default)]
struct TestClock(Cell<u64>, Cell<i64>);

impl Clock for TestClock {
    fn now(&self) -> Now {
        let unix_us = 1_800_000_000_000_000 + self.0.get();
        Now { mono_us: self.0.get(), unix_us: unix_us.saturating_add_signed(self.1.get() * 1_000_000) }
    }
}

impl TestClock {
    fn advance_us(&self, us: u64) {
        self.0.set(self.0.get() + us);
    }

    fn advance_s(&self, s: u64) {
        self.0.set(self.0.get() + s * 1_000_000);
    }
}

/// What all parts of the server are configured with.
#[derive(Clone)]
struct Config {
    window: u16,
    commit_bytes_max: usize,
    checkpoint_bytes: u64,
    checkpoint_interval_us: u64,
    retain_bytes: u64,
    reserve_bytes: u64,
    session_ttl_s: u64,
    sealed: bool,
    asks: AskConfig,
}

impl Config {
    fn dialect(&self, sessions_max: usize) -> DuragramConfig {
        let Self { window, session_ttl_s, sealed, asks, .. } = *self;
        DuragramConfig { window, sessions_max, session_ttl_s, sealed, asks }
    }

    fn committer(&self) -> CommitterConfig {
        let Self { commit_bytes_max, checkpoint_bytes, checkpoint_interval_us, retain_bytes, reserve_bytes, .. } =
            *self;
        CommitterConfig { commit_bytes_max, checkpoint_bytes, checkpoint_interval_us, retain_bytes, reserve_bytes }
    }
}

fn config() -> Config {
    Config {
        window: WINDOW,
        commit_bytes_max: 1 << 20,
        checkpoint_bytes: 1 << 30,
        checkpoint_interval_us: 1_000_000,
        retain_bytes: 0,
        reserve_bytes: 1000,
        session_ttl_s: 100,
        sealed: false,
        asks: AskConfig::default(),
    }
}

impl Rig {
    fn new() -> Self {
        Self::on(MemoryDisk::default(), config(), 10)
    }

    fn on(disk: MemoryDisk, config: Config, sessions_max: usize) -> Self {
        let metrics = Metrics::register(&mut Registry::default());
        let mut recovery = Recovery::new(Duragram::new(config.dialect(sessions_max), metrics.clone()));
        let opened = disk.open(&mut |replay| recovery.apply(replay));
        let recovered = recovery.finish(&opened).unwrap();
        let (wire, lanes) = (Wire::default(), Lanes::default());
        lanes.0.lock().unwrap().0 = vec![LaneMark::default()];
        let journal = opened.journal;
        let hand = journal.hand();
        let committer =
            Committer::new(config.committer(), recovered, journal, wire.clone(), lanes.clone(), metrics.clone());
        let admission_config = AdmissionConfig::plain(1472);
        let admission = Admission::new(admission_config.clone());
        Self {
            disk,
            hand,
            committer,
            wire,
            lanes,
            clock: TestClock::default(),
            config,
            admission_config,
            admission,
            metrics,
        }
    }

    /// Starts again from the disk alone, as after a SIGKILL.
    fn restart(self) -> Self {
        Self::on(self.disk, self.config, 10)
    }

    /// Absorbs datagrams as one batch, commits, and returns what was sent to whom.
    fn step(&mut self, datagrams: &[(Peer, Vec<u8>)]) -> Vec<(Peer, Vec<u8>)> {
        self.absorb(datagrams).unwrap();
        self.committer.commit(&self.clock).unwrap();
        self.sent()
    }

    fn absorb(&mut self, datagrams: &[(Peer, Vec<u8>)]) -> Result<(), JournalError> {
        let mut arrivals = Arrivals::new(Slab::new(0));
        arrivals.slab.arrived = self.clock.now();
        for (peer, bytes) in datagrams {
            arrivals.slab.push(*peer, bytes);
        }
        arrivals.admit(&mut self.admission);
        self.committer.absorb(&arrivals, &self.clock)
    }

    fn sent(&self) -> Vec<(Peer, Vec<u8>)> {
        std::mem::take(&mut *self.wire.0.lock().unwrap())
    }

    /// One DATA in, one reply out.
    fn data(&mut self, client: u64, seq: u64, span: u16) -> Reply {
        let sent = self.step(&[(peer(1), data(client, seq, span, false))]);
        assert_eq!(sent.len(), 1);
        reply(&sent[0].1)
    }

    fn set_watermark(&self, watermark: u64) {
        self.lanes.0.lock().unwrap().0 = vec![LaneMark { watermark: Offset(watermark), sink_state: vec![] }];
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Reply {
    Ack { floor: u64, bits: Vec<u64>, duplicate: bool },
    Reject(RejectCode),
    Welcome(u32),
}

fn reply(bytes: &[u8]) -> Reply {
    match codec::decode(bytes).unwrap() {
        Datagram::Ack(Ack { floor, bitmap, duplicate, .. }) => {
            let bit = |i: &usize| bitmap[i / 8] >> (i % 8) & 1 == 1;
            let bits = (0..bitmap.len() * 8).filter(bit).map(|i| floor.0 + 1 + i as u64).collect();
            Reply::Ack { floor: floor.0, bits, duplicate }
        }
        Datagram::Reject(reject) => Reply::Reject(reject.code),
        Datagram::Welcome(welcome) => Reply::Welcome(welcome.epoch.value()),
        other => panic!("a server does not send {other:?}"),
    }
}

fn acked(floor: u64) -> Reply {
    Reply::Ack { floor, bits: vec![], duplicate: false }
}

fn acked_again(floor: u64) -> Reply {
    Reply::Ack { floor, bits: vec![], duplicate: true }
}

fn peer(port: u16) -> Peer {
    Peer::new(SocketAddr::from(([127, 0, 0, 1], port)), 0)
}

fn data(client: u64, seq: u64, span: u16, skip: bool) -> Vec<u8> {
    data_with(client, seq, span, skip, b"a reading")
}

fn data_with(client: u64, seq: u64, span: u16, skip: bool, payload: &[u8]) -> Vec<u8> {
    encode(&Datagram::Data(Data {
        skip,
        ..Data::whole(ClientId(client), Epoch::new(1).unwrap(), Seq(seq), span, payload)
    }))
}

fn hello(client: u64, nonce: u64) -> Vec<u8> {
    encode(&Datagram::Hello(Hello { client: ClientId(client), nonce }))
}

fn encode(datagram: &Datagram<'_>) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let len = datagram.encode(&mut buffer).unwrap();
    buffer[..len].to_vec()
}
