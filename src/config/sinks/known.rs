//! The table of the keys of a sink: errors, help and documents share it.

/// Every type of a sink, as `type` names it.
pub(super) const TYPES: &[&str] = &["stdout", "file", "null", "http", "exec", "postgres", "nats", "redis", "mqtt"];

/// A key of a table `[[sink]]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SinkKey {
    /// Such as `url` or `batch.records_max`.
    pub name: &'static str,
    /// The types that have it; empty means all.
    pub types: &'static [&'static str],
    /// Its default, as the documents write it; empty where it must be given.
    pub default: &'static str,
}

impl SinkKey {
    /// Whether a sink of this type has the key.
    pub fn is_of(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.contains(&kind)
    }
}

const fn key(name: &'static str, types: &'static [&'static str], default: &'static str) -> SinkKey {
    SinkKey { name, types, default }
}

const SERVERS: &[&str] = &["http", "postgres", "nats", "redis", "mqtt"];

/// Every key that a table `[[sink]]` may have, in the order in which they are shown.
pub const SINK_KEYS: &[SinkKey] = &[
    key("name", &[], ""),
    key("type", &[], ""),
    key("path", &["file"], ""),
    key("command", &["exec"], ""),
    key("url", SERVERS, ""),
    key("mode", &["http"], "record"),
    key("content_type", &["http"], "application/octet-stream"),
    key("headers", &["http"], "none"),
    key("bearer", &["http"], "none"),
    key("gzip", &["http"], "false"),
    key("in_flight_max", &["http"], "1"),
    key("table", &["postgres"], ""),
    key("payload", &["postgres"], "bytea"),
    key("subject", &["nats"], ""),
    key("stream", &["nats"], ""),
    key("exclusive", &["nats"], "false"),
    key("token", &["nats"], "none"),
    key("credentials", &["nats"], "none"),
    key("key", &["redis"], ""),
    key("entries_max", &["redis"], "none"),
    key("topic", &["mqtt"], ""),
    key("client_id", &["mqtt"], "of the journal and the name"),
    key("user", &["http", "nats", "redis", "mqtt"], "none"),
    key("password", SERVERS, "none"),
    key("tls.ca_file", SERVERS, "what the machine trusts"),
    key("tls.cert_file", SERVERS, "none"),
    key("tls.key_file", SERVERS, "none"),
    key("channels", &[], "all"),
    key("start", &[], "oldest"),
    key("timeout", &[], "30s"),
    key("batch.records_max", &[], "1000, or 1024"),
    key("batch.bytes_max", &[], "1 MiB"),
    key("batch.delay_max", &[], "20ms, or 0s"),
    key("retry.attempts_max", &[], "as outside of the table"),
    key("backlog.bytes_max", &[], "none"),
    key("backlog.when_full", &[], "block"),
];

/// Whether keys stand below this name.
pub(super) fn is_table(name: &str) -> bool {
    SINK_KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(table, _)| table == name))
}
