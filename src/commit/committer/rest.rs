//! What the committer keeps for the next commits, and gives up where none come.

use super::{Committer, Downstream};
use crate::dialect::Dialect;
use crate::journal::{BlockBuilder, Journal};
use crate::limits;
use crate::model::Now;
use crate::net::Transmit;

impl<D: Dialect, J: Journal, T: Transmit, L: Downstream> Committer<D, J, T, L> {
    /// Gives up memory that is kept for speed alone, once after each time of work, when the last block is long durable. For a
    /// committer that has nothing in hand.
    pub(super) fn rest_if_quiet(&mut self, now: Now) {
        let since_us = self.acked_us.map_or(0, |acked_us| now.mono_us.saturating_sub(acked_us));
        if self.rests || self.is_in_flight() || !self.block.is_empty() || since_us < limits::QUIET_US {
            return;
        }
        self.rests = true;
        self.block = BlockBuilder::default();
        (self.spare_blocks, self.spares) = (Vec::new(), Vec::new());
        self.downstream.rest();
    }
}
