//! The admin interface: HTTP for operators, probes, Prometheus and the command line.
//!
//! One thread with its own single-threaded runtime, so that nothing here can take a processor from the data path for
//! long. It reads: health, metrics, status, entries. The only changes it can make are to sinks, dead letters
//! and asks. It sees the rest
//! of the server through [`AdminState`] alone and knows neither sockets, sessions nor storage.
//!
//! Who may ask for what is decided in `guard`: changes need a token, and so does everything on an address that other
//! machines reach.
//! Everything is bounded by `limits`: connections, heads, bodies, streams, and the time that a peer may stall.

mod age;
mod answer;
mod asks;
mod connections;
mod dead;
mod entries;
mod error;
mod exposition;
mod guard;
mod interface;
mod routes;
mod sink_view;
mod sinks;
mod starting;
mod state;
#[cfg(test)]
mod tests;
mod token;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use axum::Router;
use connections::{Door, Patience, STOP_TIMEOUT};
use guard::Guard;
use interface::Interface;
pub use sink_view::{SinkAnswer, SinkChange, SinkRefused, SinkState, SinkView};
pub use starting::{Starting, StartingAt};
pub use state::{
    AdminState, AsksAnswer, AsksStatus, KeysStatus, LaneStatus, Offsets, Phase, Retried, RetryAnswer, Status,
};
pub use token::{TOKEN_FILE, Token, TokenError};
use tokio::sync::watch;

use crate::config::{Config, is_loopback};

/// Threads that read for requests are kept: where threads are scarce, a later one might not be granted.
const READERS_LIVE: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The start of an interface that is opened at once: there is nothing to tell of it.
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
        let interface = Interface::new(state, config, self.address, self.stop.subscribe());
        let _already_open = self.ready.set(routes::router(interface, guard));
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
