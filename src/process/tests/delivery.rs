//! Tests of how entries reach their lanes: each once, in order, from memory or the journal, whatever the number of lanes.

use std::sync::Arc;

use duragram_proto::Seq;

use super::*;
use crate::limits;

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
fn what_has_left_memory_is_read_from_the_journal() {
    let mut rig = Rig::new(1);
    let blocks = limits::RECENT_BLOCKS as u64 + 100;
    (0..blocks).for_each(|_| rig.publish(&[1, 2]));
    rig.settle(0);
    assert_eq!(rig.done(), keys(0..blocks * 2));
    assert_eq!(rig.metrics.lane_journal_reads.get(), 1, "one reading brings all that has left");
    rig.publish(&[1]);
    rig.settle(0);
    assert_eq!(rig.done().len() as u64, blocks * 2 + 1);
    assert_eq!(rig.metrics.lane_journal_reads.get(), 1, "a lane that has caught up reads from memory");
}

#[test]
fn a_hole_between_two_blocks_in_memory_is_filled_from_the_journal() {
    let mut rig = Rig::new(1);
    rig.publish(&[1]);
    rig.commit_unpublished(&[1, 1]);
    rig.publish(&[1]);
    rig.publish(&[1]);
    rig.settle(0);
    assert_eq!(rig.done(), keys(0..5));
}

#[test]
fn large_blocks_do_not_pile_up_in_memory() {
    let mut rig = Rig::new(1);
    let block = limits::RECENT_BYTES / 4 + 1;
    for seq in 1..=10 {
        let mut builder = BlockBuilder::default();
        (0..block.div_ceil(60_000)).for_each(|_| builder.push(&meta(1, seq), &[b'x'; 60_000]));
        rig.publish_block(builder);
    }
    rig.settle(0);
    assert_eq!(rig.metrics.lane_journal_reads.get(), 7, "of ten blocks three were still in memory");
    let entries = 10 * block.div_ceil(60_000) as u64;
    assert_eq!(rig.done(), keys(0..entries));
}

#[test]
fn a_block_larger_than_the_room_for_blocks_is_in_memory_alone() {
    let mut rig = Rig::new(1);
    let mut builder = BlockBuilder::default();
    (0..=limits::RECENT_BYTES / 60_000).for_each(|_| builder.push(&meta(1, 1), &[b'x'; 60_000]));
    rig.publish_block(builder);
    rig.settle(0);
    assert_eq!(rig.done().len(), limits::RECENT_BYTES / 60_000 + 1);
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
