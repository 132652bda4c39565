//! What acks do, and what they must not do.

use std::vec;
use std::vec::Vec;

use super::super::{ClientConfig, Ignored, Outgoing};
use super::bench::{ACK, Bench, CLIENT, SECOND, acked, data};
use crate::codec::{Ack, Data, Datagram, DecodeError, Hello, Ping};
use crate::{ClientId, Epoch, Seq};

#[test]
fn the_floor_and_the_bits_above_it_are_acked_once_each() {
    let mut bench = Bench::in_flight(6);
    bench.ack(2, &[4, 6], 64).unwrap();
    assert_eq!(acked(&bench.events()), [1, 2, 4, 6]);
    bench.ack(2, &[4, 6], 64).unwrap();
    bench.ack(1, &[4], 64).unwrap();
    assert_eq!(bench.events(), []);
    bench.ack(6, &[], 64).unwrap();
    assert_eq!(acked(&bench.events()), [3, 5]);
    assert!(bench.client.is_idle());
    assert_eq!(bench.client.poll_timeout(), None);
}

#[test]
fn an_overtaken_ack_still_acks_what_it_covers() {
    let mut bench = Bench::in_flight(6);
    bench.ack(2, &[], 64).unwrap();
    bench.ack(1, &[5], 64).unwrap();
    assert_eq!(acked(&bench.events()), [1, 2, 5]);
}

#[test]
fn an_ack_of_what_was_never_sent_is_ignored_whole() {
    let mut bench = Bench::in_flight(4);
    bench.send();
    let before = bench.client.poll_timeout();
    assert_eq!(bench.ack(6, &[], 64), Err(Ignored::NeverSent));
    assert_eq!(bench.ack(u64::MAX, &[], 64), Err(Ignored::NeverSent));
    assert_eq!(bench.ack(2, &[4, 6], 64), Err(Ignored::NeverSent));
    assert_eq!(bench.ack(2, &[1_026], 64), Err(Ignored::NeverSent));
    // Taken, but not transmitted yet.
    assert_eq!(bench.ack(5, &[], 64), Err(Ignored::NeverSent));
    assert_eq!(bench.events(), []);
    assert_eq!(bench.client.poll_timeout(), before);
    assert_eq!(bench.client.credit(), None);
}

#[test]
fn what_is_for_others_or_not_for_a_client_is_ignored() {
    let mut bench = Bench::in_flight(1);
    let (client, epoch) = (CLIENT, ACK.epoch);
    let ack = Ack { floor: Seq(1), ..ACK };
    let other = ClientId(0xa2);
    assert_eq!(bench.receive(&Datagram::Ack(Ack { client: other, ..ack })), Err(Ignored::OtherClient));
    let next = Epoch::new(8).unwrap();
    assert_eq!(bench.receive(&Datagram::Ack(Ack { epoch: next, ..ack })), Err(Ignored::OtherEpoch));
    assert_eq!(bench.receive(&Datagram::Hello(Hello { client, nonce: 1 })), Err(Ignored::ForServers));
    assert_eq!(bench.receive(&Datagram::Ping(Ping { client, epoch })), Err(Ignored::ForServers));
    let own = bench.client.poll_transmit(SECOND, &mut [0; 1_200]);
    assert_eq!(own, None);
    let nothing = Data::whole(client, epoch, Seq(1), 0, &[]);
    assert_eq!(bench.receive(&Datagram::Data(nothing)), Err(Ignored::ForServers));
    let garbage = bench.client.handle_datagram(0, &mut [0x12; 40]);
    assert_eq!(garbage, Err(Ignored::Undecodable(DecodeError::Checksum)));
    assert_eq!(bench.events(), []);
}

#[test]
fn a_loss_shows_when_three_later_transmissions_have_arrived() {
    let mut bench = Bench::in_flight(6);
    bench.wait(SECOND / 10);
    bench.ack(0, &[2, 3], 64).unwrap();
    assert_eq!(bench.sent_seqs(), []);
    bench.ack(0, &[2, 3, 4], 64).unwrap();
    let sent = bench.transmit();
    let again: Vec<_> = sent.iter().map(|bytes| (data(bytes).seq.0, data(bytes).attempt)).collect();
    assert_eq!(again, [(1, 1)]);
    // What was sent before the retransmission and is acked now says nothing new of it.
    bench.ack(0, &[2, 3, 4, 5, 6], 64).unwrap();
    assert_eq!(bench.sent_seqs(), []);
    let stats = bench.client.stats();
    assert_eq!((stats.transmissions, stats.retransmissions, stats.losses, stats.timeouts), (7, 1, 1, 0));
}

#[test]
fn a_lost_retransmission_is_found_by_what_was_sent_after_it() {
    let mut bench = Bench::in_flight(4);
    bench.wait(SECOND / 10);
    bench.ack(0, &[2, 3, 4], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [1]);
    bench.events();
    for _ in 0..3 {
        bench.send();
    }
    assert_eq!(bench.sent_seqs(), [5, 6, 7]);
    bench.wait(SECOND / 10);
    bench.ack(0, &[2, 3, 4, 5, 6, 7], 64).unwrap();
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).seq, data(&sent[0]).attempt), (Seq(1), 2));
}

/// 100 messages of 8 bytes in flight: their acks have room for 64 bits.
fn hundred_short_ones() -> Bench {
    let config = ClientConfig { window_initial: 100, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let mut bench = Bench::with(config, 110);
    for _ in 0..100 {
        bench.client.send(0, Outgoing { channel: 0, batch: false, payload: &[0; 8] }).unwrap();
    }
    assert_eq!(bench.sent_seqs().len(), 100);
    bench.wait(SECOND / 10);
    bench
}

#[test]
fn what_lies_beyond_the_cut_of_a_bitmap_is_not_taken_for_lost() {
    let mut bench = hundred_short_ones();
    bench.ack(0, &(3..=64).collect::<Vec<_>>(), 200).unwrap();
    assert_eq!(bench.sent_seqs(), [1, 2]);
    bench.wait(SECOND / 10);
    // The first retransmission has arrived. Of 66 and above, all sent long before it, this ack cannot tell.
    bench.ack(1, &(3..=65).collect::<Vec<_>>(), 200).unwrap();
    assert_eq!(bench.sent_seqs(), []);
    assert_eq!(bench.client.stats().losses, 2);
    bench.ack(100, &[], 200).unwrap();
    assert!(bench.client.is_idle());
}

#[test]
fn the_one_that_holds_up_the_floor_is_found_lost_behind_those_that_acks_cannot_tell_of() {
    let mut bench = hundred_short_ones();
    bench.ack(0, &(6..=64).collect::<Vec<_>>(), 200).unwrap();
    assert_eq!(bench.sent_seqs(), [1, 2, 3, 4, 5]);
    bench.wait(SECOND / 10);
    bench.ack(1, &(3..=65).collect::<Vec<_>>(), 200).unwrap();
    assert_eq!(bench.client.stats().losses, 6);
    // What it cannot tell of was overtaken too, and does not keep the lowest one back.
    assert_eq!((bench.sent_seqs(), bench.client.congestion_window()), (vec![2], 25));
}

#[test]
fn the_late_ack_of_a_first_transmission_says_nothing_of_what_was_sent_before_the_second() {
    let mut bench = Bench::in_flight(7);
    bench.wait(SECOND / 10);
    bench.ack(0, &[2, 3, 4], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [1]);
    // Too soon for an answer to the retransmission: 5, 6 and 7 may still come, as 1 did.
    bench.wait(1_000);
    bench.ack(4, &[], 64).unwrap();
    assert_eq!(bench.sent_seqs(), []);
    bench.wait(SECOND / 10);
    bench.ack(7, &[], 64).unwrap();
    assert_eq!(bench.client.stats().retransmissions, 1);
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut bench = Bench::new(Some(7));
    for seq in 1..50 {
        bench.send();
        assert_eq!(bench.sent_seqs(), [seq]);
        bench.ack(seq, &[], 64).unwrap();
        bench.events();
    }
    assert_eq!(bench.client.congestion_window(), 10);
    for _ in 0..16 {
        bench.send();
    }
    assert_eq!(bench.sent_seqs().len(), 10);
    bench.ack(59, &[], 64).unwrap();
    assert!(bench.client.congestion_window() > 10, "and one that is used does");
}

#[test]
fn an_answer_to_what_the_server_had_before_gives_no_round_trip_time() {
    // The ack that came in time was lost. What tells now is the answer to a copy that took its time,
    let answers_copy = || {
        let mut bench = Bench::in_flight(2);
        bench.wait(30 * SECOND);
        bench
    };
    // or to a PING, after a time without credit in which none got through.
    let answers_ping = || {
        let mut bench = Bench::in_flight(2);
        bench.ack(0, &[], 0).unwrap();
        for _ in 0..4 {
            bench.time_out();
            assert!(bench.is_ping());
        }
        bench
    };
    for mut bench in [answers_copy(), answers_ping()] {
        let rto_us = bench.client.rto_us();
        bench.receive(&Datagram::Ack(Ack { floor: Seq(2), duplicate: true, ..ACK })).unwrap();
        assert_eq!(acked(&bench.events()), [1, 2]);
        assert_eq!((bench.client.rtt_us(), bench.client.rto_us()), (None, rto_us), "an outage is no round trip");
    }
}

#[test]
fn a_message_sent_twice_gives_no_round_trip_time() {
    let mut bench = Bench::in_flight(1);
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    bench.wait(3_000);
    bench.ack(1, &[], 64).unwrap();
    assert_eq!(bench.client.rtt_us(), None);
    bench.send();
    bench.transmit();
    bench.wait(30_000);
    bench.receive(&Datagram::Ack(Ack { floor: Seq(2), delay_us: 10_000, ..ACK })).unwrap();
    assert_eq!(bench.client.rtt_us(), Some(20_000), "and the server's delay is not part of it");
}

#[test]
fn an_overtaken_acks_credit_is_out_of_date() {
    let mut bench = Bench::in_flight(6);
    bench.ack(3, &[], 10).unwrap();
    assert_eq!(bench.client.credit(), Some(10));
    bench.ack(1, &[], 1_000).unwrap();
    bench.ack(2, &[], 1_000).unwrap();
    assert_eq!(bench.client.credit(), Some(10));
    bench.ack(3, &[], 4).unwrap();
    assert_eq!(bench.client.credit(), Some(4), "credit may shrink");
    bench.ack(3, &[], 0).unwrap();
    assert_eq!(bench.client.credit(), Some(0));
}

#[test]
fn no_seq_beyond_the_credit_is_sent() {
    let mut bench = Bench::in_flight(4);
    bench.ack(1, &[3], 5).unwrap();
    for _ in 0..8 {
        bench.send();
    }
    assert_eq!(bench.sent_seqs(), [5, 6]);
    bench.ack(4, &[], 3).unwrap();
    assert_eq!(bench.sent_seqs(), [7]);
    bench.ack(4, &[], 9).unwrap();
    assert_eq!(bench.sent_seqs(), [8, 9, 10, 11, 12]);
}

#[test]
fn without_credit_only_pings_are_sent_until_there_is_some() {
    let mut bench = Bench::in_flight(2);
    bench.ack(2, &[], 0).unwrap();
    bench.events();
    bench.send();
    assert_eq!(bench.sent_seqs(), []);
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(bench.time_out());
        assert!(bench.is_ping());
        bench.ack(2, &[], 0).unwrap();
    }
    assert!(waits[3] > 4 * waits[0], "it asks less and less often: {waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 75 * SECOND), "{waits:?}");
    bench.ack(2, &[], 1).unwrap();
    assert_eq!(bench.sent_seqs(), [3]);
    assert!(bench.time_out() < 2 * SECOND, "waiting for credit is no reason to be slow afterwards");
}

#[test]
fn a_ping_that_a_server_without_the_session_answers_opens_the_window_again() {
    let mut bench = Bench::in_flight(2);
    bench.ack(2, &[], 0).unwrap();
    bench.send();
    bench.time_out();
    assert!(bench.is_ping());
    bench.receive(&Datagram::Ack(Ack { floor: Seq(0), credit: 64, duplicate: true, ..ACK })).unwrap();
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).seq, data(&sent[0]).base()), (Seq(3), Seq(3)));
}

#[test]
fn a_window_that_shrinks_below_what_is_in_flight_is_asked_about_before_sending_again() {
    let mut bench = Bench::in_flight(4);
    bench.ack(1, &[], 1).unwrap();
    // Seq 2 is within the credit, 3 and 4 are not any more.
    bench.ack(2, &[], 0).unwrap();
    for _ in 0..4 {
        bench.time_out();
        assert!(bench.is_ping());
    }
    bench.ack(2, &[], 1).unwrap();
    assert_eq!(bench.sent_seqs(), [3]);
    bench.ack(3, &[], 5).unwrap();
    assert_eq!(bench.sent_seqs(), [4]);
    bench.ack(4, &[], 5).unwrap();
    assert_eq!(acked(&bench.events()), [1, 2, 3, 4]);
}

#[test]
fn each_datagram_tells_the_lowest_seq_that_is_still_held() {
    let mut bench = Bench::in_flight(5);
    bench.ack(1, &[2, 4], 64).unwrap();
    bench.send();
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).seq, data(&sent[0]).base()), (Seq(6), Seq(3)));
    bench.wait(SECOND / 10);
    bench.ack(3, &[4, 6], 64).unwrap();
    bench.send();
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).seq, data(&sent[0]).base()), (Seq(7), Seq(5)));
}
