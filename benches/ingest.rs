//! The committer without network and disk: sessions, block, acks. The journal is in memory, and replies are thrown away.
//! Checkpoints come as often as in the server, and are in the time of the commits.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use duragram::commit::{Committer, CommitterConfig, Downstream, Recovery};
use duragram::config::Config;
use duragram::dialect::Arrivals;
use duragram::dialect::duragram::{Admission, AdmissionConfig, AskConfig, Duragram, DuragramConfig};
use duragram::journal::Durable;
use duragram::journal::testing::memory::{MemoryDisk, MemoryJournal};
use duragram::metrics::Metrics;
use duragram::model::{Clock, LaneMark, Offset, SystemClock};
use duragram::net::{Outbox, Slab, Transmit};
use duragram_proto::codec::Datagram;
use prometheus_client::registry::Registry;

use crate::sockets::peer;
use crate::support::{Payload, data, session};

/// Who sends how much for one commit.
struct Load {
    name: &'static str,
    clients: u64,
    /// Datagrams of one client that come one after the other.
    run: u64,
    /// Each client sends so many runs.
    runs: u64,
    /// Each run is sent backwards, its last datagram first.
    reversed: bool,
    payload: Payload,
}

pub(crate) fn benches(c: &mut Criterion) {
    let load = |name, clients, run, runs| {
        let payload = Payload::hundred_bytes();
        Load { name, clients, run, runs, reversed: false, payload }
    };
    let loads = [
        load("1 client x 1", 1, 1, 1),
        load("8 clients x 64, interleaved", 8, 1, 64),
        load("512 clients x 1", 512, 1, 1),
        load("16,384 clients x 1", 16_384, 1, 1),
        load("1 client x 2048", 1, 2048, 1),
        load("16 clients x 1024 in runs of 64", 16, 64, 16),
        Load { reversed: true, ..load("16 clients x 1024 in runs of 64, each reversed", 16, 64, 16) },
        Load { payload: Payload::plain("", 1200), ..load("16 clients x 128 of 1200 B in runs of 64", 16, 64, 2) },
        Load { payload: Payload::batch("", 20, 50), ..load("16 clients x 64 of 20 records of 50 B", 16, 64, 1) },
    ];
    let mut group = c.benchmark_group("committer");
    // Making the datagrams takes longer than what is measured, and is not counted.
    group.measurement_time(Duration::from_millis(400)).sample_size(10);
    for load in &loads {
        group.throughput(Throughput::Elements(load.clients * load.run * load.runs));
        // What both have in common is the first: lookup, rules, the copy into the block.
        for (what, parts) in [("absorb", (true, false)), ("build and ack", (false, true))] {
            let mut rig = Rig::new();
            group.bench_function(format!("{what}, {}", load.name), |b| {
                b.iter_custom(|rounds| rig.rounds(load, rounds, parts));
            });
        }
    }
    let load = load("", 16, 64, 16);
    let mut rig = Rig::new();
    group.throughput(Throughput::Elements(16 * 1024));
    group.bench_function("duplicates, 16 clients x 1024 in runs of 64", |b| {
        b.iter_custom(|rounds| {
            rig.rounds(&load, 1, (true, true));
            let batch = rig.batch(&load, rig.sent - load.run * load.runs);
            (0..rounds).map(|_| rig.step(&batch, (true, true))).sum()
        });
    });
    group.finish();
}

struct Rig {
    committer: Committer<Duragram, MemoryJournal, Nowhere, Done>,
    clock: SystemClock,
    /// Each client has sent so many datagrams.
    sent: u64,
}

impl Rig {
    fn new() -> Self {
        let defaults = Config::default();
        let config = CommitterConfig {
            // No commit before the whole load is absorbed.
            commit_bytes_max: 64 << 20,
            checkpoint_bytes: defaults.checkpoint_bytes,
            checkpoint_interval_us: 1_000_000,
            retain_bytes: 0,
            reserve_bytes: 0,
        };
        let metrics = Metrics::register(&mut Registry::default());
        let dialect = DuragramConfig {
            window: defaults.window,
            sessions_max: 1_000_000,
            session_ttl_s: 3600,
            sealed: false,
            asks: AskConfig::default(),
        };
        let mut recovery = Recovery::new(Duragram::new(dialect, metrics.clone()));
        let opened = MemoryDisk::default().open(&mut |replay| recovery.apply(replay));
        let recovered = recovery.finish(&opened).expect("nothing was replayed");
        let committer = Committer::new(config, recovered, opened.journal, Nowhere, Done::default(), metrics);
        Self { committer, clock: SystemClock::start(), sent: 0 }
    }

    /// The time that the chosen parts of so many commits take: absorbing, and committing.
    fn rounds(&mut self, load: &Load, rounds: u64, parts: (bool, bool)) -> Duration {
        (0..rounds)
            .map(|_| {
                let batch = self.batch(load, self.sent);
                self.sent += load.run * load.runs;
                self.step(&batch, parts)
            })
            .sum()
    }

    fn step(&mut self, arrivals: &Arrivals<Admission>, (absorbing, committing): (bool, bool)) -> Duration {
        let start = Instant::now();
        self.committer.absorb(arrivals, &self.clock).expect("memory does not fail");
        let absorbed = start.elapsed();
        self.committer.commit(&self.clock).expect("memory does not fail");
        match (absorbing, committing) {
            (true, true) => start.elapsed(),
            (true, false) => absorbed,
            (false, _) => start.elapsed() - absorbed,
        }
    }

    /// What comes when every client has sent `sent` before.
    fn batch(&self, load: &Load, sent: u64) -> Arrivals<Admission> {
        let mut arrivals = Arrivals::new(Slab::new(0));
        let mut buffer = [0; 1472];
        arrivals.slab.arrived = self.clock.now();
        for run in 0..load.runs {
            for client in 1..=load.clients {
                for n in 1..=load.run {
                    let place = run * load.run + if load.reversed { load.run + 1 - n } else { n };
                    let span = u16::try_from(place - 1).expect("a load is within the window");
                    let datagram = Datagram::Data(data(session(client), sent + place, span, &load.payload));
                    let port = u16::try_from(client).expect("few clients");
                    let len = datagram.encode(&mut buffer).expect("none here is longer");
                    arrivals.slab.push(peer(port), &buffer[..len]);
                }
            }
        }
        arrivals.admit(&mut Admission::new(AdmissionConfig::plain(1472)));
        arrivals
    }
}

struct Nowhere;

impl Transmit for Nowhere {
    fn transmit(&mut self, _outbox: &Outbox) {}
}

/// Lanes that are always done with everything, so that the journal stays short.
#[derive(Default)]
struct Done(Offset);

impl Downstream for Done {
    fn committed(&mut self, receipt: &Durable) {
        self.0 = receipt.end();
    }

    fn marks(&self) -> Vec<LaneMark> {
        vec![LaneMark { watermark: self.0, sink_state: Vec::new() }]
    }
}
