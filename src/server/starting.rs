//! What the server is at while it starts, for those who wait: the admin interface, systemd, the log.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Error, systemd};
use crate::admin::{Admin, Starting, StartingAt, Token};
use crate::config::Config;
use crate::host::resources::Shortage;
use crate::journal::recovery::ReadProgress;

/// How far the start has come.
#[derive(Debug)]
pub(super) struct StartProgress {
    since: Instant,
    step: Mutex<String>,
    /// Of the journal, while that is being opened.
    pub(super) journal: Arc<ReadProgress>,
}

impl StartProgress {
    pub(super) fn new() -> Arc<Self> {
        let step = Mutex::new("preparing".to_owned());
        Arc::new(Self { since: Instant::now(), step, journal: Arc::default() })
    }

    /// Returns when the start began, so that waits can be measured from there.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// The next step, such as "reading the journal".
    pub(super) fn enter(&self, step: impl Into<String>) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step.into();
    }
}

impl Starting for StartProgress {
    fn at(&self) -> StartingAt {
        let step = self.step.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (bytes, bytes_total) = self.journal.bytes();
        StartingAt { step, bytes, bytes_total, seconds: self.since.elapsed().as_secs() }
    }
}

/// The operator's token; `None` when it is the one in the data directory.
pub(super) type KnownToken = Option<Arc<Token>>;

/// The admin interface, unless it is off, before there is anything to tell but the start; and the operator's token. The
/// one in the data directory is not read before that directory is known to be ours.
pub(super) fn begin_admin(config: &Config, start: &Arc<StartProgress>) -> Result<Option<(Admin, KnownToken)>, Error> {
    let Some(address) = config.admin else { return Ok(None) };
    let token = config.admin_token_file.as_deref().map(Token::read).transpose()?.map(Arc::new);
    let admin =
        Admin::begin(address, token.clone(), Arc::clone(start) as Arc<dyn Starting>).map_err(|source| match source
            .kind()
        {
            ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied => {
                Error::Bind { address, source }
            }
            _ => Shortage::new(format!("starting the admin interface on {address}"), source).into(),
        })?;
    Ok(Some((admin, token)))
}

/// The first report of a start that takes long,
const FIRST_REPORT: Duration = Duration::from_secs(1);
/// and the interval of further ones.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// By how much a report moves the time at which systemd gives the start up: from the report on.
const EXTENSION: Duration = Duration::from_secs(60);
/// A start that has not come further for so long hangs. Opening the database is one step that cannot be looked into, and
/// reads up to a few hundred megabytes.
const HANGS: Duration = Duration::from_secs(300);

/// Reports until it is dropped; nothing is told after that.
#[derive(Debug)]
pub(super) struct Report {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Report {
    fn drop(&mut self) {
        drop(self.end.take());
        // A panic of it is on stderr, and no reason to fail.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Starts a thread that logs every few seconds how far the start is. With `for_systemd` it tells systemd too, and makes that
/// wait longer as long as the start comes further.
pub(super) fn report(progress: Arc<StartProgress>, for_systemd: bool) -> Result<Report, Shortage> {
    let (end, ended) = bounded(0);
    let run = move || run(&progress, &ended, for_systemd);
    let started = thread::Builder::new().name("start-report".to_owned()).spawn(run);
    let report = |thread| Report { end: Some(end), thread: Some(thread) };
    started.map(report).map_err(|error: io::Error| Shortage::new("starting a thread", error))
}

fn run(progress: &StartProgress, ended: &Receiver<()>, for_systemd: bool) {
    let mut wait = FIRST_REPORT;
    let mut moved = (Instant::now(), None);
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = REPORT_EVERY;
        let at = progress.at();
        let mark = Some((at.step.clone(), at.bytes));
        if moved.1 != mark {
            moved = (Instant::now(), mark);
        }
        let hangs = moved.0.elapsed() > HANGS;
        tracing::info!(hangs, "still starting: {at}");
        if for_systemd {
            systemd::starting(&at.to_string(), (!hangs).then_some(EXTENSION));
        }
    }
}
