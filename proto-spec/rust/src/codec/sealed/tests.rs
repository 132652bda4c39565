//! Properties of the sealed codec; the bytes themselves are fixed by the golden vectors (`tests/sealed_vectors.rs`).

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::tests::{datagram, parts};
use super::super::{Datagram, DecodeError, SEALED_MIN_LEN, decode};
use super::{BufferTooSmall, KeysOf, Side, peek, unseal_reply, unseal_request};
use crate::seal::{ClientKey, Direction, SessionKeys};
use crate::{ClientId, Epoch, Seq};

fn unseal<'a>(bytes: &'a mut [u8], keys: &SessionKeys) -> Result<Datagram<'a>, DecodeError> {
    match peek(bytes)?.sender {
        Side::Client => unseal_request(bytes, keys),
        Side::Server => unseal_reply(bytes, keys),
    }
}

/// The keys that a datagram is sealed with, were they right.
fn keys_of(key: &ClientKey, datagram: &Datagram<'_>) -> SessionKeys {
    let (client, epoch) = match datagram {
        Datagram::Data(data) => (data.client, Some(data.epoch)),
        Datagram::Ack(ack) => (ack.client, Some(ack.epoch)),
        Datagram::Ping(ping) => (ping.client, Some(ping.epoch)),
        Datagram::Answer(answer) => (answer.client, Some(answer.epoch)),
        Datagram::Take(take) => (take.client, Some(take.epoch)),
        Datagram::Reject(reject) => (reject.client, Epoch::new(reject.epoch)),
        Datagram::Hello(hello) => (hello.client, None),
        Datagram::Welcome(welcome) => (welcome.client, None),
    };
    key.keys(client, epoch)
}

fn seal(datagram: &Datagram<'_>, keys: &SessionKeys, counter: u64) -> Vec<u8> {
    let mut out = vec![0xee; 2_000];
    let len = datagram.seal(keys, counter, &mut out).unwrap();
    out.truncate(len);
    out
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_the_same_under_the_keys_that_it_names(
        parts in parts(),
        key in any::<[u8; 32]>(),
        counter in any::<u64>(),
    ) {
        let (mut variable, key) = (Vec::new(), ClientKey::new(key));
        let datagram = datagram(&parts, &mut variable);
        let mut bytes = seal(&datagram, &keys_of(&key, &datagram), counter);
        prop_assert_eq!(decode(&bytes), Err(DecodeError::Sealed));
        let head = peek(&bytes).unwrap();
        let expected = match datagram {
            Datagram::Hello(hello) => hello.nonce,
            _ => counter,
        };
        prop_assert_eq!(head.counter, expected);
        let mut plain = vec![0; 2_000];
        prop_assert_eq!(bytes.len(), datagram.encode(&mut plain).unwrap() + 20);
        prop_assert_eq!(unseal(&mut bytes, &key.keys(head.client, head.keys.epoch())), Ok(datagram));
    }

    #[test]
    fn no_other_key_client_epoch_or_direction_opens_it(
        parts in parts(),
        other in prop_oneof![Just((1u8, 0u64, 0u32)), Just((0, 1, 0)), Just((0, 0, 1))],
        counter in any::<u64>(),
    ) {
        let (mut variable, key) = (Vec::new(), ClientKey::new([7; 32]));
        let datagram = datagram(&parts, &mut variable);
        let mut bytes = seal(&datagram, &keys_of(&key, &datagram), counter);
        let before = bytes.clone();
        let head = peek(&bytes).unwrap();
        let epoch = head.keys.epoch().map_or(0, Epoch::value) ^ other.2;
        let keys = ClientKey::new([7 ^ other.0; 32]).keys(ClientId(head.client.0 ^ other.1), Epoch::new(epoch));
        prop_assert_eq!(unseal(&mut bytes, &keys).map(|_| ()), Err(DecodeError::BadSeal));
        let right = key.keys(head.client, head.keys.epoch());
        let wrong_way = match head.sender {
            Side::Client => unseal_reply(&mut bytes, &right).map(|_| ()),
            Side::Server => unseal_request(&mut bytes, &right).map(|_| ()),
        };
        prop_assert_eq!(wrong_way, Err(DecodeError::UnknownType));
        prop_assert_eq!(bytes, before, "refused, and changed");
    }

    #[test]
    fn a_buffer_that_is_too_short_is_refused_and_no_longer_one_is_needed(
        parts in parts(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut variable = Vec::new();
        let datagram = datagram(&parts, &mut variable);
        let keys = ClientKey::new([7; 32]).keys(ClientId(1), None);
        let len = seal(&datagram, &keys, 1).len();
        prop_assert_eq!(datagram.seal(&keys, 1, &mut vec![0; cut.index(len)]), Err(BufferTooSmall));
        prop_assert_eq!(datagram.seal(&keys, 1, &mut vec![0; len]), Ok(len));
    }

    #[test]
    fn no_flipped_bits_and_no_cut_pass(
        parts in parts(),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let (mut variable, key) = (Vec::new(), ClientKey::new([7; 32]));
        let datagram = datagram(&parts, &mut variable);
        let keys = keys_of(&key, &datagram);
        let whole = seal(&datagram, &keys, 5);
        let mut bytes = whole.clone();
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if bytes != whole {
            let flipped = bytes.clone();
            // With the keys that the sender had, and with those that the flipped header names.
            prop_assert!(unseal(&mut bytes, &keys).is_err());
            if let Ok(head) = peek(&flipped) {
                prop_assert!(unseal(&mut bytes, &key.keys(head.client, head.keys.epoch())).is_err());
            }
            prop_assert_eq!(bytes, flipped, "refused, and changed");
        }
        for len in 0..whole.len() {
            prop_assert!(unseal(&mut whole[..len].to_vec(), &keys).is_err());
        }
    }

    /// Whoever holds the key can seal anything: what opens is decoded or refused, but never panics, and is what the
    /// fields say.
    #[test]
    fn any_bytes_with_a_right_seal_are_decoded_or_refused_but_never_panic(
        first in any::<u8>(),
        bytes in prop::collection::vec(prop_oneof![2 => Just(0u8), 1 => any::<u8>()], 35..200),
    ) {
        let mut bytes = bytes;
        bytes.insert(0, 0x10 | first & 15);
        bytes[1] |= 8;
        let client = ClientId(u64::from_le_bytes(bytes[8..16].try_into().unwrap()));
        let epoch = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
        let counter = u64::from_le_bytes(bytes[28..36].try_into().unwrap());
        let kind = first & 15;
        let keys = ClientKey::new([7; 32]).keys(client, Epoch::new(epoch).filter(|_| kind != 4 && kind != 5));
        let direction = if matches!(kind, 1 | 4 | 6 | 8) { Direction::ToServer } else { Direction::ToClient };
        let clear_len = if matches!(kind, 1 | 7) { 36 } else { bytes.len() };
        let (clear, text) = bytes.split_at_mut(clear_len);
        let tag = keys.seal(direction, counter, clear, text).unwrap();
        bytes.extend_from_slice(&tag);
        let sealed = bytes.clone();
        match unseal(&mut bytes, &keys) {
            Ok(datagram) => {
                // But for flags that mean nothing, which are not sent again.
                let mut again = seal(&datagram, &keys, counter);
                prop_assert_eq!(again.len(), sealed.len());
                prop_assert_eq!(unseal(&mut again, &keys), Ok(datagram));
            }
            Err(error) => prop_assert!(
                matches!(error, DecodeError::Malformed | DecodeError::BrokenBatch | DecodeError::UnknownType),
                "{:?}", error
            ),
        }
    }
}

/// PROTOCOL.md#sealed-layout: who sees the path reads no answer, and what a TAKE has room for is under the tag.
#[test]
fn an_answers_body_is_encrypted_and_a_takes_room_is_under_the_seal() {
    let (client, epoch) = (ClientId(1), Epoch::new(1).unwrap());
    let keys = ClientKey::new([7; 32]).keys(client, Some(epoch));
    let (status, body) = (super::super::AnswerStatus::Done, &b"valve: open"[..]);
    let answer = super::Answer { client, epoch, seq: Seq(5), status, number: 11, body };
    let mut sealed = seal(&Datagram::Answer(answer), &keys, 1);
    assert!(!sealed.windows(5).any(|window| window == b"valve"));
    let in_clear = sealed.clone();
    assert_eq!(unseal_reply(&mut sealed, &keys), Ok(Datagram::Answer(answer)));
    // Its plaintext in place of its ciphertext, under the same tag.
    assert_ne!(sealed, in_clear);
    assert_eq!(unseal_reply(&mut sealed, &keys), Err(DecodeError::BadSeal));

    let take = super::Take { client, epoch, seq: Seq(5), span: 0, wait_ms: 0, room: 11 };
    let mut sealed = seal(&Datagram::Take(take), &keys, 1);
    assert_eq!((sealed.len(), &sealed[36..47]), (SEALED_MIN_LEN + 11, &[0; 11][..]));
    assert_eq!(unseal_request(&mut sealed.clone(), &keys), Ok(Datagram::Take(take)));
    sealed.insert(36, 0);
    assert_eq!(unseal_request(&mut sealed.clone(), &keys), Err(DecodeError::BadSeal));
    sealed[36] = 1;
    assert_eq!(unseal_request(&mut sealed, &keys), Err(DecodeError::Malformed));
}

#[test]
fn every_type_is_as_short_as_a_request_can_be() {
    let (client, epoch) = (ClientId(1), Epoch::new(1).unwrap());
    let keys = ClientKey::new([7; 32]).keys(client, Some(epoch));
    let ping = seal(&Datagram::Ping(super::Ping { client, epoch }), &keys, 1);
    assert_eq!(ping.len(), SEALED_MIN_LEN);
    assert_eq!(peek(&ping).unwrap().keys, KeysOf::Session(epoch));
    for len in 0..SEALED_MIN_LEN {
        let error = if len < 2 { DecodeError::Truncated } else { peek(&ping[..len]).unwrap_err() };
        assert_eq!(peek(&ping[..len]), Err(error));
        assert!(matches!(error, DecodeError::Truncated), "{len}");
    }
}
