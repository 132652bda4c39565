//! Committed blocks through the lanes to the `null` sink. The lanes are driven by hand, one after the other: waking their
//! threads is not in it, and each further lane adds its own walk over every block. And what publishing alone takes the committer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use duragram::journal::testing::memory::{MemoryDisk, MemoryJournal};
use duragram::journal::{BlockBuilder, Opened};
use duragram::metrics::Metrics;
use duragram::model::{Clock, SystemClock};
use duragram::process::{HandlerFactory, LaneConfig, LaneParts, LaneStep, Lanes, Progress};
use duragram::sink;
use prometheus_client::registry::Registry;

use crate::support::{Payload, commit_and_trim, meta, session};

/// Sessions among which the entries of a block are spread.
const SESSIONS: u64 = 64;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    let cases = [
        (1, 1, Payload::hundred_bytes()),
        (1, 2048, Payload::hundred_bytes()),
        (2, 2048, Payload::hundred_bytes()),
        (4, 2048, Payload::hundred_bytes()),
        (1, 1024, Payload::batch("20 records of 50 B", 20, 50)),
    ];
    for (lanes, entries, payload) in &cases {
        group.throughput(Throughput::Elements(*entries));
        let mut rig = Rig::new(*lanes);
        group.bench_function(format!("{lanes} lanes, {entries} x {}", payload.name), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| rig.round(*entries, payload)).sum());
        });
    }
    group.finish();

    let mut group = c.benchmark_group("publish");
    for lanes in [1, 8, 64] {
        let mut rig = Rig::new(lanes);
        group.bench_function(format!("to {lanes} lanes that stand still"), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| rig.publish(1, &Payload::hundred_bytes()).1).sum());
        });
    }
    group.finish();
}

struct Rig {
    journal: MemoryJournal,
    block: BlockBuilder,
    lanes: Lanes,
    clock: SystemClock,
    seq: u64,
}

impl Rig {
    fn new(lanes: u16) -> Self {
        let disk = MemoryDisk::default();
        let Opened { journal, dead, lanes: marks, former, end, .. } = disk.open(&mut |_| ());
        let metrics = Metrics::register(&mut Registry::default());
        let parts = LaneParts {
            progress: Progress::resume(end, &marks, former, lanes, &metrics),
            journal: Arc::new(disk),
            dead,
            metrics,
            config: LaneConfig::default(),
            seed: 1,
        };
        let null = "null".parse().unwrap();
        let mut factory: HandlerFactory = Box::new(move |start| sink::handler(&null, start));
        let lanes = Lanes::build(&parts, &mut factory).expect("nothing is opened");
        Self { journal, block: BlockBuilder::default(), lanes, clock: SystemClock::start(), seq: 0 }
    }

    /// The time from a committed block to its entries being processed by all lanes.
    fn round(&mut self, entries: u64, payload: &Payload) -> Duration {
        let (start, _) = self.publish(entries, payload);
        for worker in &mut self.lanes.workers {
            while matches!(worker.step(self.clock.now()), LaneStep::Worked) {}
        }
        start.elapsed()
    }

    /// Commits a block and publishes it: when that began, and what it took the committer.
    fn publish(&mut self, entries: u64, payload: &Payload) -> (Instant, Duration) {
        for _ in 0..entries {
            self.seq += 1;
            self.block.push(&meta(session(self.seq % SESSIONS), self.seq, payload), &payload.bytes);
        }
        let block = commit_and_trim(&mut self.journal, &mut self.block);
        let start = Instant::now();
        self.lanes.fanout.publish(&block);
        (start, start.elapsed())
    }
}
