//! The hand-off under every interleaving of committer and lane: [`hand_off`] is the product's file, compiled a second time on
//! the atomics of shuttle, which runs one thread at a time and tries all orders of their steps. All of the file's atomics are
//! SeqCst, so these orders are all there are.

use std::collections::VecDeque;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::sync::atomic;
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::{Config, Runner};

#[path = "hand_off.rs"]
#[allow(clippy::duplicate_mod)] // on other atomics
mod hand_off;

use atomic::{AtomicU64, Ordering::SeqCst};
use hand_off::HandOff;

/// A block of one entry.
#[derive(Clone, Copy)]
struct Block {
    first: u64,
    size: u64,
}

/// A bounded channel of which the sender never waits.
struct Channel {
    blocks: Mutex<VecDeque<Block>>,
    not_empty: Condvar,
    blocks_max: usize,
}

impl Channel {
    fn try_send(&self, block: Block) -> bool {
        let mut blocks = self.blocks.lock().unwrap();
        let room = blocks.len() < self.blocks_max;
        if room {
            blocks.push_back(block);
            self.not_empty.notify_one();
        }
        room
    }

    fn try_receive(&self) -> Option<Block> {
        self.blocks.lock().unwrap().pop_front()
    }

    /// As the lane's thread sleeps: what wakes it stays in the channel.
    fn sleep(&self) {
        let mut blocks = self.blocks.lock().unwrap();
        while blocks.is_empty() {
            blocks = self.not_empty.wait(blocks).unwrap();
        }
    }
}

/// What the two threads share.
struct World {
    hand_off: HandOff,
    channel: Channel,
    /// What can be read from the journal.
    durable_end: AtomicU64,
}

impl World {
    fn publish(&self, block: Block) {
        self.durable_end.store(block.first + 1, SeqCst);
        self.hand_off.publish(block.size, block.first + 1, || self.channel.try_send(block));
    }

    /// As `Feed::fill` and the lane's thread do it, until all blocks below `end` are seen. The lane's own sums are checked
    /// on the way.
    fn lane(&self, end: u64) {
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
                self.channel.sleep();
                continue;
            }
            let durable_end = self.durable_end.load(SeqCst);
            assert!(durable_end >= missing_until, "the lane looks for what was never written");
            next = durable_end;
        }
    }
}

/// Publishes blocks of these sizes to a lane. A lane that sleeps for ever is a deadlock, which shuttle reports: the committer
/// is still there, as in a server to which nothing more is sent.
fn run(sizes: &'static [u64], blocks_max: usize, bytes_max: u64) {
    let channel = Channel { blocks: Mutex::new(VecDeque::new()), not_empty: Condvar::new(), blocks_max };
    let hand_off = HandOff::new(0, bytes_max);
    let world = Arc::new(World { hand_off, channel, durable_end: AtomicU64::new(0) });
    let end = sizes.len() as u64;
    let lane = {
        let world = Arc::clone(&world);
        shuttle::thread::spawn(move || world.lane(end))
    };
    for (first, &size) in (0..).zip(sizes) {
        world.publish(Block { first, size });
    }
    lane.join().unwrap();
    // What is left are blocks that it has met in the journal. With them gone no byte is left in the account, or the channel
    // would be narrower for ever.
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

/// All interleavings; their number is returned.
fn all(sizes: &'static [u64], blocks_max: usize, bytes_max: u64) -> usize {
    Runner::new(DfsScheduler::new(None, false), Config::default()).run(move || run(sizes, blocks_max, bytes_max))
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
    let one = || run(&[1, 2, 1, 5, 1, 1], 2, 3);
    Runner::new(RandomScheduler::new_from_seed(0x5eed, 20_000), Config::default()).run(one);
    Runner::new(PctScheduler::new_from_seed(0x5eed, 4, 20_000), Config::default()).run(one);
}
