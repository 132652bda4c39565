//! Tests of the newest blocks in memory: who shares them, what leaves, who is woken.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::super::hand_off::{Filler, Reader};
use super::super::recent::RecentBlocks;
use super::*;
use crate::limits;

/// Publishes a block of ten entries that counts so many bytes; returns it.
fn publish(filler: &mut Filler<Arc<u64>>, number: u64, bytes: u64) -> Arc<u64> {
    let block = Arc::new(number);
    filler.publish(span(number), bytes, Arc::clone(&block), |_| ());
    block
}

fn span(number: u64) -> Range<u64> {
    number * 10..number * 10 + 10
}

fn found(reader: &mut Reader<Arc<u64>>, number: u64) -> bool {
    let span = span(number);
    span.into_iter().all(|at| reader.take(at).is_ok_and(|block| *block == number))
}

#[test]
fn all_lanes_share_one_copy_of_a_block_however_slow_they_are() {
    let mut filler = Filler::new(4, 100, 0);
    let mut readers: Vec<_> = (0..10).map(|_| filler.reader()).collect();
    let blocks: Vec<_> = (0..4).map(|number| publish(&mut filler, number, 10)).collect();
    assert!(blocks.iter().all(|block| Arc::strong_count(block) == 2), "the ring holds each once");
    for reader in &mut readers {
        let mut taken = (0..4).map(|number| reader.take(number * 10).unwrap());
        assert!(blocks.iter().all(|block| Arc::ptr_eq(block, &taken.next().unwrap())));
    }
}

#[test]
fn the_oldest_blocks_leave_for_want_of_slots_whoever_has_not_read_them() {
    let mut filler = Filler::new(4, 100, 0);
    let mut reader = filler.reader();
    let blocks: Vec<_> = (0..11).map(|number| publish(&mut filler, number, 1)).collect();
    for (number, block) in (0..).zip(&blocks) {
        assert_eq!(found(&mut reader, number), number >= 7, "{number}");
        assert_eq!(Arc::strong_count(block), if number >= 7 { 2 } else { 1 });
    }
    assert_eq!(reader.take(0), Err(110), "what is not there is to be read from the journal, up to the newest block");
    assert_eq!(reader.take(110), Err(110), "and above there is nothing");
}

#[test]
fn a_ring_that_is_emptied_holds_no_block_and_takes_the_next_ones() {
    let mut filler = Filler::new(4, 100, 0);
    let mut reader = filler.reader();
    let blocks: Vec<_> = (0..7).map(|number| publish(&mut filler, number, 25)).collect();
    filler.empty();
    assert!(blocks.iter().all(|block| Arc::strong_count(block) == 1));
    assert_eq!(reader.take(69), Err(70), "it is in the journal");
    (7..11).for_each(|number| drop(publish(&mut filler, number, 25)));
    assert!((7..11).all(|number| found(&mut reader, number)));
}

#[test]
fn the_oldest_blocks_leave_for_want_of_bytes() {
    let mut filler = Filler::new(100, 10, 0);
    let mut reader = filler.reader();
    (0..3).for_each(|number| drop(publish(&mut filler, number, 4)));
    assert_eq!([0, 1, 2].map(|number| found(&mut reader, number)), [false, true, true]);
    publish(&mut filler, 3, 9);
    assert_eq!([1, 2, 3].map(|number| found(&mut reader, number)), [false, false, true]);
    publish(&mut filler, 4, 50);
    assert_eq!([3, 4].map(|number| found(&mut reader, number)), [false, true], "one block always has room, alone");
    publish(&mut filler, 5, 1);
    assert_eq!([4, 5].map(|number| found(&mut reader, number)), [false, true]);
}

#[test]
fn a_lane_finds_its_block_in_a_ring_with_holes_wherever_it_was_before() {
    let mut filler = Filler::new(8, 100, 0);
    let mut reader = filler.reader();
    let published = |number: &u64| number % 3 != 1;
    (0..60).filter(published).for_each(|number| drop(publish(&mut filler, number, 1)));
    let newest: Vec<_> = (0..60).filter(published).rev().take(8).collect();
    for step in 1..60 {
        let number = step * 7 % 60;
        assert_eq!(found(&mut reader, number), newest.contains(&number), "{number}");
    }
}

#[test]
fn what_was_durable_at_the_start_is_in_the_journal_alone() {
    let mut filler = Filler::new(4, 100, 20);
    let mut reader = filler.reader();
    assert_eq!((reader.take(7), reader.take(20)), (Err(20), Err(20)));
    publish(&mut filler, 2, 1);
    assert_eq!(reader.take(19), Err(30));
    assert!(found(&mut reader, 2));
}

/// A block in whose clone, so in the midst of a lane's look into its slot, something happens once.
struct Slow(Rc<Happens>);

type Happens = RefCell<Option<Box<dyn FnOnce()>>>;

impl Clone for Slow {
    fn clone(&self) -> Self {
        let happens = self.0.borrow_mut().take();
        happens.into_iter().for_each(|happens| happens());
        Self(Rc::clone(&self.0))
    }
}

#[test]
fn a_lane_that_is_held_up_in_a_slot_holds_up_neither_the_committer_nor_other_lanes() {
    let happens = Rc::new(Happens::default());
    let filler = Rc::new(RefCell::new(Filler::new(1, 100, 0)));
    let mut slow = filler.borrow_mut().reader();
    let mut other = filler.borrow_mut().reader();
    let block = || Slow(Rc::clone(&happens));
    filler.borrow_mut().publish(0..1, 1, block(), |_| ());
    let seen = Rc::new(Cell::new(false));
    let (filler_, seen_, newer) = (Rc::clone(&filler), Rc::clone(&seen), block());
    *happens.borrow_mut() = Some(Box::new(move || {
        assert!(other.take(0).is_ok(), "they are in the slot together");
        filler_.borrow_mut().publish(1..2, 1, newer, |_| ());
        assert_eq!(other.take(1).err(), Some(2), "a block without a slot is to be read from the journal");
        seen_.set(true);
    }));
    assert!(slow.take(0).is_ok());
    assert!(seen.get());
    assert!(slow.take(0).is_ok(), "what could not be taken out is still there");
    filler.borrow_mut().publish(2..3, 1, block(), |_| ());
    assert_eq!((slow.take(0).err(), slow.take(2).err()), (Some(3), None), "the next block has room again");
}

/// Blocks of a record each.
fn blocks(count: usize) -> Vec<Arc<crate::journal::Block>> {
    let mut rig = Rig::new(1);
    (0..count).for_each(|_| rig.commit_unpublished(&[1]));
    rig.disk.read(Offset(0), usize::MAX).unwrap()
}

#[test]
fn a_lane_that_sleeps_is_woken_once_and_one_at_work_never() {
    let blocks = blocks(5);
    let mut recent = RecentBlocks::new(Offset(0));
    let (mut sleeper, worker) = (recent.reader(), recent.reader());
    let is_woken = |reader: &super::super::recent::RecentReader| !reader.channel().unwrap().is_empty();
    assert!(sleeper.lie_down(Offset(0)));
    assert!(!is_woken(&sleeper));
    recent.publish(&blocks[0]);
    assert!(is_woken(&sleeper));
    sleeper.channel().unwrap().recv().unwrap();
    recent.publish(&blocks[1]);
    assert!(!is_woken(&sleeper), "it was woken, and has not yet got up");
    assert_eq!(sleeper.take(Offset(0)).unwrap().first(), Offset(0));
    recent.publish(&blocks[2]);
    assert!(!is_woken(&sleeper), "it is at work");
    assert!(!sleeper.lie_down(Offset(2)), "there is a block already");
    assert_eq!(sleeper.take(Offset(2)).unwrap().first(), Offset(2));
    assert!(sleeper.lie_down(Offset(3)));
    recent.publish(&blocks[3]);
    assert!(is_woken(&sleeper));
    sleeper.take(Offset(3)).unwrap();
    assert!(!is_woken(&sleeper), "what woke it does not wake it again");
    assert!(!is_woken(&worker));
}

#[test]
fn a_lane_whose_committer_is_gone_takes_what_is_left_and_then_waits_for_no_block() {
    let blocks = blocks(1);
    let mut recent = RecentBlocks::new(Offset(0));
    let mut reader = recent.reader();
    assert!(reader.lie_down(Offset(0)));
    recent.publish(&blocks[0]);
    drop(recent);
    assert_eq!(reader.take(Offset(0)).unwrap().first(), Offset(0));
    assert!(reader.lie_down(Offset(1)));
    reader.channel().unwrap().recv().unwrap_err();
    assert_eq!(reader.take(Offset(1)).err(), Some(Offset(1)));
    assert!(reader.channel().is_none());
}

#[test]
fn lanes_that_keep_up_never_read_the_journal_and_a_slow_one_beside_them_does() {
    let mut rig = Rig::new(3);
    let blocks = limits::RECENT_BLOCKS as u64 + 50;
    for _ in 0..blocks {
        rig.publish(&[1, 2, 3, 4]);
        for worker in &mut rig.lanes.workers[1..] {
            while matches!(worker.step(at(0)), LaneStep::Worked) {}
        }
    }
    assert_eq!(rig.metrics.lane_journal_reads.get(), 0);
    rig.settle(0);
    assert_eq!(rig.metrics.lane_journal_reads.get(), 1);
    let mut done = rig.done();
    done.sort_unstable();
    assert_eq!(done, keys(0..blocks * 4));
}
