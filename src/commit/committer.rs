//! The committer: what a datagram does to its session, and what is owed for it. How blocks reach the disk, and what
//! happens then, is in [`commit`].

mod commit;
mod sealed;

use duragram_proto::codec::{Datagram, Reject, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};

use crate::commit::acks;
use crate::commit::out::{Kind, Out, ReplyTo};
use crate::commit::writer::Writer;
use crate::commit::{Backlog, Counts};
use crate::dialect::duragram::session::{EpochBook, FloorMove, Judgement, SessionTable};
use crate::journal::{BlockBuilder, DeadLetterId, Durable, Journal, StorageError};
use crate::limits;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::model::{Clock, DialectId, EntryMeta, FormerLanes, LaneMark, Now, Offset, SessionId, SessionRecord};
use crate::net::{Batch, DataItem, Item, ItemKind, Transmit};
use crate::rate::{self, Buckets};
use commit::{Flight, Round};

/// What follows the committer: the lanes.
pub trait Downstream: Send {
    /// A commit is durable: its block may be processed. Must not block.
    fn committed(&mut self, receipt: &Durable);
    /// How far each lane has come, durably, in lane order.
    fn marks(&self) -> Vec<LaneMark>;
    /// Whether a lane asked for a checkpoint soon, since this was last called.
    fn take_checkpoint_request(&self) -> bool;
    /// Of the lanes of earlier runs those that a start at these marks has to know of.
    fn former(&self, _marks: &[LaneMark]) -> Vec<FormerLanes> {
        Vec::new()
    }
    /// Dead letters that a checkpoint may delete which stores marks that are taken after this call.
    fn retried(&self) -> Vec<DeadLetterId> {
        Vec::new()
    }
    /// A checkpoint is durable, and has deleted these dead letters. Must not block.
    fn checkpointed(&mut self, _retried: &[DeadLetterId]) {}
}

/// What of the configuration the committer needs.
#[derive(Clone, Debug)]
pub struct CommitterConfig {
    /// How far beyond its floor a session may send, in seqs.
    pub window: u16,
    /// A block is committed when it has reached this size, in bytes.
    pub commit_bytes_max: usize,
    /// A checkpoint is written when this many bytes were journaled since the last, or at the interval below.
    pub checkpoint_bytes: u64,
    /// Microseconds between checkpoints while anything changes.
    pub checkpoint_interval_us: u64,
    /// Processed bytes that trimming keeps, for `tail`.
    pub retain_bytes: u64,
    /// New data is refused while less is free on the journal's file system, in bytes.
    pub reserve_bytes: u64,
    /// Idle sessions are forgotten after this many seconds of service.
    pub session_ttl_s: u64,
    /// The server has keys: it seals its replies to what comes sealed.
    pub sealed: bool,
}

/// What recovery gives the committer to go on from.
#[derive(Debug)]
pub struct Recovered {
    /// All sessions, the journal's entries applied.
    pub sessions: SessionTable,
    /// The epochs of clients in sealed mode.
    pub epochs: EpochBook,
    /// The limit of the server's counter that was stored last, 0 if none was.
    pub counter_limit: u64,
    /// The blocks that the journal holds.
    pub backlog: Backlog,
    /// The lowest entry that the journal holds.
    pub low: Offset,
    /// The last checkpoint.
    pub checkpoint_at: Offset,
}

/// The committer's state, for whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IngestStatus {
    /// Every entry below is durable.
    pub end: Offset,
    /// Offset of the last checkpoint.
    pub checkpoint: Offset,
    /// Sessions in the table.
    pub sessions: usize,
    /// Bytes of blocks in the journal.
    pub backlog_bytes: u64,
    /// Bytes free on the journal's file system, if it tells.
    pub free_bytes: Option<u64>,
    /// Free space is below the reserve: new data is refused.
    pub storage_short: bool,
}

/// Turns datagrams into durable entries and acks. One thread owns it; every method is synchronous.
pub struct Committer<J, T, D> {
    config: CommitterConfig,
    /// Away while a commit is in flight.
    journal: Option<J>,
    writer: Option<Writer<J>>,
    /// What is owed when the commit in flight has landed.
    flight: Option<Flight>,
    transmit: T,
    downstream: D,
    metrics: Metrics,
    sessions: SessionTable,
    epochs: EpochBook,
    backlog: Backlog,
    block: BlockBuilder,
    /// Everything that is durable so far. Duplicates are acked on its strength.
    receipt: Durable,
    failed: Option<StorageError>,

    /// The number of the commit being built. All before it are durable, or one of them is in flight.
    number: u64,
    /// Datagrams absorbed for it.
    absorbed: usize,
    /// Those of them that are in the block.
    journaled: u64,
    pending: Vec<PendingAck>,
    welcomes: Vec<PendingWelcome>,
    /// Kept for the next flights: two at most are in use at once.
    spares: Vec<Flight>,
    spare_block: BlockBuilder,
    /// Sessions whose record must be durable before they are answered: opened by HELLO, or floor moved by a duplicate.
    records: Vec<u32>,
    /// So many of them come to [`limits::CHECKPOINT_RECORD_BYTES`] with the widest bitmaps.
    records_max: usize,
    /// Clients whose epochs must be durable with this commit.
    clients: Vec<ClientId>,
    /// Plain sessions that had to give way to sealed ones: to be taken out of the next checkpoint.
    given_up: Vec<SessionId>,
    /// Sessions in which nothing had come when their clients asked for another: their records go with this commit.
    renewed: Vec<SessionId>,
    out: Out,
    /// What asks for sessions that nothing vouches for, by source.
    openings: Buckets,
    client_log: LogLimit,

    /// 0 (nothing waits) to 1024 (the queue before the committer is full).
    pressure: u16,
    service_base_s: u64,
    checkpoint_at: Offset,
    checkpoint_mono_us: u64,
    checkpoint_marks: Vec<LaneMark>,
    /// The checkpoint that is being written, if one is.
    round: Option<Round>,
    bytes_since_checkpoint: u64,
    trimmed_below: Offset,
    space_checked_us: Option<u64>,
    bytes_since_space_check: u64,
    free_bytes: Option<u64>,
    storage_short: bool,
}

struct PendingAck {
    session: u32,
    to: ReplyTo,
    /// When the first of the datagrams arrived, in monotonic microseconds.
    first_us: u64,
    /// The block holds a datagram of this session.
    journaled: bool,
}

struct PendingWelcome {
    id: SessionId,
    nonce: u64,
    to: ReplyTo,
}

impl<J: Journal, T: Transmit, D: Downstream> Committer<J, T, D> {
    /// A committer that goes on where the journal stands.
    pub fn new(
        config: CommitterConfig,
        recovered: Recovered,
        journal: J,
        transmit: T,
        downstream: D,
        metrics: Metrics,
    ) -> Self {
        let receipt = journal.durable();
        let mut sessions = recovered.sessions;
        if config.sealed {
            sessions.keep_half_for_sealed();
        }
        let service_base_s = sessions.last_active_s();
        let mut committer = Self {
            block: BlockBuilder::default(),
            spares: Vec::new(),
            spare_block: BlockBuilder::default(),
            writer: None,
            flight: None,
            round: None,
            sessions,
            epochs: recovered.epochs,
            backlog: recovered.backlog,
            failed: None,
            number: 1,
            absorbed: 0,
            journaled: 0,
            pending: Vec::new(),
            welcomes: Vec::new(),
            records: Vec::new(),
            records_max: limits::CHECKPOINT_RECORD_BYTES
                / (size_of::<SessionRecord>() + usize::from(config.window).div_ceil(64) * size_of::<u64>()),
            clients: Vec::new(),
            given_up: Vec::new(),
            renewed: Vec::new(),
            out: Out::new(recovered.counter_limit),
            openings: Buckets::new(limits::SOURCE_BUCKETS, limits::OPENINGS_PER_S, limits::OPENINGS_BURST),
            client_log: LogLimit::new(limits::CLIENT_LOG_LINES_PER_S),
            pressure: 0,
            service_base_s,
            checkpoint_at: recovered.checkpoint_at,
            checkpoint_mono_us: 0,
            checkpoint_marks: Vec::new(),
            bytes_since_checkpoint: 0,
            trimmed_below: recovered.low,
            space_checked_us: None,
            bytes_since_space_check: 0,
            free_bytes: None,
            storage_short: false,
            config,
            journal: Some(journal),
            transmit,
            downstream,
            metrics,
            receipt,
        };
        committer.report();
        committer
    }

    /// Tells how full the queue before the committer is, from 0 to 1024: the credit shrinks with it.
    pub fn set_pressure(&mut self, pressure: u16) {
        self.pressure = pressure.min(1024);
    }

    /// Whether enough is absorbed for a commit.
    pub fn is_full(&self) -> bool {
        self.block.size() >= self.config.commit_bytes_max
            || self.absorbed >= limits::DATAGRAMS_PER_COMMIT
            || self.records.len() >= self.records_max
    }

    /// Whether so much is absorbed that building and receiving the next block beside its sync is worth waking a thread.
    pub fn is_large(&self) -> bool {
        self.block.size() >= limits::LAUNCH_BYTES
    }

    /// Applies a batch to the sessions and adds what is new to the block. Acks nothing, unless the block becomes full on
    /// the way: then it is launched as by `launch`, so that no block is larger than `commit_bytes_max`, a datagram and
    /// the gaps that this reveals.
    ///
    /// Errors are final as those of `commit`.
    pub fn absorb(&mut self, batch: &Batch, clock: &impl Clock) -> Result<(), StorageError> {
        self.check_journal()?;
        if self.space_checked_us.is_none() {
            self.check_space(clock.now());
        }
        self.out.set_time(batch.arrived);
        let mut counts = Counts::default();
        for item in batch.items() {
            if self.is_full() {
                self.launch(clock)?;
            }
            self.absorbed += 1;
            let to = ReplyTo::to(item, batch.arrived.mono_us);
            match &item.kind {
                ItemKind::Data(data) => self.data(batch, data, item, to, &mut counts),
                ItemKind::Hello { client, nonce } if item.seal.is_some() => {
                    self.sealed_hello(*client, *nonce, to, batch.arrived, &mut counts);
                }
                ItemKind::Hello { client, nonce } => self.hello(*client, *nonce, to, batch.arrived, &mut counts),
                ItemKind::Ping(id) => self.ping(*id, item, to, batch.arrived, &mut counts),
                ItemKind::Refused { client, epoch, seq, code } => {
                    counts.refuse(*code);
                    let (client, epoch, code, refused) = (*client, *epoch, *code, *seq);
                    self.reject_counted(&to, Reject { client, epoch, code, refused, retry_after_ms: 0 });
                }
            }
        }
        counts.report(&self.metrics);
        self.metrics.received_bytes.inc_by(batch.received_bytes);
        let dropped = batch.dropped;
        self.metrics.count("truncated", dropped.truncated);
        self.metrics.count("checksum", dropped.checksum);
        self.metrics.count("malformed", dropped.malformed);
        self.metrics.count("unknown_type", dropped.unknown_type);
        self.metrics.count("wrong_direction", dropped.wrong_direction);
        self.metrics.count("sealed", dropped.sealed);
        self.metrics.count("bad_seal", dropped.bad_seal);
        self.metrics.count("unknown_key", dropped.unknown_key);
        self.metrics.count("revoked", dropped.revoked);
        self.metrics.count("limited", dropped.limited);
        Ok(())
    }

    /// Nothing is acked any more once anything has failed, be it beside the commits: the files that hold what was acked may be
    /// gone.
    fn check_journal(&mut self) -> Result<(), StorageError> {
        if self.failed.is_none() {
            self.failed = self.journal.as_ref().and_then(Journal::failure);
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// The state now.
    pub fn status(&self) -> IngestStatus {
        IngestStatus {
            end: self.receipt.end(),
            checkpoint: self.checkpoint_at,
            sessions: self.sessions.len(),
            backlog_bytes: self.backlog.bytes(),
            free_bytes: self.free_bytes,
            storage_short: self.storage_short,
        }
    }

    #[cfg(test)]
    pub(super) fn sessions_for_tests(&self, id: SessionId) -> Option<crate::dialect::duragram::session::Session> {
        self.sessions.record_of(id).and_then(|record| crate::dialect::duragram::session::Session::restore(&record))
    }

    fn data(&mut self, batch: &Batch, data: &DataItem, item: &Item, to: ReplyTo, counts: &mut Counts) {
        let base = Seq(data.seq.0 - u64::from(data.span));
        let sealed = item.seal.is_some();
        let known = self.sessions.find(data.session);
        if let Some(code) = self.refuses_mode(data.session, known, sealed) {
            return self.refuse_mode(&to, data, code, known.is_none(), batch.arrived, counts);
        }
        if self.storage_short && !known.is_some_and(|index| self.sessions.at(index).holds(data.seq)) {
            counts.refuse(RejectCode::Storage);
            self.refuse(&to, data, RejectCode::Storage, limits::STORAGE_RETRY_MS);
            return;
        }
        let index = match known {
            Some(index) => index,
            // Refused without opening a session: nothing of it would be on disk.
            None if data.span >= self.config.window => {
                counts.refuse(RejectCode::BeyondWindow);
                self.refuse(&to, data, RejectCode::BeyondWindow, 0);
                return;
            }
            None if self.begins_beyond_reason(data, base, sealed, batch.arrived) => {
                counts.refuse(RejectCode::StaleEpoch);
                self.refuse(&to, data, RejectCode::StaleEpoch, 0);
                return;
            }
            None if !sealed && !self.may_open_from(&to) => {
                counts.limited += 1;
                return;
            }
            // PROTOCOL.md#rule-1.
            None => match self.open(data, base, sealed, batch.arrived) {
                Some(index) => index,
                None => {
                    counts.refuse(RejectCode::Busy);
                    self.refuse(&to, data, RejectCode::Busy, limits::BUSY_RETRY_MS);
                    return;
                }
            },
        };
        let judgement = self.sessions.at(index).receive(data.seq, base, data.skip, self.config.window);
        match judgement {
            Judgement::New(moved) => {
                self.journal_losses(data.session, sealed, &moved, batch.arrived);
                let meta = EntryMeta {
                    dialect: DialectId::DURAGRAM,
                    session: data.session,
                    seq: data.seq,
                    span: data.span,
                    skip: data.skip,
                    batch: data.batch,
                    sealed,
                    channel: data.channel,
                    received_unix_us: batch.arrived.unix_us,
                };
                self.block.push(&meta, batch.payload(data));
                self.journaled += 1;
                self.changed(index, batch.arrived);
                self.await_ack(index, item, to, true);
            }
            Judgement::Duplicate(moved) => {
                counts.duplicate += 1;
                self.make_durable(index, data.session, &moved, batch.arrived);
                self.heard(index, batch.arrived);
                self.await_ack(index, item, to, false);
            }
            Judgement::BeyondWindow(moved) => {
                counts.refuse(RejectCode::BeyondWindow);
                self.make_durable(index, data.session, &moved, batch.arrived);
                self.refuse(&to, data, RejectCode::BeyondWindow, 0);
            }
            Judgement::Stale => {
                counts.refuse(RejectCode::StaleEpoch);
                let floor = self.sessions.at(index).floor();
                if let Some(suppressed) = self.client_log.allows(batch.arrived) {
                    tracing::error!(
                        session = %data.session, peer = %item.peer.addr, %floor, %base, suppressed,
                        "a client counts seqs as acked that this journal never accepted; it must open a new epoch",
                    );
                }
                self.refuse(&to, data, RejectCode::StaleEpoch, 0);
            }
        }
    }

    /// A floor move without an entry of its own must reach the disk before the session is acked again.
    fn make_durable(&mut self, index: u32, id: SessionId, moved: &FloorMove, now: Now) {
        if moved.is_some() {
            let sealed = self.sessions.at(index).is_sealed();
            self.journal_losses(id, sealed, moved, now);
            self.record(index);
            self.changed(index, now);
        }
    }

    /// Counts what rule 4 passed over, and journals gap entries for what was lost (PROTOCOL.md#rule-4).
    fn journal_losses(&mut self, id: SessionId, sealed: bool, moved: &FloorMove, now: Now) {
        if !moved.is_some() {
            return;
        }
        self.metrics.abandoned.inc_by(moved.abandoned);
        let mut lost = 0;
        for &(from, to) in &moved.lost {
            lost += (to.0 - from.0).saturating_add(1);
            self.block.push_gap(id, sealed, from, to, now.unix_us);
        }
        self.metrics.lost.inc_by(lost);
        if let (Some((from, _)), Some((_, to))) = (moved.lost.first(), moved.lost.last())
            && let Some(suppressed) = self.client_log.allows(now)
        {
            tracing::error!(
                session = %id, %from, %to, lost, suppressed,
                "acked data was lost: the client counts these seqs as acked and this journal does not hold them",
            );
        }
    }

    /// Adds the session's record to the commit being built.
    fn record(&mut self, index: u32) {
        let session = self.sessions.at(index);
        if !session.recorded {
            session.recorded = true;
            self.records.push(index);
        }
    }

    /// The commit being built holds something of this session: it is not acked before that is durable.
    fn changed(&mut self, index: u32, now: Now) {
        self.sessions.at(index).changed_for = self.number;
        self.sessions.touch(index, self.service_s(now));
    }

    /// The session's client lives, though it brought nothing new. Where that matters it is on disk before the answer leaves:
    /// a crash must not make the session expire of whose life the client has just heard.
    fn heard(&mut self, index: u32, now: Now) {
        let mut step_s = self.config.session_ttl_s / 16;
        if self.config.sealed && !self.sessions.at(index).is_sealed() {
            // Else it might have to give way to a sealed one though it was heard.
            step_s = step_s.min(limits::PLAIN_IDLE_S / 16);
        }
        if self.sessions.keep_alive(index, self.service_s(now), step_s) {
            self.record(index);
            self.sessions.at(index).changed_for = self.number;
        }
    }

    fn hello(&mut self, client: ClientId, nonce: u64, to: ReplyTo, now: Now, counts: &mut Counts) {
        if self.epochs.has_opened(client) {
            counts.refuse(RejectCode::SealedOnly);
            return self.reject(&to, client, 0, nonce, RejectCode::SealedOnly, 0);
        }
        if !self.may_open_from(&to) {
            counts.limited += 1;
            return;
        }
        counts.hello += 1;
        let newest = self.sessions.newest_of(client);
        let repeated = newest.filter(|&index| self.sessions.at(index).is_fresh_from(nonce));
        let unused = self.sessions.unused_of(client);
        let index = match repeated {
            // Else it might expire with the very commit that is its answer's turn.
            Some(index) => {
                self.heard(index, now);
                index
            }
            None if self.storage_short => {
                counts.refuse(RejectCode::Storage);
                return self.reject(&to, client, 0, nonce, RejectCode::Storage, limits::STORAGE_RETRY_MS);
            }
            None => {
                let room = unused.is_some() || !self.sessions.is_full();
                let epoch = room.then(|| self.sessions.unused_epoch(client, now.unix_us / 1_000_000)).flatten();
                let opened = epoch.and_then(|epoch| match unused {
                    Some(index) => Some(self.renew(index, epoch, nonce)),
                    None => self.sessions.open(SessionId { client, epoch }, Seq::ZERO, Some(nonce)).ok(),
                });
                let Some(index) = opened else {
                    counts.refuse(RejectCode::Busy);
                    return self.reject(&to, client, 0, nonce, RejectCode::Busy, limits::BUSY_RETRY_MS);
                };
                self.record(index);
                self.changed(index, now);
                index
            }
        };
        let id = self.sessions.at(index).id();
        self.welcomes.push(PendingWelcome { id, nonce, to });
    }

    /// Gives the place of a client's session in which nothing has come to the one that it asks for now.
    fn renew(&mut self, index: u32, epoch: Epoch, nonce: u64) -> u32 {
        // Then the block that is being built holds the record under the new epoch alone.
        let unwritten = self.sessions.at(index).recorded;
        let old = self.sessions.renew(index, epoch, nonce);
        if unwritten {
            self.welcomes.retain(|welcome| welcome.id != old);
        }
        self.renewed.push(old);
        index
    }

    fn ping(&mut self, id: SessionId, item: &Item, to: ReplyTo, now: Now, counts: &mut Counts) {
        let sealed = item.seal.is_some();
        if !sealed && self.epochs.has_opened(id.client) {
            counts.refuse(RejectCode::SealedOnly);
            return self.reject(&to, id.client, id.epoch.value(), 0, RejectCode::SealedOnly, 0);
        }
        counts.ping += 1;
        match self.sessions.find(id) {
            Some(index) if self.sessions.at(index).is_sealed() == sealed => {
                self.heard(index, now);
                self.await_ack(index, item, to, false);
            }
            _ => {
                if self.out.may_refuse(&to, id.client) {
                    acks::ack_of_nothing(id, &to, self.credit(), &mut self.out);
                    self.send_if_many();
                }
            }
        }
    }

    /// Notes that a session is to be acked, to the address of its newest datagram (PROTOCOL.md#rule-6); of a sealed session
    /// that is the one with the highest counter (PROTOCOL.md#sealed-address).
    fn await_ack(&mut self, index: u32, item: &Item, mut to: ReplyTo, journaled: bool) {
        let session = self.sessions.at(index);
        let newest = item.seal.as_ref().and_then(|seal| session.heard_from(seal.counter, item.peer));
        match self.pending.get_mut(session.pending as usize) {
            Some(pending) => {
                if newest.is_none() {
                    pending.to = to;
                }
                pending.journaled |= journaled;
            }
            None => {
                to.peer = newest.unwrap_or(to.peer);
                session.pending = u32::try_from(self.pending.len()).expect("pending acks are bounded by a batch");
                let first_us = to.arrived_us;
                self.pending.push(PendingAck { session: index, to, first_us, journaled });
            }
        }
    }

    fn refuse(&mut self, to: &ReplyTo, data: &DataItem, code: RejectCode, retry_after_ms: u32) {
        self.reject(to, data.session.client, data.session.epoch.value(), data.seq.0, code, retry_after_ms);
    }

    fn reject(
        &mut self,
        to: &ReplyTo,
        client: ClientId,
        epoch: u32,
        refused: u64,
        code: RejectCode,
        retry_after_ms: u32,
    ) {
        if self.out.may_refuse(to, client) {
            self.reject_counted(to, Reject { client, epoch, code, refused, retry_after_ms });
        }
    }

    /// One that was counted already where it was refused.
    fn reject_counted(&mut self, to: &ReplyTo, reject: Reject) {
        self.out.push(to, Kind::Reject, &Datagram::Reject(reject));
        self.send_if_many();
    }

    /// Whether a source may have one more session opened that nothing vouches for.
    fn may_open_from(&self, to: &ReplyTo) -> bool {
        rate::source(to.peer.addr).is_none_or(|source| self.openings.allows(source, to.arrived_us))
    }

    fn send_if_many(&mut self) {
        if self.out.is_full() {
            self.send();
        }
    }

    fn send(&mut self) {
        self.out.send(&mut self.transmit, &self.metrics);
    }

    /// Foresees a full disk: below the reserve new data is refused, until space is back (PROTOCOL.md#reject).
    fn check_space(&mut self, now: Now) {
        let due = self.space_checked_us.is_none_or(|at| now.mono_us.saturating_sub(at) >= limits::SPACE_CHECK_US);
        if !due && self.bytes_since_space_check < limits::SPACE_CHECK_BYTES {
            return;
        }
        self.space_checked_us = Some(now.mono_us);
        self.bytes_since_space_check = 0;
        let Some(journal) = &self.journal else { return };
        match journal.free_bytes() {
            Ok(free) => {
                let short = free < self.config.reserve_bytes;
                if short != self.storage_short {
                    let reserve = self.config.reserve_bytes;
                    if short {
                        tracing::error!(
                            free,
                            reserve,
                            "free space is below the reserve: new data is refused (REJECT 7)"
                        );
                    } else {
                        tracing::warn!(free, reserve, "free space is above the reserve again: new data is accepted");
                    }
                }
                self.storage_short = short;
                self.free_bytes = (free < u64::MAX).then_some(free);
                self.metrics.free_bytes.set(self.free_bytes);
            }
            Err(error) => tracing::warn!(%error, "free space cannot be read; keeping the last state"),
        }
    }

    fn report(&mut self) {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.sessions.set(gauge(self.sessions.len() as u64));
        self.metrics.backlog_bytes.set(gauge(self.backlog.bytes()));
    }

    /// The whole window while at most half of the queue before the committer is in use, an eighth when all is.
    fn credit(&self) -> u16 {
        let window = u32::from(self.config.window);
        let over = u32::from(self.pressure).saturating_sub(512);
        let credit = window - window * over * 7 / (512 * 8);
        u16::try_from(credit.max(1)).unwrap_or(u16::MAX)
    }

    fn service_s(&self, now: Now) -> u64 {
        self.service_base_s + now.mono_us / 1_000_000
    }
}
