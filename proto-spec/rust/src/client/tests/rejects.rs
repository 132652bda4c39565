//! REJECT, code by code, and the changes of epoch that follow (PROTOCOL.md#reject-codes).

use std::vec;
use std::vec::Vec;

use super::super::{ClientConfig, Event, FailReason, Ignored, MessageId};
use super::bench::{ACK, Bench, CLIENT, SECOND, acked, data};
use crate::codec::{Ack, Datagram, Reject, RejectCode};
use crate::{Epoch, Seq};

const FINAL: [(RejectCode, FailReason); 5] = [
    (RejectCode::Version, FailReason::Version),
    (RejectCode::Unsupported, FailReason::Unsupported),
    (RejectCode::TooLarge, FailReason::TooLarge),
    (RejectCode::Channel, FailReason::Channel),
    (RejectCode::SealedOnly, FailReason::SealedOnly),
];

#[test]
fn a_final_code_fails_its_message_and_the_others_go_on() {
    for (code, reason) in FINAL {
        let mut bench = Bench::in_flight(3);
        bench.reject(2, code, 0).unwrap();
        assert_eq!(bench.events(), [Event::Failed { message: MessageId(1), reason }]);
        assert_eq!(bench.reject(2, code, 0), Err(Ignored::NotInFlight));
        assert_eq!(bench.client.queued(), 2);
        bench.ack(1, &[3], 64).unwrap();
        assert_eq!(acked(&bench.events()), [1, 3]);
        // The server's floor is still below the refused seq: the next datagram says that it will never come.
        bench.send();
        let sent = bench.transmit();
        assert_eq!((data(&sent[0]).seq.0, data(&sent[0]).base().0, data(&sent[0]).skip), (4, 4, true));
        bench.ack(4, &[], 64).unwrap();
        bench.send();
        assert!(!data(&bench.transmit()[0]).skip, "{code:?}: the floor has passed the refused seq");
    }
}

#[test]
fn a_final_code_in_answer_to_a_ping_fails_all_that_waits() {
    for (code, reason) in FINAL {
        let mut bench = Bench::in_flight(2);
        bench.ack(2, &[], 0).unwrap();
        assert_eq!(acked(&bench.events()), [1, 2]);
        // Without credit it can but ask.
        bench.send();
        bench.send();
        assert_eq!(bench.sent_seqs(), []);
        bench.time_out();
        assert!(bench.is_ping());
        bench.reject(0, code, 0).unwrap();
        let failed = |id| Event::Failed { message: MessageId(id), reason };
        assert_eq!(bench.events(), [failed(2), failed(3)], "{code:?}: none is named, and each would get the same");
        assert!(bench.client.is_idle() && bench.transmit().is_empty());
        assert_eq!(bench.reject(0, code, 0), Err(Ignored::NotInFlight), "the PING was answered");
        assert_eq!(bench.client.poll_timeout(), None);
    }
}

#[test]
fn a_datagram_that_claims_nothing_of_a_refused_seq_does_not_say_skip() {
    let mut bench = Bench::in_flight(3);
    bench.reject(2, RejectCode::Channel, 0).unwrap();
    bench.send();
    // Seq 1 is still held, so the refused seq 2 is not below the base.
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).base().0, data(&sent[0]).skip), (1, false));
}

#[test]
fn a_server_of_another_version_is_understood() {
    let mut bench = Bench::in_flight(1);
    let code = RejectCode::Version;
    let reject = Reject { client: CLIENT, epoch: 7, code, refused: 1, retry_after_ms: 0 };
    let mut bytes = super::model_server::encode(&Datagram::Reject(reject));
    bytes[0] = 0x23;
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
    bench.client.handle_datagram(0, &mut bytes.clone()).unwrap();
    assert_eq!(bench.events(), [Event::Failed { message: MessageId(0), reason: FailReason::Version }]);
}

#[test]
fn a_reject_that_matches_nothing_in_flight_is_ignored() {
    let mut bench = Bench::in_flight(2);
    let reject = Reject { client: CLIENT, epoch: 7, code: RejectCode::StaleEpoch, refused: 1, retry_after_ms: 0 };
    let ignored = |bench: &mut Bench, reject| bench.receive(&Datagram::Reject(reject)).unwrap_err();
    let other = crate::ClientId(5);
    assert_eq!(ignored(&mut bench, Reject { client: other, ..reject }), Ignored::OtherClient);
    assert_eq!(ignored(&mut bench, Reject { epoch: 6, ..reject }), Ignored::OtherEpoch);
    assert_eq!(ignored(&mut bench, Reject { epoch: 0, ..reject }), Ignored::OtherEpoch);
    for refused in [0, 3, u64::MAX] {
        assert_eq!(ignored(&mut bench, Reject { refused, ..reject }), Ignored::NotInFlight);
    }
    bench.ack(1, &[], 64).unwrap();
    assert_eq!(ignored(&mut bench, reject), Ignored::NotInFlight);
    assert_eq!(bench.client.epoch(), Epoch::new(7));
}

#[test]
fn busy_and_storage_and_unknown_codes_wait_as_long_as_the_server_says() {
    for code in [RejectCode::Busy, RejectCode::Storage, RejectCode::Unknown(4_711)] {
        let mut bench = Bench::in_flight(3);
        bench.reject(1, code, 5_000).unwrap();
        bench.reject(2, code, 9_000).unwrap();
        let events = bench.events();
        let [Event::ServerWaits { code: told, until_us }] = events[..] else { panic!("{events:?}") };
        assert_eq!(told, code);
        assert!((5 * SECOND..=5 * SECOND + 5 * SECOND / 2).contains(&until_us), "{until_us}");
        bench.send();
        assert_eq!(bench.sent_seqs(), []);
        // What was taken before counts all the same.
        bench.ack(0, &[3], 64).unwrap();
        assert_eq!(acked(&bench.events()), [3]);
        assert_eq!(bench.sent_seqs(), []);
        assert_eq!(bench.now_us + bench.time_out(), until_us);
        // One datagram asks whether it goes on; then all that waited follows.
        assert_eq!(bench.sent_seqs(), [1]);
        bench.ack(1, &[3], 64).unwrap();
        assert_eq!(bench.sent_seqs(), [2, 4]);
    }
}

#[test]
fn a_wait_is_bounded_whatever_the_server_says_and_doubles_when_it_does_not_say() {
    let mut bench = Bench::in_flight(1);
    bench.reject(1, RejectCode::Busy, u32::MAX).unwrap();
    let wait = bench.client.poll_timeout().unwrap();
    assert!(wait <= 90 * SECOND, "{wait}");
    let mut waits = Vec::new();
    for _ in 0..10 {
        bench.time_out();
        assert_eq!(bench.sent_seqs(), [1]);
        bench.reject(1, RejectCode::Busy, 0).unwrap();
        waits.push(bench.client.poll_timeout().unwrap() - bench.now_us);
    }
    assert!(waits[0] >= SECOND && waits[2] > 2 * waits[0], "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 75 * SECOND), "{waits:?}");
}

#[test]
fn beyond_window_is_sent_again_when_an_ack_gives_the_credit() {
    let mut bench = Bench::in_flight(4);
    let window = bench.client.congestion_window();
    bench.reject(4, RejectCode::BeyondWindow, 0).unwrap();
    bench.reject(3, RejectCode::BeyondWindow, 0).unwrap();
    assert_eq!(bench.client.credit(), Some(2));
    assert_eq!(bench.sent_seqs(), []);
    bench.ack(1, &[], 2).unwrap();
    assert_eq!(bench.sent_seqs(), [3]);
    bench.ack(3, &[], 2).unwrap();
    assert_eq!(bench.sent_seqs(), [4]);
    assert!(bench.client.congestion_window() >= window, "it says nothing of the path");
}

#[test]
fn a_run_of_refused_messages_as_long_as_the_window_does_not_stop_the_next_one() {
    for hello in [false, true] {
        let mut bench = Bench::new((!hello).then_some(7));
        bench.send();
        if hello {
            let (nonce, epoch) = (bench.hello().unwrap().nonce, Epoch::new(7).unwrap());
            let welcome = crate::codec::Welcome { client: CLIENT, epoch, credit: 2, nonce };
            bench.receive(&Datagram::Welcome(welcome)).unwrap();
        }
        assert_eq!(bench.sent_seqs(), [1]);
        bench.ack(1, &[], 2).unwrap();
        // The server's window is 2, as far as is known: over two refused seqs it moves its floor, not over three.
        for seq in 2..5 {
            bench.events();
            bench.send();
            assert_eq!(bench.sent_seqs(), [seq]);
            bench.reject(seq, RejectCode::Channel, 0).unwrap();
        }
        bench.events();
        bench.send();
        let sent = bench.transmit();
        assert_eq!(sent.len(), 1);
        match crate::codec::decode(&sent[0]).unwrap() {
            Datagram::Hello(_) => assert!(hello),
            Datagram::Data(data) => {
                assert_eq!((data.epoch.value(), data.seq.0, data.skip, hello), (8, 1, false, false))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn beyond_window_with_nothing_left_in_flight_asks_by_ping() {
    let mut bench = Bench::in_flight(1);
    bench.reject(1, RejectCode::BeyondWindow, 0).unwrap();
    bench.time_out();
    assert!(bench.is_ping());
    bench.ack(0, &[], 8).unwrap();
    assert_eq!(bench.sent_seqs(), [1]);
}

#[test]
fn a_stale_epoch_is_followed_by_the_next_with_new_seqs_for_what_is_unacked() {
    let mut bench = Bench::in_flight(5);
    bench.ack(1, &[3], 64).unwrap();
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [2]);
    bench.reject(4, RejectCode::Channel, 0).unwrap();
    bench.reject(2, RejectCode::StaleEpoch, 0).unwrap();
    let (from, to) = (Epoch::new(7), Epoch::new(8).unwrap());
    let events = bench.events();
    assert!(events.contains(&Event::EpochChanged { from, to }), "{events:?}");
    assert_eq!(events.len(), 4, "and the events of the three that ended before are not lost: {events:?}");
    let sent = bench.transmit();
    let told: Vec<_> =
        sent.iter().map(|bytes| data(bytes)).map(|d| (d.epoch.value(), d.seq.0, d.span, d.skip)).collect();
    assert_eq!(told, [(8, 1, 0, false), (8, 2, 1, false)]);
    assert!(sent.iter().all(|bytes| data(bytes).attempt == 0));
    // The old session's acks are out of date, as the new one numbers others.
    assert_eq!(bench.receive(&Datagram::Ack(Ack { floor: Seq(5), ..ACK })), Err(Ignored::OtherEpoch));
    bench.ack(2, &[], 64).unwrap();
    let ids: Vec<_> = bench
        .events()
        .iter()
        .map(|event| match event {
            Event::Acked { message, epoch, .. } => (message.0, epoch.value()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [(1, 8), (4, 8)], "a message keeps its id");
}

#[test]
fn what_the_acks_of_one_session_told_says_nothing_of_the_next() {
    let mut bench = Bench::in_flight(7);
    bench.ack(3, &[5], 64).unwrap();
    bench.reject(4, RejectCode::StaleEpoch, 0).unwrap();
    bench.events();
    for _ in 0..4 {
        bench.send();
    }
    assert_eq!(bench.sent_seqs(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(bench.client.credit(), Some(64), "but its credit is the best guess");
    bench.ack(0, &[2], 9).unwrap();
    assert_eq!(bench.client.credit(), Some(9));
    bench.ack(3, &[5], 9).unwrap();
    assert_eq!(acked(&bench.events()), [2, 1, 3, 5]);
}

#[test]
fn with_a_clock_the_next_epoch_is_at_least_the_unix_time() {
    let mut config = ClientConfig::new(CLIENT, Epoch::new(7));
    config.unix_us_at_zero = Some(1_800_000_000 * SECOND);
    let mut bench = Bench::with(config, 4);
    bench.send();
    bench.transmit();
    bench.wait(3 * SECOND);
    bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
    assert_eq!(bench.client.epoch(), Epoch::new(1_800_000_003));
}

#[test]
fn a_client_whose_next_epoch_is_stale_too_asks_the_server() {
    let mut bench = Bench::in_flight(2);
    bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
    assert_eq!(bench.sent_seqs(), [1, 2]);
    bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
    let hello = bench.hello().expect("it asks at once");
    bench.welcome(hello.nonce, 500).unwrap();
    assert_eq!(bench.sent_seqs(), [1, 2]);
    assert_eq!(bench.client.epoch(), Epoch::new(500));
    // A server that refuses what it has just given is asked less and less often.
    let mut waits = Vec::new();
    for epoch in 501..505 {
        bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
        assert_eq!(bench.hello(), None);
        waits.push(bench.time_out());
        let hello = bench.hello().expect("it asks after a wait");
        bench.welcome(hello.nonce, epoch).unwrap();
        bench.transmit();
    }
    assert!(waits[0] >= SECOND && waits.is_sorted() && waits[3] > 4 * waits[0], "{waits:?}");
}

#[test]
fn an_epoch_that_was_of_use_counts_as_the_first_one() {
    let mut bench = Bench::in_flight(2);
    bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
    assert_eq!((bench.client.epoch(), bench.sent_seqs()), (Epoch::new(8), vec![1, 2]));
    bench.ack(1, &[], 64).unwrap();
    bench.reject(2, RejectCode::StaleEpoch, 0).unwrap();
    assert_eq!((bench.client.epoch(), bench.sent_seqs()), (Epoch::new(9), vec![1]));
    bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
    assert_eq!((bench.client.epoch(), bench.sent_seqs()), (Epoch::new(10), vec![1]));
    bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
    assert!(bench.hello().is_some());
}

#[test]
fn late_acks_of_a_session_count_while_the_next_epoch_is_asked_for() {
    let mut bench = Bench::new(None);
    for _ in 0..3 {
        bench.send();
    }
    let nonce = bench.hello().unwrap().nonce;
    bench.welcome(nonce, 7).unwrap();
    assert_eq!(bench.sent_seqs(), [1, 2, 3]);
    bench.reject(2, RejectCode::StaleEpoch, 0).unwrap();
    let hello = bench.hello().expect("a HELLO");
    assert_ne!(hello.nonce, nonce);
    bench.ack(0, &[3], 64).unwrap();
    bench.welcome(hello.nonce, 9).unwrap();
    let sent = bench.transmit();
    assert_eq!(sent.len(), 2, "the third was acked in the old session");
    assert_eq!(bench.events().len(), 2);
}

#[test]
fn what_got_no_answer_before_a_wait_does_not_keep_the_first_datagram_after_it_back() {
    let mut bench = Bench::in_flight(5);
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    // The server refused all of them, and one of its answers has come.
    bench.reject(3, RejectCode::Busy, 100).unwrap();
    assert!(bench.time_out() <= 150_000);
    assert_eq!(bench.sent_seqs(), [1]);
    bench.ack(1, &[], 64).unwrap();
    assert_eq!((bench.sent_seqs(), bench.client.stats().losses), (vec![2, 3], 0));
}
