//! Whether the journal has room: that it gets full is foreseen, and new data refused before it comes to that.

use super::{Committer, Downstream};
use crate::dialect::Dialect;
use crate::journal::Journal;
use crate::limits;
use crate::model::Now;
use crate::net::Transmit;

/// What the journal has said of its room.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// When it was looked at last, in monotonic microseconds.
    checked_us: Option<u64>,
    /// Bytes of blocks written since then.
    bytes_since: u64,
    free_bytes: Option<u64>,
    short: bool,
}

impl Space {
    /// Whether it was ever looked at.
    pub(super) fn is_known(&self) -> bool {
        self.checked_us.is_some()
    }

    /// Whether there is no room.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Whether there is no room, or less than twice the reserve is free.
    pub(super) fn is_near(&self, reserve_bytes: u64) -> bool {
        self.short || self.free_bytes.is_some_and(|free| free < reserve_bytes.saturating_mul(2))
    }

    /// Bytes free, where that is known.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.free_bytes
    }

    /// A block of so many bytes was written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }
}

impl<D: Dialect, J: Journal, T: Transmit, L: Downstream> Committer<D, J, T, L> {
    /// Asks the journal for its room, if it is time for that: when it has none, new data is refused until it has
    /// (PROTOCOL.md#reject).
    pub(super) fn check_space(&mut self, now: Now) {
        let space = &mut self.space;
        let due = space.checked_us.is_none_or(|at| now.mono_us.saturating_sub(at) >= limits::SPACE_CHECK_US);
        if !due && space.bytes_since < limits::SPACE_CHECK_BYTES {
            return;
        }
        space.checked_us = Some(now.mono_us);
        space.bytes_since = 0;
        let reserve = self.config.reserve_bytes;
        match self.journal.room(reserve) {
            Ok(room) => {
                let (short, free) = (room.is_full(), room.free_bytes());
                match (space.short, short) {
                    (false, true) => {
                        tracing::error!(free, reserve, "free space is below the reserve: new data is refused");
                    }
                    (true, false) => {
                        tracing::warn!(free, reserve, "free space is above the reserve again: new data is accepted");
                    }
                    _ => {}
                }
                space.short = short;
                space.free_bytes = free;
                self.metrics.free_bytes.set(free);
            }
            Err(error) => tracing::warn!(%error, "free space cannot be read; keeping the last state"),
        }
    }
}
