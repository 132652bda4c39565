//! The journal: what is in here survives a power cut.
//!
//! [`Journal`] is the small trait behind which the storage sits. Entries go in as blocks, one for each group commit, in the
//! format of [`block`]. This module knows nothing of sockets, of sessions' rules or of handlers.
//!
//! | part | what it does |
//! |---|---|
//! | [`block`], `meta`, `dead_letter` | the formats of what is stored, in an `envelope` and under a `mask` |
//! | [`recovery`] | verifies all that a journal holds, and decides what a start does with it, for any storage |
//! | `store` | commits, trims, reads back, keeps dead letters: over any database |
//! | `rocksdb` | the database on disk: settings, opening, what RocksDB does not tell by itself, going on after an accepted loss; [`inspect`] looks at a journal that no server has open |
//! | `directory` | what lies beside the database: lock, marker, witness, and whether all of it stays where it is |
//! | [`testing`] | a journal in memory, with faults, and a simulated disk under the code that stands on RocksDB |

use std::sync::Arc;

use crate::model::{ClientRecord, FormerLanes, Instance, JournalId, LaneMark, Offset, SessionId, SessionRecord};

pub mod block;
mod dead_letter;
mod directory;
mod envelope;
mod error;
mod mask;
mod meta;
pub mod recovery;
mod rocksdb;
mod store;
pub mod testing;

pub use block::{Block, BlockBuilder, BlockError};
pub use dead_letter::{DeadLetter, DeadLetterId, DeadLetterRoom, DeadLetters, NoRoom};
pub(crate) use directory::has_no_links;
pub use error::{Damage, DamageKind, DamagePlace, OpenError, StorageError};
pub use meta::Loss;
pub use rocksdb::database::RocksOptions;
pub use rocksdb::inspect;
pub use store::RocksJournal;

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

/// What a commit writes beside its block; each record takes the place of the one before it.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Sessions that must be durable as they are before they are answered.
    pub sessions: Vec<SessionRecord>,
    /// Clients whose epochs must be.
    pub clients: Vec<ClientRecord>,
    /// Sessions whose records are taken away, before those above are put.
    pub given_up: Vec<SessionId>,
    /// The limit below which the server's counter may go (PROTOCOL.md#sealed-server-counter).
    pub counter_limit: Option<u64>,
}

impl Records {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.clients.is_empty() && self.given_up.is_empty() && self.counter_limit.is_none()
    }
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
    /// Of earlier runs whose number of lanes was another, the oldest first.
    pub former: Vec<FormerLanes>,
    /// Dead letters that were processed at last, as the lanes' sink states say: they are deleted.
    pub retried: Vec<DeadLetterId>,
    /// Blocks that lie wholly below may be deleted. Never above `at` nor the lowest watermark.
    pub trim_below: Offset,
}

impl Checkpoint {
    /// What keeps a wrong caller from deleting what is still needed; the journal refuses such a checkpoint.
    fn verify(&self, end: Offset) -> Result<(), String> {
        let Self { at, trim_below, .. } = self;
        if *at > end {
            return Err(format!("it claims entries that are not durable: the journal ends at {end}"));
        }
        if trim_below > at {
            return Err(format!("it would trim up to {trim_below}, above itself"));
        }
        match self.lanes.iter().map(|lane| lane.watermark).min() {
            Some(lowest) if *trim_below > lowest => {
                Err(format!("it would trim up to {trim_below}, above the lowest watermark {lowest}"))
            }
            _ => Ok(()),
        }
    }
}

/// The storage of the journal. One writer: `&mut self`.
pub trait Journal: Send {
    /// The offset that the next entry gets.
    fn end(&self) -> Offset;

    /// The receipt for everything that is durable now.
    fn durable(&self) -> Durable;

    /// Writes a block, records and a checkpoint in one batch and syncs it; returns the receipt when all of it is durable. Then what the checkpoint allows is deleted.
    ///
    /// `block` may be empty. It is emptied and made ready for the next block. The checkpoint may include its entries.
    /// On error nothing may be acked any more, ever: the state on disk is unknown and the journal refuses further writes.
    fn write(
        &mut self,
        block: &mut BlockBuilder,
        records: &Records,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Durable, StorageError>;

    /// Writes a block and sessions.
    fn commit(&mut self, block: &mut BlockBuilder, sessions: &[SessionRecord]) -> Result<Durable, StorageError> {
        self.write(block, &Records { sessions: sessions.to_vec(), ..Records::default() }, None)
    }

    /// Writes a checkpoint alone.
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StorageError> {
        self.write(&mut BlockBuilder::default(), &Records::default(), Some(checkpoint)).map(drop)
    }

    /// Bytes free on the file system for this process, for the reserve; `u64::MAX` where the file system does not tell.
    fn free_bytes(&self) -> Result<u64, StorageError>;

    /// Why nothing more can be written, found out beside the writer: by the thread that looks after the files.
    fn failure(&self) -> Option<StorageError> {
        None
    }
}

/// Reading committed blocks beside the writer: for lanes that fell behind and for `tail`.
pub trait ReadJournal: Send + Sync {
    /// Committed blocks in order, the first being the one that holds `from` (or the lowest one kept, when `from` was
    /// trimmed); stops after at least one block once `bytes_max` is reached. Empty when nothing at or above `from` is
    /// committed.
    fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Arc<Block>>, StorageError>;

    /// Where a reader that has come to `at` goes on: `at` itself, unless an operator has given up the entries from there on
    /// (`accept_loss`) or all that was below; then the first offset after them.
    fn resume(&self, at: Offset) -> Offset {
        at
    }

    /// Which journal it is, if it has a name.
    fn id(&self) -> Option<JournalId> {
        None
    }

    /// Which start of the journal this is, where they are counted.
    fn instance(&self) -> Option<Instance> {
        None
    }
}

/// What opening a journal hands to the session code, in this order: the records of the last checkpoint, then every block
/// that holds an entry from the checkpoint's offset on. Entries may be in the sessions' state already: applying one twice
/// must change nothing.
#[derive(Debug)]
pub enum Replay<'a> {
    /// A session as the last checkpoint or a later commit wrote it.
    Session(SessionRecord),
    /// The epochs of a client in sealed mode.
    Client(ClientRecord),
    /// The limit of the server's counter that was stored last.
    CounterLimit(u64),
    /// The next block, verified.
    Block(&'a Block),
}

/// A journal that was opened, and what is known of it.
pub struct Opened<J> {
    /// For the one writer.
    pub journal: J,
    /// For everyone who reads committed blocks.
    pub reader: Arc<dyn ReadJournal>,
    /// For the lanes and the operator.
    pub dead: Arc<dyn DeadLetters>,
    /// The lanes of the last checkpoint; none before the first.
    pub lanes: Vec<LaneMark>,
    /// Those of earlier runs, as the last checkpoint has them.
    pub former: Vec<FormerLanes>,
    /// The offset of the last checkpoint.
    pub checkpoint_at: Offset,
    /// The lowest entry kept.
    pub low: Offset,
    /// The offset that the next entry gets.
    pub end: Offset,
    /// All blocks from `low` to `end`, summed up.
    pub extents: Vec<Extent>,
    /// What was given up because the operator accepted it (`accept_loss`). To be logged.
    pub given_up: Vec<Damage>,
}

/// Neighbouring blocks, summed up: whole blocks until they come to [`EXTENT_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first entry of the first block.
    pub first: Offset,
    /// Bytes of the blocks.
    pub bytes: u64,
}

/// Bytes of blocks that make up one [`Extent`], so that a journal's summary takes 16 bytes of memory for each mebibyte.
pub const EXTENT_BYTES: u64 = 1 << 20;

impl Extent {
    /// Adds the block that follows.
    fn add(extents: &mut Vec<Self>, block: &Block) {
        match extents.last_mut() {
            Some(last) if last.bytes < EXTENT_BYTES => last.bytes += block.size() as u64,
            _ => extents.push(Self { first: block.first(), bytes: block.size() as u64 }),
        }
    }
}
