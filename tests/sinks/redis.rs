//! `redis`: entries of a stream, against real servers of Redis and Valkey.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use duragram::model::{Content, Offset, RedisTarget, Secret, SinkConfig, SinkId, SinkTarget, TlsConfig};
use duragram::process::{Outcome, Outcomes, Record};
use duragram::proto::Seq;
use redis::Value;
use redis::streams::StreamRangeReply;

use super::support::lane::{
    self, Message, drive, drive_through_a_bad_network, handler, messages, once, reason, records,
};
use super::support::proxy::Proxy;
use super::support::server::{Server, tool};

const PATIENCE: Duration = Duration::from_secs(20);
const STREAM: &str = "test:{0000000000000000000000000000000a}";

pub(super) fn server(extra: &[&str]) -> Server {
    start("redis-server".into(), extra)
}

pub(super) fn valkey_program() -> std::path::PathBuf {
    tool("VALKEY_SERVER", "valkey-server", "valkey-9.1.2.post2")
}

fn valkey() -> Server {
    start(valkey_program(), &[])
}

pub(super) fn start(program: std::path::PathBuf, extra: &[&str]) -> Server {
    Server::start(program, |directory, port| {
        let mut arguments =
            vec!["--bind".into(), "127.0.0.1".into(), "--port".into(), port.to_string(), "--dir".into()];
        arguments.push(directory.display().to_string());
        arguments.extend(["--save", ""].map(String::from));
        arguments.extend(extra.iter().map(|argument| (*argument).to_owned()));
        arguments
    })
}

pub(super) fn config(address: std::net::SocketAddr) -> SinkConfig {
    let target = RedisTarget {
        url: format!("redis://{address}"),
        user: None,
        password: None,
        key: "test".into(),
        entries_max: None,
        tls: TlsConfig::default(),
    };
    lane::config("test", SinkTarget::Redis(target), Duration::from_millis(500))
}

fn with(config: &SinkConfig, change: impl FnOnce(&mut RedisTarget)) -> SinkConfig {
    let mut config = config.clone();
    if let SinkTarget::Redis(target) = &mut config.target {
        change(target);
    }
    config
}

fn ask<T: redis::FromRedisValue>(server: &Server, command: &[&str]) -> T {
    let client = redis::Client::open(format!("redis://{}", server.address())).expect("a URL");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = client.get_connection().and_then(|mut connection| {
            let mut asked = redis::cmd(command[0]);
            command[1..].iter().for_each(|argument| {
                asked.arg(*argument);
            });
            asked.query(&mut connection)
        });
        match answer {
            Ok(answer) => return answer,
            // A server that was just started.
            Err(error) => assert!(Instant::now() < deadline, "{command:?}: {error}"),
        }
    }
}

fn entries(server: &Server, key: &str) -> Vec<(String, HashMap<String, Value>)> {
    let range: StreamRangeReply = ask(server, &["XRANGE", key, "-", "+"]);
    range.ids.into_iter().map(|entry| (entry.id, entry.map)).collect()
}

fn ids(server: &Server) -> Vec<String> {
    entries(server, STREAM).into_iter().map(|(id, _)| id).collect()
}

fn expected(from: u64, to: u64) -> Vec<String> {
    (from..to).map(|offset| format!("{offset}-1")).collect()
}

fn field(entry: &HashMap<String, Value>, name: &str) -> Vec<u8> {
    match entry.get(name) {
        Some(Value::BulkString(bytes)) => bytes.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_record_is_an_entry_with_its_name_as_id_and_its_bytes_as_they_came() {
    for server in [server(&[]), valkey()] {
        let mut handler = handler(&config(server.address()), 1, b"", 100);
        let bytes = b"\x00\xff\r\n$-1\r\n".to_vec();
        let messages = [
            Message { offset: 0, index: 0, channel: 7, payload: bytes.clone() },
            Message { offset: 0, index: 1, channel: 7, payload: Vec::new() },
            Message { offset: 3, index: 0, channel: 65_535, payload: vec![b'x'; 65_507] },
        ];
        let mut records = records(&messages);
        records.push(Record { offset: Offset(4), content: Content::Gap { from: Seq(2), to: Seq(5) }, ..records[2] });
        assert_eq!(drive(&mut *handler, &records, 100, PATIENCE), []);
        let entries = entries(&server, STREAM);
        assert_eq!(entries.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["0-1", "0-2", "3-1", "4-1"]);
        let first = &entries[0].1;
        let texts = ["client", "epoch", "seq", "channel", "received_at"].map(|name| field(first, name));
        let texts = texts.map(|text| String::from_utf8(text).unwrap());
        assert_eq!(texts, ["00000000000000a1", "3", "1", "7", "2026-01-02T03:04:05.678901Z"]);
        assert_eq!(field(first, "payload"), bytes);
        assert_eq!(field(&entries[1].1, "payload"), b"");
        assert_eq!(field(&entries[2].1, "payload").len(), 65_507);
        assert_eq!(field(&entries[3].1, "gap"), b"2-5");
        assert!(!entries[3].1.contains_key("payload"));
    }
}

#[test]
fn records_that_come_again_after_a_restart_are_written_once_also_when_the_stream_was_trimmed() {
    let server = server(&[]);
    let config = config(server.address());
    let messages = messages(0, 3000);
    let records = records(&messages);
    let state = {
        let mut handler = handler(&config, 1, b"", 0);
        drive(&mut *handler, &records[..1000], 300, PATIENCE);
        let state = handler.flush().unwrap();
        drive(&mut *handler, &records[1000..2000], 300, PATIENCE);
        state
    };
    let _: i64 = ask(&server, &["XTRIM", STREAM, "MAXLEN", "10"]);
    drive(&mut *handler(&config, 2, &state, 2000), &records[1000..], 300, PATIENCE);
    assert_eq!(ids(&server), expected(1990, 3000));
    let _: i64 = ask(&server, &["XTRIM", STREAM, "MAXLEN", "0"]);
    drive(&mut *handler(&config, 3, &state, 3000), &records[1000..], 300, PATIENCE);
    assert_eq!(ids(&server), expected(0, 0), "it is empty, and remembers how far it had come");
}

#[test]
fn what_is_in_doubt_after_lost_answers_or_a_cut_connection_is_there_once() {
    let server = server(&[]);
    let proxy = Proxy::to(server.address());
    let mut handler = handler(&config(proxy.address()), 1, b"", 0);
    let messages = messages(0, 5000);
    let records = records(&messages);
    drive_through_a_bad_network(&mut *handler, &proxy, &records, 40_000, PATIENCE);
    assert_eq!(ids(&server), expected(0, 5000));
}

#[test]
fn a_server_that_is_killed_and_comes_back_goes_on_where_it_was() {
    let mut server = server(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut handler = handler(&config(server.address()), 1, b"", 0);
    let messages = messages(0, 3001);
    let records = records(&messages);
    for next in [1000, 2000, 3000] {
        let batch = &records[next - 1000..next];
        drive(&mut *handler, batch, 300, PATIENCE);
        server.kill();
        assert!(reason(&mut *handler, &records[next..=next]).contains("writing to redis://127.0.0.1"));
        server.restart();
    }
    drive(&mut *handler, &records[3000..], 1, PATIENCE);
    assert_eq!(ids(&server), expected(0, 3001));
}

#[test]
fn a_stream_that_was_deleted_stops_the_sink_until_the_loss_is_accepted() {
    let server = server(&[]);
    let config = config(server.address());
    let messages = messages(0, 30);
    let records = records(&messages);
    let mut first = handler(&config, 1, b"", 0);
    drive(&mut *first, &records[..10], 10, PATIENCE);
    let state = first.flush().unwrap();
    let _: i64 = ask(&server, &["DEL", STREAM]);
    let mut second = handler(&config, 2, &state, 10);
    let said = reason(&mut *second, &records[10..20]);
    assert!(said.contains("has lost entries: 9-1 was written, and it is not there"), "{said}");
    assert!(said.contains(&format!("redis-cli XADD '{STREAM}' 9-1 lost 1")), "{said}");
    assert_eq!(ids(&server), expected(0, 0), "nothing was written");
    let _: String = ask(&server, &["XADD", STREAM, "9-1", "lost", "1"]);
    drive(&mut *second, &records[10..20], 10, PATIENCE);
    assert_eq!(ids(&server), expected(9, 20));
}

#[test]
fn a_stream_that_is_deleted_under_an_open_connection_is_not_made_anew() {
    for server in [server(&[]), valkey()] {
        let mut handler = handler(&config(server.address()), 1, b"", 0);
        let messages = messages(0, 30);
        let records = records(&messages);
        drive(&mut *handler, &records[..10], 10, PATIENCE);
        assert_eq!(once(&mut *handler, &records[10..20]).0, 10);
        let _: i64 = ask(&server, &["DEL", STREAM]);
        let said = reason(&mut *handler, &records[20..]);
        assert!(said.contains("is not there any more: it was deleted, or evicted"), "{said}");
        let said = reason(&mut *handler, &records[20..]);
        assert!(said.contains("has lost entries: 19-1 was written, and it is not there"), "{said}");
        assert_eq!(ids(&server), expected(0, 0));
    }
}

#[test]
fn another_sink_of_the_journal_is_refused_where_its_records_would_count_as_written() {
    let server = server(&[]);
    let config = config(server.address());
    let messages = messages(0, 40);
    let records = records(&messages);
    let mut one = handler(&config, 1, b"", 0);
    drive(&mut *one, &records[10..20], 10, PATIENCE);
    let state = one.flush().unwrap();
    let mut other = lane::handler_of(SinkId(0x52), &config, 2, b"", 20);
    let said = reason(&mut *other, &records[..10]);
    assert!(said.contains("belongs to another sink") && said.contains("a key of its own"), "{said}");
    drive(&mut *one, &records[20..30], 10, PATIENCE);
    let writer = format!("{STREAM}:writer");
    let _: i64 = ask(&server, &["DEL", &writer]);
    let said = reason(&mut *other, &records[..10]);
    assert!(said.contains("this sink knows of none that it has written"), "{said}");
    assert_eq!(ids(&server), expected(10, 30));
    drive(&mut *handler(&config, 3, &state, 30), &records[20..], 10, PATIENCE);
    let _: i64 = ask(&server, &["DEL", &writer]);
    let mut restored = handler(&config, 4, b"", 40);
    let claim = format!("0-0000000000000000-{}", SinkId(0x51));
    let said = reason(&mut *restored, &records[10..]);
    assert!(said.contains(&format!("redis-cli SET '{writer}' {claim}")), "{said}");
    let _: String = ask(&server, &["SET", &writer, &claim]);
    drive(&mut *restored, &records[10..], 10, PATIENCE);
    assert_eq!(ids(&server), expected(10, 40));
}

#[test]
fn a_stream_without_entries_that_a_reader_has_made_is_written_to() {
    let server = server(&[]);
    let _: String = ask(&server, &["XGROUP", "CREATE", STREAM, "readers", "$", "MKSTREAM"]);
    let messages = messages(0, 10);
    drive(&mut *handler(&config(server.address()), 1, b"", 0), &records(&messages), 10, PATIENCE);
    assert_eq!(ids(&server), expected(0, 10));
}

#[test]
fn what_a_server_lost_before_the_flush_is_written_again_after_a_restart() {
    let mut server = server(&[]);
    let config = config(server.address());
    let messages = messages(0, 30);
    let records = records(&messages);
    let mut first = handler(&config, 1, b"", 0);
    assert_eq!(once(&mut *first, &records[..20]).0, 20);
    server.restart();
    assert!(first.flush().unwrap_err().to_string().contains("writing to redis"), "its connection is gone");
    let error = first.flush().unwrap_err().to_string();
    assert!(error.contains("restart this server, which writes them again"), "{error}");
    assert!(reason(&mut *first, &records[20..]).contains("has lost entries"));
    drive(&mut *handler(&config, 2, b"", 20), &records, 7, PATIENCE);
    assert_eq!(ids(&server), expected(0, 30));
}

#[test]
fn a_full_memory_is_waited_for() {
    let server = server(&[]);
    let mut handler = handler(&config(server.address()), 1, b"", 0);
    let messages = messages(0, 3000);
    let records = records(&messages);
    drive(&mut *handler, &records[..1000], 1000, PATIENCE);
    let _: String = ask(&server, &["CONFIG", "SET", "maxmemory", "100kb"]);
    let said = reason(&mut *handler, &records[1000..2000]);
    assert!(said.contains("OOM") && said.contains("raise maxmemory"), "{said}");
    assert_eq!(ids(&server), expected(0, 1000), "all of a transaction or nothing");
    let _: String = ask(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    drive(&mut *handler, &records[1000..], 1000, PATIENCE);
    assert_eq!(ids(&server), expected(0, 3000));
}

#[test]
fn a_wrong_password_is_named_and_a_changed_one_is_taken_without_a_restart() {
    let server = server(&[]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let write = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&path, "wr0ng\n");
    let config = with(&config(server.address()), |target| target.password = Some(Secret::File(path.clone())));
    let _: String = ask(&server, &["ACL", "SETUSER", "default", "resetpass", ">r1ght"]);
    let mut handler = handler(&config, 1, b"", 0);
    let messages = messages(0, 10);
    let records = records(&messages);
    let said = reason(&mut *handler, &records);
    assert!(said.contains("check user and password") && !said.contains("wr0ng"), "{said}");
    write(&path, "r1ght\n");
    drive(&mut *handler, &records, 10, PATIENCE);
}

#[test]
fn a_key_of_another_kind_is_named_and_stays_as_it_is() {
    let server = server(&[]);
    let mut handler = handler(&config(server.address()), 1, b"", 0);
    let _: String = ask(&server, &["SET", STREAM, "mine"]);
    let messages = messages(0, 10);
    let said = reason(&mut *handler, &records(&messages));
    assert!(said.contains("WRONGTYPE") && said.contains("configure another key"), "{said}");
    assert_eq!(ask::<String>(&server, &["GET", STREAM]), "mine");
}

#[test]
fn a_later_start_fences_the_earlier_one() {
    let server = server(&[]);
    let config = config(server.address());
    let messages = messages(0, 40);
    let records = records(&messages);
    let mut first = handler(&config, 1, b"", 0);
    drive(&mut *first, &records[..10], 10, PATIENCE);
    let mut second = handler(&config, 2, b"", 10);
    drive(&mut *second, &records[..20], 10, PATIENCE);
    let said = reason(&mut *first, &records[10..30]);
    assert!(said.contains("somebody has changed who writes"), "{said}");
    let said = reason(&mut *first, &records[10..30]);
    assert!(said.contains("claimed by start 2-") && said.contains("another server runs on its data"), "{said}");
    drive(&mut *second, &records[20..], 10, PATIENCE);
    assert_eq!(ids(&server), expected(0, 40));
}

#[test]
fn a_journal_that_is_an_older_copy_or_a_stranger_in_the_stream_is_noticed() {
    let server = server(&[]);
    let config = config(server.address());
    let messages = messages(0, 40);
    let records = records(&messages);
    drive(&mut *handler(&config, 5, b"", 0), &records[..20], 10, PATIENCE);
    let said = reason(&mut *handler(&config, 6, b"", 10), &records[..10]);
    assert!(said.contains("holds more than this journal has written"), "{said}");
    // As many entries as the copy, and the last is another record.
    let other = [Record { seq: Seq(99), ..records[19] }];
    let said = reason(&mut *handler(&config, 7, b"", 20), &other);
    assert!(said.contains("entry 19-1") && said.contains("a copy of the data directory"), "{said}");
    let mut ours = handler(&config, 8, b"", 20);
    drive(&mut *ours, &records[..30], 10, PATIENCE);
    let _: String = ask(&server, &["XADD", STREAM, "*", "who", "a stranger"]);
    let said = reason(&mut *ours, &records[30..]);
    assert!(said.contains("somebody else has added entries"), "{said}");
    let said = reason(&mut *handler(&config, 9, b"", 40), &records[30..]);
    assert!(said.contains("holds more than this journal has written"), "{said}");
}

#[test]
fn a_dead_letter_that_is_retried_goes_beside_the_stream_when_later_records_are_in_it() {
    let server = server(&[]);
    let mut handler = handler(&config(server.address()), 1, b"", 0);
    let messages = messages(0, 11);
    let records = records(&messages);
    drive(&mut *handler, &records[..5], 10, PATIENCE);
    drive(&mut *handler, &records[6..10], 10, PATIENCE);
    for record in [&records[5], &records[10]] {
        let mut outcomes = Outcomes::new(1);
        handler.retry(record, &mut outcomes);
        assert_eq!(*outcomes.outcome(0), Outcome::Done);
    }
    assert_eq!(ids(&server), [expected(0, 5), expected(6, 11)].concat());
    let retried = entries(&server, &format!("{STREAM}:retried"));
    assert_eq!(retried.len(), 1);
    assert_eq!((field(&retried[0].1, "offset"), field(&retried[0].1, "index")), (b"5".to_vec(), b"0".to_vec()));
    assert_eq!(field(&retried[0].1, "payload"), b"message 5");
}

#[test]
fn a_stream_with_a_bound_forgets_its_oldest_entries() {
    let server = server(&["--stream-node-max-entries", "10"]);
    let config = with(&config(server.address()), |target| target.entries_max = Some(100));
    let messages = messages(0, 1000);
    drive(&mut *handler(&config, 1, b"", 0), &records(&messages), 100, PATIENCE);
    let ids = ids(&server);
    assert!((100..200).contains(&ids.len()), "{}", ids.len());
    assert_eq!(ids.last().unwrap(), "999-1");
}
