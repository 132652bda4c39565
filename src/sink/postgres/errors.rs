//! Whose fault an error of PostgreSQL is: a record's, or that of the connection, the server, the configuration. Only the first
//! makes dead letters.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use crate::process::handler::HandlerError;

/// Why something was not written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// The table does not take one of the records. Nothing of the statement was written; the connection is good.
    Record(String),
    /// Nothing can be written now. The connection is not used any more; what became of the statement the position tells.
    Away(String),
    /// The same, and to try again at once is likely to help.
    Soon(String),
    /// As for `Away`; the statement took longer than it may, and one of fewer rows may not.
    Slow(String),
}

impl Trouble {
    /// What a lane is told.
    pub(super) fn into_error(self) -> HandlerError {
        match self {
            Self::Record(reason) | Self::Away(reason) | Self::Slow(reason) => HandlerError::new(reason),
            Self::Soon(reason) => HandlerError::new(reason).soon(),
        }
    }
}

/// What kind of error a SQLSTATE is, for a statement that inserts rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Record,
    Again,
    Slow,
    Away,
}

/// What an error of a statement that inserts rows means.
pub(super) fn of_write(error: &Error) -> Trouble {
    let Some(db) = error.as_db_error() else { return Trouble::Away(describe(error)) };
    match class(db.code(), db.constraint()) {
        Class::Record => Trouble::Record(describe(error)),
        Class::Again => Trouble::Soon(describe(error)),
        Class::Slow => Trouble::Slow(describe(error)),
        Class::Away => Trouble::Away(describe(error)),
    }
}

/// What an error before the first row means: never a record's fault.
pub(super) fn of_setup(doing: &str, error: &Error) -> Trouble {
    let reason = format!("{doing}: {}", describe(error));
    match error.as_db_error().map(|db| class(db.code(), db.constraint())) {
        Some(Class::Again) => Trouble::Soon(reason),
        _ => Trouble::Away(reason),
    }
}

/// Whether a row of that name is there already, or another unique index refuses one.
pub(super) fn is_duplicate(error: &Error) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
}

fn class(code: &SqlState, constraint: Option<&str>) -> Class {
    let digits = code.code();
    match digits {
        // A check has a name. Without one it is a partition that nobody has made yet: no record's fault.
        "23514" if constraint.is_none() => Class::Away,
        "40001" | "40P01" => Class::Again,
        "57014" => Class::Slow,
        // What a trigger or a view's check refuses, or what exceeds a limit of the program (depth, size of an index row).
        "P0001" | "44000" => Class::Record,
        _ => match digits.get(..2) {
            Some("22" | "23" | "54") => Class::Record,
            _ => Class::Away,
        },
    }
}

/// The error in words: without details, in which PostgreSQL shows the content of rows.
pub(super) fn describe(error: &Error) -> String {
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        if text.contains("password missing") {
            text.push_str(" (the server asks for one: set `password`)");
        }
        return text;
    };
    let mut text = format!("{} (SQLSTATE {}", db.message(), db.code().code());
    if let Some(constraint) = db.constraint() {
        text.push_str(&format!(", constraint {constraint}"));
    } else if let Some(column) = db.column() {
        text.push_str(&format!(", column {column}"));
    }
    text.push(')');
    if let Some(hint) = hint(db) {
        text.push_str(&format!("; {hint}"));
    }
    text
}

/// What to do about it, where that is not plain from the message.
fn hint(db: &DbError) -> Option<&'static str> {
    match db.code().code() {
        "28P01" => Some("is the password right? It is read anew at each attempt"),
        "28000" => Some("look at the user, its right to log in, and the server's pg_hba.conf"),
        "3D000" => Some("make it (CREATE DATABASE), or correct the URL"),
        "42501" => {
            Some("the user needs SELECT and INSERT on the table, SELECT, INSERT and UPDATE on duragram_positions")
        }
        "25006" => Some("the server takes no writes: is it a standby, or default_transaction_read_only set?"),
        "53100" => Some("the server's disk is full: nothing is lost, its records wait here"),
        "53300" => Some("the server has no connection to spare (max_connections)"),
        "55P03" => Some("another session holds a lock on the table or the position: see pg_locks"),
        "57014" => Some("it took longer than `timeout` allows"),
        "23514" => Some("make the partition; the records wait"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_row_itself_is_refused_for_is_a_records_fault() {
        for (code, constraint, expected) in [
            ("22P05", None, Class::Record),
            ("22P02", None, Class::Record),
            ("22003", None, Class::Record),
            ("22021", None, Class::Record),
            ("23502", None, Class::Record),
            ("23505", Some("events_pkey"), Class::Record),
            ("23514", Some("not_too_long"), Class::Record),
            ("23514", None, Class::Away),
            ("54001", None, Class::Record),
            ("54000", None, Class::Record),
            ("P0001", None, Class::Record),
            ("40001", None, Class::Again),
            ("40P01", None, Class::Again),
            ("25006", None, Class::Away),
            ("53100", None, Class::Away),
            ("55P03", None, Class::Away),
            ("57014", None, Class::Slow),
            ("57P01", None, Class::Away),
            ("57P03", None, Class::Away),
            ("08006", None, Class::Away),
            ("28P01", None, Class::Away),
            ("3D000", None, Class::Away),
            ("42P01", None, Class::Away),
            ("42501", None, Class::Away),
            ("42703", None, Class::Away),
            ("XX000", None, Class::Away),
        ] {
            assert_eq!(class(&SqlState::from_code(code), constraint), expected, "{code}");
        }
    }
}
