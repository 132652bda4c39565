//! The position: which records are in the table and who writes the next, as PostgreSQL keeps it.

use serde::{Deserialize, Serialize};

use super::Owner;
use super::table::{POSITIONS, quoted};
use crate::model::{JournalId, Record};

/// A record's place among all: of the first that is not written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) offset: u64,
    pub(super) index: u32,
}

impl Position {
    pub(super) fn of(record: &Record<'_>) -> Self {
        Self { offset: record.offset.0, index: record.index.into() }
    }

    pub(super) fn after(record: &Record<'_>) -> Self {
        let Self { offset, index } = Self::of(record);
        Self { offset, index: index + 1 }
    }

    /// As the table holds it. Offsets beyond its range are refused before ([`unfit`](super::rows::unfit)).
    pub(super) fn columns(self) -> (i64, i32) {
        (i64::try_from(self.offset).unwrap_or(i64::MAX), i32::try_from(self.index).unwrap_or(i32::MAX))
    }
}

/// The statements that make, read and take a position, for one (journal, sink, shard).
pub(super) struct PositionSql {
    /// The table's name as it stands in a statement.
    pub(super) table: String,
    /// This condition selects the row.
    pub(super) row: String,
    owner: Owner,
}

impl PositionSql {
    pub(super) fn new(schema: &str, owner: Owner) -> Self {
        let table = format!("{}.{POSITIONS}", quoted(schema));
        let Owner { journal, sink, lane } = owner;
        let row = format!("journal = '{journal}'::uuid AND sink = '{sink}'::uuid AND shard = {}", lane.0);
        Self { table, row, owner }
    }

    /// The journal whose records they are.
    pub(super) fn journal(&self) -> JournalId {
        self.owner.journal
    }

    pub(super) fn creation(&self) -> String {
        format!(
            "CREATE TABLE {} (journal uuid NOT NULL, sink uuid NOT NULL, shard integer NOT NULL, epoch bigint NOT NULL, \
             next_offset bigint NOT NULL, next_index integer NOT NULL, start_number bigint NOT NULL, \
             start_nonce bigint NOT NULL, PRIMARY KEY (journal, sink, shard))",
            self.table
        )
    }

    /// Waits for whoever is writing.
    pub(super) fn lock(&self) -> String {
        format!(
            "SELECT epoch, next_offset, next_index, start_number, start_nonce FROM {} WHERE {} FOR UPDATE",
            self.table, self.row
        )
    }

    /// Of a position that is not there yet.
    pub(super) fn insertion(&self, start: (u64, u64)) -> String {
        let Owner { journal, sink, lane } = self.owner;
        format!(
            "INSERT INTO {} (journal, sink, shard, epoch, next_offset, next_index, start_number, start_nonce) \
             VALUES ('{journal}', '{sink}', {}, 1, 0, 0, {}, {}) RETURNING epoch",
            self.table,
            lane.0,
            number(start),
            start.1.cast_signed()
        )
    }

    /// Of one that is locked.
    pub(super) fn takeover(&self, start: (u64, u64)) -> String {
        format!(
            "UPDATE {} SET epoch = epoch + 1, start_number = {}, start_nonce = {} WHERE {} RETURNING epoch",
            self.table,
            number(start),
            start.1.cast_signed(),
            self.row
        )
    }
}

fn number(start: (u64, u64)) -> i64 {
    i64::try_from(start.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_within_an_entry_are_told_apart() {
        let at = |offset, index| Position { offset, index };
        assert!(at(7, 1) > at(7, 0) && at(7, 32_753) < at(8, 0));
    }
}
