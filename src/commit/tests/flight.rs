//! What the committer does while commits are in flight.

use super::*;
use crate::limits::QUIET_US;

/// Holds commits until they are let go.
struct Gate;

impl Gate {
    fn on(rig: &mut Rig) -> Self {
        rig.hand.hold(1);
        Self
    }

    /// Absorbs the datagrams, and launches a commit with them.
    fn launch(&self, rig: &mut Rig, datagrams: &[(Peer, Vec<u8>)]) {
        rig.absorb(datagrams).unwrap();
        rig.committer.launch(&rig.clock).unwrap();
        assert!(rig.committer.is_in_flight());
    }

    fn land(&self, rig: &mut Rig, fate: WriteFate) -> Result<(), JournalError> {
        rig.disk.on_write(move |_| fate);
        rig.committer.land(&rig.clock)
    }
}

fn replies(rig: &Rig) -> Vec<Reply> {
    rig.sent().iter().map(|(_, bytes)| reply(bytes)).collect()
}

#[test]
fn an_ack_counts_what_its_commit_holds_and_nothing_that_came_while_it_was_in_flight() {
    let mut rig = Rig::new();
    let gate = Gate::on(&mut rig);
    gate.launch(&mut rig, &[(peer(1), data(1, 1, 0, false)), (peer(1), data(1, 3, 2, false))]);
    // Of the same session: they would move the floor to 4. And the first one again.
    let more = [data(1, 2, 1, false), data(1, 4, 3, false), data(1, 1, 0, false)].map(|bytes| (peer(1), bytes));
    rig.absorb(&more).unwrap();
    assert_eq!(replies(&rig), [], "nothing is durable yet");
    gate.land(&mut rig, WriteFate::Durable).unwrap();
    assert_eq!(replies(&rig), [Reply::Ack { floor: 1, bits: vec![3], duplicate: false }]);
    assert_eq!(rig.lanes.0.lock().unwrap().1, Offset(2));
    rig.committer.launch(&rig.clock).unwrap();
    assert_eq!(replies(&rig), []);
    gate.land(&mut rig, WriteFate::Durable).unwrap();
    assert_eq!(replies(&rig), [acked(4)]);
}

#[test]
fn a_duplicate_of_what_is_in_flight_is_acked_only_when_that_has_landed() {
    let mut rig = Rig::new();
    let gate = Gate::on(&mut rig);
    gate.launch(&mut rig, &[(peer(1), data(1, 1, 0, false))]);
    let ping = encode(&Datagram::Ping(Ping { client: ClientId(1), epoch: Epoch::new(1).unwrap() }));
    rig.absorb(&[(peer(2), data(1, 1, 0, false)), (peer(2), ping)]).unwrap();
    assert_eq!(replies(&rig), []);
    // Waits for the commit in flight. There is nothing else to write: the duplicate is no entry.
    rig.committer.launch(&rig.clock).unwrap();
    let mut seen = replies(&rig);
    seen.sort_by_key(|reply| *reply == acked_again(1));
    assert_eq!(seen, [acked(1), acked_again(1)]);
    assert_eq!(rig.disk.end(), Offset(1));
}

#[test]
fn a_commit_that_fails_in_flight_is_never_acked_nor_is_what_came_meanwhile() {
    for fate in [WriteFate::FailedAndLost, WriteFate::FailedButWritten] {
        let mut rig = Rig::new();
        let gate = Gate::on(&mut rig);
        gate.launch(&mut rig, &[(peer(1), data(1, 1, 0, false)), (peer(1), hello(7, 7))]);
        rig.absorb(&[(peer(1), data(1, 2, 0, false)), (peer(1), data(1, 1, 0, false))]).unwrap();
        gate.land(&mut rig, fate).unwrap_err();
        for _ in 0..2 {
            rig.committer.launch(&rig.clock).unwrap_err();
            rig.committer.commit(&rig.clock).unwrap_err();
            rig.absorb(&[(peer(1), data(1, 1, 0, false))]).unwrap_err();
        }
        rig.committer.shut_down(&rig.clock).unwrap_err();
        assert_eq!(rig.sent(), []);
        assert_eq!(rig.lanes.0.lock().unwrap().1, Offset(0));
    }
}

#[test]
fn a_checkpoint_knows_nothing_of_what_came_after_its_commit_was_closed() {
    let mut rig = Rig::new();
    let gate = Gate::on(&mut rig);
    rig.clock.advance_s(2);
    gate.launch(&mut rig, &[(peer(1), data(1, 1, 0, false))]);
    // Absorbed before the checkpoint lands, and lost in the crash after it.
    rig.absorb(&[(peer(1), data(1, 2, 1, false)), (peer(2), data(2, 1, 0, false))]).unwrap();
    gate.land(&mut rig, WriteFate::Durable).unwrap();
    assert_eq!(rig.committer.status().checkpoint, Offset(1));
    let mut rig = rig.restart();
    rig.disk.on_write(|_| WriteFate::Durable);
    assert_eq!(rig.data(1, 2, 1), acked(2), "it is new to a journal that does not hold it");
    assert_eq!(rig.data(2, 1, 0), acked(1));
    assert_eq!(rig.disk.end(), Offset(3));
}

#[test]
fn a_full_block_waits_for_the_commit_in_flight() {
    let mut rig = Rig::on(MemoryDisk::default(), Config { commit_bytes_max: 2000, ..config() }, 10);
    let gate = Gate::on(&mut rig);
    let large = |seq| (peer(1), data_with(1, seq, 0, false, &[7; 1400]));
    gate.launch(&mut rig, &[large(1), large(2)]);
    rig.absorb(&[large(3), large(4), large(5), large(6)]).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    rig.committer.land(&rig.clock).unwrap();
    assert_eq!(rig.disk.end(), Offset(6));
    assert_eq!(replies(&rig), [acked(2), acked(4), acked(6)]);
}

#[test]
fn shutting_down_waits_for_the_commit_in_flight_and_writes_the_rest() {
    let mut rig = Rig::new();
    let gate = Gate::on(&mut rig);
    gate.launch(&mut rig, &[(peer(1), data(1, 1, 0, false))]);
    rig.absorb(&[(peer(1), data(1, 2, 1, false))]).unwrap();
    rig.committer.shut_down(&rig.clock).unwrap();
    assert_eq!(replies(&rig), [acked(1), acked(2)]);
    assert_eq!(rig.committer.status().checkpoint, Offset(2));
}

#[test]
fn a_session_with_something_in_the_block_does_not_expire_however_late_that_is_committed() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    rig.absorb(&[(peer(1), data(1, 2, 1, false))]).unwrap();
    // As if the commit before had hung for longer than sessions may be idle.
    rig.clock.advance_s(200);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(replies(&rig), [acked(2)]);
    assert_eq!(rig.data(1, 2, 1), acked_again(2), "a retransmission that waited meanwhile");
    assert_eq!(rig.disk.end(), Offset(2));
}

#[test]
fn a_stop_acks_what_is_in_flight_and_hands_it_to_the_lanes() {
    use crate::model::SystemClock;
    use crate::net::{Receiver, bind};

    let rig = Rig::new();
    rig.hand.hold(1);
    let bound = bind("127.0.0.1:0".parse().unwrap(), 1, 1 << 20).unwrap();
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(bound.addr).unwrap();
    let admission = || Admission::new(AdmissionConfig::plain(1472));
    let receivers = bound.sockets.into_iter().map(|socket| (Receiver::new(socket, 0), admission())).collect();
    let metrics = Metrics::register(&mut Registry::default());
    let (ingest, _) = spawn(receivers, rig.committer, Threading::Single, SystemClock::start(), metrics).unwrap();
    client.send(&data(1, 1, 0, true)).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !rig.hand.has_work() {
        assert!(std::time::Instant::now() < deadline, "nothing is launched");
        std::thread::yield_now();
    }
    assert_eq!(rig.wire.len(), 0);
    ingest.stop().map(drop).unwrap();
    let sent = std::mem::take(&mut *rig.wire.0.lock().unwrap());
    assert_eq!(sent.iter().map(|(_, bytes)| reply(bytes)).collect::<Vec<_>>(), [acked(1)]);
    assert_eq!((rig.disk.end(), rig.lanes.0.lock().unwrap().1), (Offset(1), Offset(1)));
}

/// Of each ACK sent: its floor, the bits set, and whether it tells of all that is journaled.
fn completeness(rig: &Rig) -> Vec<(u64, usize, bool)> {
    let sent = rig.sent();
    let acks = sent.iter().map(|(_, bytes)| match codec::decode(bytes).unwrap() {
        Datagram::Ack(ack) => {
            (ack.floor.0, ack.bitmap.iter().map(|byte| byte.count_ones() as usize).sum(), ack.complete)
        }
        other => panic!("not an ACK: {other:?}"),
    });
    acks.collect()
}

#[test]
fn an_ack_is_complete_exactly_when_its_bitmap_was_not_cut() {
    let mut rig = Rig::new();
    let ping = || encode(&Datagram::Ping(Ping { client: ClientId(1), epoch: Epoch::new(1).unwrap() }));
    let mut step = |datagrams: &[Vec<u8>]| {
        let datagrams: Vec<_> = datagrams.iter().map(|bytes| (peer(1), bytes.clone())).collect();
        rig.absorb(&datagrams).unwrap();
        rig.committer.commit(&rig.clock).unwrap();
        completeness(&rig)
    };
    let room = (data(1, 1, 0, false).len() - codec::MIN_LEN) / 8 * 64;
    let last = 1 + room as u64;
    let at = |seq: u64| data(1, seq, u16::try_from(seq - 1).unwrap(), false);
    assert_eq!(step(&[ping()]), [(0, 0, true)], "of a session that it does not know nothing is journaled");
    assert_eq!(step(&[at(1)]), [(1, 0, true)]);
    assert_eq!(step(&[ping()]), [(1, 0, true)]);
    assert_eq!(step(&[at(3)]), [(1, 1, true)]);
    assert_eq!(step(&[ping()]), [(1, 0, false)], "a PING has no room for a bitmap");
    assert_eq!(step(&[at(last)]), [(1, 2, true)], "the last bit that there is room for");
    assert_eq!(step(&[at(last + 1)]), [(1, 2, false)]);
    assert_eq!(step(&[at(2)]), [(3, 2, true)], "the floor has moved by two, and with it the end of the bitmap");
}

#[test]
fn a_complete_ack_is_so_by_what_its_commit_holds_not_by_what_came_since() {
    let mut rig = Rig::new();
    let gate = Gate::on(&mut rig);
    gate.launch(&mut rig, &[(peer(1), data(1, 1, 0, false))]);
    // Far above, so that no ACK has room for it.
    rig.absorb(&[(peer(1), data(1, 90, 88, false))]).unwrap();
    gate.land(&mut rig, WriteFate::Durable).unwrap();
    assert_eq!(completeness(&rig), [(1, 0, true)]);
    rig.committer.launch(&rig.clock).unwrap();
    gate.land(&mut rig, WriteFate::Durable).unwrap();
    assert_eq!(completeness(&rig), [(1, 0, false)]);
}

#[test]
fn two_commits_under_way_land_in_order_and_each_is_acked_when_it_has_landed() {
    let mut rig = Rig::new();
    rig.hand.hold(2);
    for seq in [1, 2] {
        rig.absorb(&[(peer(1), data(1, seq, 0, false)), (peer(2), hello(7 + seq, seq))]).unwrap();
        assert!(rig.committer.may_launch());
        rig.committer.launch(&rig.clock).unwrap();
    }
    assert!(!rig.committer.may_launch() && !rig.committer.has_landed());
    assert_eq!(replies(&rig), []);
    rig.hand.run();
    assert!(rig.committer.has_landed());
    // There is nothing to write: what has landed is acked, and the other one not waited for.
    rig.committer.launch(&rig.clock).unwrap();
    let first = replies(&rig);
    assert!(matches!(first[..], [ref ack, Reply::Welcome(_)] if *ack == acked(1)), "{first:?}");
    assert_eq!(rig.lanes.0.lock().unwrap().1, Offset(1));
    rig.hand.run();
    rig.committer.land(&rig.clock).unwrap();
    let second = replies(&rig);
    assert!(matches!(second[..], [ref ack, Reply::Welcome(_)] if *ack == acked(2)), "{second:?}");
    assert_eq!((rig.disk.end(), rig.lanes.0.lock().unwrap().1), (Offset(2), Offset(2)));
}

#[test]
fn a_third_commit_waits_for_the_first_of_two_under_way() {
    let mut rig = Rig::new();
    rig.hand.hold(2);
    for seq in 1..=3 {
        rig.absorb(&[(peer(1), data(1, seq, 0, false))]).unwrap();
        rig.committer.launch(&rig.clock).unwrap();
    }
    assert_eq!(replies(&rig), [acked(1)]);
    assert_eq!(rig.disk.end(), Offset(1));
    rig.committer.land(&rig.clock).unwrap();
    assert_eq!(replies(&rig), [acked(2), acked(3)]);
}

#[test]
fn what_repeats_something_under_way_is_answered_when_that_has_landed_and_not_before() {
    let mut rig = Rig::new();
    rig.hand.hold(3);
    rig.absorb(&[(peer(1), data(1, 1, 0, false)), (peer(1), hello(7, 7))]).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    // The same again, alone and beside what is new.
    rig.absorb(&[(peer(2), data(1, 1, 0, false)), (peer(2), hello(7, 7))]).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    rig.absorb(&[(peer(3), data(1, 1, 0, false)), (peer(4), data(2, 1, 0, false))]).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    assert_eq!(replies(&rig), []);
    rig.hand.run();
    rig.committer.launch(&rig.clock).unwrap();
    let sent = rig.sent();
    let to: Vec<u16> = sent.iter().map(|(to, _)| to.addr.port()).collect();
    assert_eq!(to, [1, 1, 2, 2], "each an ACK and a WELCOME");
    assert_eq!((reply(&sent[0].1), reply(&sent[2].1)), (acked(1), acked_again(1)));
    assert_eq!(rig.disk.end(), Offset(1));
    // What came with new data is owed with that.
    rig.committer.land(&rig.clock).unwrap();
    assert_eq!(replies(&rig), [acked_again(1), acked(1)]);
    rig.absorb(&[(peer(5), data(1, 1, 0, false))]).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    assert_eq!(replies(&rig), [acked_again(1)], "nothing is under way: at once");
}

#[test]
fn when_the_first_of_two_under_way_fails_neither_is_acked() {
    for fate in [WriteFate::FailedAndLost, WriteFate::FailedButWritten] {
        let mut rig = Rig::new();
        rig.hand.hold(2);
        for seq in [1, 2] {
            rig.absorb(&[(peer(1), data(1, seq, 0, false))]).unwrap();
            rig.committer.launch(&rig.clock).unwrap();
        }
        rig.disk.on_write(move |_| fate);
        rig.hand.run();
        rig.disk.on_write(|_| WriteFate::Durable);
        rig.hand.run();
        for _ in 0..3 {
            rig.committer.land(&rig.clock).unwrap_err();
            rig.committer.launch(&rig.clock).unwrap_err();
        }
        assert_eq!(rig.sent(), []);
        assert!(rig.disk.end() <= Offset(1), "nothing is written after what has failed");
    }
}

#[test]
fn a_journal_that_another_owner_has_taken_over_is_never_acked_from_again_and_the_error_says_so() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    rig.disk.fence("gateway B");
    rig.absorb(&[(peer(1), data(1, 2, 0, false))]).unwrap();
    let error = rig.committer.launch(&rig.clock).unwrap_err();
    assert_eq!(error, JournalError::Fenced { owner: "gateway B".into() });
    assert!(error.to_string().contains("another owner now (gateway B)"), "{error}");
    for datagram in [data(1, 1, 0, false), data(1, 3, 0, false), hello(3, 3)] {
        assert_eq!(rig.absorb(&[(peer(1), datagram)]), Err(error.clone()));
        assert_eq!(rig.committer.commit(&rig.clock), Err(error.clone()));
    }
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.disk.end(), Offset(1), "nothing is written to what is another's");
}

#[test]
fn a_journal_that_has_lost_what_was_acked_is_never_acked_from_again() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    rig.data(1, 2, 0);
    rig.disk.lose_from(Offset(1));
    rig.absorb(&[(peer(1), data(1, 3, 0, false))]).unwrap();
    let error = rig.committer.launch(&rig.clock).unwrap_err();
    assert_eq!(error, JournalError::Lost { acked_end: Offset(2), end: Offset(1) });
    rig.absorb(&[(peer(1), data(1, 1, 0, false))]).unwrap_err();
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.disk.end(), Offset(1));
}

#[test]
fn acks_say_how_safe_the_receipt_calls_what_they_ack() {
    use duragram_proto::codec::Durability;

    use crate::model::DurabilityLevel;
    for (level, said) in
        [(DurabilityLevel::Synced, Durability::Synced), (DurabilityLevel::Replicated, Durability::Replicated)]
    {
        let disk = MemoryDisk::default();
        disk.set_level(level);
        let mut rig = Rig::on(disk, config(), 10);
        let ping = encode(&Datagram::Ping(Ping { client: ClientId(5), epoch: Epoch::new(1).unwrap() }));
        for datagram in [ping, data(1, 1, 0, false), data(1, 1, 0, false)] {
            let sent = rig.step(&[(peer(1), datagram)]);
            let Datagram::Ack(ack) = codec::decode(&sent[0].1).unwrap() else { panic!("not an ACK") };
            assert_eq!(ack.durability, said);
        }
    }
}

#[test]
fn memory_is_given_back_once_when_the_last_block_is_long_durable_and_never_while_one_is_in_flight() {
    let mut rig = Rig::new();
    let gate = Gate::on(&mut rig);
    let rests = |rig: &Rig| rig.lanes.0.lock().unwrap().2;
    let wait = |rig: &mut Rig, us: u64| {
        rig.clock.advance_us(us);
        rig.committer.launch(&rig.clock).unwrap();
    };
    wait(&mut rig, 2 * QUIET_US);
    assert_eq!(rests(&rig), 0, "there is nothing to give back");
    for (seq, rested) in [(1, 0), (2, 1)] {
        gate.launch(&mut rig, &[(peer(1), data(1, seq, 0, false))]);
        rig.clock.advance_us(2 * QUIET_US);
        rig.absorb(&[]).unwrap();
        assert_eq!(rests(&rig), rested);
        gate.land(&mut rig, WriteFate::Durable).unwrap();
        wait(&mut rig, QUIET_US - 1);
        assert_eq!(rests(&rig), rested);
        for _ in 0..3 {
            wait(&mut rig, QUIET_US);
            assert_eq!(rests(&rig), rested + 1);
        }
    }
    gate.launch(&mut rig, &[(peer(1), data(1, 3, 0, false))]);
    gate.land(&mut rig, WriteFate::Durable).unwrap();
    assert_eq!(replies(&rig).last(), Some(&acked(3)), "and it works on");
}
