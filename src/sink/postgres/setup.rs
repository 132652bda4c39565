//! What happens on a new connection before the first row: settings, the tables, the claim.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::Owner;
use super::errors::{Trouble, of_setup};
use super::judge::{Found, judge};
use super::position::{Position, PositionSql};
use super::state::State;
use super::table::{self, Column, Names};
use crate::model::{Offset, PostgresPayload};

/// What a connection may write, and where.
pub(super) struct Claimed {
    /// The table of records, as it stands in a statement.
    pub(super) table: String,
    /// Its payload can be NULL.
    pub(super) takes_gaps: bool,
    pub(super) position: PositionSql,
    pub(super) epoch: i64,
    pub(super) next: Position,
}

/// What decides whether a position is ours.
pub(super) struct Known<'a> {
    pub(super) owner: Owner,
    pub(super) state: &'a State,
    /// No record from here on can be in the table.
    pub(super) end: Offset,
}

/// A table as it is found.
struct Relation {
    oid: u32,
    names: Names,
    /// As it stands in messages, without quotes.
    shown: String,
}

/// Makes what is missing, checks what is there, claims the position and reads it.
pub(super) async fn set_up(
    client: &mut Client,
    names: &Names,
    payload: PostgresPayload,
    known: &Known<'_>,
    timeout: Duration,
) -> Result<Claimed, Trouble> {
    client.batch_execute(&settings(timeout)).await.map_err(|error| of_setup("setting up the connection", &error))?;
    let relation = match find(client, names).await? {
        Some(relation) => relation,
        None => {
            make(client, &format!("making the table {names}"), &table::creation(names, payload)).await?;
            let gone = || Trouble::Soon(format!("the table {names} is not found, though it was made"));
            find(client, names).await?.ok_or_else(gone)?
        }
    };
    let columns = columns(client, &relation).await?;
    let takes_gaps = table::check(&relation.shown, &columns, payload)?;
    let schema = relation.names.schema.as_deref().unwrap_or_default();
    let position = PositionSql::new(schema, known.owner);
    if !exists(client, &position.table).await? {
        make(client, &format!("making the table of positions {}", position.table), &position.creation()).await?;
    }
    let (epoch, next) = claim(client, &position, known).await?;
    Ok(Claimed { table: relation.names.to_string(), takes_gaps, position, epoch, next })
}

/// The server ends what takes too long before we stop waiting for it, so that it can say why. A lock that is held is the most
/// frequent reason, and the shortest wait. Rows that a commit confirms must outlive a crash of the server.
fn settings(timeout: Duration) -> String {
    let part = |tenths: u128| (timeout.as_millis() * tenths / 10).clamp(1, i32::MAX.unsigned_abs().into());
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET default_transaction_isolation = 'read committed'; SET client_min_messages = 'warning'; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        part(8),
        part(6),
        part(10)
    )
}

async fn find(client: &Client, names: &Names) -> Result<Option<Relation>, Trouble> {
    let doing = || format!("looking up the table {names}");
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, current_user::text, \
               has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1::text)";
    let row = client.query_opt(sql, &[&names.to_string()]).await.map_err(|error| of_setup(&doing(), &error))?;
    let Some(row) = row else { return Ok(None) };
    let failed = |error: Error| of_setup(&doing(), &error);
    let [schema, table, kind, user] = [
        row.try_get::<_, String>(1).map_err(failed)?,
        row.try_get::<_, String>(2).map_err(failed)?,
        row.try_get::<_, String>(3).map_err(failed)?,
        row.try_get::<_, String>(4).map_err(failed)?,
    ];
    let shown = format!("{schema}.{table}");
    let names = Names { schema: Some(schema), table };
    if !["r", "p"].contains(&kind.as_str()) {
        return Err(Trouble::Away(format!(
            "{shown} is no table, and rows can be written to tables only: name another"
        )));
    }
    if !row.try_get::<_, bool>(5).map_err(failed)? {
        return Err(Trouble::Away(format!(
            "table {shown}: the user {user} may not read and write it: GRANT SELECT, INSERT ON {names} TO {}",
            table::quoted(&user)
        )));
    }
    Ok(Some(Relation { oid: row.try_get(0).map_err(failed)?, names, shown }))
}

async fn columns(client: &Client, relation: &Relation) -> Result<Vec<Column>, Trouble> {
    let failed = |error: Error| of_setup(&format!("looking up the columns of {}", relation.shown), &error);
    let sql = "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull, \
               atthasdef OR attidentity <> '' OR attgenerated <> '' \
               FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = client.query(sql, &[&relation.oid]).await.map_err(failed)?;
    let column = |row: &tokio_postgres::Row| {
        Ok(Column {
            name: row.try_get(0)?,
            of_type: row.try_get(1)?,
            not_null: row.try_get(2)?,
            has_default: row.try_get(3)?,
        })
    };
    rows.iter().map(column).collect::<Result<_, Error>>().map_err(failed)
}

async fn exists(client: &Client, table: &str) -> Result<bool, Trouble> {
    let failed = |error: Error| of_setup(&format!("looking up the table {table}"), &error);
    let row = client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&table]).await.map_err(failed)?;
    row.try_get(0).map_err(failed)
}

async fn make(client: &Client, doing: &str, sql: &str) -> Result<(), Trouble> {
    match client.batch_execute(sql).await {
        Ok(()) => Ok(()),
        // Another sink has made it at the same moment.
        Err(error)
            if error.code() == Some(&SqlState::DUPLICATE_TABLE)
                || error.code() == Some(&SqlState::UNIQUE_VIOLATION) =>
        {
            Ok(())
        }
        Err(error) => Err(of_setup(doing, &error)),
    }
}

/// Waits for the lock of whoever is writing, decides, and raises the epoch.
async fn claim(client: &mut Client, position: &PositionSql, known: &Known<'_>) -> Result<(i64, Position), Trouble> {
    let failed = |error: Error| of_setup(&format!("claiming the position in {}", position.table), &error);
    let transaction = client.transaction().await.map_err(failed)?;
    let row = transaction.query_opt(&position.lock(), &[]).await.map_err(failed)?;
    let found = row.as_ref().map(found).transpose().map_err(failed)?;
    let own = known.state.own();
    let next = judge(found.as_ref(), known.state, known.end)
        .map_err(|refusal| refusal.trouble(&position.table, &known.owner, known.state))?;
    let claim = if found.is_some() { position.takeover(own) } else { position.insertion(own) };
    let epoch = transaction.query_one(&claim, &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok((epoch, next))
}

/// A row of positions. Nothing in it is below zero but by another's hand.
fn found(row: &tokio_postgres::Row) -> Result<Found, Error> {
    let (offset, index): (i64, i32) = (row.try_get(1)?, row.try_get(2)?);
    let (number, nonce): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
    Ok(Found {
        next: Position { offset: u64::try_from(offset).unwrap_or(0), index: u32::try_from(index).unwrap_or(0) },
        start: (u64::try_from(number).unwrap_or(0), nonce.cast_unsigned()),
    })
}
