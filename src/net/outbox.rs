//! Replies on their way out, collected so that many go to the kernel in one system call.

use std::ops::Range;

use crate::model::Peer;

/// Hands replies to the network. Replies may be lost: every one can be asked for again.
pub trait Transmit {
    /// Sends what the outbox holds, to each peer in order.
    fn transmit(&mut self, outbox: &Outbox);
}

/// Replies of one length that go to one peer.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The peer that gets them.
    pub to: Peer,
    /// The datagrams, one behind the other.
    pub datagrams: &'a [u8],
    /// The length of each, in bytes.
    pub len: usize,
}

impl<'a> Run<'a> {
    /// How many replies there are.
    pub fn count(&self) -> usize {
        self.datagrams.len() / self.len
    }

    /// The replies as runs of one each.
    pub fn singly(self) -> impl Iterator<Item = Run<'a>> {
        self.datagrams.chunks(self.len).map(move |datagrams| Run { datagrams, ..self })
    }
}

/// Encoded replies and their receivers.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    replies: Vec<(Peer, Range<usize>)>,
}

impl Outbox {
    /// Adds a reply, encoded. `request_len` is the length of the datagram that it answers; a reply that would be longer is
    /// not sent at all (PROTOCOL.md#no-amplification), and makers of replies cut theirs to fit.
    pub fn push(&mut self, to: Peer, request_len: usize, reply: &[u8]) {
        let len = reply.len();
        debug_assert!(len <= request_len, "a reply of {len} bytes to a datagram of {request_len}");
        if len > request_len {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(reply);
        self.replies.push((to, start..start + len));
    }

    /// Forgets all replies, and keeps the buffers for the next ones.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.replies.clear();
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Counts the replies that wait to be sent.
    pub fn len(&self) -> usize {
        self.replies.len()
    }

    /// Runs of at most `most` replies, in the order in which they were added.
    pub fn runs(&self, most: usize) -> impl Iterator<Item = Run<'_>> {
        let alike = |(to, range): &(Peer, Range<usize>), (next_to, next): &(Peer, Range<usize>)| {
            to == next_to && range.len() == next.len()
        };
        self.replies.chunk_by(alike).flat_map(move |alike| alike.chunks(most)).filter_map(|run| {
            let ((to, first), (_, last)) = (run.first()?, run.last()?);
            Some(Run { to: *to, datagrams: &self.bytes[first.start..last.end], len: first.len() })
        })
    }

    /// Receivers and datagrams, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Peer, &[u8])> + Clone {
        self.replies.iter().map(|(peer, range)| (*peer, &self.bytes[range.clone()]))
    }
}
