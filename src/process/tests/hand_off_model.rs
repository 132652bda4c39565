//! The hand-off under every interleaving of committer and lane: [`hand_off`] is the product's file, compiled a second time on
//! the atomics of shuttle, which runs one thread at a time and tries all orders of their steps. All of the file's atomics are
//! SeqCst, so these orders are all there are.

use std::collections::VecDeque;
use std::sync::Arc;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::sync::atomic;
use shuttle::sync::mpsc::{self, Receiver, Sender};
use shuttle::{Config, Runner};

#[path = "../hand_off.rs"]
#[allow(clippy::duplicate_mod)] // on other atomics
mod hand_off;

use atomic::{AtomicU64, Ordering::SeqCst};
use hand_off::HandOff;

const SCHEDULES_MAX: usize = 100_000;

/// A block of one entry.
#[derive(Clone, Copy)]
struct Block {
    first: u64,
    size: u64,
}

/// A bounded channel. Each call is one step of a thread: what std's lock guards is not interrupted.
struct Channel {
    blocks: std::sync::Mutex<VecDeque<Block>>,
    blocks_max: usize,
    /// Stands before each call, so that shuttle may switch threads there.
    step: AtomicU64,
}

impl Channel {
    /// Wakes the lane if there is room.
    fn try_send(&self, block: Block, wake: &Sender<()>) -> bool {
        self.step.load(SeqCst);
        let mut blocks = self.blocks.lock().unwrap();
        let room = blocks.len() < self.blocks_max;
        if room {
            blocks.push_back(block);
        }
        drop(blocks);
        if room {
            // A lane that has seen all is gone.
            wake.send(()).ok();
        }
        room
    }

    fn try_receive(&self) -> Option<Block> {
        self.step.load(SeqCst);
        self.blocks.lock().unwrap().pop_front()
    }

    /// As the lane's thread sleeps: until there is something in the channel, where it stays.
    fn sleep(&self, woken: &Receiver<()>) {
        while self.blocks.lock().unwrap().is_empty() {
            woken.recv().unwrap();
        }
    }
}

/// What the two threads share.
struct World {
    hand_off: HandOff,
    channel: Channel,
    /// What can be read from the journal. It is there before a block is published, which is all that counts: no step of its own.
    durable_end: std::sync::atomic::AtomicU64,
}

impl World {
    fn publish(&self, block: Block, wake: &Sender<()>) {
        self.durable_end.store(block.first + 1, SeqCst);
        self.hand_off.publish(block.size, block.first + 1, || self.channel.try_send(block, wake));
    }

    /// As `BlockQueue::fill` and the lane's thread do it, until all blocks below `end` are seen. The lane's own sums are checked
    /// on the way.
    fn lane(&self, end: u64, woken: &Receiver<()>) {
        let mut next = 0;
        let mut ahead: Option<Block> = None;
        while next < end {
            let take = || self.hand_off.take(|| self.channel.try_receive(), |block| block.size);
            let missing_until = match ahead.take().map_or_else(take, Ok) {
                Ok(block) if block.first < next => continue,
                Ok(block) if block.first == next => {
                    next += 1;
                    continue;
                }
                Ok(block) => {
                    ahead = Some(block);
                    block.first
                }
                Err(unsent_end) => unsent_end,
            };
            if missing_until <= next {
                self.channel.sleep(woken);
                continue;
            }
            let durable_end = self.durable_end.load(SeqCst);
            assert!(durable_end >= missing_until, "the lane looks for what was never written");
            next = durable_end;
        }
    }
}

/// Publishes blocks of these sizes, the first `before` of them before there is a lane. A lane that sleeps forever is a
/// deadlock, which shuttle reports: the committer is still there, as in a server to which nothing more is sent.
fn run(sizes: &[u64], before: usize, blocks_max: usize, bytes_max: u64) {
    let blocks = std::sync::Mutex::default();
    let channel = Channel { blocks, blocks_max, step: AtomicU64::new(0) };
    let hand_off = HandOff::new(0, bytes_max);
    let world = Arc::new(World { hand_off, channel, durable_end: 0.into() });
    let end = sizes.len() as u64;
    let blocks: Vec<_> = (0..).zip(sizes).map(|(first, &size)| Block { first, size }).collect();
    let (wake, woken) = mpsc::channel();
    blocks[..before].iter().for_each(|block| world.publish(*block, &wake));
    let lane = {
        let world = Arc::clone(&world);
        shuttle::thread::spawn(move || world.lane(end, &woken))
    };
    blocks[before..].iter().for_each(|block| world.publish(*block, &wake));
    lane.join().unwrap();
    // What is left are blocks that it has met in the journal. With them gone no byte is left in the account, or the channel
    // would be narrower forever.
    while world.hand_off.take(|| world.channel.try_receive(), |block| block.size).is_ok() {}
    assert!(world.has_room_for(bytes_max));
}

impl World {
    fn has_room_for(&self, size: u64) -> bool {
        let sent = std::cell::Cell::new(0);
        self.hand_off.publish(size, u64::MAX, || {
            sent.set(sent.get() + 1);
            true
        });
        self.hand_off.take(|| Some(()), |_| size).unwrap();
        sent.get() == 1
    }
}

/// Interleavings of a lane with the publishing of the last block, one after the other: all, if they are fewer than `SCHEDULES_MAX`.
/// Their number is returned.
fn all(sizes: &'static [u64], blocks_max: usize, bytes_max: u64) -> usize {
    let scheduler = DfsScheduler::new(Some(SCHEDULES_MAX), false);
    Runner::new(scheduler, Config::default()).run(move || run(sizes, sizes.len() - 1, blocks_max, bytes_max))
}

#[test]
fn a_lane_never_sleeps_beside_a_block_that_had_no_room_in_its_channel() {
    let schedules = all(&[1, 1], 1, 100);
    assert!(schedules > 100, "{schedules}");
}

#[test]
fn a_lane_never_sleeps_beside_a_block_that_was_above_its_channels_bytes() {
    let schedules = all(&[1, 1], 9, 1);
    assert!(schedules > 100, "{schedules}");
}

#[test]
fn longer_runs_in_random_orders_come_to_an_end_too() {
    let one = || run(&[1, 2, 1, 5, 1, 1], 0, 2, 3);
    Runner::new(RandomScheduler::new_from_seed(0x5eed, 20_000), Config::default()).run(one);
    Runner::new(PctScheduler::new_from_seed(0x5eed, 4, 20_000), Config::default()).run(one);
}
