//! Tests of what operators see of dead letters and do about them.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use duragram_proto::Seq;
use serde_json::{Value, json};

use super::{Fake, change, connect, get, get_json, letter, start, wait_until};
use crate::admin::Retried;
use crate::journal::{DeadLetter, DeadLetterId};
use crate::limits;
use crate::model::SinkId;

#[test]
fn the_letters_that_several_sinks_have_of_one_record_are_listed_in_pages_of_one() {
    let state = Fake::new();
    let sinks = [SinkId::EMBEDDED, SinkId(1), SinkId(1 << 127)];
    for sink in sinks {
        state.dead.put(&DeadLetter { id: DeadLetterId { sink, ..letter(7, 1).id }, ..letter(7, 1) }).unwrap();
    }
    let admin = start(&state);
    let mut nexts = Vec::new();
    let mut path = "/api/dead?limit=1".to_owned();
    loop {
        let (status, page) = get_json(&admin, &path);
        assert_eq!((status, page["dead"].as_array().unwrap().len()), (200, 1));
        let next = &page["next"];
        let Some(sink) = next["sink"].as_str() else { break };
        path = format!("/api/dead?limit=1&from={}&index={}&sink={sink}", next["offset"], next["index"]);
        nexts.push(SinkId::parse(sink).unwrap());
    }
    assert_eq!(nexts, sinks[1..]);
}

#[test]
fn dead_letters_are_listed_in_pages_and_shown() {
    let state = Fake::new();
    for index in [0, 1, u16::MAX] {
        state.dead.put(&letter(7, index)).unwrap();
    }
    state.dead.put(&DeadLetter { payload: vec![0xff], ..letter(8, 0) }).unwrap();
    let admin = start(&state);

    let (mut seen, mut path) = (Vec::new(), "/api/dead?limit=2".to_owned());
    loop {
        let (status, page) = get_json(&admin, &path);
        assert_eq!((status, &page["count"]), (200, &json!(4)));
        let letters = page["dead"].as_array().unwrap();
        seen.extend(
            letters.iter().map(|letter| (letter["offset"].as_u64().unwrap(), letter["index"].as_u64().unwrap())),
        );
        assert!(letters.iter().all(|letter| letter.get("payload").is_none()), "a list holds no payloads");
        let next = &page["next"];
        if next.is_null() {
            break;
        }
        path = format!("/api/dead?limit=2&from={}&index={}", next["offset"], next["index"]);
    }
    assert_eq!(seen, [(7, 0), (7, 1), (7, 65535), (8, 0)]);
    let (status, answer) = get_json(&admin, "/api/dead?from=7&sink=1");
    assert_eq!(status, 400, "{answer}");

    let expected = json!({
        "offset": 7, "index": 1, "client": "00000000000000a1", "epoch": 3, "seq": 9, "channel": 5,
        "received_at": "2026-01-02T03:04:05.678901Z", "dead_since": "2026-01-02T03:04:06.000000Z",
        "attempts": 10, "error": "no paper", "payload_bytes": 4, "payload": "text",
    });
    assert_eq!(get_json(&admin, "/api/dead/7/1"), (200, expected));
    assert_eq!(get_json(&admin, "/api/dead/8/0").1["payload_base64"], "/w==");

    state.dead.put(&DeadLetter { payload: Vec::new(), gap_from: Some(Seq(5)), ..letter(9, 0) }).unwrap();
    let gap = get_json(&admin, "/api/dead/9/0").1;
    assert_eq!((&gap["gap"], &gap["payload"]), (&json!({ "from": 5, "to": 9 }), &Value::Null));
}

#[test]
fn dead_letters_are_retried_and_discarded() {
    let state = Fake::new();
    state.dead.put(&letter(7, 0)).unwrap();
    state.dead.put(&letter(8, 0)).unwrap();
    let retries = [
        Retried::Failed("still no paper".into()),
        Retried::Unanswered("lane 0 is busy".into()),
        Retried::Impossible("its sink is not configured any more".into()),
        Retried::Done,
    ];
    *state.retries.lock().unwrap() = retries.into();
    let admin = start(&state);
    let header = "Authorization: Bearer 0123456789abcdef\r\n";

    let (status, answer) = change(&admin, "POST", "/api/dead/7/0/retry", header);
    assert!(status == 409 && answer.contains("it failed again: still no paper"), "{answer}");
    let (status, answer) = change(&admin, "POST", "/api/dead/7/0/retry", header);
    assert!(status == 503 && answer.contains("lane 0 is busy"), "{answer}");
    let (status, answer) = change(&admin, "POST", "/api/dead/7/0/retry", header);
    assert!(status == 409 && answer.contains("not configured any more"), "{answer}");
    assert_eq!(state.dead.count(), 2);
    assert_eq!(change(&admin, "POST", "/api/dead/7/0/retry", header).0, 200);
    assert_eq!(change(&admin, "POST", "/api/dead/7/0/retry", header).0, 404);

    assert_eq!(change(&admin, "DELETE", "/api/dead/8/0", header).0, 200);
    assert_eq!(change(&admin, "DELETE", "/api/dead/8/0", header).0, 404);
    assert_eq!(state.dead.count(), 0);
}

#[test]
fn retries_that_wait_for_their_lanes_hold_up_no_other_request() {
    let state = Fake::new();
    state.dead.put(&letter(7, 0)).unwrap();
    let admin = start(&state);
    // More than there are threads that read for requests; none gets its answer.
    let retries = limits::ADMIN_READERS + 2;
    let waiting: Vec<TcpStream> = (0..retries)
        .map(|_| {
            let mut stream = connect(&admin);
            let host = admin.address();
            let header = "Authorization: Bearer 0123456789abcdef";
            write!(stream, "POST /api/dead/7/0/retry HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("the lanes are asked", || state.asked.load(Ordering::Relaxed) == retries);
    assert_eq!(get(&admin, "/api/dead/7/0").0, 200);
    drop(waiting);
}
