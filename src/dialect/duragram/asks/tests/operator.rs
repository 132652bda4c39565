//! What an operator sees of asks, and has forgotten.

use duragram_proto::{ClientId, Seq};

use super::*;
use crate::limits;
use crate::model::{AskId, AskState, AsksReport, AsksRequest, ClientAsks};

fn wants(rig: &mut Rig, request: AsksRequest) -> AsksReport {
    let now = rig.now();
    rig.dialect.tell_of_asks(request, now)
}

fn forget(rig: &mut Rig, client: u64) -> AsksReport {
    wants(rig, AsksRequest::Forget(ClientId(client)))
}

#[test]
fn what_an_operator_has_forgotten_stays_forgotten_after_a_crash_though_nothing_else_is_written() {
    for checkpoint in [false, true] {
        let mut rig = answered(b"never taken");
        rig.tell(&ask(1, 2));
        rig.tell(&ask_at(AskId { session: session(1, 2), ..id(1, 1) }, 0));
        rig.tell(&ask(2, 1));
        if checkpoint {
            rig.checkpoint();
        }
        let told = forget(&mut rig, 1);
        let seen: Vec<_> =
            told.asks.iter().map(|ask| (ask.id.session.epoch.value(), ask.id.seq.0, ask.state)).collect();
        assert_eq!(seen, [(1, 1, AskState::Done(11)), (1, 2, AskState::Open), (2, 1, AskState::Open)]);
        assert_eq!((told.totals.open, told.totals.answered, told.totals.plain), (1, 0, 1), "client 2 keeps its own");
        rig.close();
        assert_eq!(rig.in_flight(), 1, "it is written at once: the operator waits for it");
        rig.land();
        assert_eq!(rig.metrics.asks_forgotten.get(), 3);
        let mut rig = rig.crash();
        assert_eq!(rig.dialect.asks.len(), 1);
        rig.answer(id(1, 2), Offset(1), b"processed all the same");
        assert_eq!(rig.tell(&take(1, 2, 1)), [Said::Gone(2)]);
        assert_eq!(rig.tell(&ping(1)), [acked(2)], "nothing is ready");
        assert_eq!(rig.tell(&take(2, 1, 0)), [Said::Pending(1, 1_000)]);
    }
}

#[test]
fn who_waits_for_what_is_forgotten_hears_that_it_is_gone_and_there_is_room_again() {
    let mut rig = Rig::with_room_for(1);
    rig.tell(&ask(1, 1));
    assert_eq!(rig.tell(&waiting(1, 1, 0)), []);
    assert_eq!(rig.tell(&ask(2, 1)), [BUSY]);
    assert_eq!(forget(&mut rig, 1).totals.held_takes, 0);
    rig.commit();
    assert_eq!(rig.said(), [Said::Gone(1)]);
    assert_eq!(rig.tell(&ask(2, 1)), [acked(1)]);
}

#[test]
fn an_ask_of_the_commit_that_is_being_built_can_be_forgotten() {
    let mut rig = Rig::new();
    rig.send(1, &ask(1, 1));
    assert_eq!(forget(&mut rig, 1).asks.len(), 1);
    rig.commit();
    assert_eq!(rig.said(), [acked(1)], "its message is journaled all the same");
    let mut rig = rig.crash();
    assert_eq!((rig.dialect.asks.len(), rig.tell(&take(1, 1, 0))), (0, vec![Said::Gone(1)]));
}

#[test]
fn looking_writes_nothing_and_neither_does_forgetting_what_is_not_there() {
    let mut rig = asked();
    wants(&mut rig, AsksRequest::Overview);
    wants(&mut rig, AsksRequest::Of(ClientId(1)));
    assert_eq!(forget(&mut rig, 2).asks, []);
    rig.close();
    assert_eq!((rig.in_flight(), rig.dialect.asks.len()), (0, 1));
}

#[test]
fn an_overview_names_the_oldest_open_ask_and_the_clients_with_the_most() {
    let mut rig = Rig::new();
    let clients = limits::ASK_CLIENTS_SHOWN + 20;
    for client in 1..=clients as u64 {
        rig.tell(&ask(client, 1));
    }
    for client in [7, 110, 9] {
        rig.tell(&ask(client, 2));
    }
    rig.tell(&ask(110, 3));
    rig.answer(id(1, 1), Offset(0), b"12345");
    rig.answer(id(110, 1), Offset(109), b"");
    rig.commit();
    rig.advance_ms(5_000);
    let told = wants(&mut rig, AsksRequest::Overview);
    let open = clients + 2;
    assert_eq!((told.totals.open, told.totals.answered, told.totals.asks_max), (open, 2, 65_536));
    let oldest = told.oldest.unwrap();
    assert_eq!(
        (oldest.id, oldest.offset, oldest.state, oldest.asked_s),
        (id(2, 1), Offset(1), AskState::Open, Some(5))
    );
    assert_eq!((told.clients.len(), told.clients_len), (limits::ASK_CLIENTS_SHOWN, clients));
    let of = |client, open, answered| ClientAsks { client: ClientId(client), open, answered };
    assert_eq!(told.clients[..5], [of(110, 2, 1), of(7, 2, 0), of(9, 2, 0), of(1, 0, 1), of(2, 1, 0)]);
    assert_eq!(told.clients.last(), Some(&of(99, 1, 0)), "of those with equally many the lowest ids");
    assert_eq!(told.asks, []);
}

#[test]
fn of_a_client_each_ask_is_shown_with_its_age_and_never_a_body() {
    let mut rig = asked();
    rig.tell(&ask(1, 2));
    rig.advance_ms(3_000);
    rig.fail(id(1, 2), Offset(1));
    rig.commit();
    rig.advance_ms(2_000);
    let told = wants(&mut rig, AsksRequest::Of(ClientId(1)));
    let seen = |report: &AsksReport| -> Vec<_> {
        report.asks.iter().map(|ask| (ask.id.seq, ask.state, ask.asked_s, ask.answered_s)).collect()
    };
    let expected = [(Seq(1), AskState::Open, Some(5), None), (Seq(2), AskState::Failed, Some(5), Some(2))];
    assert_eq!(seen(&told), expected);
    // What was before the start of the process, its clock cannot tell.
    let mut rig = rig.crash();
    let told = wants(&mut rig, AsksRequest::Of(ClientId(1)));
    assert_eq!(seen(&told).iter().map(|ask| ask.2).collect::<Vec<_>>(), [None, None]);
}
