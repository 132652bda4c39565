//! A connection that has claimed the position, and the one statement that writes rows and moves it.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout as no_later_than;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::connect::{Failure, Link, within};
use super::errors::{Trouble, is_duplicate, of_write};
use super::position::Position;
use super::rows::{COLUMNS, Rows, source, values};
use super::setup::{Claimed, Known, set_up};
use super::table::Names;
use crate::model::{PostgresPayload, Record};

/// How often a statement is tried that lost against another session (a deadlock, a serialization failure).
const ATTEMPTS: u32 = 3;

/// It says which records are written, and so what is checked before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Write {
    /// The next ones: none of them lies below the position.
    Batch,
    /// One that was given up before, and may lie anywhere.
    Again,
}

/// Writes while it lasts; it is dropped at the first trouble that is no record's.
pub(super) struct Session {
    link: Link,
    claimed: Claimed,
    payload: PostgresPayload,
    timeout: Duration,
    /// Takes all rows as new, which they are as a rule.
    insert: Option<Statement>,
    /// Leaves out rows that are there: somebody has put the table back, or a dead letter was retried twice.
    insert_missing: Option<Statement>,
}

impl Session {
    /// Sets the connection up and claims the position, within the timeout.
    pub(super) fn open(
        runtime: &Runtime,
        mut link: Link,
        names: &Names,
        payload: PostgresPayload,
        known: &Known<'_>,
        timeout: Duration,
    ) -> Result<Self, Trouble> {
        let setting_up = set_up(&mut link.client, names, payload, known, timeout);
        let claimed = runtime.block_on(async { no_later_than(timeout, setting_up).await });
        let late = |_| Trouble::Away(format!("PostgreSQL has not let us in within {timeout:?}"));
        let claimed = claimed.map_err(late)??;
        Ok(Self { link, claimed, payload, timeout, insert: None, insert_missing: None })
    }

    /// The first record that is not in the table.
    pub(super) fn next(&self) -> Position {
        self.claimed.next
    }

    /// Whether a gap can be a row.
    pub(super) fn takes_gaps(&self) -> bool {
        self.claimed.takes_gaps
    }

    /// Whether it need not be made anew yet: the server may have closed it, and in the end names are asked for again.
    pub(super) fn is_good(&self, runtime: &Runtime, age_max: Duration) -> bool {
        self.link.age() <= age_max && !self.link.has_ended(runtime)
    }

    /// Writes the rows of these records and moves the position behind them, both or neither. Returns the position.
    pub(super) fn write(
        &mut self,
        runtime: &Runtime,
        how: Write,
        records: &[Record<'_>],
        rows: &Rows<'_>,
    ) -> Result<Position, Trouble> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(self.claimed.next) };
        let after = Position::after(last);
        let (lowest, mut careful) = match how {
            Write::Batch => (Position::of(first).columns(), false),
            Write::Again => ((i64::MAX, i32::MAX), true),
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let failure = match self.execute(runtime, careful, after, lowest, rows) {
                Ok(1) => {
                    self.claimed.next = self.claimed.next.max(after);
                    return Ok(self.claimed.next);
                }
                Ok(_) => {
                    return Err(Trouble::Soon(format!(
                        "the position in {} was moved by somebody else: looking again who may write",
                        self.claimed.position.table
                    )));
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Error(error) if !careful && is_duplicate(&error) => careful = true,
                Failure::Error(error) if error.as_db_error().is_some() => match of_write(&error) {
                    Trouble::Soon(_) if attempts < ATTEMPTS => {}
                    trouble => return Err(trouble),
                },
                // Whether it was committed is read at the next connect.
                failure @ Failure::Late(_) => return Err(Trouble::Slow(self.link.explain(runtime, &failure))),
                failure => return Err(Trouble::Away(self.link.explain(runtime, &failure))),
            }
        }
    }

    /// Runs the statement; returns how many positions it moved.
    fn execute(
        &mut self,
        runtime: &Runtime,
        careful: bool,
        after: Position,
        lowest: (i64, i32),
        rows: &Rows<'_>,
    ) -> Result<i64, Failure> {
        let (offset, index) = after.columns();
        let position: [&(dyn ToSql + Sync); 5] = [&offset, &index, &self.claimed.epoch, &lowest.0, &lowest.1];
        let parameters: Vec<_> = position.into_iter().chain(rows.parameters()).collect();
        let sql = || insertion(&self.claimed, self.payload, careful);
        let prepared = if careful { &mut self.insert_missing } else { &mut self.insert };
        let client = &self.link.client;
        within(runtime, self.timeout, async {
            let statement = match prepared {
                Some(statement) => statement,
                None => prepared.insert(client.prepare(&sql()).await?),
            };
            client.query_one(&*statement, &parameters).await?.try_get(0)
        })
    }
}

/// The position moves only in its own epoch, and only when it is not beyond the rows; rows are written only when it moves.
fn insertion(claimed: &Claimed, payload: PostgresPayload, careful: bool) -> String {
    let Claimed { table, position, .. } = claimed;
    let (positions, row, journal) = (&position.table, &position.row, position.journal());
    let missing = if careful {
        format!(
            " AND NOT EXISTS (SELECT FROM {table} t WHERE t.journal = '{journal}'::uuid \
             AND t.entry_offset = r.entry_offset AND t.record_index = r.record_index)"
        )
    } else {
        String::new()
    };
    format!(
        "WITH moved AS (UPDATE {positions} SET \
         next_offset = CASE WHEN (next_offset, next_index) < ($1::bigint, $2::integer) THEN $1 ELSE next_offset END, \
         next_index = CASE WHEN (next_offset, next_index) < ($1, $2) THEN $2 ELSE next_index END \
         WHERE {row} AND epoch = $3::bigint AND (next_offset, next_index) <= ($4::bigint, $5::integer) RETURNING 1), \
         written AS (INSERT INTO {table} {COLUMNS} SELECT '{journal}'::uuid, {} FROM {} \
         WHERE EXISTS (SELECT FROM moved){missing}) \
         SELECT count(*) FROM moved",
        values(payload),
        source(6, payload)
    )
}
