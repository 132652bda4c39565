//! What the journal keeps of a sink's file, so that the next start finds the lines that were written since.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

use crate::process::handler::HandlerError;

/// Names a file, whatever its path is by now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl FileId {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }
}

/// A position in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct FilePosition {
    #[serde(flatten)]
    pub(super) id: FileId,
    /// The bytes before it, all of which were synced.
    pub(super) len: u64,
}

/// What the journal keeps with a lane's watermark: the lane's lines from there on lie in this file beyond this length.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct FileState {
    #[serde(flatten)]
    pub(super) first: FilePosition,
    /// Or they lie behind these positions: where each of several lanes was that have written to the file together before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) also: Vec<FilePosition>,
}

impl FileState {
    pub(super) fn at(id: FileId, len: u64) -> Self {
        Self { first: FilePosition { id, len }, also: Vec::new() }
    }

    /// Every position behind which the lane's lines may lie.
    pub(super) fn positions(&self) -> impl Iterator<Item = FilePosition> {
        [self.first].into_iter().chain(self.also.iter().copied())
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, HandlerError> {
        serde_json::to_vec(self).map_err(HandlerError::new)
    }
}
