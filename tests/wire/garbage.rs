//! Raw UDP against the real binary: what is dropped in silence and counted, and what no datagram can do
//! (PROTOCOL.md#silence, PROTOCOL.md#no-amplification).

use std::collections::HashMap;

use crate::common::server::Home;
use crate::common::wire::{BURST, Wire, batch_of, bytes_of, fix_crc};
use duragram_proto::codec::{
    Ack, Answer, AnswerStatus, Data, Datagram, Durability, HEADER_LEN, Hello, MIN_LEN, Ping, Reject, RejectCode,
    Welcome,
};
use duragram_proto::{ClientId, Seq};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What becomes of a datagram that is not answered, in `duragram_datagrams_total`.
const DROPPED: [&str; 6] = ["truncated", "checksum", "malformed", "unknown_type", "wrong_direction", "sealed"];

/// Sends each, hears nothing, finds each counted under one of the outcomes, and nothing journaled.
fn all_are_dropped(datagrams: &[Vec<u8>], outcomes: &[&str]) {
    let home = Home::with_config("sessions_max = 1\n");
    let server = home.serve();
    let wire = Wire::new(&server, 0xf1);
    for burst in datagrams.chunks(BURST) {
        burst.iter().for_each(|datagram| wire.send_bytes(datagram));
        wire.assert_silence_so_far();
    }
    wire.assert_silence();
    let count = |outcome: &&str| server.metric("duragram_datagrams_total", &format!("\"{outcome}\""));
    assert_eq!(outcomes.iter().map(count).sum::<f64>(), datagrams.len() as f64, "each is counted as {outcomes:?}");
    assert_eq!(DROPPED.iter().map(count).sum::<f64>(), datagrams.len() as f64, "and as nothing else");
    let other = Wire::new(&server, 0xf0);
    assert_eq!(other.ask_ack(&other.data(1, b"sentinel")).floor, 1, "the one session's place is free");
    let lines = home.wait_lines(1);
    assert_eq!((lines.len(), lines[0].offset), (1, 0), "none is journaled");
}

/// A good message of the client that `all_are_dropped` uses, with 40 bytes of payload.
fn good() -> Vec<u8> {
    bytes_of(&Datagram::Data(Data::whole(
        ClientId(0xf1),
        duragram_proto::Epoch::new(1).unwrap(),
        Seq(3),
        2,
        &[b'x'; 40],
    )))
}

/// The good message with other bytes at a place, and a valid trailer.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut datagram = good();
    datagram[at..at + bytes.len()].copy_from_slice(bytes);
    fix_crc(&mut datagram);
    datagram
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut datagrams = Vec::new();
    for bit in 0..good().len() * 8 {
        let mut datagram = good();
        datagram[bit / 8] ^= 1 << (bit % 8);
        datagrams.push(datagram);
    }
    all_are_dropped(&datagrams, &["checksum", "sealed"]);
}

#[test]
fn every_truncation_is_noticed() {
    let good = good();
    let datagrams: Vec<_> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    all_are_dropped(&datagrams, &["truncated", "checksum"]);
}

#[test]
fn foreign_traffic_is_not_answered() {
    let dns = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0, 0, 1, 0, 1];
    let datagrams = [
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
        dns.to_vec(),
        vec![0; 1200],
        vec![0xff; 1200],
        b"<34>1 2026-01-01T00:00:00Z host app - - - a syslog line that is longer than our header".to_vec(),
    ];
    all_are_dropped(&datagrams, &["truncated", "checksum"]);
}

#[test]
fn impossible_fields_are_dropped() {
    let malformed = [
        with(4, &[0, 0, 0, 0]), // epoch 0
        with(16, &[0; 8]),      // seq 0
        with(2, &[3, 0]),       // span = seq
        with(2, &[0xff, 0xff]), // span > seq
        with(0, &[0x14]),       // HELLO with a tail
        with(0, &[0x16]),       // PING with a tail
        with(0, &[0x18]),       // TAKE with flags, and with room that is not zeros
        with(0, &[0x17]),       // ANSWER with flags, and with a body that its length does not have
    ];
    all_are_dropped(&malformed, &["malformed"]);
    all_are_dropped(&[with(1, &[0b0011_1000])], &["sealed"]);
    let unassigned: Vec<_> = [0, 9, 15].iter().map(|kind| with(0, &[0x10 | kind])).collect();
    all_are_dropped(&unassigned, &["unknown_type"]);
}

#[test]
fn broken_batches_are_dropped_whole() {
    let whole = batch_of(&[b"one", b"two"]);
    let payloads: Vec<Vec<u8>> = vec![
        vec![],                                           // no record
        vec![1],                                          // half a length
        vec![2, 0, b'x'],                                 // a record cut short
        [whole.as_slice(), &[0]].concat(),                // half a length after good records
        [whole.as_slice(), &[1, 0]].concat(),             // a record missing after good records
        [whole.as_slice(), &[0xff, 0xff, b'x']].concat(), // a length beyond the end
    ];
    let datagrams: Vec<_> = payloads
        .iter()
        .map(|payload| {
            let mut datagram = good();
            datagram.truncate(HEADER_LEN + 4);
            datagram[1] |= 0b0100_0000;
            datagram.extend_from_slice(payload);
            datagram.extend_from_slice(&[0; 4]);
            fix_crc(&mut datagram);
            datagram
        })
        .collect();
    all_are_dropped(&datagrams, &["malformed"]);
}

#[test]
fn what_only_a_server_says_is_dropped() {
    let client = ClientId(0xf1);
    let epoch = duragram_proto::Epoch::new(1).unwrap();
    let ack = Ack {
        client,
        epoch,
        floor: Seq(5),
        credit: 9,
        durability: Durability::Synced,
        duplicate: false,
        complete: false,
        ready: false,
        delay_us: 1,
        bitmap: &[2, 0, 0, 0, 0, 0, 0, 0],
    };
    let answer = Answer { client, epoch, seq: Seq(5), status: AnswerStatus::Done, number: 2, body: b"ok" };
    let reject = Reject { client, epoch: 1, code: RejectCode::Busy, refused: 1, retry_after_ms: 1 };
    let datagrams = [
        bytes_of(&Datagram::Ack(ack)),
        bytes_of(&Datagram::Reject(reject)),
        bytes_of(&Datagram::Welcome(Welcome { client, epoch, credit: 1, nonce: 1 })),
        bytes_of(&Datagram::Answer(answer)),
    ];
    all_are_dropped(&datagrams, &["wrong_direction"]);
}

/// A datagram that is often valid: what it asks for decides what may be answered.
fn random_datagram(random: &mut SmallRng, client: u64) -> Vec<u8> {
    let payload: Vec<u8> = (0..random.random_range(0..300)).map(|_| random.random_range(0..4)).collect();
    let epoch = duragram_proto::Epoch::new(random.random_range(1..3)).unwrap();
    let client_id = ClientId(client);
    let seq = random.random_range(1..100_u64);
    let datagram = match random.random_range(0..10) {
        0 => Datagram::Hello(Hello { client: client_id, nonce: random.random() }),
        1 => Datagram::Ping(Ping { client: client_id, epoch }),
        _ => Datagram::Data(Data {
            client: client_id,
            epoch,
            seq: Seq(seq),
            span: u16::try_from(random.random_range(0..seq)).unwrap(),
            attempt: random.random_range(0..8),
            begin: random.random_bool(0.9),
            end: random.random_bool(0.9),
            batch: random.random_bool(0.3),
            skip: random.random_bool(0.2),
            channel: random.random(),
            options: if random.random_bool(0.1) { random.random() } else { 0 },
            payload: &payload,
        }),
    };
    let mut bytes = bytes_of(&datagram);
    if random.random_bool(0.3) {
        // Any header, with a valid trailer; the client stays, since it tells whose answer comes.
        let at = [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 23, 24, 25, 26, 27][random.random_range(0..15)];
        bytes[at] = random.random();
        fix_crc(&mut bytes);
    }
    bytes
}

#[test]
fn no_reply_is_longer_than_what_asked_for_it() {
    const SEED: u64 = 0x5eed;
    let home = Home::with_config("window = 64\nsessions_max = 500\nchannels = [\"0-40000\"]\n");
    let server = home.serve();
    let wire = Wire::new(&server, 1);
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut replies = 0;
    // Each client asks once a round, so the reply to a client is to this round's request.
    for round in 0..60 {
        let mut asked = HashMap::new();
        for client in 1000..1064 {
            let bytes = random_datagram(&mut random, client);
            wire.send_bytes(&bytes);
            asked.insert(client, bytes);
        }
        for reply in wire.settle() {
            let request = &asked[&reply.client().0];
            let request_len = request.len();
            assert!(reply.len <= request_len, "seed {SEED}, round {round}: {reply:?} to {request:02x?}");
            replies += 1;
        }
    }
    assert!(replies > 2000, "most are answered: {replies}");
    let sentinel = Wire::in_epoch(&server, 1000, 999);
    sentinel.ping();
    assert!(server.get("/healthz").contains("true"));
    assert!(server.terminate().success());
}

#[test]
fn random_bytes_do_no_harm() {
    const SEED: u64 = 0xbad;
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0xf2);
    let mut random = SmallRng::seed_from_u64(SEED);
    for n in 0..5000 {
        let mut bytes: Vec<u8> = (0..random.random_range(0..200)).map(|_| random.random()).collect();
        if bytes.len() >= MIN_LEN && random.random_bool(0.5) {
            fix_crc(&mut bytes);
        }
        wire.send_bytes(&bytes);
        if n % BURST == 0 {
            wire.settle();
        }
    }
    wire.settle();
    let next = Wire::in_epoch(&server, 0xf2, 2);
    assert_eq!(next.ask_ack(&next.data(1, b"alive")).floor, 1);
    assert!(server.terminate().success());
}
