//! What processing says of asks becomes durable before the marks beyond them, and is told only then.

mod rig;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::limits;
use crate::model::{LaneMessage, SystemClock};
use crate::net::{Receiver, bind};
use rig::{AskRig, Pass, answer};

#[test]
fn no_checkpoint_stores_a_mark_above_an_ask_without_a_durable_answer_however_the_lane_moves_meanwhile() {
    for seed in 1..200 {
        let mut rig = AskRig::new();
        rig.sink.lane().seed = seed;
        for round in 0..40 {
            rig.absorb(3);
            // Every other time a checkpoint is due.
            rig.clock.advance_s(round % 2);
            rig.commit();
        }
        rig.committer.shut_down(&rig.clock).unwrap();
        // What a start finds holds too: it asserts the same of what is on the disk.
        let stored = rig.disk.sinks()[0].mark.watermark;
        assert!(stored > Offset(60), "the lane must get on: {stored}, seed {seed}");
        rig.restart();
    }
}

#[test]
fn after_a_crash_at_any_write_what_was_told_is_answered_and_what_is_open_is_processed_again() {
    for seed in 1..60 {
        let mut rig = AskRig::new();
        for (round, lost) in [(1, 1), (2, 5), (3, 9)] {
            rig.sink.lane().seed = seed * round;
            let mut writes = 0;
            rig.fate(move || {
                writes += 1;
                if writes > lost + seed % 7 { WriteFate::FailedAndLost } else { WriteFate::Durable }
            });
            let mut committed = Ok(());
            while committed.is_ok() {
                let mut arrivals = Arrivals::new(Slab::new(0));
                arrivals.admit(&mut Pass(2));
                rig.clock.advance_s(1);
                committed = rig.committer.absorb(&arrivals, &rig.clock);
                committed = committed.and_then(|()| rig.committer.commit(&rig.clock));
            }
            let told = rig.told();
            rig = rig.restart();
            let seen = rig.seen.lock().unwrap();
            assert!(told.iter().all(|offset| seen.durable.contains_key(offset)), "{told:?}, seed {seed}");
            drop(seen);
        }
        let end = rig.disk.end().0;
        rig.sink.lane().seed = seed;
        for _ in 0..500 {
            rig.commit();
        }
        assert_eq!(rig.committer.dialect().first_open(), end, "all is answered in the end, seed {seed}");
        let times = |offset| rig.told().iter().filter(|&&told| told == offset).count();
        assert!((0..end).all(|offset| times(offset) <= 1), "seed {seed}");
    }
}

#[test]
fn answers_alone_make_a_commit_which_is_told_when_it_has_landed() {
    let mut rig = AskRig::new();
    rig.absorb(2);
    rig.commit();
    rig.hand.hold(1);
    rig.sink.lane().post(answer(1));
    rig.committer.launch(&rig.clock).unwrap();
    assert!(rig.committer.is_in_flight() && rig.told().is_empty());
    // What is said meanwhile is part of the next commit.
    rig.sink.lane().post(answer(0));
    rig.hand.run();
    rig.committer.land(&rig.clock).unwrap();
    assert_eq!((rig.told(), rig.disk.end()), (vec![1], Offset(2)));
    rig.commit();
    assert_eq!(rig.told(), [1, 0]);
    // The first answer counts; an answer to nothing makes no commit.
    rig.disk.on_write(|_| panic!("there is nothing to write"));
    rig.sink.lane().post(answer(0));
    rig.sink.lane().post(LaneMessage::Processed);
    rig.commit();
    assert_eq!(rig.told(), [1, 0]);
}

#[test]
fn a_commit_holds_all_that_was_said_before_it_and_ends_however_much_is_said_meanwhile() {
    let mut rig = AskRig::new();
    rig.absorb(limits::LANE_MESSAGES + 1);
    rig.commit();
    {
        let mut lane = rig.sink.lane();
        lane.mailbox.extend((0..limits::LANE_MESSAGES as u64).map(answer));
        (lane.said, lane.mark) = (limits::LANE_MESSAGES as u64, limits::LANE_MESSAGES as u64);
    }
    rig.clock.advance_s(1);
    rig.commit();
    assert_eq!(rig.told().len(), limits::LANE_MESSAGES, "all of a full mailbox");
    assert!(!rig.committer.has_more_to_do());
    rig.sink.lane().mailbox.extend((0..100).map(|_| LaneMessage::Processed));
    rig.sink.lane().chatters = true;
    rig.commit();
    assert!(rig.committer.has_more_to_do(), "nobody wakes the committer for what it has left");
    rig.sink.lane().chatters = false;
    rig.commit();
    assert!(!rig.committer.has_more_to_do() && rig.sink.lane().mailbox.is_empty());
}

#[test]
fn a_checkpoint_that_a_lane_asks_for_is_part_of_the_commit_that_hears_it() {
    let mut rig = AskRig::new();
    rig.absorb(1);
    rig.commit();
    rig.sink.lane().post(answer(0));
    rig.sink.lane().mark = 1;
    rig.sink.lane().post(LaneMessage::Checkpoint);
    rig.commit();
    assert_eq!(rig.disk.sinks()[0].mark.watermark, Offset(1));
    assert_eq!(rig.disk.answers().len(), 1, "answered after the checkpoint has begun: its record stays until the next");
}

#[test]
fn the_last_checkpoint_has_the_last_answers_and_leaves_no_record_beside_the_asks() {
    let mut rig = AskRig::new();
    rig.absorb(20);
    rig.commit();
    // The lanes have ended; what they said last has not been heard.
    {
        let mut lane = rig.sink.lane();
        lane.mailbox.extend((0..20).map(answer));
        (lane.said, lane.mark) = (20, 20);
    }
    rig.committer.shut_down(&rig.clock).unwrap();
    assert_eq!(rig.disk.sinks()[0].mark.watermark, Offset(20));
    assert_eq!(rig.disk.answers(), [], "the next start has nothing to put together");
    assert_eq!(rig.restart().committer.dialect().first_open(), 20);
}

/// A client that sends so many microseconds after each ack, until the committer knows it.
fn with_turnaround(us: u64) -> AskRig {
    let mut rig = AskRig::new();
    for _ in 0..60 {
        rig.absorb(1);
        assert!(rig.committer.linger(&rig.clock).is_zero(), "what is to be acked waits for nothing");
        rig.commit();
        rig.clock.advance_us(us);
    }
    rig.absorb(1);
    rig.commit();
    rig
}

#[test]
fn an_answer_that_comes_just_after_an_ack_shares_the_sync_of_what_the_client_sends_next() {
    let mut rig = with_turnaround(80);
    let linger_us = |rig: &AskRig| u64::try_from(rig.committer.linger(&rig.clock).as_micros()).unwrap();
    let wait_us = linger_us(&rig);
    assert!((160..200).contains(&wait_us), "twice as long as the client takes, or a little more: {wait_us}");
    rig.sink.lane().post(answer(0));
    rig.clock.advance_us(wait_us - 1);
    assert_eq!(linger_us(&rig), 1);
    rig.absorb(1);
    assert_eq!(linger_us(&rig), 0);
    let writes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&writes);
    rig.fate(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        WriteFate::Durable
    });
    rig.commit();
    assert_eq!((rig.told(), writes.load(Ordering::Relaxed)), (vec![0], 1));
}

#[test]
fn an_answer_waits_for_nobody_who_takes_long_and_for_nobody_who_does_not_come() {
    assert!(AskRig::new().committer.linger(&TestClock::default()).is_zero(), "nobody was acked");
    let slow = with_turnaround(limits::LINGER_US);
    assert!(slow.committer.linger(&slow.clock).is_zero());
    let mut quick = with_turnaround(10);
    quick.clock.advance_us(limits::LINGER_US);
    assert!(quick.committer.linger(&quick.clock).is_zero(), "it has not come");
    quick.sink.lane().post(answer(0));
    quick.commit();
    quick.absorb(1);
    quick.commit();
    assert!(quick.committer.linger(&quick.clock).is_zero(), "it has waited in vain, and has to learn again");
}

/// Without a wake, each answer would wait for the committer's next look at its sockets.
#[test]
fn an_answer_that_is_posted_while_the_committer_sleeps_is_committed_at_once() {
    const ROUNDS: u32 = 30;
    for threading in [Threading::Single, Threading::Pipeline] {
        let mut rig = AskRig::new();
        rig.absorb(30);
        rig.commit();
        let (seen, sink) = (Arc::clone(&rig.seen), rig.sink.clone());
        let metrics = Metrics::register(&mut Registry::default());
        let bound = bind("127.0.0.1:0".parse().unwrap(), 1, 1 << 16).unwrap();
        let receivers = bound.sockets.into_iter().map(|socket| (Receiver::new(socket, 0), Pass(0))).collect();
        let (ingest, _ended) = spawn(receivers, rig.committer, threading, SystemClock::start(), metrics).unwrap();
        let mut slowest_first = Vec::new();
        for offset in 0..u64::from(ROUNDS) {
            // Just asleep again, for as long as it sleeps.
            let posted = Instant::now();
            sink.lane().post(answer(offset));
            let deadline = posted + Duration::from_secs(20);
            while seen.lock().unwrap().told.last() != Some(&offset) {
                assert!(Instant::now() < deadline, "the answer to entry {offset} is never committed");
                std::thread::yield_now();
            }
            slowest_first.push(posted.elapsed());
        }
        slowest_first.sort();
        let median = slowest_first[slowest_first.len() / 2];
        let sleep = Duration::from_millis(u64::from(limits::RECEIVE_WAIT_MS));
        assert!(median < sleep / 3, "{threading:?}: half of the answers waited for {median:?} and more");
        drop(ingest.stop().unwrap());
    }
}

/// The commit that answers it may be closed much later, as when the machine was suspended.
#[test]
fn a_session_that_was_heard_does_not_expire_before_its_client_is_answered() {
    let mut rig = Rig::new();
    rig.data(1, 1, 0);
    rig.clock.advance_s(2);
    rig.step(&[]);
    let ping = encode(&Datagram::Ping(Ping { client: ClientId(1), epoch: Epoch::new(1).unwrap() }));
    rig.absorb(&[(peer(1), ping)]).unwrap();
    rig.clock.advance_s(1_000_000);
    rig.committer.commit(&rig.clock).unwrap();
    assert_eq!(rig.sent().iter().map(|(_, bytes)| reply(bytes)).collect::<Vec<_>>(), [acked_again(1)]);
}
