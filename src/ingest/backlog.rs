//! How many bytes the journal holds, by offset, so that trimming can keep what retention asks for.

use std::collections::VecDeque;

use crate::types::Offset;

/// Bytes after which a new segment begins: the granularity of trimming.
const SEGMENT_BYTES: u64 = 1 << 20;

/// The journal's blocks, summed up in segments of about a mebibyte: 16 bytes of memory for each.
#[derive(Debug, Default)]
pub struct Backlog {
    segments: VecDeque<(Offset, u64)>,
    bytes: u64,
}

impl Backlog {
    /// Adds a block that begins at `first`.
    pub fn push(&mut self, first: Offset, bytes: u64) {
        match self.segments.back_mut() {
            Some((_, sum)) if *sum < SEGMENT_BYTES => *sum += bytes,
            _ => self.segments.push_back((first, bytes)),
        }
        self.bytes += bytes;
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops segments that lie wholly below `watermark`, as long as `retain_bytes` remain, and returns the offset below
    /// which everything was dropped; `None` when nothing was.
    pub fn trim(&mut self, watermark: Offset, retain_bytes: u64) -> Option<Offset> {
        let mut below = None;
        while let (Some(&(_, bytes)), Some(&(next, _))) = (self.segments.front(), self.segments.get(1)) {
            if next > watermark || self.bytes - bytes < retain_bytes {
                break;
            }
            self.segments.pop_front();
            self.bytes -= bytes;
            below = Some(next);
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
            backlog.push(Offset(block * 10), SEGMENT_BYTES);
        }
        assert_eq!(backlog.trim(Offset(9), 0), None);
        assert_eq!(backlog.trim(Offset(35), 0), Some(Offset(30)));
        assert_eq!(backlog.bytes(), 5 * SEGMENT_BYTES);
    }

    #[test]
    fn retention_keeps_processed_blocks() {
        let mut backlog = Backlog::default();
        for block in 0..8 {
            backlog.push(Offset(block * 10), SEGMENT_BYTES);
        }
        assert_eq!(backlog.trim(Offset(80), 6 * SEGMENT_BYTES), Some(Offset(20)));
        assert_eq!(backlog.trim(Offset(80), 6 * SEGMENT_BYTES), None);
    }

    #[test]
    fn small_blocks_share_a_segment() {
        let mut backlog = Backlog::default();
        for block in 0..1000 {
            backlog.push(Offset(block), 1024);
        }
        assert!(backlog.segments.len() < 4);
    }
}
