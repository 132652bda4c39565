//! Binds the UDP sockets, of which several may share an address.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::model::canonical;
use crate::net::options;

/// The sockets of one address.
#[derive(Debug)]
pub struct BoundSockets {
    /// One for each receiver; they share the address by SO_REUSEPORT when there are several.
    pub sockets: Vec<UdpSocket>,
    /// The address, with the real port when 0 was asked for; never an IPv4 address within IPv6.
    pub addr: SocketAddr,
    /// The receive buffer that the kernel granted, in bytes.
    pub receive_buffer_bytes: usize,
}

/// Binds `count` sockets to `addr` and asks for a receive buffer of `receive_buffer_bytes` bytes.
///
/// # Errors
/// Among others, any other socket on this machine would get datagrams of this address: a second server is refused rather
/// than served a part of them, however many sockets either has and whoever runs it.
pub fn bind(addr: SocketAddr, count: usize, receive_buffer_bytes: usize) -> io::Result<BoundSockets> {
    let mut addr = canonical(addr);
    let mut sockets = Vec::with_capacity(count);
    let mut granted = usize::MAX;
    for index in 0..count {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            // So that `0.0.0.0` and `[::]` can be listened on at once, and a client's address has one form.
            socket.set_only_v6(true)?;
        }
        // The first asks for the port alone, which no other socket may have then, whatever its options; it
        // shares the port afterwards, with those that follow.
        if index > 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into()).map_err(|error| explained(error, &addr))?;
        if index == 0 && count > 1 {
            socket.set_reuse_port(true)?;
        }
        // As root (CAP_NET_ADMIN) the buffer may pass the system's limit; else the kernel grants up to that.
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer_bytes).is_err() {
            socket.set_recv_buffer_size(receive_buffer_bytes)?;
        }
        granted = granted.min(socket.recv_buffer_size()?);
        let socket = UdpSocket::from(socket);
        // The next sockets join the port that the kernel chose for the first.
        addr = socket.local_addr()?;
        options::prepare(&socket, &addr)?;
        sockets.push(socket);
    }
    Ok(BoundSockets { sockets, addr, receive_buffer_bytes: granted })
}

/// Takes a socket that was bound by someone else, and switches off what the server does not want of it. `alone`: none of
/// the others that it takes has the same address. The socket's receive buffer grows to what was asked for where the system
/// lets it.
pub fn adopt(socket: UdpSocket, alone: bool, receive_buffer_bytes: usize) -> io::Result<BoundSockets> {
    let addr = socket.local_addr()?;
    options::reset(&socket, &addr);
    let socket = Socket::from(socket);
    socket.set_nonblocking(false)?;
    if alone {
        socket.set_reuse_port(false)?;
    }
    // Without CAP_NET_ADMIN asking could only shrink what whoever bound it was granted.
    let _granted_or_not = setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer_bytes);
    let receive_buffer_bytes = socket.recv_buffer_size()?;
    options::prepare(&socket, &addr)?;
    Ok(BoundSockets { addr: canonical(addr), sockets: vec![UdpSocket::from(socket)], receive_buffer_bytes })
}

/// Why an address cannot be bound, and what to do.
fn explained(error: io::Error, addr: &SocketAddr) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there, or on all addresses; stop it, or listen on another port"
        }
        io::ErrorKind::AddrNotAvailable => "it is none of this machine's addresses now",
        io::ErrorKind::PermissionDenied if addr.port() < 1024 => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; or let systemd bind it (scripts/systemd)"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}: {hint}"))
}
