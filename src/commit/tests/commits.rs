//! Blocks, receipts, checkpoints and the reserve: what leaves the server, and when.

use super::*;

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
    let mut rig = Rig::on(MemoryDisk::default(), Config { commit_bytes_max: 4000, ..config() }, 10);
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
fn only_what_every_lane_has_processed_is_trimmed() {
    let mut rig = Rig::on(MemoryDisk::default(), Config { commit_bytes_max: 1, ..config() }, 10);
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
