//! When it is looked at what the sinks hold of the journal. What follows from it is in [`bounds`](crate::commit::bounds).

use super::{Committer, Downstream};
use crate::commit::bounds::{self, Room};
use crate::dialect::Dialect;
use crate::journal::Journal;
use crate::limits;
use crate::model::Now;
use crate::net::Transmit;

/// What the sinks hold, as far as the committer has to know.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// When it was looked at last, in monotonic microseconds.
    checked_us: Option<u64>,
    /// Bytes of blocks written since then.
    bytes_since: u64,
    /// When a sink lost something while free space was near its reserve, in monotonic microseconds.
    yielded_us: Option<u64>,
    /// A sink holds too much for new data to be taken.
    blocked: bool,
}

impl Bounds {
    /// Whether new data is to be refused because of a sink.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether it was ever looked at.
    pub(super) fn is_known(&self) -> bool {
        self.checked_us.is_some()
    }

    /// What is to be done for free space. What sinks have lost becomes free only after a while, so they lose no more before that,
    /// unless there is no room already.
    fn room(&self, is_near: bool, is_short: bool, now: Now) -> Room {
        let waits = self.yielded_us.is_some_and(|at| now.mono_us.saturating_sub(at) < limits::SINK_YIELDS_US);
        match (is_near, waits && !is_short) {
            (false, _) => Room::Enough,
            (true, true) => Room::Near,
            (true, false) => Room::Wanted,
        }
    }

    /// A block of so many bytes was written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }
}

impl<D: Dialect, J: Journal, T: Transmit, L: Downstream> Committer<D, J, T, L> {
    /// Looks at what the sinks hold, if it is time for that: those that hold too much lose something, or make the server refuse
    /// new data (PROTOCOL.md#reject). What was lost a checkpoint stores soon.
    pub(super) fn check_bounds(&mut self, now: Now) {
        let bounds = &mut self.bounds;
        let due = bounds.checked_us.is_none_or(|at| now.mono_us.saturating_sub(at) >= limits::BOUNDS_CHECK_US);
        if !due && bounds.bytes_since < limits::SPACE_CHECK_BYTES {
            return;
        }
        (bounds.checked_us, bounds.bytes_since) = (Some(now.mono_us), 0);
        let holdings = self.downstream.holdings();
        if holdings.is_empty() {
            return;
        }
        let is_near = self.space.is_near(self.config.reserve_bytes);
        let room = self.bounds.room(is_near, self.space.is_short(), now);
        let verdicts = bounds::judge(&holdings, &self.backlog, self.receipt.end(), room);
        if room == Room::Wanted && verdicts.iter().any(|verdict| verdict.lose_below.is_some()) {
            self.bounds.yielded_us = Some(now.mono_us);
        }
        self.bounds.blocked = verdicts.iter().any(|verdict| verdict.blocks);
        if self.downstream.bound(&verdicts, now) {
            self.checkpointing.ask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_that_have_yielded_yield_again_when_that_had_time_to_help_or_there_is_no_room_at_all() {
        let at = |mono_us| Now { mono_us, unix_us: 0 };
        let bounds = Bounds { yielded_us: Some(5), ..Bounds::default() };
        assert_eq!(Bounds::default().room(true, false, at(5)), Room::Wanted);
        assert_eq!(bounds.room(true, false, at(5)), Room::Near);
        assert_eq!(bounds.room(true, false, at(4 + limits::SINK_YIELDS_US)), Room::Near);
        assert_eq!(bounds.room(true, false, at(5 + limits::SINK_YIELDS_US)), Room::Wanted);
        assert_eq!(bounds.room(true, true, at(5)), Room::Wanted);
        assert_eq!(bounds.room(false, false, at(5)), Room::Enough);
    }
}
