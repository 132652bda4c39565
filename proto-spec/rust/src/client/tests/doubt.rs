//! An epoch that may have been used before (PROTOCOL.md#epoch-used).

use std::vec::Vec;

use super::super::{ClientConfig, Event, FailReason, Ignored, MessageId, Outgoing, SendError};
use super::bench::{ACK, Bench, CLIENT, SECOND, acked};
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

#[test]
fn when_the_first_message_is_refused_the_next_goes_alone() {
    let mut bench = doubting();
    bench.reject(1, RejectCode::Channel, 0).unwrap();
    assert_eq!(bench.sent_seqs(), [2]);
    bench.ack(2, &[], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [3, 4, 5]);
}
