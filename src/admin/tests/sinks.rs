//! Tests of what operators see of sinks and tell them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Fake, change, get_json, letter, raw, start, wait_until};
use crate::admin::{Admin, SinkChange, SinkRefused, SinkState, SinkView};
use crate::journal::{DeadLetter, DeadLetterId};
use crate::model::{BacklogConfig, LaneMark, Offset, SinkId, SinkLoss, SinkRecord, WhenFull};

const AUTHORIZED: &str = "Authorization: Bearer 0123456789abcdef\r\n";

fn view(name: &str, id: u128, watermark: u64) -> SinkView {
    let mark = LaneMark { watermark: Offset(watermark), sink_state: Vec::new() };
    let record = SinkRecord::new(SinkId(id), name, 0, mark, 1);
    let backlog = Some(BacklogConfig::default());
    SinkView {
        record,
        state: SinkState::Up,
        since_unix_s: Some(1_767_323_045),
        reason: None,
        held_bytes: Some(0),
        backlog,
        blocks: false,
    }
}

fn of(sink: u128, offset: u64) -> DeadLetter {
    let letter = letter(offset, 0);
    DeadLetter { id: DeadLetterId { sink: SinkId(sink), ..letter.id }, ..letter }
}

/// Asks for a change of the sink with this name, as it stands in a query.
fn ask(admin: &Admin, what: &str, name: &str) -> (u16, String) {
    change(admin, "POST", &format!("/api/sinks/{what}?name={name}"), AUTHORIZED)
}

fn seek(admin: &Admin, name: &str, body: &str) -> (u16, Value) {
    let (host, len) = (admin.address(), body.len());
    let head =
        format!("POST /api/sinks/seek?name={name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{AUTHORIZED}");
    let (status, answer) = raw(admin, &format!("{head}Content-Length: {len}\r\n\r\n{body}"));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}")))
}

#[test]
fn each_sink_is_shown_with_how_far_it_is_behind_and_why() {
    let state = Fake::new();
    state.commit(&[b"0", b"1", b"2", b"3"]);
    let mut away = view("stdout", 7, 1);
    away.state = SinkState::Down;
    away.reason = Some("the pipe is full".into());
    away.held_bytes = Some(300);
    away.backlog = Some(BacklogConfig { bytes_max: Some(400), when_full: WhenFull::DropOldest });
    away.record.losses = vec![SinkLoss { from: Offset(0), to: Offset(1), entries: 1, unix_us: 1_767_323_045_000_000 }];
    let gone = SinkView {
        state: SinkState::NotConfigured,
        since_unix_s: None,
        held_bytes: None,
        backlog: None,
        ..view("old", 8, 4)
    };
    *state.sinks.lock().unwrap() = vec![away, gone];
    [of(0, 1), of(7, 1), of(7, 2), of(9, 3)].iter().for_each(|letter| state.dead.put(letter).unwrap());
    let admin = start(&state);
    let (status, all) = get_json(&admin, "/api/sinks");
    assert_eq!((status, &all["end"], &all["dead_letters_of_others"]), (200, &json!(4), &json!(2)));
    let mut first = all["sinks"][0].clone();
    let oldest = first.as_object_mut().unwrap().remove("oldest_seconds").unwrap();
    assert!(oldest.as_u64().unwrap() > 86_400, "entry 1 came in 2023: {oldest}");
    let expected = json!({
        "name": "stdout", "id": "00000000000000000000000000000007", "type": "stdout", "promise": "at least once",
        "state": "down", "since": "2026-01-02T03:04:05.000000Z", "reason": "the pipe is full", "watermark": 1, "lag": 3,
        "held_bytes": 300, "dead_letters": 2, "lost_entries": 1,
        "losses": [{ "from": 0, "to": 1, "entries": 1, "lost_at": "2026-01-02T03:04:05.000000Z" }],
        "backlog": { "bytes_max": 400, "when_full": "drop_oldest", "percent": 75, "blocks": false },
    });
    assert_eq!(first, expected);
    let second = &all["sinks"][1];
    assert_eq!((&second["state"], &second["lag"]), (&json!("not configured"), &json!(0)));
    for unknown in ["type", "since", "reason", "held_bytes", "oldest_seconds", "backlog"] {
        assert_eq!(second[unknown], Value::Null, "{unknown}");
    }
}

#[test]
fn a_sink_is_told_what_is_asked_by_whatever_name_it_has() {
    let state = Fake::new();
    state.commit(&[b"0", b"1", b"2"]);
    state.commit(&[b"3", b"4"]);
    let admin = start(&state);
    assert_eq!(ask(&admin, "pause", "file%3A%2Fvar%2Flog%2Fa%20b%2B%26c").0, 200);
    assert_eq!(ask(&admin, "resume", "events").0, 200);
    for (body, to) in [(r#"{"offset":2}"#, 2), (r#"{"offset":"oldest"}"#, 0), (r#"{"offset":"now"}"#, 5)] {
        assert_eq!(seek(&admin, "events", body), (200, json!({ "offset": to, "oldest": 0, "end": 5 })));
    }
    let events = |change| ("events".to_owned(), change);
    let expected = [
        ("file:/var/log/a b+&c".to_owned(), SinkChange::Pause),
        events(SinkChange::Resume),
        events(SinkChange::Seek(Offset(2))),
        events(SinkChange::Seek(Offset(0))),
        events(SinkChange::Seek(Offset(5))),
    ];
    assert_eq!(*state.changes.lock().unwrap(), expected);
}

#[test]
fn a_sink_that_is_to_go_where_there_is_nothing_goes_to_the_nearest_entry_and_the_answer_says_so() {
    let state = Fake::new();
    state.commit(&[b"0", b"1"]);
    state.commit(&[b"2", b"3"]);
    state.trim(2);
    let admin = start(&state);
    for (asked, to) in [(0, 2), (3, 3), (99, 4)] {
        let (status, answer) = seek(&admin, "events", &json!({ "offset": asked }).to_string());
        assert_eq!((status, &answer["offset"]), (200, &json!(to)), "{asked}: {answer}");
    }
    for body in ["", "7", r#"{"offset":"then"}"#, r#"{"offset":-1}"#, r#"{"offset":1,"more":2}"#, r#"{"to":1}"#] {
        let (status, answer) = seek(&admin, "events", body);
        assert!(
            status == 400 && answer["error"].as_str().unwrap().contains(r#"{"offset": "oldest"}"#),
            "{body}: {answer}"
        );
    }
    assert_eq!(state.changes.lock().unwrap().len(), 3);
}

#[test]
fn a_change_of_a_sink_that_is_refused_says_why() {
    let state = Fake::new();
    let admin = start(&state);
    for (refused, status) in [
        (SinkRefused::Unknown("there is no sink \"x\"; there are: events".into()), 404),
        (SinkRefused::NotConfigured("it only keeps its place".into()), 409),
        (SinkRefused::Busy("it does not take requests now".into()), 503),
    ] {
        let (SinkRefused::Unknown(why) | SinkRefused::NotConfigured(why) | SinkRefused::Busy(why)) = &refused;
        *state.refusal.lock().unwrap() = Some(refused.clone());
        let (code, answer) = ask(&admin, "pause", "x");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!((code, serde_json::from_str::<Value>(body).unwrap()), (status, json!({ "error": why })));
    }
    assert_eq!(ask(&admin, "pause", "x&offset=1").0, 400);
    assert_eq!(change(&admin, "POST", "/api/sinks/pause", AUTHORIZED).0, 400);
    for what in ["pause", "resume", "seek", "remove"] {
        assert_eq!(change(&admin, "POST", &format!("/api/sinks/{what}?name=x"), "").0, 401, "{what} without the token");
    }
    assert_eq!(*state.changes.lock().unwrap(), []);
}

#[test]
fn a_sink_that_is_removed_takes_its_dead_letters_with_it_when_its_lane_has_stopped_and_no_others() {
    let state = Fake::new();
    *state.sinks.lock().unwrap() = vec![view("events", 7, 0), view("other", 8, 0)];
    [of(0, 1), of(7, 1), of(7, 2), of(8, 1)].iter().for_each(|letter| state.dead.put(letter).unwrap());
    state.lanes_run.store(true, Ordering::SeqCst);
    let admin = Arc::new(start(&state));
    let asking = Arc::clone(&admin);
    let removing = std::thread::spawn(move || ask(&asking, "remove", "events"));
    wait_until("looks", || state.looks.load(Ordering::SeqCst) > 1);
    assert_eq!(state.dead.count(), 4, "a call is under way that may make another");
    state.lanes_run.store(false, Ordering::SeqCst);
    let (status, answer) = removing.join().unwrap();
    assert!(status == 200 && answer.ends_with(r#"{"dead_letters":2,"removed":true}"#), "{answer}");
    let left: Vec<_> = state.dead.list(DeadLetterId::FIRST, 9).unwrap().iter().map(|letter| letter.id.sink.0).collect();
    assert_eq!(left, [0, 8]);
}

#[test]
fn dead_letters_are_those_of_their_sink() {
    let state = Fake::new();
    *state.sinks.lock().unwrap() = vec![view("file:/a", 7, 0)];
    [of(7, 1), of(9, 1), of(7, 2), of(0, 3)].iter().for_each(|letter| state.dead.put(letter).unwrap());
    let admin = start(&state);
    let gone = "00000000000000000000000000000009";
    let listed = |query: &str| -> Vec<(u64, Value)> {
        let (status, page) = get_json(&admin, &format!("/api/dead{query}"));
        assert_eq!(status, 200, "{page}");
        let letters = page["dead"].as_array().unwrap();
        letters.iter().map(|letter| (letter["offset"].as_u64().unwrap(), letter["sink"].clone())).collect()
    };
    let ours = json!("file:/a");
    let all = [(1, ours.clone()), (1, json!(gone)), (2, ours.clone()), (3, Value::Null)];
    assert_eq!(listed(""), all);
    assert_eq!(listed("?name=file%3A%2Fa"), [(1, ours.clone()), (2, ours.clone())]);
    assert_eq!(listed(&format!("?name={gone}")), [(1, json!(gone))]);
    let (status, answer) = get_json(&admin, "/api/dead?name=file");
    assert!(status == 404 && answer["error"].as_str().unwrap().contains("there are: file:/a"), "{answer}");

    assert_eq!(get_json(&admin, "/api/dead/2/0").1["sink"], ours, "one sink alone has a letter of it");
    let (status, answer) = get_json(&admin, "/api/dead/1/0");
    let error = answer["error"].as_str().unwrap();
    assert!(status == 409 && error.ends_with(&format!("(--sink NAME): file:/a, {gone}")), "{answer}");
    let shown = get_json(&admin, "/api/dead/1/0?sink=file%3A%2Fa").1;
    assert_eq!((&shown["sink"], &shown["sink_id"]), (&ours, &json!("00000000000000000000000000000007")));
    assert_eq!(get_json(&admin, "/api/dead/3/0?sink=file%3A%2Fa").0, 404);
    assert_eq!(change(&admin, "DELETE", "/api/dead/1/0", AUTHORIZED).0, 409);
    assert_eq!(change(&admin, "DELETE", &format!("/api/dead/1/0?sink={gone}"), AUTHORIZED).0, 200);
    assert_eq!(listed(""), [(1, ours.clone()), (2, ours), (3, Value::Null)]);
    assert_eq!(change(&admin, "DELETE", "/api/dead/1/0", AUTHORIZED).0, 200, "one is left, and is meant");
}
