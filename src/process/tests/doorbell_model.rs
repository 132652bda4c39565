//! The doorbell under every interleaving of lanes and committer: [`doorbell`] is the product's file, compiled a second time on
//! the atomics of shuttle, which runs one thread at a time and tries all orders of their steps. All of the file's atomics are
//! SeqCst, so these orders are all there are.

use std::collections::VecDeque;
use std::sync::Arc;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::sync::atomic;
use shuttle::sync::mpsc::{self, Receiver, Sender};
use shuttle::{Config, Runner};

#[path = "../doorbell.rs"]
#[allow(clippy::duplicate_mod)] // on other atomics
mod doorbell;

use atomic::{AtomicU64, Ordering::SeqCst};
use doorbell::Doorbell;

const SCHEDULES_MAX: usize = 200_000;

/// What lanes and committer share.
struct World {
    bell: Doorbell,
    /// The queue. Each call is one step of a thread: what std's lock guards is not interrupted.
    queue: std::sync::Mutex<VecDeque<u64>>,
    /// Stands before each call of the queue, so that shuttle may switch threads there.
    step: AtomicU64,
    wakes: std::sync::atomic::AtomicUsize,
}

impl World {
    fn post(&self, message: u64, wake: &Sender<()>) {
        self.step.load(SeqCst);
        self.queue.lock().unwrap().push_back(message);
        self.bell.ring(|| {
            self.wakes.fetch_add(1, SeqCst);
            // A committer that has all messages is gone.
            wake.send(()).ok();
        });
    }

    fn receive(&self) -> Option<u64> {
        self.step.load(SeqCst);
        self.queue.lock().unwrap().pop_front()
    }

    /// As the committer's thread does it, until it has so many messages: takes them all, then sleeps until it is woken. Being
    /// woken while it does not sleep ends its next sleep.
    fn committer(&self, messages: usize, woken: &Receiver<()>) -> Vec<u64> {
        let mut taken = Vec::new();
        loop {
            while let Some(message) = self.bell.take(|| self.receive()) {
                taken.push(message);
            }
            if taken.len() == messages {
                return taken;
            }
            // Never woken, it would sleep forever: a deadlock, which shuttle reports, since the lanes are at their end.
            woken.recv().unwrap();
        }
    }
}

/// Lanes that post so many messages each.
fn run(lanes: &[u64]) {
    let world = Arc::new(World {
        bell: Doorbell::new(),
        queue: std::sync::Mutex::default(),
        step: AtomicU64::new(0),
        wakes: 0.into(),
    });
    let (wake, woken) = mpsc::channel();
    let messages = usize::try_from(lanes.iter().sum::<u64>()).unwrap();
    let threads: Vec<_> = (0..)
        .zip(lanes)
        .map(|(lane, &messages)| {
            let (world, wake) = (Arc::clone(&world), wake.clone());
            shuttle::thread::spawn(move || (0..messages).for_each(|n| world.post(lane * 100 + n, &wake)))
        })
        .collect();
    // Kept to the end, as in a server whose lanes have nothing more to say: its end would be a wake-up.
    let taken = world.committer(messages, &woken);
    threads.into_iter().for_each(|lane| lane.join().unwrap());
    drop(wake);
    assert!(world.wakes.load(SeqCst) <= messages);
    for (lane, &messages) in (0..).zip(lanes) {
        let own: Vec<u64> = taken.iter().copied().filter(|message| message / 100 == lane).collect();
        assert_eq!(own, (0..messages).map(|n| lane * 100 + n).collect::<Vec<_>>(), "each once, in its order");
    }
}

/// All interleavings, if they are fewer than `SCHEDULES_MAX`. Their number is returned.
fn all(lanes: &'static [u64]) -> usize {
    Runner::new(DfsScheduler::new(Some(SCHEDULES_MAX), false), Config::default()).run(move || run(lanes))
}

#[test]
fn a_committer_never_sleeps_beside_a_message_of_one_lane() {
    let schedules = all(&[2]);
    assert!((100..SCHEDULES_MAX).contains(&schedules), "{schedules}");
}

#[test]
fn a_committer_never_sleeps_beside_a_message_of_several_lanes() {
    let schedules = all(&[1, 1]);
    assert!(schedules > 100, "{schedules}");
}

#[test]
fn longer_runs_in_random_orders_come_to_an_end_too() {
    let one = || run(&[3, 2, 4]);
    Runner::new(RandomScheduler::new_from_seed(0x5eed, 20_000), Config::default()).run(one);
    Runner::new(PctScheduler::new_from_seed(0x5eed, 4, 20_000), Config::default()).run(one);
}
