//! The golden datagrams, `proto-spec/vectors/datagrams.json`, through this codec (PROTOCOL.md#conformance).
//!
//! They were made by a program that shares no code with it.

#[path = "support/described.rs"]
mod describe;
mod support;

use std::collections::BTreeSet;

use describe::{described, named};
use duragram_proto::codec::{AnswerStatus, Datagram, DecodeError, RejectCode, decode, decode_version_refusal};
use serde_json::{Map, Value, json};
use support::{bytes, hex};

type Vector = Map<String, Value>;

fn vectors() -> Vec<Vector> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/datagrams.json");
    let text = std::fs::read_to_string(path).expect(path);
    let file: Value = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!((&file["format"], &file["protocol_version"]), (&json!(1), &json!(1)));
    let vectors = file["datagrams"].as_array().expect("a list");
    vectors.iter().map(|vector| vector.as_object().expect("an object").clone()).collect()
}

fn text<'a>(vector: &'a Vector, key: &str) -> &'a str {
    vector[key].as_str().unwrap_or_else(|| panic!("{key} is no text"))
}

#[test]
fn every_golden_datagram_decodes_as_described_and_encodes_to_the_same_bytes() {
    for vector in vectors() {
        let name = text(&vector, "name");
        let bytes = bytes(text(&vector, "hex"));
        match (decode(&bytes), vector.get("datagram"), vector.get("error")) {
            (Ok(datagram), Some(expected), None) => {
                assert_eq!(&described(&datagram), expected, "{name}");
                let mut out = [0; 2_048];
                let len = datagram.encode(&mut out).expect("there is room");
                let canonical = vector.get("canonical") != Some(&json!(false));
                assert_eq!(out[..len] == bytes, canonical, "{name}: encoded to {}", hex(&out[..len]));
                if let (Datagram::Data(data), Some(records)) = (datagram, vector.get("records")) {
                    let found: Vec<String> = data.records().map(hex).collect();
                    assert_eq!(&json!(found), records, "{name}");
                }
            }
            (Err(error), None, Some(expected)) => {
                assert_eq!(named(error), expected, "{name}");
                if let DecodeError::Version { client, epoch, seq } = error {
                    let read = json!({ "client": client.to_string(), "epoch": epoch, "seq": seq.to_string() });
                    assert_eq!(Some(&read), vector.get("version"), "{name}");
                }
            }
            (result, ..) => panic!("{name}: {result:?}"),
        }
        let refusal = decode_version_refusal(&bytes).map(|reject| {
            json!({ "client": reject.client.to_string(), "epoch": reject.epoch, "refused": reject.refused.to_string() })
        });
        assert_eq!(refusal.as_ref(), vector.get("version_refusal"), "{name}");
    }
}

/// Of a server with the extension for answers, and of one without it.
#[test]
fn a_golden_reply_is_a_reject_or_an_answer_to_its_request_and_not_longer() {
    let replies = |vector: Vector| {
        let without = vector.get("without").and_then(Value::as_object).cloned();
        [Some(vector.clone()), without].into_iter().flatten().map(move |does| (vector.clone(), does))
    };
    let mut seen = BTreeSet::new();
    for (vector, does) in vectors().into_iter().flat_map(replies).filter(|(_, does)| does.contains_key("reply")) {
        let (name, request, reply) = (text(&vector, "name"), bytes(text(&vector, "hex")), bytes(text(&does, "reply")));
        assert!(reply.len() <= request.len(), "{name}");
        // Epoch and client stand where they stood, and the seq where the seq did.
        assert_eq!(reply[4..24], request[4..24], "{name}");
        match (text(&does, "server"), decode(&reply)) {
            ("reject", Ok(Datagram::Reject(reject))) => assert_eq!(reject.retry_after_ms, 0, "{name}"),
            // Of a session that the server does not know.
            ("answer", Ok(Datagram::Answer(answer))) => assert_eq!(answer.status, AnswerStatus::Gone, "{name}"),
            (does, reply) => panic!("{name}: {does}, {reply:?}"),
        }
        seen.insert(text(&does, "server").to_owned());
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

/// A server that has never heard of answers refuses ASK as an option that it does not have, and drops TAKE as a type that it
/// does not know.
#[test]
fn every_golden_datagram_of_an_asking_client_says_what_a_server_without_the_extension_does() {
    for vector in vectors() {
        let (name, without) = (text(&vector, "name"), vector.get("without").map(|without| &without["server"]));
        let expected = match (decode(&bytes(text(&vector, "hex"))), text(&vector, "server")) {
            (Ok(Datagram::Data(data)), "journal") if data.asks() => Some("reject"),
            (Ok(Datagram::Take(_)), "answer") => Some("drop"),
            _ => None,
        };
        assert_eq!(without.and_then(Value::as_str), expected, "{name}");
    }
}

/// A new type, code, flag or error needs its golden datagrams.
#[test]
fn the_golden_datagrams_cover_all_that_there_is() {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for vector in vectors() {
        seen.insert(format!("server: {}", text(&vector, "server")));
        match decode(&bytes(text(&vector, "hex"))) {
            Ok(Datagram::Data(data)) => {
                seen.insert(format!("DATA, attempt {}", data.attempt));
                let flags = [(data.begin, "BEGIN"), (data.end, "END"), (data.batch, "BATCH"), (data.skip, "SKIP")];
                seen.insert(format!("options {}, supported {}", data.options, data.is_supported()));
                seen.extend(flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
            }
            Ok(Datagram::Ack(ack)) => {
                seen.insert(format!("ACK, durability {}", ack.durability as u8));
                seen.insert(format!("ACK, duplicate {}", ack.duplicate));
                seen.insert(format!("ACK, complete {}", ack.complete));
                seen.insert(format!("ACK, ready {}", ack.ready));
            }
            Ok(Datagram::Reject(reject)) => _ = seen.insert(format!("REJECT {:?}", reject.code)),
            Ok(Datagram::Hello(_)) => _ = seen.insert("HELLO".into()),
            Ok(Datagram::Welcome(_)) => _ = seen.insert("WELCOME".into()),
            Ok(Datagram::Ping(_)) => _ = seen.insert("PING".into()),
            Ok(Datagram::Answer(answer)) => {
                let body = if answer.body.is_empty() { "no body" } else { "a body" };
                seen.insert(format!("ANSWER {} with {body}", answer.status.to_wire().min(4)));
                if answer.status.is_answered() && answer.body.is_empty() && answer.number > 0 {
                    seen.insert(format!("ANSWER {} without room", answer.status.to_wire()));
                }
            }
            Ok(Datagram::Take(take)) => {
                let room = if take.room == 0 { "no room" } else { "room" };
                seen.insert(format!("TAKE, {room}, {}", if take.wait_ms == 0 { "at once" } else { "held" }));
            }
            Err(error) => _ = seen.insert(format!("error: {}", named(error))),
        }
    }
    let mut expected: Vec<String> = (1..=9).map(|code| format!("REJECT {:?}", RejectCode::from_wire(code))).collect();
    expected.extend((0..=7).map(|attempt| format!("DATA, attempt {attempt}")));
    expected.extend((0..=2).map(|durability| format!("ACK, durability {durability}")));
    expected.extend(["truncated", "checksum", "version", "unknown_type"].map(|error| format!("error: {error}")));
    expected.extend(["sealed", "malformed", "broken_batch"].map(|error| format!("error: {error}")));
    expected.extend(["journal", "ack", "welcome", "reject", "answer", "drop"].map(|does| format!("server: {does}")));
    expected.extend(["ACK, duplicate true", "ACK, duplicate false", "HELLO", "WELCOME", "PING"].map(String::from));
    expected.extend(["ACK, complete true", "ACK, complete false"].map(String::from));
    expected.extend(["ACK, ready true", "ACK, ready false"].map(String::from));
    expected.extend(
        ["options 2, supported true", "options 2, supported false", "options 1, supported false"].map(String::from),
    );
    expected.extend((0..4).map(|status| format!("ANSWER {status} with no body")));
    expected.extend([0, 1, 4].map(|status| format!("ANSWER {status} with a body")));
    expected.extend([0, 1].map(|status| format!("ANSWER {status} without room")));
    expected.extend(["TAKE, no room, at once", "TAKE, no room, held", "TAKE, room, at once"].map(String::from));
    expected.push("TAKE, room, held".into());
    expected.extend(["BEGIN", "END", "BATCH", "SKIP"].map(String::from));
    let missing: Vec<&String> = expected.iter().filter(|name| !seen.contains(*name)).collect();
    assert!(missing.is_empty(), "no golden datagram for {missing:?}");
}
