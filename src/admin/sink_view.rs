//! What the admin interface sees of sinks, and may ask of them.

use crate::model::{BacklogConfig, Offset, SinkRecord};

/// A sink as the server sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkView {
    /// What is kept of it on disk, as it is now.
    pub record: SinkRecord,
    /// The sink was in this state when it was looked at.
    pub state: SinkState,
    /// Since when it is up or down, in seconds since 1970; `None` where neither can be said of it.
    pub since_unix_s: Option<u64>,
    /// Why it does not go on, as long as it does not.
    pub reason: Option<String>,
    /// Bytes of the journal that it has not processed; `None` for one that is not configured.
    pub held_bytes: Option<u64>,
    /// How much it may hold, and what happens then; `None` for one that is not configured.
    pub backlog: Option<BacklogConfig>,
    /// New data is refused because of what it holds.
    pub blocks: bool,
}

/// A sink is in one of these states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SinkState {
    /// It takes records, or would if there were any.
    Up,
    /// It is away, or waits for room for its dead letters.
    Down,
    /// An operator has stopped it for a while.
    Paused,
    /// It held more than it may, and holds nothing until it is back.
    Detached,
    /// It does not run, and only keeps its place.
    NotConfigured,
}

impl SinkState {
    /// Returns the word by which operators know the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Paused => "paused",
            Self::Detached => "detached",
            Self::NotConfigured => "not configured",
        }
    }
}

/// What may be asked of a sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SinkChange {
    /// To stop for a while.
    Pause,
    /// To go on where it stopped.
    Resume,
    /// To go on at this offset, which is that of an entry kept, or the journal's end.
    Seek(Offset),
    /// To be forgotten: its place in the journal is nobody's any more.
    Remove,
}

/// The answer to a change, `None` as long as there is none: it is durable, or why nobody can say.
pub type SinkAnswer = Box<dyn FnMut() -> Option<Result<(), String>> + Send>;

/// Why a sink was not asked; each says so in a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SinkRefused {
    /// No sink has this name.
    Unknown(String),
    /// The journal knows the sink, and the configuration does not.
    NotConfigured(String),
    /// It takes no requests now.
    Busy(String),
}
