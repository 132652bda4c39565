//! Two servers on one port: the second is refused, whatever the settings.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::chown;
use std::process::{Command, ExitStatus};

use socket2::{Domain, Protocol, Socket, Type};

use crate::common::server::{Home, Server, duragram};
use crate::common::wire::Wire;
use crate::host::systemd::start_with_socket;

fn command(home: &Home, listen: &str, receivers: usize) -> Command {
    let mut command = duragram();
    command.args(["serve", "--allow-plain", "--listen", listen, "--admin", "127.0.0.1:0", "--sink", "null"]);
    command.arg("--data").arg(home.data()).env("DURAGRAM_RECEIVERS", receivers.to_string());
    command
}

fn start(home: &Home, listen: &str, receivers: usize) -> Result<Server, ExitStatus> {
    Server::try_start(home, command(home, listen, receivers))
}

/// The second one's end: it says why, and has touched nothing.
fn refused(home: &Home, second: Result<Server, ExitStatus>) {
    let Err(status) = second else { panic!("there are two servers on one port") };
    let log = fs::read_to_string(home.log_path()).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("duragram: cannot listen on "), "{log}");
    assert!(["another program", "another server", "another socket"].iter().any(|who| log.contains(who)), "{log}");
    assert!(!home.data().exists(), "nothing was begun");
}

fn goes_on(server: &Server, client: u64) {
    for n in 0..30 {
        // Each from a port of its own: the kernel would spread them over all sockets that share the address.
        let mut wire = Wire::new(server, client * 100 + n);
        wire.server = ([127, 0, 0, 1], server.udp.port()).into();
        assert_eq!(wire.ask_ack(&wire.data(1, b"mine")).floor, 1);
    }
}

#[test]
fn a_second_server_on_a_port_is_refused_however_many_receivers_either_has() {
    for (client, (first, second)) in (1..).zip([(1, 1), (1, 3), (3, 1), (2, 2)]) {
        let (home, other) = (Home::new(), Home::new());
        let server = start(&home, "127.0.0.1:0", first).unwrap();
        refused(&other, start(&other, &server.udp.to_string(), second));
        goes_on(&server, client);
    }
}

#[test]
fn a_second_server_is_refused_where_one_listens_on_all_addresses_and_the_other_on_one() {
    for (mine, theirs) in [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("[::]", "[::1]"), ("[::1]", "[::]")] {
        for receivers in [1, 2] {
            let (home, other) = (Home::new(), Home::new());
            let server = start(&home, &format!("{mine}:0"), receivers).unwrap();
            refused(&other, start(&other, &format!("{theirs}:{}", server.udp.port()), receivers));
        }
    }
}

#[test]
fn a_second_server_of_another_user_is_refused() {
    if !fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
        return;
    }
    let (home, other) = (Home::new(), Home::new());
    let server = start(&home, "127.0.0.1:0", 2).unwrap();
    for path in [other.path().to_owned(), other.disk()] {
        chown(&path, Some(65_534), Some(65_534)).unwrap();
    }
    let plain = command(&other, &server.udp.to_string(), 2);
    // The build may lie where nobody else may look.
    let binary = other.path().join("duragram");
    fs::copy(plain.get_program(), &binary).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args(plain.get_args());
    command.env("DURAGRAM_RECEIVERS", "2");
    refused(&other, Server::try_start(&other, command));
    goes_on(&server, 1);
}

#[test]
fn a_port_is_free_at_once_when_its_server_has_been_killed() {
    let home = Home::new();
    let mut udp = "127.0.0.1:0".to_owned();
    for n in 0..4 {
        let server = start(&home, &udp, 1 + n % 2).unwrap();
        udp = server.udp.to_string();
        server.kill();
    }
}

#[test]
fn a_second_server_that_is_given_the_same_socket_is_refused_and_the_next_one_after_a_crash_is_not() {
    let (home, other) = (Home::new(), Home::new());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = start_with_socket(&home, &socket).unwrap();
    refused(&other, start_with_socket(&other, &socket));
    goes_on(&server, 1);
    server.kill();
    goes_on(&start_with_socket(&other, &socket).unwrap(), 2);
}

/// Bound so that others may share its address, as systemd does with `ReusePort=` (and SO_REUSEADDR always).
fn shareable(address: SocketAddr, port: bool, reuse: bool) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_port(port).unwrap();
    socket.set_reuse_address(reuse).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.into()
}

#[test]
fn a_server_whose_socket_shares_its_address_with_anothers_is_refused() {
    for (port, reuse) in [(true, false), (false, true), (true, true)] {
        let home = Home::new();
        let mine = shareable("127.0.0.1:0".parse().unwrap(), port, reuse);
        let _theirs = shareable(mine.local_addr().unwrap(), port, reuse);
        refused(&home, start_with_socket(&home, &mine));
    }
}

#[test]
fn nobody_can_share_the_address_of_a_socket_that_is_being_served() {
    let home = Home::new();
    let socket = shareable("127.0.0.1:0".parse().unwrap(), true, true);
    let server = start_with_socket(&home, &socket).unwrap();
    let second = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    second.set_reuse_port(true).unwrap();
    second.set_reuse_address(true).unwrap();
    assert_eq!(second.bind(&server.udp.into()).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    goes_on(&server, 1);
}

/// IPv4 goes to the socket of IPv4 alone.
#[test]
fn a_server_of_both_families_is_refused_where_another_socket_takes_its_ipv4() {
    let home = Home::with_config("allow_plain = true\n");
    let v4 = shareable("0.0.0.0:0".parse().unwrap(), false, true);
    let mine = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    mine.set_only_v6(false).unwrap();
    mine.set_reuse_address(true).unwrap();
    let address = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, v4.local_addr().unwrap().port()));
    mine.bind(&address.into()).unwrap();
    refused(&home, start_with_socket(&home, &mine.into()));
}
