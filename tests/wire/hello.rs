//! Raw UDP against the real binary: epochs for clients that keep none (PROTOCOL.md#hello, PROTOCOL.md#welcome).

use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::server::{Home, Server};
use crate::common::wire::{Is, Wire, bytes_of};
use duragram_proto::codec::{Datagram, Hello, Welcome};

fn welcome(wire: &Wire, nonce: u64) -> Welcome {
    let reply = wire.hello(nonce);
    let Is::Welcome(welcome) = reply.is else { panic!("not a WELCOME: {reply:?}") };
    assert_eq!((welcome.client, welcome.nonce, reply.len), (wire.client, nonce, 32));
    welcome
}

fn unix_seconds() -> u32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    u32::try_from(seconds).unwrap()
}

/// The client in the epoch it was given.
fn in_epoch_of(server: &Server, welcome: &Welcome) -> Wire {
    Wire::in_epoch(server, welcome.client.0, welcome.epoch.value())
}

#[test]
fn a_welcome_gives_an_epoch_of_the_time_and_the_window() {
    let home = Home::with_config("window = 16\n");
    let server = home.serve();
    let wire = Wire::new(&server, 0xe1);
    let before = unix_seconds();
    let welcome = welcome(&wire, 7);
    assert!(welcome.epoch.value() >= before && welcome.epoch.value() <= unix_seconds());
    assert_eq!(welcome.credit, 16);
    let wire = in_epoch_of(&server, &welcome);
    let ack = wire.ask_ack(&wire.data(1, b"in the new epoch"));
    assert_eq!((ack.epoch, ack.floor, ack.duplicate), (welcome.epoch, 1, false));
    assert_eq!(home.wait_lines(1)[0].epoch, welcome.epoch.value());
}

#[test]
fn epochs_rise_also_within_a_second() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xe2);
    let epochs: Vec<_> = (0..50).map(|nonce| welcome(&wire, nonce).epoch).collect();
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

#[test]
fn a_repeated_hello_gets_the_same_epoch_until_something_came_in_it() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xe3);
    let first = welcome(&wire, 9);
    assert_eq!(welcome(&wire, 9).epoch, first.epoch, "the WELCOME was lost, the HELLO came again");
    assert_eq!(welcome(&wire, 9).epoch, first.epoch);
    let session = in_epoch_of(&server, &first);
    assert_eq!(session.ask_ack(&session.data(1, b"")).floor, 1);
    assert!(welcome(&wire, 9).epoch > first.epoch, "a nonce drawn twice must not give two runs one epoch");
}

#[test]
fn an_epoch_lies_above_all_that_the_client_has_used() {
    let home = Home::new();
    let server = home.serve();
    let ahead = unix_seconds() + 1_000_000;
    let wire = Wire::in_epoch(&server, 0xe4, ahead);
    assert_eq!(wire.ask_ack(&wire.data(1, b"")).floor, 1);
    assert_eq!(welcome(&wire, 1).epoch.value(), ahead + 1);
    let other = Wire::new(&server, 0xe5);
    assert!(welcome(&other, 1).epoch.value() < ahead, "each client has its own");
}

#[test]
fn a_welcome_is_on_disk_before_it_is_sent() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xe6);
    // Many in one second, so that the clock alone would not lift the next.
    let last = (0..50).map(|nonce| welcome(&wire, nonce).epoch).max().unwrap();
    server.kill();
    let server = home.serve();
    let wire = Wire::new(&server, 0xe6);
    assert_eq!(welcome(&wire, 49).epoch, last, "the same nonce, and nothing came");
    let next = welcome(&wire, 1000).epoch;
    assert!(next > last);
    assert!(server.terminate().success());
    let server = home.serve();
    let wire = Wire::new(&server, 0xe6);
    assert!(welcome(&wire, 1001).epoch > next);
}

#[test]
fn a_hello_must_be_exact() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xe7);
    let hello = bytes_of(&Datagram::Hello(Hello { client: wire.client, nonce: 3 }));
    for (at, what) in [(1, "flags"), (2, "the u16"), (4, "the epoch"), (24, "the u32")] {
        let mut bytes = hello.clone();
        bytes[at] = 0x10;
        crate::common::wire::fix_crc(&mut bytes);
        wire.send_bytes(&bytes);
        wire.assert_silence();
        assert!(server.metric("duragram_datagrams_total", "\"malformed\"") > 0.0, "{what} must be 0");
    }
}
