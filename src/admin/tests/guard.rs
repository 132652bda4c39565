//! Tests of who may ask for what.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use super::{Fake, change, letter, raw, start, token};
use crate::admin::{Admin, AdminState};
use crate::config::Config;

#[test]
fn a_web_page_can_neither_change_nor_read_anything() {
    let state = Fake::new();
    state.dead.put(&letter(7, 0)).unwrap();
    let admin = start(&state);
    // A form or a `fetch` without preflight: no header of ours.
    for (method, path) in [("POST", "/api/dead/7/0/retry"), ("DELETE", "/api/dead/7/0"), ("POST", "/api/nothing")] {
        let (status, answer) = change(&admin, method, path, "Origin: http://evil.example\r\n");
        assert!(
            status == 401 && answer.contains("www-authenticate: Bearer") && answer.contains("admin token"),
            "{answer}"
        );
    }
    // The preflight that a header of ours needs is not granted.
    let preflight = "Origin: http://evil.example\r\nAccess-Control-Request-Method: DELETE\r\n";
    let (status, answer) = change(&admin, "OPTIONS", "/api/dead/7/0", preflight);
    assert!(status == 401 && !answer.to_lowercase().contains("access-control-allow"), "{answer}");
    // A name that resolves to 127.0.0.1.
    for host in ["evil.example", "evil.example:7118", "127.0.0.1.evil.example", ""] {
        let (status, answer) =
            raw(&admin, &format!("GET /api/entries HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(status, 403, "{host:?}: {answer}");
    }
    assert_eq!(state.dead.count(), 1);
    // Probes that speak HTTP/1.0 send no Host.
    assert_eq!(raw(&admin, "GET /healthz HTTP/1.0\r\n\r\n").0, 200);
    assert_eq!(raw(&admin, "GET /healthz HTTP/1.1\r\nHost: localhost:9\r\nConnection: close\r\n\r\n").0, 200);
}

/// Bound to every address of this machine, as one that others reach.
#[test]
fn where_others_reach_it_only_probes_are_answered_without_the_token_and_they_learn_no_reasons() {
    let state = Fake::new();
    *state.failure.lock().unwrap() = Some("commit: EIO at /secret/place".into());
    let config = Config { admin_token_file: Some("elsewhere".into()), ..Config::default() };
    let address = "0.0.0.0:0".parse().unwrap();
    let admin = Admin::start(address, &config, token(), Arc::clone(&state) as Arc<dyn AdminState>).unwrap();
    let get = |path: &str, header: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", admin.address().port())).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: ingest.example\r\nConnection: close\r\n{header}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().to_owned(), answer)
    };
    for (path, without) in [
        ("/healthz", "503"),
        ("/readyz", "503"),
        ("/metrics", "401"),
        ("/api/status", "401"),
        ("/api/entries", "401"),
        ("/none", "401"),
    ] {
        let (status, answer) = get(path, "");
        assert_eq!(status, without, "{path}");
        assert!(!answer.contains("secret") && !answer.contains("duragram_"), "{answer}");
    }
    let right = "Authorization: Bearer 0123456789abcdef\r\n";
    assert!(get("/healthz", right).1.contains("/secret/place"));
    for path in ["/metrics", "/api/status", "/api/entries"] {
        assert_eq!(get(path, right).0, "200", "{path}");
    }
}
