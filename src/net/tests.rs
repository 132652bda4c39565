//! Receiving and sending over real sockets on loopback.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::Duration;

use duragram_proto::codec::{self, Ack, Data, Datagram, Durability, Ping};
use duragram_proto::{ClientId, Epoch, Seq};
use nix::sys::socket::{setsockopt, sockopt};
use prometheus_client::registry::Registry;

use super::*;
use crate::limits::GSO_SEGMENTS_MAX;
use crate::metrics::Metrics;
use crate::model::{Clock as _, Local, Peer, SystemClock};

struct Rig {
    receiver: Receiver,
    slab: Slab,
    client: UdpSocket,
    server: UdpSocket,
}

impl Rig {
    fn new() -> Self {
        let mut bound = bind("127.0.0.1:0".parse().unwrap(), 1, 1 << 20).unwrap();
        let server = bound.sockets.pop().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(bound.addr).unwrap();
        socket2::SockRef::from(&client).set_recv_buffer_size(4 << 20).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let receiver = Receiver::new(server.try_clone().unwrap(), 0);
        Self { receiver, slab: Receiver::slab(), client, server }
    }

    fn receive(&mut self) -> Received {
        self.receiver.receive(&mut self.slab, true, &SystemClock::start()).unwrap()
    }

    /// The seqs of the readings that have come.
    fn seqs(&mut self) -> Vec<u64> {
        let mut seqs = Vec::new();
        self.slab.for_each(|raw| match codec::decode(raw.bytes) {
            Ok(Datagram::Data(data)) => {
                assert_eq!(data.payload, data.seq.0.to_le_bytes());
                seqs.push(data.seq.0);
            }
            other => panic!("{other:?}"),
        });
        seqs
    }
}

fn data(seq: u64, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 65_507];
    let data = Data { channel, ..Data::whole(ClientId(1), Epoch::new(1).unwrap(), Seq(seq), 0, payload) };
    let len = data.encode(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// Some datagram, another for each `n`.
fn reply(n: u64) -> Vec<u8> {
    let mut buffer = [0; 100];
    let ping = Ping { client: ClientId(n), epoch: Epoch::new(1).unwrap() };
    let len = ping.encode(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn reading(seq: u64) -> Vec<u8> {
    data(seq, 0, &seq.to_le_bytes())
}

#[test]
fn joined_segments_are_split_also_after_datagrams_that_came_alone() {
    let mut rig = Rig::new();
    let mut seq = 0;
    for round in 0..4 {
        for _ in 0..3 {
            seq += 1;
            rig.client.send(&reading(seq)).unwrap();
        }
        rig.receive();
        assert_eq!(rig.seqs(), (seq - 2..=seq).collect::<Vec<_>>(), "round {round}");

        // One system call, ten datagrams, the last one shorter by nothing: as a sender with GSO does.
        let joined: Vec<u8> = (1..=10).flat_map(|i| reading(seq + i)).collect();
        setsockopt(&rig.client, sockopt::UdpGsoSegment, &40).unwrap();
        rig.client.send(&joined).unwrap();
        setsockopt(&rig.client, sockopt::UdpGsoSegment, &0).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 10 {
            assert!(rig.receive().messages > 0, "round {round}: only {seen:?}");
            seen.extend(rig.seqs());
        }
        assert_eq!(seen, (seq + 1..=seq + 10).collect::<Vec<_>>(), "round {round}");
        seq += 10;
    }
}

#[test]
fn a_receive_returns_empty_handed_when_nothing_comes() {
    let mut rig = Rig::new();
    assert_eq!(rig.receive(), Received::default());
}

#[test]
fn datagrams_that_the_kernel_dropped_are_counted() {
    let mut rig = Rig::new();
    for seq in 1..=20_000 {
        rig.client.send(&reading(seq)).unwrap();
    }
    let mut received = 0;
    let mut dropped = 0;
    loop {
        let got = rig.receive();
        if got.messages == 0 {
            break;
        }
        received += got.messages as u64;
        dropped += u64::from(got.kernel_drops);
    }
    rig.client.send(&reading(20_001)).unwrap();
    dropped += u64::from(rig.receive().kernel_drops);
    assert!(dropped > 0, "the test must overflow the buffer");
    assert_eq!(received + dropped, 20_000);
}

#[test]
fn replies_reach_their_receivers_though_some_cannot_be_sent() {
    let rig = Rig::new();
    let metrics = Metrics::register(&mut Registry::default());
    let mut sender = Sender::new([&rig.server], metrics.clone()).unwrap();
    let mut outbox = Outbox::default();
    let to = Peer::new(rig.client.local_addr().unwrap(), 0);
    let wrong_family = Peer::new("[::1]:9".parse().unwrap(), 0);
    let no_port = Peer::new("127.0.0.1:0".parse().unwrap(), 0);
    let wrong_socket = Peer { socket: 1, ..to };
    for n in 0..1000 {
        let to = match n % 200 {
            7 => wrong_family,
            100..102 => no_port,
            150..153 => wrong_socket,
            _ => to,
        };
        outbox.push(to, 32, &reply(n));
    }
    sender.transmit(&outbox);
    assert_eq!(metrics.reply_errors.get(), 5 * (1 + 2 + 3));
    let mut buffer = [0; 100];
    for n in (0..1000).filter(|n| !matches!(n % 200, 7 | 100..102 | 150..153)) {
        let len = rig.client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], reply(n));
    }
}

#[test]
fn replies_arrive_one_by_one_whatever_their_lengths_and_however_many_have_one_peer() {
    let rig = Rig::new();
    let metrics = Metrics::register(&mut Registry::default());
    let mut sender = Sender::new([&rig.server, &rig.server.try_clone().unwrap()], metrics.clone()).unwrap();
    let clients: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for client in &clients {
        socket2::SockRef::from(client).set_recv_buffer_size(4 << 20).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    // For each client what comes by each of the sockets, in order.
    let mut expected: [[VecDeque<Vec<u8>>; 2]; 3] = Default::default();
    let mut outbox = Outbox::default();
    let mut random = 1_u64;
    let mut below = |n: u64| -> u16 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u16::try_from((random >> 33) % n).unwrap()
    };
    let mut seq = 0;
    while seq < 2_000 {
        let (client, socket, words) = (usize::from(below(3)), below(8) / 7, usize::from(below(3) * below(2)));
        // Some runs are longer than the kernel takes at once.
        for _ in 0..1 + below(3) * below(3) * below(40) {
            seq += 1;
            let ack = Ack {
                client: ClientId(1),
                epoch: Epoch::new(1).unwrap(),
                floor: Seq(seq),
                credit: 1,
                durability: Durability::Synced,
                duplicate: false,
                complete: false,
                ready: false,
                delay_us: 0,
                bitmap: &[7; 128][..words * 8],
            };
            let to = Peer::new(clients[client].local_addr().unwrap(), socket);
            let mut buffer = [0; 200];
            let len = ack.encode(&mut buffer).unwrap();
            outbox.push(to, 500, &buffer[..len]);
            expected[client][usize::from(socket)].push_back(buffer[..len].to_vec());
        }
    }
    let runs = outbox.runs(GSO_SEGMENTS_MAX);
    assert!(runs.map(|run| run.count()).max() == Some(GSO_SEGMENTS_MAX), "the test must have runs that are cut");
    assert_eq!(sender.replies_per_message, GSO_SEGMENTS_MAX);
    for most in [GSO_SEGMENTS_MAX, 1] {
        sender.replies_per_message = most;
        sender.transmit(&outbox);
        assert_eq!(metrics.reply_errors.get(), 0);
        let mut buffer = [0; 65_507];
        for (client, expected) in clients.iter().zip(&expected) {
            let mut expected = expected.clone();
            while expected.iter().any(|replies| !replies.is_empty()) {
                let len = client.recv(&mut buffer).unwrap();
                let next =
                    expected.iter_mut().find(|replies| replies.front().is_some_and(|reply| reply == &buffer[..len]));
                next.expect("a reply in its turn").pop_front();
            }
        }
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let first = bind("127.0.0.1:0".parse().unwrap(), 1, 1 << 20).unwrap();
    assert_eq!(bind(first.addr, 1, 1 << 20).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn several_sockets_share_one_address() {
    let bound = bind("127.0.0.1:0".parse().unwrap(), 3, 1 << 20).unwrap();
    assert_eq!(bound.sockets.len(), 3);
    assert!(bound.sockets.iter().all(|socket| socket.local_addr().unwrap() == bound.addr));
}

/// A server on all addresses, and a client of 127.0.0.2.
fn wildcard() -> Rig {
    let mut rig = Rig::new();
    let server = bind("0.0.0.0:0".parse().unwrap(), 1, 1 << 20).unwrap().sockets.pop().unwrap();
    rig.client.connect(("127.0.0.2", server.local_addr().unwrap().port())).unwrap();
    rig.receiver = Receiver::new(server.try_clone().unwrap(), 0);
    rig.server = server;
    rig
}

fn asked(rig: &mut Rig) -> Vec<Option<Local>> {
    let mut asked = Vec::new();
    rig.slab.for_each(|raw| asked.push(raw.peer.asked));
    asked
}

#[test]
fn where_control_messages_do_not_fit_the_datagram_is_whole_all_the_same_and_room_is_made() {
    let mut rig = wildcard();
    let local = Some(Local { ip: [127, 0, 0, 2].into(), interface: 0 });
    // As if the kernel sent along more than is known here.
    rig.receiver.control_bytes = 1;
    rig.client.send(&reading(1)).unwrap();
    rig.receive();
    assert_eq!((rig.seqs(), asked(&mut rig), rig.slab.cut), (vec![1], vec![None], 0));
    rig.client.send(&reading(2)).unwrap();
    rig.receive();
    assert_eq!((rig.seqs(), asked(&mut rig)), (vec![2], vec![local]));
    // When there is no more room to be had, nothing is joined that could not be told apart.
    rig.receiver.control_bytes = 1;
    for _ in 0..5 {
        rig.receiver.widen(SystemClock::start().now());
    }
    assert_eq!(rig.receiver.control_bytes, crate::limits::RECEIVE_CONTROL_BYTES);
    rig.receiver.control_bytes = 1;
    let joined: Vec<u8> = (3..=12).flat_map(reading).collect();
    setsockopt(&rig.client, sockopt::UdpGsoSegment, &40).unwrap();
    rig.client.send(&joined).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 10 {
        assert!(rig.receive().messages > 0, "only {seen:?}");
        seen.extend(rig.seqs());
    }
    assert_eq!(seen, (3..=12).collect::<Vec<_>>());
}

#[test]
fn a_reply_leaves_from_elsewhere_when_the_address_that_was_asked_is_gone() {
    let rig = wildcard();
    let metrics = Metrics::register(&mut Registry::default());
    let mut sender = Sender::new([&rig.server], metrics.clone()).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut outbox = Outbox::default();
    let ips = [[127, 0, 0, 3], [203, 0, 113, 7], [127, 0, 0, 4]];
    for n in 0..30 {
        let asked = Some(Local { ip: ips[n / 10].into(), interface: 0 });
        let to = Peer { asked, ..Peer::new(client.local_addr().unwrap(), 0) };
        outbox.push(to, 32, &reply(n as u64));
    }
    sender.transmit(&outbox);
    assert_eq!(metrics.reply_errors.get(), 0);
    let mut buffer = [0; 100];
    let mut from = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..30 {
        let (_, address) = client.recv_from(&mut buffer).unwrap();
        *from.entry(address.ip().to_string()).or_default() += 1;
    }
    let expected = [("127.0.0.1", 10), ("127.0.0.3", 10), ("127.0.0.4", 10)];
    assert_eq!(from, expected.map(|(ip, n)| (ip.to_owned(), n)).into());
}
