//! The dialect without committer and lanes: each call in the order in which a test wants it, over a journal that can crash.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use duragram_proto::codec::{self, AnswerStatus, Data, Datagram, OPTION_ASK, Ping, RejectCode, Take};
use duragram_proto::seal::{ClientKey, SessionKeys};
use duragram_proto::{ClientId, Epoch, Seq};
use prometheus_client::registry::Registry;

use crate::dialect::duragram::{Admission, AdmissionConfig, AskConfig, Duragram, DuragramConfig, Owed};
use crate::dialect::{Arrivals, Dialect, Touched, Work};
use crate::journal::testing::memory::{MemoryDisk, MemoryJournal};
use crate::journal::{BlockBuilder, Checkpoint, Commit, Durable, Journal, Landed, Records, Replay};
use crate::keys::{KeyRing, Keys};
use crate::metrics::Metrics;
use crate::model::{
    AnswersRecord, AskId, AskRecord, DurabilityLevel, LaneAnswer, Now, Offset, Peer, Processed, SessionId,
};
use crate::net::{Outbox, ReplyQueue, Slab, Transmit};

/// Clients `n` have the key of 32 bytes `n`.
const KEY_FILE: &str = "\
client 0000000000000001 0101010101010101010101010101010101010101010101010101010101010101
client 0000000000000002 0202020202020202020202020202020202020202020202020202020202020202
";

#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Sent>>);

/// Datagrams in the order in which they left, and where they went.
pub(super) type Sent = Vec<(Peer, Vec<u8>)>;

impl Transmit for Wire {
    fn transmit(&mut self, outbox: &Outbox) {
        self.0.lock().unwrap().extend(outbox.iter().map(|(peer, bytes)| (peer, bytes.to_vec())));
    }
}

/// A server said this, as a test compares it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Ack {
        floor: u64,
        ready: bool,
    },
    Reject(RejectCode),
    /// Its seq, its length and its body.
    Done(u64, u32, Vec<u8>),
    Failed(u64, u32, Vec<u8>),
    /// Its seq, and when to ask again.
    Pending(u64, u32),
    Gone(u64),
}

/// A reply: the port that it goes to, and what it says.
pub(super) type Reply = (u16, Said);

/// What a journal keeps of asks, as the contract between dialect and journal has it.
#[derive(Clone, Default)]
struct Kept {
    asks: BTreeMap<AskId, AskRecord>,
    answers: BTreeMap<u64, AnswersRecord>,
}

struct Flight {
    owed: Owed,
    riders: Vec<Owed>,
    block: BlockBuilder,
    records: Records,
    checkpoint: Option<Checkpoint>,
    end: Offset,
}

/// What all parts are configured with.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) asks: AskConfig,
    pub(super) sealed: bool,
    pub(super) sessions_max: usize,
    pub(super) session_ttl_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { asks: AskConfig::default(), sealed: false, sessions_max: 100_000, session_ttl_s: 1_000_000 }
    }
}

pub(super) struct Rig {
    config: Config,
    pub(super) admission_config: AdmissionConfig,
    pub(super) dialect: Duragram,
    admission: Admission,
    disk: MemoryDisk,
    journal: MemoryJournal,
    kept: Kept,
    receipt: Durable,
    wire: Wire,
    replies: ReplyQueue<Wire>,
    pub(super) block: BlockBuilder,
    flights: VecDeque<Flight>,
    pub(super) mono_us: u64,
    pub(super) metrics: Metrics,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(super) fn with(config: Config) -> Self {
        Self::on(MemoryDisk::default(), Kept::default(), config, 1_000_000)
    }

    pub(super) fn with_room_for(asks_max: usize) -> Self {
        Self::with(Config { asks: AskConfig { asks_max, ..AskConfig::default() }, ..Config::default() })
    }

    /// A server with keys that takes plain traffic too.
    pub(super) fn sealed() -> Self {
        let mut rig = Self::with(Config { sealed: true, ..Config::default() });
        rig.commit();
        rig
    }

    fn on(disk: MemoryDisk, kept: Kept, config: Config, mono_us: u64) -> Self {
        let metrics = Metrics::register(&mut Registry::default());
        let Config { asks, sealed, sessions_max, session_ttl_s } = config;
        let settings = DuragramConfig { window: 1000, sessions_max, session_ttl_s, sealed, asks };
        let mut dialect = Duragram::new(settings, metrics.clone());
        kept.asks.values().for_each(|record| dialect.replay(Replay::Ask(record.clone())));
        let opened = disk.open(&mut |replay| match replay {
            Replay::Ask(_) | Replay::Answers(_) => {}
            replay => dialect.replay(replay),
        });
        kept.answers.values().for_each(|record| dialect.replay(Replay::Answers(record.clone())));
        dialect.replayed().unwrap();
        let plain = AdmissionConfig::plain(1472);
        let admission_config = match sealed {
            true => AdmissionConfig { keys: KeyRing::of(Keys::parse(KEY_FILE.as_bytes()).unwrap()), ..plain },
            false => plain,
        };
        let wire = Wire::default();
        Self {
            config,
            admission: Admission::new(admission_config.clone()),
            admission_config,
            dialect,
            disk,
            receipt: opened.journal.durable(),
            journal: opened.journal,
            kept,
            replies: ReplyQueue::new(wire.clone()),
            wire,
            block: BlockBuilder::default(),
            flights: VecDeque::new(),
            mono_us,
            metrics,
        }
    }

    /// Ends at once: what is in flight, and in the block, was never written. The next start finds the rest.
    pub(super) fn crash(self) -> Self {
        let mut rig = Self::on(self.disk, self.kept, self.config, self.mono_us);
        if rig.config.sealed {
            rig.commit();
        }
        rig
    }

    pub(super) fn now(&self) -> Now {
        Now { mono_us: self.mono_us, unix_us: 1_800_000_000_000_000 + self.mono_us }
    }

    pub(super) fn advance_ms(&mut self, ms: u64) {
        self.mono_us += ms * 1_000;
    }

    /// Lets admission begin anew with the settings that a test has changed.
    pub(super) fn admit_anew(&mut self) {
        self.admission = Admission::new(self.admission_config.clone());
    }

    /// A datagram comes from this port, and is absorbed.
    pub(super) fn send_from(&mut self, peer: Peer, bytes: &[u8]) {
        let mut arrivals = Arrivals::<Admission>::new(Slab::new(0));
        arrivals.slab.arrived = self.now();
        arrivals.slab.push(peer, bytes);
        arrivals.admit(&mut self.admission);
        let first = self.appended_end();
        self.dialect.begin(arrivals.slab.arrived);
        for request in arrivals.requests() {
            let (block, replies) = (&mut self.block, &mut self.replies);
            let level = DurabilityLevel::Synced;
            let mut work = Work { block, first, replies, pressure: 0, storage_short: false, level };
            self.dialect.absorb(request, &arrivals.slab, &mut work);
        }
        self.dialect.end(arrivals.dropped());
    }

    pub(super) fn send(&mut self, port: u16, bytes: &[u8]) {
        self.send_from(peer(port), bytes);
    }

    /// One datagram, a commit, and what was said.
    pub(super) fn tell(&mut self, bytes: &[u8]) -> Vec<Said> {
        self.send(1, bytes);
        self.commit();
        self.said()
    }

    /// Every entry below is durable.
    pub(super) fn durable_end(&self) -> Offset {
        self.receipt.end()
    }

    fn appended_end(&self) -> Offset {
        self.flights.back().map_or(self.receipt.end(), |flight| flight.end)
    }

    /// Where the next entry goes.
    pub(super) fn next_offset(&self) -> Offset {
        self.appended_end().plus(self.block.len() as u64)
    }

    /// Closes the commit that is being built.
    pub(super) fn close(&mut self) {
        self.close_with(Records::default(), None);
    }

    fn close_with(&mut self, more: Records, checkpoint: Option<Checkpoint>) {
        let (mut owed, now, end) = (Owed::default(), self.now(), self.next_offset());
        let mut records = self.dialect.close(&self.receipt, &mut owed, &mut self.replies, 0, now);
        records.sessions.extend(more.sessions);
        records.asks.extend(more.asks);
        records.forgotten.extend(more.forgotten);
        let block = std::mem::take(&mut self.block);
        if !block.is_empty() || !records.is_empty() || checkpoint.is_some() {
            self.flights.push_back(Flight { owed, riders: Vec::new(), block, records, checkpoint, end });
        } else if let Some(last) = self.flights.back_mut() {
            last.riders.push(owed);
        } else {
            self.dialect.answer(&self.receipt, &mut owed, &mut self.replies, 0, now);
        }
        self.replies.flush();
    }

    /// The oldest commit in flight lands.
    pub(super) fn land(&mut self) {
        let Some(Flight { mut owed, riders, block, mut records, checkpoint, .. }) = self.flights.pop_front() else {
            return;
        };
        let (asks, forgotten) = (std::mem::take(&mut records.asks), std::mem::take(&mut records.forgotten));
        forgotten.iter().for_each(|id| drop(self.kept.asks.remove(id)));
        self.kept.asks.extend(asks.into_iter().map(|ask| (ask.id, ask)));
        if let Some(answers) = records.answers.take() {
            let before = self.kept.answers.insert(answers.number, answers);
            assert_eq!(before, None, "numbers count up");
        }
        if let Some(checkpoint) = &checkpoint {
            self.kept.answers = self.kept.answers.split_off(&checkpoint.answers_below);
        }
        self.journal.append(Commit { block, records, checkpoint }).unwrap();
        let Landed { receipt, .. } = self.journal.land().unwrap();
        self.receipt = receipt;
        self.dialect.landed(&self.receipt, &owed);
        let now = self.now();
        self.dialect.answer(&self.receipt, &mut owed, &mut self.replies, 0, now);
        for mut owed in riders {
            self.dialect.answer(&self.receipt, &mut owed, &mut self.replies, 0, now);
        }
        self.replies.flush();
    }

    pub(super) fn commit(&mut self) {
        self.close();
        while !self.flights.is_empty() {
            self.land();
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Writes a checkpoint whose records take `pieces` commits at least, the last of which is left in flight.
    pub(super) fn close_checkpoint(&mut self, pieces: usize) {
        let at = self.next_offset();
        let mut left = self.dialect.begin_checkpoint(self.now());
        for _ in 1..pieces {
            let Touched { taken, sessions, asks, forgotten } = self.dialect.take_touched(left, 1);
            left -= taken;
            self.close_with(Records { sessions, asks, forgotten, ..Records::default() }, None);
        }
        let Touched { taken, sessions, asks, forgotten } = self.dialect.take_touched(left, usize::MAX);
        assert_eq!(taken, left, "all that had changed");
        let (expired, answers_below) = (self.dialect.take_expired(), self.dialect.answers_below());
        let checkpoint = Checkpoint { at, sessions, expired, answers_below, ..Checkpoint::default() };
        self.close_with(Records { asks, forgotten, ..Records::default() }, Some(checkpoint));
    }

    pub(super) fn checkpoint(&mut self) {
        self.close_checkpoint(1);
        while !self.flights.is_empty() {
            self.land();
        }
    }

    pub(super) fn answer(&mut self, id: AskId, offset: Offset, body: &[u8]) {
        let answer = LaneAnswer { id, offset, failed: false, body: body.into() };
        self.dialect.answered(vec![answer], self.now());
    }

    pub(super) fn fail(&mut self, id: AskId, offset: Offset) {
        let answer = LaneAnswer { id, offset, failed: true, body: Arc::default() };
        self.dialect.answered(vec![answer], self.now());
    }

    pub(super) fn processed(&mut self, processed: Processed) {
        self.dialect.processed(processed, self.now());
    }

    /// What was sent since the last call, and to which port.
    pub(super) fn replies(&mut self) -> Vec<Reply> {
        let sent = self.sent();
        sent.iter().map(|(to, bytes)| (to.addr.port(), said(bytes))).collect()
    }

    pub(super) fn sent(&mut self) -> Sent {
        self.replies.flush();
        std::mem::take(&mut *self.wire.0.lock().unwrap())
    }

    pub(super) fn said(&mut self) -> Vec<Said> {
        self.replies().into_iter().map(|(_, said)| said).collect()
    }

    /// What the journal keeps of an ask.
    pub(super) fn record(&self, id: AskId) -> Option<&AskRecord> {
        self.kept.asks.get(&id)
    }

    /// Records of answers that it keeps.
    pub(super) fn answers_kept(&self) -> usize {
        self.kept.answers.len()
    }
}

pub(super) fn peer(port: u16) -> Peer {
    Peer::new(SocketAddr::from(([127, 0, 0, 1], port)), 0)
}

pub(super) fn session(client: u64, epoch: u32) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(epoch).unwrap() }
}

pub(super) fn id(client: u64, seq: u64) -> AskId {
    AskId { session: session(client, 1), seq: Seq(seq) }
}

pub(super) fn keys(client: u64, epoch: u32) -> SessionKeys {
    ClientKey::new([u8::try_from(client).unwrap(); 32]).keys(ClientId(client), Epoch::new(epoch))
}

/// A DATA that asks. Its base is 1 below the window, so that seqs may come in any order.
fn asking(id: AskId, span: u16) -> Datagram<'static> {
    let AskId { session: SessionId { client, epoch }, seq } = id;
    Datagram::Data(Data { options: OPTION_ASK, ..Data::whole(client, epoch, seq, span, b"a question") })
}

pub(super) fn take_with(id: AskId, span: u16, wait_ms: u32, room: usize) -> Datagram<'static> {
    let AskId { session: SessionId { client, epoch }, seq } = id;
    Datagram::Take(Take { client, epoch, seq, span, wait_ms, room })
}

pub(super) fn encode(datagram: &Datagram<'_>) -> Vec<u8> {
    let mut buffer = [0; 3000];
    let len = datagram.encode(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

pub(super) fn seal(datagram: &Datagram<'_>, session: SessionId, counter: u64) -> Vec<u8> {
    let mut buffer = [0; 3000];
    let len = datagram.seal(&keys(session.client.0, session.epoch.value()), counter, &mut buffer).unwrap();
    buffer[..len].to_vec()
}

pub(super) fn ask_at(id: AskId, span: u16) -> Vec<u8> {
    encode(&asking(id, span))
}

pub(super) fn sealed_ask(id: AskId, counter: u64) -> Vec<u8> {
    seal(&asking(id, 0), id.session, counter)
}

/// Asks in epoch 1, where everything before is acked.
pub(super) fn ask(client: u64, seq: u64) -> Vec<u8> {
    ask_at(id(client, seq), 0)
}

pub(super) fn data(client: u64, seq: u64) -> Vec<u8> {
    encode(&Datagram::Data(Data::whole(ClientId(client), Epoch::new(1).unwrap(), Seq(seq), 0, b"a reading")))
}

pub(super) fn ping(client: u64) -> Vec<u8> {
    encode(&Datagram::Ping(Ping { client: ClientId(client), epoch: Epoch::new(1).unwrap() }))
}

/// Takes at once, with room for any body.
pub(super) fn take(client: u64, seq: u64, span: u16) -> Vec<u8> {
    encode(&take_with(id(client, seq), span, 0, 1024))
}

/// A TAKE that may be held for five seconds.
pub(super) fn waiting(client: u64, seq: u64, span: u16) -> Vec<u8> {
    encode(&take_with(id(client, seq), span, 5_000, 1024))
}

fn said(bytes: &[u8]) -> Said {
    let mut bytes = bytes.to_vec();
    let datagram = if bytes[1] & 8 == 0 {
        codec::decode(&bytes).unwrap()
    } else {
        let head = codec::peek(&bytes).unwrap();
        let keys = ClientKey::new([u8::try_from(head.client.0).unwrap(); 32]).keys(head.client, head.keys.epoch());
        codec::unseal_reply(&mut bytes, &keys).unwrap()
    };
    match datagram {
        Datagram::Ack(ack) => Said::Ack { floor: ack.floor.0, ready: ack.ready },
        Datagram::Reject(reject) => Said::Reject(reject.code),
        Datagram::Answer(answer) => {
            let (seq, number, body) = (answer.seq.0, answer.number, answer.body.to_vec());
            match answer.status {
                AnswerStatus::Done => Said::Done(seq, number, body),
                AnswerStatus::Failed => Said::Failed(seq, number, body),
                AnswerStatus::Pending => Said::Pending(seq, number),
                AnswerStatus::Gone => Said::Gone(seq),
                AnswerStatus::Unknown(_) => panic!("a server does not send {answer:?}"),
            }
        }
        other => panic!("a server does not send {other:?}"),
    }
}
