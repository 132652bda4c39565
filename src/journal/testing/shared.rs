//! What the tests of both journals share: entries, sessions, and a record of what a replay gave.

use duragram_proto::{ClientId, Epoch, Seq};

use crate::journal::{Block, BlockBuilder, JournalError, ReadJournal, Records, Replay, StorageError};
use crate::model::{
    AnswerRecord, AnswersRecord, AskId, AskRecord, ClientRecord, DialectId, EntryMeta, FormerLanes, LaneMark, Offset,
    SessionId, SessionRecord, SinkId, SinkLoss, SinkRecord,
};

pub(crate) fn session(client: u64) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(1).unwrap() }
}

pub(crate) fn record(client: u64, floor: u64) -> SessionRecord {
    SessionRecord {
        id: session(client),
        floor: Seq(floor),
        above: vec![2, 5],
        last_active_s: 7,
        hello_nonce: Some(9),
        sealed: false,
    }
}

/// What a server with keys keeps beside its sessions.
pub(crate) fn sealed_records() -> Records {
    let client = |client, opened, given| ClientRecord { client: ClientId(client), opened, given };
    Records {
        clients: vec![client(7, 3, 5), client(8, 0, u32::MAX)],
        counter_limit: Some(1 << 60),
        ..Records::default()
    }
}

fn ask_id(seq: u64) -> AskId {
    AskId { session: session(0xa1), seq: Seq(seq) }
}

/// The ask of a message with this number, which is that of its entry too.
pub(crate) fn open_ask(seq: u64) -> AskRecord {
    AskRecord { id: ask_id(seq), offset: Offset(seq), answer: None }
}

/// Makes the record of `open_ask`, with an answer in it.
pub(crate) fn answered(seq: u64, failed: bool, body: &[u8]) -> AskRecord {
    let answer = AnswerRecord { failed, body: body.into(), answered_s: 70 + seq };
    AskRecord { answer: Some(answer), ..open_ask(seq) }
}

pub(crate) fn answers(number: u64, answers: impl IntoIterator<Item = AskRecord>) -> AnswersRecord {
    AnswersRecord { number, answers: answers.into_iter().collect() }
}

/// A sink that has lost something, and does not hold.
pub(crate) fn sink(id: u128, name: &str, watermark: u64) -> SinkRecord {
    let loss = |from, to, entries| SinkLoss { from: Offset(from), to: Offset(to), entries, unix_us: 1_700_000_000 };
    SinkRecord {
        id: SinkId(id),
        name: name.into(),
        identity: 0x1de4_7174,
        mark: LaneMark { watermark: Offset(watermark), sink_state: vec![3, 1, 4] },
        instance: 2,
        holds: false,
        paused: true,
        losses: vec![loss(1, 3, 2), loss(4, 9, 3)],
        untold: Some((Offset(4), Offset(9))),
        former: vec![FormerLanes(vec![Offset(3), Offset(8)])],
    }
}

/// Two that hold what they have not processed, and one that does not.
pub(crate) fn sinks(watermark: u64) -> Vec<SinkRecord> {
    let holding = |id, name| SinkRecord {
        holds: true,
        losses: Vec::new(),
        untold: None,
        former: Vec::new(),
        ..sink(id, name, watermark)
    };
    vec![holding(1, "events"), holding(u128::MAX, "file:/var/log/e\u{e9}"), sink(1 << 100, "detached", 1)]
}

/// The failure of the storage that an answer stands for.
pub(crate) fn failed(answer: JournalError) -> StorageError {
    match answer {
        JournalError::Failed(error) => error,
        other => panic!("not a failure of the storage: {other}"),
    }
}

/// Adds an entry that is known by its number, which its payload repeats. Tests give each the number of its offset.
pub(crate) fn push(builder: &mut BlockBuilder, number: u64, payload_bytes: usize) {
    let meta = EntryMeta {
        dialect: DialectId::DURAGRAM,
        session: session(0xa1),
        seq: Seq(number + 1),
        span: 0,
        skip: false,
        batch: false,
        asks: false,
        sealed: false,
        channel: 0,
        received_unix_us: 1_000_000 + number,
    };
    builder.push(&meta, &payload(number, payload_bytes));
}

/// Adds an entry that no recovery would take.
pub(crate) fn push_malformed(builder: &mut BlockBuilder) {
    builder.push_gap(session(0xa1), false, Seq(2), Seq(1), 0);
}

pub(crate) fn payload(number: u64, bytes: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// The numbers of the entries, whose payloads are checked.
pub(crate) fn numbers(block: &Block) -> Vec<u64> {
    let number = |entry: crate::model::Entry<'_>| {
        let number = entry.meta.seq.0 - 1;
        assert!(entry.payload == payload(number, entry.payload.len()), "the payload of entry {number} is another's");
        number
    };
    block.entries().map(number).collect()
}

/// All that a reader gives from an offset on, asked for in small steps.
pub(crate) fn read_all(reader: &dyn ReadJournal, from: Offset) -> Vec<u64> {
    let (mut at, mut all) = (from, Vec::new());
    loop {
        let blocks = reader.read(at, 1).unwrap();
        let Some(last) = blocks.last() else { return all };
        all.extend(blocks.iter().flat_map(|block| numbers(block)));
        assert!(last.end() > at, "reading on must make progress");
        at = last.end();
    }
}

/// A test collects here what a replay gave it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) sessions: Vec<SessionRecord>,
    pub(crate) clients: Vec<ClientRecord>,
    pub(crate) counter_limit: Option<u64>,
    pub(crate) asks: Vec<AskRecord>,
    pub(crate) answers: Vec<AnswersRecord>,
    pub(crate) numbers: Vec<u64>,
}

impl Replayed {
    pub(crate) fn take(&mut self, replay: Replay<'_>) {
        match replay {
            Replay::Session(session) => self.sessions.push(session),
            Replay::Client(client) => self.clients.push(client),
            Replay::Ask(ask) => self.asks.push(ask),
            Replay::Answers(answers) => self.answers.push(answers),
            Replay::CounterLimit(limit) => self.counter_limit = Some(limit),
            Replay::Block(block) => self.numbers.extend(numbers(block)),
        }
    }
}
