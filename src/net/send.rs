//! Handing many replies to the kernel in one system call.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt};

use crate::metrics::Metrics;
use crate::net::{GSO_SEGMENTS_MAX, Outbox, Run, Transmit};

const MESSAGES: usize = crate::limits::REPLY_MESSAGES;

/// Sends replies through the sockets on which the requests came in.
#[derive(Debug)]
pub struct Sender {
    sockets: Vec<UdpSocket>,
    metrics: Metrics,
    /// Replies of one length to one peer go to the kernel as one message, at most so many; it cuts them apart (GSO).
    pub(super) replies_per_message: usize,
}

/// Messages of one system call.
#[derive(Default)]
struct Call<'a> {
    runs: Vec<Run<'a>>,
    /// The length at which the kernel cuts, once there is something to cut.
    segment: Option<usize>,
    /// Of the replies so far.
    longest: usize,
}

impl<'a> Call<'a> {
    /// Whether it has a place for this, too: all leave by one socket, and are cut at one length.
    fn takes(&self, run: &Run<'_>) -> bool {
        let same = self.runs.first().is_none_or(|first| first.to.socket == run.to.socket);
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
        let sockets = sockets.into_iter().map(UdpSocket::try_clone).collect::<io::Result<Vec<_>>>()?;
        // A kernel that does not know GSO (Linux before 4.18) would overlook the length, and send one long datagram.
        let cuts = sockets.iter().all(|socket| setsockopt(socket, sockopt::UdpGsoSegment, &0).is_ok());
        Ok(Self { sockets, metrics, replies_per_message: if cuts { GSO_SEGMENTS_MAX } else { 1 } })
    }

    fn send(&mut self, call: &Call<'_>) {
        let Some(first) = call.runs.first() else { return };
        let Some(fd) = self.sockets.get(usize::from(first.to.socket)).map(AsRawFd::as_raw_fd) else {
            self.lose(&call.runs, Errno::EBADF);
            return;
        };
        let slices: Vec<_> = call.runs.iter().map(|run| [IoSlice::new(run.datagrams)]).collect();
        let addresses: Vec<_> = call.runs.iter().map(|run| Some(SockaddrStorage::from(run.to.addr))).collect();
        let segment = call.segment.and_then(|len| u16::try_from(len).ok());
        let cut: Vec<_> = segment.iter().map(ControlMessage::UdpGsoSegments).collect();
        // Made for each call: headers hold pointers, and could not go from the thread that makes a sender to the one that
        // uses it.
        let mut headers = MultiHeaders::preallocate(slices.len(), segment.map(|_| cmsg_space!(u16)));
        let mut done = 0;
        while done < slices.len() {
            match sendmmsg(fd, &mut headers, slices[done..].iter(), &addresses[done..], &cut, MsgFlags::MSG_DONTWAIT) {
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
                Err(errno) => {
                    self.lose(&call.runs[done..=done], errno);
                    done += 1;
                }
            }
        }
    }

    fn lose(&self, runs: &[Run<'_>], why: Errno) {
        let lost = runs.iter().map(Run::count).sum::<usize>();
        self.metrics.reply_errors.inc_by(lost as u64);
        tracing::debug!(%why, lost, "the kernel refuses replies");
    }
}

impl Transmit for Sender {
    fn transmit(&mut self, outbox: &Outbox) {
        let mut call = Call::default();
        for run in outbox.runs(self.replies_per_message) {
            if !call.takes(&run) {
                self.send(&call);
                call.clear();
            }
            call.push(run);
        }
        self.send(&call);
    }
}
