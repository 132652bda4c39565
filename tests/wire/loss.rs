//! Raw UDP against the real binary: seqs that never come (PROTOCOL.md#rule-4, and its place before
//! PROTOCOL.md#rule-3).

use crate::common::server::{Home, Server};
use crate::common::sink::Gap;
use crate::common::wire::{Wire, refusal};
use duragram_proto::codec::{Data, RejectCode};

/// A message whose client counts everything below `base` as delivered.
fn based<'a>(wire: &Wire, seq: u64, base: u64, payload: &'a [u8]) -> Data<'a> {
    Data { span: u16::try_from(seq - base).unwrap(), ..wire.data(seq, payload) }
}

fn lost_and_abandoned(server: &Server) -> (f64, f64) {
    (server.metric("duragram_lost_seqs_total", ""), server.metric("duragram_abandoned_seqs_total", ""))
}

/// What came out, as seq and gap.
fn seqs_and_gaps(home: &Home, lines: usize) -> Vec<(u64, Option<Gap>)> {
    home.wait_lines(lines).iter().map(|line| (line.seq, line.gap)).collect()
}

#[test]
fn acked_seqs_that_the_journal_does_not_hold_are_journaled_as_a_gap() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xc1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"")).floor, 1);
    assert_eq!(wire.ask_ack(&wire.data(2, b"")).floor, 2);
    assert_eq!(wire.ask_ack(&based(&wire, 10, 10, b"3 to 9 were acked, says the client")).floor, 10);

    assert_eq!(seqs_and_gaps(&home, 4), [(1, None), (2, None), (9, Some(Gap { from: 3, to: 9 })), (10, None)]);
    let offsets: Vec<_> = home.lines().iter().map(|line| line.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3], "a gap has an offset of its own");
    assert_eq!(lost_and_abandoned(&server), (7.0, 0.0));
    let log = server.log();
    assert!(log.contains("ERROR"), "lost data is an error in the log: {log}");
}

#[test]
fn what_is_journaled_within_a_gap_is_not_lost() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xc2);
    let room = [0; 64];
    for seq in [1, 4, 5, 9] {
        wire.ask_ack(&wire.data(seq, &room));
    }
    let ack = wire.ask_ack(&based(&wire, 12, 8, &room));
    assert_eq!((ack.floor, ack.above), (7, vec![9, 12]), "the floor moves to base - 1, and 8 is still to come");
    let lines = seqs_and_gaps(&home, 7);
    assert_eq!(lines[4..6], [(3, Some(Gap { from: 2, to: 3 })), (7, Some(Gap { from: 6, to: 7 }))]);
    assert_eq!(lost_and_abandoned(&server), (4.0, 0.0));

    assert_eq!(wire.ask_ack(&based(&wire, 8, 8, &room)).floor, 9, "and on over what is journaled above it");
    let late = wire.ask_ack(&based(&wire, 2, 2, b"one that was given up after all"));
    assert!(late.duplicate, "below the floor");
    assert_eq!(home.wait_lines(8).len(), 8);
}

#[test]
fn with_skip_the_client_has_abandoned_them() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xc3);
    let room = [0; 64];
    for seq in [1, 4] {
        wire.ask_ack(&wire.data(seq, &room));
    }
    let ack = wire.ask_ack(&Data { skip: true, ..based(&wire, 8, 7, &room) });
    assert_eq!((ack.floor, ack.above), (6, vec![8]));
    let ack = wire.ask_ack(&Data { skip: true, ..based(&wire, 7, 7, &room) });
    assert_eq!(ack.floor, 8);
    assert_eq!(seqs_and_gaps(&home, 4), [(1, None), (4, None), (8, None), (7, None)], "no gap");
    assert_eq!(lost_and_abandoned(&server), (0.0, 4.0), "2, 3, 5 and 6, each once");
}

#[test]
fn the_floor_moves_before_the_window_is_looked_at() {
    let home = Home::with_config("window = 16\n");
    let server = home.serve();
    let wire = Wire::new(&server, 0xc4);
    let room = [0; 64];
    assert_eq!(wire.ask_ack(&wire.data(1, &room)).floor, 1);
    let reject = wire.ask_reject(&based(&wire, 20, 2, &room));
    assert_eq!(refusal(&reject), (RejectCode::BeyondWindow, 20), "with the floor at 1");
    let ack = wire.ask_ack(&Data { skip: true, ..based(&wire, 20, 16, &room) });
    assert_eq!((ack.floor, ack.above), (15, vec![20]), "with the floor at 15");

    // Refused by the window, but its base has been heard: that is rule 4 before rule 3.
    let reject = wire.ask_reject(&Data { skip: true, ..based(&wire, 40, 18, &room) });
    assert_eq!(refusal(&reject), (RejectCode::BeyondWindow, 40));
    assert_eq!(wire.ping().floor, 17);
}

#[test]
fn a_jump_too_far_is_a_stale_epoch_and_changes_nothing() {
    let home = Home::with_config("window = 16\n");
    let server = home.serve();
    let wire = Wire::new(&server, 0xc5);
    assert_eq!(wire.ask_ack(&wire.data(1, b"")).floor, 1);
    for skip in [false, true] {
        for seq in [19, 20, 1 << 40] {
            let reject = wire.ask_reject(&Data { skip, seq: duragram_proto::Seq(seq), span: 0, ..wire.data(1, b"") });
            assert_eq!(refusal(&reject), (RejectCode::StaleEpoch, seq));
        }
    }
    assert_eq!(wire.ping().floor, 1);
    assert_eq!(wire.ask_ack(&wire.data(2, b"the session goes on")).floor, 2);
    assert_eq!(seqs_and_gaps(&home, 2), [(1, None), (2, None)]);
    let log = server.log();
    assert!(log.contains("ERROR"), "the loss is logged: {log}");

    let wire = Wire::in_epoch(&server, 0xc5, 2);
    assert_eq!(wire.ask_ack(&based(&wire, 19, 19, b"what it still held, in a new epoch")).floor, 19);
}

#[test]
fn the_farthest_jump_allowed_is_the_window() {
    let home = Home::with_config("window = 16\n");
    let server = home.serve();
    let wire = Wire::new(&server, 0xc6);
    assert_eq!(wire.ask_ack(&wire.data(1, b"")).floor, 1);
    assert_eq!(wire.ask_ack(&based(&wire, 18, 18, b"base - 1 is 17, floor + window")).floor, 18);
    assert_eq!(seqs_and_gaps(&home, 3)[1], (17, Some(Gap { from: 2, to: 17 })));
}

#[test]
fn a_duplicate_too_tells_what_will_never_come() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xc7);
    let room = [0; 64];
    assert_eq!(wire.ask_ack(&wire.data(5, &room)).above, [5]);
    let ack = wire.ask_ack(&Data { attempt: 1, ..based(&wire, 5, 5, &room) });
    assert_eq!((ack.floor, ack.above), (5, vec![]));
    assert_eq!(wire.ask_ack(&wire.data(6, &room)).floor, 6);
    assert_eq!(seqs_and_gaps(&home, 3), [(5, None), (4, Some(Gap { from: 1, to: 4 })), (6, None)]);
    assert_eq!(lost_and_abandoned(&server), (4.0, 0.0));
}

#[test]
fn an_old_base_moves_nothing() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xc8);
    for seq in 1..=5 {
        wire.ask_ack(&based(&wire, seq, seq, b""));
    }
    // An old datagram comes late: its base lies far below the floor.
    assert_eq!(wire.ask_ack(&based(&wire, 3, 1, b"")).floor, 5);
    assert_eq!(wire.ask_ack(&based(&wire, 6, 2, b"")).floor, 6);
    assert_eq!(lost_and_abandoned(&server), (0.0, 0.0));
    assert_eq!(home.wait_lines(6).len(), 6);
}

#[test]
fn a_gap_is_not_counted_again_after_a_restart() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xc9);
    wire.ask_ack(&wire.data(1, b""));
    wire.ask_ack(&based(&wire, 5, 5, b""));
    home.wait_lines(3);
    server.kill();
    let server = home.serve();
    let wire = Wire::new(&server, 0xc9);
    assert_eq!(wire.ping().floor, 5, "the floor has passed the gap for good");
    assert_eq!(wire.ask_ack(&based(&wire, 6, 6, b"")).floor, 6);
    assert_eq!(seqs_and_gaps(&home, 4), [(1, None), (4, Some(Gap { from: 2, to: 4 })), (5, None), (6, None)]);
}
