//! Group commits on a real disk, synced, trimmed close behind as in a server whose lanes keep up.

use criterion::{Criterion, Throughput};
use duragram::journal::{BlockBuilder, Checkpoint, Journal, Opened, RocksJournal, RocksOptions};
use tempfile::TempDir;

use crate::support::{Payload, meta, session};

/// The server's default.
const CHECKPOINT_BYTES: usize = 8 << 20;
/// So much is written first that RocksDB's logs are recycled, as after some minutes of service: three memtables.
const WARM_UP_BYTES: usize = 256 << 20;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    let payload = Payload::hundred_bytes();
    // Made only when it is asked for.
    let mut rig = None;
    for entries in [1, 64, 2048, 16_384] {
        group.throughput(Throughput::Elements(entries));
        group.bench_function(format!("{entries} x 100 B, synced"), |b| {
            let rig = rig.get_or_insert_with(Rig::new);
            b.iter(|| rig.commit(entries, &payload));
        });
    }
    for (entries, payload) in [(2048, Payload::plain("1200 B", 1200)), (1024, Payload::batch("20 x 50 B", 20, 50))] {
        group.throughput(Throughput::Elements(entries));
        group.bench_function(format!("{entries} x {}, synced", payload.name), |b| {
            let rig = rig.get_or_insert_with(Rig::new);
            b.iter(|| rig.commit(entries, &payload));
        });
    }
    group.finish();
}

struct Rig {
    journal: RocksJournal,
    block: BlockBuilder,
    seq: u64,
    since_checkpoint: usize,
    _dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let disk = std::env::var_os("DURAGRAM_SPEED_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
        let dir = tempfile::tempdir_in(disk).expect("the disk can be written");
        let opened = RocksJournal::open(&dir.path().join("data"), &RocksOptions::default(), &mut |_| ());
        let Opened { journal, .. } = opened.expect("a new journal opens");
        let mut rig = Self { journal, block: BlockBuilder::default(), seq: 0, since_checkpoint: 0, _dir: dir };
        if !std::env::args().any(|argument| argument == "--test") {
            let payload = Payload::plain("", 1000);
            for _ in 0..WARM_UP_BYTES / 1_000_000 {
                rig.commit(1000, &payload);
            }
        }
        rig
    }

    fn commit(&mut self, entries: u64, payload: &Payload) {
        for _ in 0..entries {
            self.seq += 1;
            self.block.push(&meta(session(1), self.seq, payload), &payload.bytes);
        }
        self.since_checkpoint += self.block.size();
        self.journal.commit(&mut self.block, &[]).expect("the disk holds");
        if self.since_checkpoint >= CHECKPOINT_BYTES {
            self.since_checkpoint = 0;
            let at = self.journal.end();
            self.journal
                .checkpoint(&Checkpoint { at, trim_below: at, ..Checkpoint::default() })
                .expect("the disk holds");
        }
    }
}
