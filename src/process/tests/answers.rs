//! Tests of what a lane tells of records that asked, and when.

use std::time::Duration;

use super::*;
use crate::journal::DeadLetterRoom;
use crate::model::{EntryMeta, LaneAnswer, LaneMessage, Processed};

fn answering() -> LaneConfig {
    LaneConfig { answering: Answering::Bodies, ..config() }
}

impl Rig {
    /// With a handler that answers `re: SEQ` to each record.
    fn answering(config: LaneConfig) -> Self {
        let rig = Self::on(MemoryDisk::default(), 1, config);
        rig.log().settled = Some(0);
        rig
    }

    /// Commits and publishes a block of so many records that ask.
    fn ask(&mut self, records: u64) {
        self.ask_and_not(records, 0);
    }

    /// The same with so many behind them that do not.
    fn ask_and_not(&mut self, asking: u64, others: u64) {
        let mut builder = BlockBuilder::default();
        for n in 0..asking + others {
            self.seqs += 1;
            builder.push(&EntryMeta { asks: n < asking, ..meta(1, self.seqs) }, b"a question");
        }
        self.publish_block(builder);
    }

    /// What the committer hears, as (offset, failed, body), up to the last message.
    fn told(&mut self) -> Vec<(u64, bool, String)> {
        let messages: Vec<_> = std::iter::from_fn(|| self.lanes.cursors.next_message()).collect();
        messages.into_iter().flat_map(answers).collect()
    }

    /// Fills the mailbox, so that nothing finds room.
    fn fill_mailbox(&self) {
        while self.progress.mailbox().post(LaneMessage::Checkpoint).is_ok() {}
    }
}

pub(super) fn answers(message: LaneMessage) -> Vec<(u64, bool, String)> {
    let LaneMessage::Answers(answers) = message else { return Vec::new() };
    let told = |LaneAnswer { id, offset, failed, body }: LaneAnswer| {
        assert_eq!((id.session, id.seq.0), (session(1), offset.0 + 1));
        (offset.0, failed, String::from_utf8(body.to_vec()).unwrap())
    };
    answers.into_iter().map(told).collect()
}

/// DONE for the records at these offsets.
fn done(offsets: std::ops::Range<u64>) -> Vec<(u64, bool, String)> {
    offsets.map(|offset| (offset, false, format!("re: {}", offset + 1))).collect()
}

#[test]
fn who_asked_is_told_with_the_flush_that_comes_as_soon_as_the_lane_runs_dry_and_who_did_not_is_not() {
    let mut rig = Rig::answering(answering());
    let flushes = rig.log().flushes;
    rig.ask_and_not(3, 4);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    assert_eq!((rig.told(), rig.log().flushes), (Vec::new(), flushes), "nothing is durable yet");
    rig.settle(0);
    assert_eq!((rig.told(), rig.log().flushes, rig.watermark()), (done(0..3), flushes + 1, 7));
    rig.publish(&[1; 3]);
    rig.settle(0);
    assert_eq!((rig.told(), rig.watermark()), (Vec::new(), 7), "where nobody asks, the flush has time");
}

#[test]
fn the_watermark_waits_until_the_answers_below_it_have_found_room_and_nothing_new_is_presented_meanwhile() {
    let mut rig = Rig::answering(answering());
    rig.ask(3);
    rig.fill_mailbox();
    let flushes = rig.log().flushes;
    rig.settle(0);
    assert_eq!(rig.log().flushes, flushes + 1, "the effect is durable");
    assert_eq!(rig.watermark(), 0);
    rig.ask(2);
    for n in 1..=50 {
        assert_eq!(retry_at(rig.step(n * 5_000)), (n + 1) * 5_000);
    }
    assert_eq!((rig.calls().len(), rig.log().flushes, rig.watermark()), (1, flushes + 1, 0));
    assert_eq!(rig.told(), Vec::new());
    rig.settle(300_000);
    assert_eq!((rig.told(), rig.watermark()), (done(0..5), 5));
}

#[test]
fn a_lane_that_is_stopped_before_its_answers_find_room_leaves_the_watermark_for_the_next_start() {
    let mut rig = Rig::answering(answering());
    rig.ask(3);
    rig.fill_mailbox();
    rig.settle(0);
    rig.lanes.control.drain(100_000);
    assert_eq!(retry_at(rig.step(99_000)), 100_000);
    assert!(matches!(rig.step(100_000), LaneStep::Finished { drained: false }));
    rig.checkpoint();
    let mut rig = rig.restart(1, answering());
    rig.settle(0);
    assert_eq!((rig.told(), rig.watermark()), (done(0..3), 3));
}

#[test]
fn who_reads_the_watermark_first_and_then_the_messages_has_heard_of_all_below_it() {
    let mut rig = Rig::answering(answering());
    let mut heard = 0;
    for _ in 0..3 {
        rig.ask(2);
        for _ in 0..6 {
            let [Processed::Passed(below)] = rig.lanes.cursors.processed()[..] else { panic!("it answers") };
            heard += rig.told().len() as u64;
            assert!(below.0 <= heard, "{below} is passed, and {heard} were heard of");
            rig.step(0);
        }
    }
    assert_eq!((heard, rig.lanes.cursors.processed()), (6, vec![Processed::Passed(Offset(6))]));
}

#[test]
fn a_flush_that_fails_tells_nobody_and_the_one_that_succeeds_tells_all() {
    let mut rig = Rig::answering(answering());
    rig.log().flush_error = Some("disk full");
    rig.ask(3);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    assert!(matches!(rig.step(0), LaneStep::Worked), "one try");
    let again = retry_at(rig.step(0));
    assert!(again > 0, "no busy loop");
    assert_eq!(rig.told(), Vec::new());
    rig.log().flush_error = None;
    rig.settle(again);
    assert_eq!((rig.told(), rig.watermark()), (done(0..3), 3));
}

#[test]
fn one_poison_record_does_not_hold_the_answers_of_a_thousand_others() {
    let mut rig = Rig::answering(answering());
    rig.behave(|record| if record.offset.0 == 500 { Does::Retry } else { Does::Done });
    rig.ask(1000);
    let flushes = rig.log().flushes;
    assert!(matches!(rig.step(0), LaneStep::Worked));
    let mut now = retry_at(rig.step(0));
    assert!(now > 0);
    let told = rig.told();
    assert_eq!(told.len(), 999);
    assert!(told.iter().all(|(offset, failed, _)| *offset != 500 && !failed));
    let log = |rig: &Rig| {
        let log = rig.log();
        (log.flushes, log.settled)
    };
    assert_eq!((log(&rig), rig.watermark()), ((flushes, Some(1)), 0), "no state is stored while a record is open");
    // Each further wait has nothing to settle.
    assert!(matches!(rig.step(now), LaneStep::Worked));
    now = retry_at(rig.step(now));
    assert_eq!((log(&rig), rig.told()), ((flushes, Some(1)), Vec::new()));
    rig.settle(now);
    assert_eq!(rig.told(), [(500, true, String::new())], "given up: never the reason");
    assert_eq!((rig.watermark(), rig.letters().len()), (1000, 1));
}

#[test]
fn what_cannot_be_settled_is_told_when_no_record_is_open_any_more() {
    let mut rig = Rig::answering(answering());
    rig.log().settled = None;
    rig.behave(|record| if record.offset.0 == 1 { Does::Retry } else { Does::Done });
    rig.ask(3);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    let due = retry_at(rig.step(0));
    assert_eq!(rig.told(), Vec::new());
    rig.behave(|_| Does::Done);
    rig.settle(due);
    let mut told = rig.told();
    told.sort();
    assert_eq!((told, rig.watermark()), (done(0..3), 3));
}

#[test]
fn a_settling_that_fails_tells_nobody_and_is_tried_again_when_it_is_due() {
    let mut rig = Rig::answering(answering());
    rig.behave(|record| if record.offset.0 == 1 { Does::Away } else { Does::Done });
    rig.log().flush_error = Some("disk full");
    rig.ask(2);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    let mut now = 0;
    for _ in 0..5 {
        match rig.step(now) {
            LaneStep::RetryAt(at) => now = at,
            step => assert!(matches!(step, LaneStep::Worked), "{step:?}"),
        }
        assert_eq!(rig.told(), Vec::new());
    }
    rig.log().flush_error = None;
    while rig.log().settled == Some(0) {
        match rig.step(now) {
            LaneStep::RetryAt(at) => now = at,
            step => assert!(matches!(step, LaneStep::Worked), "{step:?}"),
        }
    }
    assert_eq!((rig.told(), rig.watermark()), (done(0..1), 0));
}

#[test]
fn a_handler_that_works_at_a_batch_for_long_lets_who_waits_have_the_first_answers_meanwhile() {
    let mut rig = Rig::answering(answering());
    let mut calls = 0;
    rig.behave(move |_| {
        calls += 1;
        if calls % 2 == 0 { Does::Stop } else { Does::Done }
    });
    rig.ask(5);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    assert!(matches!(rig.step(49_999), LaneStep::Worked));
    assert_eq!(rig.told(), Vec::new());
    assert!(matches!(rig.step(50_000), LaneStep::Worked));
    assert_eq!(rig.told(), done(0..2), "after the flush interval");
    rig.settle(50_000);
    assert_eq!((rig.told(), rig.watermark()), (done(2..5), 5));
}

#[test]
fn what_is_given_up_is_told_only_when_its_dead_letter_is_kept() {
    let room = DeadLetterRoom { letters_max: 1, reserve_bytes: 0 };
    let mut rig = Rig::answering(LaneConfig { dead_letter_room: room, ..answering() });
    rig.behave(|_| Does::GiveUp);
    rig.ask(2);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    let due = retry_at(rig.step(0));
    assert_eq!(rig.told(), [(0, true, String::new())]);
    assert!(rig.dead.delete(rig.letters()[0].id).unwrap());
    rig.settle(due);
    assert_eq!(rig.told(), [(1, true, String::new())]);
    assert!(rig.letters().iter().all(|letter| letter.told_failed), "an operator sees that the sender knows");
}

#[test]
fn a_dead_letter_that_an_operator_retries_is_answered_to_nobody() {
    let mut rig = Rig::answering(answering());
    rig.behave(|_| Does::GiveUp);
    rig.ask(1);
    rig.settle(0);
    assert_eq!(rig.told(), [(0, true, String::new())]);
    rig.behave(|_| Does::Done);
    let answer = rig.lanes.control.retry_dead(&rig.letters()[0]).unwrap();
    rig.settle(0);
    rig.checkpoint();
    assert_eq!((answer.try_recv(), rig.told()), (Ok(Ok(())), Vec::new()));
}

#[test]
fn what_comes_again_after_a_restart_is_told_again() {
    let mut rig = Rig::answering(answering());
    rig.ask(2);
    rig.settle(0);
    assert_eq!(rig.told(), done(0..2));
    let mut rig = rig.restart(1, answering());
    rig.settle(0);
    assert_eq!(rig.told(), done(0..2), "the watermark was not stored");
}

#[test]
fn where_another_sink_answers_nothing_is_told_and_no_flush_is_hurried() {
    let mut rig = Rig::answering(config());
    rig.ask(3);
    rig.settle(0);
    assert_eq!((rig.watermark(), rig.told(), rig.lanes.cursors.processed()), (0, Vec::new(), Vec::new()));
    rig.settle(50_000);
    assert_eq!((rig.watermark(), rig.told()), (3, Vec::new()));
    rig.behave(|_| Does::GiveUp);
    rig.ask(1);
    rig.settle(100_000);
    assert_eq!(
        (rig.told(), rig.letters()[0].told_failed),
        (Vec::new(), false),
        "its sender hears nothing of this sink"
    );
}

#[test]
fn an_answer_that_is_too_long_is_counted_and_the_record_is_done_without_it() {
    let mut rig = Rig::answering(LaneConfig { answer_bytes_max: 4, ..answering() });
    rig.ask_and_not(1, 200);
    rig.settle(0);
    rig.ask(1);
    rig.settle(0);
    assert_eq!(
        rig.told(),
        [(0, false, "re: 1".to_owned()), (201, false, String::new())].map(|(at, failed, mut body)| {
            body.truncate(if at == 0 { 0 } else { 9 });
            (at, failed, body)
        })
    );
    assert_eq!(rig.metrics.answers_too_long.get(), 2, "those for which nobody waits do not count");
}

#[test]
fn a_lane_keeps_no_more_answers_than_it_may_before_it_flushes() {
    let batch = LaneConfig { batch_records_max: 100, flush_interval: Duration::from_secs(3600), ..answering() };
    let mut rig = Rig::answering(batch);
    let flushes = rig.log().flushes;
    let records = crate::limits::LANE_ANSWERS_BYTES / crate::limits::ANSWER_OVERHEAD_BYTES;
    rig.ask(2 * records as u64);
    let mut told = 0;
    let mut now = 0;
    while told < 2 * records {
        now += 1;
        let step = rig.step(now);
        let some = rig.told().len();
        assert!(some <= records + 100, "{some} at once: {step:?}");
        told += some;
    }
    assert!(rig.log().flushes - flushes >= 2);
}

#[test]
fn a_wish_for_a_checkpoint_is_heard_though_the_mailbox_is_full_of_answers() {
    let rig = Rig::answering(answering());
    let mailbox = rig.progress.mailbox();
    while mailbox.post(LaneMessage::Answers(Vec::new())).is_ok() {}
    rig.lanes.cursors.want_checkpoint();
    let wishes = std::iter::from_fn(|| rig.lanes.cursors.next_message()).filter(|m| *m == LaneMessage::Checkpoint);
    assert_eq!(wishes.count(), 1);
}

#[test]
fn the_asks_of_all_lanes_of_a_handler_are_passed_when_the_last_of_them_has_passed() {
    let mut rig = Rig::on(MemoryDisk::default(), 2, answering());
    let clients: Vec<u64> = [0, 1].map(|lane| (0..).find(|&c| Lane::of(session(c), 2) == Lane(lane)).unwrap()).into();
    let mut builder = BlockBuilder::default();
    for (seq, &client) in (1..).zip(&clients) {
        builder.push(&EntryMeta { asks: true, ..meta(client, seq) }, b"a question");
    }
    rig.publish_block(builder);
    let step = |rig: &mut Rig, lane: usize| while matches!(rig.lanes.workers[lane].step(at(0)), LaneStep::Worked) {};
    step(&mut rig, 1);
    let messages = |rig: &mut Rig| std::iter::from_fn(|| rig.lanes.cursors.next_message()).count();
    assert_eq!((messages(&mut rig), rig.lanes.cursors.processed()), (1, vec![Processed::Passed(Offset(0))]));
    step(&mut rig, 0);
    assert_eq!((messages(&mut rig), rig.lanes.cursors.processed()), (1, vec![Processed::Passed(Offset(2))]));
}

#[test]
fn an_answer_that_the_handler_tells_at_once_waits_for_no_record_behind_it_and_is_told_once() {
    let mut rig = Rig::answering(answering());
    rig.ask_and_not(3, 1);
    let cursors = Arc::clone(&rig.lanes.cursors);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    rig.behave(move |record| {
        // As the committer, while the handler is at work.
        let messages = std::iter::from_fn(|| cursors.next_message());
        lock(&hearing).push(messages.flat_map(answers).collect::<Vec<_>>());
        if record.offset.0 == 1 { Does::Done } else { Does::Tell }
    });
    rig.settle(0);
    assert_eq!(rig.calls(), [keys(0..4)]);
    assert_eq!(*lock(&heard), [vec![], done(0..1), vec![], done(1..3)], "who does not ask is not told");
    rig.settle(1_000_000);
    assert_eq!(rig.told(), [], "nothing is told twice");
    assert_eq!(rig.watermark(), 4);
}

#[test]
fn a_record_of_which_something_else_was_said_before_it_was_told_is_told_when_it_is_done() {
    let mut rig = Rig::answering(answering());
    rig.ask(2);
    let cursors = Arc::clone(&rig.lanes.cursors);
    let (told, mut calls) = (Arc::new(Mutex::new(Vec::new())), 0);
    let hearing = Arc::clone(&told);
    rig.behave(move |record| {
        calls += 1;
        lock(&hearing).extend(std::iter::from_fn(|| cursors.next_message()).flat_map(answers));
        match (record.offset.0, calls) {
            (0, 1) => Does::DoneAndRetry,
            _ => Does::Tell,
        }
    });
    rig.settle(0);
    rig.settle(1_000_000);
    let mut told = std::mem::take(&mut *lock(&told));
    told.extend(rig.told());
    told.sort();
    assert_eq!(told, done(0..2));
}

#[test]
fn an_answer_that_is_told_at_once_and_finds_no_room_is_told_after_the_flush() {
    let mut rig = Rig::answering(answering());
    rig.ask(2);
    rig.behave(|_| Does::Tell);
    rig.fill_mailbox();
    rig.settle(0);
    assert_eq!(rig.watermark(), 0, "nobody has heard of them");
    assert_eq!(rig.told(), []);
    rig.settle(1_000_000);
    assert_eq!((rig.told(), rig.watermark()), (done(0..2), 2));
}
