//! What an operator asks of the configured sinks of a running server: to look at them, to stop one for a while, to let it go on
//! elsewhere, to forget it.
//!
//! Each request is durable before it is answered: the answer comes with the checkpoint that stores what it has changed.

use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::asked::{LaneCommand, Seek};
use super::cursor::Cursor;
use super::cursors::Cursors;
use super::progress::Progress;
use super::thread::{LaneControl, Lanes, NotAsked};
use crate::model::{BacklogConfig, Offset, SinkId, SinkRecord};

/// Looks at the sinks of a running server, and asks things of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SinkControl {
    cursors: Arc<Cursors>,
    lanes: LaneControl,
}

/// Comes when a request is durable. When it closes without an answer, the server has stopped, and whether the request was
/// fulfilled a look at the sinks tells after the next start. Wait with a timeout.
pub type SinkAnswer = Receiver<()>;

/// A sink as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkStatus {
    /// What is kept of it on disk, as it is now.
    pub record: SinkRecord,
    /// It is configured; else it only keeps its place.
    pub configured: bool,
    /// The journal's end: what lies from its mark up to here it has not processed.
    pub end: Offset,
    /// Bytes of the journal that it has not processed; `None` for one that is not configured.
    pub held_bytes: Option<u64>,
    /// How much it may hold, and what happens then; `None` for one that is not configured.
    pub backlog: Option<BacklogConfig>,
    /// It holds nearly as much as it may.
    pub is_near: bool,
    /// It holds so much that new data is refused.
    pub blocks: bool,
    /// When the oldest record arrived that it has taken and not made durable, in microseconds since 1970.
    pub oldest_unix_us: Option<u64>,
    /// It takes records; else it, or the room for its dead letters, is waited for.
    pub is_up: bool,
    /// Since when that is so, in seconds since 1970; `None` for one that is not configured, and before its first change.
    pub since_unix_s: Option<u64>,
}

/// Why a request was not taken. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SinkControlError {
    /// No sink has this name.
    #[error("there is no sink \"{name}\"; there are: {}", .known.join(", "))]
    Unknown {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// It keeps its place and does not run.
    #[error("sink \"{0}\" is not configured: it only keeps its place, until it is configured again or removed")]
    NotConfigured(String),
    /// It has ended, or has not answered earlier requests.
    #[error(transparent)]
    NotAsked(#[from] NotAsked),
}

impl SinkControl {
    /// Takes the lanes that operators are to control.
    pub fn new(lanes: &Lanes) -> Self {
        Self { cursors: Arc::clone(&lanes.cursors), lanes: lanes.control.clone() }
    }

    /// The configured sinks in the order of the configuration, then those that keep their place.
    pub fn list(&self) -> Vec<SinkStatus> {
        let end = self.cursors.durable_end();
        let configured = self.cursors.groups().iter().filter_map(|group| {
            let (record, cursor) = (group.record()?, group.cursor()?);
            Some(SinkStatus {
                record,
                configured: true,
                end,
                held_bytes: Some(cursor.held_bytes()),
                backlog: Some(cursor.backlog()),
                is_near: cursor.is_near(),
                blocks: cursor.blocks(),
                oldest_unix_us: cursor.oldest_unix_us(),
                is_up: cursor.metrics().up.get() != 0,
                since_unix_s: u64::try_from(cursor.metrics().changed.get()).ok().filter(|&since| since > 0),
            })
        });
        let gone = self.cursors.not_configured().into_iter().map(|record| SinkStatus {
            record,
            configured: false,
            end,
            held_bytes: None,
            backlog: None,
            is_near: false,
            blocks: false,
            oldest_unix_us: None,
            is_up: false,
            since_unix_s: None,
        });
        configured.chain(gone).collect()
    }

    /// Stops a sink until it is resumed, also over restarts. What it has been given is flushed; what it has not, waits in the
    /// journal within its bounds.
    ///
    /// # Errors
    /// No configured sink has this name.
    pub fn pause(&self, name: &str) -> Result<SinkAnswer, SinkControlError> {
        self.set_paused(name, true)
    }

    /// Lets a sink go on that was paused.
    ///
    /// # Errors
    /// No configured sink has this name.
    pub fn resume(&self, name: &str) -> Result<SinkAnswer, SinkControlError> {
        self.set_paused(name, false)
    }

    fn set_paused(&self, name: &str, paused: bool) -> Result<SinkAnswer, SinkControlError> {
        let sink = self.configured(name)?;
        if let Some(cursor) = sink.cursor() {
            cursor.set_paused(paused);
            tracing::warn!(sink = name, paused, "an operator has told the sink to stop, or to go on");
        }
        self.lanes.wake(sink.sink());
        Ok(self.cursors.ask())
    }

    /// Lets a sink go on at this offset, back or forward: at the lowest entry kept or the journal's end, if it is not between
    /// the two. Its handler is made anew, with what of its state is true elsewhere
    /// ([`Handler::moved`](super::Handler::moved)), when the call under way has returned. What it passes over by this is the
    /// operator's choice and no loss; what comes again, a target that knows its names takes once. Of several requests that come
    /// before the lane has time, the last counts, and all are answered with it.
    ///
    /// # Errors
    /// No configured sink has this name, or its lane takes no requests.
    pub fn seek(&self, name: &str, to: Offset) -> Result<SinkAnswer, SinkControlError> {
        let sink = self.configured(name)?;
        let (reply, answer) = bounded(1);
        let seek = Seek { to, cursors: Arc::clone(&self.cursors), replies: vec![reply] };
        self.lanes.send(sink.sink(), LaneCommand::Seek(seek))?;
        Ok(answer)
    }

    /// Whether nothing is done any more for the sink with this id: its place is taken away, and its lane has stopped. Until then
    /// it may make another dead letter.
    pub fn has_stopped(&self, sink: SinkId) -> bool {
        self.cursors.of(sink).is_none_or(|group| group.cursor().is_some_and(Cursor::has_stopped))
    }

    /// Takes a sink's place away, for good: it holds nothing any more, and the same name is another sink from then on. One that
    /// is configured stops, and begins as a new one at the next start.
    ///
    /// # Errors
    /// No sink has this name.
    pub fn remove(&self, name: &str) -> Result<SinkAnswer, SinkControlError> {
        match self.cursors.named(name) {
            Some(sink) => {
                sink.cursor().iter().for_each(|cursor| cursor.remove());
                self.lanes.wake(sink.sink());
            }
            None if self.cursors.forget(name) => {}
            None => return Err(self.unknown(name)),
        }
        tracing::warn!(sink = name, "an operator has removed the sink: its place in the journal is forgotten");
        Ok(self.cursors.ask())
    }

    fn configured(&self, name: &str) -> Result<&Arc<Progress>, SinkControlError> {
        self.cursors.named(name).ok_or_else(|| {
            let keeps_place = self.cursors.not_configured().iter().any(|record| record.name == name);
            if keeps_place { SinkControlError::NotConfigured(name.to_owned()) } else { self.unknown(name) }
        })
    }

    fn unknown(&self, name: &str) -> SinkControlError {
        let known = self.cursors.records().into_iter().map(|record| record.name).collect();
        SinkControlError::Unknown { name: name.to_owned(), known }
    }
}
