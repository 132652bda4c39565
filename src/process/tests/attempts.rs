//! Tests of what becomes of records that fail: retries, dead letters, panics, outages.

use std::sync::Arc;

use duragram_proto::Seq;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;
use crate::journal::testing::memory::WriteFate;
use crate::limits;
use crate::process::attempts::{Attempts, OpenBatch};
use crate::process::dead_letters;

/// The first delay of a retry by `config`, in microseconds.
const FIRST_DELAY_US: std::ops::RangeInclusive<u64> = 50_000..=100_000;

#[test]
fn a_retry_waits_for_its_time_and_later_records_wait_with_it() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 1 { Does::Retry } else { Does::Done });
    rig.publish(&[1, 1, 1]);
    assert!(matches!(rig.step(1_000_000), LaneStep::Worked));
    let due = retry_at(rig.step(1_000_000));
    assert!(FIRST_DELAY_US.contains(&(due - 1_000_000)), "{due}");
    rig.publish(&[1]);
    assert_eq!(retry_at(rig.step(due - 1)), due);
    assert_eq!(rig.calls(), [keys(0..3)], "nothing was presented before its time");
    assert!(matches!(rig.step(due), LaneStep::Worked));
    assert_eq!(rig.calls()[1], keys(1..2), "only what failed comes again");
    let second = retry_at(rig.step(due));
    assert!((100_000..=200_000).contains(&(second - due)), "the second delay is twice the first: {}", second - due);
    rig.behave(|_| Does::Done);
    rig.settle(second);
    assert_eq!(rig.calls()[2..], [keys(1..2), keys(3..4)]);
    assert_eq!((rig.metrics.retries.get(), rig.letters().len()), (2, 0));
}

#[test]
fn after_the_last_attempt_a_record_is_a_dead_letter_and_the_lane_goes_on() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 1 { Does::Retry } else { Does::Done });
    rig.publish(&[7, 8, 9]);
    let mut now = 0;
    let mut waits = 0;
    loop {
        match rig.step(now) {
            LaneStep::Worked => {}
            LaneStep::RetryAt(at) => (now, waits) = (at, waits + 1),
            _ => break,
        }
    }
    assert_eq!(waits, 2, "three attempts");
    assert_eq!(rig.done(), [(0, 0), (2, 0)]);
    let letters = rig.letters();
    let letter = &letters[0];
    assert_eq!((letters.len(), letter.id.offset.0, letter.id.index, letter.attempts), (1, 1, 0, 3));
    assert!(!letter.told_failed, "nobody has asked");
    assert_eq!((letter.session, letter.seq, letter.payload.as_slice()), (session(8), Seq(2), &b"record 2"[..]));
    assert_eq!((letter.error.as_str(), letter.since_unix_us), ("try later", at(now).unix_us));
    rig.settle(now + 1_000_000);
    assert_eq!((rig.watermark(), rig.metrics.dead_letters.get()), (3, 1));
}

#[test]
fn a_record_that_is_given_up_is_a_dead_letter_at_once_also_when_it_is_a_gap() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::GiveUp);
    let mut builder = BlockBuilder::default();
    builder.push_gap(session(1), false, Seq(2), Seq(5), 77);
    rig.publish_block(builder);
    rig.settle(0);
    let letters = rig.letters();
    assert_eq!((letters[0].attempts, letters[0].error.as_str()), (1, "never"));
    assert_eq!(dead_letters::record(&letters[0]).content, Content::Gap { from: Seq(2), to: Seq(5) });
}

#[test]
fn a_dead_letter_that_cannot_be_stored_stops_the_lane_before_its_watermark_moves() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 1 { Does::GiveUp } else { Does::Done });
    rig.publish(&[1, 1]);
    rig.disk.on_write(|_| WriteFate::FailedAndLost);
    match rig.step(0) {
        LaneStep::Failed(error) => assert!(error.to_string().contains("injected"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.watermark(), 0);
}

/// An entry of so many empty records.
fn empty_records(records: usize) -> BlockBuilder {
    let mut builder = BlockBuilder::default();
    builder.push(&EntryMeta { batch: true, ..meta(1, 1) }, &vec![0; 2 * records]);
    builder
}

#[test]
fn all_dead_letters_of_a_batch_are_one_write() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::GiveUp);
    let writes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let writes_ = Arc::clone(&writes);
    rig.disk.on_write(move |write| {
        if let crate::journal::testing::memory::Write::DeadLetters(letters) = write {
            writes_.lock().unwrap().push(letters.len());
        }
        WriteFate::Durable
    });
    rig.publish_block(empty_records(720));
    rig.settle(0);
    assert_eq!(*writes.lock().unwrap(), [720]);
    assert_eq!((rig.letters().len(), rig.metrics.dead_letters.get()), (720, 720));
    rig.publish_block(empty_records(limits::ENTRY_RECORDS));
    rig.settle(0);
    let writes = writes.lock().unwrap();
    assert!((3..6).contains(&writes.len()), "what one write takes is bounded: {writes:?}");
    assert_eq!(writes.iter().sum::<usize>(), 720 + limits::ENTRY_RECORDS);
}

#[test]
fn without_space_for_dead_letters_the_lane_waits_for_it_and_shows_nothing_again() {
    let room = crate::journal::DeadLetterRoom { reserve_bytes: 1000, ..crate::journal::DeadLetterRoom::ANY };
    let config = LaneConfig { dead_letter_room: room, ..config() };
    let mut rig = Rig::on(MemoryDisk::default(), 1, config);
    rig.behave(|record| if record.offset.0 == 1 { Does::GiveUp } else { Does::Done });
    rig.disk.set_free_bytes(999);
    rig.publish(&[1; 3]);
    let down = rig.metrics.lane_down.get_or_create(&crate::metrics::LaneLabel { sink: String::new(), lane: 0 }).clone();
    let mut now = 0;
    for _ in 0..20 {
        assert!(matches!(rig.step(now), LaneStep::Worked));
        now = retry_at(rig.step(now));
    }
    assert_eq!((rig.calls().len(), rig.letters().len(), rig.watermark(), down.get()), (1, 0, 0, 1));
    rig.disk.set_free_bytes(1000);
    rig.settle(now);
    rig.settle(now + 50_000);
    assert_eq!((rig.calls().len(), rig.letters().len(), rig.watermark(), down.get()), (1, 1, 3, 0));
    assert_eq!(rig.letters()[0].since_unix_us, at(0).unix_us, "since it was given up");
}

#[test]
fn with_as_many_dead_letters_as_may_be_the_lane_waits_until_one_has_gone() {
    let room = crate::journal::DeadLetterRoom { letters_max: 3, ..crate::journal::DeadLetterRoom::ANY };
    let config = LaneConfig { dead_letter_room: room, ..config() };
    let mut rig = Rig::on(MemoryDisk::default(), 1, config);
    rig.behave(|record| if record.offset.0 < 5 { Does::GiveUp } else { Does::Done });
    rig.publish(&[1; 6]);
    let (mut now, mut discarded) = (0, 0);
    loop {
        match rig.step(now) {
            LaneStep::Worked => {}
            LaneStep::RetryAt(at) => {
                now = at;
                assert_eq!((rig.dead.count(), rig.watermark()), (3, 0));
                rig.dead.delete(rig.letters()[0].id).unwrap();
                discarded += 1;
            }
            LaneStep::Idle { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((discarded, rig.calls().len()), (2, 1));
    rig.settle(now + 50_000);
    assert_eq!((rig.dead.count(), rig.watermark()), (3, 6));
}

#[test]
fn what_a_handler_says_of_a_record_is_kept_up_to_a_length() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::Verbose);
    rig.publish(&[1]);
    rig.settle(0);
    let error = &rig.letters()[0].error;
    assert!(error.len() <= limits::DEAD_ERROR_BYTES && error.len() + 4 > limits::DEAD_ERROR_BYTES);
}

#[test]
fn of_many_records_the_one_that_makes_the_handler_panic_is_found() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 == 5 { Does::Panic } else { Does::Done });
    rig.publish(&[1; 9]);
    let mut now = 0;
    loop {
        match rig.step(now) {
            LaneStep::Worked => {}
            LaneStep::RetryAt(at) => now = at,
            _ => break,
        }
    }
    assert_eq!(rig.done(), [keys(0..5), keys(6..9)].concat(), "each of the others once, in order");
    let letters = rig.letters();
    assert_eq!((letters.len(), letters[0].id.offset.0), (1, 5));
    assert_eq!((letters[0].error.as_str(), letters[0].attempts), ("the handler panicked: cannot bear record 5", 3));
    assert_eq!(rig.metrics.handler_panics.get(), 4, "once with the others, three times alone");
    rig.settle(now + 1_000_000);
    assert_eq!(rig.watermark(), 9);
    rig.publish(&[1; 3]);
    rig.settle(now + 1_000_000);
    assert_eq!(rig.calls().last().unwrap(), &keys(9..12), "later batches are whole again");
}

/// Says that everything is done before it starts, and panics at its first record.
struct Boastful;

impl Handler for Boastful {
    fn process(&mut self, _: &[Record<'_>], outcomes: &mut Outcomes) {
        outcomes.done_all();
        panic!("pride");
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        panic!("a fall");
    }
}

#[test]
fn done_all_is_not_believed_when_a_panic_follows_and_a_panic_in_flush_is_a_failed_flush() {
    let rig = Rig::new(1);
    let metrics = rig.metrics.clone();
    let rng = SmallRng::seed_from_u64(1);
    let name = rig.progress.lane_name(Lane(0));
    let mut attempts =
        Attempts::new(name, Box::new(Boastful), rig.dead, rig.progress.mailbox(), &config(), rng, &metrics);
    let letter = crate::journal::DeadLetter {
        id: crate::journal::DeadLetterId::FIRST,
        session: session(1),
        seq: Seq(1),
        channel: 0,
        received_unix_us: 0,
        payload: Vec::new(),
        gap_from: None,
        error: String::new(),
        attempts: 0,
        since_unix_us: 0,
        told_failed: false,
    };
    let record = dead_letters::record(&letter);
    let mut open = OpenBatch::default();
    open.reset(2);
    open.may_ask = true;
    attempts.present(at(0), &[record, Record { index: 1, ..record }], &mut open).unwrap();
    assert_eq!(open.records.len(), 2);
    assert!(attempts.flush(at(0)).unwrap_err().to_string().contains("a fall"));
    assert!(attempts.flush_failed());
}

#[test]
fn a_handler_that_stops_early_gets_the_rest_at_once_and_nobody_is_charged() {
    let mut rig = Rig::new(1);
    let mut asked = 0;
    rig.behave(move |_| {
        asked += 1;
        if asked % 4 == 0 { Does::Stop } else { Does::Done }
    });
    rig.publish(&[1; 10]);
    rig.settle(0);
    assert_eq!(rig.done(), keys(0..10));
    assert_eq!(rig.calls(), [keys(0..10), keys(3..10), keys(6..10), keys(9..10)]);
    assert_eq!(rig.metrics.retries.get(), 0);
}

#[test]
fn a_handler_that_never_answers_is_no_busy_loop() {
    let mut rig = Rig::new(1);
    rig.behave(|_| Does::Stop);
    rig.publish(&[1; 3]);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    assert!(FIRST_DELAY_US.contains(&retry_at(rig.step(0))));
}

#[test]
fn an_outage_of_the_sink_makes_no_dead_letters_however_long_it_lasts() {
    let mut rig = Rig::new(1);
    rig.behave(|record| if record.offset.0 < 1 { Does::Done } else { Does::Away });
    rig.publish(&[1; 3]);
    let mut now = 0;
    let mut waits = Vec::new();
    while waits.len() < 20 {
        match rig.step(now) {
            LaneStep::Worked => {}
            LaneStep::RetryAt(at) => {
                waits.push(at - now);
                now = at;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(waits[10..].iter().all(|wait| (500_000..=1_000_000).contains(wait)), "{waits:?}");
    let down = rig.metrics.lane_down.get_or_create(&crate::metrics::LaneLabel { sink: String::new(), lane: 0 }).clone();
    assert_eq!((down.get(), rig.metrics.sink_failures.get()), (1, 20));
    rig.behave(|_| Does::Done);
    rig.settle(now);
    assert_eq!((rig.done(), rig.letters().len(), down.get()), (keys(0..3), 0, 0));
}
