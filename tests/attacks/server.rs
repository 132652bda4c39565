//! Attacks on the server: what is forged, mutated, reflected, repeated, reordered or played back later.

use std::time::Duration;

use super::{KEYS, Sealed, count, home, write_keys};
use crate::common::wait_for;
use crate::common::wire::{BURST, Is, Wire, bytes_of};
use duragram_proto::codec::{Data, Datagram, Hello, Ping, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What becomes of a datagram that is not answered.
const DROPPED: [&str; 9] = [
    "truncated",
    "checksum",
    "malformed",
    "unknown_type",
    "wrong_direction",
    "sealed",
    "bad_seal",
    "unknown_key",
    "revoked",
];

fn rejected(reply: &crate::common::wire::Reply) -> Option<RejectCode> {
    match &reply.is {
        Is::Reject(reject) => Some(reject.code),
        _ => None,
    }
}

#[test]
fn each_byte_of_a_sealed_datagram_flipped_and_each_truncation_is_dropped_in_silence() {
    let home = home(KEYS, "");
    let server = home.serve();
    let client = Sealed::new(&server, 1, 7);
    let mut attacks: Vec<Vec<u8>> = Vec::new();
    for good in [client.data(1, b"a payload of some length"), client.hello(5), client.ping()] {
        for at in 0..good.len() {
            for bits in [0x01, 0x08, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= bits;
                attacks.push(bad);
            }
            attacks.push(good[..at].to_vec());
        }
        attacks.push([&good[..], b"x"].concat());
    }
    for burst in attacks.chunks(BURST) {
        burst.iter().for_each(|bad| client.send(bad));
        assert_eq!(client.settle(), []);
    }
    let dropped: f64 = DROPPED.iter().map(|outcome| count(&server, outcome)).sum();
    assert_eq!(dropped, attacks.len() as f64, "each is counted as dropped");
    assert!(count(&server, "bad_seal") > attacks.len() as f64 / 2.0);
    assert_eq!(server.metric("duragram_sessions", ""), 0.0);
    // The real one is taken, and nothing else was.
    assert_eq!(client.ask_ack(&client.data(1, b"mine")), 1);
    assert_eq!(home.wait_lines(1).iter().map(|line| line.payload()).collect::<Vec<_>>(), [b"mine"]);
}

#[test]
fn what_is_forged_without_the_key_is_dropped_whatever_it_knows() {
    let home = home(KEYS, "");
    let server = home.serve();
    let (honest, other) = (Sealed::new(&server, 1, 7), Sealed::new(&server, 2, 7));
    assert_eq!(honest.ask_ack(&honest.data(1, b"first")), 1);
    let mut rng = SmallRng::seed_from_u64(1);
    let mut attacks = Vec::new();
    for n in 0..400u64 {
        // Client 2 has a key, and writes the name of client 1; others have made one up.
        let mut forged = match n % 4 {
            0 => other.data(2, b"false"),
            1 => other.ping(),
            2 => other.hello(n),
            _ => (0..rng.random_range(52..300)).map(|_| rng.random()).collect(),
        };
        forged[0] = [0x11, 0x16, 0x14, 0x11][usize::try_from(n % 4).expect("below 4")];
        forged[1] |= 8;
        forged[8..16].copy_from_slice(&1u64.to_le_bytes());
        attacks.push(forged);
    }
    for burst in attacks.chunks(BURST) {
        burst.iter().for_each(|bad| other.send(bad));
        assert_eq!(other.settle(), []);
    }
    assert_eq!(honest.ask_ack(&honest.data(2, b"second")), 2);
    let payloads: Vec<_> = home.wait_lines(2).iter().map(|line| line.payload()).collect();
    assert_eq!(payloads, [&b"first"[..], b"second"]);
    assert_eq!(server.metric("duragram_sessions", ""), 1.0);
}

#[test]
fn what_the_server_has_sent_is_dropped_when_it_comes_back() {
    let home = home(KEYS, "");
    let server = home.serve();
    let client = Sealed::new(&server, 1, 7);
    let mut sent = Vec::new();
    for request in [client.data(1, b"one"), client.data(60_000, b"far"), client.ping(), client.hello(3)] {
        client.send(&request);
        sent.push(client.receive(crate::common::PATIENCE).unwrap());
    }
    assert_eq!(sent.iter().map(|bytes| bytes[0]).collect::<Vec<_>>(), [0x12, 0x13, 0x12, 0x15]);
    for bytes in &sent {
        client.send(bytes);
        // As if it were for the server: another type under the same tag.
        let mut turned = bytes.clone();
        turned[0] = 0x16;
        client.send(&turned);
    }
    assert_eq!(client.settle(), []);
    assert_eq!(count(&server, "wrong_direction"), 4.0);
}

#[test]
fn recordings_of_a_living_session_journal_nothing_again_and_draw_no_ack_away() {
    let home = home(KEYS, "");
    let server = home.serve();
    let client = Sealed::new(&server, 1, 7);
    let recording: Vec<_> = (1..=20).map(|seq| client.data(seq, &[b'a'; 100])).collect();
    // Reordered on the way: last first.
    for datagram in recording.iter().rev() {
        client.send(datagram);
    }
    // Acks come as commits land, which may be after what is asked later.
    wait_for("all to be acked", || {
        client.send(&client.ping());
        let answer = super::opened(&client.receive(crate::common::PATIENCE)?);
        matches!(answer.is, Is::Ack(ack) if ack.floor == 20).then_some(())
    });
    while client.receive(Duration::from_millis(100)).is_some() {}
    let attacker = Sealed::new(&server, 1, 7);
    for datagram in &recording {
        attacker.send(datagram);
        let answer = client.receive(crate::common::PATIENCE).expect("the client is told, not who has recorded it");
        assert!(matches!(super::opened(&answer).is, Is::Ack(ack) if ack.floor == 20 && ack.duplicate));
    }
    assert_eq!(attacker.receive(Duration::from_millis(50)), None);
    assert_eq!(home.wait_lines(20).len(), 20);
    assert_eq!(count(&server, "journaled"), 20.0);
    // The client has moved: what it sends now draws the acks to it.
    let moved = Sealed { counter: client.counter.clone(), ..Sealed::new(&server, 1, 7) };
    assert_eq!(moved.ask_ack(&moved.data(21, b"from elsewhere")), 21);
    attacker.send(&recording[0]);
    assert!(moved.receive(crate::common::PATIENCE).is_some());
}

#[test]
fn an_epoch_played_back_later_and_after_a_restart_journals_nothing_and_says_so() {
    let home = home(KEYS, "session_ttl = \"1s\"\ncheckpoint_interval = \"10ms\"\nretain_bytes = \"0B\"\n");
    let server = home.serve();
    let client = Sealed::new(&server, 1, 7);
    let recording: Vec<_> = (1..=10).map(|seq| client.data(seq, format!("order {seq}").as_bytes())).collect();
    let hello = client.hello(99);
    for (n, datagram) in recording.iter().enumerate() {
        assert_eq!(client.ask_ack(datagram), n as u64 + 1);
    }
    assert!(matches!(client.ask(&hello).is, Is::Welcome(_)));
    // The session expires; nothing of it is in the table or in a checkpoint any more.
    wait_for("the session's end", || (server.metric("duragram_sessions", "") == 0.0).then_some(()));
    let play = |server: &crate::common::server::Server| {
        let before = count(server, "replayed_session");
        let attacker = Sealed::new(server, 1, 7);
        for datagram in &recording {
            assert_eq!(rejected(&attacker.ask(datagram)), Some(RejectCode::StaleEpoch));
        }
        assert_eq!(count(server, "replayed_session"), before + 10.0);
        assert_eq!(count(server, "stale_epoch"), 0.0);
    };
    play(&server);
    server.kill();
    let server = home.serve();
    play(&server);
    // An old HELLO gets an epoch that is worth nothing to who has recorded it.
    let attacker = Sealed::new(&server, 1, 7);
    assert!(matches!(attacker.ask(&hello).is, Is::Welcome(welcome) if welcome.epoch.value() > 7));
    play(&server);
    // The client itself goes on in its next epoch.
    let next = Sealed::new(&server, 1, 8);
    assert_eq!(next.ask_ack(&next.data(1, b"order 11")), 1);
    assert_eq!(home.wait_lines(11).len(), 11);
    assert_eq!(server.terminate().code(), Some(0));
    let server = home.serve();
    play(&server);
    assert_eq!(home.lines().len(), 11);
}

#[test]
fn recorded_hellos_use_up_no_more_than_an_epoch_a_second() {
    let home = home(KEYS, "");
    let server = home.serve();
    let client = Sealed::new(&server, 1, 7);
    let began = std::time::Instant::now();
    let mut welcomed = 0;
    for nonce in 1..=100 {
        let reply = client.ask(&client.hello(nonce));
        match rejected(&reply) {
            None => welcomed += 1,
            Some(code) => assert_eq!(code, RejectCode::Busy),
        }
    }
    assert!(welcomed <= 9 + began.elapsed().as_secs(), "{welcomed}");
    assert!(welcomed >= 8);
    // Another client is not held up.
    let other = Sealed::new(&server, 2, 7);
    assert!(matches!(other.ask(&other.hello(1)).is, Is::Welcome(_)));
}

#[test]
fn plain_traffic_is_refused_and_the_refusal_is_no_longer() {
    let home = home(KEYS, "");
    let server = home.serve();
    let wire = Wire::new(&server, 1);
    let plain = [
        Datagram::Data(Data::whole(ClientId(1), Epoch::new(7).unwrap(), Seq(9), 3, b"")),
        Datagram::Data(Data::whole(ClientId(0x77), Epoch::new(7).unwrap(), Seq(9), 3, b"anyone")),
        Datagram::Hello(Hello { client: ClientId(1), nonce: 9 }),
        Datagram::Ping(Ping { client: ClientId(1), epoch: Epoch::new(7).unwrap() }),
    ];
    for datagram in plain {
        let bytes = bytes_of(&datagram);
        wire.send_bytes(&bytes);
        let reply = wire.reply();
        assert_eq!(rejected(&reply), Some(RejectCode::SealedOnly));
        assert!(reply.len <= bytes.len());
    }
    assert_eq!(count(&server, "sealed_only"), 4.0);
    assert_eq!(server.metric("duragram_sessions", ""), 0.0);
}

#[test]
fn where_plain_is_allowed_the_clients_with_keys_stay_sealed_also_after_a_restart() {
    let home = home(&format!("{KEYS}fleet {}\n", "09".repeat(32)), "allow_plain = true\n");
    let mut server = home.serve();
    let fleet = duragram_proto::seal::FleetKey::new([9; 32]).client_key(ClientId(0x50));
    let of_fleet = |epoch: u32, seq: u64| {
        let epoch = Epoch::new(epoch).unwrap();
        let mut bytes = vec![0; 100];
        let keys = fleet.keys(ClientId(0x50), Some(epoch));
        let data = Data::whole(ClientId(0x50), epoch, Seq(seq), 0, b"of the fleet");
        let len = Datagram::Data(data).seal(&keys, seq, &mut bytes).unwrap();
        bytes[..len].to_vec()
    };
    let plain = Wire::new(&server, 0x50);
    assert_eq!(plain.ask_ack(&plain.data(1, b"still plain")).floor, 1);
    plain.send_bytes(&of_fleet(5, 1));
    plain.reply_bytes();
    for _ in 0..2 {
        let plain = Wire::new(&server, 0x50);
        assert_eq!(plain.ask_reject(&plain.data(2, b"no more")).code, RejectCode::SealedOnly);
        assert!(matches!(plain.hello(3).is, Is::Reject(reject) if reject.code == RejectCode::SealedOnly));
        let own = Wire::new(&server, 1);
        assert_eq!(own.ask_reject(&own.data(1, b"never")).code, RejectCode::SealedOnly);
        server.kill();
        server = home.serve();
    }
    let payloads: Vec<_> = home.wait_lines(2).iter().map(|line| line.payload()).collect();
    assert_eq!(payloads, [&b"still plain"[..], b"of the fleet"]);
}

#[test]
fn a_stolen_key_is_worth_nothing_after_sighup() {
    let home = home(KEYS, "");
    let server = home.serve();
    let (stolen, other) = (Sealed::new(&server, 1, 7), Sealed::new(&server, 2, 7));
    assert_eq!(stolen.ask_ack(&stolen.data(1, b"before")), 1);
    assert_eq!(other.ask_ack(&other.data(1, b"before")), 1);
    write_keys(&home, &format!("{KEYS}revoked 0000000000000001\n"));
    server.signal("HUP");
    wait_for("the keys to be read", || (server.metric("duragram_key_reloads_total", "done") == 1.0).then_some(()));
    for attack in [stolen.data(2, b"after"), stolen.ping(), stolen.hello(1)] {
        stolen.send(&attack);
    }
    assert_eq!(other.ask_ack(&other.data(2, b"after")), 2, "the others go on in their sessions");
    assert_eq!(stolen.receive(Duration::from_millis(50)), None);
    assert_eq!(count(&server, "revoked"), 3.0);
}

/// Requests of every kind and length, good and bad.
#[test]
fn no_reply_is_longer_than_its_request() {
    let home = home(KEYS, "window = 2000\n");
    let server = home.serve();
    let client = Sealed::new(&server, 1, 7);
    let mut rng = SmallRng::seed_from_u64(2);
    for n in 0..600u64 {
        let payload = vec![1; rng.random_range(0..200)];
        let seq = rng.random_range(1..1500);
        let request = match n % 5 {
            0 => client.ping(),
            1 => client.hello(n),
            2 => bytes_of(&Datagram::Data(Data::whole(client.client, client.epoch, Seq(seq), 0, &payload))),
            _ => client.data(seq, &payload),
        };
        // Checks the length.
        client.ask(&request);
    }
}
