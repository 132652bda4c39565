//! How many bytes the journal holds, by offset, so that trimming can keep what retention asks for.

use std::collections::VecDeque;

use crate::journal::{EXTENT_BYTES, Extent};
use crate::model::Offset;

/// The journal's blocks, summed up in extents of about a mebibyte.
#[derive(Debug, Default)]
pub struct Backlog {
    extents: VecDeque<Place>,
    /// Bytes of all blocks that were ever added.
    added: u64,
}

/// An extent begins here, in entries and in bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    first: Offset,
    /// Bytes of all blocks that were added before it.
    before: u64,
}

impl Backlog {
    /// The blocks that recovery has found.
    pub fn new(extents: Vec<Extent>) -> Self {
        let mut backlog = Self::default();
        for Extent { first, bytes } in extents {
            backlog.extents.push_back(Place { first, before: backlog.added });
            backlog.added += bytes;
        }
        backlog
    }

    /// Adds a block that begins at `first`.
    pub fn push(&mut self, first: Offset, bytes: u64) {
        if self.extents.back().is_none_or(|last| self.added - last.before >= EXTENT_BYTES) {
            self.extents.push_back(Place { first, before: self.added });
        }
        self.added += bytes;
    }

    /// Returns how many bytes all blocks take that are not trimmed.
    pub fn bytes(&self) -> u64 {
        self.extents.front().map_or(0, |front| self.added - front.before)
    }

    /// Bytes of the blocks from this entry on, when the journal ends at `end`: within an extent as if its entries were of one
    /// size.
    pub fn bytes_from(&self, offset: Offset, end: Offset) -> u64 {
        let next = self.extents.partition_point(|extent| extent.first <= offset);
        let Some(place) = next.checked_sub(1).and_then(|n| self.extents.get(n)) else { return self.bytes() };
        let (next_first, next_before) =
            self.extents.get(next).map_or((end, self.added), |next| (next.first, next.before));
        let (entries, left) = (next_first.since(place.first), next_first.since(offset));
        let of_extent = u128::from(next_before - place.before) * u128::from(left) / u128::from(entries.max(1));
        self.added - next_before + u64::try_from(of_extent).unwrap_or(u64::MAX)
    }

    /// The lowest first entry of an extent from which on there are no more than so many bytes; the journal's `end`, if there
    /// is none.
    pub fn keeping(&self, bytes: u64, end: Offset) -> Offset {
        let from = self.extents.partition_point(|extent| self.added - extent.before > bytes);
        self.extents.get(from).map_or(end, |extent| extent.first)
    }

    /// Drops extents that lie wholly below `watermark`, as long as `retain_bytes` remain, and returns the offset below
    /// which everything was dropped; `None` when nothing was.
    pub fn trim(&mut self, watermark: Offset, retain_bytes: u64) -> Option<Offset> {
        let mut below = None;
        while let Some(next) = self.extents.get(1) {
            if next.first > watermark || self.added - next.before < retain_bytes {
                break;
            }
            below = Some(next.first);
            self.extents.pop_front();
        }
        below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_or_above_the_watermark_is_trimmed() {
        let mut backlog = Backlog::default();
        for block in 0..8 {
            backlog.push(Offset(block * 10), EXTENT_BYTES);
        }
        assert_eq!(backlog.trim(Offset(9), 0), None);
        assert_eq!(backlog.trim(Offset(35), 0), Some(Offset(30)));
        assert_eq!(backlog.bytes(), 5 * EXTENT_BYTES);
    }

    #[test]
    fn retention_keeps_processed_blocks() {
        let mut backlog = Backlog::default();
        for block in 0..8 {
            backlog.push(Offset(block * 10), EXTENT_BYTES);
        }
        assert_eq!(backlog.trim(Offset(80), 6 * EXTENT_BYTES), Some(Offset(20)));
        assert_eq!(backlog.trim(Offset(80), 6 * EXTENT_BYTES), None);
    }

    #[test]
    fn small_blocks_share_an_extent() {
        let mut backlog = Backlog::default();
        for block in 0..1000 {
            backlog.push(Offset(block), 1024);
        }
        assert!(backlog.extents.len() < 4);
    }

    fn eight_extents() -> Backlog {
        let mut backlog = Backlog::default();
        (0..8).for_each(|block| backlog.push(Offset(block * 10), EXTENT_BYTES));
        backlog
    }

    #[test]
    fn bytes_are_known_from_any_entry_on_also_after_trimming() {
        let mut backlog = eight_extents();
        let end = Offset(80);
        for trimmed in [false, true] {
            for (from, extents_of_ten) in [(40, 40), (45, 35), (79, 1), (80, 0), (99, 0)] {
                assert_eq!(
                    backlog.bytes_from(Offset(from), end),
                    EXTENT_BYTES * extents_of_ten / 10,
                    "{from} {trimmed}"
                );
            }
            backlog.trim(Offset(40), 0);
        }
        assert_eq!(backlog.bytes_from(Offset(0), end), 4 * EXTENT_BYTES, "what is trimmed is no bytes");
        assert_eq!(Backlog::default().bytes_from(Offset(0), Offset(0)), 0);
    }

    #[test]
    fn what_keeps_so_many_bytes_begins_at_an_extent() {
        let backlog = eight_extents();
        for (extents, from) in [(100, 0), (8, 0), (3, 50), (1, 70), (0, 80)] {
            assert_eq!(backlog.keeping(extents * EXTENT_BYTES, Offset(80)), Offset(from));
        }
        assert_eq!(backlog.keeping(3 * EXTENT_BYTES - 1, Offset(80)), Offset(60));
    }

    #[test]
    fn recovered_extents_count_as_those_that_were_added() {
        let extents = (0..8).map(|block| Extent { first: Offset(block * 10), bytes: EXTENT_BYTES }).collect();
        let backlog = Backlog::new(extents);
        assert_eq!(backlog.bytes(), 8 * EXTENT_BYTES);
        assert_eq!(backlog.bytes_from(Offset(75), Offset(80)), EXTENT_BYTES / 2);
    }
}
