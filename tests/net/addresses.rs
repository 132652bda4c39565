//! Which address the server answers from, where it can be asked at several.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::Duration;

use duragram_proto::codec::{self, Data, Datagram, Hello, Ping, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::PATIENCE;
use crate::common::server::{Home, Server, duragram};
use crate::common::wire::{Is, Reply, Wire, bytes_of};
use crate::faults::layer::{Action, Layer, Rule, calls};
use crate::host::systemd::start_with_socket;

/// Any address of this machine on `port`.
fn local(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

/// A server on all addresses.
fn serve(home: &Home, listen: &str) -> Server {
    Server::try_start(home, command(home, listen)).expect("it starts")
}

fn command(home: &Home, listen: &str) -> Command {
    let mut command = duragram();
    command.args(["serve", "--allow-plain", "--listen", listen, "--admin", "127.0.0.1:0", "--sink", "null"]);
    command.arg("--data").arg(home.data());
    command
}

/// Every reply of the protocol, from an address that none but `to` may answer for.
fn every_reply_comes_from(to: SocketAddr, server: &Server, client: u64) {
    let mut wire = Wire::new(server, client);
    wire.server = to;
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1, "a duplicate");
    assert_eq!(wire.ask_reject(&Data { span: 0, ..wire.data(60_000, b"far") }).code, RejectCode::StaleEpoch);
    assert!(matches!(wire.hello(client).is, Is::Welcome(_)));
    assert_eq!(wire.ping().floor, 1);
    wire.epoch = Epoch::new(77).unwrap();
    assert_eq!(wire.ping().floor, 0, "of a session that is not there");
}

#[test]
fn on_a_wildcard_socket_every_reply_comes_from_the_address_that_was_asked() {
    for (threading, receivers) in [("single", "1"), ("single", "2"), ("pipeline", "1"), ("pipeline", "3")] {
        let home = Home::new();
        let mut command = command(&home, "0.0.0.0:0");
        command.env("DURAGRAM_THREADING", threading).env("DURAGRAM_RECEIVERS", receivers);
        let server = Server::try_start(&home, command).expect("it starts");
        for last in 1..=20 {
            every_reply_comes_from(local(last, server.udp.port()), &server, last.into());
        }
        assert_eq!(server.metric("duragram_reply_errors_total", ""), 0.0);
    }
}

/// One socket asks many addresses in many clients' names, so that acks of one commit go to one peer from several addresses,
/// those of one address joined (GSO).
#[test]
fn acks_that_are_owed_for_one_commit_leave_from_the_addresses_that_were_asked() {
    let home = Home::new();
    let layer = Layer::over(&home.disk());
    let mut command = command(&home, "0.0.0.0:0");
    layer.under(&mut command);
    let server = Server::try_start(&home, command).expect("it starts");
    let socket = UdpSocket::bind(local(1, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for round in 0..3u64 {
        // All that follows the first waits for one commit.
        layer.set(0, Rule::nth(calls::SYNC, ".log", 1, Action::Delay(Duration::from_millis(300))));
        let mut asked = HashMap::new();
        for n in 0..240u64 {
            let client = ClientId(1 + n);
            let to = local(u8::try_from(2 + n / 3 % 5).unwrap(), server.udp.port());
            asked.insert(client, to);
            let data = Data::whole(client, Epoch::new(1).unwrap(), Seq(1 + round), 0, b"owed");
            let data = Data { span: u16::try_from(round).unwrap(), ..data };
            socket.send_to(&bytes_of(&Datagram::Data(data)), to).unwrap();
        }
        let mut buffer = [0; 2048];
        for _ in 0..240 {
            let (len, from) = socket.recv_from(&mut buffer).expect("an ack in time");
            let Is::Ack(ack) = Reply::parse(&buffer[..len]).is else { panic!("not an ACK") };
            assert_eq!((ack.floor, Some(from)), (1 + round, asked.remove(&ack.client)));
        }
    }
    assert_eq!(server.metric("duragram_reply_errors_total", ""), 0.0);
}

#[test]
fn a_socket_of_both_families_answers_ipv4_from_the_address_that_was_asked_and_shows_it_as_ipv4() {
    let home = Home::with_config("allow_plain = true\n[log]\nlevel = \"debug\"\n");
    let socket = both_families();
    let server = start_with_socket(&home, &socket).expect("it starts");
    let port = socket.local_addr().unwrap().port();
    for last in 1..=9 {
        every_reply_comes_from(local(last, port), &server, last.into());
    }
    let log = server.log();
    assert!(log.contains("peer=127.0.0.1:"), "{log}");
    assert!(!log.contains("::ffff:"), "{log}");
}

/// As a dual-stack socket of systemd (`BindIPv6Only=both`).
pub(crate) fn both_families() -> UdpSocket {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.into()
}

#[test]
fn a_loopback_address_within_ipv6_is_a_loopback_address() {
    let home = Home::new();
    let mut command = duragram();
    command.args(["serve", "--listen", "[::ffff:127.0.0.1]:0", "--admin", "127.0.0.1:0", "--sink", "null"]);
    command.arg("--data").arg(home.data());
    let server = Server::try_start(&home, command).expect("it starts without keys, as only this machine reaches it");
    assert_eq!(server.udp.ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
}

/// Runs the calling test once more, in a network of its own with more addresses; false when this machine does not let it.
pub(crate) fn in_a_network_of_its_own(test: &str) -> bool {
    const INSIDE: &str = "TEST_IN_ITS_OWN_NETWORK";
    if std::env::var_os(INSIDE).is_some() {
        // The other end of the link is in a network that nobody is in.
        let setting_up = "ip link set lo up && ip -6 addr add fd00::1/128 dev lo && ip -6 addr add fd00::2/128 dev lo && \
                          ip link add left type veth peer name right || exit; \
                          unshare -n sleep 60 </dev/null >/dev/null 2>&1 & \
                          until ip link set right netns $! 2>/dev/null && ! ip link show right 2>/dev/null; do sleep 0.05; done; \
                          nsenter -t $! -n ip link set right up && \
                          for n in 1 2; do ip -6 addr add fe80::$n/64 dev left nodad && \
                          ip addr add 169.254.7.$n/16 dev left || exit; done; ip link set left up";
        let done = Command::new("sh").args(["-c", setting_up]).status().expect("a shell");
        assert!(done.success());
        return true;
    }
    if !Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).status().is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED: no network namespaces here");
        return false;
    }
    let mut again = Command::new("unshare");
    again.arg("-rn").arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = again.output().expect("unshare");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    false
}

/// Sends from one address to another, and waits for a reply, which must come from there.
fn ask(from: SocketAddr, to: SocketAddr, datagram: &Datagram<'_>) -> Reply {
    let (reply, answered) = exchange(from, to, datagram);
    assert_eq!((answered.ip(), answered.port()), (to.ip(), to.port()), "{from} asks {to}");
    reply
}

/// Sends from one address to another, and waits for a reply and the address that it comes from.
fn exchange(from: SocketAddr, to: SocketAddr, datagram: &Datagram<'_>) -> (Reply, SocketAddr) {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(&bytes_of(datagram), to).unwrap();
    let mut buffer = [0; codec::DATAGRAM_LEN_MAX];
    let (len, answered) = socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{from} asks {to}: {error}"));
    (Reply::parse(&buffer[..len]), answered)
}

#[test]
fn ipv6_and_addresses_of_the_link_are_answered_from_the_address_that_was_asked() {
    if !in_a_network_of_its_own(
        "net::addresses::ipv6_and_addresses_of_the_link_are_answered_from_the_address_that_was_asked",
    ) {
        return;
    }
    let left = std::fs::read_to_string("/sys/class/net/left/ifindex").unwrap_or_default();
    // In another network namespace /sys may be that of the first; `ip` tells.
    let left: u32 = match left.trim().parse() {
        Ok(index) => index,
        Err(_) => {
            let output = Command::new("sh").args(["-c", "ip -o link show left | cut -d: -f1"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
        }
    };
    let both = Home::with_config("allow_plain = true\n");
    let socket = both_families();
    let servers = [
        (serve(&Home::new(), "[::]:0"), true, false),
        (serve(&Home::new(), "0.0.0.0:0"), false, true),
        (start_with_socket(&both, &socket).unwrap(), true, true),
    ];
    for (server, v6, v4) in &servers {
        let port = server.udp.port();
        let ip = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
        let link = |text: &str, port| SocketAddr::V6(SocketAddrV6::new(text.parse().unwrap(), port, 0, left));
        let mut pairs = Vec::new();
        if *v6 {
            pairs.extend([(ip("::1", 0), ip("fd00::1", port)), (ip("fd00::1", 0), ip("fd00::2", port))]);
            pairs.extend([(ip("fd00::2", 0), ip("fd00::1", port)), (ip("fd00::1", 0), ip("::1", port))]);
            pairs.extend([(link("fe80::1", 0), link("fe80::2", port)), (link("fe80::2", 0), link("fe80::1", port))]);
            pairs.push((link("fe80::1", 0), link("fe80::1", port)));
        }
        if *v4 {
            pairs
                .extend([(ip("169.254.7.1", 0), ip("169.254.7.2", port)), (ip("127.0.0.1", 0), ip("127.0.0.2", port))]);
        }
        for (n, (from, to)) in (1..).zip(pairs) {
            let (client, epoch) = (ClientId(n), Epoch::new(1).unwrap());
            let reply = ask(from, to, &Datagram::Data(Data::whole(client, epoch, Seq(1), 0, b"one")));
            assert!(matches!(reply.is, Is::Ack(ack) if ack.floor == 1));
            assert!(matches!(ask(from, to, &Datagram::Hello(Hello { client, nonce: 5 })).is, Is::Welcome(_)));
            let epoch = Epoch::new(9).unwrap();
            assert!(matches!(ask(from, to, &Datagram::Ping(Ping { client, epoch })).is, Is::Ack(_)));
        }
        // Groups of machines: each answers from an address of its own.
        let mut groups = Vec::new();
        if *v6 {
            groups.push((link("fe80::1", 0), link("ff02::1", port)));
        }
        if *v4 {
            groups.push((ip("169.254.7.1", 0), ip("169.254.255.255", port)));
        }
        for (n, (from, to)) in (100..).zip(groups) {
            let (client, epoch) = (ClientId(n), Epoch::new(1).unwrap());
            let data = Datagram::Data(Data::whole(client, epoch, Seq(1), 0, b"whoever is there"));
            let (reply, answered) = exchange(from, to, &data);
            assert!(matches!(reply.is, Is::Ack(ack) if ack.floor == 1));
            assert!(answered.port() == port && answered.ip() != to.ip(), "{answered}");
        }
        assert_eq!(server.metric("duragram_reply_errors_total", ""), 0.0);
    }
}
