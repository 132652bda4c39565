//! A bound on log lines that any peer can cause: a slow log must not stall commits, nor a chatty one fill the disk.

use crate::limits;
use crate::types::Now;

/// Lets so many lines a second through, and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    second: u64,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// `Some` when a line may be written, with the number of lines that were not since the last one.
    pub(super) fn allows(&mut self, now: Now) -> Option<u64> {
        let second = now.mono_us / 1_000_000;
        if self.second != second {
            self.second = second;
            self.lines = 0;
        }
        if self.lines == limits::CLIENT_LOG_LINES_PER_S {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_told_with_the_next_one() {
        let mut limit = LogLimit::default();
        let at = |mono_us| Now { mono_us, unix_us: 0 };
        for _ in 0..limits::CLIENT_LOG_LINES_PER_S {
            assert_eq!(limit.allows(at(5_000_000)), Some(0));
        }
        assert_eq!(limit.allows(at(5_999_999)), None);
        assert_eq!(limit.allows(at(5_999_999)), None);
        assert_eq!(limit.allows(at(6_000_000)), Some(2));
        assert_eq!(limit.allows(at(6_000_000)), Some(0));
    }
}
