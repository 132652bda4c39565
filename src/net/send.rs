//! Handing many replies to the kernel in one system call.

use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use crate::metrics::Metrics;
use crate::net::{Outbox, Transmit};

const REPLIES: usize = crate::limits::REPLY_MESSAGES;

/// Sends replies through the sockets on which the requests came in.
#[derive(Debug)]
pub struct Sender {
    sockets: Vec<UdpSocket>,
    metrics: Metrics,
}

impl Sender {
    /// Sends through second handles on `sockets`, in the order in which `Peer::socket` counts them.
    pub fn new<'a>(sockets: impl IntoIterator<Item = &'a UdpSocket>, metrics: Metrics) -> io::Result<Self> {
        Ok(Self { sockets: sockets.into_iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?, metrics })
    }

    /// Sends a run of replies that leave by one socket.
    fn send(&self, socket: u16, slices: &[[IoSlice<'_>; 1]], addresses: &[Option<SockaddrStorage>]) {
        let Some(fd) = self.sockets.get(usize::from(socket)).map(AsRawFd::as_raw_fd) else {
            self.metrics.reply_errors.inc_by(slices.len() as u64);
            return;
        };
        // Made for each call: headers hold pointers, and could not go from the thread that makes a sender to the one that
        // uses it.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(slices.len(), None);
        let mut done = 0;
        while done < slices.len() {
            let flags = MsgFlags::MSG_DONTWAIT;
            match sendmmsg(fd, &mut headers, slices[done..].iter(), &addresses[done..], [], flags) {
                Ok(sent) => done += sent.count().max(1),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    // The first of them failed. Losing it does no harm, its client asks again; the others go on,
                    // but not into a full send buffer.
                    let lost = if errno == Errno::EAGAIN { slices.len() - done } else { 1 };
                    self.metrics.reply_errors.inc_by(lost as u64);
                    tracing::debug!(%errno, lost, "the kernel refuses replies");
                    done += lost;
                }
            }
        }
    }
}

impl Transmit for Sender {
    fn transmit(&mut self, outbox: &Outbox) {
        let mut slices = Vec::with_capacity(outbox.len().min(REPLIES));
        let mut addresses = Vec::with_capacity(outbox.len().min(REPLIES));
        let mut socket = 0;
        for (peer, reply) in outbox.iter() {
            if slices.len() == REPLIES || (peer.socket != socket && !slices.is_empty()) {
                self.send(socket, &slices, &addresses);
                slices.clear();
                addresses.clear();
            }
            socket = peer.socket;
            slices.push([IoSlice::new(reply)]);
            addresses.push(Some(SockaddrStorage::from(peer.addr)));
        }
        self.send(socket, &slices, &addresses);
    }
}
