//! Reads datagrams from bytes, and trusts none of them.

use super::{
    ACK_COMPLETE, ACK_DUPLICATE, ACK_DURABILITY, ACK_READY, Ack, Answer, AnswerStatus, BITMAP_LEN_MAX, CRC_LEN,
    DATA_ATTEMPT, DATA_BATCH, DATA_BEGIN, DATA_END, DATA_SKIP, Data, Datagram, DecodeError, Durability, HEADER_LEN,
    Hello, MIN_LEN, Ping, Reject, RejectCode, SEALED, TYPE_ACK, TYPE_ANSWER, TYPE_DATA, TYPE_HELLO, TYPE_PING,
    TYPE_REJECT, TYPE_TAKE, TYPE_WELCOME, Take, VERSION, Welcome, is_batch,
};
use crate::{ClientId, Epoch, Seq};

/// Parses and verifies one plain datagram.
///
/// The checksum is verified before anything else is looked at, so that foreign traffic is never answered.
pub fn decode(bytes: &[u8]) -> Result<Datagram<'_>, DecodeError> {
    let (head, rest) = verified_body(bytes)?;
    let client = ClientId(u64_at(head, 8));
    let epoch = u32_at(head, 4);
    let seq = u64_at(head, 16);
    if head[0] >> 4 != VERSION {
        // Of all types REJECT alone keeps its number in every version, so that no two servers ever answer each other.
        let is_reject = head[0] & 0x0f == TYPE_REJECT;
        return Err(if is_reject { DecodeError::UnknownType } else { DecodeError::Version { client, epoch, seq } });
    }
    let datagram = fields(head, rest)?;
    check_batch(&datagram)?;
    Ok(datagram)
}

/// A datagram of this version, of whose trailer nothing is known here. `rest` is what stands between the fixed part and
/// the trailer; whether it is the batch that it may claim to be is for [`check_batch`].
#[inline]
pub(super) fn fields<'a>(head: &Head, rest: &'a [u8]) -> Result<Datagram<'a>, DecodeError> {
    let client = ClientId(u64_at(head, 8));
    let epoch = u32_at(head, 4);
    let seq = u64_at(head, 16);
    let flags = head[1] & !SEALED;
    let small = u16_at(head, 2);
    let word = u32_at(head, HEADER_LEN);
    let fixed = rest.is_empty();
    match head[0] & 0x0f {
        TYPE_DATA => data_fields(head, rest).map(Datagram::Data),
        TYPE_ACK => {
            let bitmap = rest;
            if bitmap.len() > BITMAP_LEN_MAX || !bitmap.len().is_multiple_of(8) {
                return Err(DecodeError::Malformed);
            }
            Ok(Datagram::Ack(Ack {
                client,
                epoch: Epoch::new(epoch).ok_or(DecodeError::Malformed)?,
                floor: Seq(seq),
                credit: small,
                durability: match flags & ACK_DURABILITY {
                    0 => Durability::Synced,
                    1 => Durability::Handed,
                    2 => Durability::Replicated,
                    _ => return Err(DecodeError::Malformed),
                },
                duplicate: flags & ACK_DUPLICATE != 0,
                complete: flags & ACK_COMPLETE != 0,
                ready: flags & ACK_READY != 0,
                delay_us: word,
                bitmap,
            }))
        }
        TYPE_REJECT if fixed => Ok(Datagram::Reject(Reject {
            client,
            epoch,
            code: RejectCode::from_wire(small),
            refused: seq,
            retry_after_ms: word,
        })),
        TYPE_HELLO if fixed && epoch == 0 && flags == 0 && small == 0 && word == 0 => {
            Ok(Datagram::Hello(Hello { client, nonce: seq }))
        }
        TYPE_WELCOME if fixed && word == 0 => Ok(Datagram::Welcome(Welcome {
            client,
            epoch: Epoch::new(epoch).ok_or(DecodeError::Malformed)?,
            credit: small,
            nonce: seq,
        })),
        TYPE_PING if fixed && seq == 0 && flags == 0 && small == 0 && word == 0 => {
            Ok(Datagram::Ping(Ping { client, epoch: Epoch::new(epoch).ok_or(DecodeError::Malformed)? }))
        }
        TYPE_ANSWER => answer_fields(head, rest).map(Datagram::Answer),
        TYPE_TAKE => take_fields(head, rest).map(Datagram::Take),
        TYPE_REJECT | TYPE_HELLO | TYPE_WELCOME | TYPE_PING => Err(DecodeError::Malformed),
        _ => Err(DecodeError::UnknownType),
    }
}

/// Parses another version's REJECT of code VERSION: how a server says that it does not speak this one
/// (PROTOCOL.md#versions). `None` for everything else, a REJECT of this version included.
pub fn decode_version_refusal(bytes: &[u8]) -> Option<Reject> {
    let (head, _) = verified_body(bytes).ok()?;
    let code = RejectCode::from_wire(u16_at(head, 2));
    let refusal = head[0] >> 4 != VERSION && head[0] & 0x0f == TYPE_REJECT && code == RejectCode::Version;
    refusal.then(|| Reject {
        client: ClientId(u64_at(head, 8)),
        epoch: u32_at(head, 4),
        code,
        refused: u64_at(head, 16),
        retry_after_ms: u32_at(head, HEADER_LEN),
    })
}

/// The header and the four bytes after it, which every type has: their places need no check when they are read.
pub(super) type Head = [u8; HEADER_LEN + 4];

/// What stands before the trailer, if the checksum is right.
#[inline]
fn verified_body(bytes: &[u8]) -> Result<(&Head, &[u8]), DecodeError> {
    if bytes.len() < MIN_LEN {
        return Err(DecodeError::Truncated);
    }
    if bytes[0] >> 4 == VERSION && bytes[1] & SEALED != 0 {
        return Err(DecodeError::Sealed);
    }
    let (body, trailer) = bytes.split_at(bytes.len() - CRC_LEN);
    if trailer != crc32fast::hash(body).to_le_bytes() {
        return Err(DecodeError::Checksum);
    }
    body.split_first_chunk().ok_or(DecodeError::Truncated)
}

#[inline]
fn data_fields<'a>(head: &Head, payload: &'a [u8]) -> Result<Data<'a>, DecodeError> {
    let (seq, flags, span) = (u64_at(head, 16), head[1], u16_at(head, 2));
    let epoch = Epoch::new(u32_at(head, 4)).ok_or(DecodeError::Malformed)?;
    if u64::from(span) >= seq {
        return Err(DecodeError::Malformed);
    }
    Ok(Data {
        client: ClientId(u64_at(head, 8)),
        epoch,
        seq: Seq(seq),
        span,
        attempt: flags & DATA_ATTEMPT,
        begin: flags & DATA_BEGIN != 0,
        end: flags & DATA_END != 0,
        batch: flags & DATA_BATCH != 0,
        skip: flags & DATA_SKIP != 0,
        channel: u16_at(head, HEADER_LEN),
        options: u16_at(head, HEADER_LEN + 2),
        payload,
    })
}

/// `body` is the body as it came: in a sealed datagram of which nothing is verified yet its ciphertext, as long as the body.
fn answer_fields<'a>(head: &Head, body: &'a [u8]) -> Result<Answer<'a>, DecodeError> {
    let (status, number) = (AnswerStatus::from_wire(u16_at(head, 2)), u32_at(head, HEADER_LEN));
    let answer = Answer {
        client: ClientId(u64_at(head, 8)),
        epoch: Epoch::new(u32_at(head, 4)).ok_or(DecodeError::Malformed)?,
        seq: Seq(u64_at(head, 16)),
        status,
        number,
        body,
    };
    let fits = match status {
        AnswerStatus::Done | AnswerStatus::Failed => body.is_empty() || body.len() as u64 == u64::from(number),
        AnswerStatus::Pending => body.is_empty(),
        AnswerStatus::Gone => body.is_empty() && number == 0,
        AnswerStatus::Unknown(_) => true,
    };
    if answer.seq == Seq::ZERO || head[1] & !SEALED != 0 || !fits {
        return Err(DecodeError::Malformed);
    }
    Ok(answer)
}

fn take_fields(head: &Head, zeros: &[u8]) -> Result<Take, DecodeError> {
    let (seq, span) = (u64_at(head, 16), u16_at(head, 2));
    let epoch = Epoch::new(u32_at(head, 4)).ok_or(DecodeError::Malformed)?;
    if u64::from(span) >= seq || head[1] & !SEALED != 0 || zeros.iter().any(|&byte| byte != 0) {
        return Err(DecodeError::Malformed);
    }
    Ok(Take {
        client: ClientId(u64_at(head, 8)),
        epoch,
        seq: Seq(seq),
        span,
        wait_ms: u32_at(head, HEADER_LEN),
        room: zeros.len(),
    })
}

/// A DATA that claims to be a batch must be one.
#[inline]
pub(super) fn check_batch(datagram: &Datagram<'_>) -> Result<(), DecodeError> {
    match datagram {
        // What version 1 does not have is refused by its name, not taken for a broken batch.
        Datagram::Data(data) if data.batch && data.is_supported() && !is_batch(data.payload) => {
            Err(DecodeError::BrokenBatch)
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn u16_at(head: &Head, at: usize) -> u16 {
    u16::from_le_bytes([head[at], head[at + 1]])
}

#[inline(always)]
fn u32_at(head: &Head, at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

#[inline(always)]
fn u64_at(head: &Head, at: usize) -> u64 {
    u64::from(u32_at(head, at)) | u64::from(u32_at(head, at + 4)) << 32
}
