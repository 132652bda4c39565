//! Commits: from a closed block to its acks.
//!
//! A commit is closed, runs, and lands. It runs in the calling thread, or in the [`Writer`]'s while this one absorbs the
//! next block. What it owes is noted when it is closed, since the sessions may change while it is in flight, and is
//! paid with the receipt when it has landed. A checkpoint is part of a commit: at that moment the sessions' state is exactly
//! what the journal and the block hold.

use super::{Committer, Downstream, PendingAck, PendingWelcome};
use crate::commit::acks::{self, AckState, Bitmaps};
use crate::commit::writer::{Commit, Landed, Writer, WriterByHand, WriterThread};
use crate::journal::{Checkpoint, DeadLetterId, Journal, Records, StorageError};
use crate::limits;
use crate::model::{Clock, LaneMark, LaneMessage, Now, Offset, SessionId};
use crate::net::Transmit;

/// What is owed for a commit.
#[derive(Default)]
pub(super) struct Flight {
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

    /// Commits what was absorbed, with a checkpoint if one is due, and acks it; what needs no commit is sent before.
    /// A commit in flight is waited for.
    ///
    /// An error is final: nothing that was in the block is acked, and nothing is ever acked again.
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
        // The disk works again before the acks are made.
        let launched = match (self.close(clock), &self.writer) {
            (Some(commit), Some(writer)) => writer.launch(commit),
            _ => Ok(()),
        };
        if let Some(flight) = landed {
            self.settle(flight, clock);
        }
        launched.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Waits for the commit in flight, if there is one, and acks it. Errors are final as those of `commit`.
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
        while self.round.is_some() {
            self.commit(clock)?;
        }
        self.begin_round(clock.now(), self.receipt.end());
        while self.round.is_some() {
            self.commit(clock)?;
        }
        Ok(())
    }

    /// Closes the block and notes what is owed for it; acks what rests on earlier commits, of which none is in flight.
    /// `None` when there is nothing to write.
    fn close(&mut self, clock: &impl Clock) -> Option<Commit<J>> {
        let now = clock.now();
        self.check_space(now);
        self.out.set_time(now);
        let mut flight = self.spares.pop().unwrap_or_default();
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
        flight.end = self.receipt.end().plus(self.block.len() as u64);
        self.bytes_since_checkpoint += if self.block.is_empty() { 0 } else { self.block.size() as u64 };
        let checkpoint = self.checkpoint(now, flight.end, &mut records);
        if self.block.is_empty() && records.is_empty() && checkpoint.is_none() {
            debug_assert!(flight.acks.is_empty(), "a session changed and nothing is written");
            self.spares.push(flight);
            self.report();
            self.pay_welcomes();
            return None;
        }
        flight.welcomes.append(&mut self.welcomes);
        flight.entries = self.block.len();
        flight.journaled = std::mem::take(&mut self.journaled);
        flight.closed = now;
        flight.counter_limit = records.counter_limit;
        flight.checkpoint =
            checkpoint.as_ref().map(|checkpoint| (checkpoint.at, checkpoint.lanes.clone(), checkpoint.retried.clone()));
        self.flight = Some(flight);
        self.number += 1;
        let block = std::mem::replace(&mut self.block, std::mem::take(&mut self.spare_block));
        let journal = self.journal.take().expect("no commit is in flight");
        Some(Commit { journal, block, records, checkpoint })
    }

    /// Acks the sessions that the block has not changed, and notes what the others are owed.
    fn owe(&mut self, flight: &mut Flight, now: Now) {
        let credit = self.credit();
        let mut bitmaps = Bitmaps::new();
        let mut pending = std::mem::take(&mut self.pending);
        for PendingAck { session, to, first_us, journaled } in pending.drain(..) {
            let session = self.sessions.at(session);
            session.pending = u32::MAX;
            if session.changed_for == self.number {
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

    /// Waits for the commit in flight, and returns what is owed for it.
    fn await_landing(&mut self) -> Result<Option<Flight>, StorageError> {
        self.check_journal()?;
        let (Some(_), Some(writer)) = (&self.flight, &self.writer) else { return Ok(None) };
        let landed = writer.land().inspect_err(|error| self.failed = Some(error.clone()))?;
        self.take_in(landed).map(Some)
    }

    /// Takes the journal back, and the receipt if there is one; returns what is owed.
    fn take_in(&mut self, landed: Landed<J>) -> Result<Flight, StorageError> {
        let Landed { journal, block, result } = landed;
        self.journal = Some(journal);
        self.spare_block = block;
        let flight = self.flight.take().expect("a commit that landed was closed before");
        self.receipt = result.inspect_err(|error| self.failed = Some(error.clone()))?;
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
        Ok(flight)
    }

    /// Acks, and lets the lanes know.
    fn settle(&mut self, mut flight: Flight, clock: &impl Clock) {
        self.count(&flight, clock.now());
        self.pay(&mut flight, clock);
        // After the acks: waking the lanes takes time that clients need not wait.
        if self.receipt.block().is_some() {
            self.downstream.committed(&self.receipt);
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
    fn pay(&mut self, flight: &mut Flight, clock: &impl Clock) {
        let (now, credit) = (clock.now(), self.credit());
        self.out.set_time(now);
        for Owed { state, first_us, journaled } in flight.acks.drain(..) {
            acks::ack(&self.receipt, &state, &flight.bitmaps, credit, now.mono_us, &mut self.out);
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

    fn count(&self, flight: &Flight, now: Now) {
        self.metrics.count("journaled", flight.journaled);
        self.metrics.journal_bytes.inc_by(self.receipt.block().map_or(0, |block| block.size() as u64));
        self.metrics.commits.inc();
        #[allow(clippy::cast_precision_loss)] // a metric
        self.metrics.commit_entries.observe(flight.entries as f64);
        self.metrics.commit_seconds.observe(seconds(now.mono_us.saturating_sub(flight.closed.mono_us)));
    }

    /// The checkpoint that the commit ending at `end` completes, if it completes one. Else the next piece of one that is
    /// being written is added to `records`: records may be newer than the checkpoint that recovery starts from, since
    /// applying an entry twice changes nothing.
    fn checkpoint(&mut self, now: Now, end: Offset, records: &mut Records) -> Option<Checkpoint> {
        while let Some(message) = self.downstream.next_message() {
            match message {
                LaneMessage::Checkpoint => self.checkpoint_wanted = true,
            }
        }
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
            || self.checkpoint_wanted
    }

    fn begin_round(&mut self, now: Now, at: Offset) {
        self.checkpoint_mono_us = now.mono_us;
        self.bytes_since_checkpoint = 0;
        self.checkpoint_wanted = false;
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
