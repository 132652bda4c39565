//! Binding the UDP sockets.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;

/// The sockets of one address.
#[derive(Debug)]
pub struct BoundSockets {
    /// One for each receiver; they share the address by SO_REUSEPORT when there are several.
    pub sockets: Vec<UdpSocket>,
    /// The address, with the real port when 0 was asked for.
    pub addr: SocketAddr,
    /// The receive buffer that the kernel granted, in bytes.
    pub receive_buffer_bytes: usize,
}

/// Binds `count` sockets to `addr` and asks for a receive buffer of `receive_buffer_bytes` bytes.
///
/// Without SO_REUSEPORT when `count` is 1: a second server on the port is then refused rather than served half of the
/// datagrams. Several sockets can share a port with another process of the same user that asks for the same.
pub fn bind(addr: SocketAddr, count: usize, receive_buffer_bytes: usize) -> io::Result<BoundSockets> {
    let mut addr = addr;
    let mut sockets = Vec::with_capacity(count);
    let mut granted = usize::MAX;
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            // So that `0.0.0.0` and `[::]` can be listened on at once, and a client's address has one form.
            socket.set_only_v6(true)?;
        }
        if count > 1 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        // As root (CAP_NET_ADMIN) the buffer may pass the system's limit; else the kernel grants up to that.
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer_bytes).is_err() {
            socket.set_recv_buffer_size(receive_buffer_bytes)?;
        }
        granted = granted.min(socket.recv_buffer_size()?);
        prepare(&socket)?;
        let socket = UdpSocket::from(socket);
        // The next sockets join the port that the kernel chose for the first.
        addr = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(BoundSockets { sockets, addr, receive_buffer_bytes: granted })
}

/// Takes a socket that was bound by someone else. Its receive buffer grows to what was asked for where the system lets it.
pub fn adopt(socket: UdpSocket, receive_buffer_bytes: usize) -> io::Result<BoundSockets> {
    let socket = Socket::from(socket);
    socket.set_nonblocking(false)?;
    // Without CAP_NET_ADMIN asking could only shrink what whoever bound it was granted.
    let _granted_or_not = setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer_bytes);
    let receive_buffer_bytes = socket.recv_buffer_size()?;
    prepare(&socket)?;
    let socket = UdpSocket::from(socket);
    Ok(BoundSockets { addr: socket.local_addr()?, sockets: vec![socket], receive_buffer_bytes })
}

fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(limits::RECEIVE_WAIT_MS.into())))?;
    // Neither is essential: without GRO each datagram comes alone, without RXQ_OVFL drops are not counted.
    report(setsockopt(socket, sockopt::UdpGroSegment, &true), "UDP_GRO");
    report(setsockopt(socket, sockopt::RxqOvfl, &1), "SO_RXQ_OVFL");
    Ok(())
}

fn report(result: nix::Result<()>, option: &str) {
    if let Err(errno) = result {
        tracing::warn!(option, %errno, "the kernel refuses a socket option; going on without");
    }
}
