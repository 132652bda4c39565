//! A bound on log lines that peers or a lasting failure can cause: a slow log must not stall commits, nor a chatty one
//! fill the disk.

use crate::model::Now;

/// Lets so many lines a second through, and counts the others.
#[derive(Debug)]
pub(crate) struct LogLimit {
    per_s: u32,
    second: u64,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Allows `per_s` lines in each second.
    pub(crate) fn new(per_s: u32) -> Self {
        Self { per_s, second: 0, lines: 0, suppressed: 0 }
    }

    /// `Some` when a line may be written, with the number of lines that were not since the last one.
    pub(crate) fn allows(&mut self, now: Now) -> Option<u64> {
        let second = now.mono_us / 1_000_000;
        if self.second != second {
            self.second = second;
            self.lines = 0;
        }
        if self.lines == self.per_s {
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
        let mut limit = LogLimit::new(10);
        let at = |mono_us| Now { mono_us, unix_us: 0 };
        for _ in 0..10 {
            assert_eq!(limit.allows(at(5_000_000)), Some(0));
        }
        assert_eq!(limit.allows(at(5_999_999)), None);
        assert_eq!(limit.allows(at(5_999_999)), None);
        assert_eq!(limit.allows(at(6_000_000)), Some(2));
        assert_eq!(limit.allows(at(6_000_000)), Some(0));
    }
}
