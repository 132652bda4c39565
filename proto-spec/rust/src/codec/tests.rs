//! Properties of the codec; the bytes themselves are fixed by the golden vectors (`tests/vectors.rs`).

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::{
    Ack, Answer, AnswerStatus, BITMAP_LEN_MAX, BufferTooSmall, Data, Datagram, DecodeError, Durability, Hello, MIN_LEN,
    OPTION_ASK, Ping, Records, Reject, RejectCode, Take, Welcome, decode, decode_version_refusal, is_batch,
};
use crate::{ClientId, Epoch, Seq};

/// The parts of any datagram, owned.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    kind: u8,
    client: ClientId,
    epoch: Epoch,
    long: u64,
    small: u16,
    flags: u8,
    word: u32,
    records: Vec<Vec<u8>>,
}

pub(super) fn parts() -> impl Strategy<Value = Parts> {
    let records = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6);
    (1..9u8, any::<u64>(), 1..=u32::MAX, 1..=u64::MAX, any::<u16>(), any::<u8>(), any::<u32>(), records).prop_map(
        |(kind, client, epoch, long, small, flags, word, records)| Parts {
            kind,
            client: ClientId(client),
            epoch: Epoch::new(epoch).unwrap(),
            long,
            small,
            flags,
            word,
            records,
        },
    )
}

fn batch(records: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for record in records {
        payload.extend_from_slice(&u16::try_from(record.len()).unwrap().to_le_bytes());
        payload.extend_from_slice(record);
    }
    payload
}

/// The datagram that these parts make, its variable part in `variable`.
pub(super) fn datagram<'a>(parts: &Parts, variable: &'a mut Vec<u8>) -> Datagram<'a> {
    let Parts { client, epoch, long, small, flags, word, .. } = *parts;
    *variable = batch(&parts.records);
    match parts.kind {
        1 => Datagram::Data(Data {
            attempt: flags & 7,
            batch: flags & 8 != 0,
            skip: flags & 16 != 0,
            channel: u16::try_from(word & 0xffff).unwrap(),
            options: [0, OPTION_ASK, 1, 0x8002][usize::from(flags >> 6)],
            ..Data::whole(client, epoch, Seq(long), u16::try_from((long - 1).min(u64::from(small))).unwrap(), variable)
        }),
        2 => {
            variable.resize((variable.len() * 8).min(BITMAP_LEN_MAX), 0x5a);
            variable.truncate(variable.len() / 8 * 8);
            Datagram::Ack(Ack {
                client,
                epoch,
                floor: Seq(long),
                credit: small,
                durability: [Durability::Synced, Durability::Handed, Durability::Replicated][usize::from(flags % 3)],
                duplicate: flags & 16 != 0,
                complete: flags & 32 != 0,
                ready: flags & 64 != 0,
                delay_us: word,
                bitmap: variable,
            })
        }
        3 => Datagram::Reject(Reject {
            client,
            epoch: if flags & 1 == 0 { epoch.value() } else { 0 },
            code: RejectCode::from_wire(small),
            refused: long,
            retry_after_ms: word,
        }),
        4 => Datagram::Hello(Hello { client, nonce: long }),
        5 => Datagram::Welcome(Welcome { client, epoch, credit: small, nonce: long }),
        6 => Datagram::Ping(Ping { client, epoch }),
        7 => {
            let status = AnswerStatus::from_wire(u16::from(flags % 5));
            let has_body = flags & 128 != 0 && status != AnswerStatus::Pending && status != AnswerStatus::Gone;
            variable.truncate(if has_body { usize::MAX } else { 0 });
            let number = match status {
                AnswerStatus::Done | AnswerStatus::Failed if has_body => u32::try_from(variable.len()).unwrap(),
                AnswerStatus::Gone => 0,
                _ => word,
            };
            Datagram::Answer(Answer { client, epoch, seq: Seq(long), status, number, body: variable })
        }
        _ => Datagram::Take(Take {
            client,
            epoch,
            seq: Seq(long),
            span: u16::try_from((long - 1).min(u64::from(small))).unwrap(),
            wait_ms: word,
            room: variable.len() / usize::from(flags % 3 + 1),
        }),
    }
}

fn encode(datagram: &Datagram<'_>) -> Vec<u8> {
    let mut out = vec![0xee; 2_000];
    let len = datagram.encode(&mut out).unwrap();
    out.truncate(len);
    out
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(parts in parts()) {
        let mut variable = Vec::new();
        let datagram = datagram(&parts, &mut variable);
        let bytes = encode(&datagram);
        prop_assert_eq!(decode(&bytes), Ok(datagram));
        prop_assert_eq!(decode_version_refusal(&bytes), None);
    }

    #[test]
    fn a_buffer_that_is_too_short_is_refused_and_no_longer_one_is_needed(parts in parts()) {
        let mut variable = Vec::new();
        let datagram = datagram(&parts, &mut variable);
        let bytes = encode(&datagram);
        for len in 0..bytes.len() {
            prop_assert_eq!(datagram.encode(&mut vec![0; len]), Err(BufferTooSmall));
        }
        prop_assert_eq!(datagram.encode(&mut vec![0; bytes.len()]), Ok(bytes.len()));
    }

    #[test]
    fn no_flipped_bits_and_no_cut_pass(parts in parts(), flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        let mut variable = Vec::new();
        let whole = encode(&datagram(&parts, &mut variable));
        let mut bytes = whole.clone();
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if bytes != whole {
            // A flip of the SEALED flag makes it a sealed datagram, which has no CRC.
            prop_assert!(matches!(decode(&bytes), Err(DecodeError::Checksum | DecodeError::Sealed)));
        }
        for len in 0..whole.len() {
            prop_assert!(matches!(decode(&whole[..len]), Err(DecodeError::Truncated | DecodeError::Checksum)));
        }
    }

    #[test]
    fn any_bytes_with_a_right_checksum_are_decoded_or_refused_but_never_panic(
        first in any::<u8>(),
        bytes in prop::collection::vec(prop_oneof![2 => Just(0u8), 1 => any::<u8>()], 27..200),
    ) {
        let mut bytes = bytes;
        bytes.insert(0, if first & 0x80 == 0 { 0x10 | first & 15 } else { first });
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        match decode(&bytes) {
            Ok(Datagram::Data(data)) => {
                prop_assert!(data.base() >= Seq(1) && data.base() <= data.seq);
                let records: usize = data.records().map(|record| record.len() + 2).sum();
                prop_assert!(!data.batch || !data.is_supported() || records == data.payload.len());
            }
            Ok(Datagram::Take(take)) => {
                prop_assert!(take.base() >= Seq(1) && take.base() <= take.seq);
                // Nothing of a TAKE is without a meaning.
                prop_assert_eq!(encode(&Datagram::Take(take)), bytes);
            }
            Ok(Datagram::Answer(answer)) => {
                prop_assert!(answer.seq > Seq::ZERO);
                prop_assert!(answer.body.is_empty() || !matches!(answer.status, AnswerStatus::Pending | AnswerStatus::Gone));
                prop_assert_eq!(encode(&Datagram::Answer(answer)), bytes);
            }
            Ok(datagram) => {
                // What it says is what it would be encoded as, but for flags that mean nothing.
                let again = encode(&datagram);
                prop_assert_eq!(decode(&again), Ok(datagram));
                prop_assert_eq!(again.len(), bytes.len());
            }
            Err(error) => prop_assert!(!matches!(error, DecodeError::Truncated | DecodeError::Checksum)),
        }
    }

    #[test]
    fn a_batch_gives_its_records_back_and_nothing_else_is_one(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let payload = batch(&records);
        prop_assert!(is_batch(&payload));
        let found: Vec<Vec<u8>> = Records::new(&payload).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(&found, &records);
        // A cut is a batch only where a record ends.
        let cut = cut.index(payload.len());
        let ends: Vec<usize> = records.iter().scan(0, |at, record| { *at += record.len() + 2; Some(*at) }).collect();
        prop_assert_eq!(is_batch(&payload[..cut]), ends.contains(&cut));
    }
}

#[test]
fn only_another_versions_reject_of_code_1_is_a_version_refusal() {
    let reject = Reject { client: ClientId(7), epoch: 3, code: RejectCode::Version, refused: 9, retry_after_ms: 0 };
    let other = |first: u8, code: RejectCode| {
        let mut bytes = encode(&Datagram::Reject(Reject { code, ..reject }));
        bytes[0] = first;
        let at = bytes.len() - 4;
        let crc = crc32fast::hash(&bytes[..at]);
        bytes[at..].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    let bytes = other(0x23, RejectCode::Version);
    assert_eq!(decode_version_refusal(&bytes), Some(reject));
    // A server must not answer it, or two servers of unlike versions would answer each other for ever.
    assert_eq!(decode(&bytes), Err(DecodeError::UnknownType));
    assert_eq!(decode_version_refusal(&other(0x13, RejectCode::Version)), None);
    assert_eq!(decode_version_refusal(&other(0x21, RejectCode::Version)), None);
    assert_eq!(decode_version_refusal(&other(0x23, RejectCode::Busy)), None);
    let mut broken = bytes;
    broken[9] ^= 1;
    assert_eq!(decode_version_refusal(&broken), None);
}

fn answer(status: AnswerStatus, number: u32, body: &[u8]) -> Datagram<'_> {
    let (client, epoch) = (ClientId(1), Epoch::new(1).unwrap());
    Datagram::Answer(Answer { client, epoch, seq: Seq(1), status, number, body })
}

/// What a client takes for the body is all of it, and a status that has none brings none.
#[test]
fn an_answer_has_its_whole_body_or_none() {
    let body = [7; 12];
    for (status, number, body_lens) in [
        (AnswerStatus::Done, 11, &[0, 11][..]),
        (AnswerStatus::Failed, 11, &[0, 11]),
        (AnswerStatus::Done, 0, &[0]),
        (AnswerStatus::Pending, 11, &[0]),
        (AnswerStatus::Gone, 0, &[0]),
        (AnswerStatus::Gone, 11, &[]),
        (AnswerStatus::Unknown(4), 2, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    ] {
        for len in 0..=body.len() {
            let bytes = encode(&answer(status, number, &body[..len]));
            let expected = if body_lens.contains(&len) { Ok(()) } else { Err(DecodeError::Malformed) };
            assert_eq!(decode(&bytes).map(|_| ()), expected, "{status:?}, {number}, {len} bytes");
        }
    }
}

#[test]
fn a_take_is_as_long_as_the_answer_it_has_room_for() {
    let (client, epoch) = (ClientId(1), Epoch::new(1).unwrap());
    for room in [0, 1, 11, 1_024] {
        let take = Take { client, epoch, seq: Seq(1), span: 0, wait_ms: 0, room };
        let body = vec![7; room];
        let answer = encode(&answer(AnswerStatus::Done, u32::try_from(room).unwrap(), &body));
        assert_eq!(encode(&Datagram::Take(take)).len(), answer.len());
        // Room that no memory has is no buffer's, and no panic.
        let endless = Take { room: usize::MAX - room, ..take };
        assert_eq!(Datagram::Take(endless).encode(&mut [0; 64]), Err(BufferTooSmall));
    }
}

#[test]
fn a_data_asks_for_one_answer_alone() {
    let data = Data::whole(ClientId(1), Epoch::new(1).unwrap(), Seq(1), 0, b"\x01\x00a");
    for (options, batch, begin, supported) in [
        (0, false, true, true),
        (0, true, true, true),
        (OPTION_ASK, false, true, true),
        (OPTION_ASK, true, true, false),
        (OPTION_ASK, false, false, false),
        (1, false, true, false),
        (OPTION_ASK | 4, false, true, false),
    ] {
        let data = Data { options, batch, begin, ..data };
        assert_eq!(data.is_supported(), supported, "{data:?}");
        assert_eq!(data.asks(), options & OPTION_ASK != 0);
    }
}

#[test]
fn an_empty_data_and_a_bare_ack_are_equally_short() {
    let (client, epoch) = (ClientId(1), Epoch::new(1).unwrap());
    assert_eq!(encode(&Datagram::Ping(Ping { client, epoch })).len(), MIN_LEN);
    assert_eq!(decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(decode(&[0x11; MIN_LEN - 1]), Err(DecodeError::Truncated));
}
