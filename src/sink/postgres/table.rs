//! Names of tables, and which columns the rows are written to.

use std::fmt;

use super::errors::Trouble;
use crate::model::PostgresPayload;
use crate::process::handler::HandlerError;

/// The table of positions, in the schema of the table of records.
pub(super) const POSITIONS: &str = "duragram_positions";

/// Bytes of a name: longer ones PostgreSQL cuts off, and would then mean another table.
const NAME_BYTES: usize = 63;

/// The table as it is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Names {
    /// `None`: where the server looks first (`search_path`).
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

impl Names {
    /// Of `TABLE` or `SCHEMA.TABLE`. Capital letters are meant as they stand.
    ///
    /// # Errors
    /// One of the names cannot be one.
    pub(super) fn parse(text: &str) -> Result<Self, HandlerError> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, text),
        };
        for name in schema.iter().copied().chain([table]) {
            if name.is_empty() || name.len() > NAME_BYTES || name.contains(['\0', '.', '"']) {
                return Err(HandlerError::new(format_args!(
                    "table {text:?}: must be TABLE or SCHEMA.TABLE, each of 1 to {NAME_BYTES} bytes, without quotes"
                )));
            }
        }
        if table == POSITIONS {
            return Err(HandlerError::new(format_args!("table {text:?}: this one holds the sinks' positions")));
        }
        Ok(Self { schema: schema.map(str::to_owned), table: table.to_owned() })
    }
}

impl fmt::Display for Names {
    /// As it stands in a statement.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.table))
    }
}

/// A name as it stands in a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The statement that makes the table of records.
pub(super) fn creation(names: &Names, payload: PostgresPayload) -> String {
    format!(
        "CREATE TABLE {names} (journal uuid NOT NULL, entry_offset bigint NOT NULL, record_index integer NOT NULL, \
         client text NOT NULL, epoch bigint NOT NULL, seq numeric(20) NOT NULL, channel integer NOT NULL, \
         received_at timestamptz NOT NULL, payload {}, PRIMARY KEY (journal, entry_offset, record_index))",
        name_of(payload)
    )
}

pub(super) fn name_of(payload: PostgresPayload) -> &'static str {
    match payload {
        PostgresPayload::Bytea => "bytea",
        PostgresPayload::Jsonb => "jsonb",
    }
}

/// A column of the table as it is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// As PostgreSQL writes it (`format_type`).
    pub(super) of_type: String,
    pub(super) not_null: bool,
    /// It has a value when none is given.
    pub(super) has_default: bool,
}

/// Whether the rows fit into a table with these columns; and whether its payload can be NULL.
///
/// # Errors
/// The first column that is missing or of another type, or that the rows would have to fill.
pub(super) fn check(table: &str, columns: &[Column], payload: PostgresPayload) -> Result<bool, Trouble> {
    let wanted: [(&str, &[&str]); 9] = [
        ("journal", &["uuid"]),
        ("entry_offset", &["bigint"]),
        ("record_index", &["integer", "bigint"]),
        ("client", &["text", "character varying", "character varying(16)", "character(16)"]),
        ("epoch", &["bigint"]),
        ("seq", &["numeric(20,0)", "numeric"]),
        ("channel", &["integer", "bigint"]),
        ("received_at", &["timestamp with time zone"]),
        ("payload", &[name_of(payload)]),
    ];
    for (name, types) in wanted {
        let Some(column) = columns.iter().find(|column| column.name == name) else {
            return Err(Trouble::Away(format!(
                "table {table} has no column {name}: add it ({name} {}), or name another table",
                types[0]
            )));
        };
        if !types.contains(&column.of_type.as_str()) {
            return Err(Trouble::Away(format!(
                "table {table}: column {name} is of type {}, and must be {}: change it, or name another table",
                column.of_type,
                types.join(" or ")
            )));
        }
    }
    let unknown = |column: &&Column| !wanted.iter().any(|(name, _)| *name == column.name);
    if let Some(column) = columns.iter().filter(unknown).find(|column| column.not_null && !column.has_default) {
        return Err(Trouble::Away(format!(
            "table {table}: column {} is NOT NULL and has no default, and no record has a value for it: give it one",
            column.name
        )));
    }
    Ok(columns.iter().any(|column| column.name == "payload" && !column.not_null))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let column = |(name, of_type): (&str, &str)| Column {
            name: name.into(),
            of_type: of_type.into(),
            not_null: false,
            has_default: false,
        };
        [
            ("journal", "uuid"),
            ("entry_offset", "bigint"),
            ("record_index", "integer"),
            ("client", "text"),
            ("epoch", "bigint"),
            ("seq", "numeric(20,0)"),
            ("channel", "integer"),
            ("received_at", "timestamp with time zone"),
            ("payload", "bytea"),
        ]
        .map(column)
        .into()
    }

    #[test]
    fn a_name_is_taken_as_it_stands_and_one_that_would_mean_another_table_is_refused() {
        assert_eq!(Names::parse("events").unwrap().to_string(), r#""events""#);
        assert_eq!(Names::parse("App.Events; drop table x").unwrap().to_string(), r#""App"."Events; drop table x""#);
        for wrong in ["", ".", "a.", ".b", "a.b.c", "a\"b", "a\0", "duragram_positions", &"x".repeat(64)] {
            assert!(Names::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_names_the_column_that_is_wrong() {
        assert_eq!(check("t", &columns(), PostgresPayload::Bytea), Ok(true));
        let mut wrong = columns();
        wrong[5].of_type = "bigint".into();
        let Err(Trouble::Away(reason)) = check("t", &wrong, PostgresPayload::Bytea) else { panic!("it fits") };
        assert!(reason.contains("column seq is of type bigint"), "{reason}");
        let mut wrong = columns();
        wrong.remove(3);
        let Err(Trouble::Away(reason)) = check("t", &wrong, PostgresPayload::Bytea) else { panic!("it fits") };
        assert!(reason.contains("no column client"), "{reason}");
        let Err(Trouble::Away(reason)) = check("t", &columns(), PostgresPayload::Jsonb) else { panic!("it fits") };
        assert!(reason.contains("must be jsonb"), "{reason}");
    }

    #[test]
    fn a_further_column_may_be_there_if_it_needs_no_value() {
        let mut more = columns();
        more.push(Column { name: "site".into(), of_type: "text".into(), not_null: true, has_default: false });
        let Err(Trouble::Away(reason)) = check("t", &more, PostgresPayload::Bytea) else { panic!("it fits") };
        assert!(reason.contains("column site"), "{reason}");
        more[9].has_default = true;
        more[8].not_null = true;
        assert_eq!(check("t", &more, PostgresPayload::Bytea), Ok(false), "and no gap fits in");
    }
}
