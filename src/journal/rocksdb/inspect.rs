//! Looking into a data directory while no server runs on it: for `duragram journal verify|stats|dump` and the like.
//!
//! Nothing is changed, not even by RocksDB: the database is opened read-only. Such an opening takes none of RocksDB's locks,
//! and beside a running server it would read files that are being rewritten. So the directory's own lock is taken, shared
//! with other tools: with a server running every function here answers [`OpenError::Locked`], and a server that is started
//! meanwhile says the same of the tool.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::journal::directory::DataDir;
use crate::journal::error::{Damage, OpenError, StorageError};
pub use crate::journal::recovery::Torn;
use crate::journal::recovery::{Outcome, Reading, Scan, Visit, holes};
use crate::journal::rocksdb::database::{Store, is_of_a_journal};
use crate::journal::rocksdb::open::{examine, sound};
use crate::journal::rocksdb::settings::LogReading;
use crate::journal::store::reader::read_blocks;
use crate::journal::{Block, DeadLetter, Loss};
use crate::model::{Instance, JournalId, LaneMark, Offset, SinkRecord};

/// Bytes that [`Dump`] reads at once, or one block if that is longer.
const DUMP_BYTES: usize = 1 << 20;

/// [`verify`] reads the whole journal, changes nothing, and returns this.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Everything that is damaged or missing, as far as one can look past it. Empty: a server would start.
    pub damage: Vec<Damage>,
    /// Writes that a crash has torn before any of them was acked. No damage.
    pub torn: Option<Torn>,
    /// What is there and good.
    pub stats: Stats,
}

/// These figures tell an operator what a journal holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Which journal it is; `None` when it has no name yet, or one that cannot be read: the next start gives it one.
    pub id: Option<JournalId>,
    /// Which start of it was the last; `None` when no start was counted yet.
    pub instance: Option<Instance>,
    /// Entries below are trimmed, and not in the journal any more.
    pub low: Offset,
    /// The offset that the next entry gets.
    pub end: Offset,
    /// The offset of the last checkpoint: recovery replays from there.
    pub checkpoint_at: Offset,
    /// The witness; `None` when it is missing or damaged.
    pub witness: Option<Offset>,
    /// The lanes of the last checkpoint.
    pub lanes: Vec<LaneMark>,
    /// The sinks of the last checkpoint, those that are not configured any more included.
    pub sinks: Vec<SinkRecord>,
    /// How many entries are kept.
    pub entries: u64,
    /// How many blocks they are in.
    pub blocks: u64,
    /// How many bytes the blocks take.
    pub block_bytes: u64,
    /// How many sessions there are.
    pub sessions: u64,
    /// How many asks the last checkpoint has kept, open and answered: messages whose senders want an answer and have not had it.
    pub asks: u64,
    /// How many of these are answered.
    pub asks_answered: u64,
    /// How many answers wait for the next checkpoint, which puts them to their asks.
    pub answers: u64,
    /// How many dead letters there are.
    pub dead_letters: u64,
    /// Losses that operators have accepted, over the journal's life.
    pub losses: Vec<Loss>,
    /// What the directory takes on disk.
    pub disk: DiskUse,
}

/// Bytes of the data directory's files, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskUse {
    /// RocksDB's table files take so many bytes.
    pub tables: u64,
    /// RocksDB's write-ahead logs, those that wait to be written again included.
    pub logs: u64,
    /// Databases that were set aside when a loss was accepted.
    pub set_aside: u64,
    /// All files that are none of the above.
    pub other: u64,
}

/// Verifies all that a start of the server would verify, and goes on past damage.
///
/// # Errors
/// As for `open` of [`RocksJournal`](crate::journal::RocksJournal), but never `Damaged`: damage is the answer, not an error.
pub fn verify(path: &Path) -> Result<Verified, OpenError> {
    let dir = DataDir::inspect(path, is_of_a_journal)?;
    let found = examine(&dir, Reading::ALL, &mut |_| {});
    if found.outcome() == Outcome::NewerFormat {
        sound(&dir, found)?;
        return Ok(Verified { damage: Vec::new(), torn: None, stats: Stats::default() });
    }
    let stats = stats_of(&dir, found.scan)?;
    Ok(Verified { damage: found.damage, torn: found.torn, stats })
}

/// What the journal holds.
///
/// # Errors
/// As for `open` of [`RocksJournal`](crate::journal::RocksJournal): a damaged journal has no figures to rely on.
pub fn stats(path: &Path) -> Result<Stats, OpenError> {
    let dir = DataDir::inspect(path, is_of_a_journal)?;
    let found = sound(&dir, examine(&dir, Reading::ALL, &mut |_| {}))?.unwrap_or_default();
    stats_of(&dir, found.scan)
}

/// The journal's blocks from the one on that holds `from`, or from the lowest one kept.
///
/// Everything is verified before the first block comes.
///
/// # Errors
/// As for `open` of [`RocksJournal`](crate::journal::RocksJournal).
pub fn dump(path: &Path, from: Offset) -> Result<Dump, OpenError> {
    let dir = DataDir::inspect(path, is_of_a_journal)?;
    let found = sound(&dir, examine(&dir, Reading::ALL, &mut |_| {}))?;
    let open = |_: &_| Store::open_read_only(&dir.database(), LogReading::ToFirstBad);
    let store = found.as_ref().map(open).transpose();
    let store = store.map_err(|error| OpenError::storage("opening the database again", error))?;
    let scan = found.unwrap_or_default().scan;
    let (low, end) = (scan.low, scan.end);
    Ok(Dump { store, holes: holes(&scan.losses), low, end, next: from, ready: Vec::new().into_iter(), _dir: dir })
}

/// What the sinks of a journal have left: their places, and what they could not process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// All dead letters, in order.
    pub letters: Vec<DeadLetter>,
    /// The sinks of the last checkpoint, those that are not configured any more included.
    pub sinks: Vec<SinkRecord>,
    /// The offset that the next entry gets.
    pub end: Offset,
}

/// The sinks' places and all dead letters.
///
/// # Errors
/// As for `open` of [`RocksJournal`](crate::journal::RocksJournal).
pub fn left(path: &Path) -> Result<Left, OpenError> {
    let dir = DataDir::inspect(path, is_of_a_journal)?;
    let mut letters = Vec::new();
    let mut visit = |visit: Visit<'_>| {
        if let Visit::Dead(letter) = visit {
            letters.push(letter);
        }
    };
    let scan = sound(&dir, examine(&dir, Reading::ALL, &mut visit))?.unwrap_or_default().scan;
    Ok(Left { letters, sinks: scan.sinks, end: scan.end })
}

/// Blocks of a journal that no server has open.
pub struct Dump {
    /// Before the directory: it is free only when the database is closed. `None` when there is no journal yet.
    store: Option<Store>,
    holes: Vec<(Offset, Offset)>,
    low: Offset,
    end: Offset,
    next: Offset,
    ready: std::vec::IntoIter<Arc<Block>>,
    _dir: DataDir,
}

impl Iterator for Dump {
    type Item = Result<Arc<Block>, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.len() == 0 {
            match read_blocks(self.store.as_ref()?, &self.holes, self.low, self.end, self.next, DUMP_BYTES) {
                Ok(blocks) => self.ready = blocks.into_iter(),
                Err(error) => {
                    self.store = None;
                    return Some(Err(error));
                }
            }
        }
        let block = self.ready.next()?;
        self.next = block.end();
        Some(Ok(block))
    }
}

fn stats_of(dir: &DataDir, scan: Scan) -> Result<Stats, OpenError> {
    let disk =
        disk_use(dir.path()).map_err(|error| OpenError::storage(format!("reading {}", dir.path().display()), error))?;
    Ok(Stats {
        id: dir.id(),
        instance: dir.instance(),
        low: scan.low,
        end: scan.end,
        checkpoint_at: scan.checkpoint_at,
        witness: scan.witness,
        lanes: scan.lanes,
        sinks: scan.sinks,
        entries: scan.entries,
        blocks: scan.blocks,
        block_bytes: scan.block_bytes,
        sessions: scan.sessions,
        asks: scan.asks,
        asks_answered: scan.asks_answered,
        answers: scan.answers,
        dead_letters: scan.dead.total(),
        losses: scan.losses,
        disk,
    })
}

fn disk_use(path: &Path) -> io::Result<DiskUse> {
    let mut sum = DiskUse::default();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = if entry.file_type()?.is_dir() {
            disk_use(&entry.path())?
        } else {
            let bytes = entry.metadata()?.len();
            match name.rsplit('.').next() {
                Some("sst") => DiskUse { tables: bytes, ..DiskUse::default() },
                Some("log") => DiskUse { logs: bytes, ..DiskUse::default() },
                _ => DiskUse { other: bytes, ..DiskUse::default() },
            }
        };
        if name.starts_with("rocksdb.damaged-") {
            sum.set_aside += of.tables + of.logs + of.other;
        } else {
            sum.tables += of.tables;
            sum.logs += of.logs;
            sum.other += of.other;
        }
        sum.set_aside += of.set_aside;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
