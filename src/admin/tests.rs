//! The admin interface over real sockets, with a state that the tests make.

mod asks;
mod bounds;
mod dead;
mod entries;
mod guard;
mod sinks;
mod starting;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use duragram_proto::{ClientId, Epoch, Seq};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use ureq::Agent;

use super::*;
use crate::journal::testing::memory::{MemoryDisk, MemoryJournal};
use crate::journal::{
    Block, BlockBuilder, Checkpoint, DeadLetter, DeadLetterId, DeadLetters, Journal, ReadJournal, StorageError,
};
use crate::metrics::Metrics;
use crate::model::{AsksReport, AsksRequest, DialectId, EntryMeta, LaneMark, Offset, SessionId, SinkId};

const DEADLINE: Duration = Duration::from_secs(20);

struct Fake {
    disk: MemoryDisk,
    journal: Mutex<MemoryJournal>,
    dead: Arc<dyn DeadLetters>,
    registry: Registry,
    failure: Mutex<Option<String>>,
    not_ready: Mutex<Vec<String>>,
    waiting: Mutex<Vec<String>>,
    /// Answers to retries, in their order; without one a retry waits.
    retries: Mutex<VecDeque<Retried>>,
    /// How many retries were asked for.
    asked: AtomicUsize,
    disk_fails: AtomicBool,
    sinks: Mutex<Vec<SinkView>>,
    /// What was asked of sinks, in its order.
    changes: Mutex<Vec<(String, SinkChange)>>,
    /// What comes of the next change; `None`: it is durable at once.
    refusal: Mutex<Option<SinkRefused>>,
    /// The lanes of sinks that are removed have a call under way.
    lanes_run: AtomicBool,
    /// How often it was looked whether they have stopped.
    looks: AtomicUsize,
    /// What is told of asks.
    asks: Mutex<AsksReport>,
    /// What was wanted of them, in its order.
    asks_wanted: Mutex<Vec<AsksRequest>>,
    /// Why they are not asked about.
    asks_refusal: Mutex<Option<String>>,
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
            asked: AtomicUsize::default(),
            disk_fails: AtomicBool::default(),
            sinks: Mutex::default(),
            changes: Mutex::default(),
            refusal: Mutex::default(),
            lanes_run: AtomicBool::default(),
            looks: AtomicUsize::default(),
            asks: Mutex::default(),
            asks_wanted: Mutex::default(),
            asks_refusal: Mutex::default(),
        })
    }

    /// A block that holds what a test appends.
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
                asks: false,
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
            asks: self.asks.lock().unwrap().totals.into(),
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
    fn sinks(&self) -> Vec<SinkView> {
        self.sinks.lock().unwrap().clone()
    }
    fn change_sink(&self, name: &str, change: SinkChange) -> Result<SinkAnswer, SinkRefused> {
        if let Some(refused) = self.refusal.lock().unwrap().take() {
            return Err(refused);
        }
        self.changes.lock().unwrap().push((name.to_owned(), change));
        let mut looks = 0;
        Ok(Box::new(move || {
            looks += 1;
            (looks > 1).then_some(Ok(()))
        }))
    }
    fn ask_about_asks(&self, request: AsksRequest) -> Result<AsksAnswer, String> {
        if let Some(refusal) = self.asks_refusal.lock().unwrap().take() {
            return Err(refusal);
        }
        self.asks_wanted.lock().unwrap().push(request);
        let (report, mut looks) = (self.asks.lock().unwrap().clone(), 0);
        Ok(Box::new(move || {
            looks += 1;
            (looks > 1).then(|| Ok(report.clone()))
        }))
    }
    fn sink_has_stopped(&self, _: SinkId) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        !self.lanes_run.load(Ordering::SeqCst)
    }
    fn retry_dead(&self, letter: &DeadLetter) -> RetryAnswer {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut retried = self.retries.lock().unwrap().pop_front();
        if retried == Some(Retried::Done) {
            self.dead.delete(letter.id).unwrap();
        }
        let mut looks = 0;
        Box::new(move || {
            looks += 1;
            if looks > 1 { retried.take() } else { None }
        })
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

fn letter(offset: u64, index: u16) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { offset: Offset(offset), index, sink: SinkId::EMBEDDED },
        session: session(),
        seq: Seq(9),
        channel: 5,
        received_unix_us: 1_767_323_045_678_901,
        payload: b"text".to_vec(),
        gap_from: None,
        error: "no paper".into(),
        attempts: 10,
        since_unix_us: 1_767_323_046_000_000,
        told_failed: false,
    }
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
