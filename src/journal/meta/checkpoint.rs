//! The checkpoint: where recovery starts, and how far each shard of each sink has come.

use rkyv::{Archive, Deserialize, Serialize};

use super::CHECKPOINT_KEY;
use crate::journal::envelope::{self, Record, RecordError};
use crate::model::{FormerLanes, LaneMark, Offset};

/// The sink whose shards are the lanes.
const LANES: u128 = 0;
/// A mark that holds what its shard has not processed.
const HOLDING: u8 = 0;

/// What recovery starts from.
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
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredCheckpoint {
    at: u64,
    low: u64,
    low_previous_checksum: u32,
    marks: Vec<StoredMark>,
    /// The watermarks of lanes of earlier runs, a list for each run.
    former: Vec<Vec<u64>>,
}

/// How far one shard of a sink has come. The table in [`super`] says what each field means.
#[derive(Archive, Serialize, Deserialize)]
struct StoredMark {
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
    lanes: Vec<StoredLaneV1>,
}

/// The same, while lanes of another number had passed more than those of that day.
#[derive(Archive, Serialize, Deserialize)]
struct StoredCheckpointV2 {
    checkpoint: StoredCheckpointV1,
    /// The watermarks of lanes of earlier runs, a list for each run.
    former: Vec<Vec<u64>>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredLaneV1 {
    watermark: u64,
    sink_state: Vec<u8>,
}

impl Record for StoredCheckpoint {
    const VERSION: u32 = 3;
}
impl Record for StoredCheckpointV1 {
    const VERSION: u32 = 1;
}
impl Record for StoredCheckpointV2 {
    const VERSION: u32 = 2;
}

impl CheckpointState {
    /// The value under [`CHECKPOINT_KEY`].
    pub(in crate::journal) fn encode(&self) -> Vec<u8> {
        let mark = |(shard, lane): (u16, &LaneMark)| StoredMark {
            sink: LANES,
            shard,
            watermark: lane.watermark.0,
            sealed_end: None,
            filter: 0,
            instance: 0,
            mode: HOLDING,
            state: lane.sink_state.clone(),
        };
        let stored = StoredCheckpoint {
            at: self.at.0,
            low: self.low.0,
            low_previous_checksum: self.low_previous_checksum,
            marks: (0..).zip(&self.lanes).map(mark).collect(),
            former: self.stored_former(),
        };
        envelope::encode(CHECKPOINT_KEY, &stored)
    }

    fn stored_former(&self) -> Vec<Vec<u64>> {
        self.former.iter().map(|lanes| lanes.0.iter().map(|offset| offset.0).collect()).collect()
    }

    /// The value as a directory of format 2 has it.
    #[cfg(test)]
    pub(in crate::journal) fn encode_for_format_2(&self) -> Vec<u8> {
        let lane = |lane: &LaneMark| StoredLaneV1 { watermark: lane.watermark.0, sink_state: lane.sink_state.clone() };
        let checkpoint = StoredCheckpointV1 {
            at: self.at.0,
            low: self.low.0,
            low_previous_checksum: self.low_previous_checksum,
            lanes: self.lanes.iter().map(lane).collect(),
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
        _ => {
            let stored: StoredCheckpoint = envelope::decode(CHECKPOINT_KEY, value)?;
            Ok(CheckpointState {
                at: Offset(stored.at),
                low: Offset(stored.low),
                low_previous_checksum: stored.low_previous_checksum,
                lanes: (0..).zip(stored.marks).map(|(shard, mark)| mark.of_lane(shard)).collect::<Result<_, _>>()?,
                former: former_lanes(stored.former),
            })
        }
    }
}

impl StoredMark {
    /// As the mark of the lane with this number.
    fn of_lane(self, lane: u16) -> Result<LaneMark, RecordError> {
        let malformed = |what: &str| Err(RecordError::Malformed(what.into()));
        match self {
            Self { sink, .. } if sink != LANES => malformed("a mark of a sink that this program does not know"),
            Self { shard, .. } if shard != lane => malformed("the marks of a sink's shards are not in their order"),
            Self { sealed_end: None, filter: 0, instance: 0, mode: HOLDING, watermark, state, .. } => {
                Ok(LaneMark { watermark: Offset(watermark), sink_state: state })
            }
            Self { .. } => malformed("a mark of a kind that this program does not know"),
        }
    }
}

fn of_lanes(stored: StoredCheckpointV1, former: Vec<Vec<u64>>) -> CheckpointState {
    let lane = |lane: StoredLaneV1| LaneMark { watermark: Offset(lane.watermark), sink_state: lane.sink_state };
    CheckpointState {
        at: Offset(stored.at),
        low: Offset(stored.low),
        low_previous_checksum: stored.low_previous_checksum,
        lanes: stored.lanes.into_iter().map(lane).collect(),
        former: former_lanes(former),
    }
}

fn former_lanes(former: Vec<Vec<u64>>) -> Vec<FormerLanes> {
    former.into_iter().map(|watermarks| FormerLanes(watermarks.into_iter().map(Offset).collect())).collect()
}

#[cfg(test)]
mod tests;
