//! What the admin interface sees of the server, and shows of it.

use std::net::SocketAddr;

use prometheus_client::registry::Registry;
use serde::Serialize;

use super::sink_view::{SinkAnswer, SinkChange, SinkRefused, SinkView};
use crate::journal::{DeadLetter, DeadLetters, ReadJournal};
use crate::keys::{KeyRing, Summary, show_fingerprint};
use crate::model::{AskTotals, AsksReport, AsksRequest, Offset, SinkId};
use crate::record_json::timestamp;

/// What the admin interface sees of the server.
pub trait AdminState: Send + Sync + 'static {
    /// Why the server can never work again (a commit failed), if it is so.
    fn failure(&self) -> Option<String>;
    /// Why datagrams are not accepted now: recovering, draining, no space. Empty when they are.
    fn not_ready(&self) -> Vec<String>;
    /// What processing waits for, such as a sink that is away. Datagrams are accepted all the same.
    fn waiting(&self) -> Vec<String> {
        Vec::new()
    }
    /// A snapshot of the server.
    fn status(&self) -> Status;
    /// The registry of all metrics that the server keeps.
    fn registry(&self) -> &Registry;
    /// The committed entries, for reading.
    fn journal(&self) -> &dyn ReadJournal;
    /// Every entry below is durable.
    fn end(&self) -> Offset;
    /// What could not be processed.
    fn dead_letters(&self) -> &dyn DeadLetters;
    /// The configured sinks in the order of the configuration, then those that only keep their place. None for a handler of a
    /// program.
    fn sinks(&self) -> Vec<SinkView> {
        Vec::new()
    }
    /// Asks for a change of the sink with this name. Waits for nothing: whoever wants to know when it is durable asks the answer
    /// again and again.
    ///
    /// # Errors
    /// Nothing was asked, and nothing has changed.
    fn change_sink(&self, name: &str, change: SinkChange) -> Result<SinkAnswer, SinkRefused> {
        let _there_are_none = change;
        Err(SinkRefused::Unknown(format!("there is no sink \"{name}\": there are none")))
    }
    /// Asks about asks. Waits for nothing: whoever wants to know asks the answer again and again.
    ///
    /// # Errors
    /// Too many others ask, or the server stops: nothing was asked, and nothing has changed.
    fn ask_about_asks(&self, request: AsksRequest) -> Result<AsksAnswer, String>;
    /// Whether nothing is done any more for a sink that was removed, so that it makes no more dead letters.
    fn sink_has_stopped(&self, sink: SinkId) -> bool {
        let _there_are_none = sink;
        true
    }
    /// Has a dead letter given to its handler once more, if it is still there when its turn comes; it is deleted when that
    /// succeeds. Waits for nothing: whoever wants to know what became of it asks the answer again and again.
    fn retry_dead(&self, letter: &DeadLetter) -> RetryAnswer;
}

/// The answer to a retry, `None` as long as there is none.
pub type RetryAnswer = Box<dyn FnMut() -> Option<Retried> + Send>;

/// The answer about asks, `None` as long as there is none: all that it says is durable. Or why nobody can say.
pub type AsksAnswer = Box<dyn FnMut() -> Option<Result<AsksReport, String>> + Send>;

/// What became of another attempt with a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is processed, durably, and is no dead letter any more.
    Done,
    /// The handler failed again, for this reason; the letter is as it was.
    Failed(String),
    /// It was discarded or processed before its turn came.
    Gone,
    /// Its lane takes no requests, or has ended. It may still be processed.
    Unanswered(String),
    /// Nobody here could process it, for this reason; the letter is as it was.
    Impossible(String),
}

/// A snapshot of the server. With the configuration it makes `/api/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// What the server is doing.
    pub phase: Phase,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// UDP addresses that it listens on, with real ports.
    pub udp: Vec<SocketAddr>,
    /// So many sessions are in the table.
    pub sessions: u64,
    /// How many asks there are.
    pub asks: AsksStatus,
    /// How far the journal reaches.
    pub offsets: Offsets,
    /// How far each lane has come, in lane order.
    pub lanes: Vec<LaneStatus>,
    /// Blocks in the journal, not trimmed, bytes.
    pub backlog_bytes: u64,
    /// Free on the journal's file system, bytes; `None` where that does not tell.
    pub free_bytes: Option<u64>,
    /// Dead letters that wait for an operator.
    pub dead_letters: u64,
    /// The keys in force; `None` for a server without keys.
    pub keys: Option<KeysStatus>,
}

/// How many asks there are, and how many there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AsksStatus {
    /// Those that are not answered.
    pub open: usize,
    /// Those whose answers wait to be had.
    pub answered: usize,
    /// TAKEs that are held until their answer is there.
    pub held_takes: usize,
    /// Those of both kinds that came plain, not sealed.
    pub plain: usize,
    /// The most that are remembered; 0: nobody may ask.
    pub asks_max: usize,
    /// The most plain ones among them.
    pub plain_max: usize,
}

impl From<AskTotals> for AsksStatus {
    fn from(totals: AskTotals) -> Self {
        let AskTotals { open, answered, held_takes, plain, asks_max, plain_max } = totals;
        Self { open, answered, held_takes, plain, asks_max, plain_max }
    }
}

/// What may be shown of the keys in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeysStatus {
    /// The fleet key's fingerprint, as `duragram keys show-id` shows it; `None` without a fleet key.
    pub fleet: Option<String>,
    /// Clients with a key of their own.
    pub clients: usize,
    /// Clients whose channels are restricted.
    pub restricted: usize,
    /// How many clients have had their keys revoked.
    pub revoked: usize,
    /// When they were read, RFC 3339.
    pub loaded_at: String,
}

impl KeysStatus {
    /// Tells of the keys in force.
    pub fn of(keys: &KeyRing) -> Option<Self> {
        let (Summary { fleet, clients, restricted, revoked }, loaded_unix_us) = keys.summary()?;
        let fleet = fleet.map(show_fingerprint);
        Some(Self { fleet, clients, restricted, revoked, loaded_at: timestamp(loaded_unix_us) })
    }
}

/// What the server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It reads the journal; no datagram is accepted yet.
    Recovering,
    /// It accepts and processes datagrams.
    Running,
    /// It was asked to stop and finishes what it has.
    Draining,
    /// A commit failed: nothing is acked any more.
    Failed,
}

/// How far the journal reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offsets {
    /// Every entry below is processed and may be trimmed.
    pub low: u64,
    /// Recovery would start from this entry.
    pub checkpoint: u64,
    /// Every entry below is durable.
    pub end: u64,
}

/// How far a lane has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// The number of the lane, from 0.
    pub lane: u16,
    /// Every entry of the lane below is processed.
    pub watermark: u64,
    /// Entries between the watermark and the journal's end.
    pub lag: u64,
}
