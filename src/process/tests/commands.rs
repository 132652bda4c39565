//! Tests of what is asked of running lanes, and of their threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::model::{Clock, Lane, LaneMessage, Offset, SystemClock};

#[test]
fn a_drain_processes_what_is_durable_and_flushes() {
    let mut rig = Rig::new(1);
    rig.publish(&[1; 5]);
    rig.lanes.control.drain(1_000_000);
    let drained = loop {
        match rig.step(0) {
            LaneStep::Worked => {}
            LaneStep::Finished { drained } => break drained,
            other => panic!("{other:?}"),
        }
    };
    assert!(drained);
    assert_eq!((rig.watermark(), rig.done().len()), (5, 5));
}

#[test]
fn a_drain_ends_at_its_deadline_and_says_that_something_is_left() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 0 { Does::Done } else { Does::Away });
    rig.publish(&[1]);
    rig.settle(0);
    rig.publish(&[1]);
    rig.lanes.control.drain(60_000);
    let mut now = 0;
    let drained = loop {
        match rig.step(now) {
            LaneStep::Worked => {}
            LaneStep::RetryAt(at) => {
                assert!(at > now && at <= 60_000);
                now = at;
            }
            LaneStep::Finished { drained } => break drained,
            other => panic!("{other:?}"),
        }
    };
    assert!(!drained);
    assert_eq!(now, 60_000);
    assert_eq!(rig.watermark(), 0, "with an open batch the handler's state is of no single place");
}

#[test]
fn a_drain_tries_a_sink_that_cannot_flush_until_the_deadline() {
    let mut rig = Rig::new(1);
    rig.publish(&[1]);
    rig.log().flush_error = Some("disk full");
    rig.lanes.control.drain(200_000);
    let (mut now, mut waits) = (0, 0);
    let drained = loop {
        match rig.step(now) {
            LaneStep::Worked => {}
            LaneStep::RetryAt(at) => (now, waits) = (at, waits + 1),
            LaneStep::Finished { drained } => break drained,
            other => panic!("{other:?}"),
        }
    };
    assert!(!drained && waits >= 2);
}

#[test]
fn to_reopen_and_to_end_are_heard_however_much_else_a_lane_was_asked_for() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::GiveUp);
    rig.publish(&[1]);
    rig.settle(0);
    let letter = rig.letters().remove(0);
    let mut answers = Vec::new();
    while let Ok(answer) = rig.lanes.control.retry_dead(&letter) {
        answers.push(answer);
    }
    assert!(!answers.is_empty());
    rig.lanes.control.reopen();
    rig.lanes.control.drain(1_000_000);
    let ended = (0..1_000).any(|now| matches!(rig.step(now), LaneStep::Finished { .. }));
    assert!(ended, "a lane that is not told to end is at the database when the process ends");
    assert_eq!(rig.log().reopened, 1);
}

#[test]
fn to_reopen_is_followed_by_a_flush_and_asks_for_a_checkpoint() {
    let mut rig = Rig::new(1);
    rig.publish(&[1; 2]);
    rig.step(0);
    rig.lanes.control.reopen();
    assert!(!rig.takes_checkpoint_request());
    rig.step(0);
    assert_eq!((rig.log().reopened, rig.watermark()), (1, 2));
    assert!(rig.takes_checkpoint_request());
    assert!(!rig.takes_checkpoint_request(), "once");
}

#[test]
fn a_request_for_a_checkpoint_that_finds_no_room_is_kept_until_there_is_some() {
    let mut rig = Rig::new(1);
    while rig.progress.mailbox().post(LaneMessage::Checkpoint).is_ok() {}
    rig.publish(&[1; 2]);
    rig.step(0);
    rig.lanes.control.reopen();
    rig.settle(0);
    assert_eq!((rig.log().reopened, rig.watermark()), (1, 2), "the lane goes on");
    let LaneStep::Idle { until_us: Some(again) } = rig.step(0) else { panic!("a lane with a message does not sleep") };
    assert!((1..=100_000).contains(&again), "{again}");
    assert!(rig.takes_checkpoint_request(), "those that filled it");
    rig.step(again);
    assert!(rig.takes_checkpoint_request());
    assert!(matches!(rig.step(again), LaneStep::Idle { until_us: None }), "once, and then it sleeps");
}

#[test]
fn commands_are_obeyed_while_a_record_waits_for_its_retry_but_no_state_of_half_a_batch_is_kept() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 1 { Does::Retry } else { Does::Done });
    rig.publish(&[1; 3]);
    rig.step(0);
    let before = rig.progress.marks();
    rig.lanes.control.reopen();
    assert!(matches!(rig.step(1), LaneStep::RetryAt(_)));
    assert_eq!(rig.log().reopened, 1);
    assert_eq!(rig.progress.marks(), before);
}

/// The flushes of a run in which a record is open at that time.
fn flushes_while_open(ask: impl FnOnce(&mut Rig)) -> (Rig, usize) {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 0 { Does::GiveUp } else { Does::Done });
    rig.publish(&[1]);
    rig.settle(0);
    rig.settle(50_000);
    assert_eq!((rig.letters().len(), rig.watermark()), (1, 1));
    rig.behave(|record| if record.offset.0 == 2 { Does::Retry } else { Does::Done });
    rig.publish(&[1; 3]);
    assert!(matches!(rig.step(60_000), LaneStep::Worked));
    let before = rig.log().flushes;
    ask(&mut rig);
    for now in 60_000..60_010 {
        rig.step(now);
    }
    let flushes = rig.log().flushes - before;
    (rig, flushes)
}

#[test]
fn a_handler_is_never_flushed_while_a_record_is_open() {
    let (mut rig, flushes) = flushes_while_open(|rig| rig.lanes.control.reopen());
    assert_eq!((flushes, rig.log().reopened), (0, 1), "files are opened anew at once");
    rig.behave(|_| Does::Done);
    rig.settle(1_000_000);
    assert_eq!(rig.watermark(), 4);
    assert!(rig.takes_checkpoint_request());

    let (mut rig, flushes) = flushes_while_open(|rig| rig.lanes.control.drain(60_000));
    assert_eq!(flushes, 0);
    assert!(matches!(rig.step(60_000), LaneStep::Finished { drained: false }));
    assert_eq!(rig.log().flushes, 2, "neither does the end of a drain flush");

    let mut answer = None;
    let (mut rig, flushes) = flushes_while_open(|rig| {
        answer = Some(rig.lanes.control.retry_dead(&rig.letters()[0]).unwrap());
    });
    assert_eq!((flushes, rig.done().contains(&(0, 0))), (0, false), "a dead letter waits for its turn");
    rig.behave(|_| Does::Done);
    rig.settle(1_000_000);
    rig.checkpoint();
    assert_eq!((answer.unwrap().try_recv(), rig.letters().len()), (Ok(Ok(())), 0));
    assert_eq!(rig.done().last(), Some(&(0, 0)), "alone, after the batch");
}

#[test]
fn a_dead_letter_that_is_processed_at_last_is_deleted_after_the_flush() {
    let mut rig = Rig::new(2);
    rig.behave(|_| Does::GiveUp);
    rig.publish(&[4]);
    rig.settle(0);
    let letter = rig.letters().remove(0);
    let lane = Lane::of(letter.session, 2);
    let ask = |rig: &mut Rig| {
        let answer = rig.lanes.control.retry_dead(&letter).unwrap();
        rig.settle(1_000_000);
        answer.try_recv()
    };
    for (does, reason) in [
        (Does::GiveUp, "never"),
        (Does::Retry, "try later"),
        (Does::Away, "gone fishing"),
        (Does::Stop, "the handler said nothing of it"),
        (Does::Panic, "the handler panicked: cannot bear record 0"),
    ] {
        rig.behave(move |_| does);
        assert_eq!(ask(&mut rig), Ok(Err(RetryError::Failed(reason.to_owned()))));
        assert_eq!(rig.letters().len(), 1);
    }
    rig.behave(|_| Does::Done);
    rig.log().flush_error = Some("disk full");
    let first = rig.lanes.control.retry_dead(&letter).unwrap();
    rig.settle(1_000_000);
    rig.checkpoint();
    assert!(first.try_recv().is_err() && rig.letters().len() == 1, "what is not durable stays a dead letter");
    rig.log().flush_error = None;
    rig.settle(9_000_000);
    assert!(
        first.try_recv().is_err() && rig.letters().len() == 1,
        "until a checkpoint stores the state that covers it"
    );
    assert!(rig.takes_checkpoint_request());
    let second = ask(&mut rig);
    assert!(second.is_err(), "who asks again waits with the first");
    rig.checkpoint();
    assert_eq!((first.try_recv(), rig.letters().len()), (Ok(Ok(())), 0));
    assert_eq!(rig.log().done, [(lane, (0, 0))], "it was processed once");
    assert_eq!(ask(&mut rig), Ok(Err(RetryError::Gone)));
}

#[test]
fn a_retry_whose_letter_has_gone_when_its_turn_comes_does_nothing() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::GiveUp);
    rig.publish(&[4, 4]);
    rig.settle(0);
    rig.settle(50_000);
    let letters = rig.letters();
    rig.behave(|_| Does::Done);
    // Asked for twice, by someone who has lost patience; and discarded before its turn.
    let twice: Vec<_> = (0..2).map(|_| rig.lanes.control.retry_dead(&letters[0]).unwrap()).collect();
    let discarded = rig.lanes.control.retry_dead(&letters[1]).unwrap();
    assert!(rig.dead.delete(letters[1].id).unwrap());
    rig.settle(60_000);
    assert_eq!(rig.done(), [(0, 0)]);
    assert_eq!(discarded.try_recv(), Ok(Err(RetryError::Gone)));
    rig.checkpoint();
    assert!(twice.iter().all(|answer| answer.try_recv() == Ok(Ok(()))));
    assert_eq!(rig.dead.count(), 0);
}

#[test]
fn a_crash_between_a_retry_and_its_checkpoint_keeps_the_letter_and_the_state_without_it() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 0 { Does::GiveUp } else { Does::Done });
    rig.publish(&[1; 3]);
    rig.settle(0);
    rig.settle(50_000);
    rig.checkpoint();
    rig.behave(|_| Does::Done);
    let letter = rig.letters().remove(0);
    let answer = rig.lanes.control.retry_dead(&letter).unwrap();
    rig.settle(100_000);
    assert_eq!(rig.done().last(), Some(&(0, 0)));
    let mut rig = rig.restart(1, config());
    assert!(answer.try_recv().is_err());
    assert_eq!(rig.letters().first(), Some(&letter));
    assert_eq!(rig.progress.marks()[0].sink_state, 2u64.to_le_bytes());
    rig.lanes.control.retry_dead(&letter).unwrap();
    rig.settle(0);
    rig.checkpoint();
    let rig = rig.restart(1, config());
    assert_eq!((rig.letters().len(), &rig.progress.marks()[0].sink_state[..]), (0, &3u64.to_le_bytes()[..]));
}

#[test]
fn a_lane_takes_a_bounded_number_of_retries() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 0 { Does::GiveUp } else { Does::Away });
    rig.publish(&[4]);
    rig.settle(0);
    let letter = rig.letters().remove(0);
    rig.publish(&[4]);
    let mut answers = Vec::new();
    for _ in 0..2 * crate::limits::LANE_RETRIES {
        rig.settle(0);
        answers.push(rig.lanes.control.retry_dead(&letter).unwrap());
    }
    rig.settle(0);
    let busy = answers.iter().filter(|answer| matches!(answer.try_recv(), Ok(Err(RetryError::Busy(_))))).count();
    assert_eq!(busy, crate::limits::LANE_RETRIES);
}

#[test]
fn requests_that_nobody_takes_are_refused_rather_than_waited_for() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::GiveUp);
    rig.publish(&[4]);
    rig.settle(0);
    let letter = rig.letters().remove(0);
    let answers: Vec<_> = (0..100).map_while(|_| rig.lanes.control.retry_dead(&letter).ok()).collect();
    assert_eq!(answers.len(), crate::limits::LANE_COMMANDS);
    rig.lanes.workers.clear();
    assert!(answers[0].recv().is_err(), "a lane that ends closes the channel");
    assert_eq!(rig.lanes.control.retry_dead(&letter).unwrap_err(), NotAsked::Busy(rig.progress.lane_name(Lane(0))));
}

/// Waits for a condition, with a deadline far above what it takes.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn threads_process_what_is_published_and_end_when_drained() {
    let mut rig = Rig::new(3);
    let clock = SystemClock::start();
    let ends = spawn_lanes(std::mem::take(&mut rig.lanes.workers), clock).unwrap();
    for client in 0..2000 {
        rig.publish(&[client, client + 1]);
    }
    let progress = Arc::clone(&rig.progress);
    wait_for("the watermark of all lanes", || progress.lowest_watermark() == Offset(4000));
    rig.lanes.control.reopen();
    wait_for("a sleeping lane obeys", || rig.log().reopened == 3);
    rig.publish(&[1, 2, 3]);
    rig.lanes.control.drain(clock.now().mono_us + 30_000_000);
    let mut ended: Vec<_> = ends.iter().map(|end| (end.lane.lane().0, end.drained.unwrap())).collect();
    ended.sort_unstable();
    assert_eq!(ended, [(0, true), (1, true), (2, true)]);
    let mut done = rig.done();
    done.sort_unstable();
    assert_eq!(done, (0..4003).map(|offset| (offset, 0)).collect::<Vec<_>>());
}

#[test]
fn a_handler_that_blocks_holds_up_its_lane_and_nobody_else() {
    let mut rig = Rig::new(1);
    let stuck = Arc::new(AtomicBool::new(true));
    let stuck_ = Arc::clone(&stuck);
    rig.behave(move |_| {
        while stuck_.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
        Does::Done
    });
    let ends = spawn_lanes(std::mem::take(&mut rig.lanes.workers), SystemClock::start()).unwrap();
    let blocks = crate::limits::RECENT_BLOCKS as u64 * 3;
    for _ in 0..blocks {
        rig.publish(&[1]);
    }
    assert_eq!(rig.progress.durable_end(), Offset(blocks));
    assert!(rig.watermark() < blocks);
    stuck.store(false, Ordering::Release);
    let progress = Arc::clone(&rig.progress);
    wait_for("the lane catches up", || progress.lowest_watermark() == Offset(blocks));
    assert_eq!(rig.done().len() as u64, blocks);
    drop(rig);
    assert!(ends.recv().unwrap().drained.unwrap(), "lanes end when nobody is left who could ask");
}

#[test]
fn a_storage_error_ends_the_thread_with_the_error() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::GiveUp);
    rig.disk.on_write(|write| match write {
        crate::journal::testing::memory::Write::DeadLetters(_) => {
            crate::journal::testing::memory::WriteFate::FailedAndLost
        }
        _ => crate::journal::testing::memory::WriteFate::Durable,
    });
    let ends = spawn_lanes(std::mem::take(&mut rig.lanes.workers), SystemClock::start()).unwrap();
    rig.publish(&[1]);
    assert!(ends.recv().unwrap().drained.is_err());
}
