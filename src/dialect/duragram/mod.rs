//! Duragram's own protocol, as PROTOCOL.md has it: the server's side of it.
//!
//! | part | what it does |
//! |---|---|
//! | `admission` | on the receivers' threads: checksum or seal, keys, limits; makes requests |
//! | [`session`] | the rules of sessions, their table, and the book of epochs |
//! | `data` | DATA: opens sessions, journals what is new, and notes what must be durable |
//! | `hello` | HELLO: gives epochs, plain and sealed |
//! | `answers` | which sessions are to be answered, and with what, once their commit has landed; PING |
//! | `asks` | what asked for an answer, the answers, and who waits for them: TAKE |
//! | `acks` | the making of ACK and WELCOME, from a receipt alone |
//! | `replier` | seals replies, and bounds how often who is refused hears of it |
//! | `checkpoint`, `recovery` | what a checkpoint takes, and what a start takes up |

mod acks;
mod admission;
mod answers;
mod asks;
mod checkpoint;
mod counts;
mod data;
mod hello;
mod recovery;
mod refusals;
mod replier;
pub mod session;

use duragram_proto::ClientId;
use duragram_proto::codec::Reject;

use crate::dialect::{Dialect, InvalidRecord, Touched, Work};
use crate::journal::{Durable, Records, Replay};
use crate::limits;
use crate::metrics::Metrics;
use crate::model::{
    AskId, AskRecord, AskTotals, AsksReport, AsksRequest, DialectId, LaneAnswer, Now, Processed, SessionId,
    SessionRecord,
};
use crate::net::{ReplyQueue, Slab, Transmit};
use crate::rate::Buckets;
use crate::rate::LogLimit;
pub use admission::{
    Admission, AdmissionConfig, AsksOf, DataRequest, Dropped, Request, RequestKind, Seal, TakeRequest,
};
pub use answers::Owed;
use answers::{PendingAck, PendingWelcome};
pub use asks::AskConfig;
use asks::{AskTable, Due, HeldTakes};
use counts::Counts;
use recovery::Replayed;
use replier::{Replier, ReplyTo};
use session::{EpochBook, SessionTable};

/// What of the configuration the sessions' side needs; [`AdmissionConfig`] is the receivers' part.
#[derive(Clone, Debug)]
pub struct DuragramConfig {
    /// How far beyond its floor a session may send, in seqs.
    pub window: u16,
    /// The most sessions that are remembered.
    pub sessions_max: usize,
    /// Idle sessions are forgotten after this many seconds of service.
    pub session_ttl_s: u64,
    /// The server has keys: it seals its replies to what comes sealed.
    pub sealed: bool,
    /// Asks and their answers are kept by these rules.
    pub asks: AskConfig,
}

/// Sessions, epochs, and what is to be answered.
#[derive(Debug)]
pub struct Duragram {
    config: DuragramConfig,
    metrics: Metrics,
    sessions: SessionTable,
    epochs: EpochBook,
    replayed: Replayed,
    /// Service time at the start, in seconds: it goes on where the run before has left it.
    service_base_s: u64,

    /// The number of the commit being built.
    number: u64,
    /// That of the last one that has landed. Those between are in flight.
    landed: u64,
    /// The block of the commit being built holds so many datagrams.
    journaled: u64,
    pending: Vec<PendingAck>,
    welcomes: Vec<PendingWelcome>,
    /// Sessions whose record must be durable before they are answered: opened by HELLO, or floor moved by a duplicate.
    records: Vec<u32>,
    /// So many of them come to [`limits::CHECKPOINT_RECORD_BYTES`] with the widest bitmaps.
    records_max: usize,
    /// Clients whose epochs must be durable with this commit.
    clients: Vec<ClientId>,
    /// Sessions that had to give way to sealed ones: to be taken out of the next checkpoint.
    evicted: Vec<SessionId>,
    /// Sessions in which nothing had come when their clients asked for another: their records go with this commit.
    renewed: Vec<SessionId>,
    /// Sessions that the checkpoint which is being written takes out.
    expired: Vec<SessionId>,
    /// Changed sessions that the checkpoint which is being written has still to take.
    round_sessions: usize,

    asks: AskTable,
    held: HeldTakes,
    /// ANSWERs that are due with this commit, or with one before it.
    due: Vec<Due>,
    /// Asks whose entries are in the block.
    opened: Vec<AskId>,
    /// What became of asks: of this commit, or of an earlier one that had nothing else to write.
    answers: Vec<AskRecord>,
    /// Bytes of those that are a reason to write: answered ones, and those that an operator has had forgotten. 0 if there are none.
    answers_bytes: usize,
    /// The number of the next record of answers, and of the one that was the next when the last checkpoint began.
    answers_number: u64,
    answers_below: u64,
    /// When those that are answered with this commit were acked, in monotonic microseconds.
    waited_since: Vec<u64>,

    replier: Replier,
    /// What asks for sessions that nothing vouches for, by source.
    openings: Buckets,
    client_log: LogLimit,
    counts: Counts,
}

impl Duragram {
    /// Remembers nothing yet: the journal is to be replayed into it.
    pub fn new(config: DuragramConfig, metrics: Metrics) -> Self {
        let sessions_max = config.sessions_max;
        Self {
            sessions: SessionTable::new(sessions_max),
            epochs: EpochBook::new(sessions_max.saturating_mul(limits::SEALED_CLIENTS_PER_SESSION)),
            replayed: Replayed::default(),
            service_base_s: 0,
            number: 1,
            landed: 0,
            journaled: 0,
            pending: Vec::new(),
            welcomes: Vec::new(),
            records: Vec::new(),
            records_max: limits::CHECKPOINT_RECORD_BYTES
                / (size_of::<SessionRecord>() + usize::from(config.window).div_ceil(64) * size_of::<u64>()),
            clients: Vec::new(),
            evicted: Vec::new(),
            renewed: Vec::new(),
            expired: Vec::new(),
            round_sessions: 0,
            asks: AskTable::new(config.asks.asks_max),
            held: HeldTakes::default(),
            due: Vec::new(),
            opened: Vec::new(),
            answers: Vec::new(),
            answers_bytes: 0,
            answers_number: 1,
            answers_below: 1,
            waited_since: Vec::new(),
            replier: Replier::new(),
            openings: Buckets::new(limits::SOURCE_BUCKETS, limits::OPENINGS_PER_S, limits::OPENINGS_BURST),
            client_log: LogLimit::new(limits::CLIENT_LOG_LINES_PER_S),
            counts: Counts::default(),
            config,
            metrics,
        }
    }

    /// The sealed sessions that it remembers, for [`Admission::expect`].
    pub fn sealed_sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.sealed()
    }

    /// The sessions that it remembers, for whoever looks in from outside.
    pub fn table(&mut self) -> &mut SessionTable {
        &mut self.sessions
    }

    /// A copy of a session, as a start would find it.
    #[cfg(test)]
    pub(crate) fn session_of(&self, id: SessionId) -> Option<session::Session> {
        self.sessions.record_of(id).and_then(|record| session::Session::restore(&record))
    }

    /// The whole window while at most half of the queue before the committer is in use, an eighth when all is.
    fn credit(&self, pressure: u16) -> u16 {
        let window = u32::from(self.config.window);
        let over = u32::from(pressure).saturating_sub(512);
        let credit = window - window * over * 7 / (512 * 8);
        u16::try_from(credit.max(1)).unwrap_or(u16::MAX)
    }

    /// Seconds of service: the time that the server has run, over all its runs.
    fn service_s(&self, now: Now) -> u64 {
        self.service_base_s + now.mono_us / 1_000_000
    }
}

impl Dialect for Duragram {
    const ID: DialectId = DialectId::DURAGRAM;
    type Admission = Admission;
    type Owed = Owed;

    fn replay(&mut self, replay: Replay<'_>) {
        self.take_up(replay);
    }

    fn replayed(&mut self) -> Result<(), InvalidRecord> {
        self.go_on()
    }

    fn begin(&mut self, arrived: Now) {
        self.replier.set_time(arrived);
    }

    fn absorb<T: Transmit>(&mut self, request: &Request, slab: &Slab, work: &mut Work<'_, T>) {
        let to = || ReplyTo::to(request, slab.arrived.mono_us);
        match &request.kind {
            RequestKind::Data(data) => self.data(request, data, slab, work),
            RequestKind::Hello { client, nonce } if request.seal.is_some() => {
                self.sealed_hello(*client, *nonce, to(), slab.arrived, work);
            }
            RequestKind::Hello { client, nonce } => self.hello(*client, *nonce, to(), slab.arrived, work),
            RequestKind::Ping(id) => self.ping(*id, request, to(), slab.arrived, work),
            RequestKind::Take(take) => self.take(take, request, to(), slab.arrived, work),
            RequestKind::Refused { client, epoch, seq, code } => {
                self.counts.refuse(*code);
                let (client, epoch, code, refused) = (*client, *epoch, *code, *seq);
                self.reject_counted(&to(), Reject { client, epoch, code, refused, retry_after_ms: 0 }, work);
            }
        }
    }

    fn end(&mut self, dropped: &Dropped) {
        std::mem::take(&mut self.counts).report(&self.metrics);
        dropped.report(&self.metrics);
    }

    fn is_full(&self) -> bool {
        self.records.len() >= self.records_max
    }

    fn close<T: Transmit>(
        &mut self,
        receipt: &Durable,
        owed: &mut Owed,
        replies: &mut ReplyQueue<T>,
        pressure: u16,
        now: Now,
    ) -> Records {
        self.owe(receipt, owed, replies, pressure, now)
    }

    fn landed(&mut self, _receipt: &Durable, owed: &Owed) {
        self.note_landing(owed);
    }

    fn answer<T: Transmit>(
        &mut self,
        receipt: &Durable,
        owed: &mut Owed,
        replies: &mut ReplyQueue<T>,
        pressure: u16,
        now: Now,
    ) {
        self.pay(receipt, owed, replies, pressure, now);
    }

    fn answered(&mut self, answers: Vec<LaneAnswer>, now: Now) {
        self.take_answers(answers, now);
    }

    fn processed(&mut self, processed: Processed, now: Now) {
        self.take_processed(processed, now);
    }

    fn asks(&self) -> AskTotals {
        self.ask_totals()
    }

    fn tell_of_asks(&mut self, request: AsksRequest, now: Now) -> AsksReport {
        self.ask_report(request, now)
    }

    fn wants_checkpoint(&self) -> bool {
        self.asks.opened() >= limits::ASKS_BETWEEN_CHECKPOINTS
    }

    fn begin_checkpoint(&mut self, now: Now) -> usize {
        self.expire(now)
    }

    fn take_touched(&mut self, count_max: usize, bytes_max: usize) -> Touched {
        self.touched(count_max, bytes_max)
    }

    fn take_expired(&mut self) -> Vec<SessionId> {
        self.forgotten()
    }

    fn answers_below(&self) -> u64 {
        self.answers_below
    }

    fn sessions(&self) -> usize {
        self.sessions.len()
    }
}
