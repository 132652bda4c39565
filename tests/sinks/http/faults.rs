//! Servers that fail, refuse, lie, hang and go away.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use duragram::model::HttpMode::{Batch, Record};
use duragram::model::{HttpAuth, HttpMode, Secret};
use duragram::process::Outcome;

use super::super::support::lane::{Message, drive, messages};
use super::super::support::proxy::Proxy;
use super::server::{Response, Server};
use super::{PATIENCE, TIMEOUT, at, fault, open, present, try_open};

/// Long enough for what answers at once, and short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

const MODES: [HttpMode; 2] = [Record, Batch];

fn secret_file(path: &Path, text: &str) -> Secret {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    Secret::File(path.to_owned())
}

#[test]
fn each_status_is_the_fault_of_the_server_but_for_three_that_are_the_records() {
    let message = messages(7, 1);
    for mode in MODES {
        for status in [
            300, 301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 414, 415, 421,
            425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 599,
        ] {
            let server = Server::start(move |_| Response::status(status).body("said so"));
            let (outcomes, _) = present(&mut *open(at(server.address(), mode)), &[message[0].record()]);
            assert_eq!(outcomes.outcome(0), &Outcome::Unanswered, "{status}");
            let reason = fault(&outcomes);
            let shown = format!("http://{} answered {status} (said so): ", server.address());
            let (status_and_body, advice) = reason.split_at(shown.len().min(reason.len()));
            assert_eq!(status_and_body, shown);
            assert!(!advice.is_empty(), "it tells what to do: {reason}");
            assert_eq!(server.requests().len(), 1, "nothing is sent again at once");
        }
        for status in [400, 413, 422] {
            let server = Server::start(move |_| Response::status(status).body("bad"));
            let (outcomes, _) = present(&mut *open(at(server.address(), mode)), &[message[0].record()]);
            let reason = format!("http://{} answered {status} (bad)", server.address());
            assert_eq!(outcomes.outcome(0), &Outcome::GiveUp(reason));
        }
        for status in [200, 201, 202, 204, 299] {
            let server = Server::start(move |_| Response::status(status));
            let (outcomes, _) = present(&mut *open(at(server.address(), mode)), &[message[0].record()]);
            assert_eq!(outcomes.outcome(0), &Outcome::Done, "{status}");
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_| Response::status(200));
    let location = format!("http://{}/new", elsewhere.address());
    let said = location.clone();
    let server = Server::start(move |_| Response::status(307).header("Location", format!("{said}?token=s3cret")));
    let message = messages(0, 1);
    let (outcomes, _) = present(&mut *open(at(server.address(), Record)), &[message[0].record()]);
    let reason = fault(&outcomes);
    assert!(reason.contains(&location) && !reason.contains("s3cret"), "{reason}");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn a_server_that_asks_for_time_gets_it_and_is_not_called_meanwhile() {
    // A clock that is years off: the date counts from the server's own.
    let date = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    for (mode, after) in MODES.into_iter().zip(["1", "Sun, 06 Nov 1994 08:49:38 GMT"]) {
        let server = Server::start(move |request| match request.nth {
            0 => Response::status(503).header(date.0, date.1).header("Retry-After", after),
            _ => Response::status(200),
        });
        let mut handler = open(at(server.address(), mode));
        let message = messages(0, 1);
        let record = [message[0].record()];
        let began = Instant::now();
        let (outcomes, _) = present(&mut *handler, &record);
        assert!(fault(&outcomes).contains("answered 503"), "{outcomes:?}");
        let (outcomes, took) = present(&mut *handler, &record);
        assert!(fault(&outcomes).contains("Retry-After"), "{outcomes:?}");
        assert!(took < SHORT, "it does not wait itself: {took:?}");
        assert_eq!(server.requests().len(), 1);
        assert_eq!(drive(&mut *handler, &record, 1, PATIENCE), []);
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn what_was_sent_and_not_answered_comes_again_the_same_before_anything_newer() {
    for mode in MODES {
        let server = Server::start(|_| Response::status(200));
        let proxy = Proxy::to(server.address());
        let mut handler = try_open(at(proxy.address(), mode), SHORT).unwrap();
        let messages = messages(0, 6);
        let records: Vec<_> = messages.iter().map(Message::record).collect();
        assert_eq!(drive(&mut *handler, &records[..2], 2, PATIENCE), []);
        let before = server.requests().len();
        proxy.lose_replies(true);
        let (outcomes, took) = present(&mut *handler, &records[2..4]);
        assert!(took < SHORT + Duration::from_secs(1), "{took:?}");
        assert!(fault(&outcomes).contains("in doubt"), "{outcomes:?}");
        assert_eq!(server.requests().len(), before + 1, "nothing newer is sent");
        proxy.lose_replies(false);
        assert_eq!(drive(&mut *handler, &records[2..], 2, PATIENCE), []);
        let requests = server.requests();
        let (first, again) = (&requests[before], &requests[before + 1]);
        assert_eq!((&first.body, &first.headers), (&again.body, &again.headers));
        let keys: BTreeSet<&str> = requests.iter().map(|request| request.header("idempotency-key")).collect();
        assert_eq!(keys.len(), requests.len() - 1, "other bodies have other keys");
    }
}

#[test]
fn a_frozen_connection_costs_no_more_than_the_timeout() {
    for mode in MODES {
        let server = Server::start(|_| Response::status(200));
        let proxy = Proxy::to(server.address());
        let mut handler = try_open(at(proxy.address(), mode), SHORT).unwrap();
        let messages = messages(0, 200);
        let records: Vec<_> = messages.iter().map(Message::record).collect();
        assert_eq!(drive(&mut *handler, &records[..100], 100, PATIENCE), []);
        proxy.freeze(true);
        let (outcomes, took) = present(&mut *handler, &records[100..]);
        assert!(took >= SHORT && took < SHORT + Duration::from_secs(1), "{took:?}");
        assert!(fault(&outcomes).contains("300ms"), "{outcomes:?}");
        proxy.freeze(false);
        assert_eq!(drive(&mut *handler, &records[100..], 100, PATIENCE), []);
    }
}

#[test]
fn a_connection_that_is_cut_while_a_body_is_sent_loses_nothing() {
    for mode in MODES {
        let server = Server::start(|_| Response::status(200));
        let proxy = Proxy::to(server.address());
        let mut handler = open(at(proxy.address(), mode));
        let messages = messages(0, 200);
        let records: Vec<_> = messages.iter().map(Message::record).collect();
        proxy.cut_after(5_000);
        assert_eq!(drive(&mut *handler, &records, 50, PATIENCE), []);
        assert!(proxy.accepted() > 1, "it was cut");
        let all: String = server.requests().iter().map(|request| format!("{}\n", request.text())).collect();
        for Message { offset, .. } in &messages {
            // As a body of its own, or in a line of JSON.
            let there = all.contains(&format!("message {offset}\n")) || all.contains(&format!("\"message {offset}\""));
            assert!(there, "{offset} is lost");
        }
    }
}

#[test]
fn a_server_that_was_away_gets_everything_when_it_is_back_and_no_record_dies() {
    for mode in MODES {
        let server = Server::start(|_| Response::status(200));
        let proxy = Arc::new(Proxy::to(server.address()));
        proxy.cut(true);
        let back = Arc::clone(&proxy);
        let returning = thread::spawn(move || {
            while back.accepted() < 5 {
                thread::sleep(Duration::from_millis(5));
            }
            back.cut(false);
        });
        let messages = messages(0, 20);
        let records: Vec<_> = messages.iter().map(Message::record).collect();
        assert_eq!(drive(&mut *open(at(proxy.address(), mode)), &records, 20, PATIENCE), []);
        returning.join().unwrap();
    }
}

#[test]
fn a_server_that_was_never_there_fails_no_start() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{nobody}/"), "http://no-such-host.invalid/".to_owned()] {
        let mut handler = try_open(super::target(url.clone(), Record), TIMEOUT).unwrap();
        assert_eq!(handler.flush().unwrap(), b"");
        let message = messages(0, 1);
        let (outcomes, _) = present(&mut *handler, &[message[0].record()]);
        assert!(fault(&outcomes).contains(url.trim_end_matches('/')), "{outcomes:?}");
    }
}

#[test]
fn an_answer_of_a_gigabyte_is_not_read() {
    const GIB: u64 = 1 << 30;
    for (mode, status) in [(Record, 200), (Batch, 200), (Record, 500), (Batch, 422)] {
        let server = Server::start(move |_| Response::status(status).zeros(GIB));
        let message = messages(0, 1);
        let (outcomes, _) = present(&mut *open(at(server.address(), mode)), &[message[0].record()]);
        match (status, outcomes.outcome(0)) {
            (200, Outcome::Done) | (500, Outcome::Unanswered) | (422, Outcome::GiveUp(_)) => {}
            (_, answer) => panic!("{status}: {answer:?}"),
        }
        // What is in sockets' buffers counts as written.
        assert!(server.written() < 64 << 20, "{} bytes were taken", server.written());
    }
}

#[test]
fn what_is_no_http_is_the_servers_fault() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let garbage = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut client, b"220 mail.example ESMTP\r\n\r\n").unwrap();
        // Until the sink has gone.
        drop(std::io::copy(&mut client, &mut std::io::sink()));
    });
    let message = messages(0, 1);
    let (outcomes, _) = present(&mut *open(at(address, Record)), &[message[0].record()]);
    assert!(fault(&outcomes).contains(&address.to_string()), "{outcomes:?}");
    garbage.join().unwrap();
}

#[test]
fn a_token_that_changes_in_its_file_is_taken_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let secret = secret_file(&path, "old\n");
    let server = Server::start(move |request| match request.header("authorization") {
        "Bearer new" => Response::status(200),
        "Bearer old" if request.nth < 3 => Response::status(200),
        _ => {
            secret_file(&path, "new\n");
            Response::status(401)
        }
    });
    let mut target = at(server.address(), Record);
    target.auth = Some(HttpAuth::Bearer(secret));
    let messages = messages(0, 10);
    let records: Vec<_> = messages.iter().map(Message::record).collect();
    assert_eq!(drive(&mut *open(target), &records, 10, PATIENCE), []);
    assert_eq!(server.requests().len(), 11, "one was sent twice");
}

#[test]
fn no_secret_is_in_an_error_even_when_the_server_repeats_it() {
    let directory = tempfile::tempdir().unwrap();
    let secret = || secret_file(&directory.path().join("password"), "s3cret-pa55word");
    // "user:s3cret-pa55word".
    let encoded = "dXNlcjpzM2NyZXQtcGE1NXdvcmQ=";
    for mode in MODES {
        for auth in [HttpAuth::Bearer(secret()), HttpAuth::Basic { user: "user".into(), password: secret() }] {
            for status in [400, 401, 403, 404, 500] {
                let server = Server::start(move |request| {
                    let said = format!("I know {} s3cret-pa55word", request.header("authorization"));
                    Response::status(status).body(said.clone()).header("Location", said)
                });
                let mut target = at(server.address(), mode);
                target.auth = Some(auth.clone());
                let message = messages(0, 1);
                let (outcomes, _) = present(&mut *open(target), &[message[0].record()]);
                let said = format!("{outcomes:?}");
                assert!(said.contains("I know"), "{said}");
                assert!(!said.contains("s3cret") && !said.contains(encoded), "{said}");
                let sent = server.requests()[0].header("authorization").to_owned();
                assert!([format!("Basic {encoded}"), "Bearer s3cret-pa55word".into()].contains(&sent), "{sent}");
            }
        }
    }
}

#[test]
fn a_secret_that_cannot_be_read_waits_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let server = Server::start(|_| Response::status(200));
    let mut target = at(server.address(), Record);
    target.auth = Some(HttpAuth::Bearer(Secret::File(path.clone())));
    let mut handler = open(target);
    let message = messages(0, 1);
    let (outcomes, _) = present(&mut *handler, &[message[0].record()]);
    assert!(fault(&outcomes).contains(&path.display().to_string()), "{outcomes:?}");
    secret_file(&path, "to\nken");
    let (outcomes, _) = present(&mut *handler, &[message[0].record()]);
    assert!(fault(&outcomes).contains("`auth`") && !fault(&outcomes).contains("ken"), "{outcomes:?}");
    assert_eq!(server.requests().len(), 0, "nothing is sent without it");
    secret_file(&path, "token");
    assert_eq!(drive(&mut *handler, &[message[0].record()], 1, PATIENCE), []);
}
