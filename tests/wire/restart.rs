//! Raw UDP against the real binary: sessions are what they were, after SIGTERM and after SIGKILL.

use crate::common::server::{Home, Server};
use crate::common::wire::{Is, Wire, batch_of};
use duragram_proto::codec::Data;

/// The two ends of a run.
type Ending = fn(Server);

const ENDINGS: [Ending; 2] = [
    |server| server.kill(),
    |server| {
        let status = server.terminate();
        assert!(status.success(), "SIGTERM ends with 0: {status}");
    },
];

#[test]
fn a_retransmission_of_what_was_acked_is_acked_again_and_not_journaled_again() {
    for end in ENDINGS {
        let home = Home::new();
        let server = home.serve();
        let wire = Wire::new(&server, 0x11);
        let room = [b'r'; 64];
        for seq in [1, 2, 3, 7, 70] {
            wire.ask_ack(&wire.data(seq, &room));
        }
        end(server);

        let server = home.serve();
        let wire = Wire::new(&server, 0x11);
        let ack = wire.ping();
        assert_eq!((ack.floor, ack.duplicate), (3, true));
        for seq in [1, 2, 3, 7, 70] {
            let ack = wire.ask_ack(&Data { attempt: 1, ..wire.data(seq, &room) });
            assert_eq!((ack.floor, ack.above, ack.duplicate), (3, vec![7, 70], true), "{seq}");
        }
        let ack = wire.ask_ack(&wire.data(4, &room));
        assert_eq!((ack.floor, ack.above, ack.duplicate), (4, vec![7, 70], false));
        let sink: Vec<_> = home.wait_lines(6).iter().map(|line| (line.offset, line.seq)).collect();
        assert_eq!(sink, [(0, 1), (1, 2), (2, 3), (3, 7), (4, 70), (5, 4)]);
    }
}

#[test]
fn many_restarts_lose_and_repeat_nothing() {
    let home = Home::with_config("checkpoint_bytes = 65536\ncheckpoint_interval = \"10ms\"\n");
    let mut seq = 0;
    for round in 0..6 {
        let server = home.serve();
        let wire = Wire::new(&server, 0x12);
        assert_eq!(wire.ping().floor, seq, "round {round}");
        for _ in 0..50 {
            seq += 1;
            // More than a checkpoint's worth in a round, so that some of it is trimmed.
            let ack = wire.ask_ack(&Data { span: 0, ..wire.data(seq, &[b'y'; 1400]) });
            assert_eq!(ack.floor, seq);
        }
        ENDINGS[round % 2](server);
    }
    let server = home.serve();
    let wire = Wire::new(&server, 0x12);
    for old in [1, 50, 51, seq] {
        assert!(wire.ask_ack(&Data { span: 0, ..wire.data(old, b"") }).duplicate, "{old}: trimmed or not");
    }
    let seqs: Vec<_> = home.wait_lines(300).iter().map(|line| (line.offset, line.seq)).collect();
    assert_eq!(seqs, (1..=300).map(|seq| (seq - 1, seq)).collect::<Vec<_>>());
}

#[test]
fn all_that_was_acked_is_in_the_sink_when_sigterm_has_ended_the_server() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0x13);
    for seq in 1..=1000 {
        wire.send(&wire.data(seq, format!("line {seq}").as_bytes()));
        if seq % 50 == 0 {
            while wire.ack().floor < seq {}
        }
    }
    assert!(server.terminate().success());
    let lines = home.lines();
    assert_eq!(lines.len(), 1000, "without waiting");
    for (line, seq) in lines.iter().zip(1..) {
        assert_eq!((line.offset, line.seq, line.payload()), (seq - 1, seq, format!("line {seq}").into_bytes()));
    }
}

#[test]
fn sigterm_acks_what_it_took_in_hand() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0x14);
    for seq in 1..=100 {
        wire.send(&wire.data(seq, b"in a hurry"));
    }
    assert!(server.terminate().success());
    let acked = wire.drain().into_iter().filter_map(|reply| match reply.is {
        Is::Ack(ack) => Some(ack.floor),
        _ => None,
    });
    let acked = acked.max().unwrap_or(0);
    let journaled = home.lines().len() as u64;
    assert!(acked <= journaled, "acked {acked}, processed {journaled}");

    let server = home.serve();
    let wire = Wire::new(&server, 0x14);
    assert_eq!(wire.ping().floor, journaled, "whatever was journaled came out");
}

#[test]
fn channels_batches_and_payloads_that_are_not_text_survive_a_kill() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0x15);
    let payload = batch_of(&[b"\x00\xff", b"", "ä\"\\\n".as_bytes()]);
    wire.ask_ack(&Data { batch: true, channel: 65_535, ..wire.data(1, &payload) });
    server.kill();
    let _server = home.serve();
    let lines = home.wait_lines(3);
    let sink: Vec<_> = lines.iter().map(|l| (l.offset, l.index, l.seq, l.channel, l.payload())).collect();
    assert_eq!(
        sink,
        [
            (0, 0, 1, 65_535, b"\x00\xff".to_vec()),
            (0, 1, 1, 65_535, vec![]),
            (0, 2, 1, 65_535, "ä\"\\\n".as_bytes().to_vec())
        ]
    );
    assert!(lines[0].received_at.ends_with('Z') && lines[0].received_at.len() == 27, "{}", lines[0].received_at);
}

#[test]
fn sessions_of_many_clients_survive() {
    for end in ENDINGS {
        let home = Home::new();
        let server = home.serve();
        let clients = 1..=200;
        for client in clients.clone() {
            let wire = Wire::new(&server, client);
            assert_eq!(wire.ask_ack(&wire.data(1, b"")).floor, 1);
            if client % 3 == 0 {
                assert_eq!(wire.ask_ack(&wire.data(3, &[0; 8])).above, [3]);
            }
        }
        end(server);
        let server = home.serve();
        assert_eq!(server.metric("duragram_sessions", ""), 200.0);
        for client in clients {
            let wire = Wire::new(&server, client);
            let ack = wire.ask_ack(&wire.data(3, &[0; 8]));
            assert_eq!((ack.floor, ack.above, ack.duplicate), (1, vec![3], client % 3 == 0), "client {client}");
        }
    }
}
