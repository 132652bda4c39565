//! These tests drive a flow whose messages ask.

use duragram_proto::codec::{Answer, AnswerStatus};

use super::*;

const ROOM: usize = 8;
const WAIT: u32 = 1_000;

/// With so many messages to send, each of which asks.
fn asking(messages: u64) -> Rig {
    let mut rig = Rig::new(UNFINISHED_MAX, messages);
    rig.flow.ask(Asks::new(ROOM, 100));
    rig
}

/// What it sends now: the seqs of DATA, and the TAKEs.
fn sent(rig: &mut Rig) -> (Vec<u64>, Vec<Taking>) {
    let (mut data, mut takes) = (Vec::new(), Vec::new());
    let now_ns = rig.now_ns;
    while let Some(outgoing) = next(&mut rig.flow, now_ns, &mut rig.tally) {
        match outgoing {
            Outgoing::Data { seq, .. } => data.push(seq),
            Outgoing::Take(taking) => takes.push(taking),
            Outgoing::Ping => panic!("nothing wants for credit"),
        }
    }
    (data, takes)
}

fn answer(rig: &mut Rig, seq: u64, status: AnswerStatus, number: u32, body: &[u8]) -> bool {
    let answer = Answer { client: CLIENT, epoch: rig.flow.epoch, seq: Seq(seq), status, number, body };
    rig.flow.handle_answer(rig.now_ns, &answer, &mut rig.tally)
}

#[test]
fn a_message_is_taken_once_it_is_acked_and_its_answer_counts_once() {
    let mut rig = asking(2);
    assert_eq!(sent(&mut rig), (vec![1, 2], vec![]));
    assert!(rig.ack(0, &[2], 100));
    assert_eq!(sent(&mut rig).1, [Taking { seq: 2, span: 1, wait_ms: WAIT, room: ROOM }]);
    rig.now_ns += 5 * MS;
    assert!(!answer(&mut rig, 1, AnswerStatus::Done, 0, b""), "nobody has taken it");
    assert!(answer(&mut rig, 2, AnswerStatus::Done, 2, b"ok"));
    assert!(!answer(&mut rig, 2, AnswerStatus::Done, 2, b"ok"));
    assert_eq!((rig.tally.answered, rig.tally.failed), (1, 0));
    let longest_us = rig.tally.answer_max_us().unwrap();
    assert!((5_000.0..5_010.0).contains(&longest_us), "kept to a thousandth: {longest_us}");
    assert!(rig.ack(2, &[], 100));
    assert_eq!(sent(&mut rig).1, [Taking { seq: 1, span: 0, wait_ms: WAIT, room: ROOM }]);
    assert!(answer(&mut rig, 1, AnswerStatus::Failed, 0, b""));
    assert_eq!((rig.tally.answered, rig.tally.failed, rig.tally.finished()), (2, 1, 2));
}

#[test]
fn of_a_client_64_messages_are_unfinished_at_most_and_16_takes_open() {
    let mut rig = asking(1_000);
    assert_eq!(sent(&mut rig).0.len(), 64);
    assert!(rig.ack(64, &[], 1_000));
    let (data, takes) = sent(&mut rig);
    assert!(data.is_empty(), "an ack finishes nothing: {data:?}");
    assert_eq!(takes.iter().map(|taking| taking.seq).collect::<Vec<_>>(), (1..=16).collect::<Vec<_>>());
    assert!(answer(&mut rig, 3, AnswerStatus::Done, 0, b""));
    let (data, takes) = sent(&mut rig);
    assert!(
        data.is_empty() && takes == [Taking { seq: 17, span: 16, wait_ms: WAIT, room: ROOM }],
        "{data:?} {takes:?}"
    );
    assert!(answer(&mut rig, 1, AnswerStatus::Gone, 0, b""));
    let now_ns = rig.now_ns;
    let first = next(&mut rig.flow, now_ns, &mut rig.tally);
    let taking = Taking { seq: 18, span: 16, wait_ms: WAIT, room: ROOM };
    assert_eq!(first, Some(Outgoing::Take(taking)), "before one more asks the server has to forget one");
    assert_eq!(sent(&mut rig), (vec![65], vec![]));
    assert!(answer(&mut rig, 2, AnswerStatus::Done, 0, b""));
    assert_eq!(sent(&mut rig).0, [66, 67], "the third was finished before");
}

#[test]
fn where_nothing_is_to_be_taken_the_server_is_told_what_was_had_before_one_more_asks() {
    let mut rig = asking(1_000);
    sent(&mut rig);
    for seq in 1..=64 {
        assert!(rig.ack(seq, &[], 1_000));
        sent(&mut rig);
        assert!(answer(&mut rig, seq, AnswerStatus::Done, 0, b""));
    }
    // Each ack but the last let one more ask; the last answer is told by no TAKE.
    let (data, takes) = sent(&mut rig);
    assert_eq!((data.len(), takes.len()), (1, 1), "{data:?} {takes:?}");
    assert_eq!((takes[0].seq - u64::from(takes[0].span), takes[0].wait_ms), (65, 0));
}

#[test]
fn a_take_is_sent_again_when_nothing_came_for_as_long_as_it_may_be_held_and_a_timeout() {
    let mut rig = asking(1);
    sent(&mut rig);
    rig.now_ns += 2 * MS;
    assert!(rig.ack(1, &[], 100));
    assert_eq!(sent(&mut rig).1.len(), 1);
    rig.now_ns += u64::from(WAIT) * MS;
    rig.flow.handle_time(rig.now_ns);
    assert_eq!(sent(&mut rig).1, []);
    rig.now_ns += SECOND;
    assert!(rig.flow.handle_time(rig.now_ns));
    assert_eq!(sent(&mut rig).1.len(), 1);
    // Then for twice as long.
    rig.now_ns += SECOND + u64::from(WAIT) * MS / 2;
    rig.flow.handle_time(rig.now_ns);
    assert_eq!(sent(&mut rig).1, []);
    rig.now_ns += SECOND;
    assert!(rig.flow.handle_time(rig.now_ns));
    assert_eq!(sent(&mut rig).1.len(), 1);
}

#[test]
fn an_answer_that_is_pending_is_asked_for_again_when_the_server_says() {
    let mut rig = asking(1);
    sent(&mut rig);
    assert!(rig.ack(1, &[], 100));
    sent(&mut rig);
    assert!(answer(&mut rig, 1, AnswerStatus::Pending, 2_000, b""));
    for (wait_ms, takes) in [(1_900, 0), (200, 1)] {
        rig.now_ns += wait_ms * MS;
        rig.flow.handle_time(rig.now_ns);
        assert_eq!(sent(&mut rig).1.len(), takes);
    }
    assert!(answer(&mut rig, 1, AnswerStatus::Unknown(9), 0, b"of a later version"), "as PENDING");
    assert_eq!((rig.tally.pending, rig.tally.finished()), (2, 0));
}

#[test]
fn an_answer_that_found_no_room_is_taken_again_with_as_much_as_it_needs() {
    let mut rig = asking(2);
    sent(&mut rig);
    assert!(rig.ack(2, &[], 100));
    sent(&mut rig);
    assert!(answer(&mut rig, 1, AnswerStatus::Done, 20, b""));
    assert_eq!(sent(&mut rig).1, [Taking { seq: 1, span: 0, wait_ms: WAIT, room: 20 }]);
    assert!(answer(&mut rig, 1, AnswerStatus::Done, 20, &[7; 20]));
    assert!(answer(&mut rig, 2, AnswerStatus::Done, 101, b""), "beyond what there is room for");
    assert_eq!((rig.tally.answered, rig.tally.unfit, rig.tally.finished()), (1, 1, 2));
}

#[test]
fn what_was_acked_in_an_epoch_that_ended_is_gone_and_what_was_not_asks_anew() {
    let mut rig = asking(2);
    sent(&mut rig);
    assert!(rig.ack(1, &[], 100));
    sent(&mut rig);
    assert_eq!(rig.reject(2, RejectCode::StaleEpoch, 0), Ok(true));
    assert_eq!(rig.tally.gone, 1);
    assert_eq!(sent(&mut rig), (vec![1], vec![]));
    assert!(rig.ack(1, &[], 100));
    assert_eq!(sent(&mut rig).1, [Taking { seq: 1, span: 0, wait_ms: WAIT, room: ROOM }]);
    assert!(answer(&mut rig, 1, AnswerStatus::Done, 0, b""));
    assert_eq!(rig.tally.finished(), 2);
}

/// Answers that were had fill its room until it hears that they were.
#[test]
fn a_server_without_room_for_one_more_ask_hears_what_was_had() {
    let mut rig = asking(65);
    sent(&mut rig);
    assert!(rig.ack(64, &[], 100));
    sent(&mut rig);
    for seq in 1..=2 {
        assert!(answer(&mut rig, seq, AnswerStatus::Done, 0, b""));
    }
    let (data, _) = sent(&mut rig);
    assert_eq!(data, [65]);
    assert_eq!(rig.reject(65, RejectCode::Busy, 5_000), Ok(true));
    let far = Taking { seq: 3 + 65_535, span: 65_535, wait_ms: 0, room: 0 };
    assert_eq!(sent(&mut rig), (vec![], vec![far]), "nothing but that is sent in the pause");
    assert!(!answer(&mut rig, far.seq, AnswerStatus::Gone, 0, b""));
}
