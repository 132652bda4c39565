//! Logs: to stderr, as text or JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Log, LogFormat, log_level};

/// Starts logging for the whole process. The filter was validated with the configuration.
pub(super) fn start(log: &Log) {
    let filter = log_level::normal(&log.level).ok().and_then(|level| EnvFilter::try_new(level).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info"));
    // By default a line that cannot be written is reported with `eprintln!`, which panics when stderr is closed: a log
    // collector that dies would take the server with it.
    let logs = fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    // An embedding program may have started its own logs already; they win.
    let _already_started = match log.format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
}
