//! Datagrams to bytes and back, checksum included.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use duragram_proto::codec::{self, Datagram};

use crate::support::{Payload, ack, data, encoded, session};

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    for payload in Payload::all() {
        let data = Datagram::Data(data(session(1), 100_000, 99, &payload));
        round(&mut group, &format!("DATA, {}", payload.name), &data);
    }
    for (name, bitmap) in [("no bitmap", &[][..]), ("8 B of bitmap", &[0b10; 8]), ("128 B of bitmap", &[0b10; 128])] {
        round(&mut group, &format!("ACK, {name}"), &Datagram::Ack(ack(bitmap)));
    }
    group.finish();
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn round(group: &mut Group<'_>, name: &str, datagram: &Datagram<'_>) {
    let bytes = encoded(datagram);
    let mut buffer = bytes.clone();
    group.bench_function(format!("encode {name}"), |b| b.iter(|| black_box(datagram).encode(&mut buffer)));
    group.bench_function(format!("decode {name}"), |b| b.iter(|| codec::decode(black_box(&bytes)).is_ok()));
}
