//! What becomes durable: every entry was sent, and stands once; nothing is trimmed that is not processed; a start finds all of it.

use std::collections::VecDeque;

use duragram::journal::Block;
use duragram::journal::testing::simulated::{self, Change, Family};
use duragram::model::{Entry, EntryKind};

use super::{Found, Journaled, LaneView, Oracle, RUDE, RecordState, be, content, index};

impl Oracle {
    /// Notes what a durable batch has changed.
    pub(crate) fn synced(&mut self, changes: &[Change]) {
        // What the sinks say, what is trimmed and what is answered is one write, whatever stands in it first.
        let (mut sinks, mut trimmed, mut answers) = (None, None, Vec::new());
        for change in changes {
            match change {
                Change::Put { family, key, value, .. } => {
                    match family {
                        Family::Journal => self.block(key, value),
                        Family::Dead => self.dead_letter(key),
                        Family::Meta => {
                            sinks = simulated::stored_sinks(key, value).or(sinks);
                            answers.extend(simulated::stored_answers(key, value));
                        }
                    }
                    self.values[*family as usize].insert(key.clone(), value.clone());
                }
                Change::Delete { family, key } => drop(self.values[*family as usize].remove(key)),
                Change::DeleteRange { family, from, to } => {
                    if *family == Family::Journal {
                        trimmed = Some(be(to));
                    }
                    let values = &mut self.values[*family as usize];
                    let keys: Vec<_> = values.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                    keys.iter().for_each(|key| drop(values.remove(key)));
                }
            }
        }
        sinks.into_iter().for_each(|sinks| self.sinks_stored(sinks));
        trimmed.into_iter().for_each(|to| self.trimmed(to));
        answers.into_iter().for_each(|ask| self.answer_is_durable(ask));
    }

    /// A batch was written, and if nothing syncs it before, whether it is there will be seen at the next start.
    pub(crate) fn unsure(&mut self, changes: &[Change]) {
        self.unsure.push_back((self.now_us, changes.to_vec()));
    }

    /// All that was written is durable.
    pub(crate) fn synced_what_was_written(&mut self) {
        while let Some((_, changes)) = self.unsure.pop_front() {
            self.synced(&changes);
        }
    }

    fn block(&mut self, key: &[u8], value: &[u8]) {
        let block = match Block::parse(value.to_vec()) {
            Ok(block) => block,
            Err(error) => return self.fail(|| format!("a block that cannot be read is written: {error}")),
        };
        let end = self.entries.len() as u64;
        if block.first().0 != end || be(key) != end {
            self.fail(|| format!("{block:?} is written where the journal ends at {end}"));
        }
        if block.size() > self.block_bytes_max {
            self.fail(|| format!("{block:?} has {} bytes", block.size()));
        }
        for entry in block.entries() {
            self.entry(&entry);
        }
        self.sinks_hold(end, block.size() as u64);
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        let sid = (entry.meta.session.client.0, entry.meta.session.epoch.value());
        let offset = self.entries.len() as u64;
        let hash = content(entry.meta.channel, entry.meta.batch, entry.payload);
        let to = entry.meta.seq.0;
        // What was opened sealed is never opened again, however long it was idle.
        let sealed = sid.0 < RUDE && self.mode.is_some_and(|mode| mode.seals(sid.0));
        let forgettable = self.known(sid).forgettable.filter(|_| !sealed);
        if entry.meta.sealed != sealed {
            self.fail(|| format!("entry {offset} of {sid:?} came sealed: {}", entry.meta.sealed));
        }
        if sealed {
            let given = self.given.entry(sid.0).or_default();
            given.opened = given.opened.max(sid.1);
        }
        let (from, records) = match entry.kind {
            EntryKind::Data => {
                if !self.sent.get(&(sid, to)).is_some_and(|hashes| hashes.contains(&hash)) {
                    self.fail(|| format!("entry {offset}, seq {to} of {sid:?}, is nothing that was sent"));
                }
                let before = self.offset_of.insert((sid, to), offset);
                if let Some(before) = before.filter(|&before| forgettable.is_none_or(|end| end <= before)) {
                    self.fail(|| format!("seq {to} of {sid:?} is entry {before} and entry {offset}"));
                }
                (to, entry.records().count())
            }
            EntryKind::Gap { from, .. } => {
                if forgettable.is_none() {
                    self.fail(|| format!("entry {offset} says that seqs {from} to {to} of {sid:?} were lost"));
                }
                self.sessions.entry(sid).or_default().gaps.push((from.0, to));
                (from.0, 1)
            }
        };
        if entry.kind == EntryKind::Data {
            self.entry_asks(sid, to, offset, entry.meta.asks);
        }
        let records = vec![RecordState::default(); records];
        self.entries.push(Journaled { session: sid, channel: entry.meta.channel, seqs: (from, to), hash, records });
    }

    fn dead_letter(&mut self, key: &[u8]) {
        let (offset, nth) = (be(&key[..8]), usize::from(u16::from_be_bytes([key[8], key[9]])));
        self.finished(offset);
        if let Some(sink) = key[10..].first_chunk() {
            return self.sink_dead_letter(u128::from_be_bytes(*sink), (offset, u16::from_be_bytes([key[8], key[9]])));
        }
        match self.entries.get_mut(index(offset)).and_then(|entry| entry.records.get_mut(nth)) {
            Some(record) => record.dead = true,
            None => self.fail(|| format!("a dead letter of record {nth} of entry {offset}, which is not durable")),
        }
    }

    fn trimmed(&mut self, to: u64) {
        if self.has_sinks {
            return self.sinks_trimmed(to);
        }
        for offset in self.low..to.min(self.entries.len() as u64) {
            if !self.entries[index(offset)].records.iter().all(|record| record.finished()) {
                self.fail(|| format!("entry {offset} is trimmed and not processed"));
            }
        }
        self.low = self.low.max(to);
    }

    /// The server has started, or refuses to.
    pub(crate) fn started(&mut self, found: &Found, lanes: usize) {
        self.failed = false;
        self.lanes = (0..lanes).map(|_| LaneView::default()).collect();
        self.given.values_mut().for_each(|given| given.heard.clear());
        let unsure = std::mem::take(&mut self.unsure);
        self.settle_unsure(found, unsure);
        // The last write may hold what an operator has asked for.
        self.sinks_begin();
        self.asks_begin(&found.records);
    }

    /// Of what was written and not known to be synced each batch is there as a whole, or not at all, and none without those before it.
    fn settle_unsure(&mut self, found: &Found, unsure: VecDeque<(u64, Vec<Change>)>) {
        let Err(without) = self.compare(found) else { return };
        let now_us = self.now_us;
        let mut with = String::new();
        for (nth, (written_us, changes)) in unsure.into_iter().enumerate() {
            self.now_us = written_us;
            self.synced(&changes);
            self.now_us = now_us;
            match self.compare(found) {
                Ok(()) => return,
                Err(what) => with += &format!("; and if {} of the last writes count, {what}", nth + 1),
            }
        }
        self.fail(|| format!("after a start {without}{with}"));
    }

    fn compare(&self, found: &Found) -> Result<(), String> {
        let [blocks, meta, dead] = &self.values;
        let end = self.entries.len() as u64;
        let low = blocks.keys().next().map_or(end, |key| be(key));
        if (found.low, found.end) != (low, end) {
            return Err(format!("entries {}..{} are there, not {low}..{end}", found.low, found.end));
        }
        if !blocks.values().map(Vec::as_slice).eq(found.blocks.iter().map(|block| block.bytes())) {
            return Err("the blocks are not those that were written".into());
        }
        let kept = |key: &[u8]| matches!(key[0], b's' | b'e' | b'n' | b'a' | b'r');
        let records = meta.iter().filter(|(key, _)| kept(key)).map(|(key, value)| (key.clone(), value.clone()));
        if !records.eq(found.records.iter().cloned()) {
            return Err("the records are not those that were written".into());
        }
        let checkpoint = meta.iter().find_map(|(key, value)| simulated::stored_sinks(key, value));
        if checkpoint.unwrap_or_default() != found.sinks {
            return Err("the sinks are not those that were written".into());
        }
        if !dead.keys().eq(&found.dead) {
            return Err("the dead letters are not those that were written".into());
        }
        Ok(())
    }
}
