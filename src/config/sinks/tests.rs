use std::time::Duration;

use super::super::tests::Case;
use super::super::{Config, KEYS};
use crate::limits;
use crate::model::{
    HttpAuth, HttpMode, NatsAuth, Offset, PostgresPayload, Secret, SinkConfig, SinkStart, SinkTarget, TlsConfig,
    WhenFull,
};

mod errors;

/// A table of each type, with every key that it has.
pub(super) const EVERY_TYPE: &str = r#"
[[sink]]
name = "events"
type = "postgres"
url = "postgres://ingest@db1,db2:5433/app?options=-cx=y"
password = { credential = "pg" }
table = "public.events"
payload = "jsonb"
channels = [1, "10-19"]
start = "now"
timeout = "10s"
batch.records_max = 5000
batch.bytes_max = "4 MiB"
batch.delay_max = "100ms"
retry.attempts_max = 3
backlog.bytes_max = "50 GiB"
backlog.when_full = "drop_oldest"
tls.ca_file = "/etc/duragram/ca.pem"

[[sink]]
name = "hook"
type = "http"
url = "https://example.com/in?source=duragram"
content_type = "application/json"
headers = { X-Source = "duragram", "X-Site" = 7 }
bearer = { file = "/etc/duragram/token" }
gzip = true
in_flight_max = 8
start = 42
[sink.tls]
ca_file = "/ca.pem"
cert_file = "/cert.pem"
key_file = "/key.pem"

[[sink]]
name = "bulk"
type = "http"
url = "http://127.0.0.1:8080"
mode = "batch"
user = "me"
password = { env = "BULK_PASSWORD" }

[[sink]]
name = "child"
type = "exec"
command = "python3 handler.py"

[[sink]]
name = "jet"
type = "nats"
url = "tls://n1,n2:4222"
subject = "site.records"
stream = "RECORDS"
exclusive = true
credentials = { file = "/etc/duragram/nats.creds" }
backlog = { bytes_max = 68719476736, when_full = "detach" }

[[sink]]
name = "stream"
type = "redis"
url = "rediss://cache:6380/1"
user = "ingest"
password = { file = "/etc/duragram/redis" }
key = "records"
entries_max = 1_000_000
tls.ca_file = "/ca.pem"

[[sink]]
name = "broker"
type = "mqtt"
url = "mqtt://broker"
user = "ingest"
password = { env = "MQTT" }
topic = "site/{channel}/{client}"
client_id = "duragram-1"

[[sink]]
name = "log"
type = "file"
path = "/var/log/records \"x\".ndjson"
batch = { records_max = 10 }

[[sink]]
name = "shown"
type = "stdout"

[[sink]]
name = "nowhere.at-all_1"
type = "null"
"#;

fn every_type() -> Config {
    Case::new().file(EVERY_TYPE).config()
}

fn sink<'a>(config: &'a Config, name: &str) -> &'a SinkConfig {
    config.sink.iter().find(|sink| sink.name == name).unwrap_or_else(|| panic!("there is no {name}"))
}

#[test]
fn a_table_of_each_type_is_read_with_all_its_keys() {
    let config = every_type();
    let kinds: Vec<&str> = config.sink.iter().map(|sink| sink.target.kind()).collect();
    assert_eq!(kinds, ["postgres", "http", "http", "exec", "nats", "redis", "mqtt", "file", "stdout", "null"]);

    let events = sink(&config, "events");
    assert_eq!(events.channels, [1..=1, 10..=19]);
    assert_eq!((events.start, events.timeout, events.attempts_max), (SinkStart::Now, Duration::from_secs(10), 3));
    assert_eq!((events.batch.records_max, events.batch.bytes_max), (5000, 4 << 20));
    assert_eq!(events.batch.delay_max, Duration::from_millis(100));
    assert_eq!((events.backlog.bytes_max, events.backlog.when_full), (Some(50 << 30), WhenFull::DropOldest));
    let SinkTarget::Postgres(postgres) = &events.target else { panic!("{events:?}") };
    assert_eq!(postgres.url, "postgres://ingest@db1,db2:5433/app?options=-cx=y");
    assert_eq!(postgres.password, Some(Secret::Credential("pg".into())));
    assert_eq!((postgres.table.as_str(), postgres.payload), ("public.events", PostgresPayload::Jsonb));
    let tls = TlsConfig { ca_file: Some("/etc/duragram/ca.pem".into()), ..TlsConfig::default() };
    assert_eq!(postgres.tls, Some(tls));

    let SinkTarget::Http(hook) = &sink(&config, "hook").target else { panic!("it is http") };
    assert_eq!(sink(&config, "hook").start, SinkStart::At(Offset(42)));
    assert_eq!((hook.mode, hook.gzip, hook.in_flight_max), (HttpMode::Record, true, 8));
    assert_eq!(hook.content_type, "application/json");
    let headers = [("X-Site", "7"), ("X-Source", "duragram")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(hook.headers, headers);
    assert_eq!(hook.auth, Some(HttpAuth::Bearer(Secret::File("/etc/duragram/token".into()))));
    assert_eq!(hook.tls.key_file, Some("/key.pem".into()));

    let SinkTarget::Http(bulk) = &sink(&config, "bulk").target else { panic!("it is http") };
    assert_eq!(bulk.mode, HttpMode::Batch);
    let password = Secret::Env("BULK_PASSWORD".into());
    assert_eq!(bulk.auth, Some(HttpAuth::Basic { user: "me".into(), password }));

    let jet = sink(&config, "jet");
    let SinkTarget::Nats(nats) = &jet.target else { panic!("{jet:?}") };
    assert_eq!((nats.subject.as_str(), nats.stream.as_str(), nats.exclusive), ("site.records", "RECORDS", true));
    assert_eq!(nats.auth, Some(NatsAuth::Credentials(Secret::File("/etc/duragram/nats.creds".into()))));
    assert_eq!((jet.backlog.bytes_max, jet.backlog.when_full), (Some(64 << 30), WhenFull::Detach));

    let SinkTarget::Redis(redis) = &sink(&config, "stream").target else { panic!("it is redis") };
    assert_eq!(
        (redis.user.as_deref(), redis.key.as_str(), redis.entries_max),
        (Some("ingest"), "records", Some(1_000_000))
    );
    let SinkTarget::Mqtt(mqtt) = &sink(&config, "broker").target else { panic!("it is mqtt") };
    assert_eq!((mqtt.topic.as_str(), mqtt.client_id.as_deref()), ("site/{channel}/{client}", Some("duragram-1")));
    assert_eq!(sink(&config, "log").batch.records_max, 10);
}

#[test]
fn what_is_shown_of_each_type_reads_back_as_the_same_sink() {
    let config = every_type();
    let key = KEYS.iter().find(|key| key.name == "sink").unwrap();
    let toml = format!("{} = {}\n", key.name, key.show_toml(&config));
    assert_eq!(Case::new().file(&toml).config().sink, config.sink, "{toml}");
    assert!(toml.contains("{ name = \"events\", type = \"postgres\", "), "{toml}");
}

#[test]
fn each_promise_is_what_the_type_can_keep() {
    let config = every_type();
    for (name, promise) in [
        ("nowhere.at-all_1", "nothing"),
        ("shown", "at least once"),
        ("log", "exact"),
        ("hook", "at least once (each request carries its name in Idempotency-Key)"),
        ("child", "at least once"),
        ("events", "exact"),
        ("jet", "exact"),
        ("stream", "exact while the key lives"),
        ("broker", "at least once"),
    ] {
        assert_eq!(sink(&config, name).target.promise(), promise, "{name}");
    }
    let shared: SinkConfig = "nats://h/S?subject=a".parse().unwrap();
    assert_eq!(shared.target.promise(), "window");
}

#[test]
fn without_its_keys_a_sink_has_the_defaults_of_its_type() {
    let config = Case::new().file("[[sink]]\nname = \"a\"\ntype = \"stdout\"\n[[sink]]\nname = \"b\"\ntype = \"redis\"\nurl = \"redis://h\"\nkey = \"k\"").config();
    let (lines, redis) = (&config.sink[0], &config.sink[1]);
    assert_eq!(
        (lines.batch.records_max, lines.batch.bytes_max),
        (limits::LANE_BATCH_RECORDS, limits::LANE_BATCH_BYTES)
    );
    assert_eq!((redis.batch.records_max, redis.batch.bytes_max), (1000, 1 << 20));
    assert_eq!((lines.batch.delay_max, redis.batch.delay_max), (Duration::ZERO, Duration::from_millis(20)));
    for sink in &config.sink {
        assert_eq!((sink.start, sink.timeout), (SinkStart::Oldest, Duration::from_secs(30)));
        assert_eq!((sink.attempts_max, sink.backlog.bytes_max), (0, None));
        assert_eq!(sink.backlog.when_full, WhenFull::Block);
        assert!(sink.channels.is_empty());
    }
}

#[test]
fn short_forms_stand_beside_tables_in_one_list() {
    let config = Case::new().file("sink = [\"stdout\", { name = \"a\", type = \"null\" }, \"exec:cat\"]").config();
    let names: Vec<&str> = config.sink.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["stdout", "a", "exec:cat"]);
    assert_eq!(Case::new().file("sink = \"null\"").config().sink, ["null".parse().unwrap()]);
}

#[test]
fn flags_and_variables_replace_the_whole_list() {
    let case = Case::new().file(EVERY_TYPE);
    let config = case.variable("DURAGRAM_SINK", "null, file:/tmp/x").config();
    assert_eq!(config.sink, ["null", "file:/tmp/x"].map(|sink| sink.parse().unwrap()));
    let config = Case::new().file(EVERY_TYPE).flag("sink", &["redis://h?key=k"]).config();
    assert_eq!(config.sink, ["redis://h?key=k".parse().unwrap()]);
}

#[test]
fn commas_within_a_url_or_a_command_separate_no_sinks_in_a_variable() {
    let text = "stdout, nats://h1,h2:4222/S?subject=a ,exec:awk -F, '{print}',null";
    let parts: Vec<&str> = super::split(text).into_iter().map(str::trim).collect();
    assert_eq!(parts, ["stdout", "nats://h1,h2:4222/S?subject=a", "exec:awk -F, '{print}'", "null"]);
    assert_eq!(super::split("stdout,nonsense"), ["stdout", "nonsense"]);
    assert_eq!(super::split("file:/a,stdot"), ["file:/a", "stdot"]);
}

#[test]
fn the_place_of_the_list_is_its_first_table() {
    let case = Case::new().file("lanes = 1\n\n[[sink]]\nname = \"a\"\ntype = \"null\"\n");
    let places = case.places();
    assert!(places["sink"].ends_with("d.toml:3"), "{places:?}");
}

#[test]
fn sslmode_in_the_url_of_a_table_switches_tls_on_or_off() {
    let tls = |url: &str| {
        let file = format!("[[sink]]\nname = \"a\"\ntype = \"postgres\"\ntable = \"t\"\nurl = \"{url}\"\n");
        let config = Case::new().file(&file).config();
        let SinkTarget::Postgres(target) = config.sink[0].target.clone() else { panic!("it is postgres") };
        (target.url, target.tls)
    };
    assert_eq!(tls("postgres://u@h/d"), ("postgres://u@h/d".into(), None));
    assert_eq!(tls("postgres://u@h/d?sslmode=disable"), ("postgres://u@h/d".into(), None));
    let encrypted = ("postgres://u@h/d?options=x".into(), Some(TlsConfig::default()));
    assert_eq!(tls("postgres://u@h/d?sslmode=require&options=x"), encrypted);
}

#[test]
fn the_table_of_keys_has_the_defaults_that_hold() {
    let short = ["http://h", "postgres://u@h/d?table=t", "nats://h/S?subject=a", "redis://h?key=k", "mqtt://h/t"];
    let line = ["stdout", "file:x", "null", "exec:x"];
    for text in short.into_iter().chain(line) {
        let mut sink: SinkConfig = text.parse().unwrap();
        // Else it is shown as its short form.
        sink.name = "a".into();
        let shown = super::show(&sink);
        for key in super::SINK_KEYS.iter().filter(|key| key.is_of(sink.target.kind())) {
            let value = key.name.split('.').try_fold(&shown, |value, part| value.get(part));
            let plain = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            let fits = match &plain {
                _ if key.default.is_empty() => plain.is_some(),
                Some(value) => key.default.split(", or ").any(|default| default == value),
                None => !key.default.contains(char::is_numeric) && key.default != "false",
            };
            assert!(fits, "{} of {text}: {plain:?} is not {}", key.name, key.default);
        }
    }
}

#[test]
fn the_sink_that_answers_is_one_that_there_is() {
    let two = "sink = [\"null\", \"exec:cat\"]\n";
    let config = Case::new().file(&format!("{two}answering_sink = \"exec:cat\"\n")).config();
    assert_eq!(config.answers_by(), Some("exec:cat"));
    let config = Case::new().file(&format!("{two}answering_sink = \"all\"\n")).config();
    assert_eq!(config.answers_by(), None, "of several none answers alone");
    assert_eq!(Case::new().config().answers_by(), Some("stdout"), "the only one answers");
    for (file, expected) in [
        (
            format!("{two}answering_sink = \"cat\"\n"),
            "d.toml:2: answering_sink: no sink is named \"cat\"; there are: null, exec:cat",
        ),
        ("answering_sink = \"\"\n".to_owned(), "answering_sink: must name a sink, or be \"all\""),
    ] {
        let problems = Case::new().file(&file).problems();
        assert!(problems.contains(expected), "{problems}");
    }
}
