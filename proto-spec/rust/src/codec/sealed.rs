//! Sealed datagrams to bytes and back (PROTOCOL.md#sealed-layout).
//!
//! The header is in clear, so that who receives a datagram finds its keys with [`peek`]; nothing that `peek` tells is true
//! before the datagram was unsealed with them. Unsealing writes where the datagram stands and allocates nothing.

use super::decode::{Head, check_batch, fields};
use super::encode::Fields;
use super::{
    Ack, Answer, BufferTooSmall, Data, Datagram, DecodeError, HEADER_LEN, Hello, Ping, Reject, SEALED, SEALED_MIN_LEN,
    TYPE_ANSWER, TYPE_DATA, TYPE_HELLO, TYPE_PING, TYPE_TAKE, Take, VERSION, Welcome,
};
use crate::seal::{Cipher, Direction, SessionKeys, TAG_LEN};
use crate::{ClientId, Epoch};

/// What is in clear before the payload or the bitmap: header, word and counter.
const CLEAR_LEN: usize = HEADER_LEN + 4 + 8;

/// What a sealed datagram says of itself: enough to find the keys that show whether it is true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedHead {
    /// The client whose keys have sealed it.
    pub client: ClientId,
    /// It was sealed with these of the client's keys.
    pub keys: KeysOf,
    /// The number that no other datagram under these keys has.
    pub counter: u64,
    /// Who sends datagrams of this type.
    pub sender: Side,
}

/// Under which keys of a client a datagram is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeysOf {
    /// The keys of the session in this epoch seal all that belongs to it.
    Session(Epoch),
    /// Those of epoch 0: HELLO, WELCOME, and the REJECT of a HELLO, each with the HELLO's nonce.
    Hello {
        /// The HELLO and the reply to it carry this nonce.
        nonce: u64,
    },
}

/// One end of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Sends DATA, HELLO, PING and TAKE.
    Client,
    /// Sends ACK, REJECT, WELCOME and ANSWER.
    Server,
}

impl KeysOf {
    /// Returns the epoch as [`ClientKey::keys`](crate::seal::ClientKey::keys) takes it.
    pub fn epoch(self) -> Option<Epoch> {
        match self {
            Self::Session(epoch) => Some(epoch),
            Self::Hello { .. } => None,
        }
    }
}

/// Reads the clear part of a sealed datagram and checks what can be checked without its keys: length, type, fields.
///
/// `Err(NotSealed)` for what is not a sealed datagram of this version.
pub fn peek(bytes: &[u8]) -> Result<SealedHead, DecodeError> {
    let (head, counter, rest) = parts(bytes)?;
    let (client, keys, sender) = match fields(head, rest)? {
        Datagram::Data(data) => (data.client, KeysOf::Session(data.epoch), Side::Client),
        Datagram::Ping(ping) => (ping.client, KeysOf::Session(ping.epoch), Side::Client),
        Datagram::Take(take) => (take.client, KeysOf::Session(take.epoch), Side::Client),
        Datagram::Answer(answer) => (answer.client, KeysOf::Session(answer.epoch), Side::Server),
        // PROTOCOL.md#sealed-counter: any other counter could meet another HELLO's.
        Datagram::Hello(hello) if hello.nonce != counter => return Err(DecodeError::Malformed),
        Datagram::Hello(hello) => (hello.client, KeysOf::Hello { nonce: hello.nonce }, Side::Client),
        Datagram::Ack(ack) => (ack.client, KeysOf::Session(ack.epoch), Side::Server),
        Datagram::Welcome(welcome) => (welcome.client, KeysOf::Hello { nonce: welcome.nonce }, Side::Server),
        Datagram::Reject(reject) => {
            let session = Epoch::new(reject.epoch).map(KeysOf::Session);
            (reject.client, session.unwrap_or(KeysOf::Hello { nonce: reject.refused }), Side::Server)
        }
    };
    Ok(SealedHead { client, keys, counter, sender })
}

/// Whether a datagram says that it is an ANSWER.
pub(crate) fn is_answer(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first & 0x0f == TYPE_ANSWER)
}

/// Verifies a DATA, HELLO, PING or TAKE, and decrypts a DATA's payload in place. `keys` are those that [`peek`] names.
///
/// `Err(UnknownType)` for the types that only a server sends. After any error but `BrokenBatch` the bytes are as they were;
/// only a [`Cipher`] other than [`Portable`](crate::seal::Portable) may leave zeros in place of what was encrypted.
pub fn unseal_request<'a>(bytes: &'a mut [u8], keys: &SessionKeys<impl Cipher>) -> Result<Datagram<'a>, DecodeError> {
    let SealedHead { counter, sender, .. } = peek(bytes)?;
    if sender != Side::Client {
        return Err(DecodeError::UnknownType);
    }
    let is_data = bytes[0] & 0x0f == TYPE_DATA;
    let (body, tag) = bytes.split_last_chunk_mut::<TAG_LEN>().ok_or(DecodeError::Truncated)?;
    let clear_len = if is_data { CLEAR_LEN } else { body.len() };
    let (clear, text) = body.split_at_mut_checked(clear_len).ok_or(DecodeError::Truncated)?;
    if !keys.open(Direction::ToServer, counter, clear, text, tag) {
        return Err(DecodeError::BadSeal);
    }
    let datagram = opened(is_data, clear, text)?;
    check_batch(&datagram)?;
    Ok(datagram)
}

/// Verifies an ACK, REJECT, WELCOME or ANSWER, and decrypts an ANSWER's body in place. `keys` are those that [`peek`] names.
///
/// `Err(UnknownType)` for the types that only a client sends. After any error the bytes are as they were; only a [`Cipher`]
/// other than [`Portable`](crate::seal::Portable) may leave zeros in place of what was encrypted.
pub fn unseal_reply<'a>(bytes: &'a mut [u8], keys: &SessionKeys<impl Cipher>) -> Result<Datagram<'a>, DecodeError> {
    let SealedHead { counter, sender, .. } = peek(bytes)?;
    if sender != Side::Server {
        return Err(DecodeError::UnknownType);
    }
    let is_answer = is_answer(bytes);
    let (body, tag) = bytes.split_last_chunk_mut::<TAG_LEN>().ok_or(DecodeError::Truncated)?;
    let clear_len = if is_answer { CLEAR_LEN } else { body.len() };
    let (clear, text) = body.split_at_mut_checked(clear_len).ok_or(DecodeError::Truncated)?;
    if !keys.open(Direction::ToClient, counter, clear, text, tag) {
        return Err(DecodeError::BadSeal);
    }
    opened(is_answer, clear, text)
}

/// What a verified datagram says. Its variable part was encrypted, or stands in clear behind the counter.
#[inline]
fn opened<'a>(is_encrypted: bool, clear: &'a [u8], text: &'a [u8]) -> Result<Datagram<'a>, DecodeError> {
    let (head, rest) = clear.split_first_chunk().ok_or(DecodeError::Truncated)?;
    let (_, in_clear) = rest.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
    fields(head, if is_encrypted { text } else { in_clear })
}

/// The first 28 bytes, the counter, and what stands between it and the tag.
#[inline]
fn parts(bytes: &[u8]) -> Result<(&Head, u64, &[u8]), DecodeError> {
    let [first, flags, ..] = *bytes else { return Err(DecodeError::Truncated) };
    if first >> 4 != VERSION || flags & SEALED == 0 {
        return Err(DecodeError::NotSealed);
    }
    let truncated = DecodeError::Truncated;
    let (body, _) = bytes.split_last_chunk::<TAG_LEN>().ok_or(truncated)?;
    let (head, rest) = body.split_first_chunk().ok_or(truncated)?;
    let (counter, rest) = rest.split_first_chunk().ok_or(truncated)?;
    Ok((head, u64::from_le_bytes(*counter), rest))
}

impl Datagram<'_> {
    /// Writes the datagram sealed, with its tag; returns its length in bytes.
    ///
    /// `keys` are those of the session; of HELLO, WELCOME and the REJECT of a HELLO those of epoch 0. **`counter` must never
    /// have been used with these keys in this direction** (PROTOCOL.md#sealed-counter, PROTOCOL.md#sealed-server-counter).
    /// A HELLO takes its nonce instead.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        match self {
            Self::Data(data) => data.seal(keys, counter, out),
            Self::Ack(ack) => ack.seal(keys, counter, out),
            Self::Reject(reject) => reject.seal(keys, counter, out),
            Self::Hello(hello) => hello.seal(keys, out),
            Self::Welcome(welcome) => welcome.seal(keys, counter, out),
            Self::Ping(ping) => ping.seal(keys, counter, out),
            Self::Answer(answer) => answer.seal(keys, counter, out),
            Self::Take(take) => take.seal(keys, counter, out),
        }
    }
}

impl Data<'_> {
    /// Seals it as [`Datagram::seal`] does.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().seal(keys, counter, out)
    }
}

impl Ack<'_> {
    /// Seals it as [`Datagram::seal`] does.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().seal(keys, counter, out)
    }
}

impl Reject {
    /// Seals it as [`Datagram::seal`] does.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().seal(keys, counter, out)
    }
}

impl Hello {
    /// As [`Datagram::seal`], with the nonce as the counter.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().seal(keys, self.nonce, out)
    }
}

impl Welcome {
    /// Seals it as [`Datagram::seal`] does.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().seal(keys, counter, out)
    }
}

impl Ping {
    /// Seals it as [`Datagram::seal`] does.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().seal(keys, counter, out)
    }
}

impl Answer<'_> {
    /// Seals it as [`Datagram::seal`] does.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().seal(keys, counter, out)
    }
}

impl Take {
    /// Seals it as [`Datagram::seal`] does.
    pub fn seal(&self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().seal(keys, counter, out)
    }
}

impl Fields<'_> {
    fn seal(mut self, keys: &SessionKeys<impl Cipher>, counter: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let len = (SEALED_MIN_LEN + self.variable.len()).saturating_add(self.zeros);
        let out = out.get_mut(..len).ok_or(BufferTooSmall)?;
        self.flags |= SEALED;
        self.write_head(&mut out[..HEADER_LEN + 4]);
        out[HEADER_LEN + 4..CLEAR_LEN].copy_from_slice(&counter.to_le_bytes());
        let (body, tag) = out.split_last_chunk_mut::<TAG_LEN>().ok_or(BufferTooSmall)?;
        self.write_variable(&mut body[CLEAR_LEN..]);
        let direction = match self.kind {
            TYPE_DATA | TYPE_HELLO | TYPE_PING | TYPE_TAKE => Direction::ToServer,
            _ => Direction::ToClient,
        };
        let clear_len = if matches!(self.kind, TYPE_DATA | TYPE_ANSWER) { CLEAR_LEN } else { body.len() };
        let (clear, text) = body.split_at_mut(clear_len);
        *tag = keys.seal(direction, counter, clear, text).ok_or(BufferTooSmall)?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
