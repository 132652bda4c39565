//! How many bytes the journal holds, by offset, so that trimming can keep what retention asks for.

use std::collections::VecDeque;

use crate::journal::{EXTENT_BYTES, Extent};
use crate::model::Offset;

/// The journal's blocks, summed up in extents of about a mebibyte.
#[derive(Debug, Default)]
pub struct Backlog {
    extents: VecDeque<Extent>,
    bytes: u64,
}

impl Backlog {
    /// The blocks that recovery has found.
    pub fn new(extents: Vec<Extent>) -> Self {
        Self { bytes: extents.iter().map(|extent| extent.bytes).sum(), extents: extents.into() }
    }

    /// Adds a block that begins at `first`.
    pub fn push(&mut self, first: Offset, bytes: u64) {
        match self.extents.back_mut() {
            Some(last) if last.bytes < EXTENT_BYTES => last.bytes += bytes,
            _ => self.extents.push_back(Extent { first, bytes }),
        }
        self.bytes += bytes;
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops extents that lie wholly below `watermark`, as long as `retain_bytes` remain, and returns the offset below
    /// which everything was dropped; `None` when nothing was.
    pub fn trim(&mut self, watermark: Offset, retain_bytes: u64) -> Option<Offset> {
        let mut below = None;
        while let (Some(front), Some(next)) = (self.extents.front(), self.extents.get(1)) {
            if next.first > watermark || self.bytes - front.bytes < retain_bytes {
                break;
            }
            below = Some(next.first);
            self.bytes -= front.bytes;
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
}
