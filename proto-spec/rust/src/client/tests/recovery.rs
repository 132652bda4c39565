//! Timeouts, losses and the congestion window, datagram by datagram (PROTOCOL.md#duty-loss, PROTOCOL.md#duty-expiry).

use std::vec;
use std::vec::Vec;

use super::super::{ClientConfig, Event, MessageId};
use super::bench::{ACK, Bench, CLIENT, SECOND, acked, data};
use crate::codec::{Ack, Datagram, RejectCode};
use crate::{Epoch, Seq};

/// A hundred messages of 64 bytes in flight, and room for ten more.
fn hundred() -> Bench {
    let config = ClientConfig { window_initial: 100, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let mut bench = Bench::with(config, 110);
    for _ in 0..100 {
        bench.send();
    }
    assert_eq!(bench.sent_seqs().len(), 100);
    bench
}

fn complete(bench: &mut Bench, floor: u64) {
    let ack = Ack { floor: Seq(floor), credit: 1_000, complete: true, ..ACK };
    bench.receive(&Datagram::Ack(ack)).unwrap();
}

#[test]
fn the_answer_to_a_timeouts_datagram_shows_all_that_is_missing_whether_it_tells_of_it_or_not() {
    for is_complete in [false, true] {
        let mut bench = hundred();
        bench.time_out();
        assert_eq!((bench.sent_seqs(), bench.client.congestion_window()), (vec![1], 100));
        bench.wait(SECOND / 10);
        match is_complete {
            true => complete(&mut bench, 1),
            false => bench.ack(1, &[], 1_000).unwrap(),
        }
        // Ten; then two for each that is acked, up to half of what it was.
        assert_eq!(bench.sent_seqs(), (2..=11).collect::<Vec<_>>());
        bench.wait(SECOND / 10);
        complete(&mut bench, 11);
        assert_eq!(bench.sent_seqs(), (12..=31).collect::<Vec<_>>());
        let (mut windows, mut last) = (Vec::new(), 31);
        while last < 100 {
            bench.wait(SECOND / 10);
            complete(&mut bench, last);
            windows.push(bench.client.congestion_window());
            last = bench.sent_seqs().into_iter().max().unwrap_or(100);
        }
        assert!(windows.is_sorted() && windows[0] > 30, "{windows:?}");
        assert!(windows.iter().all(|window| *window <= 51), "slow again from half of what it was on: {windows:?}");
    }
}

#[test]
fn the_answer_to_a_timeouts_datagram_shows_the_loss_of_as_few_as_one_other() {
    for is_complete in [false, true] {
        for count in 2..=5 {
            let mut bench = Bench::in_flight(count);
            bench.time_out();
            assert_eq!(bench.sent_seqs(), [1]);
            bench.wait(SECOND / 10);
            match is_complete {
                true => complete(&mut bench, 1),
                false => bench.ack(1, &[], 64).unwrap(),
            }
            assert_eq!(bench.sent_seqs(), (2..=count).collect::<Vec<_>>(), "not one a timeout");
        }
    }
}

#[test]
fn what_no_answer_told_of_yet_is_not_lost_before_a_timeout_has_passed() {
    let mut bench = Bench::in_flight(2);
    bench.wait(SECOND - 1);
    bench.send();
    assert_eq!(bench.sent_seqs(), [3]);
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    bench.wait(SECOND / 10);
    bench.ack(1, &[], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [2]);
}

#[test]
fn a_server_that_reads_on_after_a_standstill_is_asked_with_one_datagram_at_a_time() {
    let mut bench = hundred();
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    bench.wait(SECOND / 10);
    complete(&mut bench, 30);
    assert_eq!(bench.sent_seqs(), [31]);
    bench.wait(SECOND / 10);
    complete(&mut bench, 60);
    assert_eq!(bench.sent_seqs(), [61]);
    assert_eq!(bench.client.congestion_window(), 100);
    // It had no more: of what came before this one all is missing.
    bench.wait(SECOND / 10);
    complete(&mut bench, 61);
    assert_eq!(bench.sent_seqs(), (62..=71).collect::<Vec<_>>());
}

#[test]
fn a_duplicate_sent_in_doubt_says_nothing_of_those_that_were_sent_with_it() {
    let mut bench = hundred();
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    bench.wait(SECOND / 10);
    // 1 has come. No ack has ever told of those above 2.
    bench.ack(1, &[], 1_000).unwrap();
    assert_eq!(bench.sent_seqs(), (2..=11).collect::<Vec<_>>());
    let (window, losses) = (bench.client.congestion_window(), bench.client.stats().losses);
    bench.wait(SECOND / 10);
    // 2 has come; 3 and 9 were here all along, 4 to 8 are on their way.
    bench.ack(3, &[9], 1_000).unwrap();
    assert!(bench.client.congestion_window() >= window);
    assert_eq!(bench.client.stats().losses, losses);
}

#[test]
fn a_loss_cuts_once_and_what_was_overtaken_is_not_in_flight() {
    let mut bench = hundred();
    bench.wait(SECOND / 10);
    bench.ack(0, &(60..=64).collect::<Vec<_>>(), 1_000).unwrap();
    // 59 are told to be missing, of 95 that are not acked 36 may be on their way, and 50 may be.
    assert_eq!(bench.sent_seqs(), (1..=14).collect::<Vec<_>>());
    assert_eq!(bench.client.congestion_window(), 50);
}

/// A hundred messages in flight, `rtt_us` away from the server.
fn hundred_at(rtt_us: u64) -> Bench {
    let config = ClientConfig { window_initial: 101, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let mut bench = Bench::with(config, 110);
    bench.send();
    bench.transmit();
    bench.wait(rtt_us);
    complete(&mut bench, 1);
    (0..100).for_each(|_| _ = bench.send());
    assert_eq!(bench.sent_seqs().len(), 100);
    bench
}

#[test]
fn a_second_timeout_in_a_row_asks_with_as_many_datagrams_as_the_path_bears_in_it_and_a_third_with_one() {
    for (rtt_us, bears) in [(300, 16), (1_000, 10), (2_500, 4), (9_000, 1), (600_000, 1)] {
        let mut bench = hundred_at(rtt_us);
        bench.time_out();
        assert_eq!((bench.sent_seqs(), bench.client.congestion_window()), (vec![2], 101), "{rtt_us} us");
        bench.time_out();
        assert_eq!(bench.sent_seqs(), (2..2 + u64::from(bears)).collect::<Vec<_>>(), "{rtt_us} us");
        assert_eq!(bench.client.congestion_window(), bears);
        for _ in 0..4 {
            bench.time_out();
            assert_eq!(bench.sent_seqs(), [2], "{rtt_us} us");
        }
        // What comes back at last finds it going up again, to half of what it was.
        bench.wait(rtt_us);
        complete(&mut bench, 2);
        assert_eq!(bench.sent_seqs(), (3..4 + u64::from(bears)).collect::<Vec<_>>(), "{rtt_us} us");
    }
}

#[test]
fn what_a_client_has_queued_itself_does_not_make_a_short_path_long() {
    let mut bench = hundred_at(300);
    for floor in 2..=60 {
        bench.wait(1_500);
        complete(&mut bench, floor);
    }
    assert!(bench.client.rtt_us() > Some(10_000));
    for _ in 0..9 {
        bench.wait(30_000);
        let floor = bench.client.acks.floor.0;
        bench.ack(floor, &[floor + 5, floor + 6, floor + 7, floor + 8], 1_000).unwrap();
        bench.transmit();
        bench.wait(30_000);
        complete(&mut bench, floor + 1);
        bench.transmit();
    }
    assert!(bench.client.congestion_window() >= 10, "{}", bench.client.congestion_window());
}

#[test]
fn nothing_but_acks_of_something_new_and_expiries_moves_the_timer() {
    let mut bench = Bench::in_flight(6);
    let due = bench.client.poll_timeout();
    bench.wait(SECOND / 10);
    bench.reject(6, RejectCode::BeyondWindow, 0).unwrap();
    bench.reject(5, RejectCode::Channel, 0).unwrap();
    bench.ack(0, &[], 64).unwrap();
    bench.send();
    bench.transmit();
    assert_eq!(bench.client.poll_timeout(), due);
    bench.ack(1, &[], 64).unwrap();
    assert_ne!(bench.client.poll_timeout(), due);
}

#[test]
fn a_new_epoch_keeps_what_is_known_of_the_path() {
    let mut bench = Bench::in_flight(10);
    bench.wait(SECOND / 10);
    bench.ack(8, &[], 64).unwrap();
    let (window, rtt) = (bench.client.congestion_window(), bench.client.rtt_us());
    assert_eq!(rtt, Some(SECOND / 10));
    bench.reject(9, RejectCode::StaleEpoch, 0).unwrap();
    assert_eq!((bench.client.epoch(), bench.sent_seqs()), (Epoch::new(8), vec![1, 2]));
    assert_eq!((bench.client.congestion_window(), bench.client.rtt_us()), (window, rtt));
}

#[test]
fn bit_0_is_a_bit_like_any_other() {
    let mut bench = Bench::in_flight(3);
    bench.receive(&Datagram::Ack(Ack { bitmap: &[0b101, 0, 0, 0, 0, 0, 0, 0], ..ACK })).unwrap();
    assert_eq!(acked(&bench.events()), [1, 3]);
}

#[test]
fn before_any_credit_was_told_a_run_of_refused_messages_needs_no_new_epoch() {
    let mut bench = Bench::in_flight(10);
    for seq in 1..=10 {
        bench.reject(seq, RejectCode::Channel, 0).unwrap();
    }
    assert!(bench.events().iter().all(|event| matches!(event, Event::Failed { .. })));
    assert_eq!(bench.send(), MessageId(10));
    let sent = bench.transmit();
    let only = data(&sent[0]);
    assert_eq!((sent.len(), only.epoch.value(), only.seq.0, only.span, only.skip), (1, 7, 11, 0, true));
}
