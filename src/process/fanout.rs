//! How committed blocks reach the lanes of all sinks.
//!
//! [`Fanout`] never waits for a lane: the newest blocks are in memory, once for all lanes (`recent`), and what has left it a lane
//! reads back from the journal when it gets there.

use std::fmt;
use std::sync::Arc;

use super::cursors::Cursors;
use super::recent::{RecentBlocks, RecentReader};
use crate::journal::Block;

/// The committer's end of the lanes.
pub struct Fanout {
    cursors: Arc<Cursors>,
    recent: RecentBlocks,
}

impl fmt::Debug for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fanout").field("lanes", &self.recent.readers()).finish_non_exhaustive()
    }
}

impl Fanout {
    /// One cache of the newest blocks, with each lane's end of its own, sink by sink, in lane order.
    pub(super) fn new(cursors: Arc<Cursors>) -> (Self, Vec<Vec<RecentReader>>) {
        let mut recent = RecentBlocks::new(cursors.durable_end());
        let readers =
            cursors.groups().iter().map(|group| (0..group.lanes()).map(|_| recent.reader()).collect()).collect();
        (Self { cursors, recent }, readers)
    }

    /// How far the lanes have come, sink by sink.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// Lets every lane of every sink see a durable block. Never waits and never allocates; wakes each lane that sleeps, once.
    pub fn publish(&mut self, block: &Arc<Block>) {
        self.cursors.groups().iter().for_each(|group| group.set_durable_end(block.end()));
        self.recent.publish(block);
        self.cursors.groups().iter().for_each(|group| group.show_lag());
    }

    /// Gives the memory of the newest blocks back. A lane that has not had one reads it from the journal.
    pub fn rest(&mut self) {
        self.recent.empty();
    }
}
