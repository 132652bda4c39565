//! The admin interface: HTTP for operators, probes, Prometheus and the command line.
//!
//! One thread with its own single-threaded runtime, so that nothing here can take a processor from the data path for
//! long. It reads: health, metrics, status, entries. The only changes it can make are to dead letters. It sees the rest
//! of the server through [`AdminState`] alone and knows neither sockets, sessions nor storage.
//!
//! Who may ask for what is decided in `guard`: changes need a token, and so does everything on an address that other
//! machines reach.
//! Everything is bounded by `limits`: connections, heads, bodies, streams, and the time that a peer may stall.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use axum::Router;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::watch;

use crate::config::{Config, is_loopback};
use crate::journal::{DeadLetter, DeadLetters, ReadJournal};
use crate::keys::{KeyRing, Summary, show_fingerprint};
use crate::model::Offset;
use crate::record_json::timestamp;

mod connections;
mod dead;
mod entries;
mod error;
mod exposition;
mod guard;
mod routes;
mod starting;
#[cfg(test)]
mod tests;
mod token;

use connections::{Door, Patience};
use guard::Guard;
pub use starting::{Starting, StartingAt};
pub use token::{TOKEN_FILE, Token, TokenError};

/// How long connections get to finish when the server stops, and then threads that read for them.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// Threads that read for requests are kept: where threads are scarce, a later one might not be granted.
const READERS_LIVE: Duration = Duration::from_secs(10 * 366 * 86_400);

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
    /// A snapshot.
    fn status(&self) -> Status;
    /// All metrics.
    fn registry(&self) -> &Registry;
    /// Committed entries.
    fn journal(&self) -> &dyn ReadJournal;
    /// Every entry below is durable.
    fn end(&self) -> Offset;
    /// What could not be processed.
    fn dead_letters(&self) -> &dyn DeadLetters;
    /// Gives a dead letter to its handler once more, if it is still there when its turn comes; it is deleted when that
    /// succeeds. Waits for the answer, but not for ever.
    fn retry_dead(&self, letter: DeadLetter) -> Retried;
}

/// What became of another attempt with a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is processed, durably, and is no dead letter any more.
    Done,
    /// The handler failed again, for this reason; the letter is as it was.
    Failed(String),
    /// It was discarded or processed before its turn came.
    Gone,
    /// No answer in time, or no lane that takes requests. It may still be processed.
    Unanswered(String),
}

/// A snapshot of the server. With the configuration it makes `/api/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// UDP addresses that it listens on, with real ports.
    pub udp: Vec<SocketAddr>,
    /// Sessions in the table.
    pub sessions: u64,
    /// How far the journal reaches.
    pub offsets: Offsets,
    /// In lane order.
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

/// What may be told of the keys in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeysStatus {
    /// The fleet key's fingerprint, as `duragram keys show-id` shows it; `None` without a fleet key.
    pub fleet: Option<String>,
    /// Clients with a key of their own.
    pub clients: usize,
    /// Clients whose channels are restricted.
    pub restricted: usize,
    /// Clients revoked.
    pub revoked: usize,
    /// When they were read, RFC 3339.
    pub loaded_at: String,
}

impl KeysStatus {
    /// Of the keys in force.
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
    /// Reading the journal; no datagram is accepted yet.
    Recovering,
    /// Serving.
    Running,
    /// Told to stop: finishing what it has.
    Draining,
    /// A commit failed: nothing is acked any more.
    Failed,
}

/// How far the journal reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offsets {
    /// Every entry below is processed and may be trimmed.
    pub low: u64,
    /// Recovery starts here.
    pub checkpoint: u64,
    /// Every entry below is durable.
    pub end: u64,
}

/// How far a lane has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Its number.
    pub lane: u16,
    /// Every entry of the lane below is processed.
    pub watermark: u64,
    /// Entries between the watermark and the journal's end.
    pub lag: u64,
}

/// Of an interface that is opened at once.
struct NotStarted;

impl Starting for NotStarted {
    fn at(&self) -> StartingAt {
        StartingAt::default()
    }
}

/// The running admin interface. Stops when dropped.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    /// Filled when the server is ready.
    ready: Arc<OnceLock<Router>>,
    stop: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Admin {
    /// Binds the address and serves from a thread of its own. Nothing runs when an error is returned: the address is
    /// in use or not this machine's, or no thread could be started.
    pub fn start(address: SocketAddr, config: &Config, token: Token, state: Arc<dyn AdminState>) -> io::Result<Self> {
        Self::start_with(address, config, token, state, Patience::default())
    }

    /// The same before the server is there: probes learn that it lives and how far it is, and everything else is refused
    /// with status 503 until [`open`](Self::open). A `token` that is known lets its bearer know more, at an address that
    /// other machines reach.
    pub fn begin(address: SocketAddr, token: Option<Arc<Token>>, starting: Arc<dyn Starting>) -> io::Result<Self> {
        Self::begin_with(address, token, starting, Patience::default())
    }

    fn start_with(
        address: SocketAddr,
        config: &Config,
        token: Token,
        state: Arc<dyn AdminState>,
        patience: Patience,
    ) -> io::Result<Self> {
        let token = Arc::new(token);
        let admin = Self::begin_with(address, Some(Arc::clone(&token)), Arc::new(NotStarted), patience)?;
        admin.open(config, token, state);
        Ok(admin)
    }

    fn begin_with(
        address: SocketAddr,
        token: Option<Arc<Token>>,
        starting: Arc<dyn Starting>,
        patience: Patience,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(crate::limits::ADMIN_READERS)
            .thread_keep_alive(READERS_LIVE)
            .build()?;
        // A first reader that could not be started later would be a panic; further ones are waited for.
        catch_unwind(AssertUnwindSafe(|| drop(runtime.spawn_blocking(|| ()))))
            .map_err(|_| io::Error::other("no thread for the admin interface"))?;
        let (stop, stopping) = watch::channel(false);
        let guard = Guard { token, local: is_loopback(&address) };
        let ready = Arc::new(OnceLock::new());
        let door = Door::new(starting::router(starting, guard), Arc::clone(&ready));
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let served = runtime.block_on(connections::serve(listener, door, patience, stopping));
            if let Err(error) = served {
                tracing::error!(%error, "the admin interface cannot accept connections and is gone");
            }
            runtime.shutdown_timeout(STOP_TIMEOUT);
        })?;
        Ok(Self { address, ready, stop, thread: Some(thread) })
    }

    /// The server is there: answers from now on, also on connections that are open already. Only the first call counts.
    pub fn open(&self, config: &Config, token: Arc<Token>, state: Arc<dyn AdminState>) {
        let guard = Guard { token: Some(token), local: is_loopback(&self.address) };
        let shared = routes::Shared::new(state, config, guard, self.address, self.stop.subscribe());
        let _already_open = self.ready.set(routes::router(Arc::new(shared)));
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends streams, lets requests in hand finish for half a second, closes everything and waits for its thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin interface panicked");
        }
    }
}
