//! Group commits on a real disk, synced, trimmed close behind as in a server whose lanes keep up. Beside each stands the
//! floor: the same bytes written over a file that is there already, and synced. Disks change their pace from one minute to
//! the next, so only figures of one run compare.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;

use criterion::{Criterion, Throughput};
use duragram::journal::{BlockBuilder, Checkpoint, Journal, Opened, RocksJournal, RocksOptions};
use tempfile::TempDir;

use crate::support::{Payload, meta, session};

/// A server writes a checkpoint after so many bytes by default.
const CHECKPOINT_BYTES: usize = 8 << 20;
/// So much is written first that RocksDB's logs are recycled, as after some minutes of service: three memtables.
const WARM_UP_BYTES: usize = 256 << 20;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    let payload = Payload::hundred_bytes();
    let batch = Payload::batch("20 records of 50 B", 20, 50);
    let long = Payload::plain("1200 B", 1200);
    let cases = [(1, &payload), (64, &payload), (2048, &payload), (16_384, &payload), (2048, &long), (1024, &batch)];
    // Made only when it is asked for.
    let (mut rig, mut floor) = (None, None);
    for (entries, payload) in cases {
        group.throughput(Throughput::Elements(entries));
        group.bench_function(format!("{entries} x {}, synced", payload.name), |b| {
            let rig = rig.get_or_insert_with(Rig::new);
            b.iter(|| rig.commit(entries, payload));
        });
        group.bench_function(format!("floor of {entries} x {}", payload.name), |b| {
            let floor = floor.get_or_insert_with(Floor::new);
            let mut block = BlockBuilder::default();
            (1..=entries).for_each(|seq| block.push(&meta(session(1), seq, payload), &payload.bytes));
            let bytes = vec![7; block.size()];
            b.iter(|| floor.write(&bytes));
        });
    }
    group.finish();
}

fn disk() -> OsString {
    std::env::var_os("DURAGRAM_SPEED_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into())
}

struct Floor {
    file: File,
    at: u64,
}

impl Floor {
    const BYTES: usize = 64 << 20;

    fn new() -> Self {
        let file = tempfile::tempfile_in(disk()).expect("the disk can be written");
        file.write_all_at(&vec![1; Self::BYTES], 0).and_then(|()| file.sync_all()).expect("the disk holds");
        Self { file, at: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() as u64 > Self::BYTES as u64 {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at).and_then(|()| self.file.sync_data()).expect("the disk holds");
        self.at += bytes.len() as u64;
    }
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
        let dir = tempfile::tempdir_in(disk()).expect("the disk can be written");
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
