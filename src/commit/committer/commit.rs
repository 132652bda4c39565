//! Commits: from a closed block to its replies.
//!
//! A commit is closed, runs, and lands. It runs in the calling thread, or in the [`Writer`]'s while this one absorbs the
//! next block. What it owes is noted when it is closed, since the dialect's memory may change while it is in flight, and is
//! paid with the receipt when it has landed.

use super::checkpoint::Written;
use super::{Committer, Downstream};
use crate::commit::writer::{Commit, Landed, Writer, WriterByHand, WriterThread};
use crate::dialect::Dialect;
use crate::journal::{Journal, StorageError};
use crate::model::{Clock, Now, Offset};
use crate::net::Transmit;

/// A commit that is closed and has not been settled: what is owed for it.
#[derive(Default)]
pub(super) struct Flight<O> {
    /// What the dialect owes for it.
    owed: O,
    /// Where the journal ends when it has landed.
    end: Offset,
    entries: usize,
    closed: Now,
    /// The checkpoint that is part of it.
    checkpoint: Option<Written>,
}

impl<D: Dialect, J: Journal, T: Transmit, L: Downstream> Committer<D, J, T, L> {
    /// From now on `launch` hands commits to a thread of their own, which calls `on_landing` when one has ended.
    pub fn start_writer(&mut self, on_landing: impl Fn() + Send + 'static) -> std::io::Result<()>
    where
        J: 'static,
    {
        self.writer = Some(Writer::Thread(WriterThread::start(on_landing)?));
        Ok(())
    }

    /// The same without a thread, for the simulator.
    #[doc(hidden)]
    pub fn start_writer_by_hand(&mut self) -> WriterByHand<J> {
        let hand = WriterByHand::new();
        self.writer = Some(Writer::ByHand(hand.clone()));
        hand
    }

    /// Commits what was absorbed, with a checkpoint if one is due, and answers it; what needs no commit is answered before.
    /// A commit in flight is waited for.
    ///
    /// An error is final: nothing that was in the block is confirmed, and nothing ever is again.
    pub fn commit(&mut self, clock: &impl Clock) -> Result<(), StorageError> {
        self.land(clock)?;
        let Some(commit) = self.close(clock) else { return Ok(()) };
        let flight = self.take_in(commit.run())?;
        self.settle(flight, clock);
        Ok(())
    }

    /// Starts to commit what was absorbed, and returns while it is in flight, if there is a thread for that; else does what
    /// `commit` does. A commit in flight is waited for. Errors are final as those of `commit`.
    pub fn launch(&mut self, clock: &impl Clock) -> Result<(), StorageError> {
        if self.writer.is_none() {
            return self.commit(clock);
        }
        let landed = self.await_landing()?;
        // The disk works again before the replies are made.
        let launched = match (self.close(clock), &self.writer) {
            (Some(commit), Some(writer)) => writer.launch(commit),
            _ => Ok(()),
        };
        if let Some(flight) = landed {
            self.settle(flight, clock);
        }
        launched.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Waits for the commit in flight, if there is one, and answers it. Errors are final as those of `commit`.
    pub fn land(&mut self, clock: &impl Clock) -> Result<(), StorageError> {
        if let Some(flight) = self.await_landing()? {
            self.settle(flight, clock);
        }
        Ok(())
    }

    /// Whether a commit is in flight.
    pub fn is_in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether `land` would not wait.
    pub fn has_landed(&self) -> bool {
        self.writer.as_ref().is_none_or(Writer::has_landed)
    }

    /// Writes a checkpoint now: at shutdown, after the lanes' last marks. Errors are final as those of `commit`.
    pub fn shut_down(&mut self, clock: &impl Clock) -> Result<(), StorageError> {
        // One that was begun, then the last.
        self.commit(clock)?;
        while self.checkpointing.is_under_way() {
            self.commit(clock)?;
        }
        self.begin_round(clock.now(), self.receipt.end());
        while self.checkpointing.is_under_way() {
            self.commit(clock)?;
        }
        Ok(())
    }

    /// Closes the block and notes what is owed for it; answers what rests on earlier commits, of which none is in flight.
    /// `None` when there is nothing to write.
    fn close(&mut self, clock: &impl Clock) -> Option<Commit<J>> {
        let now = clock.now();
        self.check_space(now);
        let mut flight = self.spares.pop().unwrap_or_default();
        let mut records = self.dialect.close(&self.receipt, &mut flight.owed, &mut self.replies, self.pressure, now);
        self.replies.flush();
        self.absorbed = 0;

        flight.end = self.receipt.end().plus(self.block.len() as u64);
        self.checkpointing.journals(if self.block.is_empty() { 0 } else { self.block.size() as u64 });
        let checkpoint = self.checkpoint(now, flight.end, &mut records);
        if self.block.is_empty() && records.is_empty() && checkpoint.is_none() {
            // All that it rests on is durable already.
            self.dialect.answer(&self.receipt, &mut flight.owed, &mut self.replies, self.pressure, now);
            self.replies.flush();
            self.spares.push(flight);
            self.report();
            return None;
        }
        flight.entries = self.block.len();
        flight.closed = now;
        flight.checkpoint = checkpoint.as_ref().map(Written::of);
        self.flight = Some(flight);
        let block = std::mem::replace(&mut self.block, std::mem::take(&mut self.spare_block));
        let journal = self.journal.take().expect("no commit is in flight");
        Some(Commit { journal, block, records, checkpoint })
    }

    /// Waits for the commit in flight, and returns what is owed for it.
    fn await_landing(&mut self) -> Result<Option<Flight<D::Owed>>, StorageError> {
        self.check_journal()?;
        let (Some(_), Some(writer)) = (&self.flight, &self.writer) else { return Ok(None) };
        let landed = writer.land().inspect_err(|error| self.failed = Some(error.clone()))?;
        self.take_in(landed).map(Some)
    }

    /// Takes the journal back, and the receipt if there is one; returns what is owed.
    fn take_in(&mut self, landed: Landed<J>) -> Result<Flight<D::Owed>, StorageError> {
        let Landed { journal, block, result } = landed;
        self.journal = Some(journal);
        self.spare_block = block;
        let flight = self.flight.take().expect("a commit that landed was closed before");
        self.receipt = result.inspect_err(|error| self.failed = Some(error.clone()))?;
        self.check_journal()?;
        self.dialect.landed(&self.receipt, &flight.owed);
        assert!(self.receipt.end() == flight.end, "the journal ends elsewhere than the commit that it has taken");
        if let Some(block) = self.receipt.block() {
            let bytes = block.size() as u64;
            self.backlog.push(block.first(), bytes);
            self.space.wrote(bytes);
        }
        Ok(flight)
    }

    /// Pays what is owed for a commit that has landed, and lets the lanes know of it.
    fn settle(&mut self, mut flight: Flight<D::Owed>, clock: &impl Clock) {
        self.count(&flight, clock.now());
        self.dialect.answer(&self.receipt, &mut flight.owed, &mut self.replies, self.pressure, clock.now());
        self.replies.flush();
        // After the replies: waking the lanes takes time that clients need not wait.
        if self.receipt.block().is_some() {
            self.downstream.committed(&self.receipt);
        }
        if let Some(written) = flight.checkpoint.take() {
            self.checkpointed(written);
        }
        self.spares.push(flight);
        self.report();
    }

    fn count(&self, flight: &Flight<D::Owed>, now: Now) {
        self.metrics.journal_bytes.inc_by(self.receipt.block().map_or(0, |block| block.size() as u64));
        self.metrics.commits.inc();
        #[allow(clippy::cast_precision_loss)] // metrics
        {
            self.metrics.commit_entries.observe(flight.entries as f64);
            self.metrics.commit_seconds.observe(now.mono_us.saturating_sub(flight.closed.mono_us) as f64 / 1e6);
        }
    }
}
