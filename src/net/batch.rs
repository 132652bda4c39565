//! A reusable slab of received datagrams, decoded in place: what a receiver hands on and gets back.

use std::ops::Range;

use duragram_proto::codec::{self, Datagram, DecodeError, RejectCode};
use duragram_proto::{ClientId, Seq};

use crate::net::Peer;
use crate::types::{ChannelSet, Now, SessionId};

/// What the server accepts of well-formed datagrams; the rest is answered with a REJECT.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The longest UDP payload accepted, in bytes.
    pub datagram_bytes_max: usize,
    /// The channels accepted; `None` for all.
    pub channels: Option<ChannelSet>,
}

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
    pub fn push(&mut self, peer: Peer, datagram: &[u8], admission: &Admission) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.decode(start..self.bytes.len(), peer, admission);
    }

    /// Decodes and verifies the datagram that stands at `range` of the buffer.
    pub(super) fn decode(&mut self, range: Range<usize>, peer: Peer, admission: &Admission) {
        let datagram = &self.bytes[range.clone()];
        let len = datagram.len();
        self.received_bytes += len as u64;
        let kind = match codec::decode(datagram) {
            Ok(Datagram::Data(data)) => {
                let code = admission.refuses(len, &data);
                match code {
                    Some(code) => {
                        let epoch = data.epoch.value();
                        ItemKind::Refused { client: data.client, epoch, seq: data.seq.0, code }
                    }
                    None => {
                        let start = range.start + codec::HEADER_LEN + 4;
                        ItemKind::Data(DataItem {
                            session: SessionId { client: data.client, epoch: data.epoch },
                            seq: data.seq,
                            span: data.span,
                            channel: data.channel,
                            batch: data.batch,
                            skip: data.skip,
                            payload: index(start)..index(start + data.payload.len()),
                        })
                    }
                }
            }
            Ok(Datagram::Hello(hello)) => ItemKind::Hello { client: hello.client, nonce: hello.nonce },
            Ok(Datagram::Ping(ping)) => ItemKind::Ping(SessionId { client: ping.client, epoch: ping.epoch }),
            Ok(Datagram::Ack(_) | Datagram::Reject(_) | Datagram::Welcome(_)) => {
                self.dropped.wrong_direction += 1;
                return;
            }
            Err(DecodeError::Version { client, epoch, seq }) => {
                ItemKind::Refused { client, epoch, seq, code: RejectCode::Version }
            }
            Err(error) => {
                self.dropped.count(error);
                return;
            }
        };
        self.items.push(Item { peer, len, kind });
    }
}

impl Admission {
    fn refuses(&self, len: usize, data: &codec::Data<'_>) -> Option<RejectCode> {
        if len > self.datagram_bytes_max {
            Some(RejectCode::TooLarge)
        } else if !data.is_supported() {
            Some(RejectCode::Unsupported)
        } else if self.channels.as_ref().is_some_and(|set| !set.contains(data.channel)) {
            Some(RejectCode::Channel)
        } else {
            None
        }
    }
}

impl Dropped {
    fn count(&mut self, error: DecodeError) {
        let counter = match error {
            DecodeError::Truncated => &mut self.truncated,
            DecodeError::Checksum => &mut self.checksum,
            DecodeError::UnknownType => &mut self.unknown_type,
            DecodeError::Sealed | DecodeError::NotSealed | DecodeError::BadSeal => &mut self.sealed,
            DecodeError::Malformed | DecodeError::BrokenBatch | DecodeError::Version { .. } => &mut self.malformed,
        };
        *counter += 1;
    }
}

/// A place in a slab. Slabs are a few MiB (`limits`).
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a slab is smaller than 4 GiB")
}
