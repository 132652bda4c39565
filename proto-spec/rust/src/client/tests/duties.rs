//! The client's other duties: timers, HELLO, SKIP, memory (PROTOCOL.md#client-duties).

use std::vec;
use std::vec::Vec;

use super::super::{Client, ClientConfig, Event, FailReason, Ignored, MessageId, Outgoing, SendError, Slot};
use super::bench::{ACK, Bench, CLIENT, SECOND, acked, data};
use crate::codec::{Ack, Datagram, Reject, RejectCode};
use crate::{Epoch, Seq};

#[test]
fn silence_is_answered_by_ever_rarer_retransmissions_of_one_datagram() {
    let mut bench = Bench::in_flight(5);
    assert_eq!(bench.client.poll_timeout().map(|at| at >= SECOND), Some(true));
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(bench.time_out());
        let sent = bench.transmit();
        assert_eq!(sent.len(), 1);
        assert_eq!(data(&sent[0]).seq, Seq(1));
        assert_eq!(usize::from(data(&sent[0]).attempt), waits.len().min(7));
    }
    for pair in waits.windows(2).take(5) {
        assert!(pair[1] > pair[0] * 3 / 2, "{waits:?}");
    }
    assert!(waits.iter().all(|wait| *wait <= 75 * SECOND), "{waits:?}");
    assert_eq!(bench.client.congestion_window(), 1);
    // When it is over, all follow.
    bench.wait(SECOND / 10);
    bench.ack(1, &[], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [2, 3]);
    bench.wait(SECOND / 10);
    bench.ack(3, &[], 64).unwrap();
    assert_eq!(bench.sent_seqs(), [4, 5]);
    assert!(bench.time_out() < 2 * SECOND, "and the backoff begins anew");
}

#[test]
fn one_timeout_alone_does_not_shrink_the_congestion_window() {
    let mut bench = Bench::in_flight(5);
    let window = bench.client.congestion_window();
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [1]);
    assert_eq!(bench.client.congestion_window(), window);
    // Only the ack was lost: the server's answer to the retransmission tells it.
    bench.ack(5, &[], 64).unwrap();
    assert!(bench.client.is_idle());
}

#[test]
fn a_retransmission_repeats_its_seq_and_payload() {
    let mut bench = Bench::new(Some(7));
    let payload = b"\x03\0abc";
    bench.client.send(0, Outgoing { channel: 9, batch: true, payload }).unwrap();
    let first = bench.transmit();
    bench.time_out();
    let second = bench.transmit();
    let (first, second) = (data(&first[0]), data(&second[0]));
    assert_eq!(second, crate::codec::Data { attempt: 1, ..first });
    assert_eq!(second.payload, payload);
}

#[test]
fn early_and_repeated_calls_of_the_timeout_do_nothing() {
    let mut bench = Bench::in_flight(2);
    let at = bench.client.poll_timeout().unwrap();
    for _ in 0..3 {
        bench.client.handle_timeout(at - 1);
    }
    assert_eq!(bench.client.poll_timeout(), Some(at));
    assert_eq!(bench.sent_seqs(), []);
    bench.client.handle_timeout(at);
    bench.client.handle_timeout(at);
    assert_eq!(bench.client.stats().timeouts, 1);
}

#[test]
fn a_client_without_an_epoch_asks_when_it_has_something_to_send() {
    let mut bench = Bench::new(None);
    assert_eq!((bench.hello(), bench.client.poll_timeout()), (None, None));
    bench.send();
    let first = bench.hello().expect("a HELLO");
    assert_eq!(bench.hello(), None);
    for _ in 0..3 {
        bench.time_out();
        assert_eq!(bench.hello(), Some(first), "repeated as it was");
    }
    assert_eq!(bench.welcome(first.nonce ^ 1, 5), Err(Ignored::Unasked));
    bench.welcome(first.nonce, 5).unwrap();
    assert_eq!(bench.welcome(first.nonce, 6), Err(Ignored::Unasked));
    assert_eq!(bench.events(), [Event::EpochChanged { from: None, to: Epoch::new(5).unwrap() }]);
    assert_eq!(bench.client.credit(), Some(64));
    assert_eq!(bench.sent_seqs(), [1]);
}

#[test]
fn a_hello_refused_for_good_fails_what_waits_and_the_next_message_asks_again() {
    let mut bench = Bench::new(None);
    bench.send();
    bench.send();
    let refused = bench.hello().unwrap().nonce;
    let reject = Reject { client: CLIENT, epoch: 0, code: RejectCode::SealedOnly, refused, retry_after_ms: 0 };
    let wrong = Reject { refused: refused ^ 1, ..reject };
    assert_eq!(bench.receive(&Datagram::Reject(wrong)), Err(Ignored::NotInFlight));
    bench.receive(&Datagram::Reject(reject)).unwrap();
    let failed = |n| Event::Failed { message: MessageId(n), reason: FailReason::SealedOnly };
    assert_eq!(bench.events(), [failed(0), failed(1)]);
    assert_eq!(bench.client.poll_timeout(), None);
    bench.send();
    let nonce = bench.hello().expect("another HELLO").nonce;
    bench.welcome(nonce, 5).unwrap();
    // Nothing was transmitted before, so nothing was skipped.
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).seq, data(&sent[0]).skip), (Seq(1), false));
}

#[test]
fn no_epoch_is_asked_for_when_nothing_waits_for_one() {
    let mut bench = Bench::new(None);
    bench.send();
    assert!(bench.hello().is_some());
    bench.client.abandon_oldest();
    bench.time_out();
    assert_eq!((bench.hello(), bench.client.poll_timeout()), (None, None));
    bench.send();
    assert!(bench.hello().is_some());
}

#[test]
fn a_busy_server_is_asked_for_an_epoch_again_after_the_wait() {
    let mut bench = Bench::new(None);
    bench.send();
    let hello = bench.hello().unwrap();
    let refused = hello.nonce;
    let reject = Reject { client: CLIENT, epoch: 0, code: RejectCode::Busy, refused, retry_after_ms: 2_000 };
    bench.receive(&Datagram::Reject(reject)).unwrap();
    assert_eq!(bench.hello(), None);
    assert!(bench.time_out() >= 2 * SECOND);
    assert_eq!(bench.hello(), Some(hello));
}

#[test]
fn the_epoch_just_refused_is_not_taken_from_a_welcome() {
    let mut bench = Bench::new(None);
    bench.send();
    let nonce = bench.hello().unwrap().nonce;
    bench.welcome(nonce, 5).unwrap();
    bench.transmit();
    bench.reject(1, RejectCode::StaleEpoch, 0).unwrap();
    bench.time_out();
    let nonce = bench.hello().unwrap().nonce;
    assert_eq!(bench.welcome(nonce, 5), Err(Ignored::Unasked));
    bench.welcome(nonce, 4).unwrap();
    assert_eq!(bench.client.epoch(), Epoch::new(4));
}

#[test]
fn an_abandoned_message_is_skipped_until_the_floor_has_passed_it() {
    let mut bench = Bench::in_flight(3);
    assert_eq!(bench.client.abandon_oldest(), Some(MessageId(0)));
    assert_eq!(bench.events(), [Event::Abandoned { message: MessageId(0) }]);
    bench.send();
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).seq.0, data(&sent[0]).base().0, data(&sent[0]).skip), (4, 2, true));
    bench.ack(0, &[2, 3], 64).unwrap();
    bench.send();
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).seq.0, data(&sent[0]).base().0, data(&sent[0]).skip), (5, 4, true));
    bench.ack(3, &[4], 64).unwrap();
    bench.send();
    assert!(!data(&bench.transmit()[0]).skip);
}

#[test]
fn a_message_abandoned_before_it_was_sent_leaves_no_hole() {
    let mut bench = Bench::new(Some(7));
    for _ in 0..12 {
        bench.send();
    }
    assert_eq!(bench.sent_seqs().len(), 10, "the first congestion window");
    for n in 0..11 {
        assert_eq!(bench.client.abandon_oldest(), Some(MessageId(n)));
    }
    assert_eq!(bench.events().len(), 11);
    let sent = bench.transmit();
    assert_eq!((data(&sent[0]).seq.0, data(&sent[0]).span, data(&sent[0]).skip), (11, 0, true));
    assert_eq!(bench.client.abandon_oldest(), Some(MessageId(11)));
    assert_eq!(bench.client.abandon_oldest(), None);
    assert!(bench.client.is_idle());
    // The timer of what was in flight finds nothing to do.
    if let Some(at) = bench.client.poll_timeout() {
        bench.client.handle_timeout(at);
    }
    assert_eq!((bench.client.poll_timeout(), bench.client.stats().timeouts), (None, 0));
}

#[test]
fn giving_messages_up_in_silence_sends_none_sooner() {
    let mut bench = Bench::in_flight(3);
    for _ in 0..4 {
        bench.time_out();
        assert_eq!(bench.sent_seqs(), [1]);
    }
    let due = bench.client.poll_timeout().unwrap();
    bench.client.abandon_oldest();
    bench.client.abandon_oldest();
    bench.send();
    assert_eq!(bench.sent_seqs(), []);
    assert_eq!(bench.client.poll_timeout(), Some(due));
    bench.time_out();
    assert_eq!(bench.sent_seqs(), [3]);
    // With nothing left the wait still runs out; after it a new message goes out at once.
    while bench.client.abandon_oldest().is_some() {}
    bench.events();
    bench.time_out();
    assert_eq!((bench.client.poll_timeout(), bench.client.stats().timeouts), (None, 5));
    bench.send();
    assert_eq!(bench.sent_seqs(), [4]);
}

#[test]
fn anything_heard_from_the_server_ends_the_silence() {
    let mut bench = Bench::in_flight(3);
    for _ in 0..4 {
        bench.time_out();
        bench.transmit();
    }
    bench.reject(1, RejectCode::Channel, 0).unwrap();
    assert_eq!(bench.sent_seqs(), [2]);
}

#[test]
fn a_late_ack_of_an_abandoned_message_is_no_second_outcome() {
    let mut bench = Bench::in_flight(2);
    bench.client.abandon_oldest();
    bench.ack(2, &[], 64).unwrap();
    let events = bench.events();
    assert_eq!(events[0], Event::Abandoned { message: MessageId(0) });
    assert_eq!(acked(&events[1..]), [2]);
}

#[test]
fn what_cannot_be_taken_says_why_and_changes_nothing() {
    let mut client = Client::new(ClientConfig::new(CLIENT, Epoch::new(7)), [Slot::EMPTY; 2], [0u8; 100], 1);
    assert_eq!(client.payload_len_max(), 100);
    let mut send = |batch, payload: &[u8]| client.send(0, Outgoing { channel: 0, batch, payload });
    assert_eq!(send(false, &[0; 101]), Err(SendError::TooLarge));
    for broken in [&b""[..], b"\x01", b"\x02\0a", b"\x01\0ab"] {
        assert_eq!(send(true, broken), Err(SendError::BrokenBatch));
    }
    assert_eq!(send(false, &[0; 60]), Ok(MessageId(0)));
    assert_eq!(send(false, &[0; 41]), Err(SendError::Full), "of bytes");
    assert_eq!(send(false, &[0; 40]), Ok(MessageId(1)));
    assert_eq!(send(false, &[]), Err(SendError::Full), "of slots");
    let mut none = Client::new(ClientConfig::new(CLIENT, Epoch::new(7)), [], [0u8; 0], 1);
    assert_eq!(none.send(0, Outgoing { channel: 0, batch: false, payload: &[] }), Err(SendError::Full));
    assert_eq!(none.poll_transmit(0, &mut [0; 1_200]), None);
    assert_eq!((none.abandon_oldest(), none.poll_event(), none.poll_timeout()), (None, None, None));
}

#[test]
fn a_slot_is_free_again_when_its_event_was_taken() {
    let mut bench = Bench::with(ClientConfig::new(CLIENT, Epoch::new(7)), 2);
    bench.send();
    bench.send();
    bench.transmit();
    bench.ack(2, &[], 64).unwrap();
    let next = Outgoing { channel: 0, batch: false, payload: &[] };
    assert_eq!(bench.client.send(0, next), Err(SendError::Full));
    assert!(bench.client.poll_event().is_some());
    assert_eq!(bench.client.send(0, next), Ok(MessageId(2)));
}

#[test]
fn a_datagram_is_never_longer_than_configured() {
    let mut config = ClientConfig::new(CLIENT, Epoch::new(7));
    config.datagram_len_max = 50;
    let mut client = Client::new(config, vec![Slot::EMPTY; 4], vec![0; 1_000], 1);
    assert_eq!(client.payload_len_max(), 18);
    client.send(0, Outgoing { channel: 0, batch: false, payload: &[1; 18] }).unwrap();
    assert_eq!(client.poll_transmit(0, &mut [0; 49]), None, "the buffer is too short, nothing is lost");
    assert_eq!(client.poll_transmit(0, &mut [0; 50]), Some(50));
}

#[test]
fn another_path_is_tried_at_once() {
    let mut bench = Bench::in_flight(3);
    for _ in 0..6 {
        bench.time_out();
        bench.transmit();
    }
    bench.reject(1, RejectCode::Busy, 60_000).unwrap();
    assert_eq!(bench.sent_seqs(), []);
    bench.client.path_changed(bench.now_us);
    assert_eq!(bench.sent_seqs(), [1, 2, 3]);
    let wait = bench.client.poll_timeout().unwrap() - bench.now_us;
    assert!(wait < 2 * SECOND, "and the backoff begins anew: {wait}");
}

#[test]
fn the_window_is_span_wide_however_many_slots_there_are() {
    let config = ClientConfig { window_initial: u32::MAX, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let mut client = Client::new(config, vec![Slot::EMPTY; 70_000], vec![0; 70_000], 1);
    let message = Outgoing { channel: 0, batch: false, payload: &[1] };
    let taken = (0..70_000).take_while(|_| client.send(0, message).is_ok()).count();
    assert_eq!(taken, 65_536);
    let mut out = [0; 1_200];
    let mut last = 0;
    while let Some(len) = client.poll_transmit(0, &mut out) {
        let data = data(&out[..len]);
        assert_eq!(data.base(), Seq(1));
        last = data.seq.0;
    }
    assert_eq!(last, 65_536);
    let ack = super::model_server::encode(&Datagram::Ack(Ack { floor: Seq(65_536), ..ACK }));
    client.handle_datagram(SECOND, &mut ack.clone()).unwrap();
    assert_eq!(core::iter::from_fn(|| client.poll_event()).count(), 65_536);
}
