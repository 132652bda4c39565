//! Reading many datagrams in one system call, GRO segments split.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};

use crate::limits;
use crate::net::{Admission, Batch, Gate, Peer};
use crate::types::Clock;

const MESSAGES: usize = limits::RECEIVE_MESSAGES;
const STRIDE: usize = limits::RECEIVE_STRIDE_BYTES;

/// One socket's reader.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
    index: u16,
    gate: Gate,
    kernel_drops: u32,
}

/// What a receive brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Messages of the system call; 0 when nothing was there.
    pub messages: usize,
    /// Whether the call was filled, so that more is probably waiting.
    pub full: bool,
    /// Datagrams that the kernel dropped since the last receive, for want of buffer.
    pub kernel_drops: u32,
}

/// A message as the kernel described it.
#[derive(Clone, Copy)]
struct Message {
    from: Option<SocketAddr>,
    len: usize,
    segment: usize,
    cut: bool,
}

impl Receiver {
    /// Reads from `socket`, the server's `index`-th.
    pub fn new(socket: UdpSocket, index: u16, admission: Admission) -> Self {
        Self { socket, index, gate: Gate::new(admission), kernel_drops: 0 }
    }

    /// A batch of the size that this receiver fills.
    pub fn batch() -> Batch {
        Batch::new(STRIDE * MESSAGES)
    }

    /// Clears `batch` and fills it with what waits, in one system call. With `block`, waits for the first message, but
    /// no longer than a fraction of a second. Errors that concern a single earlier reply (ICMP) are passed over.
    pub fn receive(&mut self, batch: &mut Batch, block: bool, clock: &impl Clock) -> io::Result<Received> {
        batch.clear();
        let mut messages = [Message { from: None, len: 0, segment: 0, cut: false }; MESSAGES];
        let flags = if block { MsgFlags::MSG_WAITFORONE } else { MsgFlags::MSG_DONTWAIT };
        let (count, drops) = match self.read(&mut batch.bytes, &mut messages, flags) {
            Ok(read) => read,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                (0, None)
            }
            Err(errno) => return Err(errno.into()),
        };
        batch.arrived = clock.now();
        for (at, message) in messages[..count].iter().enumerate() {
            let (Some(from), false) = (message.from, message.cut) else {
                batch.dropped.truncated += 1;
                continue;
            };
            let peer = Peer { addr: from, socket: self.index };
            let start = at * STRIDE;
            let segment = if message.segment == 0 { message.len.max(1) } else { message.segment };
            let mut done = 0;
            // An empty datagram is one datagram too.
            loop {
                let len = segment.min(message.len - done);
                batch.decode(start + done..start + done + len, peer, &mut self.gate);
                done += len;
                if done == message.len {
                    break;
                }
            }
        }
        let kernel_drops = drops.map_or(0, |total: u32| total.wrapping_sub(self.kernel_drops));
        self.kernel_drops = drops.unwrap_or(self.kernel_drops);
        Ok(Received { messages: count, full: count == MESSAGES, kernel_drops })
    }

    /// The number of messages, and the socket's count of drops where the kernel gave it.
    fn read(
        &self,
        bytes: &mut [u8],
        messages: &mut [Message; MESSAGES],
        flags: MsgFlags,
    ) -> nix::Result<(usize, Option<u32>)> {
        // Made anew for each call: nix does not restore the control buffers' lengths, so that headers used twice lose
        // the segment size (nix-rust/nix pull request 2813).
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(MESSAGES, Some(cmsg_space!(i32, u32)));
        let mut places = bytes.chunks_exact_mut(STRIDE);
        let mut slices: [[IoSliceMut<'_>; 1]; MESSAGES] = std::array::from_fn(|_| {
            let place = places.next().map_or(&mut [][..], |place| &mut place[..limits::RECEIVE_MESSAGE_BYTES]);
            [IoSliceMut::new(place)]
        });
        let mut count = 0;
        let mut drops = None;
        for received in recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)? {
            let cut = received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
            let mut message =
                Message { from: received.address.as_ref().and_then(std_address), len: received.bytes, segment: 0, cut };
            if !cut {
                for control in received.cmsgs()? {
                    match control {
                        ControlMessageOwned::UdpGroSegments(size) => {
                            message.segment = usize::try_from(size).unwrap_or(0);
                        }
                        ControlMessageOwned::RxqOvfl(total) => drops = Some(total),
                        _ => {}
                    }
                }
            }
            messages[count] = message;
            count += 1;
        }
        Ok((count, drops))
    }
}

/// Ends a [`wait_readable`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// One that has not been used.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Ends the wait, or the next one if none is going on.
    pub fn wake(&self) {
        // Fails only when it was used 2⁶⁴ − 2 times and never waited for.
        self.0.write(1).ok();
    }

    /// Forgets that it was used.
    fn clear(&self) {
        // Fails when it was not.
        self.0.read().ok();
    }
}

/// Waits until one of the receivers' sockets has something to read or the waker is used, at most `timeout_ms` milliseconds.
pub fn wait_readable(receivers: &[Receiver], waker: &Waker, timeout_ms: u16) -> io::Result<()> {
    let sockets = receivers.iter().map(|receiver| receiver.socket.as_fd());
    let mut fds: Vec<_> = sockets.chain([waker.0.as_fd()]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let waited = poll(&mut fds, PollTimeout::from(timeout_ms));
    waker.clear();
    match waited {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddrV4::new(v4.ip(), v4.port()).into()),
        (_, Some(v6)) => Some(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into()),
        _ => None,
    }
}
