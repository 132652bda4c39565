//! What TAKE hears, and what it forgets.

use duragram_proto::codec::AnswerStatus::{Done, Failed, Gone, Pending};
use duragram_proto::codec::{Data, OPTION_ASK, Take};

use super::{CONFIG, Place};
use crate::common::wait_for;
use crate::common::wire::Wire;

#[test]
fn done_failed_and_an_empty_answer_are_told_as_often_as_they_are_taken() {
    let place = Place::new();
    let wire = place.wire(0xa1);
    for (seq, payload) in [(1, &b"open"[..]), (2, b"no such valve"), (3, b"none needed")] {
        assert_eq!(wire.ask_ack(&wire.asking(seq, payload)).floor, seq);
    }
    for _ in 0..3 {
        for (seq, status, body) in [(1, Done, "OPEN"), (2, Failed, ""), (3, Done, "")] {
            let answer = wire.taken(wire.held(seq, u16::try_from(seq - 1).unwrap()));
            assert_eq!(answer.said(), (status, body.to_owned()), "{seq}");
            assert_eq!((answer.client, answer.epoch, answer.seq), (wire.client, wire.epoch, seq));
            assert_eq!(answer.number as usize, body.len());
        }
    }
    assert_eq!(place.server.metric("duragram_replies_total", "answer"), 9.0);
}

#[test]
fn a_body_is_sent_whole_where_the_take_has_room_and_else_its_length_alone() {
    let place = Place::new();
    let wire = place.wire(0xa2);
    for (seq, bytes) in [(1, 1000_u32), (2, 1024)] {
        wire.ask_ack(&wire.asking(seq, format!("long {bytes}").as_bytes()));
        let span = u16::try_from(seq - 1).unwrap();
        let with_room = |room: u32| Take { room: room as usize, ..wire.held(seq, span) };
        for room in [0, 1, bytes - 1, bytes, bytes + 1] {
            let answer = wire.taken(with_room(room));
            let body = if room < bytes { 0 } else { bytes };
            assert_eq!((answer.status, answer.number, answer.body), (Done, bytes, vec![b'x'; body as usize]), "{room}");
        }
    }
}

#[test]
fn a_body_that_is_too_long_costs_the_record_nothing_and_is_counted() {
    let place = Place::with(&format!("{CONFIG}answer_bytes_max = 10\n"));
    let wire = place.wire(0xa3);
    for (seq, payload, body) in [(1, "long 11", 0), (2, "long 10", 10)] {
        wire.ask_ack(&wire.asking(seq, payload.as_bytes()));
        let answer = wire.taken(wire.held(seq, u16::try_from(seq - 1).unwrap()));
        assert_eq!((answer.status, answer.number, answer.body.len()), (Done, body, body as usize));
    }
    assert_eq!(place.server.metric("duragram_answers_too_long_total", ""), 1.0);
    assert_eq!(place.server.metric("duragram_dead_letters", ""), 0.0);
}

#[test]
fn take_of_what_never_asked_or_was_never_sent_is_gone_and_opens_no_session() {
    let place = Place::new();
    let wire = place.wire(0xa4);
    assert_eq!(wire.taken(wire.held(1, 0)).said(), (Gone, String::new()), "an unknown session");
    assert_eq!(place.server.metric("duragram_sessions", ""), 0.0);
    assert_eq!(wire.ask_ack(&wire.data(1, b"asks nothing")).floor, 1);
    for seq in [1, 2, u64::MAX] {
        let answer = wire.taken(wire.held(seq, 0));
        assert_eq!((answer.status, answer.number, answer.seq), (Gone, 0, seq));
    }
}

#[test]
fn take_forgets_what_is_had_and_what_is_had_stays_forgotten_though_the_message_comes_again() {
    let place = Place::new();
    let wire = place.wire(0xa5);
    for seq in 1..=3 {
        wire.ask_ack(&wire.asking(seq, format!("order {seq}").as_bytes()));
    }
    let said = |seq, span| wire.taken(wire.held(seq, span)).said();
    assert_eq!(said(3, 2), (Done, "ORDER 3".to_owned()), "all are wanted");
    assert_eq!(said(1, 0), (Done, "ORDER 1".to_owned()));
    assert_eq!(said(2, 0), (Done, "ORDER 2".to_owned()), "1 is had");
    assert_eq!(said(1, 0).0, Gone);
    let again = wire.ask_ack(&Data { attempt: 1, ..wire.asking(1, b"order 1") });
    assert!(again.duplicate, "{again:?}");
    assert_eq!(said(1, 0).0, Gone, "a duplicate asks nothing anew");
    assert_eq!(said(4, 1).0, Gone, "of the seq after the last: 3 is kept");
    assert_eq!(said(3, 0).0, Done);
    assert_eq!(said(4, 0).0, Gone);
    assert_eq!(said(3, 0).0, Gone);
    assert_eq!(place.service.requests().len(), 3, "each was processed once");
    assert_eq!(place.server.metric("duragram_asks_taken_total", ""), 3.0);
}

#[test]
fn acks_say_ready_while_an_answer_waits() {
    let place = Place::new();
    let wire = place.wire(0xa6);
    place.ask_held(&wire, 1, b"slow");
    assert!(!wire.ping().ready, "it is not answered");
    place.service.release(b"slow");
    wait_for("READY", || wire.ping().ready.then_some(()));
    assert!(wire.ask_ack(&wire.data(2, b"asks nothing")).ready, "the ack of another message says so too");
    assert!(!place.wire(0xa7).ping().ready, "of this session alone");
    assert_eq!(wire.taken(wire.take(3, 0)).status, Gone);
    assert!(!wire.ping().ready, "it is had");
}

#[test]
fn pending_without_a_hold_says_when_to_ask_again() {
    let place = Place::new();
    let wire = place.wire(0xa8);
    place.ask_held(&wire, 1, b"slow");
    let answer = wire.taken(wire.take(1, 0));
    assert_eq!((answer.status, answer.body.len()), (Pending, 0));
    assert!(answer.number >= 1_000, "{answer:?}");
}

#[test]
fn a_retransmission_that_asks_late_or_no_more_changes_nothing() {
    let place = Place::new();
    let wire = place.wire(0xa9);
    wire.ask_ack(&wire.data(1, b"asks nothing"));
    let again = Data { attempt: 1, options: OPTION_ASK, ..wire.data(1, b"asks nothing") };
    assert!(wire.ask_ack(&again).duplicate);
    assert_eq!(wire.taken(wire.held(1, 0)).status, Gone);
    wire.ask_ack(&wire.asking(2, b"asks"));
    assert!(wire.ask_ack(&Data { attempt: 1, ..wire.data(2, b"asks") }).duplicate);
    assert_eq!(wire.taken(wire.held(2, 0)).said(), (Done, "ASKS".to_owned()));
}

#[test]
fn each_client_and_each_epoch_takes_its_own_answers() {
    let place = Place::new();
    let wires = [(1, 1), (1, 2), (2, 1)].map(|(client, epoch)| Wire::in_epoch(&place.server, client, epoch));
    for (n, wire) in wires.iter().enumerate() {
        wire.ask_ack(&wire.asking(1, format!("of {n}").as_bytes()));
    }
    for (n, wire) in wires.iter().enumerate() {
        assert_eq!(wire.taken(wire.held(1, 0)).said(), (Done, format!("OF {n}")));
    }
}
