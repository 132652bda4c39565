//! Building a block, which ends with verifying it, and parsing it as a reader does.

use criterion::{BatchSize, Criterion, Throughput};
use duragram::journal::testing::memory::MemoryDisk;
use duragram::journal::{Block, BlockBuilder};

use crate::support::{Payload, commit_and_trim, meta, session};

const SIZES: [u64; 4] = [1, 256, 2048, 16_384];

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("block");
    let payload = Payload::hundred_bytes();
    let mut block = BlockBuilder::default();
    let mut journal = MemoryDisk::default().open(&mut |_| ()).journal;
    for entries in SIZES {
        group.throughput(Throughput::Elements(entries));
        group.bench_function(format!("collect {entries} x 100 B"), |b| {
            b.iter(|| {
                block.clear();
                collect(&mut block, entries, &payload);
                block.len()
            });
        });
        block.clear();
        // Collecting is in it, since a commit empties the builder.
        group.bench_function(format!("collect, build and drop {entries} x 100 B"), |b| {
            b.iter(|| {
                collect(&mut block, entries, &payload);
                commit_and_trim(&mut journal, &mut block).size()
            });
        });
        let bytes = built(entries, &payload);
        group.bench_function(format!("parse {entries} x 100 B"), |b| {
            b.iter_batched(|| bytes.clone(), |bytes| Block::parse(bytes).is_ok(), BatchSize::LargeInput);
        });
    }
    let payload = Payload::batch("", 20, 50);
    group.throughput(Throughput::Elements(1024));
    group.bench_function("collect, build and drop 1024 x 20 records of 50 B", |b| {
        b.iter(|| {
            collect(&mut block, 1024, &payload);
            commit_and_trim(&mut journal, &mut block).size()
        });
    });
    group.finish();
}

fn collect(block: &mut BlockBuilder, entries: u64, payload: &Payload) {
    for seq in 1..=entries {
        block.push(&meta(session(1), seq, payload), &payload.bytes);
    }
}

fn built(entries: u64, payload: &Payload) -> Vec<u8> {
    let mut block = BlockBuilder::default();
    collect(&mut block, entries, payload);
    let mut journal = MemoryDisk::default().open(&mut |_| ()).journal;
    commit_and_trim(&mut journal, &mut block).bytes().to_vec()
}
