//! Records as the parameters of one statement: an array for each column.

use std::time::{Duration, SystemTime};

use tokio_postgres::types::ToSql;

use crate::model::{Content, PostgresPayload, Record};

/// The last moment of the year 9999. The clock can be wrong, but a row has to be written: past it time stands still.
const LATEST_US: u64 = 253_402_300_799_999_999;

/// The columns of some records.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    offsets: Vec<i64>,
    indexes: Vec<i32>,
    clients: Vec<String>,
    epochs: Vec<i64>,
    /// The same 64 bits: the statement makes numbers above zero of them.
    seqs: Vec<i64>,
    channels: Vec<i32>,
    received: Vec<SystemTime>,
    payloads: Payloads<'a>,
}

#[derive(Debug)]
enum Payloads<'a> {
    Bytes(Vec<Option<&'a [u8]>>),
    Text(Vec<Option<&'a str>>),
}

/// Why the record can never be a row, if it cannot. What is valid JSON the server alone decides.
pub(super) fn unfit(record: &Record<'_>, payload: PostgresPayload) -> Option<String> {
    if i64::try_from(record.offset.0).is_err() {
        return Some(format!("offset {} is beyond what a bigint holds", record.offset));
    }
    match (record.content, payload) {
        (Content::Payload(bytes), PostgresPayload::Jsonb) => {
            str::from_utf8(bytes).err().map(|error| format!("the payload is no JSON, since it is no UTF-8: {error}"))
        }
        _ => None,
    }
}

impl<'a> Rows<'a> {
    /// Of records of which none is [`unfit`]. Without `gaps` those that are no message are left out.
    pub(super) fn of(records: &[Record<'a>], payload: PostgresPayload, gaps: bool) -> Self {
        let len = records.len();
        let mut rows = Self {
            offsets: Vec::with_capacity(len),
            indexes: Vec::with_capacity(len),
            clients: Vec::with_capacity(len),
            epochs: Vec::with_capacity(len),
            seqs: Vec::with_capacity(len),
            channels: Vec::with_capacity(len),
            received: Vec::with_capacity(len),
            payloads: match payload {
                PostgresPayload::Bytea => Payloads::Bytes(Vec::with_capacity(len)),
                PostgresPayload::Jsonb => Payloads::Text(Vec::with_capacity(len)),
            },
        };
        for record in records {
            let bytes = match record.content {
                Content::Payload(bytes) => Some(bytes),
                Content::Gap { .. } if gaps => None,
                Content::Gap { .. } => continue,
            };
            rows.offsets.push(i64::try_from(record.offset.0).unwrap_or(i64::MAX));
            rows.indexes.push(record.index.into());
            rows.clients.push(record.session.client.to_string());
            rows.epochs.push(record.session.epoch.value().into());
            rows.seqs.push(record.seq.0.cast_signed());
            rows.channels.push(record.channel.into());
            rows.received.push(SystemTime::UNIX_EPOCH + Duration::from_micros(record.received_unix_us.min(LATEST_US)));
            match &mut rows.payloads {
                Payloads::Bytes(payloads) => payloads.push(bytes),
                Payloads::Text(payloads) => payloads.push(bytes.and_then(|bytes| str::from_utf8(bytes).ok())),
            }
        }
        rows
    }

    /// In the order of [`source`].
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 8] {
        let payloads: &(dyn ToSql + Sync) = match &self.payloads {
            Payloads::Bytes(payloads) => payloads,
            Payloads::Text(payloads) => payloads,
        };
        let Self { offsets, indexes, clients, epochs, seqs, channels, received, .. } = self;
        [offsets, indexes, clients, epochs, seqs, channels, received, payloads]
    }
}

/// What makes rows of the parameters from `$first` on: `r`, with the columns as they were given. Unnested where they are selected
/// the arrays are read in step; in FROM the server would first lay each out as a table of its own.
pub(super) fn source(first: usize, payload: PostgresPayload) -> String {
    let payload = match payload {
        PostgresPayload::Bytea => "bytea",
        PostgresPayload::Jsonb => "text",
    };
    let types = ["bigint", "integer", "text", "bigint", "bigint", "integer", "timestamptz", payload];
    let arrays: Vec<_> = (first..).zip(types).map(|(n, of_type)| format!("unnest(${n}::{of_type}[])")).collect();
    format!(
        "(SELECT {}) AS r(entry_offset, record_index, client, epoch, seq, channel, received_at, payload)",
        arrays.join(", ")
    )
}

/// The columns that are written.
pub(super) const COLUMNS: &str =
    "(journal, entry_offset, record_index, client, epoch, seq, channel, received_at, payload)";

/// The values of [`COLUMNS`], but for the journal, out of [`source`].
pub(super) fn values(payload: PostgresPayload) -> String {
    let cast = match payload {
        PostgresPayload::Bytea => "",
        PostgresPayload::Jsonb => "::jsonb",
    };
    format!(
        "r.entry_offset, r.record_index, r.client, r.epoch, \
         CASE WHEN r.seq < 0 THEN r.seq::numeric + 18446744073709551616 ELSE r.seq::numeric END, \
         r.channel, r.received_at, r.payload{cast}"
    )
}
