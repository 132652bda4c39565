//! How fast the sink is beside PostgreSQL's own tool. By hand, since it needs the machine for itself:
//! `cargo test --release --test all sinks::postgres::speed -- --ignored --nocapture`

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use super::server::Cluster;
use super::{Message, PATIENCE, drive, first, records, target, url};

const RECORDS: u64 = 200_000;
const BATCH: usize = 1000;
const ROUNDS: usize = 3;

#[test]
#[ignore = "takes a minute, and the machine for itself"]
fn batches_of_1000_records_of_100_bytes_reach_seven_tenths_of_psqls_copy_of_the_same_batches() {
    let cluster = Cluster::new();
    // Every commit waits for the disk, as in earnest.
    cluster.sql("postgres", "ALTER SYSTEM SET fsync = on");
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let database = cluster.database();
    while cluster.sql(&database, "SHOW fsync") != ["on"] {}
    let message = |offset: u64| {
        let payload = (0..100).map(|i: u64| (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 56)).to_le_bytes()[0]);
        Message { offset, index: 0, channel: 7, payload: payload.collect() }
    };
    let sent: Vec<Message> = (0..RECORDS).map(message).collect();
    let mut handler = first(target(url(&cluster, &database)));
    drive(&mut *handler, &records(&sent[..1]), 1, PATIENCE);
    let files = tempfile::tempdir().unwrap();
    let file = |n: usize| files.path().join(format!("rows.{n}"));
    for (n, batch) in sent.chunks(BATCH).enumerate() {
        let mut text = String::new();
        for message in batch {
            let offset = message.offset;
            write!(text, "00000000-0000-0000-0000-000000000002\t{offset}\t0\t00000000000000a1\t3\t{offset}\t7\t")
                .unwrap();
            text.push_str("2026-01-02 03:04:05.678901+00\t\\\\x");
            message.payload.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
        fs::write(file(n), text).unwrap();
    }
    let batches = sent.len() / BATCH;
    let whole = files.path().join("rows");
    let text: Vec<_> = (0..batches).map(|n| fs::read_to_string(file(n)).unwrap()).collect();
    fs::write(&whole, text.concat()).unwrap();
    let one = format!("\\copy events from '{}'\n", whole.display());
    let many: String = (0..batches).map(|n| format!("\\copy events from '{}'\n", file(n).display())).collect();

    let rate = |seconds: f64| f64::from(u32::try_from(RECORDS).unwrap()) / seconds;
    let (mut ours, mut once, mut batched) = (0f64, 0f64, 0f64);
    for _ in 0..ROUNDS {
        for (commands, best) in [(&one, &mut once), (&many, &mut batched)] {
            cluster.sql(&database, "TRUNCATE events; CHECKPOINT");
            let began = Instant::now();
            cluster.psql(&database, commands);
            *best = best.max(rate(began.elapsed().as_secs_f64()));
        }
        cluster.sql(&database, "TRUNCATE events; TRUNCATE duragram_positions; CHECKPOINT");
        let mut handler = first(target(url(&cluster, &database)));
        drive(&mut *handler, &[], BATCH, PATIENCE);
        let shown = records(&sent);
        let began = Instant::now();
        drive(&mut *handler, &shown, BATCH, PATIENCE);
        ours = ours.max(rate(began.elapsed().as_secs_f64()));
        assert_eq!(cluster.sql(&database, "SELECT count(*) FROM events"), [RECORDS.to_string()]);
    }
    eprintln!(
        "postgres sink {ours:.0} records/s; psql's \\copy {once:.0} in one piece ({:.2}), {batched:.0} in pieces of {BATCH} ({:.2})",
        ours / once,
        ours / batched
    );
    // In one piece psql waits once for the disk, and each batch does.
    assert!(ours >= 0.7 * batched, "{ours:.0} of {batched:.0}");
}
