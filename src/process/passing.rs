//! What who has asked may hear of a configured sink: what it has processed and what it never will, as far as a crash does not take
//! that back.

use std::collections::BTreeMap;
use std::mem;

use crate::limits;
use crate::model::{AskId, Offset, SinkRecord};

/// What of a sink's way a mark alone does not say.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// The mark is beyond these, and the sink has not processed them: in order, and apart from each other. Of what happened before the
    /// start the losses alone are known.
    skipped: Vec<(Offset, Offset)>,
    /// What of that no checkpoint has stored yet: after a crash the sink goes on before it, and processes it after all.
    unstored: Option<(Offset, Offset)>,
    /// A checkpoint is durable in which it holds nothing,
    released: bool,
    /// or from which it is gone, since it was removed.
    gone: bool,
    /// Asks above the mark that it has processed, durably, while others of their batch wait for a retry: no more than of that batch. A
    /// start presents them again.
    early: BTreeMap<Offset, AskId>,
}

/// Where a sink stands for who has asked, at one moment.
#[derive(Debug)]
pub(super) struct Place {
    /// Below, it has processed everything or never will, durably.
    pub(super) passed: Offset,
    /// What of that it has not processed, in order.
    pub(super) skipped: Vec<(Offset, Offset)>,
    /// Asks above that it has processed.
    pub(super) early: BTreeMap<Offset, AskId>,
    /// It holds nothing, or is gone, durably: where several answer nobody waits for it.
    pub(super) released: bool,
    /// It was removed, durably.
    pub(super) gone: bool,
}

impl Passing {
    /// Of a sink as it is kept on disk.
    pub(super) fn of(record: &SinkRecord) -> Self {
        let mut passing = Self { released: !record.holds, ..Self::default() };
        let mut losses: Vec<_> = record.losses.iter().map(|loss| (loss.from, loss.to)).collect();
        losses.sort_unstable();
        for (from, to) in losses {
            passing.note_skipped(from, to.min(record.mark.watermark));
        }
        passing
    }

    /// The mark moves from here to there, or back, without anything being processed.
    pub(super) fn skip(&mut self, from: Offset, to: Offset) {
        if from < to {
            self.unstored = Some(self.unstored.map_or((from, to), |(first, end)| (first.min(from), end.max(to))));
            self.note_skipped(from, to);
            return;
        }
        // Back before them, or into them.
        let before = |&(first, end): &(Offset, Offset)| (first < to).then_some((first, end.min(to)));
        self.skipped = self.skipped.iter().filter_map(before).collect();
        self.unstored = self.unstored.as_ref().and_then(before);
    }

    /// An operator lets it go on elsewhere: what it has processed above its mark is somewhere else now.
    pub(super) fn sought(&mut self, from: Offset, to: Offset) {
        self.skip(from, to);
        self.early.clear();
    }

    fn note_skipped(&mut self, from: Offset, to: Offset) {
        let is_full = self.skipped.len() >= limits::SINK_SKIPS;
        match self.skipped.last_mut() {
            // Beyond so many what lies between the last two counts too.
            Some((_, end)) if *end >= from || is_full => *end = to.max(*end),
            _ if from < to => self.skipped.push((from, to)),
            _ => {}
        }
    }

    /// Nobody asks any more what was skipped below.
    pub(super) fn forget_skipped(&mut self, below: Offset) {
        self.skipped.retain(|&(_, end)| end > below);
    }

    /// A checkpoint is durable that keeps this of it, or nothing. Returns whether asks may have an end by that which had none before.
    pub(super) fn stored(&mut self, record: Option<&SinkRecord>, is_removed: bool) -> bool {
        let Some(record) = record else { return is_removed && !mem::replace(&mut self.gone, is_removed) };
        let was_released = mem::replace(&mut self.released, !record.holds);
        let is_stored = self.unstored.is_some_and(|(_, end)| record.mark.watermark >= end);
        if is_stored {
            self.unstored = None;
        }
        is_stored || self.released && !was_released
    }

    /// It has processed these asks, though its mark, which is here, is not beyond them.
    pub(super) fn keep_early(&mut self, asks: &[(AskId, Offset)], mark: Offset) {
        self.early.retain(|&offset, _| offset >= mark);
        self.early.extend(asks.iter().map(|&(id, offset)| (offset, id)));
    }

    /// Of the asks that it has processed early only those are kept.
    pub(super) fn retain_early(&mut self, is_kept: impl Fn(Offset) -> bool) {
        self.early.retain(|&offset, _| is_kept(offset));
    }

    /// Where it stands, with its mark here.
    pub(super) fn place(&self, mark: Offset) -> Place {
        Place {
            passed: self.unstored.map_or(mark, |(first, _)| mark.min(first)),
            skipped: self.skipped.clone(),
            early: self.early.clone(),
            released: self.released || self.gone,
            gone: self.gone,
        }
    }
}

impl Place {
    /// Of handlers that are no configured sink, with the lowest of their marks.
    pub(super) fn at(mark: Offset) -> Self {
        Self { passed: mark, skipped: Vec::new(), early: BTreeMap::new(), released: false, gone: false }
    }

    /// Whether it has processed this entry, as far as that is known.
    pub(super) fn has(&self, offset: Offset) -> bool {
        let is_skipped = || self.skipped.iter().any(|&(first, end)| first <= offset && offset < end);
        self.early.contains_key(&offset) || offset < self.passed && !is_skipped()
    }
}
