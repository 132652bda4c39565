//! The server as a whole: the one place that wires concrete types together and starts threads.
//!
//! [`run`] is `duragram serve`. To embed the server with a [`Handler`] of your own, use
//! [`run_with`], as `examples/embed.rs` does in 30 lines, or [`Server::start`] to keep signals to yourself.

mod requests;
mod signals;
mod sockets;
mod starting;
mod state;
mod stop;
mod systemd;
#[cfg(test)]
mod tests;
mod waiting;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver as Events, select};
use prometheus_client::registry::Registry;

use crate::admin::{Admin, AdminState, Phase, Token, TokenError};
use crate::commit::{self, Committer, CommitterConfig, Downstream, Ingest, IngestError, Never, Recovery, Threading};
use crate::config::{self, Config};
use crate::file_modes;
use crate::journal::{
    Damage, DamageKind, DamagePlace, DeadLetterId, DeadLetterRoom, Durable, OpenError, Opened, StorageError,
};
use crate::journal::{RocksJournal, RocksOptions};
use crate::keys::{KeyFileError, KeyRing};
use crate::metrics::Metrics;
use crate::model::{ChannelSet, Clock, FormerLanes, LaneMark, LaneMessage, SinkSpec, SinkSpecError, SystemClock};
use crate::net::{Admission, Receiver, Sender};
use crate::process::{
    Fanout, Handler, HandlerError, HandlerFactory, LaneConfig, LaneControl, LaneEnd, LaneParts, LaneStart, Lanes,
    Progress, RetryPolicy, spawn_lanes,
};
use crate::resources;
pub use crate::resources::Shortage;
pub use crate::server::requests::ServerHandle;
use crate::server::requests::{Requests, requests};
use crate::server::starting::StartProgress;
use crate::server::state::ServerState;
use crate::server::stop::{drain, end_lanes};
use crate::server::waiting::Waiting;
use crate::sink::{self, Fifos};

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
    /// The storage failed, or what it holds is damaged, as its [`damage`](StorageError::damage) says. Nothing was acked that is
    /// not on disk.
    #[error("{what}{0}", what = if .0.damage.is_some() { "" } else { "storage failed: " })]
    Storage(#[from] StorageError),
    /// The system does not grant what is needed.
    #[error(transparent)]
    Short(#[from] Shortage),
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
            Self::Token(_) | Self::Open(_) | Self::Bind { .. } | Self::Handler(_) => 1,
            Self::Short(_) | Self::System(_) => 1,
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

/// Takes the process's signals from here on: SIGTERM and SIGINT end it at once, SIGHUP is kept for the server. [`run`] does
/// the same; a program calls this in the first line of `main` when it does other things before that.
///
/// # Errors
/// The system gives no thread, or no file descriptors.
pub fn hold_signals() -> Result<(), Error> {
    Ok(signals::hold()?)
}

/// Runs a server with the configured sinks until SIGTERM, SIGINT or an error; README.md has what each signal does. `ready` is
/// called when datagrams are accepted.
///
/// After `Ok` everything acked is on disk, and so is how far processing has come.
pub fn run(config: Config, ready: impl FnOnce(&Ready)) -> Result<(), Error> {
    let fifos = Fifos::default();
    let handlers = sink::factory_with(SinkSpec::parse_all(&config.sink)?, fifos.clone());
    run_on(config, handlers, fifos, ready)
}

/// The same with handlers of your own; `config.sink` is not looked at. For the main thread of a program that is the server
/// alone: signals, sockets that systemd has bound, and what systemd is told are the process's.
pub fn run_with(
    config: Config,
    handlers: impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static,
    ready: impl FnOnce(&Ready),
) -> Result<(), Error> {
    run_on(config, Box::new(handlers), Fifos::default(), ready)
}

fn run_on(config: Config, handlers: HandlerFactory, fifos: Fifos, ready: impl FnOnce(&Ready)) -> Result<(), Error> {
    file_modes::keep_ours_private();
    // The program has done so before it had threads; another one's main thread comes here first.
    crate::signal_mask::prepare(true);
    hold_signals()?;
    let server = Server::start_on(systemd::sockets()?, config, handlers, Waiting::new(fifos), Owner::Process)?;
    if let Err(error) = systemd::watch(server.ingest.pulse()) {
        server.handle.stop();
        server.wait()?;
        return Err(Shortage::new("starting the watchdog's thread", error).into());
    }
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
    requests: Requests,
    handle: ServerHandle,
    admin: Option<Admin>,
    keys: KeyRing,
    metrics: Metrics,
    tells_systemd: bool,
}

/// Whose the server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    /// The process is the server and nothing else: signals and systemd concern it.
    Process,
    /// A program that has the server beside other things.
    Program,
}

impl Server {
    /// Opens the journal, recovers, and starts serving. On error nothing runs any more; the data directory is as
    /// [`OpenError`] says.
    pub fn start(
        config: Config,
        handlers: impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static,
    ) -> Result<Self, Error> {
        Self::start_on(Vec::new(), config, Box::new(handlers), Waiting::new(Fifos::default()), Owner::Program)
    }

    /// On sockets that are bound already; if there are none, on those that the configuration names.
    fn start_on(
        bound: Vec<UdpSocket>,
        config: Config,
        handlers: HandlerFactory,
        waiting: Arc<Waiting>,
        owner: Owner,
    ) -> Result<Self, Error> {
        let mut handlers = Arc::clone(&waiting).watch(handlers);
        config.validate()?;
        resources::provide(&config)?;
        let clock = SystemClock::start();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let start = StartProgress::new();
        // Reports until this function returns.
        let _report = starting::report(Arc::clone(&start), owner == Owner::Process)?;
        let keys = load_keys(&config)?;

        // The sockets come first: a port in use is known before anything is written, and what is sent while the journal
        // is being read waits in the kernel. So does the admin interface: whoever watches the server learns what it is at.
        let (sockets, udp) = sockets::open(&config, bound)?;
        let (admin, known_token) = starting::begin_admin(&config, &start)?.unzip();
        start.enter("reading the journal");
        let (opened, recovered) = open_journal(&config, &start)?;
        let (end, low) = (opened.end, opened.low);
        tracing::info!(
            %low, %end, checkpoint = %opened.checkpoint_at, sessions = recovered.sessions.len(),
            seconds = clock.now().mono_us as f64 / 1e6, "journal recovered",
        );

        let token = match known_token {
            Some(None) => Some(Arc::new(Token::in_directory(&config.data)?)),
            known => known.flatten(),
        };

        let progress = Progress::resume(end, &opened.lanes, opened.former, config.lanes, &metrics);
        let parts = LaneParts {
            progress: Arc::clone(&progress),
            journal: Arc::clone(&opened.reader),
            dead: Arc::clone(&opened.dead),
            metrics: metrics.clone(),
            config: lane_config(&config),
            seed: rand::random(),
        };
        start.enter(format!("opening the sinks ({})", config.sink.join(", ")));
        let Lanes { workers, fanout, control: lanes } = Lanes::build(&parts, &mut handlers)?;

        start.enter("writing the first checkpoint");
        let sender = Sender::new(&sockets, metrics.clone())
            .map_err(|error| Shortage::new("opening sockets for replies", error))?;
        let config_of_committer = committer_config(&config, &keys);
        let at_work: Vec<_> = if keys.is_none() { Vec::new() } else { recovered.sessions.sealed().collect() };
        let mut committer =
            Committer::new(config_of_committer, recovered, opened.journal, sender, fanout, metrics.clone());
        // Before a sink writes a line, the journal knows its files and where their lines begin: only so can the next start
        // tell what a power cut has left of them.
        let _asked_for_already = progress.mailbox().post(LaneMessage::Checkpoint);
        committer.commit(&clock)?;
        let admission = admission(&config, keys.clone());
        let receiver = |(index, socket)| {
            let mut receiver = Receiver::new(socket, index, admission.clone());
            receiver.expect(&at_work);
            receiver
        };
        let receivers = (0..).zip(sockets).map(receiver).collect();

        let (handle, requests) = requests();
        if owner == Owner::Process {
            // From the first record that is processed on, a stop is one in good order.
            signals::forward(handle.clone());
        }
        let no_thread = |error| Shortage::new("starting the threads of the server", error);
        let lane_ends = spawn_lanes(workers, clock).map_err(no_thread)?;
        let spawned = commit::spawn(receivers, committer, threading(&config), clock, metrics.clone());
        let (ingest, ingest_ended) = spawned.map_err(|error| {
            end_lanes(&lanes, &lane_ends, clock);
            no_thread(error)
        })?;

        let state = Arc::new(ServerState::new(
            udp.clone(),
            start.since(),
            registry,
            ingest.status(),
            progress,
            opened.reader,
            opened.dead,
            lanes.clone(),
            keys.clone(),
            waiting,
        ));
        for reason in state.waiting() {
            tracing::warn!("serving, and waiting: {reason}");
        }
        if let (Some(admin), Some(token)) = (&admin, token) {
            admin.open(&config, token, Arc::clone(&state) as Arc<dyn AdminState>);
        }
        let ready = Ready { udp, admin: admin.as_ref().map(Admin::address) };
        tracing::info!(udp = ?ready.udp, admin = ?ready.admin, "serving");
        Ok(Self {
            ready,
            state,
            clock,
            drain_timeout: config.drain_timeout,
            ingest,
            ingest_ended,
            lanes,
            lane_ends,
            requests,
            handle,
            admin,
            keys,
            metrics,
            tells_systemd: owner == Owner::Process,
        })
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
        let Self { state, clock, drain_timeout, ingest, lanes, lane_ends, requests, admin, .. } = self;
        state.set_phase(Phase::Draining);
        tracing::info!("stopping: committing what was received");
        let stopped = ingest.stop();
        let result = served.and_then(|()| {
            let mut committer = stopped?;
            tracing::info!(end = %state.end(), "draining the lanes");
            drain(&lanes, &lane_ends, &requests.stop, clock, drain_timeout)?;
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

fn open_journal(config: &Config, start: &StartProgress) -> Result<(Opened<RocksJournal>, commit::Recovered), Error> {
    let options = RocksOptions {
        accept_loss: config.accept_loss,
        reserve_bytes: config.reserve_bytes,
        progress: Arc::clone(&start.journal),
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
    Admission {
        datagram_bytes_max: config.datagram_bytes_max,
        channels,
        keys,
        allow_plain: config.allow_plain,
        sessions_max: config.sessions_max,
    }
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

fn lane_config(config: &Config) -> LaneConfig {
    let config::Retry { attempts_max, first_delay, longest_delay } = config.retry;
    let retry = RetryPolicy { attempts_max, first_delay, longest_delay };
    let dead_letter_room = DeadLetterRoom { letters_max: config.dead_letters_max, reserve_bytes: config.reserve_bytes };
    LaneConfig { retry, dead_letter_room, ..LaneConfig::default() }
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

    fn next_message(&mut self) -> Option<LaneMessage> {
        self.progress().mailbox().take()
    }

    fn wake_by(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        self.progress().mailbox().wake_by(wake);
    }

    fn former(&self, marks: &[LaneMark]) -> Vec<FormerLanes> {
        self.progress().former(marks)
    }

    fn retried(&self) -> Vec<DeadLetterId> {
        self.progress().retried()
    }

    fn checkpointed(&mut self, retried: &[DeadLetterId]) {
        self.progress().checkpointed(retried);
    }
}
