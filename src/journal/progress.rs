//! How far the opening of a journal has come, for whoever waits for it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a start is with reading the journal. Read from any thread.
#[derive(Debug, Default)]
pub struct ReadProgress {
    total_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

impl ReadProgress {
    /// Bytes of blocks read so far, and to read in all, as far as is known; both 0 before that is known.
    pub fn bytes(&self) -> (u64, u64) {
        let read = self.read_bytes.load(Ordering::Relaxed);
        // What is in the log alone is not counted before it is read.
        (read, self.total_bytes.load(Ordering::Relaxed).max(read))
    }

    /// The database in this directory is going to be read.
    pub(super) fn begin(&self, database: &Path) {
        let files = fs::read_dir(database).into_iter().flatten().flatten();
        let tables = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "sst"));
        let total: u64 = tables.filter_map(|table| table.metadata().ok()).map(|metadata| metadata.len()).sum();
        self.read_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total, Ordering::Relaxed);
    }

    /// So much more is read.
    pub(super) fn add(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
