//! A reusable slab of received datagrams, decoded in place: what a receiver hands on and gets back.

use std::ops::Range;
use std::sync::Arc;

use duragram_proto::codec::{self, DecodeError, RejectCode};
use duragram_proto::seal::SessionKeys;
use duragram_proto::{ClientId, Seq};

use crate::model::{Now, Peer, SessionId};
use crate::net::gate::{Drop, Gate};

/// Datagrams of one receive, with the bytes they borrow.
#[derive(Debug)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    items: Vec<Item>,
    /// When the receive returned.
    pub arrived: Now,
    /// What was dropped in silence.
    pub dropped: Dropped,
    /// UDP payload bytes of all datagrams, dropped ones included.
    pub received_bytes: u64,
}

/// Datagrams dropped in silence, by reason (PROTOCOL.md#silence).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// Shorter than any datagram of the protocol, or cut by the kernel.
    pub truncated: u64,
    /// The CRC-32 does not match: garbled, or not of this protocol.
    pub checksum: u64,
    /// Well checksummed and still against the rules, broken batches among them.
    pub malformed: u64,
    /// Unassigned types.
    pub unknown_type: u64,
    /// What only a server sends.
    pub wrong_direction: u64,
    /// Sealed, and this server has no keys.
    pub sealed: u64,
    /// The tag is wrong: forged, or garbled on the way.
    pub bad_seal: u64,
    /// Sealed for a client of which this server has no key.
    pub unknown_key: u64,
    /// Sealed for a client whose key is revoked.
    pub revoked: u64,
    /// To be refused, but too much from its source was; or of an unknown session, of which too many were forged.
    pub limited: u64,
}

/// One datagram that needs an answer.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where the answer goes.
    pub peer: Peer,
    /// The datagram's length in bytes; no answer is longer.
    pub len: usize,
    /// What it asks for.
    pub kind: ItemKind,
    /// How it was sealed, if it was: the answer is sealed with the same keys.
    pub seal: Option<Seal>,
}

/// A good seal.
#[derive(Clone, Debug)]
pub struct Seal {
    /// Of the session, or of HELLO.
    pub keys: Arc<SessionKeys>,
    /// Which of the transmissions it was.
    pub counter: u64,
}

/// What a datagram asks for.
#[derive(Clone, Debug)]
pub enum ItemKind {
    /// To be journaled.
    Data(DataItem),
    /// An epoch.
    Hello {
        /// Who asks.
        client: ClientId,
        /// To be echoed.
        nonce: u64,
    },
    /// The session's ACK.
    Ping(SessionId),
    /// Refused by what it is, whatever the session's state.
    Refused {
        /// Whom to tell.
        client: ClientId,
        /// As it came.
        epoch: u32,
        /// As it came.
        seq: u64,
        /// Why.
        code: RejectCode,
    },
}

/// A DATA datagram that passed all checks which need no session.
#[derive(Clone, Debug)]
pub struct DataItem {
    /// Whose.
    pub session: SessionId,
    /// Its number.
    pub seq: Seq,
    /// `seq` minus the lowest seq that the client holds unacked.
    pub span: u16,
    /// The application's routing number.
    pub channel: u16,
    /// A run of records, well-formed.
    pub batch: bool,
    /// The client has abandoned seqs below its base.
    pub skip: bool,
    payload: Range<u32>,
}

impl Batch {
    /// A batch over a buffer of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            items: Vec::new(),
            arrived: Now::default(),
            dropped: Dropped::default(),
            received_bytes: 0,
        }
    }

    /// Forgets the datagrams; the buffer stays.
    pub fn clear(&mut self) {
        self.items.clear();
        self.dropped = Dropped::default();
        self.received_bytes = 0;
    }

    /// The datagrams that need an answer, in arrival order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The payload of one of this batch's items.
    pub fn payload(&self, data: &DataItem) -> &[u8] {
        &self.bytes[data.payload.start as usize..data.payload.end as usize]
    }

    /// Adds a datagram by copying it: for tests and the simulator, which have no socket.
    pub fn push(&mut self, peer: Peer, datagram: &[u8], gate: &mut Gate) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.decode(start..self.bytes.len(), peer, gate);
    }

    /// Decodes and verifies the datagram that stands at `range` of the buffer.
    pub(super) fn decode(&mut self, range: Range<usize>, peer: Peer, gate: &mut Gate) {
        self.received_bytes += range.len() as u64;
        let (len, at) = (range.len(), range.start);
        match gate.admit(&mut self.bytes[range], at, peer, self.arrived) {
            Ok((kind, seal)) => self.items.push(Item { peer, len, kind, seal }),
            Err(why) => self.dropped.count(why),
        }
    }
}

impl DataItem {
    pub(super) fn new(data: &codec::Data<'_>, payload_at: usize) -> Self {
        Self {
            session: SessionId { client: data.client, epoch: data.epoch },
            seq: data.seq,
            span: data.span,
            channel: data.channel,
            batch: data.batch,
            skip: data.skip,
            payload: index(payload_at)..index(payload_at + data.payload.len()),
        }
    }
}

impl Dropped {
    fn count(&mut self, why: Drop) {
        let counter = match why {
            Drop::WrongDirection => &mut self.wrong_direction,
            Drop::UnknownKey => &mut self.unknown_key,
            Drop::Revoked => &mut self.revoked,
            Drop::Limited => &mut self.limited,
            Drop::Undecoded(error) => match error {
                DecodeError::Truncated => &mut self.truncated,
                DecodeError::Checksum => &mut self.checksum,
                DecodeError::UnknownType => &mut self.unknown_type,
                DecodeError::BadSeal => &mut self.bad_seal,
                DecodeError::Sealed | DecodeError::NotSealed => &mut self.sealed,
                DecodeError::Malformed | DecodeError::BrokenBatch | DecodeError::Version { .. } => &mut self.malformed,
            },
        };
        *counter += 1;
    }
}

/// A place in a slab. Slabs are a few MiB (`limits`).
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a slab is smaller than 4 GiB")
}
