//! The hand-off under every interleaving of committer and lanes: [`hand_off`] is the product's file, compiled a second time on
//! the atomics and locks of shuttle, which runs one thread at a time and tries all orders of their steps. All of the file's
//! atomics are SeqCst, so these orders are all there are.

use std::sync::Arc;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::sync::mpsc::{self, Receiver, Sender};
use shuttle::sync::{RwLock, atomic};
use shuttle::{Config, Runner};

#[path = "../hand_off.rs"]
#[allow(clippy::duplicate_mod)] // on other atomics
mod hand_off;

use atomic::{AtomicU64, Ordering::SeqCst};
use hand_off::{Filler, Reader};

const SCHEDULES_MAX: usize = 100_000;

/// A block of one entry. Its bytes count as memory until it is dropped; those of a lane's clone are the lane's own.
struct Block {
    first: u64,
    size: u64,
    memory: Option<Arc<std::sync::atomic::AtomicU64>>,
}

impl Clone for Block {
    fn clone(&self) -> Self {
        Self { first: self.first, size: self.size, memory: None }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.memory.take().map(|memory| memory.fetch_sub(self.size, SeqCst));
    }
}

/// A channel with one place on which a lane sleeps, until there is something in it, which stays. Each call is one step of a
/// thread: what std's lock guards is not interrupted.
struct Bell {
    rung: std::sync::Mutex<bool>,
    /// Stands before each call, so that shuttle may switch threads there.
    step: AtomicU64,
    wake: Sender<()>,
    rings: std::sync::atomic::AtomicU64,
}

impl Bell {
    fn new() -> (Arc<Self>, Receiver<()>) {
        let (wake, woken) = mpsc::channel();
        (Arc::new(Self { rung: false.into(), step: AtomicU64::new(0), wake, rings: 0.into() }), woken)
    }

    fn ring(&self) {
        self.step.load(SeqCst);
        self.rings.fetch_add(1, SeqCst);
        if !std::mem::replace(&mut *self.rung.lock().unwrap(), true) {
            // A lane that has seen all is gone.
            self.wake.send(()).ok();
        }
    }

    fn clear(&self) {
        self.step.load(SeqCst);
        *self.rung.lock().unwrap() = false;
    }

    fn sleep(&self, woken: &Receiver<()>) {
        while !*self.rung.lock().unwrap() {
            woken.recv().unwrap();
        }
    }
}

/// What can be read from the journal. It is there before a block is published, which is all that counts: no step of its own.
type Journal = std::sync::atomic::AtomicU64;

/// As `BlockQueue::fill` and the lane's thread do it, until all blocks below `end` are seen. Returns how often it read the
/// journal.
fn lane(mut reader: Reader<Block>, end: u64, journal: &Journal, bell: &Bell, woken: &Receiver<()>) -> u64 {
    let (mut next, mut reads, mut sleeps) = (0, 0, 0);
    while next < end {
        if reader.get_up() {
            bell.clear();
        }
        match reader.take(next) {
            Ok(block) => {
                assert_eq!(block.first, next, "each block once, in its order");
                next += 1;
            }
            Err(published) if published > next => {
                assert!(journal.load(SeqCst) >= published, "the lane looks for what was never written");
                next = published;
                reads += 1;
            }
            Err(_) => {
                sleeps += 1;
                if reader.lie_down(next) {
                    bell.sleep(woken);
                }
            }
        }
        assert!(bell.rings.load(SeqCst) <= sleeps, "a lane is woken once for each sleep, and never while it works");
    }
    reads
}

/// A ring, and what is published through it.
#[derive(Clone, Copy)]
struct Plan {
    /// The blocks have so many bytes, in order.
    sizes: &'static [u64],
    /// So many of them are published before there are lanes.
    before: usize,
    lanes: usize,
    slots: usize,
    bytes_max: u64,
    /// The ring is emptied when all are published.
    empties: bool,
}

impl Plan {
    /// A lane that sleeps forever is a deadlock, which shuttle reports: the committer is still there, as in a server to which
    /// nothing more is sent.
    fn run(self) {
        let mut filler = Filler::new(self.slots, self.bytes_max, 0);
        // A block that is larger than the ring may be in it, alone.
        let bytes_max = self.sizes.iter().copied().fold(self.bytes_max, u64::max);
        let (journal, memory) = (Arc::new(Journal::new(0)), Arc::new(std::sync::atomic::AtomicU64::new(0)));
        let (readers, bells): (Vec<_>, Vec<_>) = (0..self.lanes).map(|_| (filler.reader(), Bell::new())).unzip();
        let (bells, woken): (Vec<_>, Vec<_>) = bells.into_iter().unzip();
        let mut publish = |(first, &size): (u64, &u64)| {
            journal.store(first + 1, SeqCst);
            memory.fetch_add(size, SeqCst);
            let block = Block { first, size, memory: Some(Arc::clone(&memory)) };
            filler.publish(first..first + 1, size, block, |lane| bells[lane].ring());
            let held = memory.load(SeqCst);
            assert!(held <= bytes_max, "{held} bytes are in the ring");
        };
        let mut blocks = (0..).zip(self.sizes);
        blocks.by_ref().take(self.before).for_each(&mut publish);
        let end = self.sizes.len() as u64;
        let lanes: Vec<_> = readers
            .into_iter()
            .zip(&bells)
            .zip(woken)
            .map(|((reader, bell), woken)| {
                let (journal, bell) = (Arc::clone(&journal), Arc::clone(bell));
                shuttle::thread::spawn(move || lane(reader, end, &journal, &bell, &woken))
            })
            .collect();
        blocks.for_each(&mut publish);
        if self.empties {
            filler.empty();
        }
        let reads: u64 = lanes.into_iter().map(|lane| lane.join().unwrap()).sum();
        let has_room = !self.empties && self.slots >= self.sizes.len() && self.bytes_max >= self.sizes.iter().sum();
        assert!(!has_room || reads == 0, "what the ring holds was read from the journal");
        // With nobody inside there is room again: a block that was left out has not made the ring narrower forever.
        publish_last(filler, &memory, self.bytes_max);
    }

    /// All interleavings, if they are fewer than `SCHEDULES_MAX`. Their number is returned.
    fn all(self) -> usize {
        Runner::new(DfsScheduler::new(Some(SCHEDULES_MAX), false), Config::default()).run(move || self.run())
    }
}

/// A block that fills the ring alone is in it, and can be found.
fn publish_last(mut filler: Filler<Block>, memory: &Arc<std::sync::atomic::AtomicU64>, size: u64) {
    let mut reader = filler.reader();
    memory.fetch_add(size, SeqCst);
    let block = Block { first: 1000, size, memory: Some(Arc::clone(memory)) };
    filler.publish(1000..1001, size, block, |_| ());
    assert_eq!(reader.take(1000).map(|block| block.first), Ok(1000));
    assert_eq!(memory.load(SeqCst), size, "and nothing else is");
}

#[test]
fn a_lane_never_sleeps_beside_a_block_and_takes_it_from_the_ring() {
    let schedules = Plan { sizes: &[1], before: 0, lanes: 1, slots: 2, bytes_max: 100, empties: false }.all();
    assert!((100..SCHEDULES_MAX).contains(&schedules), "{schedules}");
}

#[test]
fn a_lane_never_sleeps_beside_a_block_that_pushes_another_out_of_its_slot() {
    let schedules = Plan { sizes: &[1, 1], before: 1, lanes: 1, slots: 1, bytes_max: 100, empties: false }.all();
    assert!(schedules > 100, "{schedules}");
}

#[test]
fn a_lane_never_sleeps_beside_a_block_for_whose_bytes_another_leaves() {
    let schedules = Plan { sizes: &[1, 1], before: 1, lanes: 1, slots: 3, bytes_max: 1, empties: false }.all();
    assert!(schedules > 100, "{schedules}");
}

#[test]
fn a_lane_never_sleeps_beside_a_block_that_leaves_a_ring_which_is_emptied() {
    let schedules = Plan { sizes: &[1], before: 0, lanes: 1, slots: 2, bytes_max: 100, empties: true }.all();
    assert!((100..SCHEDULES_MAX).contains(&schedules), "{schedules}");
}

#[test]
fn of_two_lanes_none_sleeps_beside_a_block() {
    let schedules = Plan { sizes: &[1], before: 0, lanes: 2, slots: 2, bytes_max: 100, empties: false }.all();
    assert!(schedules > 100, "{schedules}");
}

#[test]
fn longer_runs_in_random_orders_come_to_an_end_too() {
    for (slots, bytes_max) in [(2, 3), (3, 100), (6, 11)] {
        let one = move || {
            Plan { sizes: &[1, 2, 1, 5, 1, 1], before: 0, lanes: 2, slots, bytes_max, empties: bytes_max < 100 }.run()
        };
        Runner::new(RandomScheduler::new_from_seed(0x5eed, 10_000), Config::default()).run(one);
        Runner::new(PctScheduler::new_from_seed(0x5eed, 4, 10_000), Config::default()).run(one);
    }
}
