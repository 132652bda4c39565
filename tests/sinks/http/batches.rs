//! Many records in one request.

use std::collections::BTreeSet;
use std::io::Read as _;

use duragram::model::HttpMode::Batch;
use duragram::process::Outcome;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::super::support::lane::{Message, drive, messages};
use super::server::{Request, Response, Server};
use super::{JOURNAL, PATIENCE, at, fault, open, present};

/// The offsets in a batch's lines.
fn offsets(request: &Request) -> Vec<u64> {
    let offset = |line: &str| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap();
    request.text().lines().map(offset).collect()
}

fn json_lines(lines: impl IntoIterator<Item = Value>) -> Response {
    let body: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    Response::status(200).header("Content-Type", "application/x-ndjson").body(body)
}

#[test]
fn a_batch_has_the_lines_of_the_file_sink_and_a_key_of_its_records() {
    let server = Server::start(|_| Response::status(200).body("OK"));
    let messages = messages(3, 3);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    assert_eq!(drive(&mut *open(at(server.address(), Batch)), &records, 10, PATIENCE), []);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    let line = |offset: u64| {
        format!(
            "{{\"offset\":{offset},\"index\":0,\"client\":\"00000000000000a1\",\"epoch\":3,\"seq\":{},\"channel\":7,\
             \"received_at\":\"2026-01-02T03:04:05.{}Z\",\"payload\":\"message {offset}\"}}\n",
            offset + 1,
            678_901 + offset
        )
    };
    assert_eq!(request.text(), (3..6).map(line).collect::<String>());
    assert_eq!(request.header("content-type"), "application/x-ndjson");
    assert_eq!(request.header("duragram-journal"), JOURNAL);
    let key = request.header("idempotency-key");
    let (records, checksum) = key.trim_matches('"').rsplit_once('-').unwrap();
    assert_eq!(records, format!("{JOURNAL}-3-0..5-0"));
    assert!(key.starts_with('"') && key.ends_with('"') && checksum.len() == 8, "{key}");
}

#[test]
fn compressed_lines_are_the_lines_when_they_are_unpacked() {
    let server = Server::start(|_| Response::status(200));
    let messages = messages(0, 500);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    let mut target = at(server.address(), Batch);
    assert_eq!(drive(&mut *open(target.clone()), &records, 500, PATIENCE), []);
    target.gzip = true;
    assert_eq!(drive(&mut *open(target), &records, 500, PATIENCE), []);
    let requests = server.requests();
    let mut plain = Vec::new();
    GzDecoder::new(requests[1].body.as_slice()).read_to_end(&mut plain).unwrap();
    assert!(plain == requests[0].body && requests[1].body.len() * 4 < plain.len());
    assert_eq!(requests[1].header("content-encoding"), "gzip");
    assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
}

#[test]
fn one_bad_record_of_a_thousand_costs_one_dead_letter_and_few_requests() {
    for bad in [0, 437, 999] {
        let server = Server::start(move |request| match offsets(request).contains(&bad) {
            true => Response::status(400).body("cannot parse it"),
            false => Response::status(200),
        });
        let messages = messages(0, 1_000);
        let records: Vec<_> = messages.iter().map(Message::record).collect();
        let dead = drive(&mut *open(at(server.address(), Batch)), &records, 1_000, PATIENCE);
        let reason = format!("http://{} answered 400 (cannot parse it)", server.address());
        assert_eq!(dead, [((bad, 0), reason)]);
        let requests = server.requests();
        assert!(requests.len() <= 25, "{} requests", requests.len());
        let taken: Vec<u64> = requests.iter().map(offsets).filter(|batch| !batch.contains(&bad)).flatten().collect();
        let expected: Vec<u64> = (0..1_000).filter(|offset| *offset != bad).collect();
        assert_eq!(taken, expected, "the others came once each, in order");
    }
}

#[test]
fn a_server_that_refuses_every_record_gets_each_of_them_alone_once() {
    let server = Server::start(|_| Response::status(422));
    let messages = messages(0, 64);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    let dead = drive(&mut *open(at(server.address(), Batch)), &records, 64, PATIENCE);
    let names: Vec<u64> = dead.iter().map(|((offset, _), _)| *offset).collect();
    assert_eq!(names, (0..64).collect::<Vec<_>>());
    assert_eq!(server.requests().len(), 127);
}

#[test]
fn batches_shrink_to_what_the_server_takes_and_one_record_that_is_too_large_dies_alone() {
    let server = Server::start(|request| match request.body.len() > 10_000 {
        true => Response::status(413),
        false => Response::status(200),
    });
    let mut messages = messages(0, 1_000);
    messages[500].payload = vec![b'x'; 20_000];
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    let mut handler = open(at(server.address(), Batch));
    let dead = drive(&mut *handler, &records, 1_000, PATIENCE);
    let names: Vec<u64> = dead.iter().map(|((offset, _), _)| *offset).collect();
    assert_eq!(names, [500]);
    let taken: Vec<u64> = server.requests().iter().filter(|r| r.body.len() <= 10_000).flat_map(offsets).collect();
    assert_eq!(taken, (0..1_000).filter(|offset| *offset != 500).collect::<Vec<_>>());
    // What was learned holds for the next batches.
    let before = server.requests().len();
    assert_eq!(drive(&mut *handler, &records[501..], 499, PATIENCE), []);
    assert!(server.requests()[before..].iter().all(|request| request.body.len() <= 10_000));
}

#[test]
fn only_what_was_not_answered_comes_again() {
    let server = Server::start(|request| match request.nth {
        0 => json_lines([
            json!({"offset": 0, "index": 0, "done": true}),
            json!({"offset": 3, "index": 0, "retry": "locked"}),
            json!({"offset": 4, "index": 0, "give_up": "no such unit"}),
            json!({"offset": 1, "index": 0, "done": true}),
        ]),
        _ => json_lines(offsets(request).into_iter().map(|offset| json!({"offset": offset, "index": 0, "done": true}))),
    });
    let messages = messages(0, 6);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    let mut handler = open(at(server.address(), Batch));
    let dead = drive(&mut *handler, &records, 6, PATIENCE);
    assert_eq!(dead, [((4, 0), "no such unit".to_owned())]);
    let batches: Vec<Vec<u64>> = server.requests().iter().map(offsets).collect();
    assert_eq!(batches, [vec![0, 1, 2, 3, 4, 5], vec![2, 3, 5]]);
}

#[test]
fn what_the_server_says_of_a_record_beside_done_is_the_answer_for_who_has_asked() {
    let server = Server::start(|_| {
        json_lines([
            json!({"offset": 0, "index": 0, "done": true, "answer": "valve: open"}),
            json!({"offset": 1, "index": 0, "done": true, "answer_base64": "AP8="}),
            json!({"offset": 2, "index": 0, "done": true, "answer": "x".repeat(1025)}),
            json!({"offset": 3, "index": 0, "done": true}),
        ])
    });
    let messages = messages(0, 4);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    let (outcomes, _) = present(&mut *open(at(server.address(), Batch)), &records);
    assert!((0..4).all(|i| *outcomes.outcome(i) == Outcome::Done), "{outcomes:?}");
    let answers = [0, 1, 2, 3].map(|i| outcomes.body(i).map(|body| body.to_vec()));
    assert_eq!(answers, [Some(b"valve: open".to_vec()), Some(vec![0, 255]), None, None]);
}

#[test]
fn batches_with_the_same_ends_and_other_records_have_other_keys() {
    let server = Server::start(|_| Response::status(200));
    let messages = messages(0, 5);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    let mut handler = open(at(server.address(), Batch));
    for left_out in [1, 2, 3] {
        let some: Vec<_> = records.iter().copied().filter(|record| record.offset.0 != left_out).collect();
        assert_eq!(drive(&mut *handler, &some, 5, PATIENCE), []);
    }
    let keys: BTreeSet<String> =
        server.requests().iter().map(|request| request.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[test]
fn a_piece_of_a_halved_batch_that_is_in_doubt_comes_again_as_it_was() {
    let server = Server::start(|request| match request.nth {
        // Halved; its first half is taken, or lost on the way back.
        0 => Response::status(400),
        1 => Response::cut(),
        _ => Response::status(200),
    });
    let messages = messages(0, 8);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    assert_eq!(drive(&mut *open(at(server.address(), Batch)), &records, 8, PATIENCE), []);
    let requests = server.requests();
    let batches: Vec<Vec<u64>> = requests.iter().map(offsets).collect();
    assert_eq!(batches[1], [0, 1, 2, 3]);
    assert_eq!(batches[2], batches[1], "not in another batch, whose key the server does not know");
    assert_eq!(requests[1].headers, requests[2].headers);
    assert_eq!(batches[3..].concat(), [4, 5, 6, 7]);
}

#[test]
fn answers_that_cannot_be_meant_are_the_servers_fault_and_none_of_them_is_taken() {
    let good = r#"{"offset":0,"index":0,"done":true}"#;
    for (content_type, body) in [
        ("application/x-ndjson", format!("{good}\n{{\"offset\":1,")),
        ("application/x-ndjson", format!("{good}\nall fine")),
        ("application/x-ndjson", format!("{good}\n{{\"offset\":9,\"index\":0,\"done\":true}}")),
        ("application/x-ndjson", "[]".to_owned()),
        ("application/json", format!("[{good},{{\"offset\":1,\"index\":0,\"done\":false}}]")),
    ] {
        let said = body.clone();
        let server = Server::start(move |request| match request.nth {
            0 => Response::status(200).header("Content-Type", content_type).body(said.clone()),
            _ => Response::status(200),
        });
        let messages = messages(0, 2);
        let records: Vec<_> = messages.iter().map(Message::record).collect();
        let mut handler = open(at(server.address(), Batch));
        let (outcomes, _) = present(&mut *handler, &records);
        assert!(fault(&outcomes).contains(&server.address().to_string()), "{body}: {outcomes:?}");
        assert!((0..2).all(|i| *outcomes.outcome(i) == Outcome::Unanswered), "{body}: {outcomes:?}");
        assert_eq!(drive(&mut *handler, &records, 2, PATIENCE), []);
        assert_eq!(server.requests()[0].body, server.requests()[1].body);
    }
}

#[test]
fn an_answer_for_each_that_is_longer_than_any_is_the_servers_fault() {
    let server = Server::start(|_| Response::status(200).header("Content-Type", "application/json").zeros(1 << 30));
    let message = messages(0, 1);
    let (outcomes, _) = present(&mut *open(at(server.address(), Batch)), &[message[0].record()]);
    assert!(fault(&outcomes).contains("longer than"), "{outcomes:?}");
    assert!(server.written() < 64 << 20);
}

#[test]
fn json_of_another_kind_answers_for_the_whole_batch() {
    for body in [r#"{"inserted":3}"#, "{}", "[]", r#""ok""#] {
        let server =
            Server::start(move |_| Response::status(200).header("Content-Type", "application/json").body(body));
        let messages = messages(0, 3);
        let records: Vec<_> = messages.iter().map(Message::record).collect();
        assert_eq!(drive(&mut *open(at(server.address(), Batch)), &records, 3, PATIENCE), []);
        assert_eq!(server.requests().len(), 1);
    }
}
