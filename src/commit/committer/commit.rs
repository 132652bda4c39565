//! Commits: from a closed block to its replies.
//!
//! A commit is closed, appended to the journal, and lands. How many may be in flight between, and in which thread they are
//! written, the [`Journal`] says. What a commit owes is noted when it is closed, since the dialect's memory may change while
//! it is in flight, and is paid with the receipt when it has landed.

use std::sync::Arc;

use super::checkpoint::Written;
use super::{Committer, Downstream};
use crate::commit::ask_control::Told;
use crate::dialect::Dialect;
use crate::journal::{Commit, Durable, Journal, JournalError, Landed, Records};
use crate::limits;
use crate::model::{Clock, Now, Offset};
use crate::net::Transmit;

/// A commit that is closed and has not been settled: what is owed for it.
#[derive(Default)]
pub(super) struct Flight<O> {
    /// What the dialect owes for it.
    owed: O,
    /// What was to be answered later, needed nothing to be written, and may rest on this commit.
    riders: Vec<O>,
    /// Where the journal ends when it has landed.
    end: Offset,
    entries: usize,
    closed: Now,
    /// The checkpoint that is part of it.
    checkpoint: Option<Written>,
    /// What operators are told when the commit has landed.
    told: Vec<Told>,
}

impl<D: Dialect, J: Journal, T: Transmit, L: Downstream> Committer<D, J, T, L> {
    /// From now on commits may land beside this thread, as the journal sees fit; it calls `notify` when one has ended.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn notify_landings(&mut self, notify: impl Fn() + Send + 'static) -> std::io::Result<()> {
        self.journal.notify_landings(Box::new(notify))
    }

    /// Commits what was absorbed, with a checkpoint if one is due, and answers it; what needs no commit is answered before.
    /// Commits in flight are waited for.
    ///
    /// An error is final: nothing that was in the block is confirmed, and nothing ever is again.
    pub fn commit(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        self.land(clock)?;
        self.append(clock)?;
        self.land(clock)
    }

    /// Starts to commit what was absorbed, and answers what has landed. Waits for a commit in flight if no more may be, and
    /// for this one if the journal writes it in this thread. Errors are final as those of `commit`.
    pub fn launch(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        self.check_journal()?;
        let landed = if self.may_launch() { None } else { Some(self.take_in()?) };
        // The disk works again before the replies are made.
        self.append(clock)?;
        if let Some((flight, receipt)) = landed {
            self.settle(flight, &receipt, clock);
        }
        while self.is_in_flight() && self.journal.landed() {
            self.land_oldest(clock)?;
        }
        Ok(())
    }

    /// Waits for the commits in flight, if there are any, and answers them. Errors are final as those of `commit`.
    pub fn land(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        self.check_journal()?;
        while self.is_in_flight() {
            self.land_oldest(clock)?;
        }
        Ok(())
    }

    /// Whether a commit is in flight.
    pub fn is_in_flight(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Whether the next commit is to be launched before the oldest in flight has landed, so that `launch` would not wait for that.
    pub fn may_launch(&self) -> bool {
        self.journal.has_place(self.block.size())
    }

    /// Whether `land` would not wait.
    pub fn has_landed(&self) -> bool {
        self.flights.is_empty() || self.journal.landed()
    }

    /// Commits, and then until a checkpoint that this has begun is whole, however many writes its records take. Errors are final as
    /// those of `commit`.
    pub fn commit_checkpoint(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        self.commit(clock)?;
        while self.checkpointing.is_under_way() {
            self.commit(clock)?;
        }
        Ok(())
    }

    /// Writes a checkpoint now: at shutdown, after the lanes' last marks. Errors are final as those of `commit`.
    pub fn shut_down(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        // One that was begun, then the last.
        self.commit_checkpoint(clock)?;
        self.begin_round(clock.now(), self.receipt.end());
        self.commit_checkpoint(clock)
    }

    /// Closes the block and gives it to the journal.
    fn append(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        let Some(commit) = self.close(clock) else { return Ok(()) };
        self.journal.append(commit).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Closes the block and notes what is owed for it; answers what rests on commits that have landed. `None` when there is
    /// nothing to write.
    fn close(&mut self, clock: &impl Clock) -> Option<Commit> {
        let now = clock.now();
        self.check_space(now);
        self.check_bounds(now);
        let mut flight = self.spares.pop().unwrap_or_default();
        flight.end = self.appended_end().plus(self.block.len() as u64);
        self.checkpointing.journals(if self.block.is_empty() { 0 } else { self.block.size() as u64 });
        let mut of_checkpoint = Records::default();
        let checkpoint = self.listen(now, flight.end, &mut of_checkpoint);
        flight.told.extend(self.ask_requests.answer_next(|request| self.dialect.tell_of_asks(request, now)));
        let mut records = self.dialect.close(&self.receipt, &mut flight.owed, &mut self.replies, self.pressure, now);
        records.sessions.append(&mut of_checkpoint.sessions);
        records.asks.append(&mut of_checkpoint.asks);
        records.forgotten.append(&mut of_checkpoint.forgotten);
        self.replies.flush();
        (self.absorbed, self.absorbed_from_us) = (0, u64::MAX);

        if self.block.is_empty() && records.is_empty() && checkpoint.is_none() {
            if let Some(last) = self.flights.back_mut() {
                last.riders.push(std::mem::take(&mut flight.owed));
                last.told.append(&mut flight.told);
            } else {
                // All that it rests on is durable already.
                self.dialect.answer(&self.receipt, &mut flight.owed, &mut self.replies, self.pressure, now);
                self.replies.flush();
                flight.told.drain(..).for_each(Told::tell);
            }
            self.spares.push(flight);
            self.report();
            self.rest_if_quiet(now);
            return None;
        }
        if self.block.is_empty() && 2 * self.turnaround_us <= limits::LINGER_US {
            // It has waited in vain: the next ones do not, until messages have come soon again.
            self.turnaround_us = 2 * limits::LINGER_US;
        }
        flight.entries = self.block.len();
        flight.closed = now;
        flight.checkpoint = checkpoint.as_ref().map(Written::of);
        self.flights.push_back(flight);
        let block = std::mem::replace(&mut self.block, self.spare_blocks.pop().unwrap_or_default());
        Some(Commit { block, records, checkpoint: checkpoint.map(|(checkpoint, _)| checkpoint) })
    }

    /// Where the journal ends when all that was appended has landed.
    pub(super) fn appended_end(&self) -> Offset {
        self.flights.back().map_or(self.receipt.end(), |last| last.end)
    }

    fn land_oldest(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        let (flight, receipt) = self.take_in()?;
        self.settle(flight, &receipt, clock);
        Ok(())
    }

    /// Waits for the oldest commit in flight; returns what is owed for it, and its receipt.
    fn take_in(&mut self) -> Result<(Flight<D::Owed>, Arc<Durable>), JournalError> {
        let landed = self.journal.land();
        let Landed { receipt, block } = landed.inspect_err(|error| self.failed = Some(error.clone()))?;
        self.spare_blocks.push(block);
        let flight = self.flights.pop_front().expect("a commit that landed was closed before");
        self.receipt = Arc::new(receipt);
        self.check_journal()?;
        self.dialect.landed(&self.receipt, &flight.owed);
        assert!(self.receipt.end() == flight.end, "the journal ends elsewhere than the commit that it has taken");
        if let Some(block) = self.receipt.block() {
            let bytes = block.size() as u64;
            self.backlog.push(block.first(), bytes);
            self.space.wrote(bytes);
            self.bounds.wrote(bytes);
        }
        Ok((flight, Arc::clone(&self.receipt)))
    }

    /// Pays what is owed for a commit that has landed, and lets the lanes know of it.
    fn settle(&mut self, mut flight: Flight<D::Owed>, receipt: &Durable, clock: &impl Clock) {
        let now = clock.now();
        self.count(&flight, receipt, now);
        self.dialect.answer(receipt, &mut flight.owed, &mut self.replies, self.pressure, now);
        for mut owed in flight.riders.drain(..) {
            self.dialect.answer(receipt, &mut owed, &mut self.replies, self.pressure, now);
        }
        self.replies.flush();
        // After the replies: waking the lanes takes time that clients need not wait.
        if receipt.block().is_some() {
            (self.acked_us, self.rests) = (Some(now.mono_us), false);
            self.downstream.committed(receipt);
        }
        if let Some(written) = flight.checkpoint.take() {
            self.checkpointed(written);
        }
        flight.told.drain(..).for_each(Told::tell);
        self.spares.push(flight);
        self.report();
    }

    fn count(&self, flight: &Flight<D::Owed>, receipt: &Durable, now: Now) {
        self.metrics.journal_bytes.inc_by(receipt.block().map_or(0, |block| block.size() as u64));
        self.metrics.commits.inc();
        #[allow(clippy::cast_precision_loss)] // metrics
        {
            self.metrics.commit_entries.observe(flight.entries as f64);
            self.metrics.commit_seconds.observe(now.mono_us.saturating_sub(flight.closed.mono_us) as f64 / 1e6);
        }
    }
}
