//! Data directories in many a state, made by the real journal.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use duragram::journal::{
    BlockBuilder, Checkpoint, DeadLetter, DeadLetterId, DeadLetters, Journal, Records, RocksJournal, RocksOptions,
};
use duragram::model::{AnswersRecord, LaneMark, Offset, SessionRecord, SinkId, SinkLoss, SinkRecord};
use duragram_proto::Seq;

use super::state::{
    Files, OpenedState, State, accepting, answered, ask, in_memory, open, plain, push, read_files, session, write_files,
};

/// A directory, and what a start makes of it.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) files: Files,
    /// The same directory at earlier times.
    pub(super) older: Vec<Files>,
    /// What a start gives; behind the first, what it may give when what came after the witness is missing.
    pub(super) states: Vec<State>,
}

pub(super) fn all() -> Vec<Shape> {
    vec![
        made("fresh", |_| {}),
        made("few-blocks", |work| work.blocks(12)),
        made("checkpoints", |work| {
            for _ in 0..6 {
                work.blocks(8);
                work.checkpoint(20);
            }
            work.blocks(2);
        }),
        made("tables", |work| {
            for _ in 0..8 {
                work.large_blocks(6);
                work.checkpoint(60);
                work.dead_letter();
            }
            work.blocks(3);
        }),
        made("trimmed-to-nothing", |work| {
            work.large_blocks(20);
            work.checkpoint(0);
        }),
        made("ends-with-dead-letters", |work| {
            work.blocks(4);
            work.checkpoint(10);
            (0..3).for_each(|_| work.dead_letter());
        }),
        made("sinks", |work| {
            for watermark in [3, 9, 21] {
                work.large_blocks(6);
                work.sinks(watermark);
                work.letters_of_sinks();
            }
            work.blocks(2);
        }),
        made("asks", |work| {
            for _ in 0..5 {
                work.large_blocks(4);
                work.answers(12);
                work.checkpoint_of_asks();
                work.answers(3);
            }
            work.blocks(2);
            work.answers(1);
        }),
        made("ends-with-a-session", |work| {
            work.large_blocks(12);
            work.checkpoint(10);
            work.session_alone();
        }),
        made("restarts", |work| {
            for _ in 0..4 {
                work.blocks(6);
                work.checkpoint(15);
                work.restart(&RocksOptions { preallocate: true, ..plain() });
            }
            work.blocks(3);
        }),
        made("loss-accepted", |work| {
            work.blocks(10);
            work.checkpoint(30);
            work.blocks(10);
            work.lose();
            work.blocks(5);
            work.lose();
            work.blocks(5);
        }),
        former("of-format-2"),
        crashed("crashed", 0),
        crashed("crashed-witness-behind", 5),
        two_logs(),
    ]
}

/// What an earlier version has written, and was killed over: a start takes it over.
fn former(name: &'static str) -> Shape {
    let mut rest = &include_bytes!("../../src/journal/testdata/directory_v2.bin")[..];
    let mut files = Files::new();
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (name, bytes) = str::from_utf8(&rest[..end]).unwrap().split_once(' ').unwrap();
        let (content, after) = rest[end + 1..].split_at(bytes.parse().unwrap());
        files.insert(name.into(), content.into());
        rest = after;
    }
    let home = in_memory();
    let path = home.path().join("data");
    write_files(&path, &files);
    let whole = State::of(&open(&path, &plain()).unwrap());
    assert_eq!((whole.checkpoint_at, whole.end), (Offset(30), Offset(34)));
    // The witness says that 30 entries were durable: each commit after it may be lost.
    let ends: Vec<_> = whole.replayed.iter().map(|&(first, _)| Offset(first)).rev().collect();
    let shorter = ends.into_iter().map(|end| whole.up_to(end));
    Shape { name, files, older: Vec::new(), states: std::iter::once(whole.clone()).chain(shorter).collect() }
}

struct Work {
    path: PathBuf,
    state: Option<OpenedState>,
    older: Vec<Files>,
    letters: u16,
    /// How many entries are answered, from the first on, each in a record with the number of its offset.
    answered: u64,
}

impl Work {
    fn journal(&mut self) -> &mut RocksJournal {
        &mut self.state.as_mut().unwrap().opened.journal
    }

    fn commit(&mut self, blocks: u64, entries: u64, bytes: usize) {
        let mut block = BlockBuilder::default();
        for _ in 0..blocks {
            let first = self.journal().end().0;
            (first..first + entries).for_each(|number| push(&mut block, number, bytes));
            self.journal().commit(&mut block, &[]).unwrap();
        }
    }

    fn blocks(&mut self, n: u64) {
        self.commit(n, 3, 50);
    }

    fn large_blocks(&mut self, n: u64) {
        self.commit(n, 9, 700);
    }

    /// Keeps `keep` entries.
    fn checkpoint(&mut self, keep: u64) {
        let at = self.journal().end();
        let trim_below = Offset(at.0.saturating_sub(keep));
        let sessions = (0..7).map(|client| record(client, at.0 / 7)).collect();
        let lanes = vec![
            LaneMark { watermark: trim_below, sink_state: vec![1, 2] },
            LaneMark { watermark: at, sink_state: vec![] },
        ];
        self.journal().checkpoint(&Checkpoint { at, sessions, lanes, trim_below, ..Checkpoint::default() }).unwrap();
        self.older.push(read_files(&self.path));
    }

    /// Each of so many entries is answered in a commit of its own, beside no block.
    fn answers(&mut self, n: u64) {
        for _ in 0..n {
            let answers = AnswersRecord { number: self.answered, answers: vec![answered(self.answered)] };
            self.answered += 1;
            let records = Records { answers: Some(answers), ..Records::default() };
            self.journal().write(&mut BlockBuilder::default(), &records, None).unwrap();
        }
    }

    /// All that is answered so far is in the asks' records, of which the oldest are forgotten; as many are open.
    fn checkpoint_of_asks(&mut self) {
        let (at, answers_below) = (self.journal().end(), self.answered);
        let forgotten = (0..answers_below / 3).map(|offset| ask(offset).id).collect();
        let asks = (answers_below / 3..answers_below).map(answered).chain((answers_below..at.0).map(ask)).collect();
        let records = Records { asks, forgotten, ..Records::default() };
        let checkpoint = Checkpoint { at, answers_below, ..Checkpoint::default() };
        self.journal().write(&mut BlockBuilder::default(), &records, Some(&checkpoint)).unwrap();
        self.older.push(read_files(&self.path));
    }

    fn session_alone(&mut self) {
        self.journal().commit(&mut BlockBuilder::default(), &[record(99, 1)]).unwrap();
    }

    fn dead_letter(&mut self) {
        self.letters += 1;
        let dead: &dyn DeadLetters = &*self.state.as_ref().unwrap().opened.dead;
        dead.put(&letter(self.letters)).unwrap();
    }

    /// A sink that holds, one that is paused and has lost something, and one that is detached; nothing is trimmed.
    fn sinks(&mut self, watermark: u64) {
        let at = self.journal().end();
        let loss = SinkLoss { from: Offset(1), to: Offset(3), entries: 2, unix_us: 1 };
        let sink = |id, name: &str| {
            let mark = LaneMark { watermark: Offset(watermark), sink_state: vec![1, 2, 3] };
            let losses = vec![loss; usize::from(id == 2)];
            SinkRecord { holds: id > 1, paused: id == 2, losses, ..SinkRecord::new(SinkId(id), name, 7, mark, 1) }
        };
        let sinks = vec![sink(1, "detached"), sink(2, "paused"), sink(u128::MAX, "file:/srv/lines")];
        let sessions = vec![record(1, watermark)];
        self.journal().checkpoint(&Checkpoint { at, sessions, sinks, ..Checkpoint::default() }).unwrap();
        self.older.push(read_files(&self.path));
    }

    /// Two sinks and the embedded handler have given up the same record.
    fn letters_of_sinks(&mut self) {
        self.dead_letter();
        let dead: &dyn DeadLetters = &*self.state.as_ref().unwrap().opened.dead;
        for sink in [2, u128::MAX] {
            let letter = letter(self.letters);
            let id = DeadLetterId { sink: SinkId(sink), ..letter.id };
            dead.put(&DeadLetter { id, ..letter }).unwrap();
        }
    }

    fn restart(&mut self, options: &RocksOptions) {
        self.state = None;
        self.older.push(read_files(&self.path));
        self.state = Some(open(&self.path, options).unwrap());
    }

    /// Damages the journal until it is refused, and goes on without what is lost.
    fn lose(&mut self) {
        self.state = None;
        let mut files = read_files(&self.path);
        let logs = files.iter_mut().filter(|(name, _)| name.starts_with("rocksdb/") && name.ends_with(".log"));
        for (_, bytes) in logs {
            let end = bytes.len();
            bytes[end / 2..].fill(0);
        }
        std::fs::remove_dir_all(&self.path).unwrap();
        write_files(&self.path, &files);
        assert!(open(&self.path, &plain()).is_err(), "it must be lost");
        self.state = Some(open(&self.path, &accepting()).unwrap());
    }
}

pub(super) fn record(client: u64, floor: u64) -> SessionRecord {
    SessionRecord {
        id: session(client),
        floor: Seq(floor),
        above: vec![2],
        last_active_s: 7,
        hello_nonce: None,
        sealed: false,
    }
}

fn letter(number: u16) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { offset: Offset(u64::from(number)), index: number, sink: SinkId::EMBEDDED },
        session: session(1),
        seq: Seq(1),
        channel: 0,
        received_unix_us: 1,
        payload: vec![7; 40],
        gap_from: None,
        error: "no paper".into(),
        attempts: 1,
        since_unix_us: 1,
        told_failed: false,
    }
}

/// Shut down in good order.
fn made(name: &'static str, with: impl FnOnce(&mut Work)) -> Shape {
    let home = in_memory();
    let path = home.path().join("data");
    let state = Some(open(&path, &plain()).unwrap());
    let mut work = Work { path, state, older: Vec::new(), letters: 0, answered: 0 };
    with(&mut work);
    work.state = None;
    finish(name, read_files(&work.path), work.older, 0)
}

/// As a power cut leaves it, `behind` commits after the last witness.
fn crashed(name: &'static str, behind: u64) -> Shape {
    let home = in_memory();
    let path = home.path().join("data");
    let mut options = RocksOptions { witness_interval: Duration::from_millis(5), ..plain() };
    if behind > 0 {
        // The only witness is that of the start.
        options.witness_interval = Duration::from_secs(3600);
    }
    let state = Some(open(&path, &options).unwrap());
    let mut work = Work { path, state, older: Vec::new(), letters: 0, answered: 0 };
    work.large_blocks(15);
    work.checkpoint(40);
    work.dead_letter();
    if behind > 0 {
        work.restart(&options);
    }
    let behind_states = behind;
    work.blocks(if behind > 0 { behind } else { 6 });
    settle(&work.path);
    let files = read_files(&work.path);
    finish(name, files, work.older, behind_states)
}

/// Waits until nothing changes any more: witness, flushes.
fn settle(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut before = read_files(path);
    loop {
        std::thread::sleep(Duration::from_millis(60));
        let now = read_files(path);
        if now == before {
            return;
        }
        assert!(Instant::now() < deadline, "the directory does not come to rest");
        before = now;
    }
}

/// A power cut while a memtable is being flushed: the log that filled it is still needed, beside the next one. Of the first,
/// only the sessions count: its blocks are trimmed.
///
/// A flush is too short to be met, so the moment is put together: the files before the commit that began the next log, and
/// that log.
fn two_logs() -> Shape {
    let home = in_memory();
    let path = home.path().join("data");
    let mut work =
        Work { state: Some(open(&path, &plain()).unwrap()), path, older: Vec::new(), letters: 0, answered: 0 };
    work.blocks(5);
    work.checkpoint(0);
    let (mut files, next_log) = loop {
        let before = read_files(&work.path);
        work.commit(1, 9, 700);
        let after = read_files(&work.path);
        if let Some(log) = after.into_keys().find(|name| name.ends_with(".log") && !before.contains_key(name)) {
            break (before, log);
        }
    };
    let at = work.journal().end();
    let lanes = vec![LaneMark { watermark: at, sink_state: vec![] }];
    work.journal().checkpoint(&Checkpoint { at, lanes, trim_below: at, ..Checkpoint::default() }).unwrap();
    work.blocks(2);
    let end = work.journal().end();
    let path = std::mem::take(&mut work.path);
    files.insert(next_log.clone(), read_files(&path).remove(&next_log).unwrap());
    drop(work);
    // The witness is exact after a shutdown.
    files.insert("witness".into(), read_files(&path).remove("witness").unwrap());
    let shape = finish("two-logs", files, Vec::new(), 0);
    assert_eq!((shape.states[0].end, shape.states[0].sessions.len()), (end, 7));
    shape
}

/// Opens the directory for what it holds, and, if commits came after the witness, what it holds without the last of them.
fn finish(name: &'static str, files: Files, older: Vec<Files>, behind: u64) -> Shape {
    let home = in_memory();
    let path = home.path().join("data");
    write_files(&path, &files);
    let full = State::of(&open(&path, &plain()).unwrap_or_else(|error| panic!("{name}: {error}")));
    let mut states = vec![full.clone()];
    for lost in 1..=behind {
        let mut state = full.clone();
        for _ in 0..lost {
            let (first, end) = state.replayed.pop().unwrap();
            assert_eq!(end, state.end.0);
            state.end = Offset(first);
            state.entries.retain(|offset, _| *offset < first);
        }
        states.push(state);
    }
    Shape { name, files, older, states }
}
