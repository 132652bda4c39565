//! The golden datagrams of sealed mode, `proto-spec/vectors/sealed.json`, through this codec, and the published vectors of
//! what it rests on through the crates that it uses (PROTOCOL.md#conformance).
//!
//! They were made by a program that shares no code with either.

#[path = "support/described.rs"]
mod describe;
mod support;

use std::collections::BTreeSet;

use blake2::Blake2bMac;
use blake2::Digest;
use blake2::digest::consts::{U20, U32, U48, U64};
use blake2::digest::{FixedOutput, KeyInit, Update};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::AeadInOut;
use describe::{described, named};
use duragram_proto::codec::{Datagram, SEALED_MIN_LEN, Side, decode, peek, unseal_reply, unseal_request};
use duragram_proto::codec::{DecodeError, KeysOf};
use duragram_proto::seal::{ClientKey, FleetKey, SessionKeys};
use duragram_proto::{ClientId, Epoch};
use serde_json::{Value, json};
use support::{bytes, hex};

fn file() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/sealed.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect("valid JSON");
    assert_eq!((&file["format"], &file["protocol_version"]), (&json!(1), &json!(1)));
    file
}

fn list<'a>(file: &'a Value, key: &str) -> &'a [Value] {
    let list = file[key].as_array().unwrap_or_else(|| panic!("{key} is no list"));
    assert!(!list.is_empty(), "{key} is empty");
    list
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap_or_else(|| panic!("{vector} has no text {key}"))
}

fn key(vector: &Value, name: &str) -> [u8; 32] {
    bytes(text(vector, name)).try_into().expect("32 bytes")
}

fn client(vector: &Value) -> ClientId {
    ClientId(u64::from_str_radix(text(vector, "client"), 16).expect("16 digits"))
}

fn epoch(vector: &Value, name: &str) -> Option<Epoch> {
    Epoch::new(u32::try_from(vector[name].as_u64().expect("an epoch")).expect("32 bits"))
}

/// The keys that a datagram's vector names. What does not say whose it is is the first client's.
fn keys(vector: &Value) -> SessionKeys {
    let client = if vector.get("datagram").is_some() { client(&vector["datagram"]) } else { ClientId(0xa1) };
    ClientKey::new(key(vector, "key")).keys(client, epoch(vector, "keys_epoch"))
}

fn unseal<'a>(bytes: &'a mut [u8], keys: &SessionKeys, sender: &str) -> Result<Datagram<'a>, DecodeError> {
    match sender {
        "client" => unseal_request(bytes, keys),
        "server" => unseal_reply(bytes, keys),
        other => panic!("{other} sends nothing"),
    }
}

fn sender(vector: &Value) -> &str {
    match vector.get("sender") {
        Some(sender) => sender.as_str().expect("a text"),
        None => match text(&vector["datagram"], "type") {
            "DATA" | "HELLO" | "PING" | "TAKE" => "client",
            _ => "server",
        },
    }
}

#[test]
fn the_aead_crate_passes_the_vectors_of_rfc_8439() {
    for vector in list(&file(), "aead") {
        let name = text(vector, "name");
        let nonce: [u8; 12] = bytes(text(vector, "nonce")).try_into().expect("12 bytes");
        let (clear, plain) = (bytes(text(vector, "clear")), bytes(text(vector, "text")));
        let cipher = ChaCha20Poly1305::new(&key(vector, "key").into());
        let mut buffer = plain.clone();
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &clear, buffer.as_mut_slice().into()).expect("short");
        assert_eq!((hex(&buffer), hex(&tag)), (text(vector, "sealed").into(), text(vector, "tag").into()), "{name}");
        cipher.decrypt_inout_detached(&nonce.into(), &clear, buffer.as_mut_slice().into(), &tag).expect(name);
        assert_eq!(buffer, plain, "{name}");
    }
}

#[test]
fn the_hash_crate_passes_published_vectors() {
    for vector in list(&file(), "blake2b") {
        let (key, text_) = (bytes(text(vector, "key")), bytes(text(vector, "text")));
        let hash = if key.is_empty() { blake2::Blake2b512::digest(&text_).to_vec() } else { mac::<64>(&key, &text_) };
        assert_eq!(hex(&hash), text(vector, "hash"), "{}", text(vector, "name"));
    }
}

/// Every output length, keyed and not, over texts about the block's length (RFC 7693, appendix E).
#[test]
fn the_hash_crate_passes_the_self_test_of_rfc_7693() {
    fn sequence(len: u32) -> Vec<u8> {
        let (mut a, mut b) = (0xdead_4badu32.wrapping_mul(len), 1u32);
        let mut next = || {
            (a, b) = (b, a.wrapping_add(b));
            b.to_be_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }
    fn hash(out_len: u32, text: &[u8]) -> Vec<u8> {
        match out_len {
            20 => blake2::Blake2b::<U20>::digest(text).to_vec(),
            32 => blake2::Blake2b::<U32>::digest(text).to_vec(),
            48 => blake2::Blake2b::<U48>::digest(text).to_vec(),
            _ => blake2::Blake2b::<U64>::digest(text).to_vec(),
        }
    }
    fn keyed(out_len: u32, text: &[u8]) -> Vec<u8> {
        let key = sequence(out_len);
        match out_len {
            20 => mac::<20>(&key, text),
            32 => mac::<32>(&key, text),
            48 => mac::<48>(&key, text),
            _ => mac::<64>(&key, text),
        }
    }
    let mut all = Vec::new();
    for out_len in [20, 32, 48, 64] {
        for text in [0, 3, 128, 129, 255, 1_024].map(sequence) {
            all.extend(hash(out_len, &text));
            all.extend(keyed(out_len, &text));
        }
    }
    let whole = hex(&hash(32, &all));
    assert_eq!(whole, "c23a7800d98123bd10f506c61e29da5603d763b8bbad2e737f5e765a7bccd475");
}

/// Keyed BLAKE2b with so many bytes of output.
fn mac<const LEN: usize>(key: &[u8], text: &[u8]) -> Vec<u8> {
    macro_rules! with {
        ($len:ty) => {{
            let mut mac = Blake2bMac::<$len>::new_from_slice(key).expect("a key");
            mac.update(text);
            mac.finalize_fixed().to_vec()
        }};
    }
    match LEN {
        20 => with!(U20),
        32 => with!(U32),
        48 => with!(U48),
        _ => with!(U64),
    }
}

#[test]
fn keys_are_derived_as_the_vectors_say() {
    let file = file();
    for vector in list(&file, "client_keys") {
        let derived = FleetKey::new(key(vector, "fleet")).client_key(client(vector));
        assert_eq!(hex(derived.expose()), text(vector, "key"));
    }
    for vector in list(&file, "session_keys") {
        // Session keys are not shown: what they seal is compared with what the expected ones do.
        let keys = ClientKey::new(key(vector, "key")).keys(client(vector), epoch(vector, "epoch"));
        for (name, kind) in [("to_server", 6u8), ("to_client", 2)] {
            let datagram = match (kind, epoch(vector, "epoch").or(Epoch::new(1))) {
                (6, Some(epoch)) => Datagram::Ping(duragram_proto::codec::Ping { client: ClientId(5), epoch }),
                (_, epoch) => Datagram::Welcome(duragram_proto::codec::Welcome {
                    client: ClientId(5),
                    epoch: epoch.expect("not 0"),
                    credit: 1,
                    nonce: 2,
                }),
            };
            let mut sealed = [0; SEALED_MIN_LEN];
            datagram.seal(&keys, 3, &mut sealed).expect("52 bytes");
            let (clear, tag) = sealed.split_last_chunk::<16>().expect("a tag");
            let mut nonce = [0; 12];
            nonce[0] = if name == "to_server" { 1 } else { 2 };
            nonce[4] = 3;
            let cipher = ChaCha20Poly1305::new(&key(vector, name).into());
            let expected = cipher.encrypt_inout_detached(&nonce.into(), clear, (&mut [][..]).into()).expect("short");
            assert_eq!(hex(tag), hex(&expected), "{name}");
        }
    }
}

#[test]
fn every_golden_sealed_datagram_opens_as_described_and_seals_to_the_same_bytes() {
    for vector in list(&file(), "datagrams") {
        let name = text(vector, "name");
        let bytes = bytes(text(vector, "hex"));
        let keys = keys(vector);
        let mut buffer = bytes.clone();
        match (unseal(&mut buffer, &keys, sender(vector)), vector.get("datagram"), vector.get("error")) {
            (Ok(datagram), Some(expected), None) => {
                assert_eq!(&described(&datagram), expected, "{name}");
                let counter = text(vector, "counter").parse().expect("a number");
                let mut out = [0; 2_048];
                let len = datagram.seal(&keys, counter, &mut out).expect("there is room");
                assert_eq!(hex(&out[..len]), hex(&bytes), "{name}");
                let head = peek(&bytes).expect(name);
                assert_eq!((head.counter, head.client), (counter, client(expected)), "{name}");
                assert_eq!(head.keys.epoch(), epoch(vector, "keys_epoch"), "{name}");
                assert_eq!(head.sender == Side::Client, sender(vector) == "client", "{name}");
                if let KeysOf::Hello { nonce } = head.keys {
                    let field = if text(expected, "type") == "REJECT" { "refused" } else { "nonce" };
                    assert_eq!(nonce.to_string(), text(expected, field), "{name}");
                }
                if let (Datagram::Data(data), Some(records)) = (datagram, vector.get("records")) {
                    assert_eq!(&json!(data.records().map(hex).collect::<Vec<_>>()), records, "{name}");
                }
                assert_eq!(decode(&bytes), Err(DecodeError::Sealed), "{name}");
            }
            (Err(error), None, Some(expected)) => assert_eq!(named(error), expected, "{name}"),
            (result, ..) => panic!("{name}: {result:?}"),
        }
    }
}

/// Every bit of every golden sealed datagram: nothing opens but what was sealed.
#[test]
fn every_bit_of_every_golden_sealed_datagram_is_under_the_seal() {
    for vector in list(&file(), "datagrams").iter().filter(|vector| vector.get("datagram").is_some()) {
        let (name, keys) = (text(vector, "name"), keys(vector));
        let mut bytes = bytes(text(vector, "hex"));
        let whole = bytes.clone();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = bytes.clone();
            // As whatever the flipped type now says that it is: the key holder tries to open it either way.
            for sender in ["client", "server"] {
                assert!(unseal(&mut bytes, &keys, sender).is_err(), "{name}, bit {bit}, as sent by the {sender}");
                assert_eq!(bytes, flipped, "{name}, bit {bit}: refused, and changed");
            }
            bytes.clone_from(&whole);
        }
    }
}

#[test]
fn every_cut_of_every_golden_sealed_datagram_is_refused() {
    for vector in list(&file(), "datagrams").iter().filter(|vector| vector.get("datagram").is_some()) {
        let keys = keys(vector);
        let whole = bytes(text(vector, "hex"));
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert!(unseal(&mut cut, &keys, sender(vector)).is_err(), "{}, {len} bytes", text(vector, "name"));
            let mut tail = whole[whole.len() - len..].to_vec();
            assert!(unseal(&mut tail, &keys, sender(vector)).is_err(), "{}, last {len} bytes", text(vector, "name"));
        }
    }
}

/// A new type, flag or error needs its golden datagrams.
#[test]
fn the_golden_sealed_datagrams_cover_all_that_there_is() {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for vector in list(&file(), "datagrams") {
        match vector.get("error") {
            Some(error) => seen.insert(format!("error {}", error.as_str().expect("a text"))),
            None => seen.insert(format!("type {}", text(&vector["datagram"], "type"))),
        };
        let datagram = &vector["datagram"];
        if datagram["type"] == "ANSWER" {
            let body = if datagram["body"] == "" { "no body" } else { "a body" };
            seen.insert(format!("status {} with {body}", datagram["status"].as_u64().expect("a status").min(4)));
        }
        if datagram["type"] == "TAKE" && datagram["room"] != 0 {
            seen.insert("room".into());
        }
        if datagram["options"] == 2 {
            seen.insert("ASK".into());
        }
        if datagram["ready"] == true {
            seen.insert("READY".into());
        }
    }
    let errors = ["truncated", "not_sealed", "bad_seal", "unknown_type", "malformed", "broken_batch"];
    let types = ["DATA", "ACK", "REJECT", "HELLO", "WELCOME", "PING", "ANSWER", "TAKE"];
    let mut expected: Vec<String> = errors.map(|error| format!("error {error}")).into();
    expected.extend(types.map(|kind| format!("type {kind}")));
    expected.extend((0..4).map(|status| format!("status {status} with no body")));
    expected.extend([0, 1, 4].map(|status| format!("status {status} with a body")));
    expected.extend(["room", "ASK", "READY"].map(String::from));
    let missing: Vec<String> = expected.into_iter().filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no golden datagram for {missing:?}");
}
