//! The configured sinks as a checkpoint keeps them, and what is no such list.

use std::collections::BTreeSet;

use rkyv::{Archive, Deserialize, Serialize};

use crate::limits::{SINK_LOSSES, SINK_NAME_BYTES, SINKS_REMEMBERED};
use crate::model::{FormerLanes, LaneMark, Offset, SinkId, SinkLoss, SinkRecord};

/// A sink, in the order of the fields that the table in [`super`] explains.
#[derive(Archive, Serialize, Deserialize)]
pub(super) struct StoredSink {
    id: u128,
    name: String,
    identity: u64,
    watermark: u64,
    state: Vec<u8>,
    instance: u64,
    holds: bool,
    paused: bool,
    losses: Vec<StoredSinkLoss>,
    untold: Option<(u64, u64)>,
    former: Vec<Vec<u64>>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredSinkLoss {
    from: u64,
    to: u64,
    entries: u64,
    unix_us: u64,
}

impl From<&SinkRecord> for StoredSink {
    fn from(sink: &SinkRecord) -> Self {
        let loss = |loss: &SinkLoss| StoredSinkLoss {
            from: loss.from.0,
            to: loss.to.0,
            entries: loss.entries,
            unix_us: loss.unix_us,
        };
        Self {
            id: sink.id.0,
            name: sink.name.clone(),
            identity: sink.identity,
            watermark: sink.mark.watermark.0,
            state: sink.mark.sink_state.clone(),
            instance: sink.instance,
            holds: sink.holds,
            paused: sink.paused,
            losses: sink.losses.iter().map(loss).collect(),
            untold: sink.untold.map(|(from, to)| (from.0, to.0)),
            former: sink.former.iter().map(|lanes| lanes.0.iter().map(|offset| offset.0).collect()).collect(),
        }
    }
}

impl From<StoredSink> for SinkRecord {
    fn from(stored: StoredSink) -> Self {
        let loss = |loss: StoredSinkLoss| SinkLoss {
            from: Offset(loss.from),
            to: Offset(loss.to),
            entries: loss.entries,
            unix_us: loss.unix_us,
        };
        Self {
            id: SinkId(stored.id),
            name: stored.name,
            identity: stored.identity,
            mark: LaneMark { watermark: Offset(stored.watermark), sink_state: stored.state },
            instance: stored.instance,
            holds: stored.holds,
            paused: stored.paused,
            losses: stored.losses.into_iter().map(loss).collect(),
            untold: stored.untold.map(|(from, to)| (Offset(from), Offset(to))),
            former: stored
                .former
                .into_iter()
                .map(|lanes| FormerLanes(lanes.into_iter().map(Offset).collect()))
                .collect(),
        }
    }
}

/// Whether a checkpoint may keep these sinks. Asked before they are written, so that none is written that is damage to the next start,
/// and again when they are read.
pub(in crate::journal) fn verify_sinks(sinks: &[SinkRecord]) -> Result<(), String> {
    if sinks.len() > SINKS_REMEMBERED {
        return Err(format!("{} sinks, of {SINKS_REMEMBERED} that may be remembered", sinks.len()));
    }
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    for SinkRecord { id, name, losses, .. } in sinks {
        if *id == SinkId::EMBEDDED {
            return Err("a sink with the id of the embedded handler".into());
        }
        if name.is_empty() || name.len() > SINK_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(format!("the name of sink {id} is not printable text of 1 to {SINK_NAME_BYTES} bytes"));
        }
        if !ids.insert(id) || !names.insert(name) {
            return Err(format!("sink {id}, `{name}`, is there twice by its id or its name"));
        }
        if losses.len() > SINK_LOSSES {
            return Err(format!("{} losses of sink `{name}`, of {SINK_LOSSES} that may be remembered", losses.len()));
        }
        if losses.iter().any(|loss| loss.from >= loss.to || !(1..=loss.to.since(loss.from)).contains(&loss.entries)) {
            return Err(format!("a loss of sink `{name}` that is no run of entries"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
