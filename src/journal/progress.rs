//! How far the opening of a journal has come, for whoever waits for it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::Offset;

/// Written by the thread that opens the journal, read by any other.
#[derive(Debug, Default)]
pub struct OpenProgress {
    /// Plus one; 0: not known.
    first: AtomicU64,
    next: AtomicU64,
    end: AtomicU64,
    bytes: AtomicU64,
}

/// A look at [`OpenProgress`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenedSoFar {
    /// Entries that were read.
    pub entries: u64,
    /// Entries that are to be read, as far as is known; 0 when it is not.
    pub entries_total: u64,
    /// Bytes of the blocks that were read.
    pub bytes: u64,
}

impl OpenProgress {
    /// The journal is known to reach up to here.
    pub(super) fn expect(&self, end: Offset) {
        self.end.fetch_max(end.0, Ordering::Relaxed);
    }

    /// A block was read.
    pub(super) fn read(&self, first: Offset, end: Offset, bytes: usize) {
        // The first block tells where the reading begins.
        let _known = self.first.compare_exchange(0, first.0 + 1, Ordering::Relaxed, Ordering::Relaxed);
        self.next.store(end.0, Ordering::Relaxed);
        self.end.fetch_max(end.0, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn so_far(&self) -> OpenedSoFar {
        let Some(first) = self.first.load(Ordering::Relaxed).checked_sub(1) else { return OpenedSoFar::default() };
        let span = |to: &AtomicU64| to.load(Ordering::Relaxed).saturating_sub(first);
        OpenedSoFar {
            entries: span(&self.next),
            entries_total: span(&self.end),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_from_the_first_block_that_is_read() {
        let progress = OpenProgress::default();
        progress.expect(Offset(1_000));
        assert_eq!(progress.so_far(), OpenedSoFar::default());
        progress.read(Offset(900), Offset(910), 50);
        assert_eq!(progress.so_far(), OpenedSoFar { entries: 10, entries_total: 100, bytes: 50 });
        // The witness is up to a second behind.
        progress.read(Offset(910), Offset(1_020), 70);
        assert_eq!(progress.so_far(), OpenedSoFar { entries: 120, entries_total: 120, bytes: 120 });
    }
}
