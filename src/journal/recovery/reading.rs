//! How much of a backlog a survey reads, and how far it is.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::journal::database::{Database, JOURNAL, Table};
use crate::journal::meta::CheckpointState;
use crate::journal::{EXTENT_BYTES, Extent};
use crate::model::Offset;

/// How far a start is with reading the journal. Read from any thread.
#[derive(Debug, Default)]
pub struct ReadProgress {
    total_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

impl ReadProgress {
    /// Bytes of blocks read so far, and to read in all; both 0 before that is known.
    pub fn bytes(&self) -> (u64, u64) {
        let read = self.read_bytes.load(Ordering::Relaxed);
        // What is in the log alone is not counted before it is read.
        (read, self.total_bytes.load(Ordering::Relaxed).max(read))
    }

    fn begin(&self, total_bytes: u64) {
        self.read_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    /// So much more is read.
    pub(in crate::journal) fn add(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How a survey reads the blocks.
#[derive(Clone, Copy)]
pub(in crate::journal) struct Reading<'a> {
    /// Of those that the checkpoint includes, the newest so many bytes.
    pub newest_bytes: u64,
    /// Where it reports how far it is.
    pub progress: Option<&'a ReadProgress>,
}

impl Reading<'_> {
    /// All blocks are read and verified, however many there are.
    pub(in crate::journal) const ALL: Reading<'static> = Reading { newest_bytes: u64::MAX, progress: None };

    /// What is left to be verified later; `None` when all is read now.
    pub(in crate::journal) fn later<D: Database>(
        &self,
        database: &D,
        checkpoint: Option<&CheckpointState>,
    ) -> Option<Later> {
        let tables = database.tables(JOURNAL);
        let later = checkpoint.and_then(|checkpoint| Later::of(&tables, checkpoint, self.newest_bytes));
        if let Some(progress) = self.progress {
            let all: u64 = tables.iter().map(|table| table.bytes).sum();
            let left = later.as_ref().map_or(0, |later| later.extents.iter().map(|extent| extent.bytes).sum());
            progress.begin(all.saturating_sub(left));
        }
        later
    }
}

/// The older part of a backlog, as far as its table files tell of it without being read.
pub(in crate::journal) struct Later {
    /// What begins here, or holds this entry, is read now.
    pub(in crate::journal) below: Offset,
    /// What lies below, summed up: where the pieces of a table begin is reckoned as if all its entries were of one length.
    pub(in crate::journal) extents: Vec<Extent>,
}

impl Later {
    fn of(tables: &[Table], checkpoint: &CheckpointState, newest_bytes: u64) -> Option<Self> {
        let CheckpointState { low, at, .. } = *checkpoint;
        let last = |table: &Table| table.last.as_slice().try_into().map(u64::from_be_bytes).ok();
        let kept = tables.iter().filter_map(|table| Some((last(table)?, table.bytes)));
        let mut tables: Vec<(u64, u64)> = kept.filter(|&(last, _)| last >= low.0).collect();
        let mut read_bytes = 0;
        while let Some(&(last, bytes)) = tables.last()
            && (last >= at.0 || read_bytes < newest_bytes)
        {
            read_bytes += bytes;
            tables.pop();
        }
        let below = Offset(tables.last().filter(|&&(last, _)| last > low.0)?.0);
        let mut extents: Vec<Extent> = Vec::new();
        let mut start = low.0;
        for (last, bytes) in tables {
            let pieces = bytes.div_ceil(EXTENT_BYTES).max(1);
            for piece in 0..pieces {
                let first =
                    start + u64::try_from(u128::from(last - start) * u128::from(piece) / u128::from(pieces)).ok()?;
                let bytes = bytes / pieces + u64::from(piece == 0) * (bytes % pieces);
                match extents.last_mut() {
                    Some(before) if before.first.0 == first => before.bytes += bytes,
                    _ => extents.push(Extent { first: Offset(first), bytes }),
                }
            }
            start = last;
        }
        Some(Self { below, extents })
    }
}

#[cfg(test)]
mod tests;
