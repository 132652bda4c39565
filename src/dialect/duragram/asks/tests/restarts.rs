//! What a crash leaves of asks.

use super::*;

#[test]
fn an_ask_and_its_answer_are_found_again_after_a_crash() {
    for checkpoints in [[false, false], [true, false], [false, true], [true, true]] {
        let mut rig = asked();
        if checkpoints[0] {
            rig.checkpoint();
        }
        rig = rig.crash();
        assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Pending(1, 1_000)]);
        rig.answer(id(1, 1), Offset(0), b"once");
        rig.commit();
        if checkpoints[1] {
            rig.checkpoint();
            assert_eq!(rig.answers_kept(), 0, "the ask's own record has it");
        }
        let mut rig = rig.crash();
        rig.answer(id(1, 1), Offset(0), b"processed again");
        assert_eq!(rig.tell(&ping(1)), [ready(1)]);
        assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"once")]);
    }
}

#[test]
fn what_was_not_durable_was_never_answered() {
    let mut rig = asked();
    rig.answer(id(1, 1), Offset(0), b"lost");
    rig.send(1, &waiting(1, 1, 0));
    rig.close();
    assert_eq!(rig.said(), []);
    let mut rig = rig.crash();
    rig.answer(id(1, 1), Offset(0), b"again");
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"again")]);
}

#[test]
fn a_held_take_is_lost_with_the_server() {
    let mut rig = asked();
    rig.tell(&waiting(1, 1, 0));
    let mut rig = rig.crash();
    rig.answer(id(1, 1), Offset(0), b"");
    rig.advance_ms(30_000);
    rig.commit();
    assert_eq!(rig.said(), []);
}

#[test]
fn what_was_forgotten_is_forgotten_after_a_crash_as_soon_as_anything_else_was_written() {
    let mut rig = answered(b"had");
    rig.tell(&take(1, 2, 0));
    assert_eq!(rig.in_flight(), 0);
    rig.tell(&data(2, 1));
    let mut rig = rig.crash();
    assert_eq!(rig.dialect.asks.len(), 0);
    rig.answer(id(1, 1), Offset(0), b"processed again");
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
}

/// Else it had sixty-four asks after the crash that it has had, none to take, and could never ask again.
#[test]
fn a_client_that_has_had_all_its_answers_may_ask_after_a_crash() {
    let mut rig = Rig::new();
    for seq in 1..=200 {
        // The one before is had, and its client has not said so yet.
        assert_eq!(rig.tell(&ask(1, seq)), [if seq == 1 { acked(seq) } else { ready(seq) }]);
        rig.answer(id(1, seq), Offset(seq - 1), b"");
        rig.commit();
        assert_eq!(rig.tell(&take(1, seq, 0)), [done(seq, b"")]);
    }
    let mut rig = rig.crash();
    assert_eq!(rig.tell(&ask(1, 201)), [ready(201)]);
    assert_eq!(rig.dialect.asks.len(), 3, "198 were said to be had before the last one was accepted");
}

#[test]
fn forgetting_alone_is_no_reason_to_write() {
    let mut rig = answered(b"had");
    rig.send(1, &take(1, 2, 0));
    rig.close();
    assert_eq!((rig.said(), rig.in_flight()), (vec![Said::Gone(2)], 0));
}

#[test]
fn a_checkpoint_deletes_the_record_of_what_was_had_and_writes_none_of_what_came_and_went() {
    let mut rig = answered(b"had");
    rig.checkpoint();
    assert!(rig.record(id(1, 1)).is_some());
    rig.tell(&ask(1, 2));
    rig.answer(id(1, 2), Offset(1), b"");
    rig.commit();
    rig.tell(&take(1, 3, 0));
    let left = rig.dialect.begin_checkpoint(rig.now());
    let touched = rig.dialect.take_touched(left, usize::MAX);
    assert_eq!((touched.asks, touched.forgotten), (vec![], vec![id(1, 1)]));
}

#[test]
fn a_checkpoint_over_several_writes_takes_all_that_had_changed_when_it_began() {
    let mut rig = Rig::new();
    for client in 1..=20 {
        rig.tell(&ask(client, 1));
    }
    rig.answer(id(5, 1), Offset(4), b"five");
    rig.commit();
    let mut left = rig.dialect.begin_checkpoint(rig.now());
    assert_eq!(left, 40);
    let (mut asks, mut writes) = (Vec::new(), 0);
    while left > 0 {
        let touched = rig.dialect.take_touched(left, 200);
        left -= touched.taken;
        asks.extend(touched.asks);
        writes += 1;
        // What changes meanwhile takes no place of what has to be written.
        rig.send(1, &ask(100 + writes, 1));
    }
    assert_eq!(asks.iter().map(|ask| ask.id).collect::<Vec<_>>(), (1..=20).map(|n| id(n, 1)).collect::<Vec<_>>());
    assert!(writes > 5 && asks[4].answer.is_some());
}

#[test]
fn applying_everything_twice_changes_nothing() {
    use crate::journal::Replay;
    let mut rig = answered(b"once");
    rig.tell(&ask(1, 2));
    rig.checkpoint();
    let record = rig.record(id(1, 1)).cloned().unwrap();
    let open = rig.record(id(1, 2)).cloned().unwrap();
    for _ in 0..2 {
        for record in [&record, &open] {
            rig.dialect.replay(Replay::Ask(record.clone()));
        }
        let other = crate::model::AnswerRecord { failed: true, body: std::sync::Arc::default(), answered_s: 3 };
        let answers = vec![crate::model::AskRecord { answer: Some(other), ..record.clone() }];
        rig.dialect.replay(Replay::Answers(crate::model::AnswersRecord { number: 1, answers }));
    }
    assert_eq!((rig.dialect.asks.len(), rig.dialect.asks.open_len()), (2, 1));
    assert_eq!(rig.tell(&take(1, 1, 0)), [done(1, b"once")]);
}

#[test]
fn asks_of_a_session_that_is_not_there_any_more_are_gone() {
    use crate::journal::Replay;
    let mut rig = Rig::new();
    let orphan = crate::model::AskRecord { id: id(1, 1), offset: Offset(0), answer: None };
    rig.dialect.replay(Replay::Ask(orphan));
    rig.dialect.replayed().unwrap();
    assert_eq!(rig.dialect.asks.len(), 0);
    rig.checkpoint();
    assert!(rig.record(id(1, 1)).is_none());
}

#[test]
fn service_time_goes_on_from_the_latest_answer() {
    let asks = AskConfig { answer_ttl_s: 60, ..AskConfig::default() };
    let mut rig = Rig::with(Config { asks, ..Config::default() });
    rig.tell(&ask(1, 1));
    rig.answer(id(1, 1), Offset(0), b"");
    rig.checkpoint();
    for _ in 0..3 {
        rig = rig.crash();
        rig.advance_ms(25_000);
        rig.tell(&ask(2, 1));
    }
    rig.advance_ms(61_000);
    rig.checkpoint();
    assert_eq!(rig.tell(&take(1, 1, 0)), [Said::Gone(1)]);
}
