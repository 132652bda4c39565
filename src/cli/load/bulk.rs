//! The sending side of a load generator: many datagrams a system call out (GSO, `sendmmsg`), many answers a system call
//! in (`recvmmsg`), and one wait over all sockets. It knows no protocol.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

/// Messages of one `sendmmsg` or `recvmmsg`.
const MESSAGES: usize = 64;
/// A [`Burst`] is full at so many bytes: what is encoded is still in the processor's cache when it is sent.
const BURST_BYTES: usize = 64 * 1024;
/// The longest message: what IPv4 can carry.
const MESSAGE_BYTES_MAX: usize = 65_507;
/// The longest reply without a body that is of interest. Longer ones are cut, and their checksum then says so.
const REPLY_BYTES: usize = 256;
/// Asked of the kernel for each socket; replies are small, and one that is dropped costs its sender a timeout.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// A UDP socket with one peer.
#[derive(Debug)]
pub struct BulkSocket {
    socket: UdpSocket,
}

/// Messages for one socket, each of one or more datagrams, collected so that they go out in one system call.
pub struct Burst {
    bytes: Box<[u8]>,
    len: usize,
    /// Where each finished message ends.
    ends: Vec<usize>,
    headers: MultiHeaders<()>,
}

/// Where answers are read into; one for all sockets of a thread.
pub struct Inbox {
    /// Bytes of the place of each datagram.
    each: usize,
    bytes: Box<[u8]>,
    headers: MultiHeaders<()>,
}

/// Waits for several sockets at once; what a wait costs does not grow with their number.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    ready: usize,
}

impl BulkSocket {
    /// A socket of its own port that talks to `peer`. Messages longer than `datagram_len` bytes are cut by the kernel into
    /// datagrams of that length (GSO).
    ///
    /// # Errors
    /// Also when the kernel does not know GSO; that is not asked for when `gso` is false.
    pub fn connect(peer: SocketAddr, datagram_len: usize, gso: bool) -> io::Result<Self> {
        let any: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(peer)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
        }
        if gso {
            let segment = i32::try_from(datagram_len).map_err(io::Error::other)?;
            setsockopt(&socket, sockopt::UdpGsoSegment, &segment)?;
        }
        Ok(Self { socket })
    }

    /// Sends all messages, waiting for room in the socket's buffer, and empties the burst. Returns how many messages the
    /// kernel would not send: for want of memory, of a route, or because nobody listens at the other end.
    ///
    /// # Errors
    /// What would meet every further message as well.
    pub fn send(&self, burst: &mut Burst) -> io::Result<usize> {
        let mut lost = 0;
        let mut start = 0;
        let message = |end: &usize| {
            let begin = std::mem::replace(&mut start, *end);
            [IoSlice::new(&burst.bytes[begin..*end])]
        };
        let slices: Vec<_> = burst.ends.iter().map(message).collect();
        let addresses = [None::<()>; MESSAGES];
        let mut done = 0;
        while done < slices.len() {
            let rest = &slices[done..];
            let fd = self.socket.as_raw_fd();
            match sendmmsg(fd, &mut burst.headers, rest, &addresses[..rest.len()], [], MsgFlags::empty()) {
                Ok(sent) => done += sent.count().max(1),
                Err(Errno::EINTR) => {}
                // The first of them was not sent.
                Err(errno) if concerns_one_message(errno) => {
                    lost += 1;
                    done += 1;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        drop(slices);
        burst.clear();
        Ok(lost)
    }

    /// Reads what waits, in one system call, and gives each datagram to `take`. Returns whether there may be more.
    pub fn receive(&self, inbox: &mut Inbox, mut take: impl FnMut(&mut [u8])) -> io::Result<bool> {
        let mut lens = [0; MESSAGES];
        let mut count = 0;
        {
            let mut places = inbox.bytes.chunks_exact_mut(inbox.each);
            let mut slices: [[IoSliceMut<'_>; 1]; MESSAGES] =
                std::array::from_fn(|_| [IoSliceMut::new(places.next().unwrap_or_default())]);
            let fd = self.socket.as_raw_fd();
            match recvmmsg(fd, &mut inbox.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
                Ok(messages) => {
                    for message in messages {
                        lens[count] = message.bytes;
                        count += 1;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) if concerns_one_message(errno) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        for (place, len) in inbox.bytes.chunks_exact_mut(inbox.each).zip(&lens[..count]) {
            take(&mut place[..*len]);
        }
        Ok(count == MESSAGES)
    }
}

impl Default for Burst {
    fn default() -> Self {
        let bytes = vec![0; BURST_BYTES + MESSAGE_BYTES_MAX].into_boxed_slice();
        Self { bytes, len: 0, ends: Vec::with_capacity(MESSAGES), headers: MultiHeaders::preallocate(MESSAGES, None) }
    }
}

impl Burst {
    /// Where the next datagram of the current message is written; call [`push`](Self::push) with its length then.
    ///
    /// A message holds at most 65,507 bytes, and the burst must not be [full](Self::is_full) when one begins.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.len..]
    }

    /// A datagram of `len` bytes was written into the [space](Self::space).
    pub fn push(&mut self, len: usize) {
        self.len += len;
    }

    /// The current message is complete; an empty one is none.
    pub fn end_message(&mut self) {
        if self.ends.last().copied().unwrap_or(0) < self.len {
            self.ends.push(self.len);
        }
    }

    /// Whether it takes no further message.
    pub fn is_full(&self) -> bool {
        self.ends.len() == MESSAGES || self.len >= BURST_BYTES
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn clear(&mut self) {
        self.len = 0;
        self.ends.clear();
    }
}

impl Inbox {
    /// With room for replies that carry so many bytes of body.
    pub fn new(body_len: usize) -> Self {
        let each = REPLY_BYTES.saturating_add(body_len);
        Self {
            each,
            bytes: vec![0; MESSAGES * each].into_boxed_slice(),
            headers: MultiHeaders::preallocate(MESSAGES, None),
        }
    }
}

impl Poller {
    /// Over these sockets, which must live as long as it is used.
    pub fn new(sockets: &[BulkSocket]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, socket) in (0..).zip(sockets) {
            epoll.add(&socket.socket, EpollEvent::new(EpollFlags::EPOLLIN, index))?;
        }
        Ok(Self { epoll, events: vec![EpollEvent::empty(); sockets.len()], ready: 0 })
    }

    /// Waits until a socket has something to read, at most for `timeout`, and sometimes for less.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let ms = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
        if ms == 0 && !timeout.is_zero() {
            // epoll counts in milliseconds. Interrupted is as good as over.
            let mut fds = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.ready = match self.epoll.wait(&mut self.events, ms) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        Ok(())
    }

    /// Indexes of the sockets that had something to read, or an error, when the wait ended.
    pub fn readable(&self) -> impl Iterator<Item = usize> + '_ {
        self.events[..self.ready].iter().map(|event| usize::try_from(event.data()).unwrap_or(usize::MAX))
    }
}

/// An earlier datagram was answered by ICMP, or there is no memory, no route or no leave now: nothing that the next try must meet
/// too.
fn concerns_one_message(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::ENETDOWN
            | Errno::ENOBUFS
            | Errno::ENOMEM
            | Errno::EAGAIN
            // A firewall here, or a device that is away for a moment.
            | Errno::EPERM
            | Errno::EACCES
            | Errno::EIO
            | Errno::EHOSTDOWN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(datagram_len: usize, gso: bool) -> (UdpSocket, BulkSocket) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let bulk = BulkSocket::connect(server.local_addr().unwrap(), datagram_len, gso).unwrap();
        (server, bulk)
    }

    fn write(burst: &mut Burst, datagram: &[u8]) {
        burst.space()[..datagram.len()].copy_from_slice(datagram);
        burst.push(datagram.len());
    }

    #[test]
    fn messages_of_several_datagrams_arrive_as_datagrams() {
        let (server, bulk) = pair(40, true);
        let mut burst = Burst::default();
        let mut sent = Vec::new();
        for n in 0..100u8 {
            write(&mut burst, &[n; 40]);
            sent.push(vec![n; 40]);
            if n % 10 == 9 {
                burst.end_message();
            }
        }
        // A shorter one is a message of its own.
        write(&mut burst, &[200; 32]);
        sent.push(vec![200; 32]);
        burst.end_message();
        burst.end_message();
        assert_eq!(bulk.send(&mut burst).unwrap(), 0);
        assert!(burst.is_empty() && !burst.is_full());
        let mut buffer = [0; 100];
        for expected in sent {
            let len = server.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], expected);
        }
    }

    #[test]
    fn a_burst_is_full_by_messages_and_by_bytes() {
        let mut burst = Burst::default();
        for _ in 0..MESSAGES {
            assert!(!burst.is_full());
            write(&mut burst, b"x");
            burst.end_message();
        }
        assert!(burst.is_full());
        let mut burst = Burst::default();
        write(&mut burst, &[0; MESSAGE_BYTES_MAX]);
        burst.end_message();
        assert!(!burst.is_full());
        write(&mut burst, &[0; MESSAGE_BYTES_MAX]);
        burst.end_message();
        assert!(burst.is_full());
    }

    #[test]
    fn answers_are_read_from_the_sockets_that_have_some() {
        let (server, first) = pair(40, false);
        let second = BulkSocket::connect(server.local_addr().unwrap(), 40, false).unwrap();
        let to = second.socket.local_addr().unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, to.port()));
        for n in 0..100u8 {
            server.send_to(&[n; 60], to).unwrap();
        }
        server.send_to(&[7; 300], to).unwrap();
        let sockets = [first, second];
        let mut poller = Poller::new(&sockets).unwrap();
        poller.wait(Duration::from_secs(5)).unwrap();
        assert_eq!(poller.readable().collect::<Vec<_>>(), [1]);
        let mut inbox = Inbox::new(0);
        let mut seen = Vec::new();
        while sockets[1].receive(&mut inbox, |datagram| seen.push((datagram[0], datagram.len()))).unwrap() {}
        let mut expected: Vec<_> = (0..100).map(|n| (n, 60)).collect();
        expected.push((7, REPLY_BYTES));
        assert_eq!(seen, expected);
        assert!(!sockets[0].receive(&mut inbox, |_| panic!("nothing was sent to this one")).unwrap());
        poller.wait(Duration::ZERO).unwrap();
        assert_eq!(poller.readable().count(), 0);
    }

    #[test]
    fn a_peer_that_is_not_there_costs_messages_but_is_no_error() {
        let (server, bulk) = pair(40, false);
        drop(server);
        let mut burst = Burst::default();
        let mut lost = 0;
        for _ in 0..50 {
            write(&mut burst, b"is anyone there?");
            burst.end_message();
            lost += bulk.send(&mut burst).unwrap();
            bulk.receive(&mut Inbox::new(0), |_| panic!("nobody answers")).unwrap();
        }
        assert!(lost < 50, "ICMP is reported once for each message that was sent: {lost}");
    }
}
