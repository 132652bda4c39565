//! Sessions over commits and starts: how they open, how they are remembered, and when they end.

use super::*;

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
