//! When answers are taken: intervals, sleepers, changes of epoch, farewells, restarts (PROTOCOL.md#answers-client, C4 to C8).

use std::vec;
use std::vec::Vec;

use super::super::{AskConfig, ClientConfig, Status};
use super::asks::{Asking, EPOCH, within};
use super::bench::{CLIENT, SECOND};
use crate::codec::{Answer, AnswerStatus, Datagram, Reject, RejectCode};
use crate::{Epoch, Seq};

#[test]
fn an_unanswered_take_is_sent_again_ever_more_rarely() {
    let mut asking = Asking::acked(AskConfig { wait_ms: 500, ..AskConfig::HELD }, 1);
    let rto_us = asking.client.rto_us();
    for tries in 0..20 {
        assert_eq!(asking.taken(), [1]);
        let waited = asking.time_out() - SECOND / 2;
        let least = (rto_us << tries).min(60 * SECOND);
        assert!(within(waited, least), "try {tries}: {waited} for {least}");
    }
    // The path is another one: what was sent from the old one will not be answered.
    assert_eq!(asking.taken(), [1]);
    asking.client.path_changed(asking.now_us);
    assert_eq!(asking.taken(), [1]);
}

#[test]
fn after_pending_it_waits_as_long_as_the_server_says_within_bounds() {
    for (retry_after_ms, least) in [(0, 0), (5_000, 5 * SECOND), (u32::MAX, 60 * SECOND)] {
        for status in [AnswerStatus::Pending, AnswerStatus::Unknown(9)] {
            let mut asking = Asking::acked(AskConfig::HELD, 1);
            assert_eq!(asking.taken(), [1]);
            asking.answer(1, status, retry_after_ms, b"").unwrap();
            let least = asking.client.rto_us().max(least);
            assert_eq!(asking.taken(), []);
            let waited = asking.time_out();
            assert!(within(waited, least), "{waited} for {least}");
            assert_eq!(asking.taken(), [1]);
        }
    }
}

/// Else a lost TAKE would cost twenty seconds where the answer is there after one.
#[test]
fn the_first_take_is_held_for_a_second_and_each_that_came_too_early_lets_the_next_be_held_for_longer() {
    let mut asking = Asking::acked(AskConfig::HELD, 1);
    let mut waits = Vec::new();
    for _ in 0..30 {
        let sent = asking.takes();
        waits.extend(sent.iter().map(|take| take.wait_ms));
        asking.answer(1, AnswerStatus::Pending, 0, b"").unwrap();
        asking.time_out();
    }
    assert_eq!(waits[..7], [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]);
    assert!(waits.len() == 30 && waits[7..].iter().all(|&wait_ms| wait_ms == 20_000));
    // One that is lost is sent again as it was.
    let mut asking = Asking::acked(AskConfig::HELD, 1);
    for _ in 0..3 {
        assert_eq!(asking.takes()[0].wait_ms, 1_000);
        asking.time_out();
    }
}

#[test]
fn pending_that_is_repeated_does_not_put_a_take_off_for_ever() {
    let mut asking = Asking::acked(AskConfig::HELD, 1);
    assert_eq!(asking.taken(), [1]);
    asking.answer(1, AnswerStatus::Pending, 60_000, b"").unwrap();
    let at = asking.client.poll_timeout();
    asking.now_us += 30 * SECOND;
    asking.answer(1, AnswerStatus::Pending, 60_000, b"").unwrap();
    assert_eq!(asking.client.poll_timeout(), at);
}

#[test]
fn sixteen_takes_are_open_at_most_and_no_more_than_the_window_goes_in_a_round_trip() {
    let mut asking = Asking::acked(AskConfig::HELD, 40);
    let window = asking.client.congestion_window() as usize;
    assert!(window > 16);
    assert_eq!(asking.taken(), (1..=16).collect::<Vec<_>>());
    asking.done(4, b"").unwrap();
    asking.answer(5, AnswerStatus::Pending, 0, b"").unwrap();
    asking.told();
    assert_eq!(asking.taken(), [17, 18]);

    let mut asking =
        Asking::with(ClientConfig { window_initial: 3, ..ClientConfig::new(CLIENT, Some(EPOCH)) }, AskConfig::HELD, 9);
    for seq in 1..=8 {
        asking.client.take(0, Epoch::new(5).unwrap(), Seq(seq)).unwrap();
    }
    for seqs in [vec![1, 2, 3], vec![4, 5, 6], vec![7, 8]] {
        assert_eq!(asking.taken(), seqs);
        if seqs.len() == 3 {
            assert_eq!(asking.time_out(), SECOND, "a round trip as long as it may take");
        }
    }
}

#[test]
fn a_sleeper_takes_when_it_wakes_or_what_is_said_to_be_ready_and_sleeps_on_pending() {
    let mut asking = Asking::acked(AskConfig::SLEEPER, 2);
    assert_eq!((asking.takes(), asking.client.poll_timeout()), (vec![], None), "it can sleep");
    asking.client.wake(asking.now_us);
    let sent = asking.takes();
    assert_eq!(sent.iter().map(|take| (take.seq.0, take.wait_ms)).collect::<Vec<_>>(), [(1, 0), (2, 0)]);
    asking.answer(1, AnswerStatus::Pending, 1_000, b"").unwrap();
    asking.answer(2, AnswerStatus::Pending, 1_000, b"").unwrap();
    assert_eq!((asking.takes(), asking.client.poll_timeout()), (vec![], None), "it sleeps on");
    asking.now_us += 10 * SECOND;
    asking.client.send(asking.now_us, super::super::Outgoing { channel: 0, batch: false, payload: b"" }).unwrap();
    asking.transmit();
    asking.ack(3, false).unwrap();
    assert_eq!(asking.takes(), []);
    asking.client.send(asking.now_us, super::super::Outgoing { channel: 0, batch: false, payload: b"" }).unwrap();
    asking.transmit();
    asking.ack(4, true).unwrap();
    assert_eq!(asking.taken(), [1, 2], "one of them is ready");
    asking.done(1, b"").unwrap();
    assert_eq!(asking.told().len(), 1);
    // A TAKE that is lost is sent again as long as it is awake.
    asking.time_out();
    assert_eq!(asking.taken(), [2]);
    asking.done(2, b"").unwrap();
    asking.told();
    assert_eq!(
        asking.takes().iter().map(|take| (take.seq.0, take.span)).collect::<Vec<_>>(),
        [(65_538, 65_535)],
        "and a farewell"
    );
    assert_eq!(asking.client.poll_timeout(), None);
}

#[test]
fn after_a_change_of_epoch_what_waits_is_taken_in_the_old_one_and_what_is_sent_again_in_the_new() {
    let mut asking = Asking::acked(AskConfig::HELD, 1);
    assert_eq!(asking.taken(), [1]);
    let again = asking.ask();
    asking.transmit();
    let stale = Reject { client: CLIENT, epoch: 7, code: RejectCode::StaleEpoch, refused: 2, retry_after_ms: 0 };
    asking.receive(&Datagram::Reject(stale)).unwrap();
    let sent = asking.transmit();
    let data = super::bench::data(&sent[0]);
    assert_eq!((data.epoch.value(), data.seq.0, data.asks()), (8, 1, true));
    asking.ack(1, false).unwrap();
    let new = Epoch::new(8).unwrap();
    assert_eq!(asking.client.waiting().collect::<Vec<_>>(), [(EPOCH, Seq(1)), (new, Seq(1))]);
    assert_eq!(
        asking.takes().iter().map(|take| (take.epoch, take.seq.0, take.span)).collect::<Vec<_>>(),
        [(new, 1, 0)]
    );
    asking.done(1, b"old").unwrap();
    assert_eq!(asking.told()[0].3, b"old");
    let answer =
        Answer { client: CLIENT, epoch: new, seq: Seq(1), status: AnswerStatus::Done, number: 3, body: b"new" };
    asking.receive(&Datagram::Answer(answer)).unwrap();
    assert_eq!(asking.told(), [(Some(again), Seq(1), Status::Done, b"new".to_vec())]);
}

#[test]
fn a_farewell_goes_when_nothing_waits_and_another_ask_takes_its_place() {
    let mut asking = Asking::acked(AskConfig::HELD, 2);
    asking.transmit();
    asking.done(1, b"").unwrap();
    asking.done(2, b"").unwrap();
    assert_eq!((asking.told().len(), asking.takes()), (2, vec![]));
    asking.ask();
    asking.transmit();
    assert!(asking.client.poll_timeout().is_some_and(|at| at < asking.now_us + 2 * SECOND), "for its ack");
    asking.ack(3, false).unwrap();
    assert_eq!(asking.taken(), [3]);
    asking.done(3, b"").unwrap();
    asking.told();
    assert_eq!(asking.takes(), []);
    assert_eq!(asking.time_out(), SECOND);
    let farewell = asking.takes();
    assert_eq!(
        farewell.iter().map(|take| (take.seq.0, take.span, take.wait_ms, take.room)).collect::<Vec<_>>(),
        [(65_539, 65_535, 0, 0)]
    );
    assert_eq!(asking.client.poll_timeout(), None, "one, whatever becomes of it");
    // Who ends does not wait for that.
    asking.ask();
    asking.transmit();
    asking.client.finish_asks();
    asking.ack(4, false).unwrap();
    assert_eq!(asking.taken(), [4]);
    asking.done(4, b"").unwrap();
    asking.told();
    assert_eq!(asking.taken(), [65_540]);
}

#[test]
fn the_answer_to_a_farewell_is_not_taken_for_that_of_a_message_that_gets_its_seq() {
    for seconds in [1, 61] {
        let mut asking = Asking::acked(AskConfig::HELD, 1);
        asking.transmit();
        asking.done(1, b"").unwrap();
        asking.told();
        asking.takes();
        asking.time_out();
        let named = asking.takes()[0].seq.0;
        // Tens of thousands of messages in a second.
        for seq in 2..named {
            let message = super::super::Outgoing { channel: 0, batch: false, payload: b"" };
            asking.client.send(asking.now_us, message).unwrap();
            asking.transmit();
            asking.ack(seq, false).unwrap();
            while asking.client.poll_event().is_some() {}
        }
        asking.now_us += seconds * SECOND;
        let message = asking.ask();
        asking.transmit();
        asking.ack(named, false).unwrap();
        assert_eq!(asking.taken(), [named]);
        // The server says so since nobody had asked when the farewell came; and again, when that was doubled.
        for _ in 0..2 {
            asking.answer(named, AnswerStatus::Gone, 0, b"").ok();
        }
        if seconds == 1 {
            assert_eq!(asking.told(), []);
            asking.time_out();
            assert_eq!(asking.taken(), [named]);
            asking.done(named, b"true").unwrap();
            assert_eq!(asking.told(), [(Some(message), Seq(named), Status::Done, b"true".to_vec())]);
        } else {
            assert_eq!(asking.told(), [(Some(message), Seq(named), Status::Gone, vec![])]);
        }
    }
}

#[test]
fn who_stored_what_waits_goes_on_after_a_restart() {
    let mut before = Asking::acked(AskConfig::HELD, 3);
    before.transmit();
    before.done(2, b"had").unwrap();
    assert_eq!(before.client.waiting().count(), 3, "it was not handed out");
    before.told();
    let stored: Vec<_> = before.client.waiting().collect();
    assert_eq!(stored, [(EPOCH, Seq(1)), (EPOCH, Seq(3))]);
    let mut after = Asking::with(ClientConfig::new(CLIENT, None), AskConfig::HELD, 16);
    for (epoch, seq) in &stored {
        after.client.take(0, *epoch, *seq).unwrap();
        after.client.take(0, *epoch, *seq).unwrap();
    }
    let sent = after.takes();
    assert_eq!(
        sent.iter().map(|take| (take.epoch, take.seq.0, take.span)).collect::<Vec<_>>(),
        [(EPOCH, 1, 0), (EPOCH, 3, 2)]
    );
    after.done(3, b"three").unwrap();
    after.answer(1, AnswerStatus::Gone, 0, b"").unwrap();
    assert_eq!(after.told(), [(None, Seq(3), Status::Done, b"three".to_vec()), (None, Seq(1), Status::Gone, vec![])]);
    assert_eq!((after.client.asking(), after.client.poll_timeout()), (0, None));
}
