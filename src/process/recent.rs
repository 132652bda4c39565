//! The newest blocks, in memory once for all lanes: a cache over the journal.
//!
//! [`RecentBlocks`] is the committer's end; each lane has a [`RecentReader`]. How they meet is in `hand_off`; here are the
//! blocks it is about, the bounds, and the channels on which lanes sleep.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::hand_off::{Filler, Reader};
use crate::journal::Block;
use crate::limits;
use crate::model::Offset;

/// The committer puts in blocks at this end.
pub(super) struct RecentBlocks {
    filler: Filler<Arc<Block>>,
    /// What wakes each reader, in the order in which they were made.
    wakes: Vec<Sender<()>>,
}

/// A lane takes blocks out at this end.
pub(super) struct RecentReader {
    reader: Reader<Arc<Block>>,
    woken: Receiver<()>,
    /// The committer is gone: no more blocks come.
    closed: bool,
}

impl RecentBlocks {
    /// Without a block: what is below `durable_end` is in the journal alone.
    pub(super) fn new(durable_end: Offset) -> Self {
        let filler = Filler::new(limits::RECENT_BLOCKS, limits::RECENT_BYTES as u64, durable_end.0);
        Self { filler, wakes: Vec::new() }
    }

    /// An end for one more lane, whichever group of lanes that belongs to.
    pub(super) fn reader(&mut self) -> RecentReader {
        // One place is enough: whoever finds it taken knows that the lane will wake.
        let (wake, woken) = bounded(1);
        self.wakes.push(wake);
        RecentReader { reader: self.filler.reader(), woken, closed: false }
    }

    /// How many lanes share the blocks.
    pub(super) fn readers(&self) -> usize {
        self.wakes.len()
    }

    /// Takes in a durable block; those that are the oldest leave, whoever has not read them. Never waits and never allocates,
    /// looks at one flag of each lane, and wakes each lane that sleeps once.
    pub(super) fn publish(&mut self, block: &Arc<Block>) {
        let span = block.first().0..block.end().0;
        let wakes = &self.wakes;
        let wake = |reader: usize| {
            // A lane that is gone misses nothing.
            wakes.get(reader).and_then(|wake| wake.try_send(()).ok());
        };
        self.filler.publish(span, block.size() as u64, Arc::clone(block), wake);
    }

    /// Lets go of the blocks: who has not read them reads the journal.
    pub(super) fn empty(&mut self) {
        self.filler.empty();
    }
}

impl RecentReader {
    /// The block that holds the entry `at`; or, when it is not in memory, the offset below which the lane reads from the
    /// journal what it has not seen. When that is not above `at`, there is nothing to do.
    pub(super) fn take(&mut self, at: Offset) -> Result<Arc<Block>, Offset> {
        if self.reader.get_up() {
            self.closed |= self.woken.try_recv() == Err(TryRecvError::Disconnected);
        }
        self.reader.take(at.0).map_err(Offset)
    }

    /// Whether a lane that has seen all below `at` may sleep on [`channel`](Self::channel). It is woken by the next block.
    pub(super) fn lie_down(&mut self, at: Offset) -> bool {
        self.reader.lie_down(at.0)
    }

    /// The channel that wakes the lane, `None` when no more blocks come.
    pub(super) fn channel(&self) -> Option<&Receiver<()>> {
        (!self.closed).then_some(&self.woken)
    }
}
