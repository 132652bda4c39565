//! How far a stream of a broker has come, compared with what is known here: whether to go on, from where, or to stop.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::RecordName;
use crate::model::{JournalId, Offset, Record};

/// A record's place in a stream: `OFFSET-(INDEX+1)`, since Redis has no entry `0-0`. Places grow as records do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EntryId {
    offset: u64,
    number: u64,
}

impl EntryId {
    /// What a stream of Redis says that has taken no entry yet.
    pub(super) const BEFORE_ALL: Self = Self { offset: 0, number: 0 };

    pub(super) fn of(record: &Record<'_>) -> Self {
        Self::at(record.offset.0, record.index)
    }

    /// Of a record that is named by its offset and index.
    pub(super) fn at(offset: u64, index: u16) -> Self {
        Self { offset, number: u64::from(index) + 1 }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (offset, number) = text.split_once('-')?;
        Some(Self { offset: offset.parse().ok()?, number: number.parse().ok()? })
    }

    /// The permanent name of the record at this place.
    pub(super) fn name(self, journal: JournalId) -> RecordName {
        RecordName::at(journal, self.offset, self.number.saturating_sub(1))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.offset, self.number)
    }
}

/// What the journal keeps with the watermark.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The position was reached in the stream of this key.
    key: String,
    last: String,
    /// What the broker numbered the last message with; 0 where it has no numbers of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    sequence: u64,
    /// An operator has moved the sink since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    moved: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is known here of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The last entry that the server has confirmed.
    pub(super) written: Option<EntryId>,
    /// The number that the broker gave to its last message when that was confirmed; 0 where it has none.
    pub(super) sequence: u64,
    /// The same when it was flushed last.
    flushed: Option<EntryId>,
    /// The highest id that was ever sent, or found.
    highest: Option<EntryId>,
    /// Where the journal ended when it was opened. Until the stream was found once, it may hold what an earlier run has
    /// written: anything below.
    durable_end: Option<Offset>,
    /// An operator has moved the sink, and the stream was not found since: what it holds then is what counts, and nothing that
    /// was written before must be there.
    moved: bool,
}

/// Why nothing more is written to a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// What was written is not there any more: the key is gone, or its last id is a lower one.
    Lost {
        /// The last entry that was written.
        written: EntryId,
        /// What a restart finds already: what is missing then comes again.
        restart_helps: bool,
    },
    /// There is more than this journal has written.
    Ahead,
}

impl Known {
    /// What the state that the journal kept tells of this key.
    pub(super) fn restore(state: &[u8], key: &str, durable_end: Offset) -> Self {
        let stored = serde_json::from_slice::<Stored>(state).ok().filter(|stored| stored.key == key);
        let (sequence, moved) = stored.as_ref().map_or((0, false), |stored| (stored.sequence, stored.moved));
        let written = stored.and_then(|stored| EntryId::parse(&stored.last));
        Self { written, sequence, flushed: written, highest: written, durable_end: Some(durable_end), moved }
    }

    /// What the journal is to keep. From here on that counts as flushed.
    pub(super) fn store(&mut self, key: &str) -> Vec<u8> {
        self.flushed = self.written;
        self.to_bytes(key, self.moved)
    }

    /// What the journal is to keep when an operator has moved the sink: by it a stream whose messages were all deleted is still
    /// known.
    pub(super) fn elsewhere(&self, key: &str) -> Vec<u8> {
        self.to_bytes(key, true)
    }

    fn to_bytes(self, key: &str, moved: bool) -> Vec<u8> {
        let Some(written) = self.written else { return Vec::new() };
        let stored = Stored { key: key.to_owned(), last: written.to_string(), sequence: self.sequence, moved };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// Whether the stream must be there.
    pub(super) fn must_be_there(&self) -> bool {
        self.written.is_some() && !self.moved
    }

    /// Whether nothing was ever sent or found, neither by this run nor by one whose state was kept.
    pub(super) fn has_never_written(&self) -> bool {
        self.highest.is_none()
    }

    /// Whether something was confirmed since the last flush.
    pub(super) fn is_dirty(&self) -> bool {
        self.written > self.flushed
    }

    /// Entries up to this one are about to be sent.
    pub(super) fn sends(&mut self, id: EntryId) {
        self.highest = self.highest.max(Some(id));
    }

    /// Entries up to this one are in the stream.
    pub(super) fn has_written(&mut self, id: EntryId) {
        self.written = self.written.max(Some(id));
    }

    /// Compares with the stream's last id, `None` for no stream.
    pub(super) fn compare(&mut self, last: Option<EntryId>) -> Result<(), Refusal> {
        if self.moved && last < self.written {
            (self.written, self.flushed, self.highest, self.sequence) = (None, None, None, 0);
        }
        if let Some(written) = self.written
            && last < self.written
        {
            return Err(Refusal::Lost { written, restart_helps: last >= self.flushed });
        }
        if let Some(id) = last
            && id > EntryId::BEFORE_ALL
            && last > self.highest
            && self.durable_end.is_none_or(|end| Offset(id.offset) >= end)
        {
            return Err(Refusal::Ahead);
        }
        self.durable_end = None;
        self.moved = false;
        self.highest = self.highest.max(last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Option<EntryId> {
        Some(EntryId::parse(text).unwrap())
    }

    fn restored(last: Option<&str>, durable_end: u64) -> Known {
        let state = last.map_or(String::new(), |last| format!(r#"{{"key":"k","last":"{last}"}}"#));
        Known::restore(state.as_bytes(), "k", Offset(durable_end))
    }

    fn lost(written: &str, restart_helps: bool) -> Result<(), Refusal> {
        Err(Refusal::Lost { written: EntryId::parse(written).unwrap(), restart_helps })
    }

    #[test]
    fn a_stream_is_gone_on_with_only_where_it_can_be_ours() {
        for (state, durable_end, last, expected) in [
            (None, 0, None, Ok(())),
            (None, 0, id("0-0"), Ok(())),
            (None, 10, None, Ok(())),
            (None, 10, id("0-0"), Ok(())),
            (None, 10, id("9-4"), Ok(())),
            (None, 10, id("10-1"), Err(Refusal::Ahead)),
            (Some("5-1"), 10, id("5-1"), Ok(())),
            (Some("5-1"), 10, id("9-1"), Ok(())),
            (Some("5-1"), 10, id("1767323045678-0"), Err(Refusal::Ahead)),
            (Some("5-1"), 10, None, lost("5-1", false)),
            (Some("5-1"), 10, id("0-0"), lost("5-1", false)),
            (Some("5-2"), 10, id("5-1"), lost("5-2", false)),
        ] {
            let mut known = restored(state, durable_end);
            assert_eq!(known.compare(last), expected, "{state:?} {durable_end} {last:?}");
        }
    }

    #[test]
    fn after_the_first_look_nothing_but_what_was_sent_can_be_there() {
        let mut known = restored(Some("5-1"), 100);
        assert_eq!(known.compare(id("7-1")), Ok(()));
        assert_eq!(known.compare(id("8-1")), Err(Refusal::Ahead), "below the journal's end, but not sent by this run");
        known.sends(EntryId::parse("9-1").unwrap());
        assert_eq!(known.compare(id("8-1")), Ok(()), "in doubt: a part of it may have arrived");
    }

    #[test]
    fn after_a_seek_the_stream_is_known_by_its_number_and_need_not_hold_what_was_written() {
        let mut known = restored(Some("5-1"), 100);
        known.sequence = 7;
        let moved = || Known::restore(&known.elsewhere("k"), "k", Offset(100));
        assert_eq!((moved().written, moved().sequence, moved().must_be_there()), (id("5-1"), 7, false));
        for last in [None, id("3-1"), id("5-1"), id("9-1")] {
            let mut known = moved();
            let kept = Known::restore(&known.store("k"), "k", Offset(100));
            assert!(kept.moved, "a flush before the stream was found forgets nothing");
            assert_eq!(known.compare(last), Ok(()), "{last:?}");
            assert!(!known.moved);
        }
        assert_eq!(moved().compare(id("100-1")), Err(Refusal::Ahead));
        assert_eq!(restored(None, 100).elsewhere("k"), Vec::<u8>::new());
    }

    #[test]
    fn what_was_lost_since_the_last_flush_comes_again_after_a_restart() {
        let mut known = restored(Some("5-1"), 100);
        assert_eq!(known.compare(id("5-1")), Ok(()));
        known.sends(EntryId::parse("9-1").unwrap());
        known.has_written(EntryId::parse("9-1").unwrap());
        assert!(known.is_dirty());
        assert_eq!(known.compare(id("6-1")), lost("9-1", true));
        assert_eq!(known.compare(id("4-1")), lost("9-1", false));
        let state = known.store("k");
        assert!(!known.is_dirty());
        assert_eq!(Known::restore(&state, "k", Offset(100)).flushed, id("9-1"));
        assert!(!Known::restore(&state, "k", Offset(100)).has_never_written());
        let another = Known::restore(&state, "another", Offset(100));
        assert!(another.has_never_written() && another.flushed.is_none(), "it tells of one key alone");
    }

    #[test]
    fn the_first_record_of_a_journal_has_a_legal_id_and_ids_grow_as_records_do() {
        let ids = [(0, 0), (0, 1), (1, 0), (9, 65_535), (10, 0), (u64::MAX, 0)]
            .map(|(offset, index)| EntryId::at(offset, index));
        assert_eq!(ids[0].to_string(), "0-1");
        assert_eq!(ids[3].to_string(), "9-65536");
        assert!(ids.is_sorted_by(|a, b| a < b));
        for id in ids {
            assert_eq!(EntryId::parse(&id.to_string()), Some(id));
        }
        for text in ["", "5", "5-", "-5", "a-1", "1-a"] {
            assert_eq!(EntryId::parse(text), None, "{text}");
        }
    }
}
