//! The journal: what is in here survives a power cut.
//!
//! [`Journal`] is the small trait behind which the storage sits: [`rocks`] on disk, [`memory`] for tests and the
//! simulator, with faults. Entries go in as blocks, one per group commit, in the format of [`block`].
//! This module knows nothing of sockets, sessions' rules or handlers.

use std::sync::Arc;

use duragram_proto::Seq;

use crate::types::{Offset, SessionId};

pub mod block;
pub mod memory;
pub mod rocks;

pub use block::{Block, BlockBuilder, Entry, EntryKind};

/// Proof that a commit is on disk. Only this module can make one; acks are made from it alone.
#[derive(Debug)]
pub struct Durable {
    block: Option<Arc<Block>>,
    end: Offset,
}

impl Durable {
    /// The block that was committed, if the commit held entries.
    pub fn block(&self) -> Option<&Arc<Block>> {
        self.block.as_ref()
    }

    /// Every entry below is durable.
    pub fn end(&self) -> Offset {
        self.end
    }
}

/// A session as it is kept on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionRecord {
    /// Whose.
    pub id: SessionId,
    /// Every seq up to here is accounted for.
    pub floor: Seq,
    /// Bit i of word w stands for seq `floor + 1 + 64 w + i`. No trailing zero words.
    pub above: Vec<u64>,
    /// When its last datagram came, in seconds of service (the time that the server has run, over all its runs).
    pub last_active_s: u64,
    /// Of the HELLO that opened it.
    pub hello_nonce: Option<u64>,
}

/// How far a lane has come, as it is kept on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneMark {
    /// Every entry of the lane below is processed, and its sink has made that durable.
    pub watermark: Offset,
    /// What the lane's sink needs to find out after a crash which later records it already has. Opaque here.
    pub sink_state: Vec<u8>,
}

/// What one synced batch writes so that recovery starts from it and older blocks can go.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// The sessions' state includes every entry below.
    pub at: Offset,
    /// Sessions touched since the last checkpoint.
    pub sessions: Vec<SessionRecord>,
    /// Sessions that expired.
    pub expired: Vec<SessionId>,
    /// One for each lane, in lane order. Their number is the number of lanes.
    pub lanes: Vec<LaneMark>,
    /// Blocks that lie wholly below may be deleted. Never above `at` nor the lowest watermark.
    pub trim_below: Offset,
}

/// The storage of the journal. One writer: `&mut self`.
pub trait Journal: Send {
    /// The offset that the next entry gets.
    fn end(&self) -> Offset;

    /// The receipt for everything that is durable now.
    fn durable(&self) -> Durable;

    /// Writes a block and session records in one batch and syncs it; returns the receipt when all of it is durable.
    ///
    /// `block` may be empty (session records only). It is emptied and made ready for the next block.
    /// On error nothing may be acked any more, ever: the state on disk is unknown and the journal refuses further writes.
    fn commit(&mut self, block: &mut BlockBuilder, sessions: &[SessionRecord]) -> Result<Durable, StorageError>;

    /// Writes a checkpoint, synced, and deletes what it allows. Errors are final as in `commit`.
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError>;

    /// Bytes free on the file system for this process, for the reserve.
    fn free_bytes(&self) -> Result<u64, StorageError>;
}

/// Reading committed blocks beside the writer: for lanes that fell behind and for `tail`.
pub trait ReadJournal: Send + Sync {
    /// Committed blocks in order, the first being the one that holds `from` (or the lowest one kept, when `from` was
    /// trimmed); stops after at least one block once `bytes_max` is reached. Empty when nothing at or above `from` is
    /// committed.
    fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Arc<Block>>, StorageError>;
}

/// The storage failed. Whether the last write is on disk is unknown; the journal is poisoned.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{action}: {cause}")]
pub struct StorageError {
    /// What was attempted, such as "commit of the block at offset 7".
    pub action: String,
    /// What the storage said.
    pub cause: String,
}
