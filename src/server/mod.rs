//! The server as a whole: the one place that wires concrete types together and starts threads.
//!
//! [`run`] is `duragram serve`. To embed the server with a [`Handler`] of your own, use
//! [`run_with`], as `tests/examples/embed.rs` does in 30 lines, or [`Server::start`] to keep signals to yourself.

mod descriptors;
mod signals;
mod sockets;
mod state;
mod systemd;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver as Events, Sender as EventSender, bounded, never, select};
use prometheus_client::registry::Registry;

use crate::admin::{Admin, AdminState, Phase, Token, TokenError};
use crate::config::{self, Config};
use crate::file_modes;
use crate::ingest::{self, Committer, CommitterConfig, Downstream, Ingest, IngestError, Never, Recovery, Threading};
use crate::journal::rocks::{RocksJournal, RocksOptions};
use crate::journal::{Damage, DamageKind, DamagePlace, Durable, LaneMark, OpenError, Opened, StorageError};
use crate::keys::{KeyFileError, KeyRing};
use crate::metrics::Metrics;
use crate::net::{Admission, ChannelSet, Receiver, Sender};
use crate::process::sink::{self, SinkSpecError};
use crate::process::{
    Fanout, Handler, HandlerError, HandlerFactory, LaneConfig, LaneControl, LaneEnd, LaneParts, LaneStart, Lanes,
    Progress, RetryPolicy, spawn_lanes,
};
use crate::server::state::ServerState;
use crate::types::{Clock, SystemClock};

/// Where the server can be reached, with real ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready {
    /// UDP addresses, in the order of the configuration.
    pub udp: Vec<SocketAddr>,
    /// The admin interface's address; `None` when it is off.
    pub admin: Option<SocketAddr>,
}

/// Why the server could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// A sink's specification is not understood.
    #[error(transparent)]
    SinkSpec(#[from] SinkSpecError),
    /// The key file was not taken.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// There is no admin token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An address is in use, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A handler could not be made, such as a sink that cannot be opened.
    #[error("cannot start processing: {0}")]
    Handler(#[from] HandlerError),
    /// The storage failed. Nothing was acked that is not on disk.
    #[error("storage failed: {0}")]
    Storage(#[from] StorageError),
    /// The system refused something else.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Error {
    /// The process's exit code for this error, as `duragram --help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::SinkSpec(_) | Self::Keys(_) => 2,
            Self::Open(OpenError::Damaged(_)) => 3,
            Self::Storage(error) if error.damage.is_some() => 3,
            Self::Open(OpenError::Storage { .. }) | Self::Storage(_) => 4,
            Self::Token(TokenError::NoToken { .. }) => 2,
            Self::Token(_) | Self::Open(_) | Self::Bind { .. } | Self::Handler(_) | Self::System(_) => 1,
        }
    }
}

impl From<IngestError> for Error {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Storage(error) => Self::Storage(error),
            IngestError::Socket(error) => Self::System(error),
            panicked @ IngestError::Panicked(_) => Self::System(io::Error::other(panicked)),
        }
    }
}

/// Runs a server with the configured sinks until SIGTERM, SIGINT or an error; SIGHUP reopens the sinks' files and reads
/// the key file again. `ready` is called when datagrams are accepted.
///
/// After `Ok` everything acked is on disk, and so is how far processing has come.
pub fn run(config: Config, ready: impl FnOnce(&Ready)) -> Result<(), Error> {
    let handlers = sink::factory(&config.sink)?;
    run_with(config, handlers, ready)
}

/// The same with handlers of your own; `config.sink` is not looked at. For the main thread of a program that is the server
/// alone: signals, sockets that systemd has bound, and what systemd is told are the process's.
pub fn run_with(
    config: Config,
    handlers: impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static,
    ready: impl FnOnce(&Ready),
) -> Result<(), Error> {
    file_modes::keep_ours_private();
    let mut server = Server::start_on(systemd::sockets()?, config, handlers)?;
    server.tells_systemd = true;
    signals::forward(server.handle())?;
    systemd::watch(server.ingest.pulse())?;
    ready(server.ready());
    systemd::ready();
    server.wait()
}

/// A running server.
pub struct Server {
    ready: Ready,
    state: Arc<ServerState>,
    clock: SystemClock,
    drain_timeout: Duration,
    ingest: Ingest<RocksJournal, Sender, Fanout>,
    ingest_ended: Events<Never>,
    lanes: LaneControl,
    lane_ends: Events<LaneEnd>,
    events: Events<Event>,
    handle: ServerHandle,
    admin: Option<Admin>,
    keys: KeyRing,
    metrics: Metrics,
    tells_systemd: bool,
}

/// Tells a running server to stop or to reopen files. Cheap to clone; without effect when the server has ended.
#[derive(Clone, Debug)]
pub struct ServerHandle(EventSender<Event>);

#[derive(Debug)]
enum Event {
    Stop,
    Reopen,
}

/// How long lanes are waited for after an error.
const LANES_END: Duration = Duration::from_secs(2);

/// Requests that may wait for the server's main thread.
const EVENTS_MAX: usize = 16;

impl ServerHandle {
    /// Stops the server in good order: what was received is committed and acked, the lanes get `drain_timeout` to go on.
    /// A second call ends the wait for the lanes.
    pub fn stop(&self) {
        // With that many requests waiting, the server is stopping already or does so soon.
        drop(self.0.try_send(Event::Stop));
    }

    /// Lets every handler open its files anew, and reads the key file again: sessions go on, unless their client is revoked or
    /// has another key. A key file that is wrong is logged and counted, and the keys stay as they are.
    pub fn reopen(&self) {
        drop(self.0.try_send(Event::Reopen));
    }
}

impl Server {
    /// Opens the journal, recovers, and starts serving. On error nothing runs any more; the data directory is as
    /// [`OpenError`] says.
    pub fn start(
        config: Config,
        handlers: impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static,
    ) -> Result<Self, Error> {
        Self::start_on(Vec::new(), config, handlers)
    }

    /// On sockets that are bound already; if there are none, on those that the configuration names.
    fn start_on(
        bound: Vec<UdpSocket>,
        config: Config,
        handlers: impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static,
    ) -> Result<Self, Error> {
        let mut handlers: HandlerFactory = Box::new(handlers);
        config.validate()?;
        descriptors::provide(&config)?;
        let clock = SystemClock::start();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let keys = load_keys(&config)?;

        // The sockets come first: a port in use is known before anything is written, and what is sent while the journal
        // is being read waits in the kernel.
        let (sockets, udp) = sockets::open(&config, bound)?;
        let (opened, recovered) = open_journal(&config)?;
        let (end, low) = (opened.end, opened.low);
        tracing::info!(
            %low, %end, checkpoint = %opened.checkpoint_at, sessions = recovered.sessions.len(),
            seconds = clock.now().mono_us as f64 / 1e6, "journal recovered",
        );

        let token = config.admin.map(|_| admin_token(&config)).transpose()?;

        let marks = Progress::marks_for(&opened.lanes, config.lanes);
        let progress = Progress::new(end, marks, &metrics);
        let parts = LaneParts {
            progress: Arc::clone(&progress),
            journal: Arc::clone(&opened.reader),
            dead: Arc::clone(&opened.dead),
            metrics: metrics.clone(),
            config: LaneConfig { retry: retry_policy(&config), ..LaneConfig::default() },
            seed: rand::random(),
        };
        let Lanes { workers, fanout, control: lanes } = Lanes::build(&parts, &mut handlers)?;

        let sender = Sender::new(&sockets, metrics.clone())?;
        let config_of_committer = committer_config(&config, &keys);
        let mut committer =
            Committer::new(config_of_committer, recovered, opened.journal, sender, fanout, metrics.clone());
        // Before a sink writes a line, the journal knows its files and where their lines begin: only so can the next start
        // tell what a power cut has left of them.
        progress.request_checkpoint();
        committer.commit(&clock)?;
        let admission = admission(&config, keys.clone());
        let receivers =
            (0..).zip(sockets).map(|(index, socket)| Receiver::new(socket, index, admission.clone())).collect();

        let (events_in, events) = bounded(EVENTS_MAX);
        let handle = ServerHandle(events_in);
        let lane_ends = spawn_lanes(workers, clock)?;
        let (ingest, ingest_ended) = ingest::spawn(receivers, committer, threading(&config), clock, metrics.clone())?;

        let state = Arc::new(ServerState::new(
            udp.clone(),
            registry,
            ingest.status(),
            progress,
            opened.reader,
            opened.dead,
            lanes.clone(),
            keys.clone(),
        ));
        let mut server = Self {
            ready: Ready { udp, admin: None },
            state,
            clock,
            drain_timeout: config.drain_timeout,
            ingest,
            ingest_ended,
            lanes,
            lane_ends,
            events,
            handle,
            admin: None,
            keys,
            metrics,
            tells_systemd: false,
        };
        if let (Some(address), Some(token)) = (config.admin, token) {
            let state: Arc<dyn AdminState> = Arc::clone(&server.state) as Arc<dyn AdminState>;
            match Admin::start(address, &config, token, state) {
                Ok(admin) => {
                    server.ready.admin = Some(admin.address());
                    server.admin = Some(admin);
                }
                Err(source) => {
                    server.handle.stop();
                    server.wait()?;
                    return Err(Error::Bind { address, source });
                }
            }
        }
        tracing::info!(udp = ?server.ready.udp, admin = ?server.ready.admin, "serving");
        Ok(server)
    }

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
        let Self { state, clock, drain_timeout, ingest, lanes, lane_ends, events, admin, .. } = self;
        state.set_phase(Phase::Draining);
        tracing::info!("stopping: committing what was received");
        let stopped = ingest.stop();
        let result = served.and_then(|()| {
            let mut committer = stopped?;
            tracing::info!(end = %state.end(), "draining the lanes");
            drain(&lanes, &lane_ends, &events, clock, drain_timeout)?;
            committer.shut_down(&clock)?;
            Ok(())
        });
        if let Err(error) = &result {
            state.fail(error);
            end_lanes(&lanes, &lane_ends, clock);
        }
        drop(admin);
        result
    }

    /// Until someone says stop, or a part ends by itself.
    fn serve(&self) -> Result<(), Error> {
        loop {
            select! {
                recv(self.events) -> event => match event {
                    Ok(Event::Reopen) => self.reopen(),
                    Ok(Event::Stop) | Err(_) => return Ok(()),
                },
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

/// Lets the lanes process what is durable, until the deadline or a second request to stop.
fn drain(
    lanes: &LaneControl,
    ends: &Events<LaneEnd>,
    events: &Events<Event>,
    clock: SystemClock,
    timeout: Duration,
) -> Result<(), StorageError> {
    let timeout_us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
    lanes.drain(clock.now().mono_us.saturating_add(timeout_us));
    // A lane looks at its deadline between two calls of its handler; one that hangs is left behind.
    let patience = crossbeam_channel::after(timeout + Duration::from_secs(1));
    let mut second = events.clone();
    loop {
        select! {
            recv(ends) -> end => match end {
                Ok(LaneEnd { lane, drained }) => {
                    if !drained? {
                        tracing::warn!(%lane, "stopped before all was processed; the rest follows after the next start");
                    }
                }
                // All have ended.
                Err(_) => break,
            },
            recv(second) -> event => match event {
                Ok(Event::Stop) => {
                    tracing::warn!("told to stop again: not waiting for the lanes");
                    break;
                }
                Ok(_) => {}
                Err(_) => second = never(),
            },
            recv(patience) -> _ => {
                tracing::warn!("lanes are still busy at the deadline; what they have not finished follows after the next start");
                break;
            }
        }
    }
    Ok(())
}

/// After an error: lets the lanes stop where they are. One that is still at the database when the process ends would find
/// RocksDB torn down, and abort the process in place of its exit code.
fn end_lanes(lanes: &LaneControl, ends: &Events<LaneEnd>, clock: SystemClock) {
    lanes.drain(clock.now().mono_us);
    // A lane whose handler hangs is left behind.
    let patience = crossbeam_channel::after(LANES_END);
    loop {
        select! {
            recv(ends) -> end => if end.is_err() { return },
            recv(patience) -> _ => return,
        }
    }
}

fn load_keys(config: &Config) -> Result<KeyRing, KeyFileError> {
    let keys = config.keys.as_deref().map_or_else(|| Ok(KeyRing::none()), KeyRing::load)?;
    log_keys(&keys);
    Ok(keys)
}

fn log_keys(keys: &KeyRing) {
    if let (Some((summary, _)), Some(path)) = (keys.summary(), keys.path()) {
        tracing::info!(file = %path.display(), "keys in force: {summary}");
    }
}

/// The operator's, or the one that the data directory holds.
fn admin_token(config: &Config) -> Result<Token, TokenError> {
    config.admin_token_file.as_deref().map_or_else(|| Token::in_directory(&config.data), Token::read)
}

fn open_journal(config: &Config) -> Result<(Opened<RocksJournal>, ingest::Recovered), Error> {
    let options = RocksOptions {
        accept_loss: config.accept_loss,
        reserve_bytes: config.reserve_bytes,
        ..RocksOptions::default()
    };
    let mut recovery = Recovery::new(config.sessions_max);
    let opened = RocksJournal::open(&config.data, &options, &mut |replay| recovery.apply(replay))?;
    for damage in &opened.given_up {
        tracing::error!(%damage, "acked data was given up, as --accept-loss says");
    }
    let recovered = recovery.finish(&opened).map_err(|session| {
        let problem = format!("the record of session {session} is one that no session can have made");
        OpenError::Damaged(Damage::new(DamageKind::Record, DamagePlace::Database, problem))
    })?;
    Ok((opened, recovered))
}

fn admission(config: &Config, keys: KeyRing) -> Admission {
    let ranges = config.channels.ranges();
    let channels = (!ranges.is_empty()).then(|| ChannelSet::of(ranges.iter().cloned().flatten()));
    Admission { datagram_bytes_max: config.datagram_bytes_max, channels, keys, allow_plain: config.allow_plain }
}

fn committer_config(config: &Config, keys: &KeyRing) -> CommitterConfig {
    CommitterConfig {
        window: config.window,
        commit_bytes_max: config.commit_bytes_max,
        checkpoint_bytes: config.checkpoint_bytes,
        checkpoint_interval_us: u64::try_from(config.checkpoint_interval.as_micros()).unwrap_or(u64::MAX),
        retain_bytes: config.retain_bytes,
        reserve_bytes: config.reserve_bytes,
        session_ttl_s: config.session_ttl.as_secs(),
        sealed: !keys.is_none(),
    }
}

fn retry_policy(config: &Config) -> RetryPolicy {
    let config::Retry { attempts_max, first_delay, longest_delay } = config.retry;
    RetryPolicy { attempts_max, first_delay, longest_delay }
}

/// The one place where the default is chosen.
fn threading(config: &Config) -> Threading {
    match config.threading {
        config::Threading::Single => Threading::Single,
        config::Threading::Pipeline => Threading::Pipeline,
        config::Threading::Auto => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            if config.receivers > 1 || cores > 4 { Threading::Pipeline } else { Threading::Single }
        }
    }
}

impl Downstream for Fanout {
    fn committed(&mut self, receipt: &Durable) {
        if let Some(block) = receipt.block() {
            self.publish(block);
        }
    }

    fn marks(&self) -> Vec<LaneMark> {
        self.progress().marks()
    }

    fn take_checkpoint_request(&self) -> bool {
        self.progress().take_checkpoint_request()
    }
}
