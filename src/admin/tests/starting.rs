//! The admin interface before the server is ready.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::json;

use super::{Fake, change, connect, get_json, raw, start, token};
use crate::admin::{Admin, Starting, StartingAt};
use crate::config::Config;

/// A server that reads its journal.
struct Reading;

impl Starting for Reading {
    fn at(&self) -> StartingAt {
        StartingAt { step: "reading /secret/place".into(), bytes: 3 << 20, bytes_total: 12 << 20, seconds: 14 }
    }
}

#[test]
fn while_the_server_starts_probes_learn_that_it_lives_and_how_far_it_is_and_all_else_is_refused() {
    let address = "127.0.0.1:0".parse().unwrap();
    let admin = Admin::begin(address, None, Arc::new(Reading)).unwrap();
    assert_eq!(get_json(&admin, "/healthz"), (200, json!({ "healthy": true, "reasons": [] })));
    let (status, answer) = get_json(&admin, "/readyz");
    let reason = answer["reasons"][0].as_str().unwrap();
    assert!(
        status == 503 && reason.contains("3.0 MiB of about 12.0 MiB read") && reason.contains("for 14 s"),
        "{answer}"
    );
    assert_eq!((&answer["ready"], &answer["progress"]["bytes_total"]), (&json!(false), &json!(12 << 20)));
    for path in ["/metrics", "/api/status", "/api/entries", "/api/tail", "/api/dead", "/none"] {
        let (status, answer) = get_json(&admin, path);
        assert!(status == 503 && answer["error"].as_str().unwrap().contains("not ready yet"), "{path}: {answer}");
    }
    for (method, path) in [("POST", "/api/dead/7/0/retry"), ("DELETE", "/api/dead/7/0"), ("POST", "/healthz")] {
        let (status, answer) = change(&admin, method, path, "Authorization: Bearer 0123456789abcdef\r\n");
        assert!(status == 503 && answer.contains("retry-after: 1"), "{answer}");
    }
    let (status, answer) = raw(&admin, "GET /readyz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert!(status == 403 && !answer.contains("secret"), "{answer}");
}

#[test]
fn a_connection_that_was_opened_during_the_start_sees_the_server_when_it_is_ready() {
    let admin = Admin::begin("127.0.0.1:0".parse().unwrap(), None, Arc::new(Reading)).unwrap();
    let mut stream = connect(&admin);
    let mut ask = |path: &str| {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address()).unwrap();
        let mut reader = BufReader::new(&stream);
        let (mut status, mut len) = (String::new(), 0);
        reader.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                len = value.trim().parse().unwrap();
            }
        }
        reader.read_exact(&mut vec![0; len]).unwrap();
        status.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((ask("/readyz"), ask("/api/status")), ("503".to_owned(), "503".to_owned()));
    admin.open(&Config::default(), Arc::new(token()), Fake::new());
    assert_eq!((ask("/readyz"), ask("/api/status")), ("200".to_owned(), "200".to_owned()));
}

#[test]
fn where_others_reach_it_a_start_tells_its_reasons_to_the_bearer_of_the_token_alone() {
    let begin = |token| Admin::begin("0.0.0.0:0".parse().unwrap(), token, Arc::new(Reading)).unwrap();
    let ask = |admin: &Admin, path: &str, header: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", admin.address().port())).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: ingest.example\r\nConnection: close\r\n{header}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let right = "Authorization: Bearer 0123456789abcdef\r\n";
    for admin in [begin(None), begin(Some(Arc::new(token())))] {
        assert!(ask(&admin, "/healthz", "").contains(" 200 "));
        for path in ["/readyz", "/api/status"] {
            let answer = ask(&admin, path, "");
            assert!(answer.contains(" 503 ") && !answer.contains("secret"), "{answer}");
        }
    }
    let admin = begin(Some(Arc::new(token())));
    assert!(ask(&admin, "/readyz", right).contains("/secret/place"));
    assert!(ask(&admin, "/api/status", right).contains("/secret/place"));
}

#[test]
fn a_sink_that_is_away_is_told_and_keeps_nobody_from_sending() {
    let state = Fake::new();
    let admin = start(&state);
    assert_eq!(get_json(&admin, "/readyz"), (200, json!({ "ready": true, "reasons": [] })));
    *state.waiting.lock().unwrap() = vec!["sink file:/x: nobody reads it".to_owned()];
    let (status, answer) = get_json(&admin, "/readyz");
    assert_eq!(status, 200);
    assert_eq!(answer, json!({ "ready": true, "reasons": [], "waiting": ["sink file:/x: nobody reads it"] }));
    assert_eq!(get_json(&admin, "/api/status").1["waiting"], answer["waiting"]);
}
