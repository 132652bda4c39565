//! Tests of what is asked of running lanes, and of their threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::testing::*;
use super::*;
use crate::types::{Clock, Lane, Offset, SystemClock};

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
fn to_reopen_is_followed_by_a_flush_and_asks_for_a_checkpoint() {
    let mut rig = Rig::new(1);
    rig.publish(&[1; 2]);
    rig.step(0);
    rig.lanes.control.reopen();
    assert!(!rig.progress.take_checkpoint_request());
    rig.step(0);
    assert_eq!((rig.log().reopened, rig.watermark()), (1, 2));
    assert!(rig.progress.take_checkpoint_request());
    assert!(!rig.progress.take_checkpoint_request(), "once");
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

#[test]
fn a_dead_letter_that_is_processed_at_last_is_deleted_after_the_flush() {
    let mut rig = Rig::new(2);
    rig.behave(|_| Does::GiveUp);
    rig.publish(&[4]);
    rig.settle(0);
    let letter = rig.letters().remove(0);
    let lane = Lane::of(letter.session, 2);
    let ask = |rig: &mut Rig| {
        let answer = rig.lanes.control.retry_dead(letter.clone()).unwrap();
        rig.settle(1_000_000);
        answer.recv().unwrap()
    };
    for (does, reason) in [
        (Does::GiveUp, "never"),
        (Does::Retry, "try later"),
        (Does::Away, "gone fishing"),
        (Does::Stop, "the handler gave no answer"),
        (Does::Panic, "the handler panicked: cannot bear record 0"),
    ] {
        rig.behave(move |_| does);
        assert_eq!(ask(&mut rig), Err(reason.to_owned()));
        assert_eq!(rig.letters().len(), 1);
    }
    rig.behave(|_| Does::Done);
    rig.log().flush_error = Some("disk full");
    assert_eq!(ask(&mut rig), Err("disk full".to_owned()));
    assert_eq!(rig.letters().len(), 1, "what is not durable stays a dead letter");
    rig.log().flush_error = None;
    assert_eq!(ask(&mut rig), Ok(()));
    assert_eq!(rig.letters().len(), 0);
    assert_eq!(rig.log().done.last(), Some(&(lane, (0, 0))));
}

#[test]
fn requests_that_nobody_takes_are_refused_rather_than_waited_for() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::GiveUp);
    rig.publish(&[4]);
    rig.settle(0);
    let letter = rig.letters().remove(0);
    let answers: Vec<_> = (0..100).map_while(|_| rig.lanes.control.retry_dead(letter.clone()).ok()).collect();
    assert_eq!(answers.len(), crate::limits::LANE_COMMANDS);
    rig.lanes.workers.clear();
    assert!(answers[0].recv().is_err(), "a lane that ends closes the channel");
    assert_eq!(rig.lanes.control.retry_dead(letter).unwrap_err(), LaneBusy { lane: Lane(0) });
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
    let mut ended: Vec<_> = ends.iter().map(|end| (end.lane.0, end.drained.unwrap())).collect();
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
    let blocks = crate::limits::LANE_CHANNEL_BLOCKS as u64 * 3;
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
        crate::journal::memory::Write::DeadLetter(_) => crate::journal::memory::WriteFate::FailedAndLost,
        _ => crate::journal::memory::WriteFate::Durable,
    });
    let ends = spawn_lanes(std::mem::take(&mut rig.lanes.workers), SystemClock::start()).unwrap();
    rig.publish(&[1]);
    assert!(ends.recv().unwrap().drained.is_err());
}
