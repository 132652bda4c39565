//! The start: sockets, journal, recovery, processing and threads, in the order in which each can rest on the one before.

use std::net::UdpSocket;
use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::{Owner, Ready, Server, journal_source, signals, sockets, starting};
use crate::admin::{Admin, AdminState, Token};
use crate::commit::{self, Committer};
use crate::config::{Config, memory};
use crate::dialect::Dialect as _;
use crate::dialect::duragram::{Admission, Duragram};
use crate::host::resources::{self, Shortage};
use crate::journal::{Journal, RocksJournal};
use crate::metrics::Metrics;
use crate::model::{Clock as _, SystemClock};
use crate::net::{Receiver, Sender};
use crate::process::{Handler, HandlerError, LaneStart, Lanes, SinkControl, spawn_lanes};
use crate::server::error::Error;
use crate::server::journal_source::{DataDirectory, JournalSource};
use crate::server::parts::{admission, committer_config, dialect_config, load_keys, threading};
use crate::server::processing::Processing;
use crate::server::requests::requests;
use crate::server::starting::StartProgress;
use crate::server::state::ServerState;
use crate::server::stop::end_lanes;
use crate::server::waiting::Waiting;

impl Server<RocksJournal> {
    /// Opens the journal in the data directory, recovers, and starts serving. On error nothing runs any more; the data
    /// directory is as [`OpenError`](crate::journal::OpenError) says.
    pub fn start(
        config: Config,
        handlers: impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static,
    ) -> Result<Self, Error> {
        Self::start_with(DataDirectory, config, handlers)
    }
}

impl<J: Journal + 'static> Server<J> {
    /// The same on another journal.
    pub fn start_with(
        source: impl JournalSource<Journal = J>,
        config: Config,
        handlers: impl FnMut(&LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> + Send + 'static,
    ) -> Result<Self, Error> {
        let processing = Processing::Embedded(Box::new(handlers));
        Self::start_on(source, Vec::new(), config, processing, Owner::Program)
    }

    /// On sockets that are bound already; if there are none, on those that the configuration names.
    pub(super) fn start_on(
        source: impl JournalSource<Journal = J>,
        bound: Vec<UdpSocket>,
        config: Config,
        processing: Processing,
        owner: Owner,
    ) -> Result<Self, Error> {
        config.validate()?;
        resources::provide(&memory::needs(&config))?;
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
        let dialect = Duragram::new(dialect_config(&config, &keys), metrics.clone());
        let (opened, recovered) = journal_source::open(source, &config, &start, dialect)?;
        let (end, low) = (opened.end, opened.low);
        tracing::info!(
            %low, %end, checkpoint = %opened.checkpoint_at, sessions = recovered.dialect.sessions(),
            seconds = clock.now().mono_us as f64 / 1e6, "journal recovered",
        );

        let token = match known_token {
            Some(None) => Some(Arc::new(Token::in_directory(&config.data)?)),
            known => known.flatten(),
        };

        start.enter(processing.step());
        let waiting = Waiting::new(processing.fifos());
        let lanes = processing.build(&config, &opened, &waiting, &metrics)?;
        let sinks = SinkControl::new(&lanes);
        let Lanes { workers, fanout, control: lanes, cursors } = lanes;

        start.enter("writing the first checkpoint");
        let sender = Sender::new(&sockets, metrics.clone())
            .map_err(|error| Shortage::new("opening sockets for replies", error))?;
        let at_work: Vec<_> = if keys.is_none() { Vec::new() } else { recovered.dialect.sealed_sessions().collect() };
        let committing = committer_config(&config);
        let mut committer = Committer::new(committing, recovered, opened.journal, sender, fanout, metrics.clone());
        // Before a sink writes a line, the journal knows its files and where their lines begin: only so can the next start
        // tell what a power cut has left of them.
        cursors.want_checkpoint();
        committer.commit_checkpoint(&clock)?;
        let admission = admission(&config, keys.clone());
        let receiver = |(index, socket)| {
            let mut admission = Admission::new(admission.clone());
            admission.expect(&at_work);
            (Receiver::new(socket, index), admission)
        };
        let receivers = (0..).zip(sockets).map(receiver).collect();

        let (handle, requests) = requests();
        if owner == Owner::Process {
            // From the first record that is processed on, a stop is one in good order.
            signals::forward(handle.clone());
        }
        let no_thread = |error| Shortage::new("starting the threads of the server", error);
        let asks = committer.ask_control();
        let lane_ends = spawn_lanes(workers, clock).map_err(no_thread)?;
        let spawned = commit::spawn(receivers, committer, threading(&config), clock, metrics.clone());
        let (ingest, ingest_ended) = spawned.map_err(|error| {
            drop(end_lanes(&lanes, &lane_ends, clock));
            no_thread(error)
        })?;

        let state = Arc::new(ServerState::new(
            udp.clone(),
            start.since(),
            registry,
            ingest.status(),
            asks,
            cursors,
            opened.reader,
            opened.dead,
            lanes.clone(),
            sinks,
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
}
