//! In mode `record` each request carries one record.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use duragram::model::HttpMode::Record;
use duragram::process::{Content, Outcome};
use duragram::proto::Seq;
use flate2::read::GzDecoder;

use super::super::support::lane::{Message, drive, messages};
use super::server::{Response, Server};
use super::{JOURNAL, PATIENCE, at, fault, open, present, try_open};

#[test]
fn a_record_is_a_request_with_its_payload_as_it_came_and_its_names_as_headers() {
    let server = Server::start(|_| Response::status(204));
    let mut target = at(server.address(), Record);
    target.headers = vec![("X-Source".into(), "field 7".into())];
    let payload = vec![0, 255, b'\r', b'\n', b'{'];
    let message = Message { offset: 41, index: 2, channel: 9, payload: payload.clone() };
    let dead = drive(&mut *open(target), &[message.record()], 10, PATIENCE);
    assert_eq!(dead, []);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    let request = &requests[0];
    assert_eq!(request.line, "POST /in?table=a HTTP/1.1");
    assert_eq!(request.body, payload);
    let mut headers = request.headers.clone();
    headers.sort();
    let version = concat!("duragram/", env!("CARGO_PKG_VERSION"));
    let host = server.address().to_string();
    let mut expected = [
        ("accept", "*/*"),
        ("content-length", "5"),
        ("content-type", "application/octet-stream"),
        ("duragram-channel", "9"),
        ("duragram-client", "00000000000000a1"),
        ("duragram-epoch", "3"),
        ("duragram-journal", JOURNAL),
        ("duragram-offset", "41-2"),
        ("duragram-seq", "42"),
        ("host", &host),
        ("idempotency-key", &format!("\"{JOURNAL}-41-2\"")),
        ("user-agent", version),
        ("x-source", "field 7"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    expected.sort();
    assert_eq!(headers, expected);
}

#[test]
fn a_gap_is_a_request_without_a_body_that_names_what_is_missing() {
    let server = Server::start(|_| Response::status(200));
    let message = Message { offset: 5, index: 0, channel: 0, payload: Vec::new() };
    let mut gap = message.record();
    gap.content = Content::Gap { from: Seq(3), to: Seq(6) };
    for gzip in [false, true] {
        let mut target = at(server.address(), Record);
        target.gzip = gzip;
        assert_eq!(drive(&mut *open(target), &[gap, message.record()], 10, PATIENCE), []);
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    for pair in requests.chunks(2) {
        assert_eq!((pair[0].header("duragram-gap"), pair[0].header("content-length")), ("3-6", "0"));
        // An empty message is no gap.
        assert_eq!((pair[1].header("duragram-gap"), pair[1].header("content-length")), ("", "0"));
        assert!(pair.iter().all(|request| request.body.is_empty() && request.header("content-encoding").is_empty()));
    }
}

#[test]
fn records_arrive_in_order_on_one_connection() {
    let server = Server::start(|_| Response::status(200).body("thanks"));
    let messages = messages(0, 300);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    assert_eq!(drive(&mut *open(at(server.address(), Record)), &records, 100, PATIENCE), []);
    let bodies: Vec<Vec<u8>> = server.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, messages.iter().map(|message| message.payload.clone()).collect::<Vec<_>>());
    assert!(server.requests().iter().all(|request| request.connection == 0));
}

#[test]
fn as_many_requests_are_under_way_as_are_allowed_and_no_more() {
    static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    // Nothing is answered until four have come together.
    let together = Barrier::new(4);
    let server = Server::start(move |_| {
        MOST.fetch_max(UNDER_WAY.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        together.wait();
        UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
        Response::status(200)
    });
    let mut target = at(server.address(), Record);
    target.in_flight_max = 4;
    let messages = messages(0, 80);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    assert_eq!(drive(&mut *open(target), &records, 40, PATIENCE), []);
    assert_eq!(MOST.load(Ordering::SeqCst), 4);
    let bodies: BTreeSet<Vec<u8>> = server.requests().into_iter().map(|request| request.body).collect();
    assert_eq!((bodies.len(), server.requests().len()), (80, 80), "each came once");
    let connections = server.requests().iter().map(|request| request.connection).max();
    assert!(connections < Some(8), "connections are kept: {connections:?}");
}

#[test]
fn several_at_a_time_answer_each_for_its_own_record() {
    let server = Server::start(|request| match request.header("duragram-offset") {
        "3-0" | "17-0" => Response::status(422).body("no"),
        _ => Response::status(200),
    });
    let mut target = at(server.address(), Record);
    target.in_flight_max = 5;
    let messages = messages(0, 40);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    let mut dead = drive(&mut *open(target), &records, 40, PATIENCE);
    dead.sort();
    let names: Vec<u64> = dead.iter().map(|((offset, _), _)| *offset).collect();
    assert_eq!(names, [3, 17]);
    assert_eq!(server.requests().len(), 40);
}

#[test]
fn a_refused_record_is_given_up_before_a_later_one_is_sent() {
    let server = Server::start(|request| match request.text().as_str() {
        "message 1" => Response::status(422).body("no such unit"),
        _ => Response::status(200),
    });
    let mut handler = open(at(server.address(), Record));
    let messages = messages(0, 4);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    let (outcomes, _) = present(&mut *handler, &records);
    assert_eq!(outcomes.outcome(0), &Outcome::Done);
    let reason = format!("http://{} answered 422 (no such unit)", server.address());
    assert_eq!(outcomes.outcome(1), &Outcome::GiveUp(reason.clone()));
    assert_eq!((outcomes.outcome(2), outcomes.outcome(3)), (&Outcome::Unanswered, &Outcome::Unanswered));
    assert_eq!(outcomes.unavailable_reason(), None);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(drive(&mut *handler, &records[2..], 10, PATIENCE), []);
}

#[test]
fn a_slow_server_does_not_keep_the_lane_for_long() {
    let server = Server::start(|_| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        Response::status(200)
    });
    let messages = messages(0, 1_000);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    for in_flight in [1, 4] {
        let mut target = at(server.address(), Record);
        target.in_flight_max = in_flight;
        let (outcomes, took) = present(&mut *open(target), &records);
        assert!(took.as_secs() < 3, "{took:?}");
        assert_eq!(outcomes.outcome(0), &Outcome::Done);
        assert_eq!(outcomes.outcome(999), &Outcome::Unanswered);
        assert_eq!(outcomes.unavailable_reason(), None);
    }
}

#[test]
fn a_compressed_body_is_what_it_was_when_it_is_unpacked() {
    let server = Server::start(|_| Response::status(200));
    let mut target = at(server.address(), Record);
    target.gzip = true;
    target.content_type = "text/plain".into();
    let message = Message { offset: 0, index: 0, channel: 0, payload: b"0123456789".repeat(1_000) };
    assert_eq!(drive(&mut *open(target), &[message.record()], 10, PATIENCE), []);
    let request = &server.requests()[0];
    assert_eq!((request.header("content-encoding"), request.header("content-type")), ("gzip", "text/plain"));
    assert!(request.body.len() < 1_000);
    let mut plain = Vec::new();
    GzDecoder::new(request.body.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, message.payload);
}

#[test]
fn what_cannot_be_sent_is_an_error_at_the_start_that_names_the_key() {
    let good = || at("127.0.0.1:1".parse().unwrap(), Record);
    let with_url = |url: &str| super::target(url.to_owned(), Record);
    let with_header = |name: &str, value: &str| {
        let mut target = good();
        target.headers = vec![(name.to_owned(), value.to_owned())];
        target
    };
    let mut content_type = good();
    content_type.content_type = "text\nplain".into();
    for (target, key) in [
        (with_url("ftp://h/"), "`url`"),
        (with_url("http:///path"), "`url`"),
        (with_url("not a url"), "`url`"),
        (with_url("http://user:s3cret@h/"), "`url`"),
        (with_header("Duragram-Offset", "1"), "`headers`: Duragram-Offset"),
        (with_header("Content-Length", "1"), "`headers`: Content-Length"),
        (with_header("a b", "1"), "`headers`: a b"),
        (with_header("X-Token", "s3cret\n"), "`headers`: X-Token"),
        (content_type, "`content_type`"),
    ] {
        let error = try_open(target, PATIENCE).err().expect(key).to_string();
        assert!(error.contains(key) && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn what_the_server_responds_is_the_answer_for_who_has_asked() {
    let server = Server::start(|request| match request.text().as_str() {
        "message 1" => Response::status(200).body(vec![b'x'; 1025]),
        "message 2" => Response::status(204),
        text => Response::status(201).body(format!("re: {text}")),
    });
    let messages = messages(0, 4);
    let asking = |message| duragram::process::Record { asks: true, ..Message::record(message) };
    let records: Vec<_> = messages.iter().map(asking).collect();
    for in_flight in [1, 3] {
        let mut target = at(server.address(), Record);
        target.in_flight_max = in_flight;
        let (outcomes, _) = present(&mut *open(target), &records);
        assert!((0..4).all(|i| *outcomes.outcome(i) == Outcome::Done), "too long an answer costs the record nothing");
        let answers = [0, 1, 2, 3].map(|i| outcomes.body(i).map(|body| String::from_utf8_lossy(body).into_owned()));
        assert_eq!(answers, [Some("re: message 0".into()), None, None, Some("re: message 3".into())]);
    }
    assert!(server.requests().iter().all(|request| request.header("duragram-ask") == "1"));
}

#[test]
fn a_response_that_breaks_off_while_somebody_waits_comes_again() {
    let server = Server::start(|request| match request.nth {
        0 => Response::status(200).body("half of").breaks_off(10),
        _ => Response::status(200).body("half of an answer"),
    });
    let messages = messages(0, 1);
    let record = duragram::process::Record { asks: true, ..messages[0].record() };
    let mut handler = open(at(server.address(), Record));
    let (outcomes, _) = present(&mut *handler, &[record]);
    assert_eq!(outcomes.outcome(0), &Outcome::Unanswered);
    assert!(fault(&outcomes).contains("broke off"), "{outcomes:?}");
    let (outcomes, _) = present(&mut *handler, &[record]);
    assert_eq!(outcomes.body(0).map(|body| body.to_vec()), Some(b"half of an answer".to_vec()));
    assert_eq!(server.requests()[0].headers, server.requests()[1].headers, "by the same name");
}
