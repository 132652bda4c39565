//! The handlers that ship with the server, one for each configured sink.
//!
//! | sink | a record is written | after a crash |
//! |---|---|---|
//! | `null` | nowhere | |
//! | `stdout` | as a line of JSON | at least once |
//! | `file:PATH` | as a line of JSON, synced before the watermark moves | exactly once |
//! | `exec:COMMAND` | as a line of JSON to a child process, which answers | at least once |
//! | `mqtt` | as a message of QoS 1 to a broker | at least once |
//! | `nats` | as a message of a JetStream stream | exactly once on a stream of its own; else once within the stream's window |
//! | `redis` | as an entry of a stream of Redis or Valkey, its id the record's name | exactly once while the key lives |
//! | `postgres` | as a row of a table | exactly once, by a position in the rows' transaction |
//! | `http://HOST/PATH` | as a request, or as a line of one | at least once, under the same name |
//!
//! A PATH that is no regular file (a FIFO, a device) is written like `stdout`; what is for a FIFO that nobody reads waits
//! in the journal.
//! Exactly once holds while the server alone writes to the file; rotation by renaming and SIGHUP keeps it, as long as the
//! renamed file stays in its directory until the next checkpoint. A file that is deleted or replaced begins anew.

mod answer_body;
mod claim;
mod exec;
mod fifos;
mod file;
mod file_state;
mod http;
mod lines;
mod mqtt;
mod name;
mod nats;
mod null;
mod opening;
mod pipe;
mod position;
mod postgres;
mod recover;
mod redis;
mod secret;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub(crate) use fifos::Fifos;
use file::FileSink;
use http::HttpSink;
use lines::LineHandler;
use null::Null;
use opening::open_without_waiting;
use recover::Recorded;

use crate::model::{SinkConfig, SinkTarget};
use crate::process::handler::{Handler, HandlerError, LaneStart};

/// Makes the handler of one configured sink for one lane; in the server a sink has one lane. A handler that writes to another
/// system connects to nothing yet: that it is away must not fail a start.
///
/// # Errors
/// A file cannot be opened, or holds something else than its state says, or is to be written by several lanes.
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
            let [mark] = start.marks else {
                let problem = format_args!("{}: a file is written by one lane, not {}", path.display(), start.lanes());
                return Err(HandlerError::new(problem));
            };
            let known = if start.left.is_empty() { start.marks } else { start.left };
            let recorded = Recorded {
                watermark: mark.watermark,
                states: known.iter().map(|mark| serde_json::from_slice(&mark.sink_state).ok()).collect(),
                durable_end: start.durable_end,
            };
            let (opened, replay) = recover::recover(path, &recorded)?;
            Ok(Box::new(LineHandler::new(Arc::new(Mutex::new(FileSink::new(path, opened))), replay)))
        }
        SinkTarget::File(path) => {
            let out = open_without_waiting(path);
            let out = out.map_err(|error| HandlerError::new(format_args!("{}: {error}", path.display())))?;
            let name = path.display().to_string();
            let output = stream::shared(name, out, Some(path.clone()), (fifos, config.name.clone()))?;
            Ok(Box::new(LineHandler::new(output, None)))
        }
        SinkTarget::Exec(target) => Ok(Box::new(exec::Exec::new(config, target, start))),
        SinkTarget::Mqtt(target) => Ok(Box::new(mqtt::Mqtt::new(config, target, start)?)),
        SinkTarget::Nats(target) => Ok(Box::new(nats::NatsSink::new(config, target, start)?)),
        SinkTarget::Redis(target) => Ok(Box::new(redis::RedisSink::new(config, target, start)?)),
        SinkTarget::Postgres(target) => Ok(Box::new(postgres::Postgres::new(target, config.timeout, start)?)),
        SinkTarget::Http(target) => Ok(Box::new(HttpSink::new(target, config.timeout, start.journal)?)),
    }
}

/// Whether exactly once can be had: what is neither there nor another kind of thing is made as a regular file.
fn is_regular_or_new(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}
