//! A server's life from bytes: datagrams, commits that succeed or fail, checkpoints, crashes. The committer, the sessions and
//! recovery are the real ones, over the journal in memory.
//!
//! What must hold is kept apart from the server, in [`Oracle`]: what was acked is found after every later start; a message
//! is journaled once, for ever, and as it was sent; an offset never names two entries, an epoch never two HELLOs; after an
//! error nothing is said that speaks of the disk; no datagram is answered with more bytes than it had; only what is processed
//! is trimmed.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};

use duragram::commit::{Committer, CommitterConfig, Downstream, Recovery};
use duragram::dialect::Arrivals;
use duragram::dialect::duragram::session::SessionTable;
use duragram::dialect::duragram::{Admission, AdmissionConfig, AskConfig, Duragram, DuragramConfig};
use duragram::journal::testing::memory::{MemoryDisk, MemoryJournal, WriteFate};
use duragram::journal::{Block, Durable, ReadJournal, Replay};
use duragram::metrics::Metrics;
use duragram::model::{Clock, EntryKind, LaneMark, Now, Offset, Peer, SessionId};
use duragram::net::{Outbox, Slab, Transmit};
use duragram_proto::codec::{Ack, DATAGRAM_LEN_MAX, Data, Datagram, Hello, Ping, decode};
use duragram_proto::{ClientId, Epoch, Seq};
use prometheus_client::registry::Registry;

use super::input::Input;

type Server = Committer<Duragram, MemoryJournal, Wire, Lanes>;

const SESSIONS_MAX: usize = 12;
const RESERVE_BYTES: u64 = 1000;

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::register(&mut Registry::default()));

pub(crate) fn session(input: &[u8]) {
    let mut input = Input(input);
    let disk = MemoryDisk::default();
    let mut oracle = Oracle::default();
    let mut run = Run::start(&disk, 8, &mut oracle);
    while let Some(op) = input.byte() {
        match op {
            // Half of all: so a run of any bytes is mostly datagrams.
            0..=0x7f => run.data(op, &mut input),
            0x80..=0x97 => run.any_datagram(&mut input, op & 1 == 0),
            0x98..=0x9f => run.hello(input.byte().unwrap_or(0)),
            0xa0..=0xa7 => run.ping(input.byte().unwrap_or(0)),
            0xa8..=0xcf => run.absorb(&mut oracle),
            0xd0..=0xdb => run.commit(&mut oracle, Committer::commit),
            0xdc..=0xe3 => run.commit(&mut oracle, Committer::launch),
            0xe4..=0xe9 => run.commit(&mut oracle, Committer::land),
            0xea..=0xed => run.clock.advance_s(u64::from(op & 3) + 1),
            0xee..=0xf1 => run.process(input.byte().unwrap_or(0), &mut oracle),
            0xf2 => run.commit(&mut oracle, Committer::shut_down),
            0xf3 => run.committer.set_pressure(u16::from(input.byte().unwrap_or(0)) * 8),
            0xf4 => disk.set_free_bytes(RESERVE_BYTES - u64::from(input.byte().unwrap_or(0) & 1)),
            0xf5 => run.megabyte(&mut oracle),
            0xf6 => run.fate(WriteFate::FailedAndLost),
            0xf7 => run.fate(WriteFate::FailedButWritten),
            // What is in flight is on the disk then, or was to fail: so the same bytes always do the same.
            0xf8..=0xff => {
                drop(run);
                run = Run::start(&disk, u16::from(op & 7) + 4, &mut oracle);
            }
        }
    }
    drop(run);
    drop(Run::start(&disk, 8, &mut oracle));
}

/// The server from a start to a crash.
struct Run {
    disk: MemoryDisk,
    committer: Server,
    wire: Wire,
    lanes: Lanes,
    clock: TestClock,
    /// Datagrams that have arrived and are not absorbed.
    arrived: Vec<(Peer, Vec<u8>)>,
    failed: bool,
}

impl Run {
    fn start(disk: &MemoryDisk, window: u16, oracle: &mut Oracle) -> Self {
        disk.on_write(|_| WriteFate::Durable);
        let metrics = METRICS.clone();
        let session_ttl_s = u64::from(u32::MAX);
        let config = DuragramConfig {
            window,
            sessions_max: SESSIONS_MAX,
            session_ttl_s,
            sealed: false,
            asks: AskConfig::default(),
        };
        let mut recovery = Recovery::new(Duragram::new(config, metrics.clone()));
        let opened = disk.open(&mut |replay| {
            if let Replay::Block(block) = &replay {
                oracle.durable(block);
            }
            recovery.apply(replay);
        });
        let mut recovered = recovery.finish(&opened).expect("no record that no session can have made");
        oracle.started(disk, &opened.lanes, opened.checkpoint_at);
        oracle.acked_is_found(recovered.dialect.table());
        let (wire, lanes, clock) = (Wire::default(), Lanes::default(), TestClock(Cell::new(oracle.now_us)));
        lanes.0.lock().unwrap().marks = match opened.lanes.is_empty() {
            true => vec![LaneMark::default(); 2],
            false => opened.lanes,
        };
        let config = CommitterConfig {
            // A few datagrams: blocks become full while a batch is absorbed.
            commit_bytes_max: 400,
            checkpoint_bytes: 2000,
            checkpoint_interval_us: 1_000_000,
            retain_bytes: 0,
            reserve_bytes: RESERVE_BYTES,
        };
        opened.journal.hand().hold(2);
        let committer = Committer::new(config, recovered, opened.journal, wire.clone(), lanes.clone(), metrics);
        Self { disk: disk.clone(), committer, wire, lanes, clock, arrived: Vec::new(), failed: false }
    }

    /// DATA in a small world, so that seqs, sessions and floors meet.
    fn data(&mut self, op: u8, input: &mut Input<'_>) {
        let mut small = |below: u8| u64::from(input.byte().unwrap_or(1) % below);
        let (seq, span, choice) = (small(48), small(16), small(64));
        let payload = [op; 40];
        self.arrive(&Datagram::Data(Data {
            skip: choice & 3 == 0,
            ..Data::whole(
                ClientId(u64::from(op & 3)),
                self.epoch(op),
                Seq(seq),
                u16::try_from(span).expect("small"),
                &payload[..usize::try_from(choice / 2).expect("small")],
            )
        }));
    }

    /// From a client of its own, which goes on after what was acked: the journal is trimmed by the mebibyte.
    fn megabyte(&mut self, oracle: &mut Oracle) {
        let id = SessionId { client: ClientId(9), epoch: Epoch::new(1).expect("above 0") };
        let acked = oracle.acked.get(&id).map_or(0, |(floor, _)| floor.0);
        let payload = [7; 60_000];
        for span in 0..18 {
            self.arrive(&Datagram::Data(Data::whole(
                id.client,
                id.epoch,
                Seq(acked + 1 + u64::from(span)),
                span,
                &payload,
            )));
        }
        self.absorb(oracle);
    }

    fn hello(&mut self, choice: u8) {
        let (client, nonce) = (ClientId(u64::from(choice & 3)), u64::from(choice >> 2 & 3));
        self.arrive(&Datagram::Hello(Hello { client, nonce }));
    }

    fn ping(&mut self, choice: u8) {
        self.arrive(&Datagram::Ping(Ping { client: ClientId(u64::from(choice & 3)), epoch: self.epoch(choice) }));
    }

    /// Epochs that a client chose, and the first ones that the server gives.
    fn epoch(&self, choice: u8) -> Epoch {
        let given = u32::try_from(START_UNIX_US / 1_000_000).expect("before 2106");
        Epoch::new(match choice >> 2 & 7 {
            0..=4 => 1,
            5 => 2,
            n => given + u32::from(n - 6),
        })
        .expect("above 0")
    }

    fn arrive(&mut self, datagram: &Datagram<'_>) {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        let len = datagram.encode(&mut buffer).expect("it is a datagram");
        buffer.truncate(len);
        self.arrive_bytes(buffer);
    }

    /// Bytes as they are, mostly under a right checksum.
    fn any_datagram(&mut self, input: &mut Input<'_>, checksum: bool) {
        let len = usize::from(input.byte().unwrap_or(0) % 80);
        let mut bytes = input.bytes(len).to_vec();
        if checksum {
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        }
        self.arrive_bytes(bytes);
    }

    /// Each from an address of its own: a reply tells which datagram it answers.
    fn arrive_bytes(&mut self, bytes: Vec<u8>) {
        let mut requests = self.wire.0.lock().unwrap();
        let number = u32::try_from(requests.lens.len()).expect("few");
        requests.lens.push(bytes.len());
        let peer = Peer::new((std::net::Ipv4Addr::from_bits(number), 1).into(), 0);
        self.arrived.push((peer, bytes));
    }

    fn absorb(&mut self, oracle: &mut Oracle) {
        let mut arrivals = Arrivals::new(Slab::new(0));
        arrivals.slab.arrived = self.clock.now();
        for (peer, bytes) in self.arrived.drain(..) {
            if let Ok(Datagram::Data(data)) = decode(&bytes) {
                let id = SessionId { client: data.client, epoch: data.epoch };
                oracle.sent.entry((id, data.seq)).or_default().insert(sum(data.payload));
            }
            arrivals.slab.push(peer, &bytes);
        }
        arrivals.admit(&mut Admission::new(AdmissionConfig::plain(DATAGRAM_LEN_MAX)));
        let result = self.committer.absorb(&arrivals, &self.clock);
        self.look(result.is_err(), oracle);
    }

    fn commit<E>(&mut self, oracle: &mut Oracle, commit: impl Fn(&mut Server, &TestClock) -> Result<(), E>) {
        let result = commit(&mut self.committer, &self.clock);
        self.look(result.is_err(), oracle);
    }

    /// What the server has done.
    fn look(&mut self, failed: bool, oracle: &mut Oracle) {
        for block in std::mem::take(&mut self.lanes.0.lock().unwrap().committed) {
            oracle.durable(&block);
        }
        let replies = std::mem::take(&mut self.wire.0.lock().unwrap().replies);
        if self.failed {
            assert!(replies.is_empty() && failed, "something was sent or taken after an error");
        }
        self.failed |= failed;
        for bytes in replies {
            oracle.reply(&bytes);
        }
        oracle.now_us = self.clock.0.get();
        oracle.trimmed(self.disk.low());
    }

    /// The lanes have come further, one of them as far as all that is committed.
    fn process(&mut self, choice: u8, oracle: &mut Oracle) {
        let mut lanes = self.lanes.0.lock().unwrap();
        let lane = usize::from(choice & 1);
        if let Some(mark) = lanes.marks.get_mut(lane) {
            let behind = u64::from(choice >> 1 & 7);
            mark.watermark = mark.watermark.max(Offset(oracle.end.0.saturating_sub(behind)));
        }
        oracle.watermark = lanes.marks.iter().map(|mark| mark.watermark).min().unwrap_or_default();
    }

    fn fate(&self, fate: WriteFate) {
        // What is in flight already has another.
        if !self.committer.is_in_flight() {
            self.disk.on_write(move |_| fate);
        }
    }
}

/// A payload's length and checksum.
type Sum = (usize, u32);

fn sum(payload: &[u8]) -> Sum {
    (payload.len(), crc32fast::hash(payload))
}

/// What must hold, whatever comes.
#[derive(Default)]
struct Oracle {
    now_us: u64,
    /// Payloads sent under each number.
    sent: BTreeMap<(SessionId, Seq), BTreeSet<Sum>>,
    /// Every entry ever seen durable.
    entries: BTreeMap<u64, (SessionId, Seq, EntryKind, Sum)>,
    /// Each journaled message has its entry at this offset.
    journaled: BTreeMap<(SessionId, Seq), u64>,
    end: Offset,
    low: Offset,
    /// The lowest that a lane has reported.
    watermark: Offset,
    /// By session: the highest floor that was acked, and the seqs above it.
    acked: BTreeMap<SessionId, (Seq, BTreeSet<Seq>)>,
    /// The nonce that each epoch was given to.
    welcomed: BTreeMap<SessionId, u64>,
}

impl Oracle {
    fn durable(&mut self, block: &Block) {
        for entry in block.entries() {
            let (id, seq) = (entry.meta.session, entry.meta.seq);
            let known = (id, seq, entry.kind, sum(entry.payload));
            if let Some(before) = self.entries.get(&entry.offset.0) {
                assert_eq!(*before, known, "offset {} names two entries", entry.offset);
                continue;
            }
            if entry.kind == EntryKind::Data {
                let sent = self.sent.get(&(id, seq)).is_some_and(|payloads| payloads.contains(&known.3));
                assert!(sent, "{id} never sent {seq} as it is journaled");
                if let Some(before) = self.journaled.insert((id, seq), entry.offset.0) {
                    panic!("{id} {seq} is journaled at {before} and {}", entry.offset);
                }
            }
            self.entries.insert(entry.offset.0, known);
        }
        self.end = self.end.max(block.end());
    }

    fn started(&mut self, disk: &MemoryDisk, lanes: &[LaneMark], checkpoint_at: Offset) {
        let mut kept = BTreeSet::new();
        for block in disk.read(disk.low(), usize::MAX).expect("memory") {
            self.durable(&block);
            kept.extend(block.entries().map(|entry| entry.offset.0));
        }
        let missing = self.entries.range(disk.low().0..).find(|(offset, _)| !kept.contains(offset));
        assert_eq!(missing, None, "an entry that was durable is gone");
        assert!(checkpoint_at <= disk.end() && self.end <= disk.end());
        let watermark = lanes.iter().map(|mark| mark.watermark).min().unwrap_or_default();
        assert!(watermark <= self.watermark, "more is processed than any lane has said");
        self.watermark = watermark;
        self.trimmed(disk.low());
    }

    fn acked_is_found(&self, sessions: &mut SessionTable) {
        for (&id, (floor, above)) in &self.acked {
            if *floor == Seq::ZERO && above.is_empty() {
                continue;
            }
            let index = sessions.find(id).unwrap_or_else(|| panic!("{id} was acked and is gone"));
            let session = sessions.at(index);
            assert!(session.floor() >= *floor, "{id} was acked up to {floor}, a start finds {}", session.floor());
            let missing = above.iter().find(|seq| !session.holds(**seq));
            assert_eq!(missing, None, "{id}: it was acked, and a start does not find it");
        }
        // One in which nothing had come has given its place to a later one: so long as that is known, it is not given again, and
        // what comes in it still opens it.
        for id in self.welcomed.keys() {
            let newest = sessions.newest_of(id.client).map(|index| sessions.at(index).id().epoch);
            let known = sessions.find(*id).is_some() || newest.is_some_and(|newest| newest > id.epoch);
            assert!(known, "{id} was given, and is gone with all that is later");
        }
    }

    fn reply(&mut self, bytes: &[u8]) {
        match decode(bytes).expect("a server speaks well") {
            Datagram::Ack(Ack { client, epoch, floor, bitmap, .. }) => {
                let bit = |i: &usize| bitmap[i / 8] >> (i % 8) & 1 == 1;
                let bits = (0..bitmap.len() * 8).filter(bit).map(|i| Seq(floor.0 + 1 + i as u64));
                let (before, above) = self.acked.entry(SessionId { client, epoch }).or_default();
                // To a PING in a session that it does not know, a server says 0: of what it has acked it knows all.
                assert!(floor >= *before, "the floor of {client} went back from {before} to {floor}");
                *before = floor;
                above.extend(bits);
                above.retain(|seq| *seq > floor);
            }
            Datagram::Welcome(welcome) => {
                let id = SessionId { client: welcome.client, epoch: welcome.epoch };
                let before = self.welcomed.insert(id, welcome.nonce);
                assert!(before.is_none_or(|nonce| nonce == welcome.nonce), "{id} was given twice");
            }
            Datagram::Reject(_) => {}
            other => panic!("a server does not send {other:?}"),
        }
    }

    fn trimmed(&mut self, low: Offset) {
        assert!(low >= self.low && low <= self.watermark, "{low} is trimmed, and processed is {}", self.watermark);
        self.low = low;
    }
}

/// The way back to the clients.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Sent>>);

#[derive(Default)]
struct Sent {
    /// Of each request, what may still be sent for it, in bytes.
    lens: Vec<usize>,
    replies: Vec<Vec<u8>>,
}

impl Transmit for Wire {
    fn transmit(&mut self, outbox: &Outbox) {
        let mut sent = self.0.lock().unwrap();
        for (peer, bytes) in outbox.iter() {
            let std::net::IpAddr::V4(number) = peer.addr.ip() else { panic!("a reply to nobody") };
            let left = &mut sent.lens[usize::try_from(number.to_bits()).expect("few")];
            *left = left.checked_sub(bytes.len()).expect("PROTOCOL.md#no-amplification");
            sent.replies.push(bytes.to_vec());
        }
    }
}

#[derive(Clone, Default)]
struct Lanes(Arc<Mutex<Processing>>);

#[derive(Default)]
struct Processing {
    marks: Vec<LaneMark>,
    committed: Vec<Arc<Block>>,
}

impl Downstream for Lanes {
    fn committed(&mut self, receipt: &Durable) {
        self.0.lock().unwrap().committed.extend(receipt.block().cloned());
    }

    fn marks(&self) -> Vec<LaneMark> {
        self.0.lock().unwrap().marks.clone()
    }
}

const START_UNIX_US: u64 = 1_800_000_000_000_000;

struct TestClock(Cell<u64>);

impl Clock for TestClock {
    fn now(&self) -> Now {
        Now { mono_us: self.0.get(), unix_us: START_UNIX_US + self.0.get() }
    }
}

impl TestClock {
    fn advance_s(&self, s: u64) {
        self.0.set(self.0.get() + s * 1_000_000);
    }
}
