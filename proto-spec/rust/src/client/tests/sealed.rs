//! The machine in sealed mode: against the model server behind a gate that unseals and seals for it, and against somebody
//! who has everything but the key.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::format;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use core::cell::Cell;

use proptest::prelude::*;

use super::super::{Client, ClientConfig, Event, FailReason, Ignored, Outgoing, Sealing, Slot};
use super::bench::{ACK, CLIENT, SECOND};
use super::model_server::{ModelServer, encode};
use super::world::{Incident, Path, Translate, World, messages};
use crate::codec::{
    self, Ack, Datagram, DecodeError, Durability, Reject, RejectCode, SEALED_MIN_LEN, Side, Welcome, peek,
    unseal_request,
};
use crate::random::Random;
use crate::seal::{ClientKey, CounterStart};
use crate::{ClientId, Epoch, Seq};

type VecClient = Client<Vec<Slot>, Vec<u8>>;
type VecWorld = World<Vec<Slot>, Vec<u8>>;

pub(super) fn key() -> ClientKey {
    ClientKey::new([0xab; 32])
}

fn sealed_client(epoch: Option<u32>, counter: CounterStart, slots: usize, seed: u64) -> VecClient {
    let config = ClientConfig::new(CLIENT, epoch.and_then(Epoch::new));
    let sealing = Sealing { key: key(), counter };
    Client::sealed(config, sealing, vec![Slot::EMPTY; slots], vec![0; (slots * 200).max(1_200)], seed)
}

/// The server's half of sealed mode.
#[derive(Default)]
pub(super) struct Gate {
    counter: u64,
    /// What was sealed with which keys and number.
    seen: BTreeMap<(Option<Epoch>, u64), Vec<u8>>,
    pub(super) sessions: Rc<Cell<usize>>,
}

impl Translate for Gate {
    /// PROTOCOL.md#sealed-counter: the one thing that must never happen.
    fn sent(&mut self, datagram: &[u8]) {
        let head = peek(datagram).expect("a sealed client sends sealed datagrams");
        let before = self.seen.insert((head.keys.epoch(), head.counter), datagram.to_vec());
        assert!(before.is_none_or(|before| before == datagram), "one number for two datagrams: {head:?}");
        let mut epochs: Vec<_> = self.seen.keys().filter_map(|(epoch, _)| *epoch).collect();
        epochs.dedup();
        self.sessions.set(epochs.len());
    }

    fn to_server(&mut self, datagram: &[u8]) -> Vec<u8> {
        encode(&opened(&mut datagram.to_vec()))
    }

    fn to_client(&mut self, datagram: &[u8]) -> Vec<u8> {
        self.counter += 3;
        sealed_with(&key(), &codec::decode(datagram).unwrap(), self.counter)
    }
}

pub(super) fn opened(datagram: &mut [u8]) -> Datagram<'_> {
    let head = peek(datagram).unwrap();
    unseal_request(datagram, &key().keys(head.client, head.keys.epoch())).expect("rightly sealed")
}

/// A server's datagram as it would be sealed by whoever has this key.
pub(super) fn sealed_with(key: &ClientKey, datagram: &Datagram<'_>, counter: u64) -> Vec<u8> {
    let (client, epoch) = match datagram {
        Datagram::Ack(ack) => (ack.client, Some(ack.epoch)),
        Datagram::Reject(reject) => (reject.client, Epoch::new(reject.epoch)),
        Datagram::Welcome(welcome) => (welcome.client, None),
        Datagram::Answer(answer) => (answer.client, Some(answer.epoch)),
        other => panic!("a server never sends {other:?}"),
    };
    let mut out = vec![0; 2_048];
    let len = datagram.seal(&key.keys(client, epoch), counter, &mut out).unwrap();
    out.truncate(len);
    out
}

fn world(client: VecClient, path: Path, window: u16, seed: u64) -> (VecWorld, Rc<Cell<usize>>) {
    let mut world = World::new(client, ModelServer::new(window), path, seed);
    let gate = Gate::default();
    let sessions = Rc::clone(&gate.sessions);
    world.translate = Some(Box::new(gate));
    (world, sessions)
}

fn check_all_acked(world: &VecWorld) {
    for (id, outcome) in &world.outcomes {
        assert!(matches!(outcome, Event::Acked { .. }), "{id:?}: {outcome:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn all_arrives_sealed_over_any_path_and_no_number_seals_two_datagrams(
        (delay_us, jitter_us, loss, repeat) in (0..50_000u64, 0..30_000u64, 0..300u64, 0..200u64),
        slots in prop_oneof![Just(1usize), 2..8usize, Just(200)],
        hello in any::<bool>(),
        start in prop_oneof![any::<u32>().prop_map(CounterStart::boot_count), any::<u64>().prop_map(CounterStart::random)],
        crashes in prop::collection::vec(0..3_000_000u64, 0..5),
        len_max in prop_oneof![Just(0usize), Just(20), Just(SEALED_PAYLOAD_MAX)],
        seed in any::<u64>(),
    ) {
        let client = sealed_client((!hello).then_some(7), start, slots, seed);
        let path = Path { delay_us, jitter_us, loss_per_mille: loss, repeat_per_mille: repeat, ..Path::CLEAN };
        let (mut world, _) = world(client, path, 256, seed);
        let mut crashes = crashes;
        crashes.sort_unstable();
        world.incidents = crashes.into_iter().map(|at| (at, Incident::Crash)).collect();
        world.offer(messages(200, len_max, seed));
        world.run();
        prop_assert_eq!(world.outcomes.len(), 200);
        check_all_acked(&world);
    }

    /// A counter with few numbers: the client takes a new epoch, and a new key, rather than use one again.
    #[test]
    fn a_counter_that_is_used_up_takes_a_new_epoch(
        numbers in 1..40u64,
        first in prop_oneof![Just(0u64), Just(u64::MAX - 60)],
        hello in any::<bool>(),
        loss in 0..200u64,
        seed in any::<u64>(),
    ) {
        let client = sealed_client((!hello).then_some(7), CounterStart::between(first, first + numbers - 1), 8, seed);
        let (mut world, sessions) = world(client, Path { loss_per_mille: loss, ..Path::CLEAN }, 256, seed);
        world.offer(messages(100, 100, seed));
        world.run();
        check_all_acked(&world);
        prop_assert!(sessions.get() as u64 >= 100 / numbers, "{} sessions", sessions.get());
    }

    /// Everything that can be sent without the key, to a client that waits for acks or for an epoch: nothing changes.
    #[test]
    fn nothing_that_was_made_without_the_key_is_believed(
        hello in any::<bool>(),
        attempts in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..100),
        seed in any::<u64>(),
    ) {
        let mut client = sealed_client((!hello).then_some(7), CounterStart::random(seed), 8, seed);
        for _ in 0..5 {
            client.send(0, Outgoing { channel: 0, batch: false, payload: &[1; 64] }).unwrap();
        }
        let own = transmit(&mut client, 0);
        let nonce = if hello { peek(&own[0]).unwrap().counter } else { 1 };
        let before = format!("{client:?}");
        let genuine = replies(ACK.epoch, nonce);
        for (which, bits) in attempts {
            let mut random = Random::new(bits);
            let datagram = &genuine[which.index(genuine.len())];
            let forged = match random.up_to(5) {
                // In plain mode, which any client believes that is not sealed.
                0 => encode(datagram),
                // With another key, and with the right one for another session or client.
                1 => sealed_with(&ClientKey::new([0xac; 32]), datagram, bits),
                2 => sealed_with(&key(), &of_another(datagram, bits), bits),
                // The client's own, sent back.
                3 => own[which.index(own.len())].clone(),
                // One bit of a genuine one flipped.
                4 => {
                    let mut sealed = sealed_with(&key(), datagram, bits);
                    let bit = usize::try_from(random.up_to(sealed.len() as u64 * 8 - 1)).unwrap();
                    sealed[bit / 8] ^= 1 << (bit % 8);
                    sealed
                }
                // A genuine one cut.
                _ => {
                    let mut sealed = sealed_with(&key(), datagram, bits);
                    sealed.truncate(usize::try_from(random.up_to(sealed.len() as u64 - 1)).unwrap());
                    sealed
                }
            };
            let result = client.handle_datagram(1, &mut forged.clone());
            prop_assert!(result.is_err(), "{:?} was believed as {:02x?}", datagram, forged);
        }
        prop_assert_eq!(format!("{client:?}"), before);
    }
}

const SEALED_PAYLOAD_MAX: usize = 1_200 - SEALED_MIN_LEN;

/// What a server could say to this client: to a HELLO and in a session.
fn replies(epoch: Epoch, nonce: u64) -> Vec<Datagram<'static>> {
    let reject =
        |epoch, code, refused| Datagram::Reject(Reject { client: CLIENT, epoch, code, refused, retry_after_ms: 1 });
    let mut all = vec![
        Datagram::Ack(Ack { floor: Seq(3), ..ACK }),
        Datagram::Ack(Ack {
            floor: Seq(1),
            bitmap: &[2, 0, 0, 0, 0, 0, 0, 0],
            durability: Durability::Replicated,
            ..ACK
        }),
        Datagram::Welcome(Welcome { client: CLIENT, epoch: Epoch::new(1_000).unwrap(), credit: 9, nonce }),
    ];
    for code in 1..=10 {
        all.push(reject(epoch.value(), RejectCode::from_wire(code), 1));
        all.push(reject(0, RejectCode::from_wire(code), nonce));
    }
    all
}

/// The same for another session, another client or another HELLO.
fn of_another<'a>(datagram: &Datagram<'a>, bits: u64) -> Datagram<'a> {
    let client = ClientId(CLIENT.0 ^ (bits & 1));
    let epoch = |epoch: Epoch| if bits & 1 == 1 { epoch } else { epoch.next().unwrap() };
    match *datagram {
        Datagram::Ack(ack) => Datagram::Ack(Ack { client, epoch: epoch(ack.epoch), ..ack }),
        Datagram::Welcome(welcome) => Datagram::Welcome(Welcome { client, nonce: welcome.nonce ^ 2, ..welcome }),
        Datagram::Reject(reject) if reject.epoch == 0 => {
            Datagram::Reject(Reject { client, refused: reject.refused ^ 2, ..reject })
        }
        Datagram::Reject(reject) => Datagram::Reject(Reject { client, epoch: reject.epoch + 1, ..reject }),
        other => other,
    }
}

fn transmit(client: &mut VecClient, now_us: u64) -> Vec<Vec<u8>> {
    let mut out = [0; 1_200];
    let mut all = Vec::new();
    while let Some(len) = client.poll_transmit(now_us, &mut out) {
        all.push(out[..len].to_vec());
    }
    all
}

fn send(client: &mut VecClient) {
    client.send(0, Outgoing { channel: 0, batch: false, payload: &[1; 64] }).expect("room");
}

#[test]
fn a_retransmission_is_sealed_anew_with_the_next_number() {
    let mut client = sealed_client(Some(7), CounterStart::boot_count(3), 4, 1);
    send(&mut client);
    let first = transmit(&mut client, 0).remove(0);
    client.handle_timeout(client.poll_timeout().unwrap());
    let second = transmit(&mut client, 2 * SECOND).remove(0);
    assert_eq!((peek(&first).unwrap().counter, peek(&second).unwrap().counter), (3 << 32, (3 << 32) + 1));
    assert_ne!(first[36..100], second[36..100], "the payload's ciphertext");
    let data = |bytes: &[u8]| match opened(&mut bytes.to_vec()) {
        Datagram::Data(data) => (data.seq, data.attempt, data.payload.to_vec()),
        other => panic!("{other:?}"),
    };
    assert_eq!(data(&first), (Seq(1), 0, vec![1; 64]));
    assert_eq!(data(&second), (Seq(1), 1, vec![1; 64]));
    assert!(!first.windows(8).any(|part| part == [1; 8]), "the payload is in clear");
}

#[test]
fn an_ack_is_believed_once_it_is_opened() {
    let mut client = sealed_client(Some(7), CounterStart::random(5), 4, 1);
    send(&mut client);
    transmit(&mut client, 0);
    let ack = Datagram::Ack(Ack { floor: Seq(1), ..ACK });
    assert_eq!(client.handle_datagram(9, &mut sealed_with(&key(), &ack, 1)), Ok(()));
    assert!(matches!(client.poll_event(), Some(Event::Acked { seq: Seq(1), .. })));
    assert!(client.is_idle());
}

#[test]
fn in_a_doubted_epoch_one_sealed_ack_for_what_was_never_sent_is_enough() {
    let config = ClientConfig { epoch_doubted: true, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let sealing = Sealing { key: key(), counter: CounterStart::random(5) };
    let mut client = Client::sealed(config, sealing, vec![Slot::EMPTY; 4], vec![0; 1_200], 1);
    send(&mut client);
    assert_eq!(transmit(&mut client, 0).len(), 1);
    let ack = |floor| Datagram::Ack(Ack { floor: Seq(floor), duplicate: true, ..ACK });
    let forged = sealed_with(&ClientKey::new([1; 32]), &ack(2), 1);
    assert!(client.handle_datagram(1, &mut forged.clone()).is_err() && client.poll_event().is_none());
    assert_eq!(client.handle_datagram(2, &mut sealed_with(&key(), &ack(2), 2)), Err(Ignored::NeverSent));
    assert!(matches!(client.poll_event(), Some(Event::Failed { reason: FailReason::EpochUsed, .. })));
}

/// The counters of a doubting client's transmissions, while nothing is heard.
fn counters_in_silence(counter: CounterStart, transmissions: usize) -> Vec<u64> {
    let config = ClientConfig { epoch_doubted: true, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let sealing = Sealing { key: key(), counter };
    let mut client = Client::sealed(config, sealing, vec![Slot::EMPTY; 4], vec![0; 1_200], 1);
    send(&mut client);
    let (mut now_us, mut counters) = (0, Vec::new());
    while counters.len() < transmissions {
        counters.extend(transmit(&mut client, now_us).iter().map(|datagram| peek(datagram).unwrap().counter));
        now_us = client.poll_timeout().unwrap();
        client.handle_timeout(now_us);
    }
    counters
}

#[test]
fn in_a_doubted_epoch_a_random_counter_rises_in_silence_and_stays_random_and_a_boot_counts_does_not() {
    let below = |bits: u32| (1_u64 << 63) - (1 << bits);
    for bits in [0, 2, 1 << 40, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let counters = counters_in_silence(CounterStart::random(bits), 200);
        assert!(counters.is_sorted_by(|before, after| before < after), "{bits}: {counters:?}");
        // The answers go to the highest one, and a former run's may be anywhere.
        assert!(counters[12] >= below(55), "{bits}: {counters:?}");
    }
    // What is left of chance keeps two runs apart that have both risen for long.
    let [mut one, mut other] =
        [12_345 << 40, 54_321 << 40].map(|bits| counters_in_silence(CounterStart::random(bits), 200));
    let apart = one.split_off(20)[0].abs_diff(other.split_off(20)[0]);
    assert!(apart > 1 << 30, "{apart}");
    let counted = counters_in_silence(CounterStart::boot_count(3), 200);
    assert_eq!(counted, (0..200).map(|n| (3 << 32) + n).collect::<Vec<u64>>());
}

#[test]
fn a_welcome_leads_to_higher_epochs_only_and_late_acks_count_until_it_comes() {
    let mut client = sealed_client(None, CounterStart::random(5), 4, 1);
    send(&mut client);
    let nonce = |datagrams: Vec<Vec<u8>>| match opened(&mut datagrams[0].clone()) {
        Datagram::Hello(hello) => hello.nonce,
        other => panic!("{other:?}"),
    };
    let welcome = |epoch, nonce| {
        let epoch = Epoch::new(epoch).unwrap();
        sealed_with(&key(), &Datagram::Welcome(Welcome { client: CLIENT, epoch, credit: 64, nonce }), 5)
    };
    let first = nonce(transmit(&mut client, 0));
    assert_eq!(client.handle_datagram(1, &mut welcome(7, first)), Ok(()));
    assert_eq!(client.epoch(), Epoch::new(7));
    send(&mut client);
    assert_eq!(transmit(&mut client, 2).len(), 2);
    // Its epoch is refused; it asks for another.
    let stale = Reject { client: CLIENT, epoch: 7, code: RejectCode::StaleEpoch, refused: 2, retry_after_ms: 0 };
    assert_eq!(client.handle_datagram(3, &mut sealed_with(&key(), &Datagram::Reject(stale), 6)), Ok(()));
    let second = nonce(transmit(&mut client, 4));
    let late = Datagram::Ack(Ack { floor: Seq(1), ..ACK });
    assert_eq!(client.handle_datagram(5, &mut sealed_with(&key(), &late, 7)), Ok(()));
    assert_eq!(client.handle_datagram(6, &mut welcome(7, first)), Err(Ignored::Unasked));
    assert_eq!(client.handle_datagram(6, &mut welcome(6, second)), Err(Ignored::Unasked), "backwards");
    assert_eq!(client.handle_datagram(7, &mut welcome(8, second)), Ok(()));
    assert_eq!((client.epoch(), client.queued()), (Epoch::new(8), 1));
}

#[test]
fn what_is_plain_or_badly_sealed_says_so() {
    let mut client = sealed_client(Some(7), CounterStart::random(5), 4, 1);
    send(&mut client);
    transmit(&mut client, 0);
    let ack = Datagram::Ack(Ack { floor: Seq(1), ..ACK });
    let undecodable = |error| Err(Ignored::Undecodable(error));
    assert_eq!(client.handle_datagram(1, &mut encode(&ack)), undecodable(DecodeError::NotSealed));
    let other = sealed_with(&ClientKey::new([1; 32]), &ack, 1);
    assert_eq!(client.handle_datagram(1, &mut other.clone()), undecodable(DecodeError::BadSeal));
    // Another version's refusal has no seal, so anybody can send it.
    let mut refusal = encode(&Datagram::Reject(Reject {
        client: CLIENT,
        epoch: 7,
        code: RejectCode::Version,
        refused: 1,
        retry_after_ms: 0,
    }));
    refusal[0] = 0x23;
    let at = refusal.len() - 4;
    let crc = crc32fast::hash(&refusal[..at]);
    refusal[at..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(client.handle_datagram(1, &mut refusal.clone()), undecodable(DecodeError::NotSealed));
}

#[test]
fn its_longest_datagram_is_no_longer_than_configured() {
    let mut client = sealed_client(Some(7), CounterStart::random(5), 16, 1);
    assert_eq!(client.payload_len_max(), SEALED_PAYLOAD_MAX);
    client.send(0, Outgoing { channel: 0, batch: false, payload: &[1; SEALED_PAYLOAD_MAX] }).unwrap();
    let sent = transmit(&mut client, 0);
    assert_eq!(sent[0].len(), 1_200);
    assert_eq!(peek(&sent[0]).unwrap().sender, Side::Client);
}

#[test]
fn a_client_that_is_shown_does_not_show_its_key() {
    let client = sealed_client(Some(7), CounterStart::random(5), 1, 1);
    let shown = format!("{client:?}");
    assert!(shown.contains("ClientKey(..)") && shown.contains("SessionKeys(..)"), "{shown}");
    assert!(!shown.contains("171, 171") && !shown.contains("abab"), "{shown}");
}
