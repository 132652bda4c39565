//! What is no ask, what is no TAKE, and where neither is taken.

use duragram_proto::codec::{Data, Datagram, OPTION_ASK, RejectCode, Take};

use super::{CONFIG, Place};
use crate::common::server::{Home, Server, duragram};
use crate::common::service::Service;
use crate::common::wire::{Is, Wire, batch_of, bytes_of, fix_crc, refusal};

#[test]
fn a_batch_that_asks_and_unknown_options_are_unsupported() {
    let place = Place::new();
    let wire = place.wire(0xc1);
    let payload = batch_of(&[b"one", b"two"]);
    for data in [
        Data { batch: true, ..wire.asking(1, &payload) },
        Data { options: 1, ..wire.data(1, b"one") },
        Data { options: OPTION_ASK | 1, ..wire.data(1, b"one") },
        Data { options: OPTION_ASK | 0x8000, ..wire.data(1, b"one") },
        Data { options: 4, ..wire.data(1, b"one") },
        Data { end: false, ..wire.asking(1, b"one") },
    ] {
        let reject = wire.ask_reject(&data);
        assert_eq!(refusal(&reject), (RejectCode::Unsupported, 1), "{data:?}");
    }
    assert_eq!(place.server.metric("duragram_sessions", ""), 0.0);
    assert_eq!(wire.ask_ack(&wire.asking(1, b"one")).floor, 1);
}

/// ASK gets REJECT 2, TAKE is as unknown as to a server of an earlier version, and all else is as ever.
fn nobody_asks(server: &Server, wire: &Wire) {
    assert_eq!(refusal(&wire.ask_reject(&wire.asking(1, b"open"))), (RejectCode::Unsupported, 1));
    wire.send_take(wire.held(1, 0));
    wire.assert_silence();
    assert_eq!(server.metric("duragram_datagrams_total", "\"unknown_type\""), 1.0);
    assert_eq!(wire.ask_ack(&wire.data(1, b"open")).floor, 1);
}

#[test]
fn where_no_asks_are_taken_an_ask_is_unsupported_and_a_take_unknown() {
    let place = Place::with(&format!("{CONFIG}asks_max = 0\n"));
    nobody_asks(&place.server, &place.wire(0xc2));
    // What waited when it was switched off is not told either.
    let place = Place::new();
    let wire = place.wire(0xc3);
    wire.ask_ack(&wire.asking(1, b"open"));
    place.home.configure(&format!("{CONFIG}asks_max = 0\n"));
    let place = place.restart();
    nobody_asks(&place.server, &place.wire(0xc4));
}

#[test]
fn plain_asks_are_for_loopback_unless_the_operator_says_otherwise() {
    for (toml, taken) in [("allow_plain = true\n", false), ("allow_plain = true\nplain_asks = true\n", true)] {
        let service = Service::start();
        let home = Home::with_config(toml);
        let mut command = duragram();
        command.args(["serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--sink", &service.sink()]);
        command.arg("--config").arg(home.path().join("duragram.toml")).arg("--data").arg(home.data());
        let server = Server::try_start(&home, command).expect("it starts");
        let mut wire = Wire::new(&server, 0xc5);
        wire.server = ([127, 0, 0, 1], server.udp.port()).into();
        if taken {
            assert_eq!(wire.ask_ack(&wire.asking(1, b"open")).floor, 1);
            assert_eq!(wire.taken(wire.held(1, 0)).body, b"OPEN");
        } else {
            nobody_asks(&server, &wire);
        }
    }
}

#[test]
fn what_is_no_take_is_dropped_in_silence() {
    let place = Place::new();
    let wire = place.wire(0xc6);
    wire.ask_ack(&wire.asking(1, b"open"));
    let good = bytes_of(&Datagram::Take(wire.take(1, 0)));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        fix_crc(&mut bytes);
        bytes
    };
    let malformed = [
        ("flags", changed(&|bytes| bytes[1] = 1)),
        ("epoch 0", changed(&|bytes| bytes[4..8].fill(0))),
        ("seq 0", changed(&|bytes| bytes[16..24].fill(0))),
        ("a span as large as the seq", changed(&|bytes| bytes[2] = 1)),
        ("a tail that is not zero", changed(&|bytes| bytes[28 + 63] = 1)),
    ];
    for (what, bytes) in &malformed {
        wire.send_bytes(bytes);
        assert_eq!(wire.settle(), [], "{what}");
    }
    assert_eq!(place.server.metric("duragram_datagrams_total", "\"malformed\""), malformed.len() as f64);
    let longest = 1472 - 32;
    wire.send_take(Take { room: longest + 1, ..wire.take(1, 0) });
    assert_eq!(wire.settle(), [], "too long");
    let answer = wire.taken(Take { room: longest, ..wire.held(1, 0) });
    assert_eq!(answer.body, b"OPEN");
}

#[test]
fn an_answer_is_no_longer_than_its_take() {
    let place = Place::new();
    let wire = place.wire(0xc7);
    wire.ask_ack(&wire.asking(1, b"long 1000"));
    for room in [0, 999, 1000, 1300] {
        let take = bytes_of(&Datagram::Take(Take { room, ..wire.held(1, 0) }));
        wire.send_bytes(&take);
        let reply = wire.reply();
        assert!(matches!(reply.is, Is::Answer(_)) && reply.len <= take.len(), "{room}: {} bytes", reply.len);
    }
}
