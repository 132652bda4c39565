//! The queue of a lane's blocks: each once, in offset order, without a hole, whether it came through the channel or had to be
//! read back from the journal.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError};

use super::progress::Progress;
use crate::journal::{Block, ReadJournal, StorageError};
use crate::limits::LANE_READ_BYTES;
use crate::model::{Lane, Offset, Record, records_of};

/// What an entry counts beside its payload towards the limits of batches and flushes, in bytes.
const ENTRY_OVERHEAD_BYTES: usize = 48;

pub(super) struct BlockQueue {
    lane: Lane,
    progress: Arc<Progress>,
    receiver: Receiver<Arc<Block>>,
    journal: Arc<dyn ReadJournal>,
    /// The blocks from the cursor on, without a hole.
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// The offset after the last block in the queue.
    next: Offset,
    /// A block that came through the channel while blocks before it did not.
    ahead: Option<Arc<Block>>,
    /// The committer is gone: nothing comes through the channel any more.
    closed: bool,
    /// Bytes from which on it fetches no further block.
    bytes_max: usize,
    /// Up to here it reads the journal, whatever came through the channel: it has jumped.
    reread_until: Offset,
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
}

impl BlockQueue {
    pub(super) fn new(
        lane: Lane,
        progress: Arc<Progress>,
        receiver: Receiver<Arc<Block>>,
        journal: Arc<dyn ReadJournal>,
        bytes_max: usize,
    ) -> Self {
        let next = progress.watermark(lane);
        Self {
            lane,
            progress,
            receiver,
            journal,
            blocks: VecDeque::new(),
            bytes: 0,
            next,
            ahead: None,
            closed: false,
            bytes_max,
            reread_until: Offset(0),
            trimmed_until: Offset(0),
        }
    }

    /// Fetches what there is, up to a bound. Returns how often it read from the journal.
    ///
    /// # Errors
    /// The journal cannot be read, or does not hold what it committed. The server must stop: to go on would skip entries.
    pub(super) fn fill(&mut self) -> Result<u64, StorageError> {
        let mut reads = 0;
        while !self.is_full() && self.progress.floor() <= self.next {
            let missing_until = match self.ahead.take().map_or_else(|| self.take(), Ok) {
                Ok(block) if block.end() <= self.next => continue,
                Ok(block) if block.first() <= self.next => {
                    self.push(block);
                    continue;
                }
                Ok(block) => {
                    let first = block.first();
                    self.ahead = Some(block);
                    first
                }
                Err(unsent_end) => unsent_end.max(self.reread_until),
            };
            if missing_until <= self.next {
                break;
            }
            self.read(missing_until)?;
            reads += 1;
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
        (self.bytes, self.ahead, self.next) = (0, None, to);
        self.reread_until = self.progress.durable_end();
    }

    /// The same where an operator wants it to go on; or at the lowest entry kept, if that is higher.
    pub(super) fn seek(&mut self, to: Offset) {
        self.jump(to);
        self.trimmed_until = self.reread_until;
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
        let mut taken = Taken { end: start, bytes: 0 };
        for block in &self.blocks {
            for entry in block.entries_from(taken.end) {
                let full = records.len() >= limits.records || taken.bytes >= limits.bytes;
                if until.map_or(full, |until| entry.offset >= until) {
                    return taken;
                }
                taken.end = entry.offset.plus(1);
                taken.bytes += entry.payload.len() + ENTRY_OVERHEAD_BYTES;
                let session = entry.meta.session;
                if Lane::of(session, lanes) == self.lane && !self.progress.passes_over(&entry.meta, entry.offset) {
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

    /// The journal from which it reads what does not come through the channel.
    pub(super) fn journal(&self) -> &dyn ReadJournal {
        &*self.journal
    }

    /// The channel to wait on, `None` when nothing comes through it any more.
    pub(super) fn channel(&self) -> Option<&Receiver<Arc<Block>>> {
        (!self.closed).then_some(&self.receiver)
    }

    fn take(&mut self) -> Result<Arc<Block>, Offset> {
        let receive = || {
            let received = self.receiver.try_recv();
            self.closed |= received == Err(TryRecvError::Disconnected);
            received.ok()
        };
        self.progress.take(self.lane, receive)
    }

    fn push(&mut self, block: Arc<Block>) {
        self.next = block.end();
        self.bytes += block.size();
        self.blocks.push_back(block);
    }

    fn read(&mut self, missing_until: Offset) -> Result<(), StorageError> {
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
            format_args!("the journal does not hold it, though every entry below {missing_until} was committed"),
        ))
    }
}
