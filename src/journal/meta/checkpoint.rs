//! The checkpoint: where recovery starts, and how far lanes and sinks have come.

use rkyv::{Archive, Deserialize, Serialize};

use super::CHECKPOINT_KEY;
use super::sinks::{StoredSink, verify_sinks};
use crate::journal::envelope::{self, Record, RecordError};
use crate::model::{FormerLanes, LaneMark, Offset, SinkRecord};

/// Recovery starts from this state, and replays the blocks behind it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::journal) struct CheckpointState {
    /// The sessions' state includes every entry below.
    pub(in crate::journal) at: Offset,
    /// The lowest entry kept: the first of its block, or the journal's end.
    pub(in crate::journal) low: Offset,
    /// What the block at `low` repeats as the checksum of the block before it. Keeps the chain when nothing is kept.
    pub(in crate::journal) low_previous_checksum: u32,
    pub(in crate::journal) lanes: Vec<LaneMark>,
    pub(in crate::journal) former: Vec<FormerLanes>,
    pub(in crate::journal) sinks: Vec<SinkRecord>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredCheckpoint {
    at: u64,
    low: u64,
    low_previous_checksum: u32,
    lanes: Vec<StoredLane>,
    /// The watermarks of lanes of earlier runs, a list for each run.
    former: Vec<Vec<u64>>,
    sinks: Vec<StoredSink>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredLane {
    watermark: u64,
    sink_state: Vec<u8>,
}

/// As directories of format 3 have it.
#[derive(Archive, Serialize, Deserialize)]
struct StoredCheckpointV3 {
    at: u64,
    low: u64,
    low_previous_checksum: u32,
    marks: Vec<StoredMarkV3>,
    former: Vec<Vec<u64>>,
}

/// A mark of format 3, which had fields for more than any version wrote: `sink` and those from `sealed_end` to `mode` are always 0.
#[derive(Archive, Serialize, Deserialize)]
struct StoredMarkV3 {
    sink: u128,
    shard: u16,
    watermark: u64,
    sealed_end: Option<u64>,
    filter: u64,
    instance: u64,
    mode: u8,
    state: Vec<u8>,
}

/// As directories of format 1 and 2 have it.
#[derive(Archive, Serialize, Deserialize)]
struct StoredCheckpointV1 {
    at: u64,
    low: u64,
    low_previous_checksum: u32,
    lanes: Vec<StoredLane>,
}

/// The same, while lanes of another number had passed more than those of that day.
#[derive(Archive, Serialize, Deserialize)]
struct StoredCheckpointV2 {
    checkpoint: StoredCheckpointV1,
    /// The watermarks of lanes of earlier runs, a list for each run.
    former: Vec<Vec<u64>>,
}

impl Record for StoredCheckpoint {
    const VERSION: u32 = 4;
}
impl Record for StoredCheckpointV1 {
    const VERSION: u32 = 1;
}
impl Record for StoredCheckpointV2 {
    const VERSION: u32 = 2;
}
impl Record for StoredCheckpointV3 {
    const VERSION: u32 = 3;
}

impl CheckpointState {
    /// Makes the value that stands under [`CHECKPOINT_KEY`].
    pub(in crate::journal) fn encode(&self) -> Vec<u8> {
        let stored = StoredCheckpoint {
            at: self.at.0,
            low: self.low.0,
            low_previous_checksum: self.low_previous_checksum,
            lanes: self.stored_lanes(),
            former: self.stored_former(),
            sinks: self.sinks.iter().map(StoredSink::from).collect(),
        };
        envelope::encode(CHECKPOINT_KEY, &stored)
    }

    fn stored_lanes(&self) -> Vec<StoredLane> {
        let lane = |lane: &LaneMark| StoredLane { watermark: lane.watermark.0, sink_state: lane.sink_state.clone() };
        self.lanes.iter().map(lane).collect()
    }

    fn stored_former(&self) -> Vec<Vec<u64>> {
        self.former.iter().map(|lanes| lanes.0.iter().map(|offset| offset.0).collect()).collect()
    }

    /// The value as a directory of format 3 has it, which knows no sinks.
    #[cfg(test)]
    pub(in crate::journal) fn encode_for_format_3(&self) -> Vec<u8> {
        let mark = |(shard, lane): (u16, &LaneMark)| StoredMarkV3 {
            sink: 0,
            shard,
            watermark: lane.watermark.0,
            sealed_end: None,
            filter: 0,
            instance: 0,
            mode: 0,
            state: lane.sink_state.clone(),
        };
        let stored = StoredCheckpointV3 {
            at: self.at.0,
            low: self.low.0,
            low_previous_checksum: self.low_previous_checksum,
            marks: (0..).zip(&self.lanes).map(mark).collect(),
            former: self.stored_former(),
        };
        envelope::encode(CHECKPOINT_KEY, &stored)
    }

    /// The value as a directory of format 2 has it.
    #[cfg(test)]
    pub(in crate::journal) fn encode_for_format_2(&self) -> Vec<u8> {
        let checkpoint = StoredCheckpointV1 {
            at: self.at.0,
            low: self.low.0,
            low_previous_checksum: self.low_previous_checksum,
            lanes: self.stored_lanes(),
        };
        match self.former.is_empty() {
            true => envelope::encode(CHECKPOINT_KEY, &checkpoint),
            false => {
                let former = self.stored_former();
                envelope::encode(CHECKPOINT_KEY, &StoredCheckpointV2 { checkpoint, former })
            }
        }
    }
}

/// The checkpoint of a directory of any format that this program reads.
pub(super) fn decode_checkpoint(value: &[u8]) -> Result<CheckpointState, RecordError> {
    match envelope::version(value) {
        Some(StoredCheckpointV1::VERSION) => Ok(of_lanes(envelope::decode(CHECKPOINT_KEY, value)?, Vec::new())),
        Some(StoredCheckpointV2::VERSION) => {
            let StoredCheckpointV2 { checkpoint, former } = envelope::decode(CHECKPOINT_KEY, value)?;
            Ok(of_lanes(checkpoint, former))
        }
        Some(StoredCheckpointV3::VERSION) => {
            let stored: StoredCheckpointV3 = envelope::decode(CHECKPOINT_KEY, value)?;
            let StoredCheckpointV3 { at, low, low_previous_checksum, marks, former } = stored;
            let lanes = (0..).zip(marks).map(|(shard, mark)| mark.of_lane(shard)).collect::<Result<_, _>>()?;
            Ok(of_lanes(StoredCheckpointV1 { at, low, low_previous_checksum, lanes }, former))
        }
        _ => {
            let stored: StoredCheckpoint = envelope::decode(CHECKPOINT_KEY, value)?;
            let StoredCheckpoint { at, low, low_previous_checksum, lanes, former, sinks } = stored;
            let sinks: Vec<_> = sinks.into_iter().map(SinkRecord::from).collect();
            verify_sinks(&sinks).map_err(RecordError::Malformed)?;
            let state = of_lanes(StoredCheckpointV1 { at, low, low_previous_checksum, lanes }, former);
            Ok(CheckpointState { sinks, ..state })
        }
    }
}

impl StoredMarkV3 {
    /// As the mark of the lane with this number.
    fn of_lane(self, lane: u16) -> Result<StoredLane, RecordError> {
        let malformed = |what: &str| Err(RecordError::Malformed(what.into()));
        match self {
            Self { sink, .. } if sink != 0 => malformed("a mark of a sink that this program does not know"),
            Self { shard, .. } if shard != lane => malformed("the marks of a sink's shards are not in their order"),
            Self { sealed_end: None, filter: 0, instance: 0, mode: 0, watermark, state, .. } => {
                Ok(StoredLane { watermark, sink_state: state })
            }
            Self { .. } => malformed("a mark of a kind that this program does not know"),
        }
    }
}

fn of_lanes(stored: StoredCheckpointV1, former: Vec<Vec<u64>>) -> CheckpointState {
    let lane = |lane: StoredLane| LaneMark { watermark: Offset(lane.watermark), sink_state: lane.sink_state };
    let former = former.into_iter().map(|watermarks| FormerLanes(watermarks.into_iter().map(Offset).collect()));
    CheckpointState {
        at: Offset(stored.at),
        low: Offset(stored.low),
        low_previous_checksum: stored.low_previous_checksum,
        lanes: stored.lanes.into_iter().map(lane).collect(),
        former: former.collect(),
        sinks: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
