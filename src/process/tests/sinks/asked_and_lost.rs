//! Tests of what operators ask of sinks, and of what is lost to these.

use super::*;
use crate::model::SinkLoss;

#[test]
fn a_sink_stays_paused_over_a_restart_and_goes_on_where_it_was() {
    let mut sinks = Sinks::new(&["a", "b"]);
    sinks.publish(5);
    sinks.settle(0);
    let paused = sinks.control.pause("a").unwrap();
    assert!(paused.try_recv().is_err());
    sinks.settle(1_000_000);
    sinks.checkpoint().unwrap();
    assert_eq!(paused.try_recv(), Ok(()));
    assert_eq!(sinks.mark("a"), 5, "what it was given is flushed");
    sinks.publish(5);
    let mut sinks = sinks.restart(&["a", "b"]);
    sinks.settle(0);
    assert_eq!(sinks.target("a").records, keys(0..5));
    assert_eq!(sinks.target("b").records, keys(0..10));
    assert_eq!(sinks.target("a").made, 1, "a paused sink's handler, which opens its file, is not made at the start");
    let resumed = sinks.control.resume("a").unwrap();
    sinks.checkpoint().unwrap();
    assert_eq!(resumed.try_recv(), Ok(()));
    sinks.settle(0);
    assert_eq!(sinks.target("a").records, keys(0..10));
    assert_eq!(sinks.target("a").began_with, [5], "and then it begins with what it had kept");
    assert!(!sinks.stored("a").unwrap().paused);
}

#[test]
fn an_operator_lets_a_sink_go_on_elsewhere_with_a_new_handler() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.publish(10);
    sinks.settle(0);
    sinks.settle(1_000_000);
    for (to, expected) in [(4, 4), (8, 8), (99, 10)] {
        sinks.target("a").records.clear();
        let answer = sinks.control.seek("a", Offset(to)).unwrap();
        assert!(matches!(sinks.lanes.workers[0].step(at(1_000_000)), LaneStep::Worked));
        assert_eq!(sinks.mark("a"), expected);
        assert!(answer.try_recv().is_err(), "it is not durable yet");
        // Nothing below is wanted any more, and a checkpoint may trim it: no entry that is asked for is.
        let sink = sinks.lanes.cursors.records().remove(0);
        assert_eq!(
            (sink.mark.watermark.0, sink.losses),
            (expected, Vec::new()),
            "that is the operator's choice, no loss"
        );
        sinks.settle(1_000_000);
        sinks.settle(2_000_000);
        assert_eq!(sinks.target("a").records, keys(expected..10));
    }
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.target("a").made, 3, "where nothing comes it is not made");
    assert!(sinks.control.seek("b", Offset(0)).is_err());
}

#[test]
fn what_a_handler_keeps_wherever_it_goes_on_outlives_seeks_and_a_restart_before_the_next_record() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.publish(10);
    sinks.settle(0);
    sinks.settle(1_000_000);
    // The second before the handler that follows the first is made.
    for to in [4, 10] {
        sinks.target("a").away = true;
        let _answer = sinks.control.seek("a", Offset(to)).unwrap();
        assert!(matches!(sinks.lanes.workers[0].step(at(1_000_000)), LaneStep::Worked));
    }
    sinks.target("a").away = false;
    sinks.checkpoint().unwrap();
    let mark = LaneMark { watermark: Offset(10), sink_state: b"elsewhere".to_vec() };
    assert_eq!(sinks.stored("a").unwrap().mark, mark);
    let mut sinks = sinks.restart(&["a"]);
    assert_eq!(sinks.target("a").began_with, b"elsewhere");
    sinks.target("a").began_with.clear();
    let _answer = sinks.control.seek("a", Offset(3)).unwrap();
    // Where nothing comes it is not made.
    sinks.publish(1);
    sinks.settle(0);
    assert_eq!(sinks.target("a").began_with, b"elsewhere", "and so does the one that is made in the same run");
}

#[test]
fn of_two_quick_seeks_the_second_counts_and_both_are_answered() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.publish(10);
    sinks.settle(0);
    sinks.settle(1_000_000);
    let answers = [2, 7].map(|to| sinks.control.seek("a", Offset(to)).unwrap());
    sinks.target("a").records.clear();
    sinks.settle(1_000_000);
    assert!(answers.iter().all(|answer| answer.try_recv().is_err()), "neither is durable yet");
    sinks.checkpoint().unwrap();
    assert_eq!(answers.map(|answer| answer.try_recv()), [Ok(()), Ok(())]);
    assert_eq!(sinks.target("a").records, keys(7..10));
}

#[test]
fn a_dead_letter_that_was_retried_and_not_flushed_outlives_a_seek() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.target("a").gives_up = Some(1);
    sinks.publish(3);
    sinks.settle(0);
    sinks.settle(1_000_000);
    let letter = sinks.dead.list(DeadLetterId::FIRST, 1).unwrap().remove(0);
    sinks.target("a").flush_fails = true;
    let answer = sinks.lanes.control.retry_dead(&letter).unwrap();
    sinks.settle(1_000_000);
    assert_eq!(sinks.target("a").retried, [(1, 0)]);
    let _sought = sinks.control.seek("a", Offset(3)).unwrap();
    sinks.target("a").flush_fails = false;
    sinks.publish(3);
    sinks.settle(1_000_000);
    sinks.settle(2_000_000);
    assert_eq!(sinks.mark("a"), 6);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.dead.count(), 1, "the handler that had it is gone, and never flushed");
    assert!(matches!(answer.try_recv(), Ok(Err(RetryError::Failed(_)))));
}

#[test]
fn a_sink_that_is_to_go_back_to_what_was_trimmed_begins_at_the_lowest_entry_kept() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.publish(5);
    sinks.publish(5);
    sinks.publish(5);
    sinks.settle(0);
    sinks.settle(1_000_000);
    sinks.target("a").away = true;
    sinks.publish(5);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.disk.low(), Offset(15));
    sinks.target("a").away = false;
    sinks.target("a").records.clear();
    let _answer = sinks.control.seek("a", Offset(2)).unwrap();
    sinks.settle(1_000_000);
    assert_eq!(sinks.target("a").records, keys(15..20));
}

#[test]
fn a_configured_sink_that_is_removed_stops_for_good_and_holds_nothing() {
    let mut sinks = Sinks::new(&["a", "b"]);
    sinks.target("a").away = true;
    sinks.publish(5);
    sinks.settle(0);
    sinks.settle(1_000_000);
    let answer = sinks.control.remove("a").unwrap();
    sinks.checkpoint().unwrap();
    assert_eq!(answer.try_recv(), Ok(()));
    assert_eq!((sinks.stored("a"), sinks.disk.low()), (None, Offset(5)));
    sinks.target("a").away = false;
    sinks.publish(5);
    sinks.settle(2_000_000);
    assert_eq!(sinks.target("a").records, keys(0..0));
    assert_eq!(sinks.target("b").records, keys(0..10));
    sinks.lanes.control.drain(u64::MAX - 1);
    let end = |worker: &mut LaneWorker| loop {
        if let LaneStep::Finished { drained } = worker.step(at(2_000_000)) {
            break drained;
        }
    };
    let ends: Vec<_> = sinks.lanes.workers.iter_mut().map(end).collect();
    assert_eq!(ends, [true, true], "a sink that was removed holds up no stop");
}

#[test]
fn a_sink_that_has_lost_entries_goes_on_after_them_and_its_handler_hears_of_it_once() {
    let mut sinks = Sinks::new(&["a"]);
    // It has taken three records of its call, and the rest of the call is open.
    sinks.target("a").takes = Some(3);
    sinks.publish(10);
    assert!(matches!(sinks.lanes.workers[0].step(at(0)), LaneStep::Worked));
    sinks.publish(10);
    sinks.lose_below("a", 14);
    assert_eq!(sinks.mark("a"), 14);
    sinks.target("a").takes = None;
    sinks.checkpoint().unwrap();
    sinks.settle(0);
    sinks.settle(20_000_000);
    assert_eq!(sinks.target("a").records, [keys(0..3), keys(14..20)].concat());
    assert_eq!(sinks.target("a").lost, [(0, 14)]);
    sinks.checkpoint().unwrap();
    let stored = sinks.stored("a").unwrap();
    let loss = SinkLoss { from: Offset(0), to: Offset(14), entries: 14, unix_us: 9 };
    assert_eq!((stored.mark.watermark, stored.losses, stored.untold), (Offset(20), vec![loss], None));
    let mut sinks = sinks.restart(&["a"]);
    sinks.settle(0);
    assert_eq!(sinks.target("a").lost, [(0, 14)]);
}

#[test]
fn of_a_call_that_reaches_behind_a_loss_no_record_that_was_taken_comes_again() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.target("a").takes = Some(8);
    sinks.publish(10);
    assert!(matches!(sinks.lanes.workers[0].step(at(0)), LaneStep::Worked));
    sinks.lose_below("a", 5);
    sinks.target("a").takes = None;
    sinks.checkpoint().unwrap();
    sinks.settle(20_000_000);
    sinks.settle(30_000_000);
    assert_eq!(sinks.target("a").records, keys(0..10));
    assert_eq!((sinks.mark("a"), &sinks.target("a").lost[..]), (10, &[(0, 5)][..]));
}

#[test]
fn a_loss_is_durable_before_its_handler_hears_of_it_or_gets_what_lies_behind() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.publish(10);
    sinks.publish(10);
    sinks.lose_below("a", 14);
    sinks.settle(0);
    assert_eq!(sinks.target("a").records, keys(0..0));
    assert_eq!(sinks.target("a").lost, [(0, 0); 0]);
    let mut sinks = sinks.restart(&["a"]);
    sinks.settle(0);
    assert_eq!(sinks.target("a").records, keys(0..20), "a crash has undone the loss, and no target has a hole");
    sinks.settle(1_000_000);
    sinks.publish(10);
    sinks.lose_below("a", 24);
    sinks.checkpoint().unwrap();
    sinks.settle(1_000_000);
    assert_eq!(sinks.target("a").lost, [(20, 24)]);
    assert_eq!(sinks.target("a").records[20..], keys(24..30));
}

#[test]
fn a_loss_that_a_handler_was_not_told_of_before_a_crash_it_is_told_after_it() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.publish(10);
    sinks.lose_below("a", 4);
    sinks.lose_below("a", 6);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.stored("a").unwrap().untold, Some((Offset(0), Offset(6))));
    assert_eq!(sinks.disk.low(), Offset(0), "the block that holds the next entry stays");
    let mut sinks = sinks.restart(&["a"]);
    sinks.settle(0);
    assert_eq!(sinks.target("a").lost, [(0, 6)], "at once");
    assert_eq!(sinks.target("a").records, keys(6..10));
    let losses = sinks.control.list().remove(0).record.losses;
    assert_eq!(losses.iter().map(|loss| (loss.from.0, loss.to.0, loss.entries)).collect::<Vec<_>>(), [(0, 6, 6)]);
}

#[test]
fn a_sink_that_cannot_flush_loses_what_it_must_and_nothing_that_is_trimmed_stops_the_server() {
    let mut sinks = Sinks::new(&["a"]);
    sinks.publish(10);
    sinks.settle(0);
    sinks.target("a").flush_fails = true;
    sinks.settle(1_000_000);
    (0..4).for_each(|_| sinks.publish(10));
    sinks.lose_below("a", 40);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.disk.low(), Offset(40));
    sinks.settle(1_500_000);
    sinks.target("a").flush_fails = false;
    sinks.settle(30_000_000);
    sinks.settle(31_000_000);
    assert_eq!(sinks.target("a").records, [keys(0..10), keys(40..50)].concat());
    assert_eq!((sinks.mark("a"), &sinks.target("a").lost[..]), (50, &[(0, 40)][..]));
}
