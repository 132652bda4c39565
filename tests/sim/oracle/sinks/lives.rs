//! What the handlers of sinks are shown, in each life of the server.

use duragram::model::{Record, SinkRecord, SinkStart};
use duragram::process::LaneStep;

use super::{Known, View};
use crate::oracle::{Oracle, RecordKey, index};
use crate::sinks::{Command, Seen, SinkPlan, Trouble};

/// So many steps in a row of a lane with nothing wrong may do nothing that anybody sees.
const EMPTY_STEPS_MAX: u32 = 16;

impl Oracle {
    /// A life of the server begins: what was not flushed is gone.
    pub(crate) fn sinks_begin(&mut self) {
        if !self.truth.at_work.is_empty() {
            self.truth.at_work_before = std::mem::take(&mut self.truth.at_work);
        }
        for known in self.truth.known.values_mut() {
            known.done_before.extend(std::mem::take(&mut known.view).unflushed);
            (known.back_to, known.asked, known.over_since_us, known.empty_steps) = (None, None, None, 0);
        }
    }

    /// These sinks are at work now, as the server has planned it.
    pub(crate) fn sinks_start<'a>(&mut self, sinks: impl Iterator<Item = (&'a SinkRecord, &'a SinkPlan)>) {
        let end = self.entries.len() as u64;
        self.truth.published = end;
        self.saw(Seen::Runs);
        let mut lowest_held = None;
        for (record, plan) in sinks {
            let (id, mark) = (record.id.0, record.mark.watermark.0);
            let name = &plan.config.name;
            self.truth.at_work.push(id);
            if record.holds {
                lowest_held = Some(lowest_held.map_or(mark, |lowest: u64| lowest.min(mark)));
            }
            // The handler of one that is paused may be made later.
            if let Some(known) = self.truth.known.get_mut(&id) {
                known.view.floor = mark;
            }
            if matches!(plan.trouble, Trouble::ForGood { .. }) {
                self.saw(Seen::Dead);
            }
            match self.truth.durable.iter().find(|durable| durable.name == *name).cloned() {
                Some(durable) if durable == *record => {
                    let known = self.truth.known.get_mut(&id);
                    if known.is_some_and(|known| std::mem::take(&mut known.was_away)) {
                        self.saw(Seen::CameBack);
                    }
                    continue;
                }
                Some(durable) => self.fail(|| format!("sink {name} is {durable:?}, and goes on as {record:?}")),
                None => {}
            }
            let begin = match plan.config.start {
                SinkStart::Oldest => self.low,
                SinkStart::Now => end,
                SinkStart::At(offset) => offset.0.clamp(self.low, end),
            };
            if mark != begin || !record.holds || record.paused || !record.losses.is_empty() {
                self.fail(|| format!("sink {name} is new, is to begin at {begin}, and is {record:?}"));
            }
            if self.truth.names_removed.contains(name) {
                self.saw(Seen::BeganAnew);
            }
            self.truth.known.insert(id, Known::new(plan, begin));
        }
        if self.truth.at_work != self.truth.at_work_before {
            self.orphan_below(lowest_held.unwrap_or(end));
        }
        let at_work = &self.truth.at_work;
        self.truth
            .known
            .iter_mut()
            .filter(|(id, _)| !at_work.contains(id))
            .for_each(|(_, known)| known.was_away = true);
    }

    /// A handler is made, with the state that was stored with its mark.
    pub(crate) fn target_starts(&mut self, id: u128, mark: u64, state: &[u8]) {
        let Some(known) = self.truth.known.get_mut(&id) else {
            return self.fail(|| format!("a handler is made for sink {id:x}, which nobody has started"));
        };
        let before = std::mem::replace(&mut known.view, View { floor: mark, ..View::default() });
        known.done_before.extend(before.unflushed);
        if let Some(covered) = state.first_chunk().map(|state| u64::from_le_bytes(*state)) {
            let known = &self.truth.known[&id];
            let wanted = |&offset: &u64| {
                let excused = offset < known.skip_below || known.is_lost(offset) || offset < self.low;
                known.takes(self.entries[index(offset)].channel) && !excused
            };
            let between = (covered..mark).find(wanted);
            if covered > mark || between.is_some() {
                let name = known.plan.config.name.clone();
                self.fail(|| format!("sink {name} begins at {mark} with the state of {covered}"));
            }
        }
    }

    /// Checks the records with which a sink's handler is called.
    pub(crate) fn shown_to_sink(&mut self, id: u128, records: &[Record<'_>]) {
        let Some(mut known) = self.truth.known.remove(&id) else { return };
        let name = known.plan.config.name.clone();
        let goes_on = records.iter().any(|record| Some((record.offset.0, record.index)) > known.view.highest);
        let open = known.view.open.iter().find(|key| !known.dead.contains(key));
        if let (true, Some(open)) = (goes_on, open) {
            self.fail(|| format!("sink {name} goes on and its record {open:?} is not finished"));
        }
        for record in records {
            let key = (record.offset.0, record.index);
            if !self.is_as_journaled(record) {
                self.fail(|| format!("record {key:?} is shown to sink {name} otherwise than it is journaled"));
                break;
            }
            if !known.takes(self.entries[index(key.0)].channel) {
                self.fail(|| format!("record {key:?} is shown to sink {name}, which does not take its channel"));
            }
            let view = &mut known.view;
            if key.0 < view.floor || (Some(key) <= view.highest && !view.open.contains(&key)) {
                self.fail(|| format!("record {key:?} is shown to sink {name} a second time, or too late"));
            }
            view.acts += u64::from(view.open.insert(key));
            view.highest = view.highest.max(Some(key));
        }
        self.truth.known.insert(id, known);
    }

    /// The target takes a record. Returns what is worth counting of that.
    pub(crate) fn sink_takes(&mut self, id: u128, key: RecordKey) {
        let Some(known) = self.truth.known.get_mut(&id) else { return };
        known.view.open.remove(&key);
        known.view.acts += 1;
        let again = if known.plan.exact {
            (!known.kept.insert(key)).then_some(Seen::RepeatDropped)
        } else {
            known.view.unflushed.push(key);
            (known.done_before.contains(&key)).then_some(Seen::DoneAgain)
        };
        if known.plan.exact {
            self.effect_is_durable(key);
        }
        again.into_iter().for_each(|seen| self.saw(seen));
    }

    pub(crate) fn sink_has_unflushed(&self, id: u128) -> bool {
        self.truth.known.get(&id).is_some_and(|known| !known.view.unflushed.is_empty())
    }

    /// The target has made durable what it has taken, or only says so. Returns the state that covers it.
    pub(crate) fn sink_flushes(&mut self, id: u128, forgets: bool) -> Vec<u8> {
        let Some(known) = self.truth.known.get_mut(&id) else { return Vec::new() };
        known.view.acts += 1;
        let open = known.view.open.iter().find(|key| !known.dead.contains(key)).copied();
        let covered = known.view.highest.map_or(known.view.floor, |(offset, _)| offset + 1).max(known.view.floor);
        if let Some(open) = open {
            let name = known.plan.config.name.clone();
            self.fail(|| format!("sink {name} is to flush and its record {open:?} is not finished"));
        }
        self.sink_settles(id, forgets);
        covered.to_le_bytes().to_vec()
    }

    /// The same, while records may be open.
    pub(crate) fn sink_settles(&mut self, id: u128, forgets: bool) {
        let Some(known) = self.truth.known.get_mut(&id) else { return };
        let unflushed = std::mem::take(&mut known.view.unflushed);
        if !forgets {
            known.kept.extend(unflushed.iter().copied());
            unflushed.into_iter().for_each(|key| self.effect_is_durable(key));
        }
    }

    /// A handler hears that it will not be shown these entries.
    pub(crate) fn sink_is_told(&mut self, id: u128, from: u64, to: u64) {
        self.saw(Seen::Told);
        let Some(known) = self.truth.known.get_mut(&id) else { return };
        known.view.open.retain(|key| key.0 >= to);
        known.view.floor = known.view.floor.max(to);
        known.view.acts += 1;
        if from >= to {
            self.fail(|| format!("a sink is told that {from}..{to} are lost"));
        }
    }

    /// An operator has asked for this.
    pub(crate) fn sink_is_asked(&mut self, id: u128, command: Command) {
        let Some(known) = self.truth.known.get_mut(&id) else { return };
        if known.asked != Some(Command::Remove) {
            known.asked = Some(command);
        }
        if let Command::Seek { to, .. } = command {
            known.back_to = Some(known.back_to.map_or(to, |before| before.min(to)));
            known.skip_below = known.skip_below.max(to);
        }
    }

    /// An operator has the answer.
    pub(crate) fn request_is_durable(&mut self, id: u128, command: Command) {
        let stored = self.truth.durable.iter().find(|record| record.id.0 == id).cloned();
        let removed = self.truth.known.get(&id).is_some_and(|known| known.asked == Some(Command::Remove));
        let is_durable = match command {
            Command::Remove => stored.is_none(),
            Command::Pause => removed || stored.as_ref().is_some_and(|record| record.paused),
            Command::Resume => removed || stored.as_ref().is_some_and(|record| !record.paused),
            Command::Seek { .. } => removed || stored.is_some(),
        };
        if !is_durable {
            self.fail(|| format!("{command:?} is answered, and sink {id:x} is stored as {stored:?}"));
        }
    }

    /// A lane has done something. `stopped`: an operator wanted it to stand still, or a loss of its sink is not durable yet.
    pub(crate) fn sink_stepped(&mut self, id: u128, step: &LaneStep, stopped: bool, mark: u64) {
        let Some(mut known) = self.truth.known.remove(&id) else { return };
        if known.plan.is_sound() && !stopped {
            let name = known.plan.config.name.clone();
            let acts = (known.view.acts, mark);
            let is_empty = std::mem::replace(&mut known.acts_before, acts) == acts && matches!(step, LaneStep::Worked);
            known.empty_steps = if is_empty { known.empty_steps + 1 } else { 0 };
            match step {
                LaneStep::Worked if known.empty_steps > EMPTY_STEPS_MAX => {
                    self.fail(|| {
                        format!("the lane of sink {name}, with which nothing is wrong, goes around in circles")
                    });
                }
                LaneStep::RetryAt(_) => self.fail(|| format!("sink {name}, with which nothing is wrong, waits")),
                LaneStep::Idle { .. } => {
                    let floor = known.view.floor.max(self.low);
                    let takes =
                        |&offset: &u64| known.takes(self.entries[index(offset)].channel) && !known.is_lost(offset);
                    let last = (floor..self.truth.published).rev().find(takes);
                    if let Some(last) =
                        last.filter(|&last| known.view.highest.is_none_or(|(highest, _)| highest < last))
                    {
                        self.fail(|| format!("sink {name} has nothing to do, and was not shown entry {last}"));
                    }
                }
                _ => {}
            }
        }
        self.truth.known.insert(id, known);
    }

    /// Whether the target of this sink never comes back.
    pub(crate) fn sink_stays_away(&self, id: u128) -> bool {
        self.truth.known.get(&id).is_some_and(|known| known.plan.stays_away())
    }

    /// Nothing more is under way: each sink at work has all, unless it never comes back.
    pub(crate) fn sinks_have_all(&mut self) {
        let end = self.entries.len() as u64;
        for id in self.truth.at_work.clone() {
            let Some(known) = self.truth.known.get(&id) else { continue };
            if known.plan.stays_away() || known.asked == Some(Command::Remove) {
                continue;
            }
            if let Some(offset) = (known.verified..end).find(|&offset| !self.has(known, offset)) {
                let name = known.plan.config.name.clone();
                self.fail(|| format!("sink {name} never got entry {offset}"));
            }
        }
    }
}

impl Known {
    fn new(plan: &SinkPlan, begin: u64) -> Self {
        Self {
            plan: plan.clone(),
            begin,
            verified: begin,
            place: begin,
            kept: Default::default(),
            dead: Default::default(),
            lost: Vec::new(),
            skip_below: 0,
            back_to: None,
            asked: None,
            view: View::default(),
            done_before: Default::default(),
            over_since_us: None,
            empty_steps: 0,
            acts_before: (0, 0),
            was_away: false,
        }
    }
}
