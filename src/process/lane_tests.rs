use super::super::testing::*;
use super::super::*;
use super::*;
use crate::journal::BlockBuilder;
use crate::journal::testing::memory::{MemoryDisk, WriteFate};
use crate::model::EntryMeta;
use duragram_proto::Seq;

/// Of the retry in `testing::config`.
const FIRST_DELAY_US: std::ops::RangeInclusive<u64> = 50_000..=100_000;

fn keys(offsets: std::ops::Range<u64>) -> Vec<Key> {
    offsets.map(|offset| (offset, 0)).collect()
}

fn retry_at(step: LaneStep) -> u64 {
    match step {
        LaneStep::RetryAt(at) => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_record_comes_once_to_the_lane_of_its_session_in_order() {
    let mut rig = Rig::new(3);
    for round in 0..50 {
        rig.publish(&(round..round + 20).collect::<Vec<_>>());
        if round % 7 == 0 {
            rig.settle(0);
        }
    }
    rig.settle(0);
    let done = rig.log().done.clone();
    let mut all: Vec<_> = done.iter().map(|(_, key)| *key).collect();
    for lane in 0..3 {
        let own: Vec<_> = done.iter().filter(|(l, _)| *l == Lane(lane)).map(|(_, key)| *key).collect();
        assert!(own.is_sorted() && !own.is_empty(), "lane {lane}: {own:?}");
    }
    all.sort_unstable();
    assert_eq!(all, keys(0..1000));
    for block in rig.disk.read(Offset(0), usize::MAX).unwrap() {
        for entry in block.entries() {
            let lane = Lane::of(entry.meta.session, 3);
            assert!(done.contains(&(lane, (entry.offset.0, 0))), "{} is not in lane {lane}", entry.offset);
        }
    }
}

#[test]
fn a_batch_gives_its_records_by_index_and_a_gap_is_a_record() {
    let mut rig = Rig::new(1);
    let mut builder = BlockBuilder::default();
    builder.push(&EntryMeta { batch: true, channel: 4, ..meta(1, 1) }, b"\x01\0a\0\0\x02\0bc");
    builder.push_gap(session(1), false, Seq(2), Seq(5), 77);
    builder.push(&meta(1, 6), b"");
    rig.publish_block(builder);
    let contents = Arc::new(std::sync::Mutex::new(Vec::new()));
    let contents_ = Arc::clone(&contents);
    rig.behave(move |record| {
        let content = match record.content {
            Content::Payload(payload) => format!("{:?}", str::from_utf8(payload).unwrap()),
            Content::Gap { from, to } => format!("gap {from} to {to}"),
        };
        contents_.lock().unwrap().push(format!("{} {} {content}", record.channel, record.seq));
        Does::Done
    });
    rig.settle(0);
    assert_eq!(rig.done(), [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]);
    assert_eq!(*contents.lock().unwrap(), ["4 1 \"a\"", "4 1 \"\"", "4 1 \"bc\"", "0 5 gap 2 to 5", "0 6 \"\""]);
}

#[test]
fn what_a_full_channel_did_not_take_is_read_from_the_journal() {
    let mut rig = Rig::new(1);
    let blocks = limits::LANE_CHANNEL_BLOCKS as u64 + 100;
    (0..blocks).for_each(|_| rig.publish(&[1, 2]));
    rig.settle(0);
    assert_eq!(rig.done(), keys(0..blocks * 2));
    assert_eq!(rig.metrics.lane_journal_reads.get(), 1, "one reading brings all that the channel did not take");
    rig.publish(&[1]);
    rig.settle(0);
    assert_eq!(rig.done().len() as u64, blocks * 2 + 1);
    assert_eq!(rig.metrics.lane_journal_reads.get(), 1, "a lane that has caught up reads from its channel");
}

#[test]
fn a_hole_between_two_blocks_of_the_channel_is_filled_from_the_journal() {
    let mut rig = Rig::new(1);
    rig.publish(&[1]);
    rig.commit_unpublished(&[1, 1]);
    rig.publish(&[1]);
    rig.publish(&[1]);
    rig.settle(0);
    assert_eq!(rig.done(), keys(0..5));
}

#[test]
fn large_blocks_do_not_pile_up_in_a_channel() {
    let mut rig = Rig::new(1);
    let block = limits::LANE_CHANNEL_BYTES / 4 + 1;
    for seq in 1..=10 {
        let mut builder = BlockBuilder::default();
        (0..block.div_ceil(60_000)).for_each(|_| builder.push(&meta(1, seq), &[b'x'; 60_000]));
        rig.publish_block(builder);
    }
    assert_eq!(rig.lanes.workers[0].channels().0.unwrap().len(), 3);
    rig.settle(0);
    let entries = 10 * block.div_ceil(60_000) as u64;
    assert_eq!(rig.done(), keys(0..entries));
}

#[test]
fn a_block_larger_than_a_channel_passes_alone() {
    let mut rig = Rig::new(1);
    let mut builder = BlockBuilder::default();
    (0..=limits::LANE_CHANNEL_BYTES / 60_000).for_each(|_| builder.push(&meta(1, 1), &[b'x'; 60_000]));
    rig.publish_block(builder);
    rig.settle(0);
    assert_eq!(rig.done().len(), limits::LANE_CHANNEL_BYTES / 60_000 + 1);
    assert_eq!(rig.metrics.lane_journal_reads.get(), 0);
}

#[test]
fn after_a_restart_a_lane_goes_on_at_its_watermark_in_the_middle_of_a_block() {
    let config = LaneConfig { batch_records_max: 4, flush_records_max: 4, ..config() };
    let mut rig = Rig::on(MemoryDisk::default(), 1, config);
    rig.publish(&[1; 10]);
    rig.step(0); // a batch
    rig.step(0); // its flush
    rig.step(0); // a batch that is not flushed
    rig.checkpoint();
    let mut rig = rig.restart(1, config);
    assert_eq!(rig.watermark(), 4);
    rig.publish(&[1; 3]);
    rig.settle(0);
    assert_eq!(rig.done(), keys(4..13));
}

/// Lets each lane come to another place, and stores the marks.
fn come_apart(rig: &mut Rig, now_us: u64) {
    for (lane, worker) in rig.lanes.workers.iter_mut().enumerate() {
        (0..2 * lane + 3).for_each(|_| drop(worker.step(at(now_us))));
    }
    rig.checkpoint();
}

#[test]
fn with_another_number_of_lanes_nothing_that_was_processed_comes_again_and_no_state_is_lost() {
    let config = LaneConfig { batch_records_max: 4, flush_records_max: 4, ..config() };
    let mut rig = Rig::on(MemoryDisk::default(), 3, config);
    rig.publish(&(0..100).collect::<Vec<_>>());
    come_apart(&mut rig, 0);
    // Killed again and again before the lanes of the first run are caught up with.
    for lanes in [5, 2, 2, 7, 3] {
        let stored = rig.stored_sum();
        assert!(0 < stored && stored < 100);
        let marks = rig.disk.lanes();
        rig = rig.restart(lanes, config);
        let left = marks.iter().map(|mark| mark.watermark.0).min().unwrap();
        assert_eq!(rig.progress.lowest_watermark(), Offset(left), "none is left out");
        come_apart(&mut rig, 0);
    }
    rig = rig.restart(4, config);
    rig.settle(0);
    rig.settle(1_000_000);
    rig.checkpoint();
    assert_eq!(rig.stored_sum(), 100, "each is counted once");
    let rig = rig.restart(4, config);
    assert_eq!(rig.progress.former(&rig.disk.lanes()), [], "and what earlier lanes had passed is forgotten");
}

#[test]
fn how_far_the_lanes_of_former_runs_had_come_is_kept_for_a_bounded_number_of_runs() {
    let config = LaneConfig { batch_records_max: 1, flush_records_max: 1, ..config() };
    let mut rig = Rig::on(MemoryDisk::default(), 1, config);
    rig.publish(&(0..1000).collect::<Vec<_>>());
    for lanes in 2..20 {
        rig = rig.restart(lanes, config);
        let worker = &mut rig.lanes.workers[0];
        (0..2).for_each(|_| drop(worker.step(at(0))));
        rig.checkpoint();
        assert!(rig.progress.former(&rig.disk.lanes()).len() <= limits::FORMER_LANES);
    }
    let mut rig = rig.restart(1, config);
    rig.settle(0);
    rig.checkpoint();
    assert!(rig.stored_sum() >= 1000, "none is left out");
}

#[test]
fn the_state_of_a_lane_to_which_nothing_comes_moves_with_what_the_others_write() {
    let config = LaneConfig { flush_bytes_max: 10_000, ..config() };
    let mut rig = Rig::on(MemoryDisk::default(), 2, config);
    let client = (0..).find(|&client| Lane::of(session(client), 2) == Lane(1)).unwrap();
    let before = rig.log().flushes;
    for _ in 0..100 {
        rig.publish(&[client; 10]);
        (0..4).for_each(|_| drop(rig.lanes.workers[0].step(at(0))));
    }
    assert_eq!(rig.progress.watermark(Lane(0)), Offset(1000));
    let flushes = rig.log().flushes - before;
    assert!((3..10).contains(&flushes), "{flushes} flushes for 50,000 bytes");
}

#[test]
fn a_journal_that_lacks_what_it_committed_stops_the_lane_rather_than_be_skipped() {
    let disk = MemoryDisk::default();
    let reader = Arc::new(Forgetful { disk: disk.clone(), lost: 2..4 });
    let mut rig = Rig::reading(reader, disk, 1, config());
    rig.commit_unpublished(&[1, 1]);
    rig.commit_unpublished(&[1, 1]);
    rig.commit_unpublished(&[1, 1]);
    rig.publish(&[1]);
    let failed = loop {
        match rig.step(0) {
            LaneStep::Worked => {}
            LaneStep::Failed(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(failed.to_string().contains("entry 2"), "{failed}");
    assert!(rig.done().iter().all(|key| key.0 < 2), "{:?}", rig.done());
    assert_eq!(rig.watermark(), 0);
}

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
    assert_eq!(dead::record(&letters[0]).content, Content::Gap { from: Seq(2), to: Seq(5) });
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
    let down = rig.metrics.lane_down.get_or_create(&crate::metrics::LaneLabel { lane: 0 }).clone();
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
    let mut presenter = Presenter::new(Lane(0), Box::new(Boastful), rig.dead, &config(), rng, &metrics);
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
    };
    let record = dead::record(&letter);
    let mut open = Open::default();
    open.reset(2);
    presenter.present(at(0), &[record, Record { index: 1, ..record }], &mut open).unwrap();
    assert_eq!(open.records.len(), 2);
    assert!(presenter.flush(at(0)).unwrap_err().to_string().contains("a fall"));
    assert!(presenter.flush_failed());
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
    let down = rig.metrics.lane_down.get_or_create(&crate::metrics::LaneLabel { lane: 0 }).clone();
    assert_eq!((down.get(), rig.metrics.sink_failures.get()), (1, 20));
    rig.behave(|_| Does::Done);
    rig.settle(now);
    assert_eq!((rig.done(), rig.letters().len(), down.get()), (keys(0..3), 0, 0));
}

#[test]
fn a_sink_that_cannot_flush_holds_the_watermark_and_gets_nothing_new() {
    let mut rig = Rig::new(1);
    rig.log().flush_error = Some("disk full");
    rig.publish(&[1; 3]);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    let mut now = match rig.step(0) {
        LaneStep::Idle { until_us } => until_us.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(now, 50_000, "the flush interval");
    rig.publish(&[1; 3]);
    let flushes = rig.log().flushes;
    for _ in 0..20 {
        assert!(matches!(rig.step(now), LaneStep::Worked), "one try");
        now = retry_at(rig.step(now));
    }
    assert_eq!(rig.log().flushes - flushes, 20);
    assert_eq!((rig.calls().len(), rig.watermark()), (1, 0));
    rig.log().flush_error = None;
    rig.settle(now);
    assert_eq!((rig.watermark(), rig.calls().len()), (3, 2), "the second batch waits for its own flush");
    rig.settle(now + 50_000);
    assert_eq!((rig.watermark(), rig.done()), (6, keys(0..6)));
}

#[test]
fn a_flush_comes_by_records_by_bytes_and_by_time() {
    let base = LaneConfig { batch_records_max: 2, ..config() };
    let by_records = LaneConfig { flush_records_max: 4, ..base };
    let by_bytes = LaneConfig { flush_bytes_max: 4 * 48, ..base };
    for config in [by_records, by_bytes] {
        let mut rig = Rig::on(MemoryDisk::default(), 1, config);
        rig.publish(&[1; 7]);
        rig.settle(0);
        assert_eq!((rig.watermark(), rig.done().len()), (4, 7));
        rig.settle(49_999);
        assert_eq!(rig.watermark(), 4);
        rig.settle(50_000);
        assert_eq!(rig.watermark(), 7);
        assert!(matches!(rig.step(50_000), LaneStep::Idle { until_us: None }), "idle costs nothing");
    }
}

#[test]
fn the_watermark_of_a_lane_without_entries_moves_too_and_its_handler_is_left_alone() {
    let mut rig = Rig::new(2);
    let client = (0..).find(|&client| Lane::of(session(client), 2) == Lane(1)).unwrap();
    let flushes = rig.log().flushes;
    rig.publish(&[client; 5]);
    rig.settle(0);
    assert_eq!((rig.progress.watermark(Lane(0)), rig.progress.watermark(Lane(1))), (Offset(5), Offset(0)));
    assert_eq!(rig.progress.lowest_watermark(), Offset(0));
    assert_eq!(rig.log().flushes, flushes);
    rig.settle(50_000);
    assert_eq!(rig.progress.lowest_watermark(), Offset(5));
}

#[test]
fn the_lag_is_shown_while_a_lane_stands_still_and_when_it_catches_up() {
    let mut rig = Rig::new(1);
    let lag = rig.metrics.lane_lag.get_or_create(&crate::metrics::LaneLabel { lane: 0 }).clone();
    rig.publish(&[1; 5]);
    assert_eq!(lag.get(), 5);
    rig.settle(0);
    rig.settle(50_000);
    assert_eq!(lag.get(), 0);
}
