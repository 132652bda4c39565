//! Tests of entries and of streams that follow them.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::{Value, json};

use super::{Fake, agent, get, start};
use crate::admin::Admin;

/// A stream of `/api/tail`, line by line.
pub(super) fn tail(admin: &Admin, query: &str) -> BufReader<impl Read + use<>> {
    let answer = agent().get(format!("http://{}/api/tail{query}", admin.address())).call().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    BufReader::new(answer.into_body().into_reader())
}

fn next_line(lines: &mut impl BufRead) -> Value {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"))
}

fn offsets(text: &str) -> Vec<u64> {
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap()).collect()
}

#[test]
fn a_page_of_entries_begins_and_ends_where_it_was_asked() {
    let state = Fake::new();
    state.commit(&[b"0", b"1", b"2"]);
    state.commit(&[b"3", b"4"]);
    let admin = start(&state);
    assert_eq!(offsets(&get(&admin, "/api/entries").1), [0, 1, 2, 3, 4]);
    assert_eq!(offsets(&get(&admin, "/api/entries?from=1&limit=3").1), [1, 2, 3]);
    assert_eq!(offsets(&get(&admin, "/api/entries?from=4&limit=99999999").1), [4]);
    assert_eq!(offsets(&get(&admin, "/api/entries?limit=0").1), Vec::<u64>::new());
    assert_eq!(get(&admin, "/api/entries?from=5"), (200, String::new()));
}

#[test]
fn a_tail_shows_what_is_there_and_then_what_comes() {
    let state = Fake::new();
    state.commit(&[b"0", b"1"]);
    let admin = start(&state);
    let mut lines = tail(&admin, "?from=1");
    assert_eq!(next_line(&mut lines)["offset"], 1);
    state.commit(&[b"2"]);
    assert_eq!(next_line(&mut lines)["offset"], 2);
    state.commit(&[b"3"]);
    assert_eq!(next_line(&mut lines)["offset"], 3);
}

#[test]
fn a_tail_without_an_offset_shows_only_what_comes() {
    let state = Fake::new();
    state.commit(&[b"0", b"1"]);
    let admin = start(&state);
    let mut lines = tail(&admin, "");
    state.commit(&[b"2"]);
    assert_eq!(next_line(&mut lines)["offset"], 2);
}

#[test]
fn a_tail_that_does_not_follow_ends_at_what_was_the_end() {
    let state = Fake::new();
    state.commit(&[b"0", b"1"]);
    state.commit(&[b"2"]);
    let admin = start(&state);
    let (status, text) = get(&admin, "/api/tail?from=0&follow=false");
    assert_eq!((status, offsets(&text)), (200, vec![0, 1, 2]));
}

#[test]
fn a_tail_tells_what_was_trimmed() {
    let state = Fake::new();
    state.commit(&[b"0", b"1"]);
    state.commit(&[b"2"]);
    state.trim(2);
    let admin = start(&state);
    let mut lines = tail(&admin, "?from=1");
    assert_eq!(next_line(&mut lines), json!({ "trimmed": { "from": 1, "to": 1 } }));
    assert_eq!(next_line(&mut lines)["offset"], 2);

    // All that was there is gone, and nothing has come since.
    state.trim(3);
    let (_, text) = get(&admin, "/api/tail?from=0&follow=false");
    assert_eq!(text, "{\"trimmed\":{\"from\":0,\"to\":2}}\n");
}

#[test]
fn a_server_that_stops_cuts_its_streams_so_that_readers_know_there_is_more() {
    let state = Fake::new();
    state.commit(&[b"0"]);
    let admin = start(&state);
    let mut lines = tail(&admin, "?from=0");
    assert_eq!(next_line(&mut lines)["offset"], 0);
    let stopping = thread::spawn(move || admin.stop());
    let end = lines.read_line(&mut String::new());
    assert!(end.is_err(), "a cut stream must not look like a finished one: {end:?}");
    stopping.join().unwrap();
}

#[test]
fn a_journal_that_cannot_be_read_is_told_and_cuts_the_stream() {
    let state = Fake::new();
    state.commit(&[b"0"]);
    state.disk_fails.store(true, Ordering::Relaxed);
    let admin = start(&state);
    let mut lines = tail(&admin, "?from=0&follow=false");
    assert_eq!(next_line(&mut lines), json!({ "error": "reading: the disk is on fire" }));
    assert!(lines.read_line(&mut String::new()).is_err());
}
