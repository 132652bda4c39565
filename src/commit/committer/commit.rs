//! Commits: from a closed block to its acks.
//!
//! A commit is closed, appended to the journal, and lands. How many may be in flight between, and in which thread they are
//! written, the [`Journal`] says. What a commit owes is noted when it is closed, since the sessions may change while it is in
//! flight, and is paid with the receipt when it has landed. A checkpoint is part of a commit: at that moment the sessions'
//! state is exactly what the journal, the commits in flight and the block hold.

use super::{Committer, Downstream, PendingAck, PendingWelcome};
use crate::commit::acks::{self, AckState, Bitmaps};
use crate::journal::{Checkpoint, Commit, DeadLetterId, Durable, Journal, JournalError, Landed, Records};
use crate::limits;
use crate::model::{Clock, LaneMark, Now, Offset, SessionId};
use crate::net::Transmit;

/// What is owed for a commit.
#[derive(Default)]
pub(super) struct Flight {
    /// Of the commit.
    number: u64,
    acks: Vec<Owed>,
    bitmaps: Bitmaps,
    welcomes: Vec<PendingWelcome>,
    /// The limit of the counter that is part of it.
    counter_limit: Option<u64>,
    /// Where the journal ends when it has landed.
    end: Offset,
    entries: usize,
    /// Datagrams in the block.
    journaled: u64,
    closed: Now,
    /// Offset, lanes and deleted dead letters of the checkpoint that is part of it.
    checkpoint: Option<(Offset, Vec<LaneMark>, Vec<DeadLetterId>)>,
}

struct Owed {
    state: AckState,
    /// When the first of its datagrams arrived, in monotonic microseconds.
    first_us: u64,
    journaled: bool,
}

const _: () = assert!(
    size_of::<Owed>() <= limits::OWED_ACK_BYTES
        && size_of::<PendingAck>() <= limits::PENDING_ACK_BYTES
        && size_of::<PendingWelcome>() <= limits::PENDING_ACK_BYTES
        && size_of::<SessionId>() <= limits::RENEWED_SESSION_BYTES
);

/// A checkpoint that is being written, over as many commits as its records need.
pub(super) struct Round {
    /// The sessions' records will include every entry below.
    at: Offset,
    /// Sessions whose records are still to be written.
    left: usize,
    /// Records were written.
    begun: bool,
    /// Sessions that had expired when it began: all that they count was in an earlier checkpoint.
    expired: Vec<SessionId>,
}

impl<J: Journal, T: Transmit, D: Downstream> Committer<J, T, D> {
    /// From now on commits may land beside this thread, as the journal sees fit; it calls `notify` when one has ended.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn notify_landings(&mut self, notify: impl Fn() + Send + 'static) -> std::io::Result<()> {
        self.journal.notify_landings(Box::new(notify))
    }

    /// Commits what was absorbed, with a checkpoint if one is due, and acks it; what needs no commit is sent before.
    /// Commits in flight are waited for.
    ///
    /// An error is final: nothing that was in the block is acked, and nothing is ever acked again.
    pub fn commit(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        self.land(clock)?;
        self.append(clock)?;
        self.land(clock)
    }

    /// Starts to commit what was absorbed, and acks what has landed. Waits for a commit in flight if no more may be, and for
    /// this one if the journal writes it in this thread. Errors are final as those of `commit`.
    pub fn launch(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        self.check_journal()?;
        let landed = if self.may_launch() { None } else { Some(self.take_in()?) };
        // The disk works again before the acks are made.
        self.append(clock)?;
        if let Some((flight, receipt)) = landed {
            self.settle(flight, &receipt, clock);
        }
        while self.is_in_flight() && self.journal.landed() {
            self.land_oldest(clock)?;
        }
        Ok(())
    }

    /// Waits for the commits in flight, if there are any, and acks them. Errors are final as those of `commit`.
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

    /// Whether one more commit may be in flight, so that `launch` would not wait for another.
    pub fn may_launch(&self) -> bool {
        self.flights.len() < self.journal.under_way_max()
    }

    /// Whether `land` would not wait.
    pub fn has_landed(&self) -> bool {
        self.flights.is_empty() || self.journal.landed()
    }

    /// Writes a checkpoint now: at shutdown, after the lanes' last marks. Errors are final as those of `commit`.
    pub fn shut_down(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        // One that was begun, then the last.
        self.commit(clock)?;
        while self.round.is_some() {
            self.commit(clock)?;
        }
        self.begin_round(clock.now(), self.receipt.end());
        while self.round.is_some() {
            self.commit(clock)?;
        }
        Ok(())
    }

    /// Closes the block and gives it to the journal.
    fn append(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        let Some(commit) = self.close(clock) else { return Ok(()) };
        self.journal.append(commit).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Closes the block and notes what is owed for it; acks what rests on commits that have landed. `None` when there is
    /// nothing to write.
    fn close(&mut self, clock: &impl Clock) -> Option<Commit> {
        let now = clock.now();
        self.check_space(now);
        self.out.set_time(now);
        let mut flight = self.spares.pop().unwrap_or_default();
        flight.number = self.number;
        self.owe(&mut flight, now);
        self.send();
        self.absorbed = 0;

        let mut records = Records {
            sessions: Vec::with_capacity(self.records.len()),
            clients: self.clients.drain(..).map(|client| self.epochs.record(client)).collect(),
            given_up: std::mem::take(&mut self.renewed),
            counter_limit: self.out.limit_due().filter(|_| self.config.sealed),
        };
        for index in self.records.drain(..) {
            let session = self.sessions.at(index);
            session.recorded = false;
            records.sessions.push(session.record());
        }
        flight.end = self.appended_end().plus(self.block.len() as u64);
        self.bytes_since_checkpoint += if self.block.is_empty() { 0 } else { self.block.size() as u64 };
        let checkpoint = self.checkpoint(now, flight.end, &mut records);
        if self.block.is_empty() && records.is_empty() && checkpoint.is_none() {
            debug_assert!(flight.acks.is_empty(), "a session changed and nothing is written");
            self.spares.push(flight);
            self.report();
            match self.flights.back_mut() {
                // It may be theirs.
                Some(last) => last.welcomes.append(&mut self.welcomes),
                None => self.pay_welcomes(),
            }
            return None;
        }
        flight.welcomes.append(&mut self.welcomes);
        flight.entries = self.block.len();
        flight.journaled = std::mem::take(&mut self.journaled);
        flight.closed = now;
        flight.counter_limit = records.counter_limit;
        flight.checkpoint =
            checkpoint.as_ref().map(|checkpoint| (checkpoint.at, checkpoint.lanes.clone(), checkpoint.retried.clone()));
        self.flights.push_back(flight);
        self.number += 1;
        let block = std::mem::replace(&mut self.block, self.spare_blocks.pop().unwrap_or_default());
        Some(Commit { block, records, checkpoint })
    }

    /// Where the journal ends when all that was appended has landed.
    fn appended_end(&self) -> Offset {
        self.flights.back().map_or(self.receipt.end(), |last| last.end)
    }

    /// Acks the sessions of which all is durable, and notes what the others are owed.
    fn owe(&mut self, flight: &mut Flight, now: Now) {
        let credit = self.credit();
        let mut bitmaps = Bitmaps::new();
        let mut pending = std::mem::take(&mut self.pending);
        for PendingAck { session, to, first_us, journaled } in pending.drain(..) {
            let session = self.sessions.at(session);
            session.pending = u32::MAX;
            // Those that are in flight count upwards without a gap to the one being closed.
            let oldest = self.flights.front().map_or(self.number, |oldest| oldest.number);
            if let Some(ahead) = session.changed_for.checked_sub(oldest) {
                let flight = self.flights.get_mut(ahead as usize).unwrap_or(flight);
                let state = AckState::of(session, to, !journaled, &mut flight.bitmaps);
                flight.acks.push(Owed { state, first_us, journaled });
            } else {
                bitmaps.clear();
                let state = AckState::of(session, to, !journaled, &mut bitmaps);
                acks::ack(&self.receipt, &state, &bitmaps, credit, now.mono_us, &mut self.out);
                self.send_if_many();
            }
        }
        self.pending = pending;
    }

    fn land_oldest(&mut self, clock: &impl Clock) -> Result<(), JournalError> {
        let (flight, receipt) = self.take_in()?;
        self.settle(flight, &receipt, clock);
        Ok(())
    }

    /// Waits for the oldest commit in flight; returns what is owed for it, and its receipt.
    fn take_in(&mut self) -> Result<(Flight, Durable), JournalError> {
        let landed = self.journal.land();
        let Landed { receipt, block } = landed.inspect_err(|error| self.failed = Some(error.clone()))?;
        self.spare_blocks.push(block);
        let flight = self.flights.pop_front().expect("a commit that landed was closed before");
        self.receipt = receipt.clone();
        self.check_journal()?;
        if let Some(limit) = flight.counter_limit {
            self.out.limit_stored(limit);
        }
        assert!(self.receipt.end() == flight.end, "the journal ends elsewhere than the commit that it has taken");
        if let Some(block) = self.receipt.block() {
            let bytes = block.size() as u64;
            self.backlog.push(block.first(), bytes);
            self.bytes_since_space_check += bytes;
        }
        Ok((flight, receipt))
    }

    /// Acks, and lets the lanes know.
    fn settle(&mut self, mut flight: Flight, receipt: &Durable, clock: &impl Clock) {
        self.count(&flight, receipt, clock.now());
        self.pay(&mut flight, receipt, clock);
        // After the acks: waking the lanes takes time that clients need not wait.
        if receipt.block().is_some() {
            self.downstream.committed(receipt);
        }
        if let Some((at, lanes, retried)) = flight.checkpoint.take() {
            self.downstream.checkpointed(&retried);
            self.checkpoint_at = at;
            self.checkpoint_marks = lanes;
            self.metrics.checkpoints.inc();
        }
        self.spares.push(flight);
        self.report();
    }

    /// Sends what is owed for a commit, on the strength of its receipt.
    fn pay(&mut self, flight: &mut Flight, receipt: &Durable, clock: &impl Clock) {
        let (now, credit) = (clock.now(), self.credit());
        self.out.set_time(now);
        for Owed { state, first_us, journaled } in flight.acks.drain(..) {
            acks::ack(receipt, &state, &flight.bitmaps, credit, now.mono_us, &mut self.out);
            if journaled {
                self.metrics.ack_delay_seconds.observe(seconds(now.mono_us.saturating_sub(first_us)));
            }
            self.send_if_many();
        }
        flight.bitmaps.clear();
        for welcome in flight.welcomes.drain(..) {
            self.welcome(welcome);
        }
        self.send();
    }

    /// Repeated HELLOs whose epochs are durable already.
    fn pay_welcomes(&mut self) {
        let mut welcomes = std::mem::take(&mut self.welcomes);
        for welcome in welcomes.drain(..) {
            self.welcome(welcome);
        }
        self.welcomes = welcomes;
        self.send();
    }

    fn welcome(&mut self, PendingWelcome { id, nonce, to }: PendingWelcome) {
        acks::welcome(&self.receipt, id, nonce, &to, self.credit(), &mut self.out);
        self.send_if_many();
    }

    fn count(&self, flight: &Flight, receipt: &Durable, now: Now) {
        self.metrics.count("journaled", flight.journaled);
        self.metrics.journal_bytes.inc_by(receipt.block().map_or(0, |block| block.size() as u64));
        self.metrics.commits.inc();
        #[allow(clippy::cast_precision_loss)] // a metric
        self.metrics.commit_entries.observe(flight.entries as f64);
        self.metrics.commit_seconds.observe(seconds(now.mono_us.saturating_sub(flight.closed.mono_us)));
    }

    /// The checkpoint that the commit ending at `end` completes, if it completes one. Else the next piece of one that is
    /// being written is added to `records`: records may be newer than the checkpoint that recovery starts from, since
    /// applying an entry twice changes nothing.
    fn checkpoint(&mut self, now: Now, end: Offset, records: &mut Records) -> Option<Checkpoint> {
        if self.round.is_none() && self.is_checkpoint_due(now) {
            self.begin_round(now, end);
        }
        let round = self.round.as_mut()?;
        let (taken, sessions) = self.sessions.take_touched(round.left, limits::CHECKPOINT_RECORD_BYTES);
        round.left -= taken;
        if round.left > 0 {
            round.begun = true;
            records.sessions.extend(sessions);
            return None;
        }
        let Round { at, begun, mut expired, .. } = self.round.take()?;
        // One that was opened again meanwhile has a record that must stay.
        expired.retain(|id| self.sessions.find(*id).is_none());
        // Before the marks, which then cover them.
        let retried = self.downstream.retried();
        let lanes = self.downstream.marks();
        if !begun && sessions.is_empty() && expired.is_empty() && retried.is_empty() && lanes == self.checkpoint_marks {
            return None;
        }
        let watermark = lanes.iter().map(|mark| mark.watermark).min().unwrap_or_default();
        if let Some(below) = self.backlog.trim(watermark.min(at), self.config.retain_bytes) {
            self.trimmed_below = below;
        }
        // Below, when a loss was accepted: the lanes have yet to pass what is gone.
        let trim_below = self.trimmed_below.min(watermark).min(at);
        let former = self.downstream.former(&lanes);
        Some(Checkpoint { at, sessions, expired, lanes, former, retried, trim_below })
    }

    fn is_checkpoint_due(&self, now: Now) -> bool {
        self.bytes_since_checkpoint >= self.config.checkpoint_bytes
            || now.mono_us.saturating_sub(self.checkpoint_mono_us) >= self.config.checkpoint_interval_us
            || self.downstream.take_checkpoint_request()
    }

    fn begin_round(&mut self, now: Now, at: Offset) {
        self.checkpoint_mono_us = now.mono_us;
        self.bytes_since_checkpoint = 0;
        // Before records are taken: a session that has changed since the last checkpoint does not expire.
        let expire_before_s = self.service_s(now).saturating_sub(self.config.session_ttl_s);
        let mut expired = self.sessions.expire(expire_before_s, limits::SESSIONS_SWEPT);
        expired.append(&mut self.given_up);
        self.metrics.sessions_expired.inc_by(expired.len() as u64);
        self.round = Some(Round { at, left: self.sessions.touched(), begun: false, expired });
    }
}

#[allow(clippy::cast_precision_loss)] // a metric
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
