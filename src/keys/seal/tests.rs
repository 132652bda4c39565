//! Both ciphers beside each other: which of them an end has cannot be seen from the other one.

use duragram_proto::codec::{DecodeError, Side, peek, unseal_reply, unseal_request};
use duragram_proto::seal::{Cipher, ClientKey, Portable, SessionKeys};
use duragram_proto::{ClientId, Epoch};
use proptest::prelude::*;
use serde_json::Value;

use super::{KEY_LEN, NONCE_LEN, RingCipher, TAG_LEN};

/// What is sealed, with all that it is sealed with.
#[derive(Clone, Debug)]
struct Sealed {
    nonce: [u8; NONCE_LEN],
    clear: Vec<u8>,
    text: Vec<u8>,
    tag: [u8; TAG_LEN],
}

impl Sealed {
    fn seal<C: Cipher>(key: &[u8; KEY_LEN], nonce: [u8; NONCE_LEN], clear: &[u8], text: &[u8]) -> Self {
        let mut text = text.to_vec();
        let tag = C::new(key).seal(&nonce, clear, &mut text).expect("it is short");
        Self { nonce, clear: clear.to_vec(), text, tag }
    }

    fn opened_by<C: Cipher>(&self, key: &[u8; KEY_LEN]) -> Option<Vec<u8>> {
        let mut text = self.text.clone();
        C::new(key).open(&self.nonce, &self.clear, &mut text, &self.tag).then_some(text)
    }

    /// Nothing of it can be read with a cipher that refuses it. `buffer` is written over.
    fn is_refused_by(&self, cipher: &impl Cipher, buffer: &mut Vec<u8>) -> bool {
        buffer.clone_from(&self.text);
        !cipher.open(&self.nonce, &self.clear, buffer, &self.tag)
            && (*buffer == self.text || buffer.iter().all(|&byte| byte == 0))
    }

    /// Each bit of it, one after the other, of all that a sender can change.
    fn with_each_bit_flipped(&self, mut check: impl FnMut(&Self, &str)) {
        let mut changed = self.clone();
        type Part = (&'static str, fn(&mut Sealed) -> &mut [u8]);
        let parts: [Part; 4] = [
            ("text", |sealed| &mut sealed.text),
            ("tag", |sealed| &mut sealed.tag),
            ("clear", |sealed| &mut sealed.clear),
            ("nonce", |sealed| &mut sealed.nonce),
        ];
        for (name, part) in parts {
            for bit in 0..8 * part(&mut changed).len() {
                part(&mut changed)[bit / 8] ^= 1 << (bit % 8);
                check(&changed, &format!("{name}, bit {bit}"));
                part(&mut changed)[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_ciphers_seal_to_the_same_bytes_open_each_others_and_refuse_them_with_any_bit_flipped(
        key in any::<[u8; KEY_LEN]>(),
        nonce in any::<[u8; NONCE_LEN]>(),
        clear in prop::collection::vec(any::<u8>(), 0..80),
        text in prop::collection::vec(any::<u8>(), 0..=2_000),
    ) {
        let portable = Sealed::seal::<Portable>(&key, nonce, &clear, &text);
        let ring = Sealed::seal::<RingCipher>(&key, nonce, &clear, &text);
        prop_assert_eq!((&ring.text, &ring.tag), (&portable.text, &portable.tag));
        prop_assert!(portable.opened_by::<RingCipher>(&key).is_some_and(|opened| opened == text));
        prop_assert!(ring.opened_by::<Portable>(&key).is_some_and(|opened| opened == text));
        let (by_portable, by_ring, mut buffer) = (Portable::new(&key), RingCipher::new(&key), Vec::new());
        ring.with_each_bit_flipped(|changed, what| {
            assert!(changed.is_refused_by(&by_portable, &mut buffer), "portable: {what}");
            assert!(changed.is_refused_by(&by_ring, &mut buffer), "ring: {what}");
        });
        for bit in 0..8 * KEY_LEN {
            let mut other = key;
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ring.is_refused_by(&Portable::new(&other), &mut buffer), "portable: key, bit {}", bit);
            prop_assert!(ring.is_refused_by(&RingCipher::new(&other), &mut buffer), "ring: key, bit {}", bit);
        }
    }
}

/// One block more or less, and the lengths at which `ring` goes over to other code.
#[test]
fn both_ciphers_seal_a_text_of_any_length_to_the_same_bytes() {
    let (key, text) = ([7; KEY_LEN], [0x5a; 2_100]);
    for len in 0..=text.len() {
        let portable = Sealed::seal::<Portable>(&key, [9; NONCE_LEN], &text[..len % 100], &text[..len]);
        let ring = Sealed::seal::<RingCipher>(&key, [9; NONCE_LEN], &text[..len % 100], &text[..len]);
        assert_eq!((ring.text, ring.tag), (portable.text.clone(), portable.tag), "{len} bytes");
        assert_eq!(portable.opened_by::<RingCipher>(&key).as_deref(), Some(&text[..len]), "{len} bytes");
    }
}

#[test]
fn a_refused_text_is_as_it_was_by_the_portable_cipher_and_zeros_by_ring() {
    let key = [1; KEY_LEN];
    let sealed = Sealed::seal::<Portable>(&key, [2; NONCE_LEN], b"clear", b"some text");
    let mut wrong = sealed.tag;
    wrong[0] ^= 1;
    let mut text = sealed.text.clone();
    assert!(!Portable::new(&key).open(&sealed.nonce, &sealed.clear, &mut text, &wrong));
    assert_eq!(text, sealed.text);
    assert!(!RingCipher::new(&key).open(&sealed.nonce, &sealed.clear, &mut text, &wrong));
    assert_eq!(text, [0; 9]);
}

fn vectors(list: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/proto-spec/vectors/sealed.json");
    let mut file: Value = serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect("valid JSON");
    match file[list].take() {
        Value::Array(vectors) if !vectors.is_empty() => vectors,
        other => panic!("{list}: {other}"),
    }
}

fn bytes(vector: &Value, name: &str) -> Vec<u8> {
    let digits = vector[name].as_str().expect(name);
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect(name)).collect()
}

fn array<const LEN: usize>(vector: &Value, name: &str) -> [u8; LEN] {
    bytes(vector, name).try_into().expect(name)
}

fn passes_the_vectors_of_rfc_8439<C: Cipher>() {
    for vector in vectors("aead") {
        let key = array(&vector, "key");
        let sealed =
            Sealed::seal::<C>(&key, array(&vector, "nonce"), &bytes(&vector, "clear"), &bytes(&vector, "text"));
        assert_eq!((&sealed.text, sealed.tag), (&bytes(&vector, "sealed"), array(&vector, "tag")), "{vector}");
        assert_eq!(sealed.opened_by::<C>(&key), Some(bytes(&vector, "text")), "{vector}");
    }
}

#[test]
fn both_ciphers_pass_the_vectors_of_rfc_8439() {
    passes_the_vectors_of_rfc_8439::<Portable>();
    passes_the_vectors_of_rfc_8439::<RingCipher>();
}

#[test]
fn every_golden_sealed_datagram_is_opened_refused_and_sealed_alike_by_both_ciphers() {
    let mut opened = 0;
    for vector in vectors("datagrams") {
        let client = vector["datagram"]["client"].as_str().unwrap_or("a1");
        let client = ClientId(u64::from_str_radix(client, 16).expect("an id"));
        let epoch = Epoch::new(u32::try_from(vector["keys_epoch"].as_u64().expect("an epoch")).expect("32 bits"));
        let key = ClientKey::new(array(&vector, "key"));
        let (portable, ring): (SessionKeys, super::SessionKeys) =
            (key.keys(client, epoch), key.keys_with(client, epoch));
        let golden = bytes(&vector, "hex");
        let (mut one, mut other) = (golden.clone(), golden.clone());
        let (by_portable, by_ring) = match peek(&golden).map(|head| head.sender) {
            Ok(Side::Server) => (unseal_reply(&mut one, &portable), unseal_reply(&mut other, &ring)),
            _ => (unseal_request(&mut one, &portable), unseal_request(&mut other, &ring)),
        };
        assert_eq!(by_ring, by_portable, "{vector}");
        match by_ring {
            Ok(datagram) => {
                let mut again = vec![0; golden.len()];
                let counter = peek(&golden).expect("it was opened").counter;
                assert_eq!(datagram.seal(&ring, counter, &mut again), Ok(golden.len()), "{vector}");
                assert_eq!(again, golden, "{vector}");
                opened += 1;
            }
            Err(DecodeError::BadSeal) => {
                let (clear, rest) = golden.split_at(36);
                assert_eq!(&other[..36], clear, "{vector}");
                assert_eq!(other[other.len() - TAG_LEN..], rest[rest.len() - TAG_LEN..], "{vector}");
            }
            Err(_) => {}
        }
    }
    assert!(opened > 50, "{opened} were opened");
}

#[test]
fn no_key_is_shown() {
    let shown = format!("{:?}", ClientKey::new([0xab; KEY_LEN]).keys_with::<RingCipher>(ClientId(1), None));
    let cipher = format!("{:?}", RingCipher::new(&[0xab; KEY_LEN]));
    assert_eq!((&*shown, &*cipher), ("SessionKeys(..)", "RingCipher(..)"));
}
