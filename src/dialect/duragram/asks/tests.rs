//! The rules of asks by example: who may ask, what TAKE hears and when, and what a crash leaves.

mod bounds;
mod holds;
mod operator;
mod property;
mod restarts;
mod rig;
mod sealed;

use duragram_proto::codec::RejectCode;
use duragram_proto::codec::{Data, Datagram};

use super::*;
use crate::dialect::Dialect as _;
use crate::dialect::duragram::AsksOf;
use crate::model::{Offset, Processed};
use rig::{Config, Rig, Said, ask, ask_at, data, encode, id, ping, session, take, take_with, waiting};

const BUSY: Said = Said::Reject(RejectCode::Busy);

fn acked(floor: u64) -> Said {
    Said::Ack { floor, ready: false }
}

fn ready(floor: u64) -> Said {
    Said::Ack { floor, ready: true }
}

fn done(seq: u64, body: &[u8]) -> Said {
    Said::Done(seq, u32::try_from(body.len()).unwrap(), body.to_vec())
}

/// A server at which client 1 has asked in seq 1, the journal's first entry.
fn asked() -> Rig {
    let mut rig = Rig::new();
    assert_eq!(rig.tell(&ask(1, 1)), [acked(1)]);
    rig
}

fn answered(body: &[u8]) -> Rig {
    let mut rig = asked();
    rig.answer(id(1, 1), Offset(0), body);
    rig.commit();
    assert_eq!(rig.said(), []);
    rig
}

#[test]
fn what_was_answered_is_told_as_often_as_it_is_taken() {
    let mut rig = asked();
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Pending(1, 1_000)]);
    rig.answer(id(1, 1), Offset(0), b"valve: open");
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"valve: open")]);
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"valve: open")]);
}

#[test]
fn an_ask_that_was_given_up_has_failed() {
    let mut rig = asked();
    rig.fail(id(1, 1), Offset(0));
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Failed(1, 0, vec![])]);
}

#[test]
fn pending_is_said_only_when_the_entry_is_durable() {
    let mut rig = Rig::new();
    rig.tell(&data(1, 1));
    rig.send(1, &ask(1, 2));
    rig.send(1, &take(1, 2, 0));
    rig.close();
    rig.send(1, &take(1, 2, 0));
    rig.close();
    assert_eq!((rig.said(), rig.in_flight()), (vec![], 1));
    rig.land();
    assert_eq!(rig.said(), [acked(2), Said::Pending(2, 1_000), Said::Pending(2, 1_000)]);
}

#[test]
fn an_answer_is_told_only_when_it_is_durable() {
    let mut rig = asked();
    rig.send(1, &waiting(1, 1, 0));
    rig.answer(id(1, 1), Offset(0), b"done");
    rig.close();
    rig.send(2, &take(1, 1, 0));
    rig.send(2, &data(2, 1));
    rig.close();
    rig.send(3, &take(1, 1, 0));
    rig.close();
    assert_eq!((rig.replies(), rig.in_flight()), (vec![], 2));
    rig.land();
    assert_eq!(rig.replies(), [(1, done(1, b"done"))]);
    rig.send(4, &take(1, 1, 0));
    rig.close();
    assert_eq!(rig.replies(), [(4, done(1, b"done"))], "what has landed is told at once");
    rig.land();
    assert_eq!(rig.replies(), [(2, acked(1)), (2, done(1, b"done")), (3, done(1, b"done"))]);
}

#[test]
fn the_first_answer_stands() {
    let mut rig = asked();
    rig.answer(id(1, 1), Offset(0), b"first");
    rig.fail(id(1, 1), Offset(0));
    rig.commit();
    rig.answer(id(1, 1), Offset(0), b"second");
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"first")]);
}

#[test]
fn an_answer_to_another_entry_of_the_same_name_is_nothing() {
    let mut rig = asked();
    rig.answer(id(1, 1), Offset(7), b"of another");
    rig.answer(id(1, 2), Offset(0), b"nobody has asked");
    rig.answer(id(2, 1), Offset(0), b"nobody has asked");
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Pending(1, 1_000)]);
}

#[test]
fn what_was_forgotten_stays_forgotten_whatever_is_processed_again() {
    let mut rig = answered(b"had");
    rig.tell(&ask(1, 2));
    assert_eq!(rig.tell(&take(1, 2, 0)), [Said::Pending(2, 1_000)]);
    rig.answer(id(1, 1), Offset(0), b"again");
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
}

#[test]
fn a_duplicate_is_acked_and_makes_no_ask() {
    let mut rig = answered(b"had");
    rig.tell(&take(1, 2, 0));
    assert_eq!(rig.tell(&ask(1, 1)), [acked(1)]);
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
    assert_eq!(rig.next_offset(), Offset(1));
}

#[test]
fn a_message_that_did_not_ask_is_gone() {
    let mut rig = Rig::new();
    rig.tell(&data(1, 1));
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
}

#[test]
fn take_in_an_unknown_session_hears_gone_and_opens_none() {
    let mut rig = Rig::new();
    assert_eq!(rig.tell(&waiting(1, 1, 0)), [Said::Gone(1)]);
    assert_eq!(rig.dialect.sessions(), 0);
}

#[test]
fn take_forgets_what_lies_below_its_span_and_nothing_else() {
    let mut rig = Rig::new();
    for seq in 1..=5 {
        rig.tell(&ask(1, seq));
        rig.answer(id(1, seq), Offset(seq - 1), b"");
    }
    rig.tell(&ask(2, 1));
    rig.tell(&ask_at(crate::model::AskId { session: session(1, 2), ..id(1, 1) }, 0));
    // 3 is wanted still.
    assert_eq!(rig.tell(&take(1, 4, 1)), [done(4, b"")]);
    for (seq, said) in [(1, Said::Gone(1)), (2, Said::Gone(2)), (3, done(3, b"")), (5, done(5, b""))] {
        assert_eq!(rig.tell(&take(1, seq, u16::try_from(seq - 1).unwrap())), [said]);
    }
    assert_eq!(rig.tell(&take(2, 1, 0)), [Said::Pending(1, 1_000)], "another client's");
    assert_eq!(rig.metrics.asks_taken.get(), 2);
    assert_eq!((rig.dialect.asks.len(), rig.dialect.asks.open_len()), (5, 2));
}

#[test]
fn a_body_that_does_not_fit_into_the_length_of_the_take_is_left_out_whole() {
    let mut rig = answered(&[7; 100]);
    for room in [0, 1, 99, 100, 101] {
        let said = rig.tell(&encode(&take_with(id(1, 1), 0, 0, room)));
        assert_eq!(said, [Said::Done(1, 100, if room < 100 { vec![] } else { vec![7; 100] })], "{room}");
    }
}

#[test]
fn a_body_that_is_longer_than_the_configured_maximum_is_not_kept() {
    let asks = AskConfig { answer_bytes_max: 10, ..AskConfig::default() };
    let mut rig = Rig::with(Config { asks, ..Config::default() });
    rig.tell(&ask(1, 1));
    rig.answer(id(1, 1), Offset(0), &[7; 11]);
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"")]);
}

#[test]
fn acks_say_ready_while_an_answer_waits_and_not_before_it_is_durable() {
    let mut rig = asked();
    rig.answer(id(1, 1), Offset(0), b"");
    rig.send(1, &ping(1));
    rig.close();
    assert_eq!(rig.said(), []);
    rig.land();
    assert_eq!(rig.said(), [ready(1)]);
    assert_eq!(rig.tell(&ping(1)), [ready(1)]);
    assert_eq!(rig.tell(&data(2, 1)), [acked(1)], "another session's");
    rig.tell(&take(1, 2, 0));
    assert_eq!(rig.tell(&ping(1)), [acked(1)], "it was had");
}

#[test]
fn all_that_is_open_below_what_all_have_processed_is_done() {
    let mut rig = Rig::new();
    for seq in 1..=3 {
        rig.tell(&ask(1, seq));
    }
    rig.answer(id(1, 1), Offset(0), b"said so");
    rig.processed(Processed::ByAll(Offset(2)));
    rig.commit();
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"said so")]);
    assert_eq!(rig.tell(&take(1, 2, 1)), [done(2, b"")]);
    assert_eq!(rig.tell(&take(1, 3, 2)), [Said::Pending(3, 1_000)]);
}

#[test]
fn what_is_open_below_the_sink_that_answers_is_gone_and_who_waits_hears_it() {
    let mut rig = Rig::new();
    for seq in 1..=2 {
        rig.tell(&ask(1, seq));
        rig.send(u16::try_from(seq).unwrap(), &waiting(1, seq, 1.min(u16::try_from(seq - 1).unwrap())));
    }
    rig.processed(Processed::Passed(Offset(1)));
    rig.commit();
    assert_eq!(rig.replies(), [(1, Said::Gone(1))]);
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
    rig.answer(id(1, 1), Offset(0), b"too late");
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
    assert_eq!((rig.dialect.asks.open_len(), rig.metrics.asks_expired.get()), (1, 1));
}

#[test]
fn asks_end_with_their_session() {
    let mut rig = Rig::with(Config { session_ttl_s: 100, ..Config::default() });
    rig.tell(&ask(1, 1));
    rig.checkpoint();
    // It is heard by its TAKEs alone.
    for _ in 0..4 {
        rig.advance_ms(90_000);
        assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Pending(1, 1_000)]);
        rig.checkpoint();
    }
    rig.advance_ms(101_000);
    rig.checkpoint();
    assert_eq!((rig.dialect.sessions(), rig.dialect.asks.len()), (0, 0));
    rig.answer(id(1, 1), Offset(0), b"too late");
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
    assert_eq!(rig.tell(&ask(1, 1)), [acked(1)], "the seq asks anew");
    rig.answer(id(1, 1), Offset(0), b"of the first");
    rig.answer(id(1, 1), Offset(1), b"of the second");
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"of the second")]);
}

#[test]
fn an_answer_that_nobody_takes_is_forgotten_after_its_time_and_an_open_ask_is_not() {
    let asks = AskConfig { answer_ttl_s: 60, ..AskConfig::default() };
    let mut rig = Rig::with(Config { asks, ..Config::default() });
    rig.tell(&ask(1, 1));
    rig.tell(&ask(1, 2));
    rig.advance_ms(100_000);
    rig.answer(id(1, 1), Offset(0), b"");
    rig.checkpoint();
    rig.advance_ms(60_000);
    rig.checkpoint();
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"")]);
    rig.advance_ms(2_000);
    rig.checkpoint();
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
    assert_eq!(rig.tell(&take(1, 2, 0)), [Said::Pending(2, 1_000)]);
    assert!(rig.record(id(1, 1)).is_none(), "nor does the journal keep it");
}

#[test]
fn nobody_asks_or_takes_where_the_extension_is_off() {
    let mut rig = Rig::new();
    let batch = encode(&Datagram::Data(Data {
        options: 3,
        ..Data::whole(id(1, 1).session.client, id(1, 1).session.epoch, id(1, 1).seq, 0, b"")
    }));
    assert_eq!(rig.tell(&batch), [Said::Reject(RejectCode::Unsupported)], "an option that nobody knows");
    for asks in [AsksOf::Nobody, AsksOf::Sealed] {
        rig.admission_config.asks = asks;
        rig.admit_anew();
        assert_eq!(rig.tell(&ask(1, 1)), [Said::Reject(RejectCode::Unsupported)]);
        assert_eq!(rig.tell(&take(1, 1, 0)), []);
    }
    let dropped = rig.metrics.datagrams.get_or_create(&crate::metrics::Outcome { outcome: "unknown_type" }).get();
    assert_eq!((dropped, rig.dialect.sessions()), (2, 0));
}

#[test]
fn a_take_that_is_longer_than_any_datagram_may_be_is_dropped() {
    let mut rig = answered(b"");
    assert_eq!(rig.tell(&encode(&take_with(id(1, 1), 0, 0, 1472 - 32))), [done(1, b"")]);
    assert_eq!(rig.tell(&encode(&take_with(id(1, 1), 0, 0, 1472 - 31))), []);
}
