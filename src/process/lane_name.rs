//! What names a lane to people: the sink that it is of, or its number among those of an embedded handler.

use std::fmt;
use std::sync::Arc;

use crate::metrics::LaneLabel;
use crate::model::{Lane, SinkId};

/// A lane, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneName {
    sink: Option<(SinkId, Arc<str>)>,
    lane: Lane,
}

impl LaneName {
    /// A lane of the configured sink with this id and name; or, without one, of an embedded handler.
    pub(super) fn new(sink: Option<(SinkId, &Arc<str>)>, lane: Lane) -> Self {
        Self { sink: sink.map(|(id, name)| (id, Arc::clone(name))), lane }
    }

    /// The sink that the lane is of.
    pub fn id(&self) -> SinkId {
        self.sink.as_ref().map_or(SinkId::EMBEDDED, |(id, _)| *id)
    }

    /// The name of the configured sink; `None` for an embedded handler.
    pub fn sink(&self) -> Option<&str> {
        self.sink.as_ref().map(|(_, name)| &**name)
    }

    /// Its number among the sink's lanes.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Its number as a log line gives it; `None` for a configured sink, which has one lane.
    pub(super) fn number(&self) -> Option<u16> {
        self.sink.is_none().then_some(self.lane.0)
    }

    /// Its label in metrics. An embedded handler has no name: to Prometheus an empty label is none.
    pub(super) fn label(&self) -> LaneLabel {
        LaneLabel { sink: self.sink().unwrap_or_default().to_owned(), lane: self.lane.0 }
    }

    /// The name of its thread, of which the system shows 15 bytes.
    pub(super) fn thread(&self) -> String {
        match self.sink() {
            None => format!("lane-{}", self.lane),
            Some(name) => {
                let shown = |c: char| if c.is_ascii_graphic() { c } else { '_' };
                format!("sink-{}", name.chars().take(10).map(shown).collect::<String>())
            }
        }
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sink() {
            None => write!(f, "lane {}", self.lane),
            Some(name) => write!(f, "sink {name}"),
        }
    }
}
