//! How many may ask, and for how long an answer is kept.

use duragram_proto::codec::AnswerStatus::{Done, Gone, Pending};
use duragram_proto::codec::{Data, RejectCode};

use super::{CONFIG, Place};
use crate::common::wait_for;
use crate::common::wire::{Wire, refusal};

#[test]
fn without_room_for_one_more_an_ask_is_told_to_wait_and_all_else_is_taken() {
    let place = Place::with(&format!("{CONFIG}asks_max = 1\n"));
    let (first, second) = (place.wire(0xd1), place.wire(0xd2));
    place.ask_held(&first, 1, b"slow");
    for (wire, seq) in [(&second, 1), (&first, 2)] {
        let reject = wire.ask_reject(&wire.asking(seq, b"more"));
        assert_eq!(refusal(&reject), (RejectCode::Busy, seq));
        assert!(reject.retry_after_ms > 0);
    }
    assert_eq!(place.server.metric("duragram_sessions", ""), 1.0, "who is refused has no session");
    assert!(first.ask_ack(&Data { attempt: 1, ..first.asking(1, b"slow") }).duplicate);
    assert_eq!(first.ask_ack(&first.data(2, b"asks nothing")).floor, 2);
    assert_eq!(place.server.metric("duragram_asks_refused_total", ""), 2.0);
    place.service.release(b"slow");
    assert_eq!(first.taken(first.held(1, 0)).status, Done);
    assert_eq!(refusal(&second.ask_reject(&second.asking(1, b"more"))).0, RejectCode::Busy, "it is answered, not had");
    assert_eq!(first.taken(first.take(2, 0)).status, Gone);
    assert_eq!(second.ask_ack(&second.asking(1, b"more")).floor, 1);
    assert_eq!(second.taken(second.held(1, 0)).said(), (Done, "MORE".to_owned()));
}

#[test]
fn a_client_has_sixty_four_asks_and_a_newer_epoch_takes_the_room_of_the_oldest() {
    let place = Place::new();
    let old = place.wire(0xd3);
    place.service.hold(b"slow");
    for seq in 1..=64 {
        assert_eq!(old.ask_ack(&old.asking(seq, b"slow")).floor, seq);
    }
    assert_eq!(refusal(&old.ask_reject(&old.asking(65, b"slow"))), (RejectCode::Busy, 65));
    let new = Wire::in_epoch(&place.server, 0xd3, 2);
    assert_eq!(new.ask_ack(&new.asking(1, b"slow")).floor, 1);
    let pending = |wire: &Wire, seq: u64| wire.taken(wire.take(seq, u16::try_from(seq - 1).unwrap())).status;
    assert_eq!((pending(&old, 64), pending(&new, 1)), (Pending, Pending));
    let gone = (1..=64).filter(|&seq| pending(&old, seq) == Gone).count();
    assert_eq!(gone, 1, "one made room");
    let other = place.wire(0xd4);
    assert_eq!(other.ask_ack(&other.asking(1, b"slow")).floor, 1, "others have theirs");
    place.service.release(b"slow");
    assert_eq!(new.taken(new.held(1, 0)).status, Done);
}

#[test]
fn an_answer_that_nobody_takes_is_gone_after_its_time() {
    let place = Place::with("checkpoint_interval = \"10ms\"\nanswer_ttl = \"1s\"\n");
    let wire = place.wire(0xd5);
    wire.ask_ack(&wire.asking(1, b"open"));
    assert_eq!(wire.taken(wire.held(1, 0)).status, Done);
    wait_for("the answer to expire", || (wire.taken(wire.take(1, 0)).status == Gone).then_some(()));
    assert_eq!(place.server.metric("duragram_asks_expired_total", ""), 1.0);
    assert!(!wire.ping().ready);
}

#[test]
fn asks_end_with_their_session_and_a_seq_that_is_sent_again_asks_anew() {
    let place = Place::with("checkpoint_interval = \"10ms\"\nsession_ttl = \"1s\"\n");
    let wire = place.wire(0xd6);
    wire.ask_ack(&wire.asking(1, b"open"));
    wait_for("the session's end", || (place.server.metric("duragram_sessions", "") == 0.0).then_some(()));
    assert_eq!(wire.taken(wire.take(1, 0)).status, Gone);
    assert!(!wire.ask_ack(&wire.asking(1, b"again")).duplicate);
    assert_eq!(wire.taken(wire.held(1, 0)).said(), (Done, "AGAIN".to_owned()));
}

#[test]
fn takes_keep_their_session_alive() {
    let place = Place::with("checkpoint_interval = \"10ms\"\nsession_ttl = \"1s\"\n");
    let (wire, silent) = (place.wire(0xd7), place.wire(0xd8));
    place.ask_held(&wire, 1, b"slow");
    silent.ask_ack(&silent.data(1, b"and no more"));
    wait_for("the silent session's end", || {
        assert_eq!(wire.taken(wire.take(1, 0)).status, Pending);
        (place.server.metric("duragram_sessions", "") == 1.0).then_some(())
    });
    place.service.release(b"slow");
    assert_eq!(wire.taken(wire.held(1, 0)).status, Done);
}
