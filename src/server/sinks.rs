//! The configured sinks of a server: which of them the journal knows, where each goes on, and which may not go on at all.
//!
//! A sink is known by its name, and goes on at its mark. What is known by a name must still write to the same place and take the
//! same channels ([`identity`]); else what its mark says would be said of something else. A directory in which all sinks went on
//! together, as lanes, is taken over: each sink goes on from the marks that they shared, with the state that was its own.

mod identity;
mod shared_state;
#[cfg(test)]
mod tests;

use crate::config::Config;
use crate::limits;
use crate::model::{BatchConfig, FormerLanes, LaneMark, Offset, SinkConfig, SinkId, SinkRecord, SinkStart, SinkTarget};
use crate::process::{Answering, LaneConfig, Renumbered};
use crate::server::parts::lane_config;
pub(super) use identity::identity;
use shared_state::state_of;

/// Why the configured sinks cannot go on in this journal. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SinkRefusal {
    /// The journal knows the name as that of a sink that writes to another place, or takes other channels.
    #[error(
        "sink \"{name}\" has come to entry {at} in what it wrote to before, and is configured to write to another place or to \
         take other channels now: give it a new name, or configure it as before, or forget its place with \
         `duragram sink remove {name}` while the server runs without it"
    )]
    Changed {
        /// The configuration gives this name to the sink.
        name: String,
        /// Where it would go on.
        at: Offset,
    },
    /// Two sinks of the configuration have the same name.
    #[error("two sinks are named \"{0}\": a name is one place in the journal, so give each its own")]
    Twice(String),
    /// A short form is too long to be a name, or cannot be shown.
    #[error(
        "sink \"{0}\" cannot be named by its short form, since a name is 1 to {max} bytes of text without control characters: \
         configure it as [[sink]] with a name",
        max = limits::SINK_NAME_BYTES
    )]
    Unnamable(String),
    /// The journal would have to remember too many.
    #[error(
        "{configured} sinks are configured and {kept} others keep their place, and a journal remembers {max}: forget those that \
         are not needed any more with `duragram sink remove NAME`",
        max = limits::SINKS_REMEMBERED
    )]
    TooMany {
        /// The configuration names so many sinks.
        configured: usize,
        /// How many others the journal knows.
        kept: usize,
    },
}

/// What a journal knows of processing when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The sinks that were configured.
    pub sinks: &'a [SinkRecord],
    /// The lanes of an embedded handler, or of an older journal, in which all sinks went on together.
    pub lanes: &'a [LaneMark],
    /// The lanes of runs before.
    pub former: &'a [FormerLanes],
    /// Entries below are trimmed, and not in the journal any more.
    pub low: Offset,
    /// The next entry gets this offset.
    pub end: Offset,
    /// The number of this start.
    pub instance: u64,
}

/// Where a configured sink goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// What is kept of it.
    pub record: SinkRecord,
    /// It has one lane, which goes on from here.
    pub renumbered: Renumbered,
}

/// Where each configured sink goes on, in their order, and the sinks that are not configured any more. Public for the
/// simulator, whose server starts as the real one does; a new sink has a random id.
///
/// # Errors
/// One of them may not go on. Nothing has changed.
pub fn plan(configs: &[SinkConfig], known: Known<'_>) -> Result<(Vec<Planned>, Vec<SinkRecord>), SinkRefusal> {
    if let Some(n) = (1..configs.len()).find(|&n| configs[..n].iter().any(|other| other.name == configs[n].name)) {
        return Err(SinkRefusal::Twice(configs[n].name.clone()));
    }
    let is_name =
        |name: &str| (1..=limits::SINK_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    if let Some(config) = configs.iter().find(|config| !is_name(&config.name)) {
        return Err(SinkRefusal::Unnamable(config.name.escape_debug().collect()));
    }
    let is_configured = |record: &&SinkRecord| configs.iter().any(|config| config.name == record.name);
    let gone: Vec<SinkRecord> = known.sinks.iter().filter(|record| !is_configured(record)).cloned().collect();
    if configs.len() + gone.len() > limits::SINKS_REMEMBERED {
        return Err(SinkRefusal::TooMany { configured: configs.len(), kept: gone.len() });
    }
    let planned = configs.iter().map(|config| go_on(config, known)).collect::<Result<_, _>>()?;
    Ok((planned, gone))
}

fn go_on(config: &SinkConfig, known: Known<'_>) -> Result<Planned, SinkRefusal> {
    let identity = identity(config);
    if let Some(record) = known.sinks.iter().find(|record| record.name == config.name) {
        if record.identity != identity {
            return Err(SinkRefusal::Changed { name: record.name.clone(), at: record.mark.watermark });
        }
        // A crash may have cut an operator's seek short, to what was being trimmed.
        let mark = LaneMark { watermark: record.mark.watermark.max(known.low), ..record.mark.clone() };
        let (marks, former) = (vec![mark], record.former.clone());
        let renumbered = Renumbered { marks, left: Vec::new(), former };
        return Ok(Planned { record: record.clone(), renumbered });
    }
    let renumbered = match shared_marks(config, known) {
        Some(marks) => Renumbered::of(&marks, known.former.to_vec(), 1),
        None => {
            let watermark = begin(config.start, known);
            let marks = vec![LaneMark { watermark, sink_state: Vec::new() }];
            Renumbered { marks, ..Renumbered::default() }
        }
    };
    let (id, mark) = (SinkId(rand::random()), renumbered.marks[0].clone());
    let record = SinkRecord {
        former: renumbered.former.clone(),
        ..SinkRecord::new(id, &config.name, identity, mark, known.instance)
    };
    Ok(Planned { record, renumbered })
}

/// Of a journal in which all sinks went on together: the marks of the lanes, with this sink's own state in each; `None` when
/// it was none of them.
fn shared_marks(config: &SinkConfig, known: Known<'_>) -> Option<Vec<LaneMark>> {
    if !known.sinks.is_empty() {
        return None;
    }
    let short_form = match &config.target {
        SinkTarget::Null => Some("null".to_owned()),
        SinkTarget::Stdout => Some("stdout".to_owned()),
        SinkTarget::File(path) => Some(format!("file:{}", path.display())),
        _ => None,
    };
    let names = [Some(config.name.clone()), short_form];
    let state = |mark: &LaneMark| names.iter().flatten().find_map(|name| state_of(name, &mark.sink_state));
    known.lanes.iter().any(|mark| state(mark).is_some()).then(|| {
        let mark = |mark: &LaneMark| LaneMark { sink_state: state(mark).unwrap_or_default(), ..*mark };
        known.lanes.iter().map(mark).collect()
    })
}

/// Where a new sink begins. In a journal in which all sinks went on together it takes all that is there: what none of those has
/// processed must not be lost with them.
fn begin(start: SinkStart, known: Known<'_>) -> Offset {
    match start {
        SinkStart::Now if known.sinks.is_empty() && !known.lanes.is_empty() => known.low,
        SinkStart::Oldest => known.low,
        SinkStart::Now => known.end,
        SinkStart::At(offset) => offset.clamp(known.low, known.end.max(known.low)),
    }
}

/// How the lane of a sink batches, retries and answers.
pub(super) fn lane_config_of(config: &Config, sink: &SinkConfig) -> LaneConfig {
    let mut lane = lane_config(config);
    let BatchConfig { records_max, bytes_max, delay_max } = sink.batch;
    (lane.batch_records_max, lane.batch_bytes_max, lane.batch_delay) = (records_max, bytes_max, delay_max);
    if sink.attempts_max > 0 {
        lane.retry.attempts_max = sink.attempts_max;
    }
    lane.answering = match config.answers_by() {
        _ if config.asks_max == 0 => Answering::Nothing,
        Some(name) if name == sink.name => Answering::Bodies,
        Some(_) => Answering::Nothing,
        None => Answering::Receipts,
    };
    lane
}
