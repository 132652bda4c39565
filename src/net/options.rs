//! The options of a socket: those that the server wants, and those that whoever has set up a socket may have switched on.
//! Each of the latter lets the kernel send messages along that nobody reads, keep errors, or hold replies back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::libc::{self, in_pktinfo, in6_pktinfo};
use nix::setsockopt_impl;
use nix::sys::socket::{SetSockOpt, TimestampingFlag, setsockopt, sockopt};

/// Options that nix does not name.
macro_rules! options {
    ($($name:ident = $level:path, $option:path;)*) => {$(
        #[derive(Clone, Copy, Debug)]
        struct $name;
        setsockopt_impl!($name, $level, $option, bool, sockopt::SetBool);
    )*};
}

options! {
    Mark = libc::SOL_SOCKET, libc::SO_RCVMARK;
    V4Options = libc::SOL_IP, libc::IP_RECVOPTS;
    V4ReturnOptions = libc::SOL_IP, libc::IP_RETOPTS;
    V4Security = libc::SOL_IP, libc::IP_PASSSEC;
    V4Checksum = libc::SOL_IP, libc::IP_CHECKSUM;
    V4FragmentSize = libc::SOL_IP, libc::IP_RECVFRAGSIZE;
    V6PacketInfo2292 = libc::SOL_IPV6, libc::IPV6_2292PKTINFO;
    V6HopLimit2292 = libc::SOL_IPV6, libc::IPV6_2292HOPLIMIT;
    V6HopOptions = libc::SOL_IPV6, libc::IPV6_RECVHOPOPTS;
    V6HopOptions2292 = libc::SOL_IPV6, libc::IPV6_2292HOPOPTS;
    V6Routing = libc::SOL_IPV6, libc::IPV6_RECVRTHDR;
    V6Routing2292 = libc::SOL_IPV6, libc::IPV6_2292RTHDR;
    V6Destination = libc::SOL_IPV6, libc::IPV6_RECVDSTOPTS;
    V6Destination2292 = libc::SOL_IPV6, libc::IPV6_2292DSTOPTS;
    V6Flow = libc::SOL_IPV6, libc::IPV6_FLOWINFO;
    V6PathMtu = libc::SOL_IPV6, libc::IPV6_RECVPATHMTU;
    V6FragmentSize = libc::SOL_IPV6, libc::IPV6_RECVFRAGSIZE;
    Cork = libc::SOL_UDP, libc::UDP_CORK;
}

/// Switches on what a receiver reads. `address`: what the socket is bound to.
pub(super) fn prepare(socket: &impl AsFd, address: &SocketAddr) -> io::Result<()> {
    let wait = Duration::from_millis(crate::limits::RECEIVE_WAIT_MS.into());
    socket2::SockRef::from(socket).set_read_timeout(Some(wait))?;
    // Neither is essential: without GRO each datagram comes alone, without RXQ_OVFL drops are not counted.
    want(socket, sockopt::UdpGroSegment, &true, "UDP_GRO");
    want(socket, sockopt::RxqOvfl, &1, "SO_RXQ_OVFL");
    // Where several addresses can be asked, the kernel must say which was.
    match asks(address) {
        Asks::Nothing => {}
        Asks::V4 => want(socket, sockopt::Ipv4PacketInfo, &true, "IP_PKTINFO"),
        Asks::V6 => want(socket, sockopt::Ipv6RecvPacketInfo, &true, "IPV6_RECVPKTINFO"),
    }
    Ok(())
}

/// Switches off all that someone else may have switched on. What a kernel does not know is not on.
pub(super) fn reset(socket: &impl AsFd, address: &SocketAddr) {
    // What stamps what is sent puts copies of it into the queue of errors, where they take up the receive buffer.
    off(socket, sockopt::Timestamping, &TimestampingFlag::empty());
    off(socket, sockopt::ReceiveTimestamp, &false);
    off(socket, sockopt::ReceiveTimestampns, &false);
    off(socket, Mark, &false);
    off(socket, sockopt::Ipv4PacketInfo, &false);
    off(socket, sockopt::IpRecvTos, &false);
    off(socket, sockopt::Ipv4RecvTtl, &false);
    off(socket, sockopt::Ipv4OrigDstAddr, &false);
    off(socket, V4Options, &false);
    off(socket, V4ReturnOptions, &false);
    off(socket, V4Security, &false);
    off(socket, V4Checksum, &false);
    off(socket, V4FragmentSize, &false);
    // Also empties the queue of errors, which would let every wait for the socket end at once.
    off(socket, sockopt::Ipv4RecvErr, &false);
    if address.is_ipv6() {
        off(socket, sockopt::Ipv6RecvPacketInfo, &false);
        off(socket, sockopt::Ipv6RecvTClass, &false);
        off(socket, sockopt::Ipv6RecvHopLimit, &false);
        off(socket, sockopt::Ipv6OrigDstAddr, &false);
        off(socket, V6PacketInfo2292, &false);
        off(socket, V6HopLimit2292, &false);
        off(socket, V6HopOptions, &false);
        off(socket, V6HopOptions2292, &false);
        off(socket, V6Routing, &false);
        off(socket, V6Routing2292, &false);
        off(socket, V6Destination, &false);
        off(socket, V6Destination2292, &false);
        off(socket, V6Flow, &false);
        off(socket, V6PathMtu, &false);
        off(socket, V6FragmentSize, &false);
        off(socket, sockopt::Ipv6RecvErr, &false);
    }
    // Replies would be held back until they fill a datagram, or be cut where nobody asked for it.
    off(socket, Cork, &false);
    off(socket, sockopt::UdpGsoSegment, &0);
    // With it a program that asks for the same could bind the port beside this one, and get the datagrams.
    off(socket, sockopt::ReuseAddr, &false);
}

/// Bytes for the control messages of a datagram: of what [`prepare`] switches on.
pub(super) fn control_bytes(address: &SocketAddr) -> usize {
    let plain = nix::cmsg_space!(i32, u32);
    let with_source = match asks(address) {
        Asks::Nothing => plain,
        Asks::V4 => nix::cmsg_space!(i32, u32, in_pktinfo),
        Asks::V6 => nix::cmsg_space!(i32, u32, in6_pktinfo),
    };
    with_source.len()
}

/// Has the kernel give each datagram by itself again.
pub(super) fn stop_joining(socket: &impl AsFd) {
    want(socket, sockopt::UdpGroSegment, &false, "UDP_GRO");
}

enum Asks {
    Nothing,
    V4,
    V6,
}

/// What the kernel must report with each datagram to a socket with this address.
fn asks(address: &SocketAddr) -> Asks {
    match address.ip() {
        ip if !ip.to_canonical().is_unspecified() => Asks::Nothing,
        IpAddr::V4(_) => Asks::V4,
        IpAddr::V6(_) => Asks::V6,
    }
}

fn want<O: SetSockOpt>(socket: &impl AsFd, option: O, value: &O::Val, name: &str) {
    if let Err(errno) = setsockopt(socket, option, value) {
        tracing::warn!(option = name, %errno, "the kernel refuses a socket option; going on without");
    }
}

fn off<O: SetSockOpt>(socket: &impl AsFd, option: O, value: &O::Val) {
    if let Err(errno) = setsockopt(socket, option, value) {
        tracing::debug!(%errno, "the kernel refuses to switch off a socket option");
    }
}
