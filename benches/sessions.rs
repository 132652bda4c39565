//! What decides whether a datagram is new: the session's lookup, the rules, the dedup window under them.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use duragram::dialect::duragram::session::{Session, SessionTable};
use duragram_proto::Seq;
use duragram_proto::window::{DedupWindow, Verdict};

use crate::support::session;

/// The server's default, in seqs.
const WINDOW: u16 = 4096;
/// Seqs of one round in the benchmarks that leave holes: a round begins and ends without any.
const ROUND: u64 = 1024;

pub(crate) fn benches(c: &mut Criterion) {
    window(c);
    lookup(c);
}

fn window(c: &mut Criterion) {
    let mut group = c.benchmark_group("window");
    let mut window = DedupWindow::new(Seq::ZERO);
    group.throughput(Throughput::Elements(1));
    group.bench_function("in order", |b| {
        b.iter(|| {
            let seq = window.floor().0 + 1;
            take(&mut window, seq);
        });
    });
    let mut session = Session::new(session(1), Seq::ZERO, None);
    group.bench_function("in order, by the session's rules", |b| {
        b.iter(|| {
            let seq = Seq(session.floor().0 + 1);
            session.receive(seq, seq, false, WINDOW)
        });
    });
    group.bench_function("duplicate below the floor", |b| b.iter(|| window.classify(black_box(Seq(1)), WINDOW)));

    let mut window = DedupWindow::new(Seq::ZERO);
    group.throughput(Throughput::Elements(ROUND));
    group.bench_function("the first of 1024 comes last", |b| {
        b.iter(|| {
            let floor = window.floor().0;
            (2..=ROUND).for_each(|above| take(&mut window, floor + above));
            take(&mut window, floor + 1);
        });
    });
    group.bench_function("1024 in a far order", |b| {
        b.iter(|| {
            let floor = window.floor().0;
            // 421 has no factor in common with 1024: each comes once, and its neighbours far from it.
            (1..=ROUND).for_each(|n| take(&mut window, floor + 1 + n * 421 % ROUND));
        });
    });
    group.bench_function("pairs swapped", |b| {
        b.iter(|| {
            let floor = window.floor().0;
            for n in (1..=ROUND).step_by(2) {
                take(&mut window, floor + n + 1);
                take(&mut window, floor + n);
            }
        });
    });

    let mut window = DedupWindow::new(Seq::ZERO);
    (2..=ROUND).for_each(|seq| take(&mut window, seq));
    group.throughput(Throughput::Elements(1));
    group.bench_function("duplicate above the floor", |b| b.iter(|| window.classify(black_box(Seq(777)), WINDOW)));
    let mut bitmap = [0; 128];
    group.bench_function("128 B of bitmap for an ack", |b| b.iter(|| window.write_bitmap(black_box(&mut bitmap))));
    group.finish();
}

fn take(window: &mut DedupWindow, seq: u64) {
    if window.classify(black_box(Seq(seq)), WINDOW) == Verdict::New {
        window.insert(Seq(seq));
    }
}

/// Each lookup is of another session than the last, in an order that no cache foresees.
fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("session lookup");
    group.throughput(Throughput::Elements(1));
    for sessions in [1_u64, 100, 10_000, 1_000_000] {
        // Made only when it is asked for: a million take a while.
        let mut table = None;
        let mut n = 0_u64;
        group.bench_function(BenchmarkId::from_parameter(sessions), |b| {
            let table = table.get_or_insert_with(|| filled(sessions));
            b.iter(|| {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let index = table.find(session((n >> 33) % sessions)).expect("all are there");
                black_box(table.at(index).floor())
            });
        });
    }
    group.finish();
}

fn filled(sessions: u64) -> SessionTable {
    let mut table = SessionTable::new(usize::MAX);
    for client in 0..sessions {
        table.open(session(client), Seq::ZERO, None).expect("there is room");
    }
    table
}
