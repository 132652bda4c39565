//! `nats`: messages of a JetStream stream, against a real server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use duragram::model::{Content, NatsAuth, NatsTarget, Offset, Secret, SinkConfig, SinkId, SinkTarget, TlsConfig};
use duragram::process::{Outcome, Outcomes, Record};
use duragram::proto::Seq;

use super::support::lane::{
    self, Message, drive, drive_through_a_bad_network, handler, messages, once, reason, records,
};
use super::support::proxy::Proxy;
use super::support::server::{Server, tool};

const PATIENCE: Duration = Duration::from_secs(20);
const JOURNAL: &str = "0000000000000000000000000000000a";

pub(super) fn server(extra: &str) -> Server {
    start("always", extra)
}

/// A server that syncs its disk so often.
pub(super) fn server_that_syncs(interval: &str) -> Server {
    start(interval, "")
}

fn start(sync_interval: &str, extra: &str) -> Server {
    Server::start(tool("NATS_SERVER", "nats-server", "nats-server-2.15.1"), |directory, port| {
        let path = directory.join("nats.conf");
        let store = directory.join("store");
        let jetstream = format!("jetstream {{ store_dir: \"{}\", sync_interval: {sync_interval} }}", store.display());
        fs::write(&path, format!("listen: \"127.0.0.1:{port}\"\n{jetstream}\n{extra}\n")).expect("a configuration");
        vec!["-c".to_owned(), path.display().to_string()]
    })
}

pub(super) fn config(address: SocketAddr) -> SinkConfig {
    let target = NatsTarget {
        url: format!("nats://{address}"),
        auth: None,
        subject: "test.records".into(),
        stream: "TEST".into(),
        exclusive: true,
        tls: TlsConfig::default(),
    };
    lane::config("test", SinkTarget::Nats(target), Duration::from_secs(1))
}

fn with(config: &SinkConfig, change: impl FnOnce(&mut NatsTarget)) -> SinkConfig {
    let mut config = config.clone();
    if let SinkTarget::Nats(target) = &mut config.target {
        change(target);
    }
    config
}

/// Does something at the server as an operator or a consumer does.
fn at<T>(server: &Server, work: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(format!("nats://{}", server.address())).await.expect("it is there");
        work(jetstream::new(client)).await
    })
}

/// Every message that is in the stream: its headers and what it carries.
fn stored(server: &Server) -> Vec<(HeaderMap, Vec<u8>)> {
    at(server, async |context| {
        let stream = context.get_stream("TEST").await.expect("the stream");
        let state = &stream.cached_info().state;
        let mut stored = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            if let Ok(message) = stream.get_raw_message(sequence).await {
                stored.push((message.headers, message.payload.to_vec()));
            }
        }
        stored
    })
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).unwrap_or_else(|| panic!("{name} in {headers:?}")).as_str().to_owned()
}

fn names(server: &Server) -> Vec<String> {
    let of = |(headers, _): &(HeaderMap, Vec<u8>)| header(headers, "Duragram-Record");
    stored(server)
        .iter()
        .map(|message| of(message).trim_start_matches(JOURNAL).trim_start_matches('-').to_owned())
        .collect()
}

fn expected(from: u64, to: u64) -> Vec<String> {
    (from..to).map(|offset| format!("{offset}-0")).collect()
}

#[test]
fn a_record_is_a_message_with_its_name_and_its_bytes_as_they_came() {
    let server = server("");
    let mut handler = handler(&config(server.address()), 1, b"", 100);
    let bytes = b"\x00\xff\r\nNATS/1.0\r\n".to_vec();
    let messages = [
        Message { offset: 0, index: 0, channel: 7, payload: bytes.clone() },
        Message { offset: 0, index: 1, channel: 7, payload: Vec::new() },
        Message { offset: 3, index: 0, channel: 65_535, payload: vec![b'x'; 65_507] },
    ];
    let mut records = records(&messages);
    records.push(Record { offset: Offset(4), content: Content::Gap { from: Seq(2), to: Seq(5) }, ..records[2] });
    assert_eq!(drive(&mut *handler, &records, 100, PATIENCE), []);
    assert_eq!(names(&server), ["0-0", "0-1", "3-0", "4-0"]);
    let stored = stored(&server);
    assert_eq!(header(&stored[0].0, "Duragram-Record"), format!("{JOURNAL}-0-0"));
    let source = "client=00000000000000a1;epoch=3;seq=1;channel=7;received_at=2026-01-02T03:04:05.678901Z";
    assert_eq!(header(&stored[0].0, "Duragram-Source"), source);
    assert_eq!(stored[0].1, bytes);
    assert_eq!((stored[1].1.len(), stored[2].1.len()), (0, 65_507));
    assert!(header(&stored[3].0, "Duragram-Source").ends_with(";gap=2-5") && stored[3].1.is_empty());
}

#[test]
fn records_that_come_again_after_a_restart_are_written_once_also_when_the_stream_was_purged() {
    let server = server("");
    let config = config(server.address());
    let messages = messages(0, 3500);
    let records = records(&messages);
    let (early, late) = {
        let mut handler = handler(&config, 1, b"", 0);
        drive(&mut *handler, &records[..1000], 300, PATIENCE);
        let early = handler.flush().unwrap();
        drive(&mut *handler, &records[1000..2000], 300, PATIENCE);
        (early, handler.flush().unwrap())
    };
    drive(&mut *handler(&config, 2, &early, 2000), &records[1000..3000], 1000, PATIENCE);
    assert_eq!(names(&server), expected(0, 3000));
    let state = handler(&config, 3, &late, 3000);
    let mut third = state;
    drive(&mut *third, &records[2000..3000], 1000, PATIENCE);
    let state = third.flush().unwrap();
    at(&server, async |context| context.get_stream("TEST").await.unwrap().purge().await.unwrap());
    drive(&mut *handler(&config, 4, &state, 3000), &records[2900..], 1000, PATIENCE);
    assert_eq!(names(&server), expected(3000, 3500), "the position is known, although its message is gone");
}

#[test]
fn what_is_in_doubt_after_lost_answers_or_a_cut_connection_is_there_once() {
    let server = server("");
    let proxy = Proxy::to(server.address());
    let mut handler = handler(&config(proxy.address()), 1, b"", 0);
    let messages = messages(0, 5000);
    let records = records(&messages);
    drive_through_a_bad_network(&mut *handler, &proxy, &records, 60_000, PATIENCE);
    assert_eq!(names(&server), expected(0, 5000));
}

#[test]
fn a_server_that_is_killed_and_comes_back_goes_on_where_it_was() {
    let mut server = server("");
    let mut handler = handler(&config(server.address()), 1, b"", 0);
    let messages = messages(0, 1501);
    let records = records(&messages);
    for next in [500, 1000, 1500] {
        let batch = &records[next - 500..next];
        drive(&mut *handler, batch, 300, PATIENCE);
        server.kill();
        let before = Instant::now();
        assert!(reason(&mut *handler, &records[next..=next]).contains("writing to nats://127.0.0.1"));
        assert!(before.elapsed() < Duration::from_secs(5));
        server.restart();
    }
    drive(&mut *handler, &records[1500..], 1, PATIENCE);
    assert_eq!(names(&server), expected(0, 1501));
}

#[test]
fn a_later_start_fences_the_earlier_one() {
    let server = server("");
    let config = config(server.address());
    let messages = messages(0, 40);
    let records = records(&messages);
    let mut first = handler(&config, 1, b"", 0);
    drive(&mut *first, &records[..10], 10, PATIENCE);
    let mut second = handler(&config, 2, b"", 10);
    drive(&mut *second, &records[..20], 10, PATIENCE);
    assert!(reason(&mut *first, &records[10..30]).contains("has moved on"));
    let said = reason(&mut *first, &records[10..30]);
    assert!(said.contains("written to by start 2-") && said.contains("another server runs on its data"), "{said}");
    drive(&mut *second, &records[20..], 10, PATIENCE);
    assert_eq!(names(&server), expected(0, 40));
}

#[test]
fn a_journal_that_is_an_older_copy_or_a_stranger_in_the_stream_is_noticed() {
    let server = server("");
    let config = config(server.address());
    let messages = messages(0, 40);
    let records = records(&messages);
    drive(&mut *handler(&config, 5, b"", 0), &records[..20], 10, PATIENCE);
    let said = reason(&mut *handler(&config, 6, b"", 10), &records[..10]);
    assert!(said.contains("holds more than this journal has written"), "{said}");
    let other = [Record { seq: Seq(99), ..records[19] }];
    let said = reason(&mut *handler(&config, 7, b"", 20), &other);
    assert!(said.contains("is another record 19-0"), "{said}");
    let mut ours = handler(&config, 8, b"", 20);
    drive(&mut *ours, &records[..30], 10, PATIENCE);
    at(&server, async |context| context.publish("test.records", "hello".into()).await.unwrap().await.unwrap());
    assert!(reason(&mut *ours, &records[30..]).contains("has moved on"));
    let said = reason(&mut *ours, &records[30..]);
    assert!(said.contains("message 31 of the stream is not this journal's"), "{said}");
}

#[test]
fn another_sink_of_the_journal_is_refused_where_its_records_would_count_as_written() {
    let server = server("");
    let config = config(server.address());
    let messages = messages(0, 30);
    let records = records(&messages);
    let mut one = handler(&config, 1, b"", 0);
    drive(&mut *one, &records[10..20], 10, PATIENCE);
    // In the same start of the server, and in a later one.
    for instance in [1, 2] {
        let mut other = lane::handler_of(SinkId(0x52), &config, instance, b"", 20);
        let said = reason(&mut *other, &records[..10]);
        assert!(said.contains("belongs to another sink") && said.contains("a stream of its own"), "{said}");
    }
    drive(&mut *one, &records[20..], 10, PATIENCE);
    assert_eq!(names(&server), expected(10, 30));
}

#[test]
fn what_was_written_without_exclusive_is_not_taken_for_how_far_the_stream_has_come() {
    let server = server("");
    let stream = stream::Config { name: "TEST".into(), subjects: vec!["test.>".into()], ..stream::Config::default() };
    at(&server, async |context| context.create_stream(stream).await.unwrap());
    let own = config(server.address());
    let shared = with(&own, |target| target.exclusive = false);
    let messages = messages(0, 20);
    let records = records(&messages);
    drive(&mut *handler(&shared, 1, b"", 0), &records[10..], 10, PATIENCE);
    let said = reason(&mut *handler(&own, 2, b"", 20), &records[..10]);
    assert!(said.contains("records before it may be missing") && said.contains("exclusive = false"), "{said}");
    assert_eq!(names(&server), expected(10, 20));
}

#[test]
fn no_token_is_sent_in_clear_where_tls_is_configured_whatever_the_server_says() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let said = r#"INFO {"server_id":"X","server_name":"x","version":"2.15.1","host":"127.0.0.1","port":4222,"headers":true,"max_payload":1048576,"proto":1}"#;
        peer.write_all(format!("{said}\r\n").as_bytes()).unwrap();
        let mut first = [0; 7];
        peer.read_exact(&mut first).unwrap();
        first
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "s3cret\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sinks/testdata/tls/ca.pem");
    let config = with(&config(address), |target| {
        target.auth = Some(NatsAuth::Token(Secret::File(path)));
        target.tls.ca_file = Some(authority);
    });
    let messages = messages(0, 1);
    reason(&mut *handler(&config, 1, b"", 0), &records(&messages));
    let first = heard.join().unwrap();
    assert_eq!(first[0], 0x16, "a handshake of TLS, not {:?}", String::from_utf8_lossy(&first));
}

#[test]
fn a_stream_that_was_deleted_stops_the_sink_until_the_loss_is_accepted() {
    let server = server("");
    let config = config(server.address());
    let messages = messages(0, 30);
    let records = records(&messages);
    let mut first = handler(&config, 1, b"", 0);
    drive(&mut *first, &records[..10], 10, PATIENCE);
    let state = first.flush().unwrap();
    at(&server, async |context| context.delete_stream("TEST").await.unwrap());
    let mut second = handler(&config, 2, &state, 10);
    let said = reason(&mut *second, &records[10..20]);
    assert!(said.contains("has lost messages: record 9-1 was written, and nothing is in it"), "{said}");
    assert!(said.contains(&format!("Duragram-Record: {JOURNAL}-9-0")), "{said}");
    at(&server, async |context| {
        let stream =
            stream::Config { name: "TEST".into(), subjects: vec!["test.>".into()], ..stream::Config::default() };
        context.create_stream(stream).await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("Duragram-Record", format!("{JOURNAL}-9-0"));
        context.publish_with_headers("test.records", headers, "".into()).await.unwrap().await.unwrap();
    });
    drive(&mut *second, &records[10..20], 10, PATIENCE);
    assert_eq!(names(&server), expected(9, 20));
}

#[test]
fn a_record_that_is_too_large_is_one_dead_letter_and_the_rest_goes_on() {
    let server = server("max_payload: 4096");
    for exclusive in [true, false] {
        if !exclusive {
            at(&server, async |context| context.get_stream("TEST").await.unwrap().purge().await.unwrap());
        }
        let config = with(&config(server.address()), |target| target.exclusive = exclusive);
        let mut messages = messages(0, 20);
        messages[7].payload = vec![b'x'; 5000];
        let records = records(&messages);
        let mut handler = handler(&config, 1, b"", 0);
        let dead = drive(&mut *handler, &records, 20, PATIENCE);
        assert_eq!(dead.len(), 1);
        assert_eq!(dead[0].0, (7, 0));
        assert!(dead[0].1.contains("the server takes 4096"), "{}", dead[0].1);
        assert_eq!(names(&server), [expected(0, 7), expected(8, 20)].concat());
    }
}

#[test]
fn a_full_stream_takes_what_it_has_room_for_and_the_rest_waits() {
    let server = server("");
    let full = |max_messages| stream::Config {
        name: "TEST".into(),
        subjects: vec!["test.records".into()],
        discard: stream::DiscardPolicy::New,
        max_messages,
        ..stream::Config::default()
    };
    at(&server, async |context| context.create_stream(full(150)).await.unwrap());
    let mut handler = handler(&config(server.address()), 1, b"", 0);
    let messages = messages(0, 1000);
    let records = records(&messages);
    assert!(once(&mut *handler, &records).1.is_some_and(|said| said.contains("has moved on")), "the chain broke");
    let (done, said) = once(&mut *handler, &records);
    assert_eq!(done, 150);
    assert!(said.as_deref().is_some_and(|said| said.contains("the stream is full")), "{said:?}");
    at(&server, async |context| context.update_stream(full(2000)).await.unwrap());
    drive(&mut *handler, &records[150..], 1000, PATIENCE);
    assert_eq!(names(&server), expected(0, 1000));
}

#[test]
fn a_wrong_password_is_named_and_a_changed_one_is_taken_without_a_restart() {
    let server = server("authorization { user: duragram, password: r1ght }");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let write = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&path, "wr0ng\n");
    let password = Secret::File(path.clone());
    let config = with(&config(server.address()), |target| {
        target.auth = Some(NatsAuth::User { user: "duragram".into(), password });
    });
    let mut handler = handler(&config, 1, b"", 0);
    let messages = messages(0, 10);
    let records = records(&messages);
    let said = reason(&mut *handler, &records);
    assert!(said.contains("check user, password") && !said.contains("wr0ng"), "{said}");
    write(&path, "r1ght\n");
    drive(&mut *handler, &records, 10, PATIENCE);
}

#[test]
fn what_is_wrong_with_a_stream_is_named_with_the_way_out() {
    let server = server("");
    let messages = messages(0, 10);
    let records = records(&messages);
    let mut shared = handler(&with(&config(server.address()), |target| target.exclusive = false), 1, b"", 0);
    assert!(reason(&mut *shared, &records).contains("make the stream"));
    let plain = stream::Config { name: "TEST".into(), subjects: vec!["other".into()], ..stream::Config::default() };
    at(&server, async |context| context.create_stream(plain.clone()).await.unwrap());
    let mut own = handler(&config(server.address()), 1, b"", 0);
    assert!(reason(&mut *own, &records).contains("does not take the subject test.records"));
    let fit = stream::Config { subjects: vec!["test.*".into()], ..plain };
    at(&server, async |context| context.update_stream(fit).await.unwrap());
    drive(&mut *own, &records, 10, PATIENCE);
}

#[test]
fn on_a_shared_stream_a_record_that_comes_again_within_the_window_is_there_once() {
    let server = server("");
    let stream = stream::Config { name: "TEST".into(), subjects: vec!["test.>".into()], ..stream::Config::default() };
    at(&server, async |context| context.create_stream(stream).await.unwrap());
    let proxy = Proxy::to(server.address());
    let config = with(&config(proxy.address()), |target| target.exclusive = false);
    let messages = messages(0, 3000);
    let records = records(&messages);
    drive(&mut *handler(&config, 1, b"", 0), &records[..2000], 1000, PATIENCE);
    let mut second = handler(&config, 2, b"", 0);
    proxy.cut_after(100_000);
    drive(&mut *second, &records, 1000, PATIENCE);
    assert_eq!(names(&server), expected(0, 3000));
}

#[test]
fn a_dead_letter_that_is_retried_stands_at_the_end_and_the_position_is_found_behind_it() {
    let server = server("");
    let config = config(server.address());
    let messages = messages(0, 12);
    let records = records(&messages);
    let mut first = handler(&config, 1, b"", 0);
    drive(&mut *first, &records[..5], 10, PATIENCE);
    drive(&mut *first, &records[6..10], 10, PATIENCE);
    let mut again = handler(&config, 2, b"", 10);
    // The second is a try after an answer that was lost.
    for handler in [&mut first, &mut again] {
        let mut outcomes = Outcomes::new(1);
        handler.retry(&records[5], &mut outcomes);
        assert_eq!(*outcomes.outcome(0), Outcome::Done, "{outcomes:?}");
    }
    drive(&mut *again, &records[6..], 10, PATIENCE);
    let order = [expected(0, 5), expected(6, 10), expected(5, 6), expected(10, 12)].concat();
    assert_eq!(names(&server), order);
    assert_eq!(header(&stored(&server)[9].0, "Duragram-Retried"), "1");
}
