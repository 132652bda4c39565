//! Tests of what bounds the interface: streams, peers that stall, connections, heads.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::entries::tail;
use super::{Fake, agent, connect, get, get_json, start, start_with, wait_until};
use crate::admin::Patience;
use crate::limits;

#[test]
fn streams_are_bounded_and_a_reader_that_leaves_makes_room() {
    let state = Fake::new();
    let admin = start(&state);
    let mut open: Vec<_> = (0..limits::ADMIN_TAILS).map(|_| tail(&admin, "")).collect();
    let (status, error) = get_json(&admin, "/api/tail");
    assert_eq!((status, &error["error"]), (503, &json!("16 streams are open already")));
    assert_eq!(get(&admin, "/healthz").0, 200);
    open.pop();
    wait_until("a place for another stream", || {
        agent().get(format!("http://{}/api/tail", admin.address())).call().unwrap().status() == 200
    });
}

#[test]
fn readers_that_stall_are_cut_off_and_make_room() {
    let state = Fake::new();
    // More than the sockets' buffers of both sides can take.
    let payload = vec![b'x'; 60_000];
    for _ in 0..40 {
        state.commit(&[&payload[..]; 10]);
    }
    let patience = Patience { stall: Duration::from_millis(200), ..Patience::default() };
    let admin = start_with(&state, patience);
    let stalled: Vec<TcpStream> = (0..limits::ADMIN_TAILS)
        .map(|_| {
            let mut stream = connect(&admin);
            let host = admin.address();
            write!(stream, "GET /api/tail?from=0 HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("the streams are open", || get(&admin, "/api/tail?follow=false").0 == 503);
    wait_until("a place is free again", || get(&admin, "/api/tail?follow=false").0 == 200);
    drop(stalled);
}

#[test]
fn connections_that_say_nothing_cannot_lock_operators_out() {
    let patience = Patience { head: Duration::from_millis(300), ..Patience::default() };
    let admin = start_with(&Fake::new(), patience);
    let mut silent: Vec<TcpStream> = (0..limits::ADMIN_CONNECTIONS + 5).map(|_| connect(&admin)).collect();
    // One letter a time keeps no connection either.
    silent[0].write_all(b"GET /hea").unwrap();
    assert_eq!(get(&admin, "/healthz").0, 200);
    let mut rest = Vec::new();
    // The server may tell why before it closes.
    silent[0].read_to_end(&mut rest).unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let admin = start(&Fake::new());
    let long = "x".repeat(limits::ADMIN_HEAD_BYTES + 1000);
    let mut stream = connect(&admin);
    // The server closes before it has read all.
    drop(write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(get(&admin, "/healthz").0, 200);
}
