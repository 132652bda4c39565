//! A sink as it is shown: what reads back as the same sink, and where secrets come from in place of what they say.

use serde_json::{Map, Value as Json, json};

use super::super::values::{show_channels, show_size, show_time};
use crate::model::{
    HttpAuth, HttpMode, HttpTarget, NatsAuth, NatsTarget, PostgresPayload, Secret, SinkConfig, SinkStart, SinkTarget,
    TlsConfig, WhenFull,
};

/// A sink as the file writes it: its short form if that says all, else a table.
pub(in super::super) fn show(sink: &SinkConfig) -> Json {
    if sink.is_short() {
        return Json::from(sink.name.as_str());
    }
    let mut table = Map::new();
    let mut put = |key: &str, value: Json| {
        if !value.is_null() {
            table.insert(key.to_owned(), value);
        }
    };
    put("name", json!(sink.name));
    put("type", json!(sink.target.kind()));
    match &sink.target {
        SinkTarget::Null | SinkTarget::Stdout => {}
        SinkTarget::File(path) => put("path", json!(path.display().to_string())),
        SinkTarget::Exec(target) => put("command", json!(target.command)),
        SinkTarget::Http(target) => http(target, &mut put),
        SinkTarget::Postgres(target) => {
            // Without a key of it a table that is there says so all the same.
            put("tls", target.tls.as_ref().map_or(Json::Null, |tls| tls_table(tls, true)));
            put("url", json!(target.url));
            put("password", secret(target.password.as_ref()));
            put("table", json!(target.table));
            put("payload", json!(if target.payload == PostgresPayload::Jsonb { "jsonb" } else { "bytea" }));
        }
        SinkTarget::Nats(target) => nats(target, &mut put),
        SinkTarget::Redis(target) => {
            put("url", json!(target.url));
            put("user", json!(target.user));
            put("password", secret(target.password.as_ref()));
            put("key", json!(target.key));
            put("entries_max", json!(target.entries_max));
            put("tls", tls_table(&target.tls, false));
        }
        SinkTarget::Mqtt(target) => {
            put("url", json!(target.url));
            put("user", json!(target.user));
            put("password", secret(target.password.as_ref()));
            put("topic", json!(target.topic));
            put("client_id", json!(target.client_id));
            put("tls", tls_table(&target.tls, false));
        }
    }
    if !sink.channels.is_empty() {
        put("channels", show_channels(&sink.channels));
    }
    put("start", start(sink.start));
    put("timeout", show_time(&sink.timeout));
    put(
        "batch",
        json!({
            "records_max": sink.batch.records_max,
            "bytes_max": show_size(&sink.batch.bytes_max),
            "delay_max": show_time(&sink.batch.delay_max),
        }),
    );
    if sink.attempts_max != 0 {
        put("retry", json!({ "attempts_max": sink.attempts_max }));
    }
    let mut backlog = Map::new();
    if let Some(bytes) = &sink.backlog.bytes_max {
        backlog.insert("bytes_max".to_owned(), show_size(bytes));
    }
    backlog.insert("when_full".to_owned(), json!(when_full(sink.backlog.when_full)));
    put("backlog", Json::Object(backlog));
    Json::Object(table)
}

fn http(target: &HttpTarget, put: &mut impl FnMut(&str, Json)) {
    put("url", json!(target.url));
    put("mode", json!(if target.mode == HttpMode::Batch { "batch" } else { "record" }));
    if target.mode == HttpMode::Record {
        put("content_type", json!(target.content_type));
    }
    if !target.headers.is_empty() {
        let headers: Map<String, Json> =
            target.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        put("headers", Json::Object(headers));
    }
    match &target.auth {
        None => {}
        Some(HttpAuth::Bearer(token)) => put("bearer", secret(Some(token))),
        Some(HttpAuth::Basic { user, password }) => {
            put("user", json!(user));
            put("password", secret(Some(password)));
        }
    }
    put("gzip", json!(target.gzip));
    put("in_flight_max", json!(target.in_flight_max));
    put("tls", tls_table(&target.tls, false));
}

fn nats(target: &NatsTarget, put: &mut impl FnMut(&str, Json)) {
    put("url", json!(target.url));
    match &target.auth {
        None => {}
        Some(NatsAuth::Token(token)) => put("token", secret(Some(token))),
        Some(NatsAuth::User { user, password }) => {
            put("user", json!(user));
            put("password", secret(Some(password)));
        }
        Some(NatsAuth::Credentials(credentials)) => put("credentials", secret(Some(credentials))),
    }
    put("subject", json!(target.subject));
    put("stream", json!(target.stream));
    put("exclusive", json!(target.exclusive));
    put("tls", tls_table(&target.tls, false));
}

fn secret(secret: Option<&Secret>) -> Json {
    match secret {
        None => Json::Null,
        Some(Secret::File(path)) => json!({ "file": path.display().to_string() }),
        Some(Secret::Env(name)) => json!({ "env": name }),
        Some(Secret::Credential(name)) => json!({ "credential": name }),
    }
}

fn tls_table(tls: &TlsConfig, even_empty: bool) -> Json {
    let files = [("ca_file", &tls.ca_file), ("cert_file", &tls.cert_file), ("key_file", &tls.key_file)];
    let given =
        files.into_iter().filter_map(|(key, file)| Some((key.to_owned(), json!(file.as_ref()?.display().to_string()))));
    let given: Map<String, Json> = given.collect();
    if given.is_empty() && !even_empty { Json::Null } else { Json::Object(given) }
}

fn start(start: SinkStart) -> Json {
    match start {
        SinkStart::Oldest => json!("oldest"),
        SinkStart::Now => json!("now"),
        SinkStart::At(offset) => json!(offset.0),
    }
}

fn when_full(when_full: WhenFull) -> &'static str {
    match when_full {
        WhenFull::Block => "block",
        WhenFull::DropOldest => "drop_oldest",
        WhenFull::Detach => "detach",
    }
}
