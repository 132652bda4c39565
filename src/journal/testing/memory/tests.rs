use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::journal::dead_letter::tests::{letter, letter_of};
use crate::journal::testing::shared::{Replayed, numbers, push, read_all, record, session, sink, sinks};
use crate::journal::{BlockBuilder, Journal as _};
use crate::model::SinkId;

fn open(disk: &MemoryDisk) -> (Opened<MemoryJournal>, Replayed) {
    let mut replayed = Replayed::default();
    let opened = disk.open(&mut |replay| replayed.take(replay));
    (opened, replayed)
}

fn block(numbers: std::ops::RangeInclusive<u64>) -> BlockBuilder {
    let mut builder = BlockBuilder::default();
    numbers.for_each(|seq| push(&mut builder, seq, 10));
    builder
}

#[test]
fn a_start_replays_what_was_committed_from_the_checkpoint_on() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, .. }, _) = open(&disk);
    let mut builder = block(1..=3);
    let receipt = journal.commit(&mut builder, &[record(1, 5)]).unwrap();
    assert_eq!((receipt.end(), receipt.block().map(|block| numbers(block))), (Offset(3), Some(vec![1, 2, 3])));
    assert!(builder.is_empty());
    journal.commit(&mut block(4..=5), &[]).unwrap();
    let lane = LaneMark { watermark: Offset(4), sink_state: vec![1] };
    let checkpoint = Checkpoint {
        at: Offset(4),
        sessions: vec![record(2, 6)],
        expired: vec![session(1)],
        lanes: vec![lane.clone()],
        trim_below: Offset(4),
        ..Checkpoint::default()
    };
    journal.checkpoint(&checkpoint).unwrap();
    assert_eq!(journal.commit(&mut BlockBuilder::default(), &[record(3, 7)]).unwrap().end(), Offset(5));

    let (opened, replayed) = open(&disk);
    assert_eq!(
        replayed,
        Replayed { sessions: vec![record(2, 6), record(3, 7)], numbers: vec![4, 5], ..Replayed::default() }
    );
    assert_eq!(
        (opened.low, opened.checkpoint_at, opened.end, opened.lanes),
        (Offset(3), Offset(4), Offset(5), vec![lane])
    );
    assert_eq!(opened.extents.len(), 1);
    assert_eq!(read_all(&*opened.reader, Offset(0)), [4, 5]);
    assert_eq!(read_all(&*opened.reader, Offset(5)), [0; 0]);
}

#[test]
fn a_failed_write_is_final_until_the_next_start() {
    for (fate, found) in [(WriteFate::FailedAndLost, &[1][..]), (WriteFate::FailedButWritten, &[1, 2])] {
        let disk = MemoryDisk::default();
        let (Opened { mut journal, .. }, _) = open(&disk);
        journal.commit(&mut block(1..=1), &[]).unwrap();
        disk.on_write(move |_| fate);
        let error = journal.commit(&mut block(2..=2), &[]).unwrap_err();
        disk.on_write(|_| WriteFate::Durable);
        assert_eq!(journal.commit(&mut block(3..=3), &[]).unwrap_err(), error);
        assert_eq!(journal.checkpoint(&Checkpoint::default()).unwrap_err(), error);
        assert_eq!(open(&disk).1.numbers, found);
    }
}

#[test]
fn a_write_is_durable_only_after_its_hook() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, reader, .. }, _) = open(&disk);
    static SEEN: AtomicBool = AtomicBool::new(false);
    let look = disk.clone();
    disk.on_write(move |write| {
        let Write::Commit { block: Some(block), .. } = write else { panic!("{write:?}") };
        assert_eq!((block.end(), look.end()), (Offset(2), Offset(0)));
        assert!(reader.read(Offset(0), 1).unwrap().is_empty());
        SEEN.store(true, Ordering::SeqCst);
        WriteFate::Durable
    });
    journal.commit(&mut block(1..=2), &[]).unwrap();
    assert!(SEEN.load(Ordering::SeqCst));
    assert_eq!(disk.end(), Offset(2));
}

#[test]
fn a_crash_while_a_write_is_in_flight_loses_it_and_cuts_the_writer_off() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, .. }, _) = open(&disk);
    let power = disk.clone();
    disk.on_write(move |_| {
        power.crash();
        WriteFate::Durable
    });
    assert!(journal.commit(&mut block(1..=1), &[record(1, 1)]).is_err());
    disk.on_write(|_| WriteFate::Durable);
    let (Opened { journal: mut second, .. }, replayed) = open(&disk);
    assert_eq!(replayed, Replayed::default());
    assert!(journal.commit(&mut block(1..=1), &[]).is_err(), "the first writer is gone");
    second.commit(&mut block(7..=7), &[]).unwrap();
    assert_eq!(open(&disk).1.numbers, [7]);
}

#[test]
fn a_checkpoint_that_would_delete_what_is_needed_is_refused() {
    let lanes = vec![LaneMark::default(), LaneMark { watermark: Offset(3), ..LaneMark::default() }];
    let above_a_watermark = Checkpoint { at: Offset(3), trim_below: Offset(3), lanes, ..Checkpoint::default() };
    let above_itself = Checkpoint { at: Offset(1), trim_below: Offset(2), ..Checkpoint::default() };
    let beyond_the_end = Checkpoint { at: Offset(4), ..Checkpoint::default() };
    let sinks = vec![SinkRecord { holds: true, ..sink(1, "events", 2) }];
    let above_a_sink = Checkpoint { at: Offset(3), trim_below: Offset(3), sinks, ..Checkpoint::default() };
    for wrong in [above_a_watermark, above_itself, beyond_the_end, above_a_sink] {
        let disk = MemoryDisk::default();
        let (Opened { mut journal, .. }, _) = open(&disk);
        journal.commit(&mut block(1..=3), &[]).unwrap();
        assert!(journal.checkpoint(&wrong).is_err());
        assert!(journal.commit(&mut block(4..=4), &[]).is_err(), "a wrong caller is stopped for good");
        assert_eq!(open(&disk).1.numbers, [1, 2, 3]);
    }
}

#[test]
fn dead_letters_are_kept_in_order_and_survive() {
    let disk = MemoryDisk::default();
    let (Opened { dead, .. }, _) = open(&disk);
    for (offset, index) in [(7, 1), (3, 0), (7, 0), (7, 1)] {
        dead.put(&letter(offset, index)).unwrap();
    }
    assert_eq!(dead.count(), 3);
    let (Opened { dead, .. }, _) = open(&disk);
    assert_eq!(dead.list(DeadLetterId::FIRST, 2).unwrap(), [letter(3, 0), letter(7, 0)]);
    assert_eq!(dead.list(letter(7, 1).id, 9).unwrap(), [letter(7, 1)]);
    assert!(dead.delete(letter(7, 0).id).unwrap());
    assert!(!dead.delete(letter(7, 0).id).unwrap());
    assert_eq!((dead.get(letter(7, 0).id).unwrap(), dead.get(letter(3, 0).id).unwrap()), (None, Some(letter(3, 0))));
}

#[test]
fn sinks_and_their_dead_letters_survive() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, dead, .. }, _) = open(&disk);
    journal.commit(&mut block(1..=3), &[]).unwrap();
    for sink in [9, 0, 1 << 100] {
        dead.put(&letter_of(sink, 2, 0)).unwrap();
    }
    let retried = vec![letter_of(9, 2, 0).id];
    journal.checkpoint(&Checkpoint { sinks: sinks(3), retried, ..Checkpoint::default() }).unwrap();
    assert_eq!(disk.sinks(), sinks(3));
    let (Opened { dead, sinks: opened, .. }, _) = open(&disk);
    assert_eq!(opened, sinks(3));
    assert_eq!(dead.list(DeadLetterId::FIRST, 9).unwrap(), [letter_of(0, 2, 0), letter_of(1 << 100, 2, 0)]);
    assert_eq!((dead.delete_of(SinkId(1 << 100)).unwrap(), dead.count()), (1, 1));
}

#[test]
fn free_space_is_what_the_test_says() {
    let disk = MemoryDisk::default();
    let (Opened { journal, .. }, _) = open(&disk);
    disk.set_free_bytes(5);
    assert_eq!(journal.room(5).unwrap(), Room::Enough { free_bytes: Some(5) });
    assert_eq!(journal.room(6).unwrap(), Room::Full { free_bytes: Some(5) });
}

#[test]
fn two_appends_under_way_land_in_order() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, .. }, _) = open(&disk);
    let hand = journal.hand();
    hand.hold(2);
    assert_eq!(journal.under_way_max(), 2);
    for numbers in [1..=2, 3..=3] {
        journal.append(Commit { block: block(numbers), ..Commit::default() }).unwrap();
    }
    assert!(!journal.landed() && disk.end() == Offset(0));
    assert!(journal.append(Commit::default()).is_err(), "two and no more");
    hand.run();
    hand.run();
    assert!(!hand.has_work());
    for (end, held) in [(2, &[1, 2][..]), (3, &[3])] {
        assert!(journal.landed());
        let Landed { receipt, block } = journal.land().unwrap();
        assert_eq!((receipt.end(), receipt.block().map(|block| numbers(block)).as_deref()), (Offset(end), Some(held)));
        assert!(block.is_empty());
    }
    assert_eq!(open(&disk).1.numbers, [1, 2, 3]);
}

#[test]
fn whoever_waits_for_a_commit_that_is_held_lets_it_land() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, .. }, _) = open(&disk);
    journal.hand().hold(1);
    journal.append(Commit { block: block(1..=1), ..Commit::default() }).unwrap();
    assert!(!journal.landed());
    assert_eq!(journal.land().unwrap().receipt.end(), Offset(1));
    assert!(journal.land().is_err(), "nothing is under way");
}

#[test]
fn a_journal_with_another_owner_takes_nothing_more_until_it_is_opened_again() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, dead, .. }, _) = open(&disk);
    journal.commit(&mut block(1..=1), &[]).unwrap();
    disk.fence("gateway B");
    let fenced = JournalError::Fenced { owner: "gateway B".into() };
    assert_eq!(journal.commit(&mut block(2..=2), &[]).unwrap_err(), fenced);
    assert_eq!(journal.failure(), Some(fenced.clone()));
    assert_eq!(journal.append(Commit::default()).unwrap_err(), fenced);
    let error = dead.put(&letter(1, 0)).unwrap_err();
    assert!(error.to_string().contains("another owner now (gateway B)"), "{error}");
    let (Opened { mut journal, .. }, replayed) = open(&disk);
    assert_eq!(replayed.numbers, [1]);
    journal.commit(&mut block(2..=2), &[]).unwrap();
}

#[test]
fn a_journal_that_ends_below_what_has_landed_says_what_is_missing_and_takes_nothing_more() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, .. }, _) = open(&disk);
    journal.commit(&mut block(1..=2), &[]).unwrap();
    journal.commit(&mut block(3..=3), &[]).unwrap();
    disk.lose_from(Offset(2));
    let lost = JournalError::Lost { acked_end: Offset(3), end: Offset(2) };
    assert_eq!(journal.commit(&mut block(4..=4), &[]).unwrap_err(), lost);
    assert!(lost.to_string().contains("held all below 3, and now it ends at 2"), "{lost}");
    assert_eq!(journal.commit(&mut block(4..=4), &[]).unwrap_err(), lost);
    assert_eq!(disk.end(), Offset(2), "nothing is written behind the gap");
}

#[test]
fn a_receipt_tells_how_safe_what_it_covers_is() {
    let disk = MemoryDisk::default();
    let (Opened { mut journal, .. }, _) = open(&disk);
    assert_eq!(journal.durable().level(), DurabilityLevel::Synced);
    disk.set_level(DurabilityLevel::Replicated);
    assert_eq!(journal.commit(&mut block(1..=1), &[]).unwrap().level(), DurabilityLevel::Replicated);
    assert_eq!(journal.durable().level(), DurabilityLevel::Replicated);
}
