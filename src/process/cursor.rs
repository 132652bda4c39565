//! What a configured sink has beside the mark of its lane: who it is, what it takes, whether it holds what it has not
//! processed, what it has lost, and what an operator has told it.
//!
//! The mark and what stands here change together: whoever changes both holds the lock of the mark meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::passing::{Passing, Place};
use crate::limits;
use crate::metrics::{Metrics, SinkMetrics};
use crate::model::{AskId, BacklogConfig, ChannelSet, FormerLanes, LaneMark, Offset, SinkId, SinkLoss, SinkRecord};

/// It says how far a configured sink has come, and what it has lost.
#[derive(Debug)]
pub struct Cursor {
    id: SinkId,
    name: Arc<str>,
    identity: u64,
    /// The start of the journal that this run is.
    instance: u64,
    /// Where its mark was at the start of this run, and in which start it had come there.
    began: (Offset, u64),
    /// The channels whose records it takes; `None`: all.
    channels: Option<ChannelSet>,
    backlog: BacklogConfig,
    /// What lies below is lost to it.
    floor: AtomicU64,
    /// A loss is not durable yet: nothing that lies behind it may be presented.
    loss_waits: AtomicBool,
    paused: AtomicBool,
    removed: AtomicBool,
    /// Its lane does nothing any more, since it was removed.
    stopped: AtomicBool,
    sought: AtomicBool,
    kept: Mutex<Kept>,
    seen: Seen,
    metrics: SinkMetrics,
    /// Of all sinks: to be shown no more when it is gone.
    of_all: Metrics,
}

/// What is kept on disk and changes.
#[derive(Debug)]
struct Kept {
    holds: bool,
    losses: Vec<SinkLoss>,
    /// Losses that its handler does not know of,
    untold: Option<(Offset, Offset)>,
    /// or has been told of up to here, and has not flushed since.
    telling: Option<Offset>,
    /// What who has asked may hear of it.
    passing: Passing,
}

/// What others want to know of it.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes of the journal that it has not processed, when that was looked at last.
    held_bytes: AtomicU64,
    /// When the oldest record that it has taken and not flushed arrived, in microseconds since 1970; 0 for none.
    oldest_unix_us: AtomicU64,
    /// It holds nearly as much as it may,
    is_near: AtomicBool,
    /// or so much that new data is refused.
    blocks: AtomicBool,
}

impl Cursor {
    /// A sink as it is kept on disk, with what is configured of it. `instance` is the start of the journal that this run is.
    pub fn new(
        record: &SinkRecord,
        channels: Option<ChannelSet>,
        backlog: BacklogConfig,
        instance: u64,
        metrics: &Metrics,
    ) -> Self {
        let of_all = metrics.clone();
        let metrics = of_all.of_sink(&record.name);
        metrics.paused.set(i64::from(record.paused));
        if let Some(bytes_max) = backlog.bytes_max {
            of_all.bound_sink(&record.name, bytes_max);
        }
        Self {
            id: record.id,
            name: record.name.as_str().into(),
            identity: record.identity,
            instance,
            began: (record.mark.watermark, record.instance),
            channels,
            backlog,
            floor: AtomicU64::new(0),
            loss_waits: AtomicBool::new(false),
            paused: AtomicBool::new(record.paused),
            removed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            sought: AtomicBool::new(false),
            kept: Mutex::new(Kept {
                holds: record.holds,
                losses: record.losses.clone(),
                untold: record.untold,
                telling: None,
                passing: Passing::of(record),
            }),
            seen: Seen::default(),
            metrics,
            of_all,
        }
    }

    /// Returns the id that the sink has in the journal.
    pub fn id(&self) -> SinkId {
        self.id
    }

    /// The name that the configuration gives it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How much of the journal it may hold.
    pub fn backlog(&self) -> BacklogConfig {
        self.backlog
    }

    /// The metrics of this sink.
    pub fn metrics(&self) -> &SinkMetrics {
        &self.metrics
    }

    /// Whether it takes records of the channel.
    pub(super) fn takes(&self, channel: u16) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.contains(channel))
    }

    /// What lies below is lost to it.
    pub(super) fn floor(&self) -> Offset {
        Offset(self.floor.load(Ordering::Acquire))
    }

    /// Whether a loss is not durable yet. Whoever looks at the floor, too, looks at that before.
    pub fn loss_waits(&self) -> bool {
        self.loss_waits.load(Ordering::Acquire)
    }

    /// A checkpoint is durable that keeps this of it, or nothing: with the newest loss, nothing has to wait any more. Returns whether
    /// asks may have an end by that which had none before.
    pub(super) fn stored(&self, record: Option<&SinkRecord>) -> bool {
        let mut kept = self.lock();
        if record.is_some_and(|record| record.losses.last() == kept.losses.last()) {
            self.loss_waits.store(false, Ordering::Release);
        }
        kept.passing.stored(record, self.is_removed())
    }

    /// Where it stands for who has asked, with its mark here, whose lock the caller holds.
    pub(super) fn place(&self, mark: Offset) -> Place {
        self.lock().passing.place(mark)
    }

    /// It has processed these asks, though its mark, which is here, is not beyond them.
    pub(super) fn keep_early(&self, asks: &[(AskId, Offset)], mark: Offset) {
        self.lock().passing.keep_early(asks, mark);
    }

    /// Of the asks that it has processed early only those are kept, and nobody asks any more what it has skipped below.
    pub(super) fn forget_asked(&self, below: Offset, is_kept: impl Fn(Offset) -> bool) {
        let mut kept = self.lock();
        kept.passing.forget_skipped(below);
        kept.passing.retain_early(is_kept);
    }

    /// Whether an operator has stopped it for a while.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Stops it for a while, or lets it go on.
    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.metrics.paused.set(i64::from(paused));
    }

    /// Whether an operator has removed it: it is not kept on disk any more, and processes nothing.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Takes its place away, for good.
    pub(super) fn remove(&self) {
        self.set_bound(false, false);
        self.removed.store(true, Ordering::Release);
    }

    /// Whether its lane does nothing any more, after it was removed: no call of its handler is under way, and it makes no dead
    /// letter.
    pub fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Its lane does nothing any more.
    pub(super) fn set_stopped(&self) {
        if !self.stopped.swap(true, Ordering::AcqRel) {
            self.of_all.forget_sink(&self.name);
        }
    }

    /// Whether trimming stops at what it has not processed.
    pub fn holds(&self) -> bool {
        self.lock().holds
    }

    /// From the next checkpoint on trimming stops at what it has not processed, or does not. Returns whether that is new.
    pub fn set_holds(&self, holds: bool) -> bool {
        let is_new = std::mem::replace(&mut self.lock().holds, holds) != holds;
        match (is_new, holds) {
            (true, false) => tracing::error!(
                sink = &*self.name,
                "the sink holds as much of the journal as it may: it is detached, and what is trimmed before it comes back is \
                 lost to it"
            ),
            (true, true) => tracing::warn!(sink = &*self.name, "the sink has come back, and holds its place again"),
            (false, _) => {}
        }
        is_new
    }

    /// Notes whether it is near its bound, and whether new data is refused because it is at it.
    pub fn set_bound(&self, is_near: bool, blocks: bool) {
        let was_near = self.seen.is_near.swap(is_near, Ordering::Relaxed);
        let did_block = self.seen.blocks.swap(blocks, Ordering::Relaxed);
        self.metrics.blocks.set(i64::from(blocks));
        let (sink, held) = (&*self.name, self.held_bytes());
        let may = self.backlog.bytes_max.unwrap_or(u64::MAX);
        match (did_block, blocks) {
            (false, true) => {
                tracing::error!(
                    sink,
                    held,
                    may,
                    "the sink holds as much of the journal as it may: new data is refused"
                );
            }
            (true, false) => tracing::warn!(sink, held, may, "the sink holds less again: new data is accepted"),
            _ if is_near && !was_near && !blocks => {
                tracing::warn!(sink, held, may, "the sink will soon hold as much of the journal as it may");
            }
            _ => {}
        }
    }

    /// Whether it holds nearly as much as it may.
    pub fn is_near(&self) -> bool {
        self.seen.is_near.load(Ordering::Relaxed)
    }

    /// Whether new data is refused because of what it holds.
    pub fn blocks(&self) -> bool {
        self.seen.blocks.load(Ordering::Relaxed)
    }

    /// Shows how much of the journal it has not processed, in bytes and entries, and for how long its oldest record waits, at
    /// this time in microseconds since 1970.
    pub fn show(&self, held_bytes: u64, unix_us: u64) {
        self.seen.held_bytes.store(held_bytes, Ordering::Relaxed);
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.held_bytes.set(gauge(held_bytes));
        let age_us = self.oldest_unix_us().map_or(0, |oldest| unix_us.saturating_sub(oldest));
        self.metrics.oldest_seconds.set(gauge(age_us / 1_000_000));
    }

    /// Bytes of the journal that it has not processed, when that was looked at last.
    pub fn held_bytes(&self) -> u64 {
        self.seen.held_bytes.load(Ordering::Relaxed)
    }

    /// Notes when the oldest record that is not flushed arrived; `None`: there is none.
    pub(super) fn set_oldest(&self, unix_us: Option<u64>) {
        self.seen.oldest_unix_us.store(unix_us.unwrap_or(0), Ordering::Relaxed);
    }

    /// When the oldest record that it has taken and not flushed arrived, in microseconds since 1970.
    pub fn oldest_unix_us(&self) -> Option<u64> {
        Some(self.seen.oldest_unix_us.load(Ordering::Relaxed)).filter(|&at| at > 0)
    }

    /// What is kept on disk of it, with a mark whose lock the caller holds.
    pub(super) fn record(&self, mark: &LaneMark, former: Vec<FormerLanes>) -> SinkRecord {
        let kept = self.lock();
        let (at, instance) = self.began;
        SinkRecord {
            id: self.id,
            name: self.name.to_string(),
            identity: self.identity,
            mark: mark.clone(),
            instance: if mark.watermark == at { instance } else { self.instance },
            holds: kept.holds,
            paused: self.is_paused(),
            losses: kept.losses.clone(),
            untold: kept.untold,
            former,
        }
    }

    /// Notes a loss; the caller has moved the mark behind it, and holds its lock. Until a checkpoint has stored it nothing behind it is
    /// presented: a target that has that takes what lies before for a repetition, if a crash undoes the loss.
    pub(super) fn lose(&self, loss: SinkLoss) -> SinkLoss {
        let mut kept = self.lock();
        kept.passing.skip(loss.from, loss.to);
        remember(&mut kept.losses, loss);
        let from = kept.untold.map_or(loss.from, |(from, _)| from);
        kept.untold = Some((from, loss.to));
        self.loss_waits.store(true, Ordering::Release);
        self.floor.store(loss.to.0, Ordering::Release);
        self.metrics.lost_entries.inc_by(loss.entries);
        let SinkLoss { from, to, entries, .. } = loss;
        tracing::error!(
            sink = &*self.name, %from, %to, entries,
            "the sink held more of the journal than it may: its oldest entries are lost to it"
        );
        loss
    }

    /// The losses up to `to` of which its handler is to be told, from now on as told with its next flush; `None` when it has
    /// heard of all of them.
    pub(super) fn take_untold(&self, to: Offset) -> Option<(Offset, Offset)> {
        let mut kept = self.lock();
        let (from, end) = kept.untold.filter(|&(_, end)| end <= to && kept.telling.is_none_or(|told| told < end))?;
        let from = kept.telling.replace(end).map_or(from, |told| told.max(from));
        Some((from, end))
    }

    /// Its handler has flushed what it was told.
    pub(super) fn told(&self) {
        let mut kept = self.lock();
        if let Some(told) = kept.telling.take() {
            kept.untold = kept.untold.filter(|&(_, end)| end > told).map(|(from, end)| (from.max(told), end));
        }
    }

    /// It goes on elsewhere, as an operator has decided: nothing is lost by that, and nothing is to be told.
    pub(super) fn sought(&self, from: Offset, to: Offset) {
        let mut kept = self.lock();
        kept.passing.sought(from, to);
        (kept.untold, kept.telling) = (None, None);
        self.floor.fetch_min(to.0, Ordering::AcqRel);
        self.loss_waits.store(false, Ordering::Release);
        self.sought.store(true, Ordering::Release);
    }

    /// Whether an operator has moved it in this run: what earlier runs have processed comes again, if that is where it goes on.
    pub(super) fn was_sought(&self) -> bool {
        self.sought.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sink that is not configured any more and holds nothing loses what lies below `to` and is not processed: as one at work
/// does, so that it hears of that when it comes back.
pub(super) fn lose_unconfigured(record: &mut SinkRecord, to: Offset, unix_us: u64) {
    let from = record.mark.watermark;
    if record.holds || to <= from {
        return;
    }
    let entries = to.since(from);
    record.mark.watermark = to;
    remember(&mut record.losses, SinkLoss { from, to, entries, unix_us });
    record.untold = Some((record.untold.map_or(from, |(from, _)| from), to));
    let sink = &record.name;
    tracing::error!(
        sink, %from, %to, entries,
        "the sink was detached, and is not configured any more: its oldest entries are trimmed and lost to it"
    );
}

/// Adds a loss to those that are remembered. One that begins where the last one ends continues it; when there are too many, the
/// two oldest become one.
fn remember(losses: &mut Vec<SinkLoss>, loss: SinkLoss) {
    match losses.last_mut() {
        Some(last) if last.to == loss.from => *last = as_one(*last, loss),
        _ => losses.push(loss),
    }
    if losses.len() > limits::SINK_LOSSES {
        let oldest = losses.remove(0);
        losses[0] = as_one(oldest, losses[0]);
    }
}

/// Two losses, of which the second may lie before the first, or over it, where an operator has let the sink go back.
fn as_one(first: SinkLoss, second: SinkLoss) -> SinkLoss {
    let (from, to) = (first.from.min(second.from), first.to.max(second.to));
    let entries = (first.entries + second.entries).min(to.since(from));
    SinkLoss { from, to, entries, unix_us: first.unix_us.max(second.unix_us) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(from: u64, to: u64) -> SinkLoss {
        SinkLoss { from: Offset(from), to: Offset(to), entries: to - from, unix_us: to }
    }

    #[test]
    fn a_loss_that_continues_the_last_one_is_the_same_loss() {
        let mut losses = vec![loss(3, 5)];
        remember(&mut losses, loss(5, 9));
        assert_eq!(losses, [loss(3, 9)]);
        remember(&mut losses, loss(20, 21));
        assert_eq!(losses, [loss(3, 9), loss(20, 21)]);
    }

    #[test]
    fn the_two_oldest_of_too_many_losses_become_one_that_counts_what_was_lost() {
        let mut losses = Vec::new();
        (0..=limits::SINK_LOSSES as u64).for_each(|n| remember(&mut losses, loss(10 * n, 10 * n + 4)));
        assert_eq!(losses.len(), limits::SINK_LOSSES);
        assert_eq!(losses[0], SinkLoss { entries: 8, ..loss(0, 14) });
        assert_eq!(losses[1], loss(20, 24));
    }

    #[test]
    fn losses_that_lie_over_each_other_count_no_entry_twice() {
        let both = as_one(loss(100, 200), loss(50, 120));
        assert_eq!(both, SinkLoss { entries: 150, unix_us: 200, ..loss(50, 200) });
    }
}
