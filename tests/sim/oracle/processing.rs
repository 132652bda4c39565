//! What handlers are shown: every record, in its lane, in order, and none again that was finished.

use duragram::model::{Content, Record};

use super::{Oracle, RecordKey, Sid, content, index};

impl Oracle {
    /// A lane begins at its watermark, with the state that its sink gave for that.
    pub(crate) fn lane_starts(&mut self, lane: usize, watermark: u64, lane_of: impl Fn(Sid) -> usize) {
        let end = self.entries.len() as u64;
        if watermark > end {
            self.fail(|| format!("lane {lane} begins at {watermark}, the journal ends at {end}"));
        }
        for offset in self.low..watermark.min(end) {
            let entry = &self.entries[index(offset)];
            if lane_of(entry.session) == lane && !entry.records.iter().all(|record| record.finished()) {
                self.fail(|| format!("lane {lane} begins at {watermark} and entry {offset} is not processed"));
            }
        }
    }

    /// Checks the records with which a handler is called.
    pub(crate) fn presented(&mut self, lane: usize, records: &[Record<'_>], lane_of: impl Fn(Sid) -> usize) {
        let entries = &self.entries;
        let dead = |key: &RecordKey| entries[index(key.0)].records[usize::from(key.1)].dead;
        let highest = self.lanes[lane].highest;
        let unfinished = self.lanes[lane].open.iter().copied().find(|key| !dead(key));
        let goes_on = records.iter().any(|record| Some((record.offset.0, record.index)) > highest);
        if let (true, Some(open)) = (goes_on, unfinished) {
            self.fail(|| format!("lane {lane} goes on and record {open:?} is not finished"));
        }
        for record in records {
            let key = (record.offset.0, record.index);
            let sid = (record.session.client.0, record.session.epoch.value());
            let open = self.lanes[lane].open.contains(&key);
            if !self.is_as_journaled(record) {
                return self.fail(|| format!("record {key:?} is shown otherwise than it is journaled"));
            }
            if lane_of(sid) != lane {
                self.fail(|| format!("record {key:?} is shown to lane {lane}"));
            }
            let view = &mut self.lanes[lane];
            if Some(key) <= view.highest && !open {
                return self.fail(|| format!("record {key:?} is shown to lane {lane} a second time, or too late"));
            }
            view.highest = view.highest.max(Some(key));
            view.open.insert(key);
        }
    }

    /// The record is durable, and says what it says in the journal.
    pub(super) fn is_as_journaled(&self, record: &Record<'_>) -> bool {
        let sid = (record.session.client.0, record.session.epoch.value());
        let Some(entry) = self.entries.get(index(record.offset.0)) else { return false };
        let same = match record.content {
            Content::Payload(payload) if entry.records.len() == 1 => {
                let batched = || {
                    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes();
                    content(record.channel, true, &[&len, payload].concat())
                };
                entry.seqs.0 == record.seq.0
                    && (entry.hash == content(record.channel, false, payload) || entry.hash == batched())
            }
            Content::Payload(_) => entry.seqs.0 == record.seq.0,
            Content::Gap { from, to } => entry.seqs == (from.0, to.0),
        };
        same && entry.session == sid && usize::from(record.index) < entry.records.len()
    }

    /// A handler answers *done*, or that it gives up and the lane must make a dead letter.
    pub(crate) fn answered(&mut self, lane: usize, key: RecordKey, done: bool) {
        self.lanes[lane].open.remove(&key);
        if done {
            self.lanes[lane].unflushed.push(key);
        }
    }

    /// A handler has made all that it has done durable.
    pub(crate) fn flushed(&mut self, lane: usize) {
        for key in std::mem::take(&mut self.lanes[lane].unflushed) {
            self.entries[index(key.0)].records[usize::from(key.1)].kept = true;
            self.effect_is_durable(key);
        }
    }

    /// Nothing more is under way.
    pub(crate) fn at_the_end(&mut self) {
        if self.has_sinks {
            return self.sinks_have_all();
        }
        let left = self.entries.iter().position(|entry| !entry.records.iter().all(|record| record.finished()));
        if let Some(offset) = left {
            self.fail(|| format!("entry {offset} was never processed"));
        }
    }
}
