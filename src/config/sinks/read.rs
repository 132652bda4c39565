//! From a table `[[sink]]` to a sink. What cannot be read stands at its default in it, beside the list of what is wrong.

use std::ops::RangeInclusive;

use figment::value::{Dict, Value};

use super::super::nearest::nearest;
use super::super::values::{boolean, channels, duration, number, size, text, texts};
use super::foreign;
use super::known::TYPES;
use super::table::{Problems, Table};
use crate::limits;
use crate::model::{
    ExecTarget, HttpAuth, HttpMode, HttpTarget, MqttTarget, NatsAuth, NatsTarget, Offset, PostgresPayload,
    PostgresTarget, RedisTarget, Secret, SinkConfig, SinkStart, SinkTarget, TlsConfig, WhenFull,
};

/// What stands for a text that is no sink, so that those after it keep their numbers.
pub(super) fn unreadable(n: usize) -> SinkConfig {
    SinkConfig::new(format!("unreadable-{}", n + 1), SinkTarget::Null)
}

/// Reads one sink's table, and gathers all that is wrong with it.
pub(super) fn sink(dict: &Dict) -> (SinkConfig, Problems) {
    let mut table = Table::new(dict);
    if table.find("name").is_none() {
        table.wrong(
            "name",
            "must be given, such as name = \"events\": it stands for the sink's place in the journal, forever",
        );
    }
    let name = table.text("name").unwrap_or_default();
    let kind = kind(&mut table);
    table.unknown(kind);
    let mut sink = SinkConfig::new(name, kind.map_or(SinkTarget::Null, |kind| target(kind, &mut table)));
    common(&mut sink, &mut table);
    (sink, table.problems)
}

fn kind(table: &mut Table<'_>) -> Option<&'static str> {
    let types = TYPES.join(", ");
    if table.find("type").is_none() {
        table.wrong("type", format!("must be given, one of {types}"));
    }
    table.parsed("type", |text| {
        let known: Vec<String> = TYPES.iter().map(|&kind| kind.to_owned()).collect();
        TYPES.iter().find(|kind| **kind == text).copied().ok_or_else(|| {
            match (foreign::kind(text), nearest(text, &known)) {
                (Some(here), _) => format!("there is no type {text:?}; here it is {here:?}"),
                (None, Some(near)) => format!("there is no type {text:?}; did you mean {near:?}?"),
                (None, None) => {
                    format!("there is no type {text:?}; there are {types}. What else you need may be an exec")
                }
            }
        })
    })
}

fn common(sink: &mut SinkConfig, table: &mut Table<'_>) {
    set(&mut sink.channels, table.read("channels", all_channels));
    set(&mut sink.start, table.parsed("start", start));
    set(&mut sink.timeout, table.parsed("timeout", duration));
    set(&mut sink.batch.records_max, table.parsed("batch.records_max", number));
    set(&mut sink.batch.bytes_max, table.parsed("batch.bytes_max", size));
    set(&mut sink.batch.delay_max, table.parsed("batch.delay_max", duration));
    set(&mut sink.attempts_max, table.parsed("retry.attempts_max", attempts));
    sink.backlog.bytes_max = table.parsed("backlog.bytes_max", size);
    let words = [("block", WhenFull::Block), ("drop_oldest", WhenFull::DropOldest), ("detach", WhenFull::Detach)];
    set(&mut sink.backlog.when_full, table.word("backlog.when_full", &words));
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn all_channels(value: &Value) -> Result<Vec<RangeInclusive<u16>>, String> {
    texts(value)?.iter().map(|text| channels(text)).collect()
}

fn start(text: &str) -> Result<SinkStart, String> {
    match text {
        "oldest" => Ok(SinkStart::Oldest),
        "now" => Ok(SinkStart::Now),
        text => number(text)
            .map(|offset| SinkStart::At(Offset(offset)))
            .map_err(|_| format!("{text:?} is neither \"oldest\" nor \"now\" nor an offset")),
    }
}

/// Zero stands for what holds outside of the table, and nobody may write it.
fn attempts(text: &str) -> Result<u16, String> {
    match number(text)? {
        0 => {
            let range = limits::RETRY_ATTEMPTS;
            Err(format!("0 is out of range: {} to {} attempts", range.start(), range.end()))
        }
        attempts => Ok(attempts),
    }
}

fn target(kind: &str, table: &mut Table<'_>) -> SinkTarget {
    match kind {
        "stdout" => SinkTarget::Stdout,
        "file" => SinkTarget::File(table.needed("path", "/var/lib/duragram/records.ndjson").into()),
        "exec" => SinkTarget::Exec(ExecTarget {
            command: table.needed("command", "python3 /opt/handler.py"),
            withheld: Vec::new(),
        }),
        "http" => SinkTarget::Http(http(table)),
        "postgres" => SinkTarget::Postgres(postgres(table)),
        "nats" => SinkTarget::Nats(NatsTarget {
            url: table.needed("url", "nats://127.0.0.1:4222"),
            auth: nats_auth(table),
            subject: table.needed("subject", "duragram.records"),
            stream: table.needed("stream", "RECORDS"),
            exclusive: table.parsed("exclusive", boolean).unwrap_or_default(),
            tls: tls(table),
        }),
        "redis" => SinkTarget::Redis(RedisTarget {
            url: table.needed("url", "redis://127.0.0.1:6379"),
            user: table.text("user"),
            password: table.secret("password"),
            key: table.needed("key", "records"),
            entries_max: table.parsed("entries_max", number),
            tls: tls(table),
        }),
        "mqtt" => SinkTarget::Mqtt(MqttTarget {
            url: table.needed("url", "mqtt://127.0.0.1:1883"),
            user: table.text("user"),
            password: table.secret("password"),
            topic: table.needed("topic", "duragram/{channel}"),
            client_id: table.text("client_id"),
            tls: tls(table),
        }),
        _ => SinkTarget::Null,
    }
}

fn http(table: &mut Table<'_>) -> HttpTarget {
    let mut target = HttpTarget::new(table.needed("url", "https://example.com/records"));
    set(&mut target.mode, table.word("mode", &[("record", HttpMode::Record), ("batch", HttpMode::Batch)]));
    if target.mode == HttpMode::Batch && table.find("content_type").is_some() {
        table.wrong("content_type", "is for mode = \"record\": a batch is always application/x-ndjson");
    }
    set(&mut target.content_type, table.text("content_type"));
    set(&mut target.headers, table.read("headers", headers));
    set(&mut target.gzip, table.parsed("gzip", boolean));
    set(&mut target.in_flight_max, table.parsed("in_flight_max", number));
    target.auth = match (table.secret("bearer"), user_and_password(table)) {
        (Some(_), Some(_)) => {
            table.wrong("bearer", "a server knows us by a token or by user and password, not by both");
            None
        }
        (Some(token), None) => Some(HttpAuth::Bearer(token)),
        (None, Some((user, password))) => Some(HttpAuth::Basic { user, password }),
        (None, None) => None,
    };
    target.tls = tls(table);
    target
}

fn headers(value: &Value) -> Result<Vec<(String, String)>, String> {
    let Some(dict) = value.as_dict() else {
        return Err("is a table: write headers = { Name = \"value\" }".to_owned());
    };
    dict.iter()
        .map(|(name, value)| Ok((name.clone(), text(value).map_err(|error| format!("{name}: {error}"))?)))
        .collect()
}

fn postgres(table: &mut Table<'_>) -> PostgresTarget {
    let mut url = table.needed("url", "postgres://ingest@127.0.0.1/app");
    let mut tls = table.find("tls").map(|_| tls(table));
    match super::targets::ssl_mode(&url) {
        Ok(Some((encrypted, without))) => {
            match (encrypted, &tls) {
                (false, Some(_)) => {
                    table.wrong("url", "says sslmode=disable, and there are keys of tls: leave out one of them")
                }
                (true, None) => tls = Some(TlsConfig::default()),
                _ => {}
            }
            url = without;
        }
        Ok(None) => {}
        Err(message) => table.wrong("url", message),
    }
    let payloads = [("bytea", PostgresPayload::Bytea), ("jsonb", PostgresPayload::Jsonb)];
    PostgresTarget {
        url,
        password: table.secret("password"),
        table: table.needed("table", "records"),
        payload: table.word("payload", &payloads).unwrap_or_default(),
        tls,
    }
}

fn nats_auth(table: &mut Table<'_>) -> Option<NatsAuth> {
    let user = user_and_password(table).map(|(user, password)| NatsAuth::User { user, password });
    let token = table.secret("token").map(NatsAuth::Token);
    let credentials = table.secret("credentials").map(NatsAuth::Credentials);
    let mut given = [("user", user), ("token", token), ("credentials", credentials)].into_iter();
    let mut given = given.by_ref().filter_map(|(key, auth)| Some((key, auth?)));
    let first = given.next().map(|(_, auth)| auth);
    if let Some((key, _)) = given.next() {
        table.wrong(key, "a server knows us by user and password, or by a token, or by credentials: give one of them");
    }
    first
}

/// Both, where both are needed.
fn user_and_password(table: &mut Table<'_>) -> Option<(String, Secret)> {
    let (user, password) = (table.find("user").is_some(), table.find("password").is_some());
    match (user, password) {
        (true, false) => table.wrong("user", "needs its password"),
        (false, true) => table.wrong("password", "needs its user"),
        _ => {}
    }
    table.text("user").zip(table.secret("password"))
}

fn tls(table: &mut Table<'_>) -> TlsConfig {
    let mut path = |key| table.text(key).map(Into::into);
    TlsConfig { ca_file: path("tls.ca_file"), cert_file: path("tls.cert_file"), key_file: path("tls.key_file") }
}
