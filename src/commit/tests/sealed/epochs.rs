//! Which epochs open, which are given, and what is remembered of them.

use super::*;

#[test]
fn a_session_that_was_recorded_journals_nothing_when_it_is_played_back() {
    let mut rig = Rig::sealed();
    let recording: Vec<_> = (1..=3).map(|seq| data(1, 5, seq, 0, seq)).collect();
    for datagram in &recording {
        rig.tell(datagram);
    }
    // Within the living session: duplicates.
    for datagram in &recording {
        assert_eq!(rig.tell(datagram), Some(acked_again(3)));
    }
    // The session expires, with all that the journal keeps of it.
    rig.set_watermark(3);
    rig.clock.advance_s(1_000);
    rig.committer.commit(&rig.clock).unwrap();
    rig.clock.advance_s(1_000);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(rig.disk.session(id(1, 5)), None);
    for datagram in &recording {
        assert_eq!(rig.tell(datagram), STALE);
    }
    assert_eq!(rig.outcome("replayed_session"), 3);
    let mut rig = rig.sealed_restart(false);
    for datagram in &recording {
        assert_eq!(rig.tell(datagram), STALE);
    }
    assert_eq!((rig.outcome("replayed_session"), rig.outcome("stale_epoch")), (3, 0));
    assert_eq!(rig.disk.end(), Offset(3));
    assert_eq!(rig.tell(&data(1, 6, 1, 0, 1)), Some(acked(1)), "the client itself goes on in the next epoch");
}

#[test]
fn what_was_opened_is_on_disk_with_the_first_entry() {
    let mut rig = Rig::sealed();
    rig.disk.on_write(|write| {
        let Write::Commit { block, records, .. } = write else { return WriteFate::Durable };
        if block.is_some() {
            assert_eq!(records.clients, [ClientRecord { client: ClientId(1), opened: 5, given: 0 }]);
        }
        WriteFate::Durable
    });
    rig.tell(&data(1, 5, 1, 0, 1));
    rig.disk.on_write(|write| {
        assert!(matches!(write, Write::Commit { records, .. } if records.clients.is_empty()), "once is enough");
        WriteFate::Durable
    });
    rig.tell(&data(1, 5, 2, 0, 2));
}

#[test]
fn a_session_opens_above_all_that_were_opened_and_open_ones_go_on_below() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&data(1, 9, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&data(1, 5, 2, 0, 2)), Some(acked(2)), "open already");
    assert_eq!(rig.tell(&data(1, 7, 1, 0, 1)), STALE);
    assert_eq!(rig.tell(&ping(1, 7, 2)), Some(acked_again(0)), "a PING opens nothing");
    assert_eq!(rig.tell(&data(2, 7, 1, 0, 1)), Some(acked(1)), "of another client");
    let mut rig = rig.sealed_restart(false);
    assert_eq!(rig.tell(&data(1, 5, 3, 0, 3)), Some(acked(3)));
    assert_eq!(rig.tell(&data(1, 8, 1, 0, 1)), STALE);
}

#[test]
fn data_that_opens_above_its_first_seq_shows_that_acked_data_was_lost() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 8, 0, 1)), Some(acked(8)));
    assert_eq!(rig.metrics.lost.get(), 7);
    let mut gaps = Vec::new();
    rig.disk.open(&mut |replay| {
        if let Replay::Block(block) = replay {
            gaps.extend(block.entries().map(|entry| (entry.kind, entry.meta.sealed)));
        }
    });
    assert_eq!(gaps, [(EntryKind::Gap { from: Seq(1), to: Seq(7) }, true), (EntryKind::Data, true)]);
    let mut rig = Rig::sealed_on(rig.disk, 10, false);
    assert_eq!(rig.tell(&data(1, 5, 8, 0, 2)), Some(acked_again(8)));
    // What was abandoned before anything came was never acked.
    let skipped = Datagram::Data(Data { skip: true, ..plain_data(2, 5, 8, 0) });
    assert_eq!(rig.tell(&sealed(&skipped, 2, 5, 1)), Some(acked(8)));
    assert_eq!(rig.metrics.lost.get(), 0);
}

#[test]
fn hello_gives_an_epoch_that_is_on_disk_and_opens_nothing() {
    let mut rig = Rig::sealed();
    let unix_s = 1_800_000_000;
    assert_eq!(rig.tell(&hello(1, 77)), Some(Reply::Welcome(unix_s)));
    assert_eq!(rig.disk.client(ClientId(1)), Some(ClientRecord { client: ClientId(1), opened: 0, given: unix_s }));
    assert_eq!(rig.committer.status().sessions, 0);
    assert_eq!(rig.tell(&hello(1, 77)), Some(Reply::Welcome(unix_s)), "the same again");
    assert_eq!(rig.tell(&hello(1, 78)), Some(Reply::Welcome(unix_s + 1)));
    assert_eq!(rig.tell(&data(1, unix_s, 1, 0, 1)), Some(acked(1)));
    assert_eq!(rig.tell(&hello(1, 77)), None, "a recording");
    assert_eq!(rig.tell(&hello(1, 78)), Some(Reply::Welcome(unix_s + 1)));
    assert_eq!(rig.outcome("replayed_hello"), 1);
    let mut rig = rig.sealed_restart(false);
    assert_eq!(rig.tell(&hello(1, 77)), Some(Reply::Welcome(unix_s + 2)), "never one that was given");
    assert_eq!(rig.tell(&data(1, unix_s + 1, 1, 0, 1)), Some(acked(1)), "it was given, and not opened");
}

#[test]
fn no_welcome_leaves_before_its_epoch_is_on_disk() {
    let mut rig = Rig::sealed();
    let wire = rig.wire.clone();
    rig.disk.on_write(move |_| {
        assert_eq!(wire.len(), 0);
        WriteFate::Durable
    });
    // Its repetition waits too.
    assert_eq!(rig.exchange(&[(1, hello(1, 77)), (1, hello(1, 77))]).len(), 2);
}

#[test]
fn recorded_hellos_get_no_more_than_an_epoch_a_second() {
    let mut rig = Rig::sealed();
    let mut codes = BTreeMap::<String, u64>::new();
    for nonce in 0..50 {
        *codes
            .entry(format!("{:?}", rig.tell(&hello(1, nonce)).map(|reply| matches!(reply, Reply::Welcome(_)))))
            .or_default() += 1;
    }
    assert_eq!(codes["Some(true)"], 8);
    assert_eq!(rig.tell(&hello(1, 100)), Some(Reply::Reject(RejectCode::Busy)));
    rig.clock.advance_s(1);
    assert!(matches!(rig.tell(&hello(1, 100)), Some(Reply::Welcome(_))));
    assert_eq!(rig.tell(&hello(1, 101)), Some(Reply::Reject(RejectCode::Busy)));
}

#[test]
fn a_client_that_has_used_up_its_epochs_is_told_so_for_good() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, u32::MAX, 1, 0, 1)), Some(acked(1)));
    for nonce in [1, 1, 2] {
        assert_eq!(rig.tell(&hello(1, nonce)), Some(Reply::Reject(RejectCode::Unsupported)), "waiting is no remedy");
    }
    assert_eq!(rig.tell(&data(1, u32::MAX, 2, 0, 2)), Some(acked(2)), "its session goes on");
}

#[test]
fn a_session_that_begins_beyond_reason_is_refused_and_nothing_counts_as_lost() {
    let mut rig = Rig::sealed();
    let stale = Some(Reply::Reject(RejectCode::StaleEpoch));
    for seq in [u64::MAX, u64::MAX - 1, 1 << 60, limits::SEALED_GAP_MAX + 2] {
        assert_eq!(rig.tell(&data(1, 5, seq, 0, 1)), stale, "{seq}");
    }
    assert_eq!((rig.metrics.lost.get(), rig.committer.status().sessions), (0, 0));
    assert_eq!(rig.tell(&data(1, 5, limits::SEALED_GAP_MAX + 1, 0, 1)), Some(acked(limits::SEALED_GAP_MAX + 1)));
    assert_eq!(rig.metrics.lost.get(), limits::SEALED_GAP_MAX);
}

#[test]
fn while_space_is_short_a_new_epoch_is_refused_and_a_known_one_is_told_again() {
    let mut rig = Rig::sealed();
    assert!(matches!(rig.tell(&hello(1, 1)), Some(Reply::Welcome(_))));
    rig.disk.set_free_bytes(10);
    rig.clock.advance_s(1);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(rig.tell(&hello(1, 2)), Some(Reply::Reject(RejectCode::Storage)));
    assert!(matches!(rig.tell(&hello(1, 1)), Some(Reply::Welcome(_))));
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(Reply::Reject(RejectCode::Storage)));
}
