//! The queue of a lane's blocks: each once, in offset order, without a hole, whether it was among the recent ones or had to be
//! read back from the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::progress::Progress;
use super::recent::RecentReader;
use crate::journal::{Block, ReadJournal, StorageError};
use crate::limits::LANE_READ_BYTES;
use crate::model::{Lane, Offset, Record, records_of};

/// What an entry counts beside its payload towards the limits of batches and flushes, in bytes.
const ENTRY_OVERHEAD_BYTES: usize = 48;

pub(super) struct BlockQueue {
    lane: Lane,
    progress: Arc<Progress>,
    recent: RecentReader,
    journal: Arc<dyn ReadJournal>,
    /// The blocks from the cursor on, without a hole.
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// The offset after the last block in the queue.
    next: Offset,
    /// Bytes from which on it fetches no further block.
    bytes_max: usize,
    /// Up to here what it lacks may have been trimmed before it was to begin there.
    trimmed_until: Offset,
}

/// What a walk over the queue takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// What a walk over the queue took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taken {
    /// The offset after the last entry that was looked at.
    pub(super) end: Offset,
    /// Bytes of all entries that were looked at, those of other lanes too.
    pub(super) bytes: usize,
    /// Some of them asked, and are not for this sink.
    pub(super) passes_asks: bool,
    /// Somebody may have asked with an entry of these.
    pub(super) may_ask: bool,
}

impl BlockQueue {
    pub(super) fn new(
        lane: Lane,
        progress: Arc<Progress>,
        recent: RecentReader,
        journal: Arc<dyn ReadJournal>,
        bytes_max: usize,
    ) -> Self {
        let next = progress.watermark(lane);
        let blocks = VecDeque::new();
        Self { lane, progress, recent, journal, blocks, bytes: 0, next, bytes_max, trimmed_until: Offset(0) }
    }

    /// Fetches what there is, up to a bound. Returns how often it read from the journal.
    ///
    /// # Errors
    /// The journal cannot be read, or does not hold what it committed. The server must stop: to go on would skip entries.
    pub(super) fn fill(&mut self) -> Result<u64, StorageError> {
        let mut reads = 0;
        while !self.is_full() && self.progress.floor() <= self.next {
            match self.recent.take(self.next) {
                Ok(block) => self.push(block),
                Err(durable_end) if durable_end <= self.next => break,
                Err(durable_end) => {
                    self.read(durable_end)?;
                    reads += 1;
                }
            }
        }
        Ok(reads)
    }

    /// Whether it fetches nothing more for now.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Goes on at another place, with nothing fetched.
    pub(super) fn jump(&mut self, to: Offset) {
        self.blocks.clear();
        (self.bytes, self.next) = (0, to);
    }

    /// The same where an operator wants it to go on; or at the lowest entry kept, if that is higher. Returns where that is.
    ///
    /// # Errors
    /// The journal cannot be read; nothing has changed.
    pub(super) fn seek(&mut self, to: Offset) -> Result<Offset, StorageError> {
        let kept = self.journal.read(to, 1)?;
        let to = kept.first().map_or(to, |block| block.first().max(to));
        self.jump(to);
        // It may be trimmed until the next checkpoint stores where it goes on.
        self.trimmed_until = self.progress.durable_end();
        Ok(to)
    }

    /// Appends the lane's records from `from` on, whole entries only, until a limit is reached, or up to `until`.
    pub(super) fn records<'q>(
        &'q self,
        lanes: u16,
        from: Offset,
        until: Option<Offset>,
        limits: Limits,
        records: &mut Vec<Record<'q>>,
    ) -> Taken {
        // With nothing in the queue, all from there up to what comes next is a hole that was given up.
        let start = if self.blocks.is_empty() { from.max(self.next) } else { from };
        let mut taken = Taken { end: start, bytes: 0, passes_asks: false, may_ask: false };
        for block in &self.blocks {
            taken.may_ask |= block.has_asks();
            for entry in block.entries_from(taken.end) {
                let full = records.len() >= limits.records || taken.bytes >= limits.bytes;
                if until.map_or(full, |until| entry.offset >= until) {
                    return taken;
                }
                taken.end = entry.offset.plus(1);
                taken.bytes += entry.payload.len() + ENTRY_OVERHEAD_BYTES;
                let session = entry.meta.session;
                if Lane::of(session, lanes) != self.lane {
                    continue;
                }
                if self.progress.passes_over(&entry.meta, entry.offset) {
                    taken.passes_asks |= entry.meta.asks;
                } else {
                    records.extend(records_of(&entry));
                }
            }
        }
        taken
    }

    /// Everything below is finished: forgets its blocks.
    pub(super) fn release(&mut self, below: Offset) {
        while self.blocks.front().is_some_and(|block| block.end() <= below) {
            self.bytes -= self.blocks.pop_front().map_or(0, |block| block.size());
        }
    }

    /// The journal from which it reads what is not in memory any more.
    pub(super) fn journal(&self) -> &dyn ReadJournal {
        &*self.journal
    }

    /// Whether the lane may sleep on [`channel`](Self::channel) until the next block: no, when there is one already.
    pub(super) fn lie_down(&mut self) -> bool {
        self.recent.lie_down(self.next)
    }

    /// The channel that wakes the lane, `None` when no more blocks come.
    pub(super) fn channel(&self) -> Option<&Receiver<()>> {
        self.recent.channel()
    }

    fn push(&mut self, block: Arc<Block>) {
        self.next = block.end();
        self.bytes += block.size();
        self.blocks.push_back(block);
    }

    fn read(&mut self, durable_end: Offset) -> Result<(), StorageError> {
        let from = self.next;
        self.next = self.journal.resume(self.next);
        for block in self.journal.read(self.next, LANE_READ_BYTES)? {
            if block.first() > self.next {
                self.next = self.journal.resume(self.next);
            }
            if block.first() > self.next && self.blocks.is_empty() && self.next < self.trimmed_until {
                self.next = block.first();
            }
            if block.first() > self.next {
                break;
            }
            if block.end() > self.next {
                self.push(block);
            }
        }
        // What is lost to the sink may be trimmed while it is read.
        if self.next > from || self.progress.floor() > from {
            return Ok(());
        }
        Err(StorageError::new(
            format!("reading entry {from} for lane {}", self.lane),
            format_args!("the journal does not hold it, though every entry below {durable_end} was committed"),
        ))
    }
}
