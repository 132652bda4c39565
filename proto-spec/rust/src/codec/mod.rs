//! Datagrams to bytes and back (PROTOCOL.md#datagrams). All integers are little-endian; nothing is allocated.

mod decode;
mod encode;
#[cfg(feature = "sealed")]
mod sealed;

use crate::{ClientId, Epoch, Seq};

pub use decode::{decode, decode_version_refusal};
#[cfg(feature = "sealed")]
pub(crate) use sealed::is_answer;
#[cfg(feature = "sealed")]
pub use sealed::{KeysOf, SealedHead, Side, peek, unseal_reply, unseal_request};

/// Bytes of the common header.
pub const HEADER_LEN: usize = 24;
/// Bytes of the plain trailer, a CRC-32.
pub const CRC_LEN: usize = 4;
/// The shortest plain datagram of any type, so also the shortest reply.
pub const MIN_LEN: usize = HEADER_LEN + 4 + CRC_LEN;
/// The longest bitmap of an ACK, in bytes.
pub const BITMAP_LEN_MAX: usize = 128;
/// The longest ACK, in bytes.
pub const ACK_LEN_MAX: usize = MIN_LEN + BITMAP_LEN_MAX;
/// The shortest sealed datagram of any type: a counter more, and a tag in place of the CRC-32.
pub const SEALED_MIN_LEN: usize = HEADER_LEN + 4 + 8 + 16;
/// The longest sealed ACK, in bytes.
pub const SEALED_ACK_LEN_MAX: usize = SEALED_MIN_LEN + BITMAP_LEN_MAX;
/// The UDP payload that a client should keep to, in bytes.
pub const DATAGRAM_LEN_RECOMMENDED: usize = 1200;
/// The longest UDP payload over IPv4, in bytes.
pub const DATAGRAM_LEN_MAX: usize = 65_507;
/// This protocol's version, the high nibble of the first byte.
pub const VERSION: u8 = 1;

const TYPE_DATA: u8 = 1;
const TYPE_ACK: u8 = 2;
const TYPE_REJECT: u8 = 3;
const TYPE_HELLO: u8 = 4;
const TYPE_WELCOME: u8 = 5;
const TYPE_PING: u8 = 6;
const TYPE_ANSWER: u8 = 7;
const TYPE_TAKE: u8 = 8;

const DATA_ATTEMPT: u8 = 0b0000_0111;
const SEALED: u8 = 0b0000_1000;
const DATA_BEGIN: u8 = 0b0001_0000;
const DATA_END: u8 = 0b0010_0000;
const DATA_BATCH: u8 = 0b0100_0000;
const DATA_SKIP: u8 = 0b1000_0000;
const ACK_DURABILITY: u8 = 0b0000_0011;
const ACK_DUPLICATE: u8 = 0b0001_0000;
const ACK_READY: u8 = 0b0010_0000;
const ACK_COMPLETE: u8 = 0b0100_0000;

/// The option of a DATA whose sender wants an answer (PROTOCOL.md#ask).
pub const OPTION_ASK: u16 = 2;

/// One datagram of any type, borrowing its variable part from the receive buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Datagram<'a> {
    /// A client sends a message to the server.
    Data(Data<'a>),
    /// Server to client: what is on disk.
    Ack(Ack<'a>),
    /// The server refuses a datagram, and tells the client why.
    Reject(Reject),
    /// Client to server: asks for an epoch.
    Hello(Hello),
    /// The server tells the client the epoch that it asked for.
    Welcome(Welcome),
    /// Client to server: asks for the session's ACK.
    Ping(Ping),
    /// Server to client: what became of a message that asked.
    Answer(Answer<'a>),
    /// Client to server: takes the answer to a message that asked.
    Take(Take),
}

/// It carries one message, or a batch of records, to the server (PROTOCOL.md#data).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Data<'a> {
    /// The client that sends it.
    pub client: ClientId,
    /// The client sends it in this run.
    pub epoch: Epoch,
    /// The message has this number in its epoch, and never 0.
    pub seq: Seq,
    /// `seq` minus the lowest seq that the client still holds unacked; below `seq`.
    pub span: u16,
    /// 0 on the first transmission, saturates at 7.
    pub attempt: u8,
    /// First fragment of a message. Set with `end` on a whole message.
    pub begin: bool,
    /// Last fragment of a message.
    pub end: bool,
    /// The payload is a run of records, verified when decoded.
    pub batch: bool,
    /// The client has abandoned a seq below `base`.
    pub skip: bool,
    /// The application routes by this number, which the protocol only carries.
    pub channel: u16,
    /// 0, or [`OPTION_ASK`]; carried whole so that the server can answer UNSUPPORTED to what it does not know.
    pub options: u16,
    /// The message, or the run of records of a batch.
    pub payload: &'a [u8],
}

/// It tells a client what is accounted for (PROTOCOL.md#ack).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The server sends it to this client.
    pub client: ClientId,
    /// It tells of the session that the client has in this epoch.
    pub epoch: Epoch,
    /// Every seq up to here is accounted for.
    pub floor: Seq,
    /// The client may send any seq ≤ floor + credit.
    pub credit: u16,
    /// What is accounted for is safe to this degree.
    pub durability: Durability,
    /// Nothing new in this ack.
    pub duplicate: bool,
    /// Floor and bitmap tell of all that is journaled of this session: what lies beyond the bitmap's end is not.
    pub complete: bool,
    /// An answer of this session waits to be taken.
    pub ready: bool,
    /// From the arrival of the newest datagram covered to the sending of this ack, in microseconds.
    pub delay_us: u32,
    /// Bit i, least significant first, stands for seq `floor + 1 + i`. A multiple of 8 bytes, at most 128.
    pub bitmap: &'a [u8],
}

/// How safe an acked message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Durability {
    /// It was synced to disk, and survives a power cut.
    Synced = 0,
    /// Handed to the operating system.
    Handed = 1,
    /// It survives the loss of the server's machine: others have it too.
    Replicated = 2,
}

/// It tells a client why a datagram was not taken (PROTOCOL.md#reject).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    /// The server sends it to this client.
    pub client: ClientId,
    /// The epoch of what was refused; 0 when a HELLO was.
    pub epoch: u32,
    /// The code tells the client what to do about it.
    pub code: RejectCode,
    /// The refused seq; the nonce when a HELLO was refused; 0 for a PING.
    pub refused: u64,
    /// When to try again, in milliseconds; 0 when that makes no sense.
    pub retry_after_ms: u32,
}

/// Why a datagram was refused. Codes unknown to this version are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RejectCode {
    /// 1: the datagram has another protocol version than the server.
    Version,
    /// 2: a feature that this server does not have.
    Unsupported,
    /// 3: the datagram is longer than the server accepts.
    TooLarge,
    /// 4: the session cannot go on; take a new epoch.
    StaleEpoch,
    /// 5: the seq lies beyond floor + window; the client waits for credit.
    BeyondWindow,
    /// 6: no room for another session now.
    Busy,
    /// 7: the disk has no room for it now.
    Storage,
    /// 8: the server does not accept this channel.
    Channel,
    /// 9: the server takes sealed traffic alone.
    SealedOnly,
    /// A code of a later version.
    Unknown(u16),
}

/// It asks the server for an epoch that this client never had (PROTOCOL.md#hello).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The client that asks for an epoch.
    pub client: ClientId,
    /// A random number that the WELCOME echoes: an old WELCOME answers no new HELLO.
    pub nonce: u64,
}

/// It gives a client a new epoch (PROTOCOL.md#welcome).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The server sends it to this client.
    pub client: ClientId,
    /// The new epoch, on disk before this was sent.
    pub epoch: Epoch,
    /// The client may send seqs up to this one before the first ACK.
    pub credit: u16,
    /// The HELLO that it answers had this nonce.
    pub nonce: u64,
}

/// It asks the server for the session's ACK (PROTOCOL.md#ping).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ping {
    /// The client that asks for an ACK.
    pub client: ClientId,
    /// For which of its runs.
    pub epoch: Epoch,
}

/// It tells a client what became of a message that asked (PROTOCOL.md#answer).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    /// The server sends it to this client.
    pub client: ClientId,
    /// The message was sent in this run of the client.
    pub epoch: Epoch,
    /// The message that asked has this number in its epoch.
    pub seq: Seq,
    /// The status decides what `number` and `body` mean.
    pub status: AnswerStatus,
    /// Of DONE and FAILED the length of the whole body, in bytes; of PENDING when to ask again, in milliseconds; of GONE 0.
    pub number: u32,
    /// Of DONE and FAILED the whole body, or nothing where it did not fit; else nothing.
    pub body: &'a [u8],
}

/// What became of a message that asked. Statuses unknown to this version are kept as they came; a client takes them for
/// `Pending`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerStatus {
    /// 0: the message was processed.
    Done,
    /// 1: the message was given up.
    Failed,
    /// 2: the message is on disk, and not answered yet.
    Pending,
    /// 3: no answer will come, now or later.
    Gone,
    /// A status of a later version.
    Unknown(u16),
}

/// It asks for the answer to a message, and tells which are had (PROTOCOL.md#take).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Take {
    /// The client with this id has asked, and takes.
    pub client: ClientId,
    /// In which of its runs it asked.
    pub epoch: Epoch,
    /// The message whose answer is wanted. Never 0.
    pub seq: Seq,
    /// Answers below `seq - span` are had or not wanted; below `seq`.
    pub span: u16,
    /// How long the server may hold it until the answer is there, in milliseconds; 0 for an answer now.
    pub wait_ms: u32,
    /// How many bytes of body the answer has room for: so many zeros are sent.
    pub room: usize,
}

/// Why bytes are not a datagram of this protocol. All but `Version` are dropped in silence (PROTOCOL.md#silence).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Shorter than the type's fixed part.
    Truncated,
    /// The CRC-32 does not match.
    Checksum,
    /// Another version, with a valid CRC-32: the one error that is answered.
    Version {
        /// As far as a later version keeps the header's places.
        client: ClientId,
        /// As far as a later version keeps its place too.
        epoch: u32,
        /// As far as a later version keeps its place too.
        seq: u64,
    },
    /// Type 0 or 9 to 15, or another version's REJECT.
    UnknownType,
    /// SEALED is set where plain datagrams are decoded.
    Sealed,
    /// Not a sealed datagram of this version, where only those are decoded.
    NotSealed,
    /// The tag does not match: another key, or not as it was sealed.
    BadSeal,
    /// Epoch 0, seq 0, span ≥ seq, a non-zero field that must be 0, a bad bitmap.
    Malformed,
    /// BATCH is set and the payload is not a run of at least one record that ends exactly at its end.
    BrokenBatch,
}

/// The slice given to an encoder is shorter than the datagram. Nothing of use was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferTooSmall;

impl<'a> Data<'a> {
    /// The first transmission of a whole message on channel 0.
    pub const fn whole(client: ClientId, epoch: Epoch, seq: Seq, span: u16, payload: &'a [u8]) -> Self {
        Self {
            client,
            epoch,
            seq,
            span,
            attempt: 0,
            begin: true,
            end: true,
            batch: false,
            skip: false,
            channel: 0,
            options: 0,
            payload,
        }
    }

    /// The lowest seq that the client still holds unacked.
    pub fn base(&self) -> Seq {
        Seq(self.seq.0 - u64::from(self.span))
    }

    /// Whether version 1 has all that this datagram asks for: no fragments, no unknown options, and one answer at most.
    pub fn is_supported(&self) -> bool {
        self.begin && self.end && (self.options == 0 || (self.options == OPTION_ASK && !self.batch))
    }

    /// Whether its sender wants an answer.
    pub fn asks(&self) -> bool {
        self.options & OPTION_ASK != 0
    }

    /// The application's records: the whole payload, or each record of a batch.
    pub fn records(&self) -> Records<'a> {
        if self.batch { Records::new(self.payload) } else { Records::whole(self.payload) }
    }
}

impl Take {
    /// Answers of asks below are had or not wanted.
    pub fn base(&self) -> Seq {
        Seq(self.seq.0 - u64::from(self.span))
    }
}

impl AnswerStatus {
    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Pending => 2,
            Self::Gone => 3,
            Self::Unknown(status) => status,
        }
    }

    /// The meaning of a number on the wire.
    pub const fn from_wire(status: u16) -> Self {
        match status {
            0 => Self::Done,
            1 => Self::Failed,
            2 => Self::Pending,
            3 => Self::Gone,
            other => Self::Unknown(other),
        }
    }

    /// Whether it has a body, and nothing more comes after it but the same.
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// Whether a payload is what BATCH promises: a run of at least one record that ends exactly at its end.
pub fn is_batch(payload: &[u8]) -> bool {
    let mut records = Records::new(payload);
    let first = records.next();
    records.by_ref().for_each(drop);
    first.is_some() && !records.broken
}

/// Iterates over the records of a payload.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    whole: bool,
    broken: bool,
}

impl<'a> Records<'a> {
    /// Over a batch: each record is `len` u16 and `len` bytes. Ends early where the run is broken.
    pub fn new(batch: &'a [u8]) -> Self {
        Self { rest: batch, whole: false, broken: false }
    }

    fn stop(&mut self) -> Option<&'a [u8]> {
        self.broken = true;
        self.rest = &[];
        None
    }

    /// Over a payload that is one record, also when it is empty.
    pub fn whole(payload: &'a [u8]) -> Self {
        Self { rest: payload, whole: true, broken: false }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.whole {
            self.whole = false;
            return Some(core::mem::take(&mut self.rest));
        }
        if self.rest.is_empty() {
            return None;
        }
        let Some((len, rest)) = self.rest.split_first_chunk::<2>() else {
            return self.stop();
        };
        let len = usize::from(u16::from_le_bytes(*len));
        if rest.len() < len {
            return self.stop();
        }
        let (record, rest) = rest.split_at(len);
        self.rest = rest;
        Some(record)
    }
}

impl RejectCode {
    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Version => 1,
            Self::Unsupported => 2,
            Self::TooLarge => 3,
            Self::StaleEpoch => 4,
            Self::BeyondWindow => 5,
            Self::Busy => 6,
            Self::Storage => 7,
            Self::Channel => 8,
            Self::SealedOnly => 9,
            Self::Unknown(code) => code,
        }
    }

    /// The meaning of a number on the wire.
    pub const fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::Version,
            2 => Self::Unsupported,
            3 => Self::TooLarge,
            4 => Self::StaleEpoch,
            5 => Self::BeyondWindow,
            6 => Self::Busy,
            7 => Self::Storage,
            8 => Self::Channel,
            9 => Self::SealedOnly,
            other => Self::Unknown(other),
        }
    }
}

#[cfg(test)]
mod tests;
