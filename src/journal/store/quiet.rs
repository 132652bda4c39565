//! A journal to which nothing is written gives memory back.

use std::time::{Duration, Instant};

use crate::journal::database::Database;
use crate::journal::store::Shared;
use crate::limits::QUIET_US;

/// Since when nothing was written.
pub(super) struct Quiet {
    /// Of the database, at the last look.
    changes: u64,
    since: Instant,
    /// There is something to be given back.
    due: bool,
}

impl Quiet {
    /// What was written before is not of interest: a start leaves little in memory.
    pub(super) fn new(now: Instant) -> Self {
        Self { changes: 0, since: now, due: false }
    }

    /// Whether it is time to rest, in a database that has seen so many changes.
    pub(super) fn is_rest_due(&mut self, changes: u64, now: Instant) -> bool {
        if changes != self.changes {
            (self.changes, self.since, self.due) = (changes, now, true);
        }
        self.due && now.duration_since(self.since) >= Duration::from_micros(QUIET_US)
    }

    /// Takes a step towards it. The database may write table files, for which there must be room.
    pub(super) fn rest<D: Database>(&mut self, shared: &Shared<D>) {
        match shared.with_all_synced("writing memtables to table files", Database::rest) {
            // A change of its own is not the end of the quiet.
            Ok(more) => (self.due, self.changes) = (more, shared.store.sequence()),
            // It has poisoned the journal.
            Err(_) => self.due = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_due_once_after_each_time_of_work_and_no_sooner_than_the_quiet_has_lasted() {
        let (start, long) = (Instant::now(), Duration::from_micros(QUIET_US));
        let mut quiet = Quiet::new(start);
        assert!(!quiet.is_rest_due(7, start));
        assert!(!quiet.is_rest_due(7, start + long - Duration::from_millis(1)));
        assert!(quiet.is_rest_due(7, start + long));
        quiet.due = false;
        assert!(!quiet.is_rest_due(7, start + 100 * long), "an idle server has nothing to do");
        assert!(!quiet.is_rest_due(8, start + 101 * long));
        assert!(!quiet.is_rest_due(9, start + 102 * long), "it works");
        assert!(quiet.is_rest_due(9, start + 103 * long));
    }
}
