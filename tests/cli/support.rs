//! A server of which only the admin interface is real, and the real program as a child process.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use duragram::admin::{
    Admin, AdminState, AsksAnswer, Offsets, Phase, Retried, RetryAnswer, SinkAnswer, SinkChange, SinkRefused,
    SinkState, SinkView, Status, Token,
};
use duragram::config::Config;
use duragram::journal::testing::memory::{MemoryDisk, MemoryJournal};
use duragram::journal::{BlockBuilder, Checkpoint, DeadLetter, DeadLetterId, DeadLetters, Journal, ReadJournal};
use duragram::metrics::Metrics;
use duragram::model::{
    AsksReport, AsksRequest, BacklogConfig, DialectId, EntryMeta, LaneMark, Offset, SessionId, SinkId, SinkRecord,
};
use duragram::proto::{ClientId, Epoch, Seq};
use prometheus_client::registry::Registry;

/// Of every [`FakeServer`].
pub(crate) const TOKEN: &str = "0123456789abcdef";
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Journal and dead letters in memory behind a real admin interface.
pub(crate) struct FakeServer {
    disk: MemoryDisk,
    journal: Mutex<MemoryJournal>,
    dead: Arc<dyn DeadLetters>,
    registry: Registry,
    sinks: Mutex<Vec<SinkView>>,
    asks: Mutex<AsksReport>,
}

impl FakeServer {
    pub(crate) fn new() -> Arc<Self> {
        let disk = MemoryDisk::default();
        let opened = disk.open(&mut |_| {});
        let mut registry = Registry::default();
        Metrics::register(&mut registry);
        Arc::new(Self {
            journal: Mutex::new(opened.journal),
            dead: opened.dead,
            disk,
            registry,
            sinks: Mutex::default(),
            asks: Mutex::default(),
        })
    }

    /// Serves the admin interface; on the same address as an earlier one if that is given.
    pub(crate) fn admin(self: &Arc<Self>, address: Option<SocketAddr>) -> Admin {
        let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let token = Token::parse(TOKEN.as_bytes()).unwrap();
        Admin::start(address, &Config::default(), token, Arc::clone(self) as Arc<dyn AdminState>).unwrap()
    }

    /// Commits an entry of one record.
    pub(crate) fn commit(&self, payload: &[u8]) {
        self.commit_entry(payload, false);
    }

    /// Commits an entry of several records.
    pub(crate) fn commit_batch(&self, records: &[&[u8]]) {
        let prefixed = records.iter().flat_map(|record| {
            let len = u16::try_from(record.len()).unwrap();
            [&len.to_le_bytes()[..], record].concat()
        });
        self.commit_entry(&prefixed.collect::<Vec<u8>>(), true);
    }

    fn commit_entry(&self, payload: &[u8], batch: bool) {
        let mut block = BlockBuilder::default();
        block.push(&entry(batch), payload);
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).commit(&mut block, &[]).unwrap();
    }

    /// Trims every entry below this offset.
    pub(crate) fn trim(&self, below: u64) {
        let at = self.disk.end();
        let lanes = vec![LaneMark { watermark: at, sink_state: Vec::new() }];
        let checkpoint = Checkpoint { at, lanes, trim_below: Offset(below), ..Checkpoint::default() };
        self.journal.lock().unwrap().checkpoint(&checkpoint).unwrap();
    }

    pub(crate) fn put_dead(&self, offset: u64, index: u16, payload: &[u8], error: &str) {
        self.dead.put(&letter(offset, index, payload, error)).unwrap();
    }

    pub(crate) fn put_dead_of(&self, sink: u128, offset: u64) {
        let letter = letter(offset, 0, b"x", "no paper");
        self.dead.put(&DeadLetter { id: DeadLetterId { sink: SinkId(sink), ..letter.id }, ..letter }).unwrap();
    }

    /// A configured sink; with a reason, it is away.
    pub(crate) fn add_sink(&self, name: &str, id: u128, watermark: u64, reason: Option<&str>) {
        let mark = LaneMark { watermark: Offset(watermark), sink_state: Vec::new() };
        let record = SinkRecord::new(SinkId(id), name, 0, mark, 1);
        self.sinks.lock().unwrap().push(SinkView {
            record,
            state: if reason.is_some() { SinkState::Down } else { SinkState::Up },
            since_unix_s: Some(1_767_323_045),
            reason: reason.map(str::to_owned),
            held_bytes: Some(3 << 20),
            backlog: Some(BacklogConfig::default()),
            blocks: reason.is_some(),
        });
    }

    /// What is told of asks, whatever is asked; those of a client are gone when they are forgotten.
    pub(crate) fn set_asks(&self, report: AsksReport) {
        *self.asks.lock().unwrap() = report;
    }

    pub(crate) fn put_dead_told(&self, offset: u64) {
        self.dead.put(&DeadLetter { told_failed: true, ..letter(offset, 0, b"x", "no paper") }).unwrap();
    }

    pub(crate) fn dead_count(&self) -> u64 {
        self.dead.count()
    }
}

impl AdminState for FakeServer {
    fn failure(&self) -> Option<String> {
        None
    }
    fn not_ready(&self) -> Vec<String> {
        Vec::new()
    }
    fn status(&self) -> Status {
        Status {
            phase: Phase::Running,
            uptime_s: 5,
            udp: Vec::new(),
            sessions: 0,
            asks: self.asks.lock().unwrap().totals.into(),
            offsets: Offsets { low: 0, checkpoint: 0, end: self.disk.end().0 },
            lanes: Vec::new(),
            backlog_bytes: 0,
            free_bytes: Some(0),
            dead_letters: self.dead.count(),
            keys: None,
        }
    }
    fn registry(&self) -> &Registry {
        &self.registry
    }
    fn journal(&self) -> &dyn ReadJournal {
        &self.disk
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
    /// The change is done when this returns.
    fn change_sink(&self, name: &str, change: SinkChange) -> Result<SinkAnswer, SinkRefused> {
        let mut sinks = self.sinks.lock().unwrap();
        let Some(at) = sinks.iter().position(|sink| sink.record.name == name) else {
            return Err(SinkRefused::Unknown(format!("there is no sink {name}")));
        };
        match change {
            SinkChange::Pause => sinks[at].state = SinkState::Paused,
            SinkChange::Resume => sinks[at].state = SinkState::Up,
            SinkChange::Seek(to) => sinks[at].record.mark.watermark = to,
            SinkChange::Remove => drop(sinks.remove(at)),
        }
        Ok(Box::new(|| Some(Ok(()))))
    }
    fn ask_about_asks(&self, request: AsksRequest) -> Result<AsksAnswer, String> {
        let mut asks = self.asks.lock().unwrap();
        let report = asks.clone();
        if matches!(request, AsksRequest::Forget(_)) {
            asks.asks.clear();
        }
        Ok(Box::new(move || Some(Ok(report.clone()))))
    }
    /// Succeeds for letters with an even offset.
    fn retry_dead(&self, letter: &DeadLetter) -> RetryAnswer {
        if letter.id.offset.0 % 2 == 1 {
            return Box::new(|| Some(Retried::Failed("odd".into())));
        }
        self.dead.delete(letter.id).unwrap();
        Box::new(|| Some(Retried::Done))
    }
}

fn session() -> SessionId {
    SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() }
}

pub(crate) fn entry(batch: bool) -> EntryMeta {
    EntryMeta {
        dialect: DialectId::DURAGRAM,
        session: session(),
        seq: Seq(1),
        span: 0,
        skip: false,
        batch,
        asks: false,
        sealed: false,
        channel: 0,
        received_unix_us: 1_700_000_000_000_000,
    }
}

pub(crate) fn letter(offset: u64, index: u16, payload: &[u8], error: &str) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { offset: Offset(offset), index, sink: SinkId::EMBEDDED },
        session: session(),
        seq: Seq(9),
        channel: 5,
        received_unix_us: 1_767_323_045_678_901,
        payload: payload.to_vec(),
        gap_from: None,
        error: error.to_owned(),
        attempts: 10,
        since_unix_us: 1_767_323_046_000_000,
        told_failed: false,
    }
}

/// The program with arguments, and an environment without variables of ours.
pub(crate) fn duragram(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duragram"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DURAGRAM_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    duragram(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code, stdout and stderr of a run to its end.
pub(crate) fn outcome(args: &[&str]) -> (i32, String, String) {
    let output = run(args);
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The lines of a pipe as they come; the pipe is always read, so that the writer never blocks.
pub(crate) fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A child that is killed when a test fails before it ends.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(start.elapsed() < DEADLINE, "the program does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
        drop(std::io::stderr().flush());
    }
}
