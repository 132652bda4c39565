//! Receiving and acking over loopback. The kernel's part is in it, and loopback's is larger than a network card's: a send
//! includes the delivery to the other socket.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use duragram::cli::load::bulk::{BulkSocket, Burst};
use duragram::dialect::Arrivals;
use duragram::dialect::duragram::{Admission, AdmissionConfig};
use duragram::metrics::Metrics;
use duragram::model::{Peer, SystemClock};
use duragram::net::{Outbox, Receiver, Sender, Transmit, bind};
use duragram_proto::codec::{Datagram, MIN_LEN};
use prometheus_client::registry::Registry;

use crate::support::{Payload, ack, data, encoded, session};

/// Messages of one system call, each of one or more datagrams.
const MESSAGES: usize = 64;

pub(crate) fn peer(port: u16) -> Peer {
    Peer::new((Ipv4Addr::LOCALHOST, port).into(), 0)
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("sockets");
    for (segments, payload) in [
        (1, Payload::hundred_bytes()),
        (64, Payload::hundred_bytes()),
        (32, Payload::plain("1200 B", 1200)),
        (32, Payload::batch("20 records of 50 B", 20, 50)),
    ] {
        let datagrams = MESSAGES * segments;
        group.throughput(Throughput::Elements(datagrams as u64));
        group.bench_function(format!("receive and decode {MESSAGES} messages of {segments} x {}", payload.name), |b| {
            b.iter_custom(|rounds| receive(rounds, segments, &payload));
        });
    }
    for clients in [1, 16, 256] {
        group.throughput(Throughput::Elements(clients as u64));
        group.bench_function(format!("send {clients} acks"), |b| b.iter_custom(|rounds| send_acks(rounds, clients)));
    }
    group.finish();
}

/// The time of so many system calls, each full, and of the decoding.
fn receive(rounds: u64, segments: usize, payload: &Payload) -> Duration {
    let bound = bind((Ipv4Addr::LOCALHOST, 0).into(), 1, 64 << 20).expect("loopback");
    let datagram = encoded(&Datagram::Data(data(session(1), 100_000, 99, payload)));
    let client = BulkSocket::connect(bound.addr, datagram.len(), segments > 1).expect("the kernel knows GSO");
    let mut admission = Admission::new(AdmissionConfig::plain(1472));
    let socket = bound.sockets.into_iter().next().expect("one was asked for");
    let mut receiver = Receiver::new(socket, 0);
    let mut arrivals = Arrivals::new(Receiver::slab());
    let (clock, mut burst) = (SystemClock::start(), Burst::default());
    let mut elapsed = Duration::ZERO;
    for round in 0..=rounds {
        let mut sent = 0;
        while sent < MESSAGES {
            while sent < MESSAGES && !burst.is_full() {
                for _ in 0..segments {
                    burst.space()[..datagram.len()].copy_from_slice(&datagram);
                    burst.push(datagram.len());
                }
                burst.end_message();
                sent += 1;
            }
            assert_eq!(client.send(&mut burst).expect("loopback"), 0);
        }
        let start = Instant::now();
        receiver.receive(&mut arrivals.slab, false, &clock).expect("loopback");
        arrivals.admit(&mut admission);
        // The first touches the slab's pages, which a server does once.
        elapsed += if round == 0 { Duration::ZERO } else { start.elapsed() };
        assert_eq!(arrivals.requests().len(), MESSAGES * segments, "all that was sent is there");
    }
    elapsed
}

/// The time of so many system calls that send an ack to each of `clients` sockets.
fn send_acks(rounds: u64, clients: usize) -> Duration {
    let bound = bind((Ipv4Addr::LOCALHOST, 0).into(), 1, 8 << 20).expect("loopback");
    let mut sender = Sender::new(&bound.sockets, Metrics::register(&mut Registry::default())).expect("a second handle");
    let client = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        Ok::<_, io::Error>(socket)
    };
    let clients: Vec<_> = (0..clients).map(|_| client().expect("loopback")).collect();
    let mut outbox = Outbox::default();
    for socket in &clients {
        outbox.push(
            Peer::new(socket.local_addr().expect("it is bound"), 0),
            MIN_LEN,
            &encoded(&Datagram::Ack(ack(&[]))),
        );
    }
    let mut ack = [0; MIN_LEN];
    let mut elapsed = Duration::ZERO;
    for _ in 0..rounds {
        let start = Instant::now();
        sender.transmit(&outbox);
        elapsed += start.elapsed();
        for socket in &clients {
            assert_eq!(socket.recv(&mut ack).expect("its ack is there"), MIN_LEN);
        }
    }
    elapsed
}
