//! A TAKE is held until its answer is there, or time or room runs out.

use std::net::SocketAddr;

use super::*;
use crate::limits;
use crate::model::Peer;

#[test]
fn a_held_take_is_answered_when_the_answer_is_durable() {
    let mut rig = asked();
    assert_eq!(rig.tell(&waiting(1, 1, 0)), []);
    rig.advance_ms(4_999);
    rig.answer(id(1, 1), Offset(0), b"here");
    rig.close();
    assert_eq!(rig.said(), []);
    rig.land();
    assert_eq!(rig.replies(), [(1, done(1, b"here"))]);
    rig.advance_ms(60_000);
    rig.commit();
    assert_eq!(rig.replies(), [], "one TAKE draws one ANSWER");
}

#[test]
fn a_hold_ends_with_pending_after_the_time_that_the_take_names() {
    let mut rig = asked();
    assert_eq!(rig.tell(&waiting(1, 1, 0)), []);
    rig.advance_ms(4_999);
    rig.commit();
    assert_eq!(rig.replies(), []);
    rig.advance_ms(1);
    rig.commit();
    assert_eq!(rig.replies(), [(1, Said::Pending(1, 0))]);
    rig.answer(id(1, 1), Offset(0), b"here");
    rig.commit();
    assert_eq!(rig.replies(), [], "its voucher is spent");
}

#[test]
fn no_take_is_held_for_longer_than_twenty_seconds() {
    let mut rig = asked();
    assert_eq!(rig.tell(&encode(&take_with(id(1, 1), 0, u32::MAX, 0))), []);
    rig.advance_ms(19_999);
    rig.commit();
    assert_eq!(rig.said(), []);
    rig.advance_ms(1);
    rig.commit();
    assert_eq!(rig.said(), [Said::Pending(1, 0)]);
}

#[test]
fn a_hold_that_ends_before_the_entry_is_durable_is_answered_after_it() {
    let mut rig = Rig::new();
    rig.tell(&data(1, 1));
    rig.send(1, &ask(1, 2));
    rig.send(1, &encode(&take_with(id(1, 2), 0, 10, 0)));
    rig.close();
    rig.advance_ms(10);
    rig.close();
    assert_eq!(rig.said(), []);
    rig.land();
    assert_eq!(rig.said(), [acked(2), Said::Pending(2, 0)]);
}

#[test]
fn holds_end_in_the_order_of_their_times() {
    let mut rig = Rig::new();
    for (seq, wait_ms) in [(1, 3_000), (2, 1_000), (3, 2_000)] {
        rig.tell(&ask(1, seq));
        rig.send(1, &encode(&take_with(id(1, seq), u16::try_from(seq - 1).unwrap(), wait_ms, 0)));
    }
    for seq in [2, 3, 1] {
        rig.advance_ms(1_000);
        rig.commit();
        assert_eq!(rig.said(), [Said::Pending(seq, 0)]);
    }
}

#[test]
fn a_newer_take_of_the_seq_replaces_the_held_one_in_silence() {
    let mut rig = asked();
    rig.send(1, &waiting(1, 1, 0));
    rig.send(2, &waiting(1, 1, 0));
    rig.answer(id(1, 1), Offset(0), b"here");
    rig.commit();
    assert_eq!(rig.replies(), [(2, done(1, b"here"))]);

    let mut rig = asked();
    rig.send(1, &waiting(1, 1, 0));
    rig.send(2, &take(1, 1, 0));
    rig.commit();
    assert_eq!(rig.replies(), [(2, Said::Pending(1, 1_000))]);
    rig.answer(id(1, 1), Offset(0), b"here");
    rig.commit();
    assert_eq!(rig.replies(), []);
}

#[test]
fn a_session_has_sixteen_takes_held_and_the_next_is_answered_at_once() {
    let mut rig = Rig::new();
    for seq in 1..=17 {
        rig.tell(&ask(1, seq));
    }
    for seq in 1..=17 {
        let said = rig.tell(&waiting(1, seq, u16::try_from(seq - 1).unwrap()));
        assert_eq!(said, if seq <= 16 { vec![] } else { vec![Said::Pending(17, 1_000)] });
    }
    // A newer one of the same seq needs no further place.
    assert_eq!(rig.tell(&waiting(1, 16, 15)), []);
    rig.answer(id(1, 1), Offset(0), b"");
    rig.commit();
    assert_eq!(rig.said(), [done(1, b"")]);
    assert_eq!(rig.tell(&waiting(1, 17, 16)), [], "a place is free again");
}

#[test]
fn a_source_of_plain_takes_has_so_many_held_and_others_have_theirs() {
    let mut rig = Rig::new();
    let from = |host: u8| Peer::new(SocketAddr::from(([10, 0, 0, host], 5)), 0);
    let clients = limits::HELD_TAKES_PER_SOURCE as u64 + 1;
    for client in 1..=clients {
        rig.send_from(from(1), &ask(client, 1));
    }
    rig.commit();
    rig.said();
    for client in 1..=clients {
        rig.send_from(from(1), &waiting(client, 1, 0));
    }
    rig.commit();
    assert_eq!(rig.said(), [Said::Pending(1, 1_000)]);
    rig.send_from(from(2), &waiting(clients, 1, 0));
    rig.commit();
    assert_eq!(rig.said(), []);
    rig.advance_ms(5_000);
    rig.commit();
    assert_eq!(rig.said().len() as u64, clients);
    assert_eq!(rig.dialect.held.len(), 0);
}

#[test]
fn who_waits_for_an_ask_that_ends_hears_that_no_answer_comes() {
    let mut rig = asked();
    rig.tell(&ask(1, 2));
    rig.send(1, &waiting(1, 1, 0));
    // Whoever takes 2 wants 1 no more.
    rig.send(2, &take(1, 2, 0));
    rig.commit();
    assert_eq!(rig.replies(), [(1, Said::Gone(1)), (2, Said::Pending(2, 1_000))]);
    assert_eq!(rig.dialect.held.len(), 0);
}
