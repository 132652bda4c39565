//! Reading committed blocks back from the database, and verifying them.
//!
//! A start has read most of what a journal holds, but not the older part of a long backlog ([`crate::journal::recovery`]). So whoever reads
//! blocks holds them to the same rules: each is what was written, none is missing, each follows the one before it.

use std::sync::{Arc, PoisonError};

use crate::journal::database::{Cursor as _, Database, JOURNAL, Sidecar as _, block_key};
use crate::journal::error::{Damage, DamageKind, DamagePlace};
use crate::journal::mask::unmask;
use crate::journal::store::Shared;
use crate::journal::{Block, ReadJournal, StorageError};
use crate::limits::READ_ENDS;
use crate::model::{Instance, JournalId, Offset};

/// It reads blocks beside the writer, from another thread.
pub(in crate::journal) struct Reader<D: Database>(pub(in crate::journal) Arc<Shared<D>>);

impl<D: Database> ReadJournal for Reader<D> {
    fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Arc<Block>>, StorageError> {
        let shared = &self.0;
        loop {
            let (low, end) = (shared.low(), shared.end());
            let read = read_blocks(&shared.store, &shared.holes, low, end, from, bytes_max)
                .and_then(|blocks| self.join(low, from, &blocks).map(|()| blocks));
            // What was trimmed meanwhile may be there in part.
            if read.is_err() && shared.low() > low {
                continue;
            }
            return read;
        }
    }

    fn resume(&self, at: Offset) -> Offset {
        // Trimming never passes a lane: who is below the lowest entry kept has lost what it was to read.
        let at = at.max(self.0.low());
        let hole = self.0.holes.iter().find(|&&(from, to)| from <= at && at < to);
        hole.map_or(at, |&(_, to)| to)
    }

    fn id(&self) -> Option<JournalId> {
        self.0.dir.id()
    }

    fn instance(&self) -> Option<Instance> {
        self.0.dir.instance()
    }
}

impl<D: Database> Reader<D> {
    /// Holds what was read from `from` on against the block before it, where no start has done that.
    fn join(&self, low: Offset, from: Offset, blocks: &[Arc<Block>]) -> Result<(), StorageError> {
        let shared = &self.0;
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
        let begins = first.first();
        if from > shared.unread_below || begins <= low {
            return Ok(());
        }
        let ends = || shared.read_ends.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ends().iter().find(|&&(end, _)| end == begins).map(|&(_, checksum)| checksum);
        let before = match known {
            Some(checksum) => Some(checksum),
            None => self.checksum_before(low, begins)?,
        };
        // Nothing follows what an operator has given up.
        let given_up = shared.holes.iter().any(|&(_, to)| to == begins);
        if !given_up && before.is_some_and(|before| before != first.previous_checksum()) {
            return Err(StorageError::damaged(reading(from), not_after(&shared.store, first)));
        }
        let mut ends = ends();
        if ends.len() == READ_ENDS {
            ends.pop_front();
        }
        ends.push_back((last.end(), last.checksum()));
        Ok(())
    }

    /// The checksum of the block that ends at `end`, if one does: none does behind what was given up.
    fn checksum_before(&self, low: Offset, end: Offset) -> Result<Option<u32>, StorageError> {
        let mut blocks = self.0.store.iterate(JOURNAL, &block_key(low), &block_key(end));
        blocks.seek_for_prev(&block_key(Offset(end.0.saturating_sub(1))));
        let Some((key, value)) = blocks.item() else { return Ok(None) };
        let block = parse(&self.0.store, end, key, value)?;
        Ok((block.end() == end).then(|| block.checksum()))
    }
}

/// What is being done when blocks are read.
fn reading(from: Offset) -> String {
    format!("reading the journal from offset {from} on")
}

/// A block as it is stored under a key, when the journal is read from `from` on.
pub(in crate::journal) fn parse<D: Database>(
    store: &D,
    from: Offset,
    key: &[u8],
    value: &[u8],
) -> Result<Block, StorageError> {
    let problem = match Block::parse(unmask(value)) {
        Ok(block) if key == block_key(block.first()) => return Ok(block),
        Ok(_) => "the block belongs under another key".to_owned(),
        Err(error) => error.to_string(),
    };
    let place = DamagePlace::Record { family: JOURNAL, key: key.to_vec() };
    let damage = Damage::new(DamageKind::GoodAfterBad, place, problem).in_files(store.files_of(JOURNAL, key));
    Err(StorageError::damaged(reading(from), damage))
}

fn missing<D: Database>(store: &D, from: Offset, to: Offset) -> Damage {
    let place = DamagePlace::Entries { from, to: Some(to) };
    Damage::new(DamageKind::Hole, place, "missing").in_files(store.files_of(JOURNAL, &block_key(from)))
}

fn not_after<D: Database>(store: &D, block: &Block) -> Damage {
    let place = DamagePlace::Entries { from: block.first(), to: Some(block.first()) };
    let problem = "the block here was not written after the one before it";
    let files = store.files_of(JOURNAL, &block_key(block.first()));
    Damage::new(DamageKind::Chain, place, problem).in_files(files)
}

/// As [`ReadJournal::read`], among the blocks of `low..end`. What is damaged or missing is an error, whether or not a start has
/// read so far.
pub(in crate::journal) fn read_blocks<D: Database>(
    store: &D,
    holes: &[(Offset, Offset)],
    low: Offset,
    end: Offset,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<Arc<Block>>, StorageError> {
    let mut blocks: Vec<Arc<Block>> = Vec::new();
    if from >= end {
        return Ok(blocks);
    }
    let failed = |error: D::Error, at: Offset| match D::is_damage(&error) {
        true => {
            let place = DamagePlace::Record { family: JOURNAL, key: block_key(at).to_vec() };
            let damage = Damage::new(DamageKind::GoodAfterBad, place, format!("cannot be read on from here: {error}"));
            StorageError::damaged(reading(from), damage.in_files(store.files_of(JOURNAL, &block_key(at))))
        }
        false => StorageError::new(reading(from), error),
    };
    let mut records = store.iterate(JOURNAL, &block_key(low), &block_key(end));
    records.seek_for_prev(&block_key(from.max(low)));
    if !records.valid() {
        records.status().map_err(|error| failed(error, from))?;
        // Trimmed meanwhile: the lowest one kept.
        records.seek_to_first();
    }
    // The first entry that is to come.
    let (mut next, mut bytes) = (from.max(low), 0);
    let given_up = |from: Offset, to: Offset| holes.iter().any(|&(first, end)| first <= from && end == to);
    while let Some((key, value)) = records.item() {
        let block = parse(store, from, key, value)?;
        // The one that was found may end in front of a hole, and `from` lie in it.
        if block.end() > from {
            if block.first() > next && !given_up(next, block.first()) {
                return Err(StorageError::damaged(reading(from), missing(store, next, block.first())));
            }
            if let Some(last) = blocks.last()
                && block.first() == last.end()
                && block.previous_checksum() != last.checksum()
                && !holes.iter().any(|&(_, to)| to == block.first())
            {
                return Err(StorageError::damaged(reading(from), not_after(store, &block)));
            }
            if block.first() < next && !blocks.is_empty() {
                return Err(StorageError::damaged(reading(from), not_after(store, &block)));
            }
            next = block.end();
            bytes += block.size();
            blocks.push(Arc::new(block));
            if bytes >= bytes_max {
                return Ok(blocks);
            }
        }
        records.next();
    }
    records.status().map_err(|error| failed(error, next))?;
    match next < end && !holes.iter().any(|&(first, to)| first <= next && end <= to) {
        true => Err(StorageError::damaged(reading(from), missing(store, next, end))),
        false => Ok(blocks),
    }
}
