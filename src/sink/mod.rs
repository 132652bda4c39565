//! The handlers that ship with the server, named on the command line by `--sink`.
//!
//! | sink | a record is written | after a crash |
//! |---|---|---|
//! | `null` | nowhere | |
//! | `stdout` | as a line of JSON | at least once |
//! | `file:PATH` | as a line of JSON, synced before the watermark moves | exactly once |
//!
//! A PATH that is no regular file (a FIFO, a device) is written like `stdout`; what is for a FIFO that nobody reads waits
//! in the journal.
//! Exactly once holds while the server alone writes to the file; rotation by renaming and SIGHUP keeps it, as long as the
//! renamed file stays in its directory until the next checkpoint. A file that is deleted or replaced begins anew.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use self::file::FileSink;
use self::lines::{LineHandler, Output, Replay};
use self::null::Null;
pub(crate) use self::opening::Fifo;
use self::opening::open_without_waiting;
use self::recover::Recorded;
use crate::model::Lane;
use crate::process::{Handler, HandlerError, HandlerFactory, LaneStart};

mod composite;
mod file;
mod lines;
mod null;
mod opening;
mod pipe;
mod recover;
mod stream;

pub use composite::{COMPOSITE_MAX, Composite};

/// A sink as it is named on the command line and in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SinkSpec {
    /// `null`
    Null,
    /// `stdout`
    Stdout,
    /// `file:PATH`
    File(PathBuf),
}

impl SinkSpec {
    /// The FIFO that it names now; `None` for anything else.
    pub(crate) fn fifo(&self) -> Option<Fifo> {
        let Self::File(path) = self else { return None };
        Fifo::at(path)
    }
}

/// Why a text names no sink.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SinkSpecError {
    /// Nothing known.
    #[error("unknown sink \"{0}\": there are stdout, file:PATH and null")]
    Unknown(String),
    /// `file:` alone.
    #[error("sink \"file:\" lacks its path: write file:PATH, such as file:/var/log/duragram.ndjson")]
    NoPath,
    /// Its lines would be mixed up, or written twice.
    #[error("sink {0} is given twice")]
    Twice(String),
}

impl FromStr for SinkSpec {
    type Err = SinkSpecError;

    fn from_str(text: &str) -> Result<Self, SinkSpecError> {
        match (text, text.strip_prefix("file:")) {
            ("null", _) => Ok(Self::Null),
            ("stdout", _) => Ok(Self::Stdout),
            (_, Some("")) => Err(SinkSpecError::NoPath),
            (_, Some(path)) => Ok(Self::File(path.into())),
            (_, None) => Err(SinkSpecError::Unknown(text.to_owned())),
        }
    }
}

impl TryFrom<String> for SinkSpec {
    type Error = SinkSpecError;

    fn try_from(text: String) -> Result<Self, SinkSpecError> {
        text.parse()
    }
}

impl From<SinkSpec> for String {
    fn from(spec: SinkSpec) -> Self {
        spec.to_string()
    }
}

impl fmt::Display for SinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// Makes lanes that write every record to each of these sinks. They are opened when the first lane is made.
///
/// # Errors
/// A text names no sink, or the same one is named twice.
pub fn factory(specs: &[String]) -> Result<HandlerFactory, SinkSpecError> {
    let specs: Vec<SinkSpec> = specs.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    if let Some(n) = (1..specs.len()).find(|&n| specs[..n].contains(&specs[n])) {
        return Err(SinkSpecError::Twice(specs[n].to_string()));
    }
    let mut sinks = None;
    Ok(Box::new(move |start| {
        let sinks = match &mut sinks {
            Some(sinks) => sinks,
            None => sinks.insert(specs.iter().map(|spec| Sink::open(spec, start)).collect::<Result<Vec<_>, _>>()?),
        };
        let handlers = specs.iter().zip(sinks).map(|(spec, sink)| (spec.to_string(), sink.handler(start.lane)));
        Ok(Box::new(Composite::new(handlers.collect())?))
    }))
}

/// An open sink, which its lanes share.
enum Sink {
    Null,
    Lines { output: Arc<Mutex<dyn Output>>, replays: Vec<Option<Replay>> },
}

impl Sink {
    fn open(spec: &SinkSpec, start: &LaneStart<'_>) -> Result<Self, HandlerError> {
        let without_replay = |output| Self::Lines { output, replays: start.marks.iter().map(|_| None).collect() };
        match spec {
            SinkSpec::Null => Ok(Self::Null),
            SinkSpec::Stdout => Ok(without_replay(stream::stdout()?)),
            SinkSpec::File(path) if is_regular_or_new(path) => {
                let state =
                    |bytes: &Vec<u8>| serde_json::from_slice(&Composite::state_of(&spec.to_string(), bytes)?).ok();
                let known = if start.left.is_empty() { start.marks } else { start.left };
                let recorded = Recorded {
                    watermarks: start.marks.iter().map(|mark| mark.watermark).collect(),
                    states: known.iter().map(|mark| state(&mark.sink_state)).collect(),
                    durable_end: start.durable_end,
                };
                let (opened, replays) = recover::recover(path, &recorded)?;
                Ok(Self::Lines { output: Arc::new(Mutex::new(FileSink::new(path, opened))), replays })
            }
            SinkSpec::File(path) => {
                let out = open_without_waiting(path);
                let out = out.map_err(|error| HandlerError::new(format_args!("{}: {error}", path.display())))?;
                Ok(without_replay(stream::shared(path.display().to_string(), out, Some(path.clone()))?))
            }
        }
    }

    fn handler(&mut self, lane: Lane) -> Box<dyn Handler> {
        match self {
            Self::Null => Box::new(Null),
            Self::Lines { output, replays } => {
                let replay = replays.get_mut(usize::from(lane.0)).and_then(Option::take);
                Box::new(LineHandler::new(Arc::clone(output), replay))
            }
        }
    }
}

/// Whether exactly once can be had: what is neither there nor another kind of thing is made as a regular file.
fn is_regular_or_new(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

#[cfg(test)]
mod composite_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
