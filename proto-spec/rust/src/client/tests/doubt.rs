//! An epoch that may have been used before (PROTOCOL.md#epoch-used).

use std::vec::Vec;

use super::super::{ClientConfig, Event, FailReason, Ignored, MessageId, Outgoing, SendError};
use super::bench::{ACK, Bench, CLIENT, SECOND, acked, data};
use crate::codec::{Ack, Datagram, RejectCode};
use crate::{Epoch, Seq};

/// A client with 5 messages in an epoch that it doubts.
fn doubting() -> Bench {
    let config = ClientConfig { epoch_doubted: true, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let mut bench = Bench::with(config, 16);
    for _ in 0..5 {
        bench.send();
    }
    assert_eq!(bench.sent_seqs(), [1], "the first goes alone");
    bench
}

fn duplicate_of(bench: &mut Bench, floor: u64) -> Result<(), Ignored> {
    bench.receive(&Datagram::Ack(Ack { floor: Seq(floor), duplicate: true, ..ACK }))
}

fn assert_used(bench: &mut Bench, queued: u64) {
    let all: Vec<Event> =
        (0..queued).map(|id| Event::Failed { message: MessageId(id), reason: FailReason::EpochUsed }).collect();
    assert_eq!(bench.events(), all, "nothing counts as acked");
    let message = Outgoing { channel: 0, batch: false, payload: b"later" };
    assert_eq!(bench.client.send(bench.now_us, message), Err(SendError::EpochUsed));
    assert!(bench.client.is_idle() && bench.client.poll_timeout().is_none() && bench.transmit().is_empty());
}

#[test]
fn a_first_message_that_is_new_settles_it_and_the_rest_follows() {
    let mut bench = doubting();
    bench.wait(SECOND / 10);
    bench.ack(1, &[], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [2, 3, 4, 5]);
    // From now on a duplicate is one of the path's or of its own.
    duplicate_of(&mut bench, 5).unwrap();
    assert_eq!(acked(&bench.events()), [1, 2, 3, 4, 5]);
}

#[test]
fn a_duplicate_of_what_was_sent_once_betrays_another_run_with_one_message() {
    let mut bench = doubting();
    duplicate_of(&mut bench, 1).unwrap();
    assert_used(&mut bench, 5);
    // What is still on its way changes nothing.
    bench.ack(1, &[], 64).unwrap();
    assert_eq!(bench.events(), []);
}

#[test]
fn an_ack_for_what_was_never_sent_betrays_another_run_when_two_retransmissions_get_it_too() {
    let mut bench = doubting();
    for _ in 0..10 {
        assert_eq!(duplicate_of(&mut bench, 3), Err(Ignored::NeverSent));
    }
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    assert_eq!(duplicate_of(&mut bench, 3), Err(Ignored::NeverSent));
    assert_eq!(bench.events(), [], "they can be forged for a while");
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    assert_eq!(duplicate_of(&mut bench, 3), Err(Ignored::NeverSent));
    assert_eq!(bench.events(), [], "and the truth may follow");
    assert_eq!(bench.time_out(), SECOND);
    assert_used(&mut bench, 5);
}

#[test]
fn a_true_answer_that_follows_the_lies_settles_it() {
    let mut bench = doubting();
    for _ in 0..2 {
        assert_eq!(duplicate_of(&mut bench, 100_000), Err(Ignored::NeverSent));
        bench.time_out();
        assert_eq!(bench.sent_seqs(), [1]);
    }
    assert_eq!(duplicate_of(&mut bench, 100_000), Err(Ignored::NeverSent));
    bench.wait(SECOND / 2);
    bench.ack(1, &[], 64).unwrap();
    assert_eq!(acked(&bench.events()), [1]);
    // Two timeouts in a row have made the congestion window small; it is no longer held back otherwise.
    assert_eq!(bench.sent_seqs(), [2]);
    bench.ack(2, &[], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [3, 4]);
}

#[test]
fn a_duplicate_of_a_retransmission_or_beside_a_ping_is_no_sign() {
    let mut bench = doubting();
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    duplicate_of(&mut bench, 1).unwrap();
    assert_eq!(acked(&bench.events()), [1]);
    assert_eq!(bench.sent_seqs(), [2, 3, 4, 5]);

    let config = ClientConfig { epoch_doubted: true, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let mut bench = Bench::with(config, 16);
    bench.send();
    assert_eq!(bench.sent_seqs(), [1]);
    // Room for nothing: it asks until there is some, and the answer to what it has sent comes after all.
    bench.reject(1, RejectCode::BeyondWindow, 0).unwrap();
    bench.ack(0, &[], 0).unwrap();
    bench.time_out();
    assert!(bench.is_ping());
    duplicate_of(&mut bench, 1).unwrap();
    assert_eq!(acked(&bench.events()), [1]);
}

#[test]
fn strange_acks_after_the_first_true_one_end_nothing() {
    let mut bench = doubting();
    assert_eq!(duplicate_of(&mut bench, 9), Err(Ignored::NeverSent));
    bench.ack(1, &[], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [2, 3, 4, 5]);
    for _ in 0..10 {
        assert_eq!(duplicate_of(&mut bench, 9), Err(Ignored::NeverSent));
    }
    bench.ack(5, &[], 64).unwrap();
    assert_eq!(acked(&bench.events()), [1, 2, 3, 4, 5]);
}

#[test]
fn an_epoch_that_the_server_gave_or_that_follows_a_stale_one_is_not_doubted() {
    let mut bench = Bench::with(ClientConfig { epoch_doubted: true, ..ClientConfig::new(CLIENT, None) }, 16);
    bench.send();
    bench.send();
    let hello = bench.hello().unwrap();
    bench.welcome(hello.nonce, 7).unwrap();
    assert_eq!(bench.sent_seqs(), [1, 2]);

    let mut bench = doubting();
    bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
    assert_eq!(bench.sent_seqs(), [1, 2, 3, 4, 5]);
    assert_eq!(bench.client.epoch(), Epoch::new(8));
}

/// A seq that was used up makes what another run has used plausible: its floor is no higher than what was sent.
#[test]
fn when_a_seq_was_used_up_in_vain_the_next_epoch_is_taken_and_doubted_too() {
    type Step = fn(&mut Bench);
    let refused: Step = |bench| bench.reject(1, RejectCode::Channel, 0).unwrap();
    let given_up: Step = |bench| _ = bench.client.abandon_oldest().unwrap();
    for in_vain in [refused, given_up] {
        let mut bench = doubting();
        bench.time_out();
        assert_eq!(bench.sent_seqs(), [1]);
        in_vain(&mut bench);
        bench.events();
        // Where a silence lasts, what comes next goes when it is over.
        let mut sent = bench.transmit();
        if sent.is_empty() {
            bench.time_out();
            sent = bench.transmit();
        }
        let next = data(&sent[0]);
        assert_eq!((sent.len(), next.epoch.value(), next.seq.0, next.skip), (1, 8, 1, false));
        let answer = |epoch: Option<Epoch>| Ack { floor: Seq(2), epoch: epoch.unwrap(), ..ACK };
        assert_eq!(bench.receive(&Datagram::Ack(answer(Epoch::new(7)))), Err(Ignored::OtherEpoch));
        // In this one another run has sent one message.
        bench.receive(&Datagram::Ack(Ack { floor: Seq(1), duplicate: true, ..answer(Epoch::new(8)) })).unwrap();
        let entered = Event::EpochChanged { from: Epoch::new(7), to: Epoch::new(8).unwrap() };
        let failed = |id| Event::Failed { message: MessageId(id), reason: FailReason::EpochUsed };
        assert_eq!(bench.events(), [entered].into_iter().chain((1..5).map(failed)).collect::<Vec<_>>());
    }
}

#[test]
fn what_was_given_up_before_it_was_sent_uses_no_seq_up() {
    let config = ClientConfig { epoch_doubted: true, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let mut bench = Bench::with(config, 16);
    bench.send();
    bench.send();
    bench.client.abandon_oldest().unwrap();
    let sent = bench.transmit();
    assert_eq!((sent.len(), data(&sent[0]).epoch.value(), data(&sent[0]).seq.0), (1, 7, 1));
}

#[test]
fn without_credit_too_the_epoch_after_one_that_was_left_in_doubt_is_doubted() {
    let mut bench = doubting();
    bench.ack(0, &[], 0).unwrap();
    bench.client.abandon_oldest().unwrap();
    bench.transmit();
    bench.events();
    bench.time_out();
    assert!(bench.is_ping(), "the credit of the epoch before holds");
    let room = Ack { epoch: Epoch::new(8).unwrap(), floor: Seq(0), credit: 64, duplicate: true, ..ACK };
    bench.receive(&Datagram::Ack(room)).unwrap();
    assert_eq!(bench.sent_seqs(), [1], "the first goes alone");
}

#[test]
fn an_ack_for_what_was_never_sent_does_not_shorten_a_wait_that_the_server_asked_for() {
    let mut bench = doubting();
    for _ in 0..2 {
        bench.time_out();
        assert_eq!(bench.sent_seqs(), [1]);
    }
    bench.reject(1, RejectCode::Storage, 30_000).unwrap();
    let until = bench.client.poll_timeout();
    assert_eq!(duplicate_of(&mut bench, 3), Err(Ignored::NeverSent));
    assert_eq!(bench.client.poll_timeout(), until);
}
