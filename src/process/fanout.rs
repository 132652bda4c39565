//! How committed blocks reach the lanes of all sinks.
//!
//! [`Fanout`] never waits for a lane: the newest blocks are in memory, once for all lanes (`recent`), and what has left it a lane
//! reads back from the journal when it gets there.

use std::fmt;
use std::sync::Arc;

use super::cursors::Cursors;
use super::recent::{RecentBlocks, RecentReader};
use crate::journal::Block;
use crate::model::{LaneMessage, Processed};

/// The committer's end of the lanes.
pub struct Fanout {
    cursors: Arc<Cursors>,
    recent: RecentBlocks,
    /// As it was before the mailbox was last found empty.
    processed: Option<Processed>,
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
        (Self { cursors, recent, processed: None }, readers)
    }

    /// How far the lanes have come, sink by sink.
    pub fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// The next thing that the lanes have to say. Only after `None` may the committer sleep.
    pub fn next_message(&mut self) -> Option<LaneMessage> {
        let processed = self.cursors.processed();
        let message = self.cursors.next_message();
        if message.is_none() {
            self.processed = processed;
        }
        message
    }

    /// What processing says of all asks below an offset. All messages that were posted before it was true have been taken: an
    /// answer that is still on its way is never overtaken by the watermark that it waits for.
    pub fn processed(&self) -> Option<Processed> {
        self.processed
    }

    /// Lets every lane of every sink see a durable block. Never waits and never allocates; wakes each lane that sleeps, once.
    pub fn publish(&mut self, block: &Arc<Block>) {
        self.cursors.groups().iter().for_each(|group| group.set_durable_end(block.end()));
        self.recent.publish(block);
        self.cursors.groups().iter().for_each(|group| group.show_lag());
    }
}
