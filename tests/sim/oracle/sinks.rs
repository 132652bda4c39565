//! Configured sinks, judged from what their targets have got and what is durable: no mark passes an entry that its sink lacks, a
//! loss is durable with what it excuses, and nothing that is held is trimmed.

mod lives;

use std::collections::{BTreeMap, BTreeSet};

use duragram::model::{SinkRecord, WhenFull};

use super::{Oracle, RecordKey, index};
use crate::sinks::{Command, NAMES, Seen, SinkPlan};

/// What is known of all sinks.
#[derive(Default)]
pub(crate) struct Truth {
    /// Every entry below was handed to the lanes.
    pub(crate) published: u64,
    /// The sinks of the plan that are not configured now.
    pub(crate) without: BTreeSet<usize>,
    pub(crate) seen: [u64; Seen::COUNT],
    known: BTreeMap<u128, Known>,
    /// What the last durable checkpoint says.
    durable: Vec<SinkRecord>,
    at_work: Vec<u128>,
    /// The sinks that the life before had.
    at_work_before: Vec<u128>,
    /// Places that were taken away, durably.
    removed: BTreeSet<u128>,
    names_removed: BTreeSet<String>,
    /// Where blocks begin, and the bytes of all before.
    blocks: Vec<(u64, u64)>,
    bytes: u64,
    /// New data was refused because of a sink.
    refused: bool,
}

/// A sink, from the start at which it was new.
pub(super) struct Known {
    plan: SinkPlan,
    begin: u64,
    /// Every entry below is finished, or lost, or was passed over as an operator wished, and a durable mark says so.
    verified: u64,
    /// The first entry that it lacks, when that was looked for last.
    place: u64,
    /// In its target, durably.
    kept: BTreeSet<RecordKey>,
    /// These of its records became dead letters, durably.
    dead: BTreeSet<RecordKey>,
    /// Durable losses, disjoint.
    lost: Vec<(u64, u64)>,
    /// An operator has let it go on here: what lies below may be missing,
    skip_below: u64,
    /// and from here on what it has may come again.
    back_to: Option<u64>,
    pub(super) asked: Option<Command>,
    view: View,
    /// Done by a handler that did not get to flush it.
    done_before: BTreeSet<RecordKey>,
    /// It blocks, and holds far more than it may since then.
    over_since_us: Option<u64>,
    /// Steps of its lane that did nothing that anybody saw.
    empty_steps: u32,
    /// How much was seen of it at the step before.
    acts_before: (u64, u64),
    /// It was not configured at the start before.
    was_away: bool,
}

/// What a handler was shown.
#[derive(Default)]
struct View {
    floor: u64,
    highest: Option<RecordKey>,
    open: BTreeSet<RecordKey>,
    unflushed: Vec<RecordKey>,
    acts: u64,
}

impl Known {
    pub(super) fn takes(&self, channel: u16) -> bool {
        let channels = &self.plan.config.channels;
        channels.is_empty() || channels.iter().any(|range| range.contains(&channel))
    }

    fn is_lost(&self, offset: u64) -> bool {
        self.lost.iter().any(|&(from, to)| (from..to).contains(&offset))
    }

    /// It need not have this entry: lost, or passed over as an operator wished, or from before it began.
    pub(super) fn is_lost_or_skipped(&self, offset: u64) -> bool {
        self.is_lost(offset) || offset < self.skip_below.max(self.begin)
    }

    /// What is known of it at an entry, for people to read.
    pub(super) fn place_at(&self, offset: u64) -> String {
        let kept = self.kept.contains(&(offset, 0)) || self.dead.contains(&(offset, 0));
        let (name, lost) = (&self.plan.config.name, self.is_lost(offset));
        format!(
            "sink {name} from {} on has it: {kept}, stored at {}, lost: {lost}, skips below {}, asked {:?}",
            self.begin, self.verified, self.skip_below, self.asked
        )
    }

    pub(super) fn has_letter(&self, key: RecordKey) -> bool {
        self.dead.contains(&key)
    }

    /// Adds what a durable record says is lost; returns what of it is new.
    fn lose(&mut self, record: &SinkRecord) -> Vec<(u64, u64)> {
        let mut new = Vec::new();
        for loss in &record.losses {
            let (mut at, to) = (loss.from.0, loss.to.0);
            while at < to {
                let before = self.lost.iter().find(|&&(from, to)| (from..to).contains(&at)).copied();
                let next =
                    self.lost.iter().map(|&(from, _)| from).filter(|&from| from > at).min().unwrap_or(to).min(to);
                match before {
                    Some((_, end)) => at = end,
                    None => {
                        new.push((at, next));
                        at = next;
                    }
                }
            }
            self.lost.extend(new.iter().copied());
            self.lost.sort_unstable();
            self.lost.dedup();
        }
        new
    }
}

impl Truth {
    /// Every sink that is configured now.
    pub(super) fn at_work(&self) -> impl Iterator<Item = &Known> {
        self.at_work.iter().filter_map(|id| self.known.get(id))
    }

    /// No sink at work holds the journal, durably: each was removed, or detached.
    pub(super) fn nobody_holds(&self) -> bool {
        self.at_work.iter().all(|&id| self.lets_go(id))
    }

    /// This sink at work was removed, or detached, durably.
    fn lets_go(&self, id: u128) -> bool {
        self.removed.contains(&id) || self.durable.iter().any(|record| record.id.0 == id && !record.holds)
    }

    /// The sink at work in this place was removed, durably.
    pub(super) fn is_removed_in_place(&self, n: usize) -> bool {
        let in_place = |id: &&u128| self.known.get(id).is_some_and(|known| known.plan.config.name == NAMES[n]);
        self.at_work.iter().filter(in_place).any(|id| self.removed.contains(id))
    }

    /// Every sink that there has been.
    pub(super) fn all_known(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    /// Every one that has stood in the configuration in this place.
    pub(super) fn in_place(&self, n: usize) -> impl Iterator<Item = &Known> {
        self.known.values().filter(move |known| known.plan.config.name == NAMES[n])
    }

    /// Bytes of the blocks from the one on that holds this entry.
    fn bytes_from(&self, offset: u64) -> u64 {
        let next = self.blocks.partition_point(|&(first, _)| first <= offset);
        next.checked_sub(1).map_or(self.bytes, |n| self.bytes - self.blocks[n].1)
    }
}

/// Within about a mebibyte of journal the server takes all entries for of one size.
const INEXACT_BYTES: u64 = 256 << 10;
/// In that time the server must have noticed what a sink holds, slow syncs and all.
const NOTICED_US: u64 = 40_000_000;

impl Oracle {
    pub(crate) fn saw(&mut self, seen: Seen) {
        self.truth.seen[seen as usize] += 1;
    }

    /// The sink has this entry, or need not.
    fn has(&self, known: &Known, offset: u64) -> bool {
        let entry = &self.entries[index(offset)];
        let has = |nth| {
            let key = (offset, u16::try_from(nth).expect("a batch is a datagram"));
            known.kept.contains(&key) || known.dead.contains(&key)
        };
        !known.takes(entry.channel)
            || offset < known.skip_below
            || (offset < known.begin && offset < self.low)
            || (0..entry.records.len()).all(has)
            || known.is_lost(offset)
    }

    /// Every sink at work has this entry that has to have it.
    pub(super) fn all_have(&self, offset: u64) -> bool {
        let holding = self.truth.at_work.iter().filter(|id| !self.truth.lets_go(**id));
        let mut holding = holding.filter_map(|id| self.truth.known.get(id));
        holding.all(|known| self.has(known, offset) && !known.is_lost(offset) || offset < known.begin)
    }

    /// A checkpoint is durable, and with it what it says of the sinks.
    pub(super) fn sinks_stored(&mut self, records: Vec<SinkRecord>) {
        let before = std::mem::replace(&mut self.truth.durable, records.clone());
        for gone in before.iter().filter(|before| !records.iter().any(|record| record.id == before.id)) {
            let asked = self.truth.known.get(&gone.id.0).and_then(|known| known.asked);
            if asked != Some(Command::Remove) {
                self.fail(|| format!("sink {} is forgotten, and nobody has removed it", gone.name));
            }
            self.truth.removed.insert(gone.id.0);
            self.truth.names_removed.insert(gone.name.clone());
        }
        // One may be removed before the first checkpoint that it would have stood in.
        let is_left = |id: &u128| !records.iter().any(|record| record.id.0 == *id);
        let is_asked = |id: &u128| self.truth.known.get(id).is_some_and(|known| known.asked == Some(Command::Remove));
        let never_stored: Vec<u128> =
            self.truth.at_work.iter().copied().filter(|id| is_left(id) && is_asked(id)).collect();
        for id in never_stored {
            self.truth.removed.insert(id);
            self.truth.names_removed.extend(self.truth.known.get(&id).map(|known| known.plan.config.name.clone()));
        }
        for record in &records {
            let Some(mut known) = self.truth.known.remove(&record.id.0) else {
                return self.fail(|| {
                    format!("sink {} with id {} is stored, and nobody has started it", record.name, record.id)
                });
            };
            if self.truth.removed.contains(&record.id.0) {
                self.fail(|| format!("sink {} was removed and is there again", record.name));
            }
            let stored = before.iter().find(|before| before.id == record.id);
            self.sink_stored(record, stored.map(|stored| stored.mark.watermark.0), &mut known);
            let held_before = stored.is_none_or(|before| before.holds);
            if held_before && !record.holds {
                self.saw(Seen::Detached);
            }
            self.truth.known.insert(record.id.0, known);
        }
        self.note_orphans();
    }

    /// `at` is where it was stored to be before.
    fn sink_stored(&mut self, record: &SinkRecord, at: Option<u64>, known: &mut Known) {
        let (name, mark) = (&record.name, record.mark.watermark.0);
        let end = self.entries.len() as u64;
        let backlog = known.plan.config.backlog;
        for (from, to) in known.lose(record) {
            // What an operator has let it go back to it held, too; some of that may be in a loss of before.
            let held = self.truth.bytes_from(known.back_to.into_iter().chain(at).fold(from, u64::min));
            let seen = match backlog.when_full {
                WhenFull::Block => {
                    self.fail(|| format!("sink {name} may lose nothing, and has lost {from}..{to}"));
                    None
                }
                WhenFull::DropOldest => Some(Seen::Dropped),
                WhenFull::Detach => Some(Seen::LostDetached),
            };
            seen.into_iter().for_each(|seen| self.saw(seen));
            let may = backlog.bytes_max.unwrap_or(u64::MAX);
            if backlog.when_full == WhenFull::DropOldest && held.saturating_mul(2) + INEXACT_BYTES < may {
                self.fail(|| format!("sink {name} loses {from}..{to} with {held} of {may} bytes held"));
            }
            if to > end || mark < to && known.back_to.is_none() {
                self.fail(|| format!("sink {name} loses {from}..{to} and is at {mark} of {end}"));
            }
        }
        if !record.holds && backlog.when_full != WhenFull::Detach {
            self.fail(|| format!("sink {name} is detached, and was never to be"));
        }
        if mark > end {
            return self.fail(|| format!("sink {name} is at {mark}, and the journal ends at {end}"));
        }
        if mark < known.verified {
            if known.back_to.is_none_or(|to| mark < to) {
                self.fail(|| format!("sink {name} goes back from {} to {mark}", known.verified));
            }
            known.verified = mark;
            known.place = known.place.min(mark);
        }
        while known.verified < mark {
            if !known.takes(self.entries[index(known.verified)].channel) {
                self.saw(Seen::Filtered);
            }
            if !self.has(known, known.verified) {
                return self.fail(|| format!("sink {name} is stored at {mark} and lacks entry {}", known.verified));
            }
            known.verified += 1;
        }
    }

    /// Entries below are trimmed in the write that has stored the sinks.
    pub(super) fn sinks_trimmed(&mut self, to: u64) {
        let end = self.entries.len() as u64;
        if to <= self.low {
            return;
        }
        self.saw(Seen::Trimmed);
        for record in self.truth.durable.clone() {
            let mark = record.mark.watermark.0;
            if record.holds && to > mark {
                self.fail(|| format!("sink {} holds from {mark} on, and all below {to} is trimmed", record.name));
            }
            if record.holds && mark < end {
                self.saw(Seen::TrimmedToAHolder);
            }
            let Some(known) = self.truth.known.get(&record.id.0) else { continue };
            let missing = (mark.max(self.low)..to.min(end)).find(|&offset| !self.has(known, offset));
            if let Some(offset) = missing {
                self.fail(|| {
                    format!("entry {offset} is trimmed, sink {} lacks it, and no loss is stored", record.name)
                });
            }
        }
        self.low = self.low.max(to);
    }

    /// A block is durable: sinks hold more.
    pub(super) fn sinks_hold(&mut self, first: u64, bytes: u64) {
        self.truth.blocks.push((first, self.truth.bytes));
        self.truth.bytes += bytes;
        for id in self.truth.at_work.clone() {
            let Some(mut known) = self.truth.known.remove(&id) else { continue };
            let backlog = known.plan.config.backlog;
            if let (Some(may), WhenFull::Block, false) =
                (backlog.bytes_max, backlog.when_full, known.asked == Some(Command::Remove))
            {
                while known.place < self.entries.len() as u64 && self.has(&known, known.place) {
                    known.place += 1;
                }
                let held = self.truth.bytes_from(known.place);
                if held > may {
                    self.saw(Seen::Full);
                } else if std::mem::take(&mut self.truth.refused) {
                    self.saw(Seen::TakenAgain);
                }
                let is_over = held > 2 * may + INEXACT_BYTES && known.place < self.entries.len() as u64;
                known.over_since_us = is_over.then(|| known.over_since_us.unwrap_or(self.now_us));
                if known.over_since_us.is_some_and(|since| self.now_us - since > NOTICED_US) {
                    let name = &known.plan.config.name;
                    self.fail(|| format!("sink {name} holds {held} of {may} bytes for long, and new data is taken"));
                }
            }
            self.truth.known.insert(id, known);
        }
    }

    /// New data is refused for want of room.
    pub(super) fn refused_for_room(&mut self) {
        let may_be_why = |id: &u128| {
            let known = &self.truth.known.get(id)?;
            let backlog = known.plan.config.backlog;
            let may = backlog.bytes_max.filter(|_| backlog.when_full == WhenFull::Block)?;
            (self.truth.bytes_from(known.place) * 2 > may).then_some(())
        };
        if self.truth.at_work.iter().find_map(may_be_why).is_some() {
            self.saw(Seen::Refused);
            self.truth.refused = true;
        }
    }

    pub(super) fn sink_dead_letter(&mut self, sink: u128, key: RecordKey) {
        match self.truth.known.get_mut(&sink) {
            Some(known) => drop(known.dead.insert(key)),
            None => self.fail(|| format!("record {key:?} is a dead letter of sink {sink:x}, which nobody has started")),
        }
        self.saw(Seen::DeadLetter);
    }

    /// What nobody holds and nobody wants to keep is gone, but for the extents that it ends in.
    pub(crate) fn sinks_at_rest(&mut self, retain_bytes: u64) {
        let end = self.entries.len() as u64;
        let holds = self.truth.durable.iter().filter(|record| record.holds);
        let held = holds.map(|record| record.mark.watermark.0).min().unwrap_or(end);
        let kept = self.truth.bytes_from(self.low).saturating_sub(self.truth.bytes_from(held));
        // Trimmed are whole extents, each of a mebibyte and the block that exceeds it.
        if kept > retain_bytes + (3 << 20) + INEXACT_BYTES {
            self.fail(|| format!("{kept} bytes below {held} are kept, which nobody holds"));
        }
    }
}
