//! The server as a whole: the one place that wires concrete types together and starts threads.
//!
//! [`run`] is `duragram serve`. To embed the server with a [`Handler`] of your own, use
//! [`run_with`], as `examples/embed.rs` does in 40 lines, or [`Server::start`] to keep signals to yourself.

mod downstream;
mod error;
mod journal_source;
mod parts;
mod processing;
mod requests;
mod signals;
mod sinks;
mod sockets;
mod start;
mod starting;
mod state;
mod stop;
mod systemd;
#[cfg(test)]
mod tests;
mod waiting;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver as Events, select};

use crate::admin::{Admin, AdminState as _, Phase};
use crate::commit::Ingest;
use crate::config::Config;
use crate::dialect::duragram::Duragram;
use crate::host::file_modes;
pub use crate::host::resources::Shortage;
use crate::journal::{Journal, RocksJournal};
use crate::keys::KeyRing;
use crate::metrics::Metrics;
use crate::model::SystemClock;
use crate::net::Sender;
use crate::process::{Fanout, Handler, HandlerError, LaneControl, LaneEnd, LaneStart};
pub use crate::server::error::Error;
pub use crate::server::journal_source::{DataDirectory, JournalSource};
use crate::server::parts::log_keys;
use crate::server::processing::Processing;
use crate::server::requests::Requests;
pub use crate::server::requests::ServerHandle;
pub use crate::server::sinks::{Known as KnownSinks, Planned as PlannedSink, SinkRefusal, plan as plan_sinks};
use crate::server::state::ServerState;
use crate::server::stop::{drain, end_lanes};
use crate::sink::Fifos;

/// Where the server can be reached, with real ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready {
    /// UDP addresses, in the order of the configuration.
    pub udp: Vec<SocketAddr>,
    /// The admin interface's address; `None` when it is off.
    pub admin: Option<SocketAddr>,
}

/// Takes the process's signals from here on: SIGTERM and SIGINT end it at once, SIGHUP is kept for the server. [`run`] does
/// the same; a program calls this in the first line of `main` when it does other things before that.
///
/// # Errors
/// The system gives no thread, or no file descriptors.
pub fn hold_signals() -> Result<(), Error> {
    Ok(signals::hold()?)
}

/// Runs a server with the configured sinks until SIGTERM, SIGINT or an error; `docs/operations.md` has what each signal does. `ready` is
/// called when datagrams are accepted.
///
/// After `Ok` everything acked is on disk, and so is how far processing has come.
pub fn run(config: Config, ready: impl FnOnce(&Ready)) -> Result<(), Error> {
    let sinks = config.sink.clone();
    run_on(config, Processing::Sinks(sinks, Fifos::default()), ready)
}

/// The same with handlers of your own; `config.sink` is not looked at. For the main thread of a program that is the server
/// alone: signals, sockets that systemd has bound, and what systemd is told are the process's.
pub fn run_with(
    config: Config,
    handlers: impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static,
    ready: impl FnOnce(&Ready),
) -> Result<(), Error> {
    run_on(config, Processing::Embedded(Box::new(handlers)), ready)
}

fn run_on(config: Config, processing: Processing, ready: impl FnOnce(&Ready)) -> Result<(), Error> {
    file_modes::keep_ours_private();
    // The program has done so before it had threads; another one's main thread comes here first.
    crate::host::signal_mask::prepare(true);
    hold_signals()?;
    let bound = systemd::sockets()?;
    let server = Server::start_on(DataDirectory, bound, config, processing, Owner::Process)?;
    if let Err(error) = systemd::watch(server.ingest.liveness()) {
        server.handle.stop();
        server.wait()?;
        return Err(Shortage::new("starting the watchdog's thread", error).into());
    }
    ready(server.ready());
    systemd::ready();
    server.wait()
}

/// A running server, on RocksDB unless it is said otherwise.
pub struct Server<J = RocksJournal> {
    ready: Ready,
    state: Arc<ServerState>,
    clock: SystemClock,
    drain_timeout: Duration,
    ingest: Ingest<Duragram, J, Sender, Fanout>,
    ingest_ended: Events<Infallible>,
    lanes: LaneControl,
    lane_ends: Events<LaneEnd>,
    requests: Requests,
    handle: ServerHandle,
    admin: Option<Admin>,
    keys: KeyRing,
    metrics: Metrics,
    tells_systemd: bool,
}

/// What else the process does that the server is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    /// The process is the server and nothing else: signals and systemd concern it.
    Process,
    /// A program that has the server beside other things.
    Program,
}

impl<J: Journal + 'static> Server<J> {
    /// Where it can be reached.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// For stopping it from elsewhere.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until [`ServerHandle::stop`] is called or something fails, then stops in good order: what is in hand is
    /// committed and acked, the lanes may go on until the deadline, and a checkpoint is written.
    pub fn wait(self) -> Result<(), Error> {
        let served = self.serve();
        if self.tells_systemd && served.is_ok() {
            systemd::stopping();
        }
        let Self { state, clock, drain_timeout, ingest, lanes, lane_ends, requests, admin, .. } = self;
        state.set_phase(Phase::Draining);
        tracing::info!("stopping: committing what was received");
        let stopped = ingest.stop();
        let result = served.and_then(|()| {
            let mut committer = stopped?;
            tracing::info!(end = %state.end(), "draining the lanes");
            drain(&lanes, &lane_ends, &requests.stop, clock, drain_timeout, || committer.commit(&clock))?;
            committer.shut_down(&clock)?;
            Ok(())
        });
        if let Err(error) = &result {
            state.fail(error);
            drop(end_lanes(&lanes, &lane_ends, clock));
        }
        drop(admin);
        result
    }

    /// Until someone says stop, or a part ends by itself.
    fn serve(&self) -> Result<(), Error> {
        loop {
            select! {
                recv(self.requests.stop) -> _ => return Ok(()),
                // The handle to ask by is this server's own, too.
                recv(self.requests.reopen) -> _ => self.reopen(),
                // Stopping it, which comes next, gives its error.
                recv(self.ingest_ended) -> _ => return Ok(()),
                recv(self.lane_ends) -> end => match end {
                    Ok(LaneEnd { drained: Err(error), .. }) => return Err(error.into()),
                    Ok(_) | Err(_) => return Err(io::Error::other("a lane ended by itself").into()),
                },
            }
        }
    }

    fn reopen(&self) {
        if self.tells_systemd {
            systemd::reloading();
        }
        self.lanes.reopen();
        if !self.keys.is_none() {
            self.reload_keys();
        }
        if self.tells_systemd {
            systemd::ready();
        }
    }

    fn reload_keys(&self) {
        let reloaded = self.keys.reload();
        self.metrics.keys_reloaded(reloaded.is_ok());
        match reloaded {
            Ok(()) => log_keys(&self.keys),
            Err(error) => tracing::error!(%error, "the key file was not taken; the keys stay as they are"),
        }
    }
}
