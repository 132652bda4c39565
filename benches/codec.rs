//! Datagrams to bytes and back, checksum included.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use duragram_proto::Seq;
use duragram_proto::codec::{self, Ack, Datagram, Durability};

use crate::support::{Payload, data, encoded, session};

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    for payload in Payload::all() {
        let data = Datagram::Data(data(session(1), 100_000, 99, &payload));
        round(&mut group, &format!("DATA, {}", payload.name), &data);
    }
    for (name, bitmap) in [("no bitmap", &[][..]), ("8 B of bitmap", &[0b10; 8]), ("128 B of bitmap", &[0b10; 128])] {
        let ack = Datagram::Ack(Ack {
            client: session(1).client,
            epoch: session(1).epoch,
            floor: Seq(100_000),
            credit: 4096,
            durability: Durability::Synced,
            duplicate: false,
            delay_us: 100,
            bitmap,
        });
        round(&mut group, &format!("ACK, {name}"), &ack);
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
