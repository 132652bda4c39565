//! The example of PROTOCOL.md, byte for byte.

use super::{CONFIG, Place};
use crate::common::wire::Wire;

/// What a client sends, and what it gets.
const DATA: &str = "11300000 03000000 a100000000000000 0500000000000000 0000 0200 6f70656e2076616c76652037 7334c469";
const ACK: &str = "12000004 03000000 a100000000000000 0500000000000000";
const TAKE: &str = "18000000 03000000 a100000000000000 0500000000000000 204e0000 7cb46198";
const LENGTH: &str = "17000000 03000000 a100000000000000 0500000000000000 0b000000 3227f09c";
const TAKE_WITH_ROOM: &str =
    "18000000 03000000 a100000000000000 0500000000000000 204e0000 0000000000000000000000 3860dfaf";
const ANSWER: &str = "17000000 03000000 a100000000000000 0500000000000000 0b000000 76616c76653a206f70656e d0109998";
const TAKE_NEXT: &str = "18000000 03000000 a100000000000000 0600000000000000 00000000 7869c935";
const GONE: &str = "17000300 03000000 a100000000000000 0600000000000000 00000000 3b9f38ce";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_example_of_the_specification_is_what_the_server_says() {
    let service = crate::common::service::Service::start_with(|_| {
        crate::sinks::http::server::Response::status(200).body("valve: open")
    });
    service.hold(b"open valve 7");
    let home = crate::common::server::Home::with_config(&format!("{CONFIG}window = 1024\n"));
    let server = home.serve_sinks(&[&service.sink()]);
    let place = Place { server, service, home };
    let wire = Wire::in_epoch(&place.server, 0xa1, 3);
    let exchange = |sent: &str| {
        wire.send_bytes(&bytes(sent));
        wire.reply_bytes()
    };
    let mut ack = exchange(DATA);
    // COMPLETE, which the example leaves out.
    ack[1] &= !64;
    assert_eq!(ack[..24], bytes(ACK));
    wire.send_bytes(&bytes(TAKE));
    wire.assert_silence_so_far();
    place.service.release(b"open valve 7");
    assert_eq!(wire.reply_bytes(), bytes(LENGTH));
    assert_eq!(exchange(TAKE_WITH_ROOM), bytes(ANSWER));
    assert_eq!(exchange(TAKE_NEXT), bytes(GONE));
    assert_eq!(place.service.times(b"open valve 7"), 1);
}
