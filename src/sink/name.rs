//! A record's permanent name, the same in every system that it is written to: the journal, the entry's offset, the record's index.
//! Who sees a name twice has the same record twice.

use std::fmt;

use crate::model::{JournalId, Record};

/// `JOURNAL-OFFSET-INDEX`: 32 hexadecimal digits and two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordName {
    journal: JournalId,
    offset: u64,
    index: u64,
}

impl RecordName {
    pub(super) fn of(journal: JournalId, record: &Record<'_>) -> Self {
        Self::at(journal, record.offset.0, record.index.into())
    }

    /// Of a record that is known by its place alone.
    pub(super) fn at(journal: JournalId, offset: u64, index: u64) -> Self {
        Self { journal, offset, index }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.journal, self.offset, self.index)
    }
}
