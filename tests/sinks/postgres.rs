//! `postgres`, against a server of the tests' own: rows are there exactly once, whatever fails.

mod faults;
pub(super) mod server;
mod speed;

use std::time::Duration;

use duragram::model::{LaneMark, PostgresPayload, PostgresTarget, Secret, SinkConfig, SinkTarget, TlsConfig};
use duragram::process::{Content, Handler, LaneStart, Outcome, Outcomes, Record};
use duragram::proto::Seq;
use duragram::sink;

use self::server::Cluster;
use super::support::lane::{self, Message, drive, journal, messages, records, start};

const PATIENCE: Duration = Duration::from_secs(30);

/// A sink of records to the table `events`.
fn target(url: String) -> PostgresTarget {
    PostgresTarget { url, password: None, table: "events".into(), payload: PostgresPayload::Bytea, tls: None }
}

fn url(cluster: &Cluster, database: &str) -> String {
    format!("postgres://postgres@{}/{database}", cluster.address())
}

/// The sink, with a timeout of two seconds.
fn config(target: PostgresTarget) -> SinkConfig {
    lane::config("events", SinkTarget::Postgres(target), Duration::from_secs(2))
}

/// The handler of that sink.
fn open(target: PostgresTarget, start: &LaneStart<'_>) -> Box<dyn Handler> {
    sink::handler(&config(target), start).unwrap()
}

/// The first start of journal 1.
fn first(target: PostgresTarget) -> Box<dyn Handler> {
    open(target, &start(journal(1), 1, &LaneMark::default()))
}

/// Presents records once; returns the outcomes.
fn present(handler: &mut dyn Handler, records: &[Record<'_>]) -> Outcomes {
    let mut outcomes = Outcomes::new(records.len());
    handler.process(records, &mut outcomes);
    outcomes
}

/// What the handler waits for, when it is shown these records.
fn reason(handler: &mut dyn Handler, records: &[Record<'_>]) -> String {
    let outcomes = present(handler, records);
    outcomes.unavailable_reason().unwrap_or_else(|| panic!("it is available: {:?}", outcomes.outcome(0))).to_owned()
}

/// The offsets in the table, in order, each as often as it is there.
fn offsets(cluster: &Cluster, database: &str) -> Vec<u64> {
    let rows = cluster.sql(database, "SELECT entry_offset FROM events ORDER BY 1");
    rows.iter().map(|row| row.parse().unwrap()).collect()
}

fn range(from: u64, to: u64) -> Vec<u64> {
    (from..to).collect()
}

#[test]
fn the_table_is_made_and_each_record_is_a_row_of_it() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut handler = first(target(url(cluster, &database)));
    let sent = [
        Message { offset: 0, index: 0, channel: 7, payload: b"text".into() },
        Message { offset: 0, index: 1, channel: 65_535, payload: vec![0, 255, 0] },
        Message { offset: 9, index: 0, channel: 0, payload: Vec::new() },
    ];
    let mut shown = records(&sent);
    shown[2].seq = Seq(u64::MAX);
    assert_eq!(drive(&mut *handler, &shown, 10, PATIENCE), []);
    let rows = cluster.sql(&database, "SET timezone = 'UTC'; SELECT * FROM events ORDER BY entry_offset, record_index");
    let (id, time) = ("00000000-0000-0000-0000-000000000001", "2026-01-02 03:04:05.678901+00");
    assert_eq!(
        rows,
        [
            format!(r"{id}|0|0|00000000000000a1|3|1|7|{time}|\x74657874"),
            format!(r"{id}|0|1|00000000000000a1|3|1|65535|{time}|\x00ff00"),
            format!(r"{id}|9|0|00000000000000a1|3|18446744073709551615|0|2026-01-02 03:04:05.67891+00|\x"),
        ]
    );
    let types = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) \
                 FROM pg_attribute WHERE attrelid = 'events'::regclass AND attnum > 0";
    assert_eq!(
        cluster.sql(&database, types),
        [
            "journal uuid, entry_offset bigint, record_index integer, client text, epoch bigint, seq numeric(20,0), channel integer, \
          received_at timestamp with time zone, payload bytea"
        ]
    );
}

#[test]
fn a_table_that_is_there_is_used_and_a_column_that_is_wrong_is_named() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(
        &database,
        r#"CREATE SCHEMA "App"; CREATE TABLE "App"."Events" (id bigserial PRIMARY KEY, payload jsonb NOT NULL, received_at timestamptz,
           channel integer, seq numeric, epoch bigint, client varchar(16), record_index integer, entry_offset integer, journal uuid)"#,
    );
    let mut own = target(url(cluster, &database));
    own.table = "App.Events".into();
    own.payload = PostgresPayload::Jsonb;
    let mut handler = first(own);
    let sent: Vec<_> =
        messages(0, 3).into_iter().map(|message| Message { payload: b"{\"a\": 1}".into(), ..message }).collect();
    let told = reason(&mut *handler, &records(&sent));
    assert!(told.contains("App.Events: column entry_offset is of type integer, and must be bigint"), "{told}");
    cluster.sql(&database, r#"ALTER TABLE "App"."Events" ALTER entry_offset TYPE bigint"#);
    assert_eq!(drive(&mut *handler, &records(&sent), 10, PATIENCE), [], "without a restart");
    let rows = cluster.sql(&database, r#"SELECT id, entry_offset, payload->'a' FROM "App"."Events" ORDER BY 2"#);
    assert_eq!(rows, ["1|0|1", "2|1|1", "3|2|1"]);
}

#[test]
fn what_comes_again_after_a_restart_is_not_written_twice() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    // Without a key: the position alone must keep a row from being there twice.
    let mut mark = LaneMark::default();
    let mut handler = open(target(url(cluster, &database)), &start(journal(1), 1, &mark));
    mark.sink_state = handler.flush().unwrap();
    drive(&mut *handler, &records(&messages(0, 10)), 4, PATIENCE);
    cluster.sql(&database, "ALTER TABLE events DROP CONSTRAINT events_pkey");
    drive(&mut *handler, &records(&messages(10, 90)), 7, PATIENCE);
    drop(handler);
    // Killed: nothing is known but what the first checkpoint held.
    let mut handler = open(target(url(cluster, &database)), &start(journal(1), 2, &mark));
    drive(&mut *handler, &records(&messages(0, 150)), 11, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 150));
}

#[test]
fn two_journals_and_two_sinks_do_not_take_each_others_records_for_their_own() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mark = LaneMark::default();
    for number in [1, 2] {
        let mut handler = open(target(url(cluster, &database)), &start(journal(number), 1, &mark));
        drive(&mut *handler, &records(&messages(0, 5)), 5, PATIENCE);
    }
    let rows = cluster.sql(&database, "SELECT count(*), count(DISTINCT journal) FROM events");
    assert_eq!(rows, ["10|2"]);
}

#[test]
fn a_bad_record_costs_one_dead_letter_and_the_rest_goes_on_in_order() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut json = target(url(cluster, &database));
    json.payload = PostgresPayload::Jsonb;
    let mut handler = first(json);
    let mut sent = messages(0, 300);
    for message in &mut sent {
        message.payload = format!("{{\"n\": {}}}", message.offset).into_bytes();
    }
    sent[0].payload = b"no JSON".into();
    sent[70].payload = br#"{"nul": "\u0000"}"#.into();
    sent[71].payload = br#"{"lone": "\ud800"}"#.into();
    sent[72].payload = vec![0xff];
    sent[140].payload = b"1e400000".into();
    sent[299].payload = [b"[".repeat(32_000), b"]".repeat(32_000)].concat();
    let dead = drive(&mut *handler, &records(&sent), 100, PATIENCE);
    let given_up: Vec<_> = dead.iter().map(|((offset, _), _)| *offset).collect();
    assert_eq!(given_up, [0, 70, 71, 72, 140, 299], "{dead:?}");
    assert!(dead[1].1.contains("22P05"), "{dead:?}");
    let written: Vec<_> = range(0, 300).into_iter().filter(|offset| !given_up.contains(offset)).collect();
    assert_eq!(offsets(cluster, &database), written);

    let database = cluster.database();
    let mut handler = first(target(url(cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 1)), 1, PATIENCE);
    cluster.sql(&database, "ALTER TABLE events ADD CONSTRAINT not_42 CHECK (entry_offset <> 42)");
    let dead = drive(&mut *handler, &records(&messages(1, 99)), 99, PATIENCE);
    assert_eq!(dead.len(), 1);
    assert!(dead[0].0 == (42, 0) && dead[0].1.contains("constraint not_42"), "{dead:?}");
    assert!(!dead[0].1.contains("message 42"), "the payload is not shown: {dead:?}");
    assert_eq!(offsets(cluster, &database).len(), 99);
}

#[test]
fn nothing_behind_a_record_that_is_open_becomes_durable() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut json = target(url(cluster, &database));
    json.payload = PostgresPayload::Jsonb;
    let mut handler = first(json);
    let mut sent = messages(0, 64);
    sent.iter_mut().for_each(|message| message.payload = b"1".into());
    sent[20].payload = b"?".into();
    let outcomes = present(&mut *handler, &records(&sent));
    assert!((0..20).all(|i| *outcomes.outcome(i) == Outcome::Done));
    assert!(matches!(outcomes.outcome(20), Outcome::GiveUp(_)));
    assert!((21..64).all(|i| *outcomes.outcome(i) == Outcome::Unanswered));
    assert_eq!(offsets(cluster, &database), range(0, 20));
}

#[test]
fn a_dead_letter_that_is_retried_lands_once_although_it_lies_below_the_position() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut handler = first(target(url(cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 1)), 1, PATIENCE);
    cluster.sql(&database, "ALTER TABLE events ADD CONSTRAINT not_5 CHECK (entry_offset <> 5)");
    let sent = messages(1, 9);
    assert_eq!(drive(&mut *handler, &records(&sent), 9, PATIENCE).len(), 1);
    let retry = |handler: &mut dyn Handler| {
        let mut outcomes = Outcomes::new(1);
        handler.retry(&sent[4].record(), &mut outcomes);
        outcomes.outcome(0).clone()
    };
    assert!(matches!(retry(&mut *handler), Outcome::GiveUp(_)), "the table still refuses it");
    cluster.sql(&database, "ALTER TABLE events DROP CONSTRAINT not_5");
    assert_eq!(retry(&mut *handler), Outcome::Done);
    assert_eq!(retry(&mut *handler), Outcome::Done, "as after a crash before the letter is deleted");
    assert_eq!(offsets(cluster, &database), range(0, 10));
    drive(&mut *handler, &records(&messages(10, 5)), 5, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 15));
}

#[test]
fn rows_that_are_there_without_a_position_are_not_written_again() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut handler = first(target(url(cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 10)), 10, PATIENCE);
    cluster.sql(&database, "DELETE FROM duragram_positions; DELETE FROM events WHERE entry_offset = 3");
    let mut handler = first(target(url(cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 20)), 20, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 20));
}

#[test]
fn a_gap_is_a_row_without_payload() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut handler = first(target(url(cluster, &database)));
    let sent = messages(0, 3);
    let mut shown = records(&sent);
    shown[1].content = Content::Gap { from: Seq(2), to: Seq(5) };
    shown[1].seq = Seq(5);
    assert_eq!(drive(&mut *handler, &shown, 3, PATIENCE), []);
    let rows = cluster.sql(&database, "SELECT entry_offset, seq, payload IS NULL FROM events ORDER BY 1");
    assert_eq!(rows, ["0|1|f", "1|5|t", "2|3|f"]);
}

#[test]
fn a_missing_partition_is_waited_for_and_makes_no_dead_letters() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(
        &database,
        "CREATE TABLE events (journal uuid, entry_offset bigint, record_index integer, client text, epoch bigint, seq numeric(20), \
         channel integer, received_at timestamptz, payload bytea) PARTITION BY RANGE (entry_offset);
         CREATE TABLE events_0 PARTITION OF events FOR VALUES FROM (0) TO (10)",
    );
    let mut handler = first(target(url(cluster, &database)));
    let sent = messages(0, 20);
    let told = reason(&mut *handler, &records(&sent));
    assert!(told.contains("make the partition"), "{told}");
    cluster.sql(&database, "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (10) TO (20)");
    assert_eq!(drive(&mut *handler, &records(&sent), 20, PATIENCE), []);
    assert_eq!(offsets(cluster, &database), range(0, 20));
}

#[test]
fn what_is_wrong_with_the_configuration_is_said_and_recovery_needs_no_restart() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sent = messages(0, 3);
    let shown = records(&sent);
    cluster.sql("postgres", "DROP ROLE IF EXISTS locked; CREATE ROLE locked LOGIN PASSWORD 'right horse'");
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("password");
    let write = |text: &str| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    let mut locked = target(format!("postgres://locked@{}/missing_{database}", cluster.address()));
    let told = reason(&mut *first(locked.clone()), &shown);
    assert!(told.contains("password missing") && told.contains("set `password`"), "{told}");
    locked.password = Some(Secret::File(file.clone()));
    let mut handler = first(locked);
    let told = reason(&mut *handler, &shown);
    assert!(told.contains(file.to_str().unwrap()), "{told}");
    write("wrong horse\n");
    let told = reason(&mut *handler, &shown);
    assert!(told.contains("28P01") && !told.contains("horse"), "{told}");
    write("right horse\n");
    let told = reason(&mut *handler, &shown);
    assert!(told.contains("3D000") && told.contains("CREATE DATABASE"), "{told}");
    cluster.sql("postgres", &format!("CREATE DATABASE missing_{database}"));
    let told = reason(&mut *handler, &shown);
    assert!(told.contains("42501") && told.contains("making the table"), "{told}");
    let database = format!("missing_{database}");
    present(&mut *first(target(url(cluster, &database))), &shown);
    cluster.sql(&database, "TRUNCATE events; DROP TABLE duragram_positions");
    let told = reason(&mut *handler, &shown);
    assert!(told.contains(r#"GRANT SELECT, INSERT ON "public"."events" TO "locked""#), "{told}");
    cluster.sql(&database, "GRANT SELECT, INSERT ON events TO locked; GRANT CREATE ON SCHEMA public TO locked");
    assert_eq!(drive(&mut *handler, &shown, 3, PATIENCE), []);
    assert_eq!(offsets(cluster, &database), range(0, 3));
}

#[test]
fn with_tls_the_connection_is_encrypted_and_the_server_must_be_the_one_that_is_meant() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let sent = messages(0, 3);
    let mut encrypted = target(url(cluster, &database));
    encrypted.tls = Some(TlsConfig::default());
    let told = reason(&mut *first(encrypted.clone()), &records(&sent));
    assert!(told.contains("certificate"), "nobody vouches for it: {told}");
    encrypted.tls = Some(TlsConfig { ca_file: Some(cluster.certificate()), ..TlsConfig::default() });
    let mut elsewhere = encrypted.clone();
    elsewhere.url = elsewhere.url.replace("127.0.0.1", "localhost");
    let told = reason(&mut *first(elsewhere), &records(&sent));
    assert!(told.contains("not valid for name"), "{told}");
    let mut handler = first(encrypted);
    drive(&mut *handler, &records(&sent), 3, PATIENCE);
    let sessions = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'duragram' \
                    AND datname = current_database()";
    assert_eq!(cluster.sql(&database, sessions), ["t"]);
}

#[test]
fn a_url_that_holds_a_password_or_names_no_host_is_refused_without_showing_it() {
    let mark = LaneMark::default();
    for wrong in
        ["postgres://u:s3cret@localhost/db", "postgres:///db", "mysql://u@localhost/db", "postgres://u@h/db?color=red"]
    {
        let config = config(target(wrong.into()));
        let Err(error) = sink::handler(&config, &start(journal(1), 1, &mark)) else { panic!("{wrong} is taken") };
        assert!(error.to_string().contains("URL") && !error.to_string().contains("s3cret"), "{error}");
    }
}
