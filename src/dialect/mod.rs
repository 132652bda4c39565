//! Dialects: what turns a datagram into "new, duplicate or refused", and a receipt into a reply.
//!
//! [`duragram`] is the project's own protocol.

pub mod duragram;

use crate::net::Slab;

/// A receiver's way in, on the receiver's thread: verifies datagrams, opens them, and refuses early what needs no session
/// for that. There is one for each receiver.
pub trait Admit: Send {
    /// What a datagram asks for, for the committer's thread.
    type Request: Send;
    /// What was dropped in silence.
    type Dropped: Default + Send;

    /// Makes requests of a slab's datagrams, in their order, and counts those that it drops.
    fn admit(&mut self, slab: &mut Slab, requests: &mut Vec<Self::Request>, dropped: &mut Self::Dropped);
}

/// What has arrived with one receive: the datagrams, and what admission has made of them.
#[derive(Debug)]
pub struct Arrivals<A: Admit> {
    /// The datagrams. The requests refer to its bytes.
    pub slab: Slab,
    requests: Vec<A::Request>,
    dropped: A::Dropped,
}

impl<A: Admit> Arrivals<A> {
    /// None yet, over a slab that may be filled.
    pub fn new(slab: Slab) -> Self {
        Self { slab, requests: Vec::new(), dropped: A::Dropped::default() }
    }

    /// Takes in what the slab holds now; what was admitted before is forgotten.
    pub fn admit(&mut self, admission: &mut A) {
        self.requests.clear();
        self.dropped = A::Dropped::default();
        admission.admit(&mut self.slab, &mut self.requests, &mut self.dropped);
    }

    /// What needs an answer, in the order of arrival.
    pub fn requests(&self) -> &[A::Request] {
        &self.requests
    }

    /// What was dropped in silence.
    pub fn dropped(&self) -> &A::Dropped {
        &self.dropped
    }
}
