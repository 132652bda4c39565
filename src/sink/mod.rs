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

mod composite;
mod fifos;
mod file;
mod file_state;
mod lines;
mod name;
mod null;
mod opening;
mod pipe;
mod recover;
mod secret;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub use composite::{COMPOSITE_MAX, Composite};
pub(crate) use fifos::Fifos;
use file::FileSink;
use lines::{LineHandler, Output, Replay};
use null::Null;
use opening::open_without_waiting;
use recover::Recorded;

use crate::model::{Lane, SinkConfig, SinkTarget};
use crate::process::handler::{Handler, HandlerError, HandlerFactory, LaneStart};

/// Makes lanes that write every record to each of these sinks, none of which may stand in the list twice. They are opened
/// when the first lane is made.
pub fn factory(specs: Vec<SinkConfig>) -> HandlerFactory {
    factory_with(specs, Fifos::default())
}

/// Like [`factory`], with the list into which the sinks put the FIFOs that they write to.
pub(crate) fn factory_with(specs: Vec<SinkConfig>, fifos: Fifos) -> HandlerFactory {
    let mut sinks = None;
    Box::new(move |start| {
        let sinks = match &mut sinks {
            Some(sinks) => sinks,
            None => {
                sinks.insert(specs.iter().map(|spec| Sink::open(spec, start, &fifos)).collect::<Result<Vec<_>, _>>()?)
            }
        };
        let handlers = specs.iter().zip(sinks).map(|(spec, sink)| (spec.name.clone(), sink.handler(start.lane)));
        Ok(Box::new(Composite::new(handlers.collect())?))
    })
}

/// Makes the handler of one configured sink. One that writes to another system connects to nothing yet: that it is away must not
/// fail a start.
///
/// # Errors
/// A file cannot be opened, or holds something else than its state says.
pub fn handler(config: &SinkConfig, start: &LaneStart<'_>) -> Result<Box<dyn Handler>, HandlerError> {
    handler_with(config, start, &Fifos::default())
}

/// Like [`handler`], with the list into which the sinks put the FIFOs that they write to.
pub(crate) fn handler_with(
    config: &SinkConfig,
    start: &LaneStart<'_>,
    fifos: &Fifos,
) -> Result<Box<dyn Handler>, HandlerError> {
    match &config.target {
        SinkTarget::Null => Ok(Box::new(Null)),
        SinkTarget::Stdout => Ok(Box::new(LineHandler::new(stream::stdout((fifos, config.name.clone()))?, None))),
        SinkTarget::File(path) if is_regular_or_new(path) => {
            let known = if start.left.is_empty() { start.marks } else { start.left };
            let recorded = Recorded {
                watermarks: start.marks.iter().map(|mark| mark.watermark).collect(),
                states: known.iter().map(|mark| serde_json::from_slice(&mark.sink_state).ok()).collect(),
                durable_end: start.durable_end,
            };
            let (opened, replays) = recover::recover(path, &recorded)?;
            let replay = replays.into_iter().next().flatten();
            Ok(Box::new(LineHandler::new(Arc::new(Mutex::new(FileSink::new(path, opened))), replay)))
        }
        SinkTarget::File(path) => {
            let out = open_without_waiting(path);
            let out = out.map_err(|error| HandlerError::new(format_args!("{}: {error}", path.display())))?;
            let name = path.display().to_string();
            let output = stream::shared(name, out, Some(path.clone()), (fifos, config.name.clone()))?;
            Ok(Box::new(LineHandler::new(output, None)))
        }
        other => Err(HandlerError::new(format_args!("there is no sink of this kind yet: {other:?}"))),
    }
}

/// An open sink, which its lanes share.
enum Sink {
    Null,
    Lines { output: Arc<Mutex<dyn Output>>, replays: Vec<Option<Replay>> },
}

impl Sink {
    fn open(spec: &SinkConfig, start: &LaneStart<'_>, fifos: &Fifos) -> Result<Self, HandlerError> {
        let without_replay = |output| Self::Lines { output, replays: start.marks.iter().map(|_| None).collect() };
        match &spec.target {
            SinkTarget::Null => Ok(Self::Null),
            SinkTarget::Stdout => Ok(without_replay(stream::stdout((fifos, spec.name.clone()))?)),
            SinkTarget::File(path) if is_regular_or_new(path) => {
                let state = |bytes: &Vec<u8>| serde_json::from_slice(&Composite::state_of(&spec.name, bytes)?).ok();
                let known = if start.left.is_empty() { start.marks } else { start.left };
                let recorded = Recorded {
                    watermarks: start.marks.iter().map(|mark| mark.watermark).collect(),
                    states: known.iter().map(|mark| state(&mark.sink_state)).collect(),
                    durable_end: start.durable_end,
                };
                let (opened, replays) = recover::recover(path, &recorded)?;
                Ok(Self::Lines { output: Arc::new(Mutex::new(FileSink::new(path, opened))), replays })
            }
            SinkTarget::File(path) => {
                let out = open_without_waiting(path);
                let out = out.map_err(|error| HandlerError::new(format_args!("{}: {error}", path.display())))?;
                let name = path.display().to_string();
                Ok(without_replay(stream::shared(name, out, Some(path.clone()), (fifos, spec.name.clone()))?))
            }
            other => Err(HandlerError::new(format_args!("a sink of type {} needs a lane of its own", other.kind()))),
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
