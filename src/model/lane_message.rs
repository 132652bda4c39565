//! What processing has to say to the committer.

/// A message of a lane to the committer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneMessage {
    /// A checkpoint is wanted soon rather than by its own rhythm: a mark has moved to another file, or a dead letter that was
    /// processed at last waits to be deleted.
    Checkpoint,
}
