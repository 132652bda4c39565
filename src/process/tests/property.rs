//! Lanes against a model: whatever handlers answer, whatever fails and whenever the server is killed.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;
use crate::journal::ReadJournal as _;
use crate::journal::testing::memory::MemoryDisk;
use crate::model::{Lane, Offset};

const CLIENTS: u64 = 12;

#[derive(Clone, Debug)]
enum Op {
    /// Commit a block of so many entries and publish it, or not (the lanes hear of it by the next).
    Commit { entries: usize, published: bool },
    /// Let one lane do so many steps.
    Step { lane: usize, steps: usize },
    /// Let so many milliseconds pass.
    Wait { ms: u64 },
    /// Flushes fail from now on, or succeed.
    Flush { fails: bool },
    /// The committer stores the marks.
    Checkpoint,
    /// SIGKILL and a new start, with so many lanes.
    Crash { lanes: u16 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..30usize, any::<bool>()).prop_map(|(entries, published)| Op::Commit { entries, published }),
        8 => (0..3usize, 1..6usize).prop_map(|(lane, steps)| Op::Step { lane, steps }),
        3 => (0..200u64).prop_map(|ms| Op::Wait { ms }),
        1 => any::<bool>().prop_map(|fails| Op::Flush { fails }),
        2 => Just(Op::Checkpoint),
        1 => (1..4u16).prop_map(|lanes| Op::Crash { lanes }),
    ]
}

/// Handlers that fail at random. With `crashes`, a lane may see a record again that it had finished.
fn misbehave(rig: &Rig, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    rig.behave(move |_| match rng.random_range(0..40u32) {
        0 => Does::Retry,
        1 => Does::GiveUp,
        2 => Does::Panic,
        3 => Does::Stop,
        4 => Does::Away,
        _ => Does::Done,
    });
}

struct Model {
    rig: Rig,
    config: LaneConfig,
    lanes: u16,
    now_us: u64,
    /// Finished in any run: done, by the handlers' logs of the runs before this one.
    done_before: BTreeSet<Key>,
    crashed: bool,
}

impl Model {
    fn finished(&self) -> BTreeSet<Key> {
        let letters = self.rig.letters().into_iter().map(|letter| (letter.id.offset.0, letter.id.index));
        self.done_before.iter().copied().chain(self.rig.done()).chain(letters).collect()
    }

    /// No watermark has passed a record that is not finished, and each sink state counts just what lies below its
    /// watermark and did not become a dead letter.
    fn check(&self) {
        let finished = self.finished();
        let dead: BTreeSet<Key> = self.rig.letters().into_iter().map(|l| (l.id.offset.0, l.id.index)).collect();
        let blocks = self.rig.disk.read(Offset(0), usize::MAX).unwrap();
        for (lane, mark) in (0..).map(Lane).zip(self.rig.progress.marks()) {
            let own = blocks
                .iter()
                .flat_map(|block| block.entries())
                .filter(|e| Lane::of(e.meta.session, self.lanes) == lane);
            let below: Vec<Key> = own.take_while(|e| e.offset < mark.watermark).map(|e| (e.offset.0, 0)).collect();
            for key in &below {
                assert!(finished.contains(key), "lane {lane} has passed {key:?}");
            }
            if !self.crashed {
                let count = below.iter().filter(|key| !dead.contains(key)).count() as u64;
                assert_eq!(mark.sink_state, count.to_le_bytes(), "state of lane {lane} at {}", mark.watermark);
            }
        }
    }

    fn apply(&mut self, op: &Op, seed: u64) {
        match op {
            Op::Commit { entries, published } => {
                let clients: Vec<u64> = (0..*entries as u64).map(|n| (n * 7 + seed) % CLIENTS).collect();
                if *published { self.rig.publish(&clients) } else { self.rig.commit_unpublished(&clients) }
            }
            Op::Step { lane, steps } => {
                let lane = lane % usize::from(self.lanes);
                for _ in 0..*steps {
                    let step = self.rig.lanes.workers[lane].step(at(self.now_us));
                    assert!(!matches!(step, LaneStep::Failed(_) | LaneStep::Finished { .. }), "{step:?}");
                }
            }
            Op::Wait { ms } => self.now_us += ms * 1000,
            Op::Flush { fails } => self.rig.log().flush_error = fails.then_some("disk full"),
            // Not trimmed: the model reads the journal from its start.
            Op::Checkpoint => {
                let checkpoint = crate::journal::Checkpoint {
                    at: self.rig.disk.end(),
                    lanes: self.rig.progress.marks(),
                    former: self.rig.progress.former(&self.rig.progress.marks()),
                    ..Default::default()
                };
                crate::journal::Journal::checkpoint(&mut self.rig.journal, &checkpoint).unwrap();
            }
            Op::Crash { lanes } => {
                self.crashed = true;
                self.lanes = *lanes;
                self.done_before = self.finished();
                let disk = self.rig.disk.clone();
                self.rig = Rig::on(disk, self.lanes, self.config);
                misbehave(&self.rig, seed);
            }
        }
    }

    /// Everything works again, and the lanes come to the end.
    fn finish(&mut self) {
        self.rig.log().flush_error = None;
        self.rig.behave(|_| Does::Done);
        // The last block is always published: it tells the lanes that there is more.
        self.rig.publish(&(0..CLIENTS).collect::<Vec<_>>());
        for _ in 0..100 {
            self.now_us += 2_000_000;
            self.rig.settle(self.now_us);
        }
        assert_eq!(self.rig.progress.lowest_watermark(), self.rig.disk.end());
    }
}

proptest! {
    #[test]
    fn every_record_is_finished_in_order_and_no_watermark_passes_one_that_is_not(
        ops in proptest::collection::vec(op(), 1..80),
        lanes in 1..4u16,
        batch_records_max in 1..20usize,
        flush_records_max in 1..40usize,
        seed: u64,
    ) {
        let config = LaneConfig { batch_records_max, flush_records_max, ..config() };
        let rig = Rig::on(MemoryDisk::default(), lanes, config);
        misbehave(&rig, seed);
        let mut model = Model { rig, config, lanes, now_us: 0, done_before: BTreeSet::new(), crashed: false };
        for (op, n) in ops.iter().zip(0..) {
            model.apply(op, seed.wrapping_add(n));
            model.check();
        }
        model.finish();
        model.check();
        let all: BTreeSet<Key> = (0..model.rig.disk.end().0).map(|offset| (offset, 0)).collect();
        prop_assert_eq!(model.finished(), all);

        let log = model.rig.log();
        for lane in (0..model.lanes).map(Lane) {
            let mut newest = None;
            let mut batch: Vec<Key> = Vec::new();
            for (_, call) in log.calls.iter().filter(|(l, _)| *l == lane) {
                prop_assert!(call.is_sorted() && call.len() <= batch_records_max, "{call:?}");
                if call.iter().all(|key| Some(*key) > newest) {
                    newest = call.last().copied();
                    batch.clone_from(call);
                }
                // Once a batch has begun, nothing of an earlier one comes again: all of that was finished.
                prop_assert!(call.iter().all(|key| batch.contains(key)), "{lane}: {call:?} after {batch:?}");
            }
        }
        let mut once: Vec<Key> = log.done.iter().map(|(_, key)| *key).collect();
        let done = once.len();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), done, "within one run nothing is processed twice");
    }
}
