//! Where a datagram came from.

use std::net::{IpAddr, SocketAddr};

/// Where a datagram came from, and where it came to: a reply must leave from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The sender's address, in its canonical form: never an IPv4 address within IPv6.
    pub addr: SocketAddr,
    /// Index of the socket among those that the server has bound.
    pub socket: u16,
    /// Which of this machine's addresses was asked, where the socket is not bound to one.
    pub asked: Option<Local>,
}

impl Peer {
    /// Of a socket that is bound to one address.
    pub fn new(addr: SocketAddr, socket: u16) -> Self {
        Self { addr: canonical(addr), socket, asked: None }
    }
}

/// An address of this machine that was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Local {
    /// In its canonical form. Unspecified: the question went to a group of machines, and routing picks the address.
    pub ip: IpAddr,
    /// Index of the interface by which the answer must leave; 0 where routing picks it. An address of the link
    /// means nothing without one.
    pub interface: u32,
}

/// The canonical form of an address: one of IPv4 stays one when it comes within IPv6.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip if ip == addr.ip() => addr,
        ip => SocketAddr::new(ip, addr.port()),
    }
}
