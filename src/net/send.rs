//! Handing many replies to the kernel in one system call.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt};

use crate::limits;
use crate::metrics::Metrics;
use crate::model::{Clock, Local, SystemClock};
use crate::net::local::Source;
use crate::net::{Outbox, Run, Transmit};
use crate::rate::LogLimit;

const MESSAGES: usize = limits::REPLY_MESSAGES;

/// Sends replies through the sockets on which the requests came in.
#[derive(Debug)]
pub struct Sender {
    sockets: Vec<UdpSocket>,
    /// Which of them are of IPv6: IPv4 has another form there.
    v6: Vec<bool>,
    metrics: Metrics,
    clock: SystemClock,
    log: LogLimit,
    /// Replies of one length to one peer go to the kernel as one message, at most so many; it cuts them apart (GSO).
    pub(super) replies_per_message: usize,
}

/// Messages of one system call.
#[derive(Default)]
struct Call<'a> {
    runs: Vec<Run<'a>>,
    /// The length at which the kernel cuts, once there is something to cut.
    segment: Option<usize>,
    /// The length of the longest reply so far.
    longest: usize,
}

impl<'a> Call<'a> {
    /// Whether it has a place for this, too: all leave by one socket from one address, and are cut at one length.
    fn takes(&self, run: &Run<'_>) -> bool {
        let same = self.runs.first().is_none_or(|first| leaves_from(first) == leaves_from(run));
        let cut = match self.segment {
            Some(segment) => run.len == segment || run.count() == 1 && run.len < segment,
            None => run.count() == 1 || run.len >= self.longest,
        };
        same && cut && self.runs.len() < MESSAGES
    }

    fn push(&mut self, run: Run<'a>) {
        if run.count() > 1 {
            self.segment = Some(run.len);
        }
        self.longest = self.longest.max(run.len);
        self.runs.push(run);
    }

    fn clear(&mut self) {
        self.runs.clear();
        (self.segment, self.longest) = (None, 0);
    }
}

impl Sender {
    /// Sends through second handles on `sockets`, in the order in which `Peer::socket` counts them.
    pub fn new<'a>(sockets: impl IntoIterator<Item = &'a UdpSocket>, metrics: Metrics) -> io::Result<Self> {
        let sockets = sockets.into_iter().map(UdpSocket::try_clone).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.map_err(|error| {
            io::Error::new(error.kind(), format!("opening second handles on the sockets, for replies: {error}"))
        })?;
        // A kernel that does not know GSO (Linux before 4.18) would overlook the length, and send one long datagram.
        let cuts = sockets.iter().all(|socket| setsockopt(socket, sockopt::UdpGsoSegment, &0).is_ok());
        let v6 = sockets.iter().map(|socket| socket.local_addr().map(|address| address.is_ipv6()));
        Ok(Self {
            v6: v6.collect::<io::Result<_>>()?,
            sockets,
            metrics,
            clock: SystemClock::start(),
            log: LogLimit::new(limits::SOCKET_LOG_LINES_PER_S),
            replies_per_message: if cuts { limits::GSO_SEGMENTS_MAX } else { 1 },
        })
    }

    fn send(&mut self, call: &Call<'_>) {
        let Some(first) = call.runs.first() else { return };
        let at = usize::from(first.to.socket);
        let (Some(socket), Some(&v6)) = (self.sockets.get(at), self.v6.get(at)) else {
            self.lose(&call.runs, Errno::EBADF);
            return;
        };
        let fd = socket.as_raw_fd();
        let slices: Vec<_> = call.runs.iter().map(|run| [IoSlice::new(run.datagrams)]).collect();
        let address = |to: SocketAddr| match to {
            SocketAddr::V4(to) if v6 => (to.ip().to_ipv6_mapped(), to.port()).into(),
            _ => to,
        };
        let addresses: Vec<_> = call.runs.iter().map(|run| Some(SockaddrStorage::from(address(run.to.addr)))).collect();
        let segment = call.segment.and_then(|len| u16::try_from(len).ok());
        let source = first.to.asked.and_then(|asked| asked.source(v6));
        let control: Vec<_> =
            segment.iter().map(ControlMessage::UdpGsoSegments).chain(source.iter().map(Source::message)).collect();
        // Made for each call: headers hold pointers, and could not go from the thread that makes a sender to the one that
        // uses it.
        let mut headers = MultiHeaders::preallocate(slices.len(), control_space(segment.is_some(), source.as_ref()));
        let mut done = 0;
        while done < slices.len() {
            let (rest, to) = (slices[done..].iter(), &addresses[done..]);
            match sendmmsg(fd, &mut headers, rest, to, &control, MsgFlags::MSG_DONTWAIT) {
                Ok(sent) => done += sent.count().max(1),
                Err(Errno::EINTR) => {}
                // The first of them failed. Losing it does no harm, its client asks again; the others go on,
                // but not into a full send buffer.
                Err(Errno::EAGAIN) => {
                    self.lose(&call.runs[done..], Errno::EAGAIN);
                    return;
                }
                // What the kernel will not cut it may send in pieces. EIO: the device or the route cannot do it.
                Err(errno @ (Errno::EIO | Errno::EINVAL)) if segment.is_some() => {
                    if errno == Errno::EIO {
                        tracing::debug!("replies go out one by one from now on");
                        self.replies_per_message = 1;
                    }
                    let mut singly = Call::default();
                    call.runs[done].singly().for_each(|run| singly.push(run));
                    self.send(&singly);
                    done += 1;
                }
                // The address that was asked is none of this machine's any more, or cannot be left from: the reply leaves
                // from the one that routing picks, which is better than none.
                Err(Errno::EINVAL | Errno::ENODEV | Errno::ENETUNREACH | Errno::EADDRNOTAVAIL) if source.is_some() => {
                    let mut elsewhere = Call::default();
                    let mut run = call.runs[done];
                    run.to.asked = None;
                    elsewhere.push(run);
                    self.send(&elsewhere);
                    done += 1;
                }
                Err(errno) => {
                    self.lose(&call.runs[done..=done], errno);
                    done += 1;
                }
            }
        }
    }

    fn lose(&mut self, runs: &[Run<'_>], why: Errno) {
        let lost = runs.iter().map(Run::count).sum::<usize>();
        self.metrics.reply_errors.inc_by(lost as u64);
        if let (Some(first), Some(suppressed)) = (runs.first(), self.log.allows(self.clock.now())) {
            let (to, socket) = (first.to.addr, first.to.socket);
            tracing::warn!(%to, socket, errno = %why, lost, suppressed, "sending replies failed; clients ask again");
        }
    }
}

/// Socket and address that a reply leaves by.
fn leaves_from(run: &Run<'_>) -> (u16, Option<Local>) {
    (run.to.socket, run.to.asked)
}

impl Source {
    fn message(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

/// Room for just the control messages that are sent: the kernel takes what is left over for a broken one.
fn control_space(cut: bool, source: Option<&Source>) -> Option<Vec<u8>> {
    match (cut, source) {
        (false, None) => None,
        (true, None) => Some(cmsg_space!(u16)),
        (false, Some(Source::V4(_))) => Some(cmsg_space!(in_pktinfo)),
        (true, Some(Source::V4(_))) => Some(cmsg_space!(u16, in_pktinfo)),
        (false, Some(Source::V6(_))) => Some(cmsg_space!(in6_pktinfo)),
        (true, Some(Source::V6(_))) => Some(cmsg_space!(u16, in6_pktinfo)),
    }
}

impl Transmit for Sender {
    fn transmit(&mut self, outbox: &Outbox) {
        let mut runs: Vec<_> = outbox.runs(self.replies_per_message).collect();
        // Replies of several sockets or addresses may be mixed, and one call sends those of one. Their order among each
        // other stays as it was for each peer.
        if runs.windows(2).any(|two| leaves_from(&two[0]) != leaves_from(&two[1])) {
            runs.sort_by_key(|run| (run.to.socket, run.to.asked.map(|asked| (asked.ip, asked.interface))));
        }
        let mut call = Call::default();
        for run in runs {
            if !call.takes(&run) {
                self.send(&call);
                call.clear();
            }
            call.push(run);
        }
        self.send(&call);
    }
}
