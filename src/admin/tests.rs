//! The admin interface over real sockets, with a state that the tests make.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use duragram_proto::{ClientId, Epoch, Seq};
use serde_json::{Value, json};
use ureq::Agent;

use super::*;
use crate::journal::testing::memory::{MemoryDisk, MemoryJournal};
use crate::journal::{Block, BlockBuilder, Checkpoint, DeadLetterId, Journal, StorageError};
use crate::limits;
use crate::metrics::Metrics;
use crate::model::{DialectId, EntryMeta, LaneMark, SessionId};

const DEADLINE: Duration = Duration::from_secs(20);

struct Fake {
    disk: MemoryDisk,
    journal: Mutex<MemoryJournal>,
    dead: Arc<dyn DeadLetters>,
    registry: Registry,
    failure: Mutex<Option<String>>,
    not_ready: Mutex<Vec<String>>,
    waiting: Mutex<Vec<String>>,
    retries: Mutex<VecDeque<Retried>>,
    disk_fails: AtomicBool,
}

impl Fake {
    fn new() -> Arc<Self> {
        let disk = MemoryDisk::default();
        let opened = disk.open(&mut |_| {});
        let mut registry = Registry::default();
        Metrics::register(&mut registry).count("journaled", 3);
        Arc::new(Self {
            journal: Mutex::new(opened.journal),
            dead: opened.dead,
            disk,
            registry,
            failure: Mutex::default(),
            not_ready: Mutex::default(),
            waiting: Mutex::default(),
            retries: Mutex::default(),
            disk_fails: AtomicBool::default(),
        })
    }

    /// One block.
    fn commit(&self, payloads: &[&[u8]]) {
        let mut block = BlockBuilder::default();
        for payload in payloads {
            let meta = EntryMeta {
                dialect: DialectId::DURAGRAM,
                session: session(),
                seq: Seq(1),
                span: 0,
                skip: false,
                batch: false,
                sealed: false,
                channel: 0,
                received_unix_us: 1_700_000_000_000_000,
            };
            block.push(&meta, payload);
        }
        self.journal.lock().unwrap().commit(&mut block, &[]).unwrap();
    }

    fn trim(&self, below: u64) {
        let at = self.disk.end();
        let lanes = vec![LaneMark { watermark: at, sink_state: Vec::new() }];
        let checkpoint = Checkpoint { at, lanes, trim_below: Offset(below), ..Checkpoint::default() };
        self.journal.lock().unwrap().checkpoint(&checkpoint).unwrap();
    }
}

fn session() -> SessionId {
    SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() }
}

impl ReadJournal for Fake {
    fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Arc<Block>>, StorageError> {
        if self.disk_fails.load(Ordering::Relaxed) {
            return Err(StorageError::new("reading", "the disk is on fire"));
        }
        self.disk.read(from, bytes_max)
    }
}

impl AdminState for Fake {
    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap().clone()
    }
    fn not_ready(&self) -> Vec<String> {
        self.not_ready.lock().unwrap().clone()
    }
    fn waiting(&self) -> Vec<String> {
        self.waiting.lock().unwrap().clone()
    }
    fn status(&self) -> Status {
        Status {
            phase: Phase::Running,
            uptime_s: 5,
            udp: vec!["127.0.0.1:7117".parse().unwrap()],
            sessions: 2,
            offsets: Offsets { low: 0, checkpoint: 0, end: self.disk.end().0 },
            lanes: vec![LaneStatus { lane: 0, watermark: 1, lag: 2 }],
            backlog_bytes: 100,
            free_bytes: Some(1 << 30),
            dead_letters: self.dead.count(),
            keys: None,
        }
    }
    fn registry(&self) -> &Registry {
        &self.registry
    }
    fn journal(&self) -> &dyn ReadJournal {
        self
    }
    fn end(&self) -> Offset {
        self.disk.end()
    }
    fn dead_letters(&self) -> &dyn DeadLetters {
        &*self.dead
    }
    fn retry_dead(&self, letter: DeadLetter) -> Retried {
        let retried = self.retries.lock().unwrap().pop_front().unwrap();
        if retried == Retried::Done {
            self.dead.delete(letter.id).unwrap();
        }
        retried
    }
}

fn start(state: &Arc<Fake>) -> Admin {
    start_with(state, Patience::default())
}

fn start_with(state: &Arc<Fake>, patience: Patience) -> Admin {
    let address = "127.0.0.1:0".parse().unwrap();
    let state = Arc::clone(state) as Arc<dyn AdminState>;
    Admin::start_with(address, &Config::default(), token(), state, patience).unwrap()
}

fn token() -> Token {
    Token::parse(b"0123456789abcdef").unwrap()
}

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(DEADLINE));
    Agent::new_with_config(config.build())
}

fn get(admin: &Admin, path: &str) -> (u16, String) {
    let mut answer = agent().get(format!("http://{}{path}", admin.address())).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

fn get_json(admin: &Admin, path: &str) -> (u16, Value) {
    let (status, text) = get(admin, path);
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path} gave no JSON: {text}")))
}

fn change(admin: &Admin, method: &str, path: &str, headers: &str) -> (u16, String) {
    raw(admin, &format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", admin.address()))
}

/// Sends bytes, reads to the end.
fn raw(admin: &Admin, request: &str) -> (u16, String) {
    let mut stream = connect(admin);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}")).parse().unwrap();
    (status, answer)
}

fn connect(admin: &Admin) -> TcpStream {
    let stream = TcpStream::connect(admin.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A stream of `/api/tail`, line by line.
fn tail(admin: &Admin, query: &str) -> BufReader<impl Read + use<>> {
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

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} did not come true");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn health_and_readiness_follow_the_state_and_give_reasons() {
    let state = Fake::new();
    let admin = start(&state);
    assert_eq!(get_json(&admin, "/healthz"), (200, json!({ "healthy": true, "reasons": [] })));
    assert_eq!(get_json(&admin, "/readyz"), (200, json!({ "ready": true, "reasons": [] })));

    *state.not_ready.lock().unwrap() = vec!["draining".into()];
    assert_eq!(get_json(&admin, "/readyz"), (503, json!({ "ready": false, "reasons": ["draining"] })));
    assert_eq!(get(&admin, "/healthz").0, 200, "a server that drains must not be restarted");

    *state.failure.lock().unwrap() = Some("commit: EIO".into());
    assert_eq!(get_json(&admin, "/healthz"), (503, json!({ "healthy": false, "reasons": ["commit: EIO"] })));
    assert_eq!(get_json(&admin, "/readyz").1["reasons"], json!(["draining", "commit: EIO"]));
}

#[test]
fn metrics_come_in_the_text_format_that_is_asked_for() {
    let admin = start(&Fake::new());
    for (accept, format, counter) in [
        (None, "text/plain; version=0.0.4", "duragram_datagrams_total"),
        (Some("text/plain;version=0.0.4"), "text/plain; version=0.0.4", "duragram_datagrams_total"),
        (
            Some("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"),
            "application/openmetrics-text; version=1.0.0",
            "duragram_datagrams",
        ),
    ] {
        let request = agent().get(format!("http://{}/metrics", admin.address()));
        let request = if let Some(accept) = accept { request.header("Accept", accept) } else { request };
        let mut answer = request.call().unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(kind, format!("{format}; charset=utf-8"));
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(text.contains(&format!("# TYPE {counter} counter\n")), "{text}");
        assert!(text.contains("duragram_datagrams_total{outcome=\"journaled\"} 3\n"), "{text}");
        assert_eq!(text.ends_with("# EOF\n"), kind.contains("openmetrics"), "{text}");
    }
}

#[test]
fn status_tells_state_configuration_and_memory() {
    let admin = start(&Fake::new());
    let (code, status) = get_json(&admin, "/api/status");
    assert_eq!(code, 200);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["phase"], "running");
    assert_eq!(status["admin"], admin.address().to_string());
    assert_eq!(status["udp"], json!(["127.0.0.1:7117"]));
    assert_eq!(status["offsets"], json!({ "low": 0, "checkpoint": 0, "end": 0 }));
    assert_eq!(status["lanes"], json!([{ "lane": 0, "watermark": 1, "lag": 2 }]));
    assert_eq!(status["config"]["window"], 4096);
    assert_eq!(status["sinks"], json!(["stdout"]));
    assert_eq!(status["memory"]["total_bytes"], crate::config::memory::memory_bound(&Config::default()).total_bytes);
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
fn requests_that_make_no_sense_are_answered_with_json_errors() {
    let admin = start(&Fake::new());
    for (path, status, told) in [
        ("/api/entries?from=1", 416, "offset 1 is beyond the journal's end, 0"),
        ("/api/tail?from=1", 416, "beyond"),
        ("/api/entries?from=x", 400, "from"),
        ("/api/entries?form=1", 400, "form"),
        ("/api/tail?follow=maybe", 400, "follow"),
        ("/api/dead/1/x", 400, "u16"),
        ("/api/dead/1/70000", 400, "u16"),
        ("/api/dead/1/2", 404, "there is no dead letter 1/2"),
        ("/api", 404, "there is no /api"),
        ("/metrics/", 404, "there is no /metrics/"),
        ("/api/dead/1/2/retry", 405, "does not take GET"),
    ] {
        let (code, json) = get_json(&admin, path);
        let error = json["error"].as_str().unwrap_or_else(|| panic!("{path}: {json}"));
        assert!(code == status && error.contains(told), "{path}: {code} {error}");
    }
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

#[test]
fn streams_are_bounded_and_a_reader_that_leaves_makes_room() {
    let state = Fake::new();
    let admin = start(&state);
    let mut open: Vec<_> = (0..limits::ADMIN_TAILS).map(|_| tail(&admin, "")).collect();
    let (status, error) = get_json(&admin, "/api/tail");
    assert_eq!((status, &error["error"]), (503, &json!("16 streams are open already")));
    assert_eq!(get(&admin, "/healthz").0, 200);
    open.pop();
    wait_until("a place for another stream", || {
        agent().get(format!("http://{}/api/tail", admin.address())).call().unwrap().status() == 200
    });
}

#[test]
fn readers_that_stall_are_cut_off_and_make_room() {
    let state = Fake::new();
    // More than the sockets' buffers of both sides can take.
    let payload = vec![b'x'; 60_000];
    for _ in 0..40 {
        state.commit(&[&payload[..]; 10]);
    }
    let patience = Patience { stall: Duration::from_millis(200), ..Patience::default() };
    let admin = start_with(&state, patience);
    let stalled: Vec<TcpStream> = (0..limits::ADMIN_TAILS)
        .map(|_| {
            let mut stream = connect(&admin);
            let host = admin.address();
            write!(stream, "GET /api/tail?from=0 HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("the streams are open", || get(&admin, "/api/tail?follow=false").0 == 503);
    wait_until("a place is free again", || get(&admin, "/api/tail?follow=false").0 == 200);
    drop(stalled);
}

#[test]
fn connections_that_say_nothing_cannot_lock_operators_out() {
    let patience = Patience { head: Duration::from_millis(300), ..Patience::default() };
    let admin = start_with(&Fake::new(), patience);
    let mut silent: Vec<TcpStream> = (0..limits::ADMIN_CONNECTIONS + 5).map(|_| connect(&admin)).collect();
    // One letter a time keeps no connection either.
    silent[0].write_all(b"GET /hea").unwrap();
    assert_eq!(get(&admin, "/healthz").0, 200);
    let mut rest = Vec::new();
    // The server may tell why before it closes.
    silent[0].read_to_end(&mut rest).unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let admin = start(&Fake::new());
    let long = "x".repeat(limits::ADMIN_HEAD_BYTES + 1000);
    let mut stream = connect(&admin);
    // The server closes before it has read all.
    drop(write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(get(&admin, "/healthz").0, 200);
}

#[test]
fn a_web_page_can_neither_change_nor_read_anything() {
    let state = Fake::new();
    state.dead.put(&letter(7, 0)).unwrap();
    let admin = start(&state);
    // A form or a `fetch` without preflight: no header of ours.
    for (method, path) in [("POST", "/api/dead/7/0/retry"), ("DELETE", "/api/dead/7/0"), ("POST", "/api/nothing")] {
        let (status, answer) = change(&admin, method, path, "Origin: http://evil.example\r\n");
        assert!(
            status == 401 && answer.contains("www-authenticate: Bearer") && answer.contains("admin token"),
            "{answer}"
        );
    }
    // The preflight that a header of ours needs is not granted.
    let preflight = "Origin: http://evil.example\r\nAccess-Control-Request-Method: DELETE\r\n";
    let (status, answer) = change(&admin, "OPTIONS", "/api/dead/7/0", preflight);
    assert!(status == 401 && !answer.to_lowercase().contains("access-control-allow"), "{answer}");
    // A name that resolves to 127.0.0.1.
    for host in ["evil.example", "evil.example:7118", "127.0.0.1.evil.example", ""] {
        let (status, answer) =
            raw(&admin, &format!("GET /api/entries HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(status, 403, "{host:?}: {answer}");
    }
    assert_eq!(state.dead.count(), 1);
    // Probes that speak HTTP/1.0 send no Host.
    assert_eq!(raw(&admin, "GET /healthz HTTP/1.0\r\n\r\n").0, 200);
    assert_eq!(raw(&admin, "GET /healthz HTTP/1.1\r\nHost: localhost:9\r\nConnection: close\r\n\r\n").0, 200);
}

/// Bound to every address of this machine, as one that others reach.
#[test]
fn where_others_reach_it_only_probes_are_answered_without_the_token_and_they_learn_no_reasons() {
    let state = Fake::new();
    *state.failure.lock().unwrap() = Some("commit: EIO at /secret/place".into());
    let config = Config { admin_token_file: Some("elsewhere".into()), ..Config::default() };
    let address = "0.0.0.0:0".parse().unwrap();
    let admin = Admin::start(address, &config, token(), Arc::clone(&state) as Arc<dyn AdminState>).unwrap();
    let get = |path: &str, header: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", admin.address().port())).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: ingest.example\r\nConnection: close\r\n{header}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().to_owned(), answer)
    };
    for (path, without) in [
        ("/healthz", "503"),
        ("/readyz", "503"),
        ("/metrics", "401"),
        ("/api/status", "401"),
        ("/api/entries", "401"),
        ("/none", "401"),
    ] {
        let (status, answer) = get(path, "");
        assert_eq!(status, without, "{path}");
        assert!(!answer.contains("secret") && !answer.contains("duragram_"), "{answer}");
    }
    let right = "Authorization: Bearer 0123456789abcdef\r\n";
    assert!(get("/healthz", right).1.contains("/secret/place"));
    for path in ["/metrics", "/api/status", "/api/entries"] {
        assert_eq!(get(path, right).0, "200", "{path}");
    }
}

fn letter(offset: u64, index: u16) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { offset: Offset(offset), index },
        session: session(),
        seq: Seq(9),
        channel: 5,
        received_unix_us: 1_767_323_045_678_901,
        payload: b"text".to_vec(),
        gap_from: None,
        error: "no paper".into(),
        attempts: 10,
        since_unix_us: 1_767_323_046_000_000,
    }
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
    let retries =
        [Retried::Failed("still no paper".into()), Retried::Unanswered("lane 0 is busy".into()), Retried::Done];
    *state.retries.lock().unwrap() = retries.into();
    let admin = start(&state);
    let header = "Authorization: Bearer 0123456789abcdef\r\n";

    let (status, answer) = change(&admin, "POST", "/api/dead/7/0/retry", header);
    assert!(status == 409 && answer.contains("it failed again: still no paper"), "{answer}");
    let (status, answer) = change(&admin, "POST", "/api/dead/7/0/retry", header);
    assert!(status == 503 && answer.contains("lane 0 is busy"), "{answer}");
    assert_eq!(state.dead.count(), 2);
    assert_eq!(change(&admin, "POST", "/api/dead/7/0/retry", header).0, 200);
    assert_eq!(change(&admin, "POST", "/api/dead/7/0/retry", header).0, 404);

    assert_eq!(change(&admin, "DELETE", "/api/dead/8/0", header).0, 200);
    assert_eq!(change(&admin, "DELETE", "/api/dead/8/0", header).0, 404);
    assert_eq!(state.dead.count(), 0);
}

#[test]
fn an_address_in_use_is_an_error_and_stopping_frees_it() {
    let state = Fake::new();
    let admin = start(&state);
    let address = admin.address();
    let again = || Admin::start(address, &Config::default(), token(), Arc::clone(&state) as Arc<dyn AdminState>);
    assert_eq!(again().err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    admin.stop();
    again().unwrap();
}

#[path = "starting_tests.rs"]
mod starting_tests;
