//! Sealed asks: whose they are, where ANSWERs go, and what a recording can do.

use super::rig::{seal, sealed_ask};
use super::*;
use crate::limits;
use crate::model::AskId;

fn sealed_id(seq: u64) -> AskId {
    AskId { session: session(1, 5), ..id(1, seq) }
}

fn sealed_take(seq: u64, span: u16, wait_ms: u32, counter: u64) -> Vec<u8> {
    seal(&take_with(sealed_id(seq), span, wait_ms, 100), session(1, 5), counter)
}

/// A server at which client 1 has asked sealed in seq 1, with counter 10.
fn asked_sealed() -> Rig {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&sealed_ask(sealed_id(1), 10)), [acked(1)]);
    rig
}

#[test]
fn a_sealed_ask_is_answered_sealed() {
    let mut rig = asked_sealed();
    rig.answer(sealed_id(1), Offset(0), b"secret");
    rig.send(1, &sealed_take(1, 0, 0, 11));
    rig.commit();
    let sent = rig.sent();
    assert!(!sent[0].1.windows(6).any(|bytes| bytes == b"secret"), "its body is encrypted");
    assert_eq!(rig.tell(&sealed_take(1, 0, 0, 12)), [done(1, b"secret")]);
}

#[test]
fn a_plain_take_of_a_sealed_clients_answer_is_refused_and_forgets_nothing() {
    let mut rig = asked_sealed();
    rig.answer(sealed_id(1), Offset(0), b"secret");
    rig.commit();
    let forged = encode(&take_with(sealed_id(9), 0, 0, 100));
    rig.send(1, &forged);
    rig.commit();
    assert_eq!(rig.said(), [Said::Reject(RejectCode::SealedOnly)]);
    assert_eq!(rig.tell(&sealed_take(1, 0, 0, 12)), [done(1, b"secret")]);
}

#[test]
fn a_sealed_take_in_a_plain_session_or_in_none_hears_gone() {
    let mut rig = Rig::with(Config { sealed: true, ..Config::default() });
    rig.commit();
    assert_eq!(
        rig.tell(&ask_at(AskId { session: session(2, 1), ..id(2, 1) }, 0)),
        [Said::Reject(RejectCode::SealedOnly)]
    );
    assert_eq!(rig.tell(&ask(3, 1)), [acked(1)], "a client without a key");
    assert_eq!(rig.tell(&sealed_take(1, 0, 5_000, 1)), [Said::Gone(1)]);
}

#[test]
fn an_answer_goes_where_the_datagram_with_the_highest_counter_came_from() {
    let mut rig = asked_sealed();
    rig.answer(sealed_id(1), Offset(0), b"here");
    rig.commit();
    rig.send(7, &sealed_take(1, 0, 0, 20));
    rig.send(8, &sealed_take(1, 0, 0, 15));
    rig.commit();
    assert_eq!(rig.replies(), [(7, done(1, b"here")), (7, done(1, b"here"))]);
}

#[test]
fn no_later_datagram_moves_a_held_take() {
    let mut rig = asked_sealed();
    rig.send(7, &sealed_take(1, 0, 5_000, 20));
    rig.tell(&sealed_ask(sealed_id(2), 21));
    rig.answer(sealed_id(1), Offset(0), b"here");
    rig.commit();
    assert_eq!(rig.replies(), [(7, done(1, b"here"))]);
}

#[test]
fn a_recorded_take_is_not_held_and_replaces_none() {
    let mut rig = asked_sealed();
    let recorded = sealed_take(1, 0, 20_000, 20);
    rig.send(7, &recorded);
    rig.send(7, &sealed_take(1, 0, 5_000, 21));
    rig.send(9, &recorded);
    rig.commit();
    assert_eq!(rig.replies(), [(7, Said::Pending(1, 1_000))], "to the client's own address");
    rig.answer(sealed_id(1), Offset(0), b"here");
    rig.commit();
    assert_eq!(rig.replies(), [(7, done(1, b"here"))]);
}

#[test]
fn a_recorded_take_forgets_nothing_new() {
    let mut rig = asked_sealed();
    for seq in 2..=3 {
        rig.tell(&sealed_ask(sealed_id(seq), 10 + seq));
    }
    let recorded = sealed_take(2, 0, 0, 20);
    assert_eq!(rig.tell(&recorded), [Said::Pending(2, 1_000)]);
    for _ in 0..3 {
        assert_eq!(rig.tell(&recorded), [Said::Pending(2, 1_000)]);
    }
    assert_eq!(rig.dialect.asks.len(), 2);
}

#[test]
fn a_take_moves_the_address_of_the_ack_that_its_session_waits_for() {
    let mut rig = asked_sealed();
    rig.send(1, &sealed_ask(sealed_id(2), 20));
    rig.send(7, &sealed_take(1, 0, 0, 21));
    rig.commit();
    assert_eq!(rig.replies(), [(7, Said::Pending(1, 1_000)), (7, acked(2))]);
}

#[test]
fn plain_asks_get_no_more_than_half_where_there_are_keys() {
    let asks = AskConfig { asks_max: 4, ..AskConfig::default() };
    let mut rig = Rig::with(Config { asks, sealed: true, ..Config::default() });
    rig.commit();
    assert_eq!(rig.tell(&ask(3, 1)), [acked(1)]);
    assert_eq!(rig.tell(&ask(4, 1)), [acked(1)]);
    assert_eq!(rig.tell(&ask(5, 1)), [BUSY]);
    let mut rig = rig.crash();
    assert_eq!(rig.tell(&ask(5, 1)), [BUSY], "after a crash too");
    assert_eq!(rig.tell(&sealed_ask(sealed_id(1), 1)), [acked(1)]);
    assert_eq!(rig.tell(&sealed_ask(sealed_id(2), 2)), [acked(2)]);
    assert_eq!(rig.tell(&sealed_ask(sealed_id(3), 3)), [BUSY]);
}

#[test]
fn asks_end_with_a_sealed_session_that_had_to_give_way() {
    let mut rig = Rig::sealed();
    let epochs = u32::try_from(limits::SEALED_SESSIONS_PER_CLIENT).unwrap();
    let in_epoch = |epoch| AskId { session: session(1, epoch), ..id(1, 1) };
    for epoch in 1..=epochs {
        rig.tell(&sealed_ask(in_epoch(epoch), u64::from(epoch)));
    }
    rig.checkpoint();
    rig.answer(in_epoch(1), Offset(0), b"");
    let plain = duragram_proto::codec::Data {
        options: 0,
        ..Data::whole(id(1, 1).session.client, session(1, epochs + 1).epoch, id(1, 1).seq, 0, b"")
    };
    rig.tell(&seal(&Datagram::Data(plain), session(1, epochs + 1), 1));
    assert_eq!(rig.dialect.asks.len(), epochs as usize - 1);
    rig.checkpoint();
    assert!(rig.record(in_epoch(1)).is_none());
}

#[test]
fn plain_asks_which_anybody_can_forge_keep_no_sealed_client_from_asking() {
    let mut rig = Rig::sealed();
    // A client that seals with the network's key has no key of its own, for which plain datagrams would be refused.
    let keys = std::mem::replace(&mut rig.admission_config.keys, crate::keys::KeyRing::none());
    rig.admit_anew();
    for seq in 1..=64 {
        let forged = AskId { session: session(1, u32::MAX), ..id(1, seq) };
        assert_eq!(rig.tell(&ask_at(forged, 0)), [acked(seq)]);
    }
    rig.admission_config.keys = keys;
    rig.admit_anew();
    for seq in 1..=64 {
        assert_eq!(rig.tell(&sealed_ask(sealed_id(seq), seq)), [acked(seq)]);
    }
    assert_eq!(rig.tell(&sealed_ask(sealed_id(65), 65)), [BUSY], "its own give way to none of the same epoch");
}
