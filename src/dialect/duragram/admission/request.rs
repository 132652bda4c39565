//! What a datagram asks for, once it is verified and opened.

use std::ops::Range;
use std::sync::Arc;

use duragram_proto::codec::{self, RejectCode};
use duragram_proto::{ClientId, Seq};

use crate::keys::SessionKeys;
use crate::model::{Peer, SessionId};

/// One datagram that needs an answer.
#[derive(Clone, Debug)]
pub struct Request {
    /// The answer goes back to this peer.
    pub peer: Peer,
    /// The datagram's length in bytes; no answer is longer.
    pub len: usize,
    /// The sender asks for this.
    pub kind: RequestKind,
    /// How it was sealed, if it was: the answer is sealed with the same keys.
    pub seal: Option<Seal>,
}

/// The seal of a datagram, which was verified.
#[derive(Clone, Debug)]
pub struct Seal {
    /// The keys of the session, or those of HELLO.
    pub keys: Arc<SessionKeys>,
    /// The number that the client gave to this transmission, and to no other.
    pub counter: u64,
}

/// What a datagram asks for.
#[derive(Clone, Debug)]
pub enum RequestKind {
    /// A message is to be journaled.
    Data(DataRequest),
    /// The client asks for an epoch.
    Hello {
        /// The client that asks for it.
        client: ClientId,
        /// The number that the answer repeats.
        nonce: u64,
    },
    /// The client asks for the session's ACK.
    Ping(SessionId),
    /// The client takes the answer to a message that asked.
    Take(TakeRequest),
    /// The datagram is refused by what it is, whatever the session's state.
    Refused {
        /// The client in whose name it came.
        client: ClientId,
        /// The epoch that the datagram names, unchecked.
        epoch: u32,
        /// The seq or nonce that the datagram names, unchecked.
        seq: u64,
        /// The reason that the REJECT gives.
        code: RejectCode,
    },
}

/// A TAKE. How many bytes of body its answer has room for follows from the datagram's length.
#[derive(Clone, Copy, Debug)]
pub struct TakeRequest {
    /// The session that it belongs to.
    pub session: SessionId,
    /// The message whose answer is wanted.
    pub seq: Seq,
    /// Answers below `seq - span` are had or not wanted.
    pub span: u16,
    /// How long it may be held, in milliseconds.
    pub wait_ms: u32,
}

/// A DATA datagram that passed all checks which need no session.
#[derive(Clone, Debug)]
pub struct DataRequest {
    /// The session that it belongs to.
    pub session: SessionId,
    /// Its number within the session.
    pub seq: Seq,
    /// `seq` minus the lowest seq that the client holds unacked.
    pub span: u16,
    /// The application routes by this number.
    pub channel: u16,
    /// The payload is a well-formed run of records.
    pub batch: bool,
    /// The client has abandoned seqs below its base.
    pub skip: bool,
    /// Its sender wants an answer.
    pub asks: bool,
    /// Where the payload stands in the slab.
    pub payload: Range<u32>,
}

impl DataRequest {
    /// `payload_at` is where the payload begins in the slab.
    pub(super) fn new(data: &codec::Data<'_>, payload_at: usize) -> Self {
        Self {
            session: SessionId { client: data.client, epoch: data.epoch },
            seq: data.seq,
            span: data.span,
            channel: data.channel,
            batch: data.batch,
            skip: data.skip,
            asks: data.asks(),
            payload: index(payload_at)..index(payload_at + data.payload.len()),
        }
    }
}

/// A place in a slab. Slabs are a few MiB (`limits`).
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a slab is smaller than 4 GiB")
}
