//! What processing has to say to the committer.

use super::LaneAnswer;

/// A message of a lane to the committer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneMessage {
    /// A checkpoint is wanted soon rather than by its own rhythm: a mark has moved to another file, or a dead letter that was
    /// processed at last waits to be deleted.
    Checkpoint,
    /// Records that asked are finished. A lane says so before its watermark moves beyond them.
    Answers(Vec<LaneAnswer>),
    /// A sink that holds the journal has moved its watermark beyond an ask, which may be what its answer waits for.
    Processed,
}
