//! The journal: what is in here survives a power cut.
//!
//! [`Journal`] is the small trait behind which the storage sits. Entries go in as blocks, one for each group commit, in the
//! format of [`block`]. This module knows nothing of sockets, of sessions' rules or of handlers.
//!
//! | part | what it does |
//! |---|---|
//! | [`block`], `meta`, `dead_letter` | the formats of what is stored, in an `envelope` and under a `mask` |
//! | [`recovery`] | verifies all that a journal holds, and decides what a start does with it, for any storage |
//! | `store` | writer, reader, dead letters and housekeeping: over any database |
//! | `rocksdb` | the database on disk: settings, opening, what RocksDB does not tell by itself, going on after an accepted loss; [`inspect`] looks at a journal that no server has open |
//! | `directory` | what lies beside the database: lock, marker, witness, and whether all of it stays where it is |
//! | [`testing`] | a journal in memory, with faults, and a simulated disk under the code that stands on RocksDB |

use std::sync::Arc;
use std::{io, mem};

use crate::model::{
    AnswersRecord, AskId, AskRecord, ClientRecord, DurabilityLevel, FormerLanes, Instance, JournalId, LaneMark, Offset,
    SessionId, SessionRecord, SinkRecord,
};

pub mod block;
mod database;
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

pub use crate::model::{DeadLetter, DeadLetterId};
pub use block::{Block, BlockBuilder, BlockError};
pub use dead_letter::{DeadLetterRoom, DeadLetters, LetterCounts, NoRoom};
pub use error::{Damage, DamageKind, DamagePlace, JournalError, OpenError, StorageError};
pub use meta::Loss;
pub use rocksdb::RocksJournal;
pub use rocksdb::inspect;
pub use rocksdb::settings::RocksOptions;

/// The receipt of a commit: proof that it is durable. Only this module can make one; acks are made from it alone.
#[derive(Debug)]
pub struct Durable {
    block: Option<Arc<Block>>,
    end: Offset,
    level: DurabilityLevel,
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

    /// How safe these entries are: acks say so.
    pub fn level(&self) -> DurabilityLevel {
        self.level
    }
}

/// What is made durable together or not at all.
#[derive(Debug, Default)]
pub struct Commit {
    /// The entries, in order. May be empty.
    pub block: BlockBuilder,
    /// What is written beside them.
    pub records: Records,
    /// A checkpoint that may include the entries of this commit and of all before it.
    pub checkpoint: Option<Checkpoint>,
}

impl Commit {
    /// About how many bytes it writes, without its checkpoint.
    fn size(&self) -> usize {
        self.block.size() + self.records.answers_bytes()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty() && self.records.is_empty() && self.checkpoint.is_none()
    }
}

/// A commit that has become durable.
#[derive(Debug)]
pub struct Landed {
    /// Stands for the commit and for all that were appended before it.
    pub receipt: Durable,
    /// Empty, and ready for another block.
    pub block: BlockBuilder,
}

/// Whether a journal has room for new data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// There is room for new data.
    Enough {
        /// Bytes that may still be written, where that is known.
        free_bytes: Option<u64>,
    },
    /// It is full, or less is free than is kept in reserve: new data is to be refused until it answers otherwise.
    Full {
        /// Bytes that may still be written, where that is known.
        free_bytes: Option<u64>,
    },
}

impl Room {
    /// The answer of a journal that knows what is free; `u64::MAX` stands for a file system that does not tell.
    fn of(free_bytes: u64, reserve_bytes: u64) -> Self {
        let known = (free_bytes < u64::MAX).then_some(free_bytes);
        match free_bytes < reserve_bytes {
            true => Self::Full { free_bytes: known },
            false => Self::Enough { free_bytes: known },
        }
    }

    /// Whether new data is to be refused.
    pub fn is_full(self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Bytes that may still be written, where that is known.
    pub fn free_bytes(self) -> Option<u64> {
        let (Self::Enough { free_bytes } | Self::Full { free_bytes }) = self;
        free_bytes
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
    /// These answers become durable with the commit.
    pub answers: Option<AnswersRecord>,
    /// Asks as they are now: a part of a checkpoint.
    pub asks: Vec<AskRecord>,
    /// Asks whose records are taken away, before those above are put.
    pub forgotten: Vec<AskId>,
}

impl Records {
    /// Whether there is no record to write beside the block.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.clients.is_empty()
            && self.given_up.is_empty()
            && self.counter_limit.is_none()
            && self.answers.is_none()
            && self.asks.is_empty()
            && self.forgotten.is_empty()
    }

    /// About how many bytes the answers take when they are stored: of these records those that may be many in any commit.
    fn answers_bytes(&self) -> usize {
        self.answers.as_ref().map_or(0, AnswersRecord::size)
    }
}

/// What one synced batch writes so that recovery starts from it and older blocks can go.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// The sessions' state includes every entry below.
    pub at: Offset,
    /// Sessions touched since the last checkpoint.
    pub sessions: Vec<SessionRecord>,
    /// These sessions have expired, and their records are deleted.
    pub expired: Vec<SessionId>,
    /// Of the embedded handler: one for each lane, in lane order. Their number is the number of lanes; none with sinks.
    pub lanes: Vec<LaneMark>,
    /// Of earlier runs whose number of lanes was another, the oldest first.
    pub former: Vec<FormerLanes>,
    /// The configured sinks, and those that were configured once and not removed: at most
    /// [`SINKS_REMEMBERED`](crate::limits::SINKS_REMEMBERED), each with its own id and its own name.
    pub sinks: Vec<SinkRecord>,
    /// Dead letters that were processed at last, as the states of lanes and sinks say: they are deleted.
    pub retried: Vec<DeadLetterId>,
    /// The records of asks include every [`AnswersRecord`] with a number below: these are deleted.
    pub answers_below: u64,
    /// Blocks that lie wholly below may be deleted. Never above `at` nor the lowest watermark of a lane or of a sink that holds.
    pub trim_below: Offset,
}

impl Checkpoint {
    /// What keeps a wrong caller from deleting what is still needed, and from writing what the next start would take for damage; the
    /// journal refuses such a checkpoint.
    fn verify(&self, end: Offset) -> Result<(), String> {
        let Self { at, trim_below, .. } = self;
        if *at > end {
            return Err(format!("it claims entries that are not durable: the journal ends at {end}"));
        }
        meta::verify_sinks(&self.sinks)?;
        if let Some(ahead) = self.sinks.iter().find(|sink| sink.mark.watermark > end) {
            return Err(format!(
                "sink `{}` claims entries that are not durable: the journal ends at {end}",
                ahead.name
            ));
        }
        if trim_below > at {
            return Err(format!("it would trim up to {trim_below}, above itself"));
        }
        let sinks = self.sinks.iter().filter(|sink| sink.holds).map(|sink| sink.mark.watermark);
        match self.lanes.iter().map(|lane| lane.watermark).chain(sinks).min() {
            Some(lowest) if *trim_below > lowest => {
                Err(format!("it would trim up to {trim_below}, above the lowest watermark {lowest}"))
            }
            _ => Ok(()),
        }
    }
}

/// The storage of the journal. It has one writer, who holds it alone.
///
/// Writing takes two steps. [`append`](Self::append) takes a commit and returns at once; [`land`](Self::land) returns its
/// receipt when it is durable. Commits land in the order in which they were appended. How the disk, or another machine, is
/// reached meanwhile is the journal's business.
///
/// The answers of a journal are these:
///
/// | answer | how it is given | what the writer does |
/// |---|---|---|
/// | durable | [`land`](Self::land) returns a receipt | acks what the commit holds |
/// | full | [`room`](Self::room) says [`Room::Full`] | refuses new data, and asks again later |
/// | fenced, lost, failed | any call returns a [`JournalError`] | acks nothing any more, ever |
///
/// A journal that has no room for a commit it has taken keeps it under way until there is some: being full is never an error.
pub trait Journal: Send {
    /// The receipt for everything that has landed.
    fn durable(&self) -> Durable;

    /// Every entry below has landed. With nothing under way, the offset that the next entry gets.
    fn end(&self) -> Offset {
        self.durable().end()
    }

    /// Whether a commit of about so many bytes is better appended now than when the oldest one has landed: one more may be under
    /// way, and it is large enough to gain by that. With nothing under way it is. Appending more than may be under way is an error of
    /// the caller.
    fn has_place(&self, bytes: usize) -> bool;

    /// Takes the next commit, whose entries follow those of the commits before it. Does not wait for the disk.
    ///
    /// # Errors
    /// Nothing of this commit was written, nor will be; commits that are under way may be durable or not. Nothing may be acked
    /// any more.
    fn append(&mut self, commit: Commit) -> Result<(), JournalError>;

    /// Whether it is time to call [`land`](Self::land): the oldest commit under way has ended, or waits to be written by that
    /// very call, in the caller's thread, as a small one may where handing it to another thread would cost more.
    fn landed(&self) -> bool;

    /// Waits for the oldest commit under way, and returns its receipt. What its checkpoint allows to be deleted is deleted
    /// then.
    ///
    /// # Errors
    /// Whether this commit and those after it are durable is unknown. Nothing may be acked any more: the journal refuses
    /// everything from now on, and tries no sync again.
    fn land(&mut self) -> Result<Landed, JournalError>;

    /// From now on commits may become durable beside the caller, and `notify` is called, in any thread, whenever one has
    /// ended.
    ///
    /// # Errors
    /// The system gives no thread. The journal is as it was before.
    fn notify_landings(&mut self, _notify: Box<dyn Fn() + Send>) -> io::Result<()> {
        Ok(())
    }

    /// Whether there is room for new data, when `reserve_bytes` must stay free.
    ///
    /// # Errors
    /// That cannot be found out now. It says nothing of what was written or will be.
    fn room(&self, reserve_bytes: u64) -> Result<Room, StorageError>;

    /// Why nothing may be acked any more, found out beside the commits, such as by who looks after the files.
    fn failure(&self) -> Option<JournalError> {
        None
    }

    /// Appends a block, records and a checkpoint, and waits until they are durable: for those who have nothing else to do
    /// meanwhile. Nothing may be under way. `block` is emptied and made ready for the next block.
    ///
    /// # Errors
    /// As those of [`land`](Self::land).
    fn write(
        &mut self,
        block: &mut BlockBuilder,
        records: &Records,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Durable, JournalError> {
        let (records, checkpoint) = (records.clone(), checkpoint.cloned());
        self.append(Commit { block: mem::take(block), records, checkpoint })?;
        let Landed { receipt, block: empty } = self.land()?;
        *block = empty;
        Ok(receipt)
    }

    /// Writes a block and sessions.
    fn commit(&mut self, block: &mut BlockBuilder, sessions: &[SessionRecord]) -> Result<Durable, JournalError> {
        self.write(block, &Records { sessions: sessions.to_vec(), ..Records::default() }, None)
    }

    /// Writes a checkpoint without a block, and returns when it is durable.
    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), JournalError> {
        self.write(&mut BlockBuilder::default(), &Records::default(), Some(checkpoint)).map(drop)
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
    /// An ask as the last checkpoint wrote it. Asks come before blocks.
    Ask(AskRecord),
    /// What was answered with one commit. These come behind all blocks, in the order of their numbers.
    Answers(AnswersRecord),
    /// The next block comes, and its checksum fits.
    Block(&'a Block),
}

/// A journal that was opened, and what is known of it.
pub struct Opened<J> {
    /// The journal, for its one writer.
    pub journal: J,
    /// Gives committed blocks to everyone who asks.
    pub reader: Arc<dyn ReadJournal>,
    /// Keeps dead letters, for the lanes and for operators.
    pub dead: Arc<dyn DeadLetters>,
    /// The lanes of the last checkpoint; none before the first.
    pub lanes: Vec<LaneMark>,
    /// The lanes of earlier runs, as the last checkpoint has them.
    pub former: Vec<FormerLanes>,
    /// The sinks of the last checkpoint.
    pub sinks: Vec<SinkRecord>,
    /// The offset of the last checkpoint.
    pub checkpoint_at: Offset,
    /// Entries below are trimmed, and not in the journal any more.
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
    /// Its blocks take so many bytes together.
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
