//! What a data directory holds, as its files and as what a start makes of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use duragram::journal::{
    BlockBuilder, DeadLetter, DeadLetterId, Journal, OpenError, Opened, Replay, RocksJournal, RocksOptions,
};
use duragram::model::{
    AnswerRecord, AnswersRecord, AskId, AskRecord, DialectId, EntryMeta, LaneMark, Offset, SessionId, SessionRecord,
    SinkRecord,
};
use duragram_proto::{ClientId, Epoch, Seq};
use tempfile::TempDir;

/// Files by their names in the directory.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Who ever had a session.
pub(super) const CLIENTS: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 99];

/// Where chance comes from: what a fuzzer has chosen as long as there is of it, then SplitMix64.
pub(super) struct Random {
    chosen: std::vec::IntoIter<u8>,
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { chosen: Vec::new().into_iter(), state: seed }
    }

    pub(super) fn chosen(bytes: &[u8]) -> Self {
        Self { chosen: Vec::from(bytes).into_iter(), state: 0 }
    }

    pub(super) fn next(&mut self) -> u64 {
        let chosen: Vec<u8> = self.chosen.by_ref().take(4).collect();
        if let Ok(chosen) = <[u8; 4]>::try_from(chosen) {
            return u32::from_le_bytes(chosen).into();
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `n`; 0 when that is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap()
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A directory in memory where there is such a file system: these tests are about bytes.
pub(super) fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The files of a directory, at a moment at which none of them went away.
pub(super) fn read_files(path: &Path) -> Files {
    fn walk(root: &Path, at: &Path, files: &mut Files) -> io::Result<()> {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(root, &path, files)?;
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(&path)?);
            }
        }
        Ok(())
    }
    for _ in 0..100 {
        let mut files = Files::new();
        if walk(path, path, &mut files).is_ok() {
            return files;
        }
    }
    panic!("the files of {} come and go", path.display())
}

pub(super) fn write_files(path: &Path, files: &Files) {
    fs::create_dir_all(path.join("rocksdb")).unwrap();
    for (name, bytes) in files {
        let path = path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Small memtables, so that little data makes table files.
pub(super) fn plain() -> RocksOptions {
    RocksOptions {
        memtable_bytes: 64 << 10,
        witness_interval: Duration::from_secs(3600),
        preallocate: false,
        ..RocksOptions::default()
    }
}

pub(super) fn accepting() -> RocksOptions {
    RocksOptions { accept_loss: true, ..plain() }
}

/// A journal and what its opening gave.
pub(super) struct OpenedState {
    pub(super) opened: Opened<RocksJournal>,
    sessions: Vec<SessionRecord>,
    asks: Vec<AskRecord>,
    answers: Vec<AnswersRecord>,
    replayed: Vec<(u64, u64)>,
}

/// Other tests of this program start processes, which hold its open files, locked ones among them, for a moment.
pub(super) fn open(path: &Path, options: &RocksOptions) -> Result<OpenedState, OpenError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match open_once(path, options) {
            Err(OpenError::Locked { .. }) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            opened => return opened,
        }
    }
}

fn open_once(path: &Path, options: &RocksOptions) -> Result<OpenedState, OpenError> {
    let (mut sessions, mut replayed, mut asks, mut answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let opened = RocksJournal::open(path, options, &mut |replay| match replay {
        Replay::Session(session) => sessions.push(session),
        Replay::Client(_) | Replay::CounterLimit(_) => {}
        Replay::Ask(ask) => asks.push(ask),
        Replay::Answers(of_a_commit) => answers.push(of_a_commit),
        Replay::Block(block) => replayed.push((block.first().0, block.end().0)),
    })?;
    Ok(OpenedState { opened, sessions, asks, answers, replayed })
}

/// Everything that a start gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) sessions: Vec<SessionRecord>,
    pub(super) asks: Vec<AskRecord>,
    pub(super) answers: Vec<AnswersRecord>,
    pub(super) replayed: Vec<(u64, u64)>,
    pub(super) lanes: Vec<LaneMark>,
    pub(super) sinks: Vec<SinkRecord>,
    pub(super) checkpoint_at: Offset,
    pub(super) low: Offset,
    pub(super) end: Offset,
    pub(super) entries: BTreeMap<u64, (EntryMeta, Vec<u8>)>,
    pub(super) dead: Vec<DeadLetter>,
}

impl State {
    pub(super) fn of(state: &OpenedState) -> Self {
        let opened = &state.opened;
        let mut entries = BTreeMap::new();
        let mut at = opened.low;
        while at < opened.end {
            let blocks = opened.reader.read(at, 1 << 20).unwrap();
            let Some(last) = blocks.last() else { break };
            at = last.end();
            for entry in blocks.iter().flat_map(|block| block.entries()) {
                entries.insert(entry.offset.0, (entry.meta, entry.payload.to_vec()));
            }
        }
        Self {
            sessions: state.sessions.clone(),
            asks: state.asks.clone(),
            answers: state.answers.clone(),
            replayed: state.replayed.clone(),
            lanes: opened.lanes.clone(),
            sinks: opened.sinks.clone(),
            checkpoint_at: opened.checkpoint_at,
            low: opened.low,
            end: opened.end,
            entries,
            dead: opened.dead.list(DeadLetterId::FIRST, usize::MAX).unwrap(),
        }
    }

    /// What is left when all from here on is lost.
    pub(super) fn up_to(&self, end: Offset) -> Self {
        let mut shorter = Self { end, ..self.clone() };
        shorter.replayed.retain(|&(first, _)| first < end.0);
        shorter.entries.retain(|&offset, _| offset < end.0);
        shorter
    }

    /// Says in a few words what differs.
    pub(super) fn difference(&self, good: &Self) -> String {
        let of = |state: &Self| {
            let Self { sessions, asks, answers, replayed, lanes, sinks, checkpoint_at, low, end, entries, dead } =
                state;
            format!(
                "{} sessions, {} asks, {} answers, {} blocks replayed, {} lanes, {} sinks, checkpoint {checkpoint_at}, {low} to {end}, {} entries, {} dead",
                sessions.len(),
                asks.len(),
                answers.len(),
                replayed.len(),
                lanes.len(),
                sinks.len(),
                entries.len(),
                dead.len()
            )
        };
        format!("{}; it was {}", of(self), of(good))
    }

    /// Something in this state that was never written. What is trimmed may come back when a loss is accepted.
    pub(super) fn stranger_to(&self, good: &Self) -> Option<String> {
        let entry =
            self.entries.iter().filter(|&(offset, entry)| good.entries.get(offset) != Some(entry)).find(
                |&(offset, (meta, bytes))| *meta != meta_of(*offset) || *bytes != payload_of(*offset, bytes.len()),
            );
        let dead = self.dead.iter().find(|letter| !good.dead.contains(letter));
        let ours = |session: &&SessionRecord| CLIENTS.contains(&session.id.client.0) || good.sessions.contains(session);
        let session = self.sessions.iter().find(|session| !ours(session));
        // Their marks may be those of an earlier checkpoint, where a file of then lies in the place of a later one.
        let known =
            |sink: &&SinkRecord| good.sinks.iter().any(|known| (known.id, &known.name) == (sink.id, &sink.name));
        let sink = self.sinks.iter().find(|sink| !known(sink));
        // An ask may be as it was at an earlier checkpoint, and a record of answers one that a later checkpoint has deleted.
        let told = self.asks.iter().chain(self.answers.iter().flat_map(|answers| &answers.answers));
        let ask = told.into_iter().find(|ask| !is_ours(ask));
        entry
            .map(|(offset, _)| format!("entry {offset}"))
            .or(sink.map(|sink| format!("sink {}", sink.name)))
            .or(ask.map(|ask| format!("ask {:?}", ask.id)))
            .or(dead.map(|letter| format!("dead letter {:?}", letter.id)))
            .or(session.map(|session| format!("session {}", session.id)))
    }
}

/// The ask of the entry at this offset.
pub(super) fn ask(offset: u64) -> AskRecord {
    let EntryMeta { session, seq, .. } = meta_of(offset);
    AskRecord { id: AskId { session, seq }, offset: Offset(offset), answer: None }
}

/// The same with its answer, which its offset tells.
pub(super) fn answered(offset: u64) -> AskRecord {
    let body = payload_of(offset, (offset % 90) as usize).into();
    AskRecord {
        answer: Some(AnswerRecord { failed: offset.is_multiple_of(3), body, answered_s: offset }),
        ..ask(offset)
    }
}

fn is_ours(told: &AskRecord) -> bool {
    *told == ask(told.offset.0) || *told == answered(told.offset.0)
}

pub(super) fn session(client: u64) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(1).unwrap() }
}

/// An entry is known by its offset, which its meta and payload repeat.
pub(super) fn push(block: &mut BlockBuilder, offset: u64, bytes: usize) {
    block.push(&meta_of(offset), &payload_of(offset, bytes));
}

fn meta_of(offset: u64) -> EntryMeta {
    EntryMeta {
        dialect: DialectId::DURAGRAM,
        session: session(offset % 7),
        seq: Seq(offset / 7 + 1),
        span: 0,
        skip: false,
        batch: false,
        asks: false,
        sealed: false,
        channel: 0,
        received_unix_us: offset,
    }
}

fn payload_of(offset: u64, bytes: usize) -> Vec<u8> {
    offset.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// Commits an entry, and returns the journal's end after it.
pub(super) fn commit_one(journal: &mut RocksJournal) -> Offset {
    let mut block = BlockBuilder::default();
    push(&mut block, journal.end().0, 20);
    journal.commit(&mut block, &[]).unwrap().end()
}
