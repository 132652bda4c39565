//! Reading many datagrams in one system call. What GRO has joined stays so in the slab, which knows where to cut.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use nix::sys::time::TimeSpec;

use crate::limits;
use crate::model::{Clock, Local, Now, Peer, canonical};
use crate::net::trouble::{Trouble, concerns_a_reply};
use crate::net::{Slab, options};
use crate::rate::LogLimit;

const MESSAGES: usize = limits::RECEIVE_MESSAGES;
const STRIDE: usize = limits::RECEIVE_STRIDE_BYTES;
const WAIT: Duration = Duration::from_millis(limits::RECEIVE_WAIT_MS as u64);

/// It reads one socket, and one thread runs it.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
    index: u16,
    kernel_drops: u32,
    /// Bytes for the control messages of one datagram.
    pub(super) control_bytes: usize,
    /// The socket was found not to wait by itself.
    polls: bool,
    trouble: Trouble,
    log: LogLimit,
}

/// A receive has brought so much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// Messages of the system call; 0 when nothing was there.
    pub messages: usize,
    /// Whether the call was filled, so that more is probably waiting.
    pub full: bool,
    /// Datagrams that the kernel dropped since the last receive, for want of buffer.
    pub kernel_drops: u32,
    /// The call failed; it is tried again.
    pub failed: bool,
}

/// A message as the kernel described it.
#[derive(Clone, Copy)]
struct Message {
    from: Option<SocketAddr>,
    asked: Option<Local>,
    len: usize,
    segment: usize,
    cut: bool,
}

/// What one system call read.
struct Read {
    messages: usize,
    /// The socket's count of drops where the kernel gave it.
    drops: Option<u32>,
    /// Control messages did not fit.
    control_cut: bool,
}

impl Receiver {
    /// Reads from `socket`, the server's `index`-th.
    pub fn new(socket: UdpSocket, index: u16) -> Self {
        // A socket that has no address gives no datagrams either.
        let control_bytes = socket.local_addr().map_or(0, |address| options::control_bytes(&address));
        Self {
            socket,
            index,
            kernel_drops: 0,
            control_bytes,
            polls: false,
            trouble: Trouble::default(),
            log: LogLimit::new(limits::SOCKET_LOG_LINES_PER_S),
        }
    }

    /// A slab of the size that a receiver fills.
    pub fn slab() -> Slab {
        Slab::new(STRIDE * MESSAGES)
    }

    /// Clears `slab` and fills it with what waits, in one system call. With `block`, waits for the first message, but
    /// no longer than a fraction of a second. What fails and may pass is logged, and reported in what is returned.
    ///
    /// # Errors
    /// What cannot pass: nothing will ever come from this socket again.
    pub fn receive(&mut self, slab: &mut Slab, block: bool, clock: &impl Clock) -> io::Result<Received> {
        slab.clear();
        if let Some(pause) = self.trouble.pause(|| clock.now()) {
            if block {
                thread::sleep(pause.min(WAIT));
            }
            return Ok(Received::default());
        }
        let mut messages = [Message { from: None, asked: None, len: 0, segment: 0, cut: false }; MESSAGES];
        let began = block.then(|| clock.now());
        if block && self.polls {
            // A failure of the wait is one of the read that follows, too.
            poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], limits::RECEIVE_WAIT_MS).ok();
        }
        let flags = if block && !self.polls { MsgFlags::MSG_WAITFORONE } else { MsgFlags::MSG_DONTWAIT };
        let read = match self.read(&mut slab.bytes, &mut messages, flags) {
            Ok(read) => read,
            Err(errno) => return self.not_read(errno, began, clock.now()),
        };
        self.trouble.is_over();
        slab.arrived = clock.now();
        for (at, message) in messages[..read.messages].iter().enumerate() {
            let (Some(from), false) = (message.from, message.cut) else {
                slab.cut += 1;
                continue;
            };
            let peer = Peer { addr: from, socket: self.index, asked: message.asked };
            let start = at * STRIDE;
            slab.add(peer, start..start + message.len, message.segment);
        }
        if read.control_cut {
            self.widen(slab.arrived);
        }
        let kernel_drops = read.drops.map_or(0, |total: u32| total.wrapping_sub(self.kernel_drops));
        self.kernel_drops = read.drops.unwrap_or(self.kernel_drops);
        Ok(Received { messages: read.messages, full: read.messages == MESSAGES, kernel_drops, failed: false })
    }

    /// Nothing was read: because nothing was there, or because the call failed.
    fn not_read(&mut self, errno: Errno, began: Option<Now>, now: Now) -> io::Result<Received> {
        if errno == Errno::EINTR {
            return Ok(Received::default());
        }
        if errno == Errno::EAGAIN {
            self.trouble.is_over();
            // Whoever shares the socket may have switched off that it waits, for this process too.
            let waited_us = began.map(|began| now.mono_us.saturating_sub(began.mono_us));
            let wait_us = u64::from(limits::RECEIVE_WAIT_MS) * 1_000;
            self.polls |= waited_us.is_some_and(|waited_us| waited_us < wait_us / 2);
            return Ok(Received::default());
        }
        if self.trouble.met(errno, now) {
            let doing = format!("receiving datagrams on {}", self.address());
            return Err(io::Error::new(io::Error::from(errno).kind(), format!("{doing}: {}", errno.desc())));
        }
        if !concerns_a_reply(errno)
            && let Some(suppressed) = self.log.allows(now)
        {
            tracing::error!(address = %self.address(), %errno, suppressed, "receiving datagrams failed; trying again");
        }
        Ok(Received { failed: true, ..Received::default() })
    }

    /// Some control message did not fit, so that the next ones would not either: datagrams that came joined can then not
    /// be told apart, and which address was asked is not known.
    pub(super) fn widen(&mut self, now: Now) {
        if self.control_bytes < limits::RECEIVE_CONTROL_BYTES {
            self.control_bytes = limits::RECEIVE_CONTROL_BYTES.min(self.control_bytes.max(64) * 4);
        } else {
            options::stop_joining(&self.socket);
        }
        if let Some(suppressed) = self.log.allows(now) {
            tracing::warn!(
                address = %self.address(), suppressed, bytes = self.control_bytes,
                "the kernel sends more along with a datagram than was asked for; making room for it",
            );
        }
    }

    fn address(&self) -> String {
        let address = self.socket.local_addr();
        address.map_or_else(|_| format!("socket {}", self.index), |address| canonical(address).to_string())
    }

    fn read(&self, bytes: &mut [u8], messages: &mut [Message; MESSAGES], flags: MsgFlags) -> nix::Result<Read> {
        // Made anew for each call: nix does not restore the control buffers' lengths, so that headers used twice lose
        // the segment size (nix-rust/nix pull request 2813).
        let mut headers =
            MultiHeaders::<SockaddrStorage>::preallocate(MESSAGES, Some(Vec::with_capacity(self.control_bytes)));
        let mut places = bytes.chunks_exact_mut(STRIDE);
        let mut slices: [[IoSliceMut<'_>; 1]; MESSAGES] = std::array::from_fn(|_| {
            let place = places.next().map_or(&mut [][..], |place| &mut place[..limits::RECEIVE_MESSAGE_BYTES]);
            [IoSliceMut::new(place)]
        });
        let mut read = Read { messages: 0, drops: None, control_cut: false };
        for received in recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)? {
            let from = received.address.as_ref().and_then(std_address);
            let cut = received.flags.contains(MsgFlags::MSG_TRUNC);
            let mut message = Message { from, asked: None, len: received.bytes, segment: 0, cut };
            match received.cmsgs() {
                Ok(controls) => controls.for_each(|control| match control {
                    ControlMessageOwned::UdpGroSegments(size) => {
                        message.segment = usize::try_from(size).unwrap_or(0);
                    }
                    ControlMessageOwned::RxqOvfl(total) => read.drops = Some(total),
                    ControlMessageOwned::Ipv4PacketInfo(info) => message.asked = Local::from_v4(&info),
                    ControlMessageOwned::Ipv6PacketInfo(info) => message.asked = Local::from_v6(&info),
                    _ => {}
                }),
                // The datagram itself is whole.
                Err(_) => read.control_cut = true,
            }
            messages[read.messages] = message;
            read.messages += 1;
        }
        Ok(read)
    }
}

/// Ends a [`wait_readable`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// A waker that has not been used.
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

/// Waits until one of the receivers' sockets has something to read or the waker is used, at most for `timeout`.
/// A socket that has just failed is not waited for, but the wait ends when it is to be tried again.
pub fn wait_readable<'a>(
    receivers: impl IntoIterator<Item = &'a Receiver>,
    waker: &Waker,
    mut timeout: Duration,
    clock: &impl Clock,
) -> io::Result<()> {
    let mut fds = vec![PollFd::new(waker.0.as_fd(), PollFlags::POLLIN)];
    for receiver in receivers {
        match receiver.trouble.pause(|| clock.now()) {
            None => fds.push(PollFd::new(receiver.socket.as_fd(), PollFlags::POLLIN)),
            Some(pause) => timeout = timeout.min(pause + Duration::from_millis(1)),
        }
    }
    let waited = ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None);
    // As a rule it was not used: a datagram does not wait for a system call that finds nothing.
    if waited.is_ok() && fds[0].any().unwrap_or(true) {
        waker.clear();
    }
    match waited {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        // It passes; the sockets are asked without a wait.
        Err(Errno::ENOMEM | Errno::EAGAIN) => {
            thread::sleep(Duration::from_millis(1));
            Ok(())
        }
        Err(errno) => {
            let kind = io::Error::from(errno).kind();
            Err(io::Error::new(kind, format!("waiting for datagrams: {}", errno.desc())))
        }
    }
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddrV4::new(v4.ip(), v4.port()).into(),
        (_, Some(v6)) => SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into(),
        _ => return None,
    };
    Some(canonical(address))
}
