//! Fuzz targets for the sealed decoder, run on the stable toolchain: every golden datagram and every input that once failed
//! (`tests/corpus/sealed.txt`, one in hexadecimal a line), each mutated many times from a fixed seed.
//!
//! `DURAGRAM_FUZZ_ROUNDS` sets the mutations of each input, 2,000 by default; an input that fails is printed.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use blake2::Blake2bMac512;
use blake2::digest::{FixedOutput, KeyInit, Update};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::AeadInOut;
use duragram_proto::codec::{
    Datagram, DecodeError, MIN_LEN, SEALED_MIN_LEN, Side, decode, peek, unseal_reply, unseal_request,
};
use duragram_proto::seal::ClientKey;
use serde_json::Value;
use support::{bytes, hex};

const KEY: [u8; 32] = [0x77; 32];

/// What comes from the network: nobody who has not the key makes a datagram that opens, and whatever comes is refused
/// without a change to its bytes.
fn as_it_comes(input: &[u8]) {
    let sealed = input.len() >= 2 && input[0] >> 4 == 1 && input[1] & 8 != 0;
    match (peek(input), sealed) {
        (Ok(_), sealed) => assert!(sealed && input.len() >= SEALED_MIN_LEN),
        (Err(DecodeError::NotSealed), sealed) => assert!(!sealed && input.len() >= 2),
        (Err(DecodeError::Truncated), _) => assert!(input.len() < SEALED_MIN_LEN),
        (Err(error), _) => assert!(matches!(error, DecodeError::Malformed | DecodeError::UnknownType), "{error:?}"),
    }
    if sealed && input.len() >= MIN_LEN {
        assert_eq!(decode(input), Err(DecodeError::Sealed));
    }
    let Ok(head) = peek(input) else { return };
    let keys = ClientKey::new(KEY).keys(head.client, head.keys.epoch());
    let mut buffer = input.to_vec();
    let expected = |sender| if head.sender == sender { DecodeError::BadSeal } else { DecodeError::UnknownType };
    assert_eq!(unseal_request(&mut buffer, &keys), Err(expected(Side::Client)));
    assert_eq!(unseal_reply(&mut buffer, &keys), Err(expected(Side::Server)));
    assert_eq!(buffer, input);
}

/// What somebody with the key may seal: the same input under a right tag. It opens, or is refused for its fields; what
/// opens says the same when it is sealed again.
fn as_a_key_holder_seals_it(input: &[u8]) {
    let Some(body) = input.len().checked_sub(16).map(|len| &input[..len]).filter(|body| body.len() >= 36) else {
        return;
    };
    let mut datagram = body.to_vec();
    datagram[0] = 0x10 | datagram[0] & 0x0f;
    datagram[1] |= 8;
    let kind = datagram[0] & 0x0f;
    let client: [u8; 8] = datagram[8..16].try_into().expect("8 bytes");
    let mut epoch: [u8; 4] = datagram[4..8].try_into().expect("4 bytes");
    if kind == 4 || kind == 5 {
        epoch = [0; 4];
    }
    // Derived by hand: the keys of the crate cannot be taken out of it.
    let mut derivation = Blake2bMac512::new_from_slice(&KEY).expect("a key");
    for part in [&b"duragram keys v1"[..], &client, &epoch] {
        derivation.update(part);
    }
    let derived = derivation.finalize_fixed();
    let to_server = matches!(kind, 1 | 4 | 6 | 8);
    let half: [u8; 32] = if to_server { &derived[..32] } else { &derived[32..] }.try_into().expect("32 bytes");
    let mut nonce = [0; 12];
    nonce[0] = if to_server { 1 } else { 2 };
    nonce[4..].copy_from_slice(&datagram[28..36]);
    let clear_len = if matches!(kind, 1 | 7) { 36 } else { datagram.len() };
    let (clear, text) = datagram.split_at_mut(clear_len);
    let cipher = ChaCha20Poly1305::new(&half.into());
    let tag = cipher.encrypt_inout_detached(&nonce.into(), clear, text.into()).expect("short");
    datagram.extend_from_slice(&tag);

    let head = match peek(&datagram) {
        Ok(head) => head,
        Err(error) => return assert!(matches!(error, DecodeError::Malformed | DecodeError::UnknownType), "{error:?}"),
    };
    let keys = ClientKey::new(KEY).keys(head.client, head.keys.epoch());
    let mut buffer = datagram.clone();
    let opened = match head.sender {
        Side::Client => unseal_request(&mut buffer, &keys),
        Side::Server => unseal_reply(&mut buffer, &keys),
    };
    match opened {
        Ok(opened) => {
            let mut again = vec![0; datagram.len()];
            assert_eq!(opened.seal(&keys, head.counter, &mut again), Ok(datagram.len()));
            if let Datagram::Data(data) = opened {
                assert_eq!(data.payload, &body[36..]);
                assert_eq!(hex(&again), hex(&datagram), "DATA has no bit without a meaning");
            }
            if let Datagram::Answer(answer) = opened {
                assert_eq!(answer.body, &body[36..]);
                assert_eq!(hex(&again), hex(&datagram), "ANSWER has no bit without a meaning");
            }
            if let Datagram::Take(take) = opened {
                assert_eq!((take.room, take.span as u64 >= take.seq.0), (body.len() - 36, false));
                assert_eq!(hex(&again), hex(&datagram), "TAKE has no bit without a meaning");
            }
        }
        Err(error) => assert_eq!(error, DecodeError::BrokenBatch),
    }
}

/// SplitMix64: the same mutations every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % (bound.max(1) as u64)).expect("below a usize")
    }

    fn mutate(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        const EDGES: [u8; 8] = [0, 1, 2, 7, 8, 0x7f, 0x80, 0xff];
        for _ in 0..=self.below(4) {
            let at = self.below(input.len());
            match self.below(8) {
                0 | 1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                2 if !input.is_empty() => input[at] = EDGES[self.below(EDGES.len())],
                // The header is where most decisions are.
                3 if input.len() > 36 => input[self.below(36)] = EDGES[self.below(EDGES.len())],
                4 => input.truncate(at),
                5 => {
                    for _ in 0..=self.below(20) {
                        input.insert(at.min(input.len()), EDGES[self.below(EDGES.len())]);
                    }
                }
                6 if !input.is_empty() => {
                    input[0] = 0x10 | input[0] & 0xf0 | u8::try_from(self.below(10)).expect("small")
                }
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    let cut = self.below(other.len());
                    input.truncate(at);
                    input.extend_from_slice(&other[cut..]);
                }
            }
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut corpus = Vec::new();
    for file in ["sealed.json", "datagrams.json"] {
        let path = format!("{root}/../vectors/{file}");
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).expect("valid JSON");
        for vector in file["datagrams"].as_array().expect("a list") {
            corpus.push(bytes(vector["hex"].as_str().expect("a text")));
        }
    }
    let path = format!("{root}/tests/corpus/sealed.txt");
    let found = std::fs::read_to_string(&path).expect(&path);
    corpus.extend(found.lines().filter(|line| !line.starts_with('#')).map(bytes));
    assert!(corpus.len() > 100);
    corpus
}

fn fuzz(target: fn(&[u8]), seed: u64) {
    let rounds = std::env::var("DURAGRAM_FUZZ_ROUNDS").map_or(2_000, |rounds| rounds.parse().expect("a number"));
    let corpus = corpus();
    let mut random = Random(seed);
    for input in &corpus {
        for round in 0..=rounds {
            let mut input = input.clone();
            if round > 0 {
                random.mutate(&mut input, &corpus);
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
                eprintln!("add this line to tests/corpus/sealed.txt:\n{}", hex(&input));
                resume_unwind(panic);
            }
        }
    }
}

#[test]
fn nothing_that_comes_without_the_key_opens_or_breaks_the_sealed_decoder() {
    fuzz(as_it_comes, 0x5eed);
}

#[test]
fn whatever_is_rightly_sealed_is_decoded_or_refused() {
    fuzz(as_a_key_holder_seals_it, 0xf00d);
}
