//! The committer's steps, called directly: what leaves the server, and when.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use duragram_proto::codec::{self, Ack, Data, Datagram, Hello, Ping, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};
use prometheus_client::registry::Registry;

use super::*;
use crate::journal::testing::memory::{MemoryDisk, MemoryJournal, Write, WriteFate};
use crate::journal::{Durable, StorageError};
use crate::metrics::Metrics;
use crate::model::{Clock, EntryKind, LaneMark, Now, Offset, Peer, SessionId};
use crate::net::{Admission, Batch, Gate, Outbox, Transmit};

const WINDOW: u16 = 100;

/// A server without threads and sockets.
struct Rig {
    disk: MemoryDisk,
    committer: Committer<MemoryJournal, Wire, Lanes>,
    wire: Wire,
    lanes: Lanes,
    clock: TestClock,
    config: CommitterConfig,
    admission: Admission,
    gate: Gate,
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

#[derive(Clone, Default)]
struct Lanes(Arc<Mutex<(Vec<LaneMark>, Offset)>>);

impl Downstream for Lanes {
    fn committed(&mut self, receipt: &Durable) {
        self.0.lock().unwrap().1 = receipt.end();
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
    fn advance_s(&self, s: u64) {
        self.0.set(self.0.get() + s * 1_000_000);
    }
}

fn config() -> CommitterConfig {
    CommitterConfig {
        window: WINDOW,
        commit_bytes_max: 1 << 20,
        checkpoint_bytes: 1 << 30,
        checkpoint_interval_us: 1_000_000,
        retain_bytes: 0,
        reserve_bytes: 1000,
        session_ttl_s: 100,
        sealed: false,
    }
}

impl Rig {
    fn new() -> Self {
        Self::on(MemoryDisk::default(), config(), 10)
    }

    fn on(disk: MemoryDisk, config: CommitterConfig, sessions_max: usize) -> Self {
        let mut recovery = Recovery::new(sessions_max);
        let opened = disk.open(&mut |replay| recovery.apply(replay));
        let recovered = recovery.finish(&opened).unwrap();
        let (wire, lanes) = (Wire::default(), Lanes::default());
        lanes.0.lock().unwrap().0 = vec![LaneMark::default()];
        let metrics = Metrics::register(&mut Registry::default());
        let journal = opened.journal;
        let committer =
            Committer::new(config.clone(), recovered, journal, wire.clone(), lanes.clone(), metrics.clone());
        let admission = Admission::plain(1472);
        let gate = Gate::new(admission.clone());
        Self { disk, committer, wire, lanes, clock: TestClock::default(), config, admission, gate, metrics }
    }

    /// As after a SIGKILL.
    fn restart(self) -> Self {
        Self::on(self.disk, self.config, 10)
    }

    /// Absorbs datagrams as one batch, commits, and returns what was sent to whom.
    fn step(&mut self, datagrams: &[(Peer, Vec<u8>)]) -> Vec<(Peer, Vec<u8>)> {
        self.absorb(datagrams).unwrap();
        self.committer.commit(&self.clock).unwrap();
        self.sent()
    }

    fn absorb(&mut self, datagrams: &[(Peer, Vec<u8>)]) -> Result<(), StorageError> {
        let mut batch = Batch::new(0);
        batch.arrived = self.clock.now();
        for (peer, bytes) in datagrams {
            batch.push(*peer, bytes, &mut self.gate);
        }
        self.committer.absorb(&batch, &self.clock)
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

#[test]
fn no_ack_leaves_before_the_receipt() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    let wire = rig.wire.clone();
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    rig.disk.on_write(move |write| {
        if let Write::Commit { block: Some(block), .. } = write {
            assert_eq!(block.entries().count(), 2);
            assert_eq!(wire.len(), 0, "an ack was sent while the commit was in flight");
            *count.lock().unwrap() += 1;
        }
        WriteFate::Durable
    });
    // The retransmission of 2 and the PING must wait for 2 as well: their ack would count it.
    let ping = encode(&Datagram::Ping(Ping { client: ClientId(1), epoch: Epoch::new(1).unwrap() }));
    let sent = rig.step(&[
        (peer(1), data(1, 2, 0, false)),
        (peer(1), data(1, 2, 0, false)),
        (peer(1), ping),
        (peer(2), data(2, 1, 0, false)),
    ]);
    assert_eq!(*seen.lock().unwrap(), 1);
    assert_eq!(sent.iter().map(|(_, bytes)| reply(bytes)).collect::<Vec<_>>(), [acked(2), acked(1)]);
}

#[test]
fn after_a_failed_commit_nothing_is_ever_acked_again() {
    for fate in [WriteFate::FailedAndLost, WriteFate::FailedButWritten] {
        let mut rig = Rig::new();
        rig.data(1, 1, 0);
        rig.disk.on_write(move |_| fate);
        rig.absorb(&[(peer(1), data(1, 2, 0, false)), (peer(2), data(2, 1, 0, false))]).unwrap();
        rig.committer.commit(&rig.clock).unwrap_err();
        assert_eq!(rig.sent(), []);
        rig.disk.on_write(|_| WriteFate::Durable);
        for datagram in [data(1, 1, 0, false), data(1, 2, 0, false), data(1, 3, 0, false), hello(3, 3)] {
            rig.absorb(&[(peer(1), datagram)]).unwrap_err();
            rig.committer.commit(&rig.clock).unwrap_err();
            assert_eq!(rig.sent(), []);
        }
    }
}

#[test]
fn a_duplicate_of_a_durable_entry_is_acked_again_without_a_commit() {
    let mut rig = Rig::new();
    assert_eq!(rig.data(1, 1, 0), acked(1));
    rig.disk.on_write(|_| panic!("a duplicate was journaled"));
    assert_eq!(rig.data(1, 1, 0), acked_again(1));
    assert_eq!(rig.disk.end(), Offset(1));
}

#[test]
fn a_block_is_acked_once_a_session_to_the_address_of_the_newest_datagram() {
    let mut rig = Rig::new();
    let sent = rig.step(&[
        (peer(1), data(1, 1, 0, false)),
        (peer(2), data(2, 1, 0, false)),
        (peer(3), data(1, 2, 1, false)),
        (peer(4), data(1, 4, 3, false)),
    ]);
    let replies: Vec<_> = sent.iter().map(|(to, bytes)| (to.addr.port(), reply(bytes))).collect();
    assert_eq!(replies, [(4, Reply::Ack { floor: 2, bits: vec![4], duplicate: false }), (2, acked(1))]);
}

#[test]
fn no_reply_is_longer_than_its_request() {
    let mut rig = Rig::new();
    // Every second seq missing: the full bitmap would be longer than these requests.
    let datagrams: Vec<_> = (1..=50u16).map(|i| (peer(1), data(1, u64::from(i) * 2, i * 2 - 1, false))).collect();
    let len = datagrams[0].1.len();
    let sent = rig.step(&datagrams);
    assert_eq!(sent.len(), 1);
    assert!(sent[0].1.len() <= len, "{} bytes in answer to {len}", sent[0].1.len());
    assert_eq!(reply(&sent[0].1), Reply::Ack { floor: 0, bits: (1..=32).map(|i| i * 2).collect(), duplicate: false });
}

#[test]
fn a_block_that_is_full_is_committed_and_acked_before_more_is_taken() {
    let mut rig = Rig::on(MemoryDisk::default(), CommitterConfig { commit_bytes_max: 4000, ..config() }, 10);
    let largest = Arc::new(Mutex::new((0, 0)));
    let seen = Arc::clone(&largest);
    rig.disk.on_write(move |write| {
        if let Write::Commit { block: Some(block), .. } = write {
            let mut seen = seen.lock().unwrap();
            *seen = (seen.0 + 1, seen.1.max(block.size()));
        }
        WriteFate::Durable
    });
    let datagrams: Vec<_> = (1..=10).map(|seq| (peer(1), data_with(1, seq, 0, false, &[7; 1400]))).collect();
    let sent = rig.step(&datagrams);
    assert_eq!(sent.iter().map(|(_, bytes)| reply(bytes)).next_back(), Some(acked(10)));
    let (commits, size) = *largest.lock().unwrap();
    assert_eq!((commits, sent.len()), (4, 4));
    assert!(size < 4000 + 1600, "a block of {size} bytes");
}

#[test]
fn lost_acked_data_becomes_gap_entries_before_the_ack() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    assert_eq!(rig.data(1, 5, 0), acked(5));
    let mut kinds = Vec::new();
    rig.disk.open(&mut |replay| {
        if let crate::journal::Replay::Block(block) = replay {
            kinds.extend(block.entries().map(|entry| (entry.offset.0, entry.kind, entry.meta.seq.0)));
        }
    });
    let gap = EntryKind::Gap { from: Seq(2), to: Seq(4) };
    assert_eq!(kinds, [(0, EntryKind::Data, 1), (1, gap, 4), (2, EntryKind::Data, 5)]);
}

#[test]
fn a_floor_moved_by_a_duplicate_is_durable_before_its_ack() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    rig.data(1, 3, 1);
    let sent = rig.step(&[(peer(1), data(1, 3, 0, true))]);
    assert_eq!(reply(&sent[0].1), acked_again(3));
    let mut rig = rig.restart();
    let sent = rig.step(&[(peer(1), data(1, 2, 0, false))]);
    assert_eq!(reply(&sent[0].1), acked_again(3));
}

#[test]
fn a_floor_moved_by_a_refused_datagram_is_durable_before_its_ack() {
    let ping = encode(&Datagram::Ping(Ping { client: ClientId(1), epoch: Epoch::new(1).unwrap() }));
    let refused = data(1, 110, 100, true);
    for datagrams in [[ping.clone(), refused.clone()], [refused, ping]] {
        let mut rig = Rig::new();
        rig.data(1, 1, 0);
        let wire = rig.wire.clone();
        rig.disk.on_write(move |_| {
            let sent = wire.0.lock().unwrap();
            let acks = sent.iter().filter(|(_, bytes)| matches!(reply(bytes), Reply::Ack { .. })).count();
            assert_eq!(acks, 0, "an ack counts what is not durable yet");
            WriteFate::Durable
        });
        let sent = rig.step(&datagrams.map(|datagram| (peer(1), datagram)));
        let replies: Vec<_> = sent.iter().map(|(_, bytes)| reply(bytes)).collect();
        assert_eq!(replies, [Reply::Reject(RejectCode::BeyondWindow), acked_again(9)]);
        let mut rig = rig.restart();
        assert_eq!(rig.data(1, 9, 0), acked_again(9));
    }
}

#[test]
fn a_flood_that_journals_nothing_is_answered_in_bounded_pieces_and_does_not_hold_up_a_commit() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    let flood: Vec<_> =
        (0..crate::limits::DATAGRAMS_PER_COMMIT).map(|_| (peer(1), data(1, 5000, 4999, false))).collect();
    rig.absorb(&flood).unwrap();
    assert!(rig.committer.is_full());
    assert_eq!(rig.sent().len(), flood.len(), "refusals need not wait");
    rig.absorb(&[(peer(2), data(2, 1, 0, false)), (peer(1), data(1, 1, 0, false))]).unwrap();
    assert_eq!(rig.step(&[]).len(), 2);
}

#[test]
fn a_client_whose_acks_are_lost_is_not_forgotten_while_it_retransmits() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    for _ in 0..20 {
        rig.clock.advance_s(40);
        assert_eq!(rig.data(1, 1, 0), acked_again(1));
    }
    assert_eq!(rig.disk.end(), Offset(1));
}

/// Found by the simulator, seed 1054119.
#[test]
fn a_crash_does_not_forget_that_a_client_was_heard() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    for round in 1..4 {
        rig.clock.advance_s(80);
        rig.data(2, round, 0);
        // The next checkpoint is a while away.
        assert_eq!(rig.data(1, 1, 0), acked_again(1));
        rig = rig.restart();
    }
    rig.step(&[]);
    assert_eq!(rig.data(1, 1, 0), acked_again(1));
    assert_eq!(rig.disk.end(), Offset(4));
}

#[test]
fn a_start_on_a_full_disk_refuses_the_very_first_datagram() {
    let disk = MemoryDisk::default();
    disk.set_free_bytes(999);
    let mut rig = Rig::on(disk, config(), 10);
    assert_eq!(rig.data(1, 1, 0), Reply::Reject(RejectCode::Storage));
    assert_eq!(rig.disk.end(), Offset(0));
}

#[test]
fn a_checkpoint_of_many_sessions_takes_several_writes_and_is_whole() {
    let mut rig = Rig::on(MemoryDisk::default(), config(), 200_000);
    let sessions = 150_000;
    let first: Vec<_> = (1..=sessions).map(|client| (peer(1), data(client, 1, 0, false))).collect();
    rig.step(&first);
    rig.clock.advance_s(2);
    rig.step(&[]);
    assert_eq!(rig.committer.status().checkpoint, Offset(0), "not all records fit one write");
    // What comes meanwhile belongs to the next checkpoint.
    rig.data(1, 2, 0);
    for _ in 0..10 {
        rig.step(&[]);
    }
    assert_eq!(rig.committer.status().checkpoint, Offset(sessions));
    let rig = Rig::on(rig.disk, config(), 200_000);
    assert_eq!(rig.committer.status().sessions as u64, sessions);
    assert!((1..=sessions).all(|client| {
        let id = crate::model::SessionId { client: ClientId(client), epoch: Epoch::new(1).unwrap() };
        rig.disk.session(id).is_some_and(|record| record.floor >= Seq(1))
    }));
}

#[test]
fn a_client_far_ahead_of_this_journal_is_told_to_open_a_new_epoch() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    assert_eq!(rig.data(1, 1000, 0), Reply::Reject(RejectCode::StaleEpoch));
    assert_eq!(rig.data(1, 2, 0), acked(2));
}

#[test]
fn an_unknown_session_goes_on_where_its_client_is() {
    let mut rig = Rig::new();
    assert_eq!(rig.data(1, 500, 2), Reply::Ack { floor: 497, bits: vec![500], duplicate: false });
    assert_eq!(rig.data(2, 500, WINDOW), Reply::Reject(RejectCode::BeyondWindow));
    assert_eq!(rig.committer.status().sessions, 1, "a refused datagram opens no session");
}

#[test]
fn a_welcome_waits_for_its_epoch_to_be_durable_and_is_the_same_for_the_same_nonce() {
    let mut rig = Rig::new();
    let wire = rig.wire.clone();
    rig.disk.on_write(move |_| {
        assert_eq!(wire.len(), 0);
        WriteFate::Durable
    });
    let first = reply(&rig.step(&[(peer(1), hello(7, 42))])[0].1);
    assert_eq!(first, Reply::Welcome(1_800_000_000));
    let mut rig = rig.restart();
    rig.disk.on_write(|_| WriteFate::Durable);
    assert_eq!(reply(&rig.step(&[(peer(1), hello(7, 42))])[0].1), first, "after a restart too");
    assert_eq!(reply(&rig.step(&[(peer(1), hello(7, 43))])[0].1), Reply::Welcome(1_800_000_001));
}

#[test]
fn a_client_that_asks_again_and_again_takes_one_place() {
    let mut rig = Rig::new();
    let mut epochs = Vec::new();
    for nonce in 0..300 {
        let Reply::Welcome(epoch) = reply(&rig.step(&[(peer(1), hello(7, nonce))])[0].1) else { panic!("no WELCOME") };
        epochs.push(epoch);
        assert_eq!(rig.committer.status().sessions, 1);
        if nonce % 100 == 50 {
            rig = rig.restart();
        }
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "none is given twice: {epochs:?}");
    assert_eq!(rig.restart().committer.status().sessions, 1, "on disk too");
}

#[test]
fn a_session_that_gave_way_to_a_later_one_opens_again_with_what_comes_in_it() {
    let mut rig = Rig::new();
    let welcome = |rig: &mut Rig, nonce| match reply(&rig.step(&[(peer(1), hello(7, nonce))])[0].1) {
        Reply::Welcome(epoch) => epoch,
        other => panic!("{other:?}"),
    };
    let (first, second) = (welcome(&mut rig, 1), welcome(&mut rig, 2));
    for epoch in [first, second] {
        let data = encode(&Datagram::Data(Data::whole(ClientId(7), Epoch::new(epoch).unwrap(), Seq(1), 0, b"a")));
        assert_eq!(reply(&rig.step(&[(peer(1), data)])[0].1), acked(1), "each run has its own");
    }
    assert!(welcome(&mut rig, 3) > second);
    assert_eq!(rig.restart().committer.status().sessions, 3);
}

#[test]
fn of_several_hellos_in_one_commit_the_last_is_welcomed() {
    let mut rig = Rig::new();
    let sent = rig.step(&[(peer(1), hello(7, 1)), (peer(1), hello(7, 2)), (peer(1), hello(7, 2))]);
    let replies: Vec<_> = sent.iter().map(|(_, bytes)| reply(bytes)).collect();
    assert_eq!(replies, [Reply::Welcome(1_800_000_001), Reply::Welcome(1_800_000_001)]);
    assert_eq!(rig.restart().committer.status().sessions, 1);
}

/// At another time of day a forgotten epoch would not be given again.
#[test]
fn an_epoch_that_was_welcomed_is_on_disk() {
    let mut rig = Rig::new();
    let first = reply(&rig.step(&[(peer(1), hello(7, 42))])[0].1);
    let mut rig = rig.restart();
    rig.clock.advance_s(10);
    assert_eq!(reply(&rig.step(&[(peer(1), hello(7, 42))])[0].1), first);
}

#[test]
fn a_full_table_answers_busy_and_serves_those_it_has() {
    let mut rig = Rig::on(MemoryDisk::default(), config(), 1);
    rig.data(1, 1, 0);
    assert_eq!(rig.data(2, 1, 0), Reply::Reject(RejectCode::Busy));
    assert_eq!(reply(&rig.step(&[(peer(1), hello(3, 1))])[0].1), Reply::Reject(RejectCode::Busy));
    assert_eq!(rig.data(1, 2, 0), acked(2));
}

#[test]
fn below_the_reserve_new_data_is_refused_until_space_is_back() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    rig.disk.set_free_bytes(999);
    rig.clock.advance_s(1);
    rig.step(&[]);
    assert_eq!(rig.data(1, 2, 0), Reply::Reject(RejectCode::Storage));
    assert_eq!(rig.data(2, 1, 0), Reply::Reject(RejectCode::Storage));
    assert_eq!(rig.data(1, 1, 0), acked_again(1), "what is on disk is acked all the same");
    rig.disk.set_free_bytes(1000);
    rig.clock.advance_s(1);
    rig.step(&[]);
    assert_eq!(rig.data(1, 2, 0), acked(2));
}

#[test]
fn sessions_outlive_the_trimming_of_their_entries() {
    let mut rig = Rig::new();
    for seq in 1..=3 {
        rig.data(1, seq, 0);
    }
    rig.set_watermark(3);
    rig.clock.advance_s(2);
    rig.step(&[]);
    let mut rig = rig.restart();
    rig.disk.on_write(|write| match write {
        Write::Commit { block: Some(_), .. } => panic!("journaled twice"),
        _ => WriteFate::Durable,
    });
    for seq in 1..=3 {
        assert_eq!(rig.data(1, seq, 0), acked_again(3));
    }
}

#[test]
fn only_what_every_lane_has_processed_is_trimmed() {
    let mut rig = Rig::on(MemoryDisk::default(), CommitterConfig { commit_bytes_max: 1, ..config() }, 10);
    let mut seq = 0;
    while rig.committer.status().backlog_bytes < 4 << 20 {
        let datagrams: Vec<_> = (0..64)
            .map(|_| {
                seq += 1;
                (peer(1), data_with(1, seq, 0, false, &[7; 1400]))
            })
            .collect();
        rig.step(&datagrams);
    }
    let backlog = rig.committer.status().backlog_bytes;
    rig.clock.advance_s(2);
    rig.step(&[]);
    assert_eq!((rig.disk.low(), rig.committer.status().backlog_bytes), (Offset(0), backlog));
    rig.set_watermark(seq / 2);
    rig.clock.advance_s(2);
    rig.step(&[]);
    assert!(rig.disk.low() > Offset(0) && rig.disk.low() <= Offset(seq / 2), "trimmed below {}", rig.disk.low());
    assert!(rig.committer.status().backlog_bytes < backlog);
}

/// Found by the simulator: the session expired in the commit before its WELCOME was sent.
#[test]
fn a_repeated_hello_keeps_its_session() {
    let mut rig = Rig::new();
    let Reply::Welcome(epoch) = reply(&rig.step(&[(peer(1), hello(7, 42))])[0].1) else { panic!("no WELCOME") };
    let id = SessionId { client: ClientId(7), epoch: Epoch::new(epoch).unwrap() };
    // Its change goes into a checkpoint, and after that it may expire.
    rig.clock.advance_s(2);
    rig.step(&[]);
    rig.clock.advance_s(200);
    assert_eq!(reply(&rig.step(&[(peer(1), hello(7, 42))])[0].1), Reply::Welcome(epoch));
    assert!(rig.disk.session(id).is_some(), "the epoch is not on disk any more");
}

#[test]
fn idle_sessions_expire_by_service_time_and_are_gone_after_a_restart() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    rig.clock.advance_s(60);
    rig.data(2, 1, 0);
    rig.step(&[]);
    rig.clock.advance_s(60);
    rig.step(&[]);
    assert_eq!(rig.committer.status().sessions, 1);
    let mut rig = rig.restart();
    assert_eq!(rig.committer.status().sessions, 1);
    rig.clock.advance_s(50);
    rig.step(&[]);
    assert_eq!(rig.committer.status().sessions, 1, "a restart is no reason to forget a client");
    assert_eq!(rig.data(2, 1, 0), acked_again(1));
}

#[test]
fn credit_shrinks_with_the_queue_and_never_to_nothing() {
    let mut rig = Rig::new();
    let mut credit_at = |pressure| {
        rig.committer.set_pressure(pressure);
        let ping = encode(&Datagram::Ping(Ping { client: ClientId(1), epoch: Epoch::new(1).unwrap() }));
        match codec::decode(&rig.step(&[(peer(1), ping)])[0].1).unwrap() {
            Datagram::Ack(ack) => ack.credit,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([0, 512, 768, 1024].map(&mut credit_at), [WINDOW, WINDOW, 57, 13]);
    assert_eq!(rig.committer.status().sessions, 0, "a PING opens no session");
}

/// What a step of the property below brings.
#[derive(Clone, Debug)]
enum Step {
    /// One batch of (client, seq, span, skip); seq 0 stands for a PING, span above the seq for a HELLO.
    Batch(Vec<(u64, u64, u16, bool)>),
    Crash {
        window: u16,
    },
    Checkpoint,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let datagram = (1u64..4, 0u64..40, 0u16..12, any::<bool>());
    let step = prop_oneof![
        8 => prop::collection::vec(datagram, 1..9).prop_map(Step::Batch),
        1 => (4u16..12).prop_map(|window| Step::Crash { window }),
        1 => Just(Step::Checkpoint),
    ];
    prop::collection::vec(step, 1..60)
}

proptest::proptest! {
    /// Whatever comes and whenever the server dies: what was acked is counted after a restart, and journaled once; no ack
    /// counts more than a restart at that moment would find.
    #[test]
    fn nothing_acked_is_forgotten_and_nothing_is_journaled_twice(steps in steps()) {
        let narrow = CommitterConfig { window: 8, ..config() };
        let mut rig = Rig::on(MemoryDisk::default(), narrow.clone(), 1000);
        let mut floors = std::collections::BTreeMap::<u64, u64>::new();
        let mut counted = std::collections::BTreeSet::<(u64, u64)>::new();
        for step in steps {
            let datagrams = match step {
                Step::Crash { window } => {
                    rig = Rig::on(rig.disk, CommitterConfig { window, ..narrow.clone() }, 1000);
                    continue;
                }
                Step::Checkpoint => {
                    rig.clock.advance_s(2);
                    rig.step(&[]);
                    continue;
                }
                Step::Batch(datagrams) => datagrams,
            };
            let ping = |client| encode(&Datagram::Ping(Ping { client: ClientId(client), epoch: Epoch::new(1).unwrap() }));
            let bytes = datagrams.iter().map(|&(client, seq, span, skip)| match seq {
                0 => ping(client),
                _ if u64::from(span) >= seq => hello(client, seq),
                _ => data(client, seq, span, skip),
            });
            let batch: Vec<_> = bytes.map(|bytes| (peer(1), bytes)).collect();
            // Half of them while the others are in flight; every second time these are lost in the crash that follows.
            let (first, rest) = batch.split_at(batch.len() / 2);
            rig.committer.start_writer(|| {}).unwrap();
            rig.absorb(first).unwrap();
            rig.committer.launch(&rig.clock).unwrap();
            rig.absorb(rest).unwrap();
            rig.committer.land(&rig.clock).unwrap();
            if batch.len() % 2 == 1 {
                rig.committer.commit(&rig.clock).unwrap();
            }
            let sent = rig.sent();
            let restarted = Rig::on(rig.disk.clone(), narrow.clone(), 1000);
            for (_, bytes) in &sent {
                let Datagram::Ack(Ack { client, epoch, .. }) = codec::decode(bytes).unwrap() else { continue };
                let Reply::Ack { floor, bits, .. } = reply(bytes) else { unreachable!() };
                if epoch.value() != 1 {
                    continue;
                }
                let client = client.0;
                let before = floors.insert(client, floor).unwrap_or(0);
                proptest::prop_assert!(floor >= before, "the floor went back from {before} to {floor}");
                // A PING's ack has no room for a bitmap.
                if bytes.len() > codec::MIN_LEN {
                    for &(_, seq) in counted.iter().filter(|(c, s)| *c == client && *s > floor) {
                        proptest::prop_assert!(bits.contains(&seq), "{seq} was acked before");
                    }
                }
                counted.extend(bits.iter().map(|seq| (client, *seq)));
                let id = crate::model::SessionId { client: ClientId(client), epoch };
                let mut found = restarted.committer.sessions_for_tests(id);
                if floor > 0 {
                    let session = found.as_mut().expect("an acked session is on disk");
                    proptest::prop_assert!(session.floor().0 >= floor, "acked {floor}, on disk {}", session.floor());
                    proptest::prop_assert!(bits.iter().all(|&seq| session.holds(Seq(seq))));
                }
            }
            // Opening the disk cut the writer off.
            rig = restarted;
        }
        let mut journaled = std::collections::BTreeSet::new();
        let mut twice = None;
        rig.disk.clone().open(&mut |_| {});
        for block in crate::journal::ReadJournal::read(&rig.disk, Offset(0), usize::MAX).unwrap() {
            for entry in block.entries().filter(|entry| entry.kind == EntryKind::Data) {
                if !journaled.insert((entry.meta.session, entry.meta.seq)) {
                    twice = Some(entry.meta);
                }
            }
        }
        proptest::prop_assert_eq!(twice, None);
    }
}

#[path = "flight_tests.rs"]
mod flight;

#[path = "sealed_tests.rs"]
mod sealed;
