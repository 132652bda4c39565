//! Sockets that someone else has bound and set up, as systemd does.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::common::server::{Home, Server};
use crate::common::wire::{Is, Wire};
use crate::common::{PATIENCE, wait_for};
use crate::host::systemd::start_with_socket;
use crate::net::addresses::both_families;

/// Switches on everything that lets the kernel send something along with a datagram or keep something beside it.
fn switch_everything_on(socket: &UdpSocket) {
    let v6 = socket.local_addr().unwrap().is_ipv6();
    setsockopt(socket, sockopt::ReceiveTimestamp, &true).unwrap();
    setsockopt(socket, sockopt::ReceiveTimestampns, &true).unwrap();
    setsockopt(socket, sockopt::Timestamping, &TimestampingFlag::all()).ok();
    setsockopt(
        socket,
        sockopt::Timestamping,
        &(TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE),
    )
    .unwrap();
    setsockopt(socket, sockopt::RxqOvfl, &1).unwrap();
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true).unwrap();
    setsockopt(socket, sockopt::IpRecvTos, &true).unwrap();
    setsockopt(socket, sockopt::Ipv4RecvTtl, &true).unwrap();
    setsockopt(socket, sockopt::Ipv4OrigDstAddr, &true).unwrap();
    setsockopt(socket, sockopt::Ipv4RecvErr, &true).unwrap();
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
        setsockopt(socket, sockopt::Ipv6RecvTClass, &true).unwrap();
        setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true).unwrap();
        setsockopt(socket, sockopt::Ipv6OrigDstAddr, &true).unwrap();
        setsockopt(socket, sockopt::Ipv6RecvErr, &true).unwrap();
    }
    setsockopt(socket, sockopt::UdpGsoSegment, &100).unwrap();
    socket.set_nonblocking(true).unwrap();
    SockRef::from(socket).set_read_timeout(Some(Duration::from_micros(10))).unwrap();
}

/// Microseconds of processor time that a process has used.
fn cpu_us(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // In hundredths of a second: user, system.
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10_000).sum()
}

fn is_idle(server: &Server) {
    let before = cpu_us(server.pid());
    thread::sleep(Duration::from_secs(1));
    let used = cpu_us(server.pid()) - before;
    assert!(used < 300_000, "{used} us of processor time in a second without any datagram");
}

/// What waits in the socket when the server starts was stamped already; the first kernel drop adds one message more.
fn serves_whatever_is_on(socket: &UdpSocket) {
    let port = socket.local_addr().unwrap().port();
    switch_everything_on(socket);
    let home = Home::with_config("allow_plain = true\n");
    // Too much for the buffer, so that the kernel drops, and counts that with all that follows.
    SockRef::from(socket).set_recv_buffer_size(8_192).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let flood = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..200 {
        flood.send_to(b"not of this protocol, and too much of it for the buffer", to).unwrap();
    }
    let server = start_with_socket(&home, socket).expect("it starts");
    let mut wire = Wire::new(&server, 1);
    wire.server = to;
    for seq in 1..=5 {
        assert_eq!(wire.ask_ack(&wire.data(seq, b"after kernel drops")).floor, seq);
    }
    // Joined by the sender's kernel, and so told apart by what comes along with them.
    let joined: Vec<u8> = (6..=25)
        .flat_map(|seq| {
            crate::common::wire::bytes_of(&duragram_proto::codec::Datagram::Data(wire.data(seq, b"joined")))
        })
        .collect();
    let each = u16::try_from(joined.len() / 20).unwrap();
    wire.send_joined(&joined, each);
    wait_for("the joined ones to be acked", || match wire.reply().is {
        Is::Ack(ack) if ack.floor == 25 => Some(()),
        _ => None,
    });
    assert_eq!(server.metric("duragram_datagrams_total", "\"truncated\""), 0.0);
    assert!(server.metric("duragram_kernel_drops_total", "") > 0.0, "the test must overflow the buffer");
    is_idle(&server);
    assert!(server.terminate().success());
}

#[test]
fn a_socket_with_every_option_on_is_served_also_after_kernel_drops() {
    serves_whatever_is_on(&UdpSocket::bind("0.0.0.0:0").unwrap());
}

#[test]
fn a_socket_of_one_address_with_every_option_on_is_served_too() {
    serves_whatever_is_on(&UdpSocket::bind("127.0.0.1:0").unwrap());
}

#[test]
fn a_socket_of_both_families_with_every_option_on_is_served_too() {
    serves_whatever_is_on(&both_families());
}

/// The descriptor's flags belong to all who have it: systemd, and whoever it starts next.
#[test]
fn a_socket_that_is_made_not_to_wait_while_it_is_served_does_not_make_the_server_spin() {
    let home = Home::with_config("allow_plain = true\n");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = start_with_socket(&home, &socket).unwrap();
    socket.set_nonblocking(true).unwrap();
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
    is_idle(&server);
    assert_eq!(wire.ask_ack(&wire.data(2, b"two")).floor, 2);
}

/// With UDP_CORK the kernel would keep replies until something else pushes them out.
#[test]
fn replies_of_a_corked_socket_are_not_held_back() {
    let home = Home::with_config("allow_plain = true\n");
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let socket: UdpSocket = socket.into();
    let corked = std::process::Command::new("python3")
        .args(["-c", "import socket, os; socket.socket(fileno=os.dup(0)).setsockopt(17, 1, 1)"])
        .stdin(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()))
        .status();
    if !corked.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no python3 here");
        return;
    }
    let server = start_with_socket(&home, &socket).unwrap();
    let wire = Wire::new(&server, 1);
    for seq in 1..=3 {
        assert_eq!(wire.ask_ack(&wire.data(seq, b"one")).floor, seq, "within {PATIENCE:?}");
    }
}
