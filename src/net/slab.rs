//! A reusable buffer of received datagrams: what a receiver fills, and gets back when all of them are dealt with.
//!
//! What the bytes mean is not known here; a dialect's admission reads them, and may decrypt them in place.

use std::ops::Range;

use crate::model::{Now, Peer};

/// The datagrams of one receive, in the order of their arrival.
#[derive(Debug)]
pub struct Slab {
    pub(super) bytes: Vec<u8>,
    messages: Vec<Message>,
    /// The receive returned at this moment, which stands for the arrival of each datagram.
    pub arrived: Now,
    /// Datagrams that the kernel has cut, or whose sender it has not named; nothing of them is kept.
    pub cut: u64,
    received_bytes: u64,
}

/// What the kernel has handed over as one: a datagram, or a run of datagrams of one length whose last may be shorter (GRO).
#[derive(Clone, Copy, Debug)]
struct Message {
    peer: Peer,
    start: usize,
    len: usize,
    /// The length of each datagram in it. Never 0.
    segment: usize,
}

/// One datagram as it came.
#[derive(Debug)]
pub struct RawDatagram<'a> {
    /// The sender, to whom an answer goes.
    pub peer: Peer,
    /// Where its first byte stands in the slab.
    pub at: usize,
    /// The UDP payload stands here, and may be opened in place.
    pub bytes: &'a mut [u8],
}

impl Slab {
    /// An empty one over a buffer of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], messages: Vec::new(), arrived: Now::default(), cut: 0, received_bytes: 0 }
    }

    /// Forgets the datagrams, and keeps the buffer for the next ones.
    pub fn clear(&mut self) {
        self.messages.clear();
        (self.cut, self.received_bytes) = (0, 0);
    }

    /// Whether it holds no datagram.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// UDP payload bytes of all datagrams in it.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// A part of the buffer, such as a payload that an admission has found.
    pub fn bytes(&self, range: Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// Hands each datagram to `visit`, in the order of arrival.
    pub fn for_each(&mut self, mut visit: impl FnMut(RawDatagram<'_>)) {
        for &Message { peer, start, len, segment } in &self.messages {
            let (mut at, end) = (start, start + len);
            // An empty datagram is one datagram too.
            loop {
                let next = end.min(at + segment);
                visit(RawDatagram { peer, at, bytes: &mut self.bytes[at..next] });
                at = next;
                if at == end {
                    break;
                }
            }
        }
    }

    /// Adds a datagram by copying it: for tests and the simulator, which have no socket.
    pub fn push(&mut self, peer: Peer, datagram: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.add(peer, start..self.bytes.len(), 0);
    }

    /// Adds what stands at `range` of the buffer: one datagram if `segment` is 0, else a run of datagrams of that length.
    pub(super) fn add(&mut self, peer: Peer, range: Range<usize>, segment: usize) {
        let (start, len) = (range.start, range.len());
        let segment = if segment == 0 { len.max(1) } else { segment };
        self.messages.push(Message { peer, start, len, segment });
        self.received_bytes += len as u64;
    }
}
