//! How fast the journal on disk is over seconds of trimming, with the latencies that the median hides, and at recovery.
//! Single group commits are benchmarks (`benches/commit.rs`). Run alone, on an idle machine:
//! `cargo test --release --test journal_speed -- --ignored --nocapture --test-threads 1`
//! `DURAGRAM_SPEED_DIR` chooses the disk.
#![allow(clippy::print_stdout)] // its results

use std::time::{Duration, Instant};

use duragram::journal::{BlockBuilder, Checkpoint, Journal, Opened, Replay, RocksJournal, RocksOptions};
use duragram::model::{DialectId, EntryMeta, SessionId, SessionRecord};
use duragram_proto::{ClientId, Epoch, Seq};

fn temp() -> tempfile::TempDir {
    match std::env::var_os("DURAGRAM_SPEED_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

fn open(dir: &tempfile::TempDir) -> Opened<RocksJournal> {
    RocksJournal::open(&dir.path().join("data"), &RocksOptions::default(), &mut |_| {}).unwrap()
}

fn session() -> SessionId {
    SessionId { client: ClientId(1), epoch: Epoch::new(1).unwrap() }
}

fn fill(block: &mut BlockBuilder, entries: u64, payload: &[u8], seq: &mut u64) {
    for _ in 0..entries {
        *seq += 1;
        let meta = EntryMeta {
            dialect: DialectId::DURAGRAM,
            session: session(),
            seq: Seq(*seq),
            span: 0,
            skip: false,
            batch: false,
            asks: false,
            sealed: false,
            channel: 0,
            received_unix_us: 1,
        };
        block.push(&meta, payload);
    }
}

/// Commits for some seconds, with a checkpoint that trims `lag` bytes behind in steps of 8 MiB.
fn bulk(entries: u64, payload_bytes: usize, trim: bool, seconds: u64) {
    let dir = temp();
    let Opened { mut journal, .. } = open(&dir);
    let (mut block, mut seq, payload) = (BlockBuilder::default(), 0, vec![7; payload_bytes]);
    let record = SessionRecord {
        id: session(),
        floor: Seq(1),
        above: vec![],
        last_active_s: 1,
        hello_nonce: None,
        sealed: false,
    };
    let (mut since_checkpoint, mut commits, mut built) = (0, 0, Duration::ZERO);
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        let before = Instant::now();
        fill(&mut block, entries, &payload, &mut seq);
        since_checkpoint += block.size();
        built += before.elapsed();
        let before = Instant::now();
        journal.commit(&mut block, &[]).unwrap();
        if since_checkpoint > 8 << 20 {
            since_checkpoint = 0;
            let at = journal.end();
            let trim_below = if trim { at } else { Default::default() };
            let sessions = vec![record.clone()];
            journal.checkpoint(&Checkpoint { at, sessions, trim_below, ..Checkpoint::default() }).unwrap();
        }
        latencies.push(before.elapsed());
        commits += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort();
    let total = (entries * commits) as f64;
    eprintln!(
        "{entries} x {payload_bytes} B, trim {trim}: {:.2} million entries/s, {:.0} MB/s, commit p50 {:?} p99 {:?} max {:?}, push {:.0} ns/entry",
        total / seconds / 1e6,
        total * payload_bytes as f64 / seconds / 1e6,
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100],
        latencies.last().unwrap(),
        built.as_nanos() as f64 / total,
    );
}

#[test]
#[ignore = "a measurement"]
fn commits_of_many_entries() {
    for (entries, bytes, trim) in [(2048, 100, true), (2048, 100, false), (2048, 1200, true), (256, 100, true)] {
        bulk(entries, bytes, trim, 5);
    }
}

#[test]
#[ignore = "a measurement"]
fn recovery() {
    for (blocks, entries) in [(5_000, 2048), (20_000, 64)] {
        let dir = temp();
        let mut seq = 0;
        {
            let Opened { mut journal, .. } = open(&dir);
            let mut block = BlockBuilder::default();
            for _ in 0..blocks {
                fill(&mut block, entries, &[7; 100], &mut seq);
                journal.commit(&mut block, &[]).unwrap();
            }
        }
        let start = Instant::now();
        let mut replayed = 0;
        let opened = RocksJournal::open(&dir.path().join("data"), &RocksOptions::default(), &mut |replay| {
            if let Replay::Block(block) = replay {
                replayed += block.entries().count() as u64;
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!((opened.unwrap().end.0, replayed), (seq, seq));
        eprintln!(
            "recovery of {seq} entries in blocks of {entries}: {seconds:.2} s, {:.2} million/s",
            seq as f64 / seconds / 1e6
        );
    }
}
