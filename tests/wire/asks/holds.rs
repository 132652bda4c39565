//! TAKEs that are held: until when, how many, and where their answers go.

use std::time::{Duration, Instant};

use duragram_proto::codec::AnswerStatus::{Done, Gone, Pending};
use duragram_proto::codec::Take;

use super::Place;
use crate::common::wait_for;
use crate::common::wire::Is;

#[test]
fn a_held_take_is_released_by_the_answer() {
    let place = Place::new();
    let wire = place.wire(0xb1);
    place.ask_held(&wire, 1, b"slow");
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    wait_for("the hold to be counted", || (place.server.metric("duragram_takes_held", "") == 1.0).then_some(()));
    place.service.release(b"slow");
    assert_eq!(wire.answer().said(), (Done, "SLOW".to_owned()));
    wire.assert_silence();
}

#[test]
fn a_held_take_ends_with_pending_after_its_time_and_may_be_sent_again_at_once() {
    let place = Place::new();
    let wire = place.wire(0xb2);
    place.ask_held(&wire, 1, b"slow");
    let began = Instant::now();
    let answer = wire.taken(Take { wait_ms: 300, ..wire.take(1, 0) });
    assert_eq!((answer.status, answer.number), (Pending, 0));
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    place.service.release(b"slow");
    assert_eq!(wire.answer().said(), (Done, "SLOW".to_owned()));
}

#[test]
fn a_newer_take_ends_the_hold_in_silence_and_has_the_answer() {
    let place = Place::new();
    let mut wire = place.wire(0xb3);
    place.ask_held(&wire, 1, b"slow");
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    // Behind a NAT that has forgotten the way.
    let old = wire.rebind();
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    place.service.release(b"slow");
    assert_eq!(wire.answer().status, Done);
    old.set_nonblocking(true).unwrap();
    assert!(old.recv(&mut [0; 100]).is_err(), "one TAKE, one ANSWER");
    wire.assert_silence();
}

#[test]
fn no_later_datagram_moves_the_answer_of_a_held_take() {
    let place = Place::new();
    let mut wire = place.wire(0xb4);
    place.ask_held(&wire, 1, b"slow");
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    let old = wire.rebind();
    assert_eq!(wire.ping().floor, 1);
    assert_eq!(wire.ask_ack(&wire.data(2, b"from elsewhere")).floor, 2);
    place.service.release(b"slow");
    let mut buffer = [0; 200];
    old.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    let len = old.recv(&mut buffer).expect("the ANSWER where the TAKE came from");
    let Is::Answer(answer) = crate::common::wire::Reply::parse(&buffer[..len]).is else { panic!("not an ANSWER") };
    assert_eq!(answer.status, Done);
    wire.assert_silence();
}

#[test]
fn a_hold_ends_with_what_it_waits_for() {
    let place = Place::new();
    let wire = place.wire(0xb5);
    place.ask_held(&wire, 1, b"slow");
    wire.send_take(wire.held(1, 0));
    wire.assert_silence_so_far();
    // The client says itself that it does not want it any more.
    let answers = {
        wire.send_take(wire.take(2, 0));
        [wire.answer(), wire.answer()]
    };
    let mut said = answers.map(|answer| (answer.seq, answer.status));
    said.sort_by_key(|(seq, _)| *seq);
    assert_eq!(said, [(1, Gone), (2, Gone)]);
    place.service.release(b"slow");
    wait_for("the record's end", || (place.server.metric("duragram_asks_open", "") == 0.0).then_some(()));
    assert_eq!(wire.taken(wire.take(1, 0)).status, Gone);
}

#[test]
fn sixteen_takes_of_a_session_are_held_and_more_are_pending_at_once() {
    let place = Place::new();
    let wire = place.wire(0xb6);
    for seq in 1..=17 {
        place.ask_held(&wire, seq, format!("slow {seq}").as_bytes());
    }
    let span = |seq: u64| u16::try_from(seq - 1).unwrap();
    for seq in 1..=16 {
        wire.send_take(wire.held(seq, span(seq)));
    }
    wire.assert_silence_so_far();
    let answer = wire.taken(wire.held(17, span(17)));
    assert_eq!((answer.seq, answer.status), (17, Pending));
    assert!(answer.number >= 1_000, "{answer:?}");
    for seq in 1..=17 {
        place.service.release(format!("slow {seq}").as_bytes());
    }
    let mut answered: Vec<u64> = (0..16).map(|_| wire.answer()).map(|answer| answer.seq).collect();
    answered.sort_unstable();
    assert_eq!(answered, (1..=16).collect::<Vec<_>>());
    assert_eq!(wire.taken(wire.held(17, span(17))).said(), (Done, "SLOW 17".to_owned()));
}
