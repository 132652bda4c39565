//! Attacks on asks and answers of sealed clients (PROTOCOL.md#sealed-threats): read on the way, forged, recorded, played back, led
//! elsewhere.

use duragram_proto::codec::AnswerStatus::{self, Done, Gone, Pending};
use duragram_proto::codec::{Datagram, RejectCode, Take};

use super::{KEYS, Sealed, count, home, opened};
use crate::common::PATIENCE;
use crate::common::server::{Home, Server};
use crate::common::service::Service;
use crate::common::wire::{Answered, BURST, Is, Reply, Wire};

/// A server with keys, and a service that answers its clients.
struct Place {
    server: Server,
    service: Service,
    _home: Home,
}

impl Place {
    fn new(toml: &str) -> Self {
        let service = Service::start();
        let home = home(KEYS, toml);
        let server = home.serve_sinks(&[&service.sink()]);
        Self { server, service, _home: home }
    }
}

fn answered(reply: &Reply) -> &Answered {
    match &reply.is {
        Is::Answer(answer) => answer,
        other => panic!("not an ANSWER: {other:?}"),
    }
}

fn next(client: &Sealed) -> (u64, AnswerStatus) {
    let reply = opened(&client.receive(PATIENCE).expect("an ANSWER"));
    (answered(&reply).seq, answered(&reply).status)
}

#[test]
fn a_sealed_answer_is_had_whole_and_cannot_be_read_on_the_way() {
    let place = Place::new("");
    let client = Sealed::new(&place.server, 1, 7);
    assert_eq!(client.ask_ack(&client.asking(1, b"a secret order")), 1);
    let take = client.take(1, 0, u32::MAX);
    client.send(&take);
    let bytes = client.receive(PATIENCE).expect("an ANSWER");
    assert!(bytes.len() <= take.len(), "{} bytes to {}", bytes.len(), take.len());
    assert!(!bytes.windows(6).any(|part| part == b"SECRET"), "{bytes:02x?}");
    let reply = opened(&bytes);
    assert_eq!(answered(&reply).said(), (Done, "A SECRET ORDER".to_owned()));
    // Without room it is the length alone.
    let reply = client.ask(&client.seal(&Datagram::Take(Take { room: 0, ..client.take_of(1, 0, 0) })));
    assert_eq!((answered(&reply).number, answered(&reply).body.len()), (14, 0));
    assert_eq!(next_after(&client, client.take(2, 0, 0)), (2, Gone));
    assert_eq!(next_after(&client, client.take(1, 0, 0)), (1, Gone), "it is had");
}

fn next_after(client: &Sealed, bytes: Vec<u8>) -> (u64, AnswerStatus) {
    client.send(&bytes);
    next(client)
}

#[test]
fn each_byte_of_a_sealed_take_flipped_and_each_truncation_is_dropped_and_forgets_nothing() {
    let place = Place::new("");
    let (client, other) = (Sealed::new(&place.server, 1, 7), Sealed::new(&place.server, 2, 7));
    assert_eq!(client.ask_ack(&client.asking(1, b"open")), 1);
    assert_eq!(next_after(&client, client.take(1, 0, u32::MAX)), (1, Done));
    // What would forget the answer, if it were good.
    let good = client.take(2, 0, 0);
    let mut attacks: Vec<Vec<u8>> = (0..good.len()).map(|at| good[..at].to_vec()).collect();
    for at in 0..good.len() {
        for bits in [0x01, 0x08, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= bits;
            attacks.push(bad);
        }
    }
    let mut named = other.take(2, 0, 0);
    named[8..16].copy_from_slice(&1u64.to_le_bytes());
    attacks.push(named);
    for burst in attacks.chunks(BURST) {
        burst.iter().for_each(|bad| client.send(bad));
        assert_eq!(client.settle(), []);
    }
    assert_eq!(next_after(&client, client.take(1, 0, 0)), (1, Done));
    assert_eq!(next_after(&client, good), (2, Gone), "the good one is played last");
    assert_eq!(next_after(&client, client.take(1, 0, 0)), (1, Gone));
}

#[test]
fn a_recorded_take_is_not_held_ends_no_hold_and_draws_its_answer_to_the_client() {
    let place = Place::new("");
    let (client, attacker) = (Sealed::new(&place.server, 1, 7), Sealed::new(&place.server, 1, 7));
    place.service.hold(b"slow");
    assert_eq!(client.ask_ack(&client.asking(1, b"slow")), 1);
    let (old, newest) = (client.take(1, 0, u32::MAX), client.take(1, 0, u32::MAX));
    client.send(&newest);
    assert_eq!(client.settle(), [], "held");
    for recorded in [&old, &newest, &old] {
        attacker.send(recorded);
        let reply = opened(&client.receive(PATIENCE).expect("an ANSWER"));
        assert_eq!((answered(&reply).status, answered(&reply).number >= 1_000), (Pending, true));
    }
    place.service.release(b"slow");
    assert_eq!(next(&client), (1, Done), "the hold has outlived them");
    for recorded in [&old, &newest] {
        attacker.send(recorded);
        assert_eq!(next(&client), (1, Done), "one ANSWER each, and to the client's own address");
    }
    assert_eq!(client.settle(), []);
    assert_eq!(attacker.receive(std::time::Duration::from_millis(50)), None);
}

#[test]
fn an_answer_goes_where_the_acks_went_when_its_take_came() {
    let place = Place::new("");
    let client = Sealed::new(&place.server, 1, 7);
    place.service.hold(b"slow");
    assert_eq!(client.ask_ack(&client.asking(1, b"slow")), 1);
    client.send(&client.take(1, 0, u32::MAX));
    assert_eq!(client.settle(), []);
    let moved = Sealed { counter: client.counter.clone(), ..Sealed::new(&place.server, 1, 7) };
    assert_eq!(moved.ask_ack(&moved.data(2, b"from elsewhere")), 2);
    place.service.release(b"slow");
    assert_eq!(next(&client), (1, Done));
    // The next one moves with the client.
    assert_eq!(next_after(&moved, moved.take(1, 0, 0)), (1, Done));
    assert_eq!(client.receive(std::time::Duration::from_millis(50)), None);
}

#[test]
fn a_take_that_was_recorded_in_full_forgets_nothing_that_was_asked_since() {
    let place = Place::new("");
    let client = Sealed::new(&place.server, 1, 7);
    assert_eq!(client.ask_ack(&client.asking(1, b"one")), 1);
    let recorded = client.take(2, 0, 0);
    assert_eq!(next_after(&client, recorded.clone()), (2, Gone));
    assert_eq!(client.ask_ack(&client.asking(2, b"two")), 2);
    client.send(&recorded);
    assert_eq!(next(&client).0, 2);
    let reply = client.ask(&client.take(2, 0, u32::MAX));
    assert_eq!(answered(&reply).said(), (Done, "TWO".to_owned()));
}

#[test]
fn a_plain_take_reads_and_erases_nothing_of_a_sealed_client() {
    for toml in ["", "allow_plain = true\n"] {
        let place = Place::new(toml);
        let client = Sealed::new(&place.server, 1, 7);
        assert_eq!(client.ask_ack(&client.asking(1, b"open")), 1);
        assert_eq!(next_after(&client, client.take(1, 0, u32::MAX)), (1, Done));
        let plain = Wire::in_epoch(&place.server, 1, 7);
        for seq in [1, 2] {
            plain.send_take(plain.take(seq, 0));
            let reject = plain.reject();
            assert_eq!((reject.code, reject.refused, reject.epoch), (RejectCode::SealedOnly, 0, 7), "{toml}");
        }
        assert_eq!(next_after(&client, client.take(1, 0, 0)), (1, Done), "{toml}");
        assert_eq!(count(&place.server, "sealed_only"), 2.0);
    }
}

#[test]
fn an_answer_that_comes_back_to_the_server_is_dropped() {
    let place = Place::new("");
    let client = Sealed::new(&place.server, 1, 7);
    assert_eq!(client.ask_ack(&client.asking(1, b"open")), 1);
    client.send(&client.take(1, 0, u32::MAX));
    let mut answer = client.receive(PATIENCE).expect("an ANSWER");
    client.send(&answer);
    // As if it were a TAKE under the same seal.
    answer[0] = 0x18;
    client.send(&answer);
    assert_eq!(client.settle(), []);
    let dropped = ["malformed", "bad_seal"].map(|outcome| count(&place.server, outcome)).iter().sum::<f64>();
    assert_eq!((count(&place.server, "wrong_direction"), dropped), (1.0, 1.0));
}

#[test]
fn plain_asks_beside_sealed_ones_get_at_most_half_of_the_room() {
    let place = Place::new("allow_plain = true\nasks_max = 4\n");
    place.service.hold(b"slow");
    for (client, taken) in [(0x71, true), (0x72, true), (0x73, false)] {
        let plain = Wire::new(&place.server, client);
        let reply = plain.ask(&plain.asking(1, b"slow"));
        assert_eq!(matches!(reply.is, Is::Ack(_)), taken, "{reply:?}");
    }
    let sealed = Sealed::new(&place.server, 1, 7);
    for seq in 1..=2 {
        assert_eq!(sealed.ask_ack(&sealed.asking(seq, b"slow")), seq);
    }
    assert!(
        matches!(&sealed.ask(&sealed.asking(3, b"slow")).is, Is::Reject(reject) if reject.code == RejectCode::Busy)
    );
    // A stranger's TAKE says nothing of another.
    let stranger = Wire::new(&place.server, 0x74);
    assert_eq!(stranger.taken(stranger.take(1, 0)).status, Gone);
}
