//! Asks in sealed mode: answers of every session that was left, under its keys and with numbers that were never used there.

use std::boxed::Box;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::{AskConfig, AskSlot, Client, ClientConfig, Ignored, Outgoing, Sealing, Slot, Status};
use super::asks_world::{AskWorld, asks, bad_path, check_all_answered};
use super::bench::{ACK, CLIENT, SECOND};
use super::model_server::{ModelServer, encode};
use super::sealed::{Gate, key, opened, sealed_with};
use super::world::{Incident, World, messages};
use crate::codec::{Ack, Answer, AnswerStatus, Datagram, DecodeError, Reject, RejectCode, peek};
use crate::seal::{ClientKey, CounterStart};
use crate::{Epoch, Seq};

type AskingClient = Client<Vec<Slot>, Vec<u8>, Vec<AskSlot>, Vec<u8>>;

fn client(epoch: Option<u32>, counter: CounterStart, asks: AskConfig, seed: u64) -> AskingClient {
    let config = ClientConfig::new(CLIENT, epoch.and_then(Epoch::new));
    let sealing = Sealing { key: key(), counter };
    let client = Client::sealed(config, sealing, vec![Slot::EMPTY; 64], vec![0; 16_384], seed);
    client.with_asks(asks, vec![AskSlot::EMPTY; 64], vec![0; 4_096])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// The gate checks that no number seals two datagrams under one key, in whichever session.
    #[test]
    fn each_ask_is_answered_once_through_changes_of_epoch_and_no_number_is_used_twice(
        path in bad_path(),
        asks in asks(),
        stale in prop::collection::vec((0..10_000_000u64, 1..50u32), 0..4),
        crashes in prop::collection::vec(0..10_000_000u64, 0..4),
        start in prop_oneof![any::<u32>().prop_map(CounterStart::boot_count), any::<u64>().prop_map(CounterStart::random),
            any::<(u64, u64)>().prop_map(|(bits, unix_ms)| CounterStart::random_at(bits, unix_ms))],
        hello in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let client = client((!hello).then_some(7), start, asks, seed);
        let mut world: AskWorld = World::new(client, ModelServer::new(256), path, seed);
        world.translate = Some(Box::new(Gate::default()));
        world.asks_each = 2;
        let mut incidents: Vec<_> = crashes.into_iter().map(|at| (at, Incident::Crash)).collect();
        let (mut stale, mut epoch) = (stale, 7);
        stale.sort_unstable();
        for (at, step) in stale {
            epoch += step;
            incidents.push((at, Incident::EpochMin(epoch)));
        }
        incidents.sort_by_key(|(at, _)| *at);
        world.incidents = incidents.into();
        world.offer(messages(120, 60, seed));
        world.run();
        check_all_answered(&world, true);
    }

    /// A counter that ends: what cannot be asked for any more is gone, and nothing else.
    #[test]
    fn where_the_numbers_are_used_up_answers_are_gone_and_never_asked_for_with_an_old_one(
        numbers in 4..60u64,
        loss in 0..200u64,
        seed in any::<u64>(),
    ) {
        let client = client(Some(7), CounterStart::between(10, 10 + numbers - 1), AskConfig::HELD, seed);
        let path = super::world::Path { loss_per_mille: loss, ..super::world::Path::CLEAN };
        let mut world: AskWorld = World::new(client, ModelServer::new(256), path, seed);
        world.translate = Some(Box::new(Gate::default()));
        world.asks_each = 2;
        world.offer(messages(60, 60, seed));
        world.run();
        check_all_answered(&world, false);
    }
}

fn transmit(client: &mut AskingClient, now_us: u64) -> Vec<Vec<u8>> {
    let mut out = [0; 1_200];
    let mut all = Vec::new();
    while let Some(len) = client.poll_transmit(now_us, &mut out) {
        all.push(out[..len].to_vec());
    }
    all
}

const ANSWER: Answer<'static> =
    Answer { client: CLIENT, epoch: ACK.epoch, seq: Seq(1), status: AnswerStatus::Done, number: 4, body: b"open" };

/// Seq 1 of epoch 7 asked, is acked, and a TAKE of it is open.
fn waiting(counter: CounterStart) -> AskingClient {
    let mut client = client(Some(7), counter, AskConfig::HELD, 1);
    client.ask(0, 0, b"open valve 7").unwrap();
    assert_eq!(transmit(&mut client, 0).len(), 1);
    let ack = Datagram::Ack(Ack { floor: Seq(1), ..ACK });
    client.handle_datagram(1, &mut sealed_with(&key(), &ack, 1)).unwrap();
    assert_eq!(transmit(&mut client, 1).len(), 1);
    client
}

#[test]
fn an_answer_is_read_under_its_own_keys_alone_and_forged_ones_change_nothing() {
    let mut client = waiting(CounterStart::random(5));
    let answer = Datagram::Answer(ANSWER);
    let undecodable = |error| Err(Ignored::Undecodable(error));
    assert_eq!(client.handle_datagram(2, &mut encode(&answer)), undecodable(DecodeError::NotSealed));
    let other = sealed_with(&ClientKey::new([1; 32]), &answer, 2);
    assert_eq!(client.handle_datagram(2, &mut other.clone()), undecodable(DecodeError::BadSeal));
    let sealed = sealed_with(&key(), &answer, 2);
    assert!(!sealed.windows(4).any(|part| part == b"open"), "the body is in clear");
    for bit in 0..8 * sealed.len() {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(client.handle_datagram(2, &mut forged).is_err(), "bit {bit}");
    }
    for len in 0..sealed.len() {
        assert!(client.handle_datagram(2, &mut sealed[..len].to_vec()).is_err(), "cut at {len}");
    }
    assert!(client.poll_answer().is_none());
    client.handle_datagram(3, &mut sealed.clone()).unwrap();
    assert_eq!(
        client.poll_answer().map(|answered| (answered.status, answered.body)),
        Some((Status::Done, &b"open"[..]))
    );
    assert_eq!(client.handle_datagram(4, &mut sealed.clone()), Err(Ignored::Unasked), "replayed");
}

#[test]
fn what_waits_in_a_session_that_was_left_is_taken_above_all_numbers_that_were_used_in_it() {
    let mut client = waiting(CounterStart::boot_count(3));
    client.send(2, Outgoing { channel: 0, batch: false, payload: b"" }).unwrap();
    let last = transmit(&mut client, 2).iter().map(|bytes| peek(bytes).unwrap().counter).max();
    let stale = Reject { client: CLIENT, epoch: 7, code: RejectCode::StaleEpoch, refused: 2, retry_after_ms: 0 };
    client.handle_datagram(3, &mut sealed_with(&key(), &Datagram::Reject(stale), 5)).unwrap();
    assert_eq!(transmit(&mut client, 3).len(), 1);
    let mut counters = BTreeSet::new();
    let mut now_us = 3;
    while counters.len() < 3 {
        now_us = client.poll_timeout().unwrap().max(now_us);
        client.handle_timeout(now_us);
        for bytes in transmit(&mut client, now_us) {
            let head = peek(&bytes).unwrap();
            if let Datagram::Take(take) = opened(&mut bytes.clone()) {
                assert_eq!((take.epoch, take.seq), (ACK.epoch, Seq(1)));
                assert!(Some(head.counter) > last && counters.insert(head.counter), "{head:?} after {last:?}");
            }
        }
    }
    client.handle_datagram(now_us, &mut sealed_with(&key(), &Datagram::Answer(ANSWER), 9)).unwrap();
    assert_eq!(client.poll_answer().map(|answered| answered.body), Some(&b"open"[..]));
}

#[test]
fn an_answer_of_an_earlier_run_is_taken_before_there_is_an_epoch_and_its_numbers_are_not_used_again() {
    let mut client = client(None, CounterStart::boot_count(4), AskConfig::HELD, 1);
    client.take(0, Epoch::new(9).unwrap(), Seq(5)).unwrap();
    let sent = transmit(&mut client, 0);
    let head = peek(&sent[0]).unwrap();
    assert_eq!((head.keys.epoch(), head.counter), (Epoch::new(9), 4 << 32));
    // The server gives an epoch; below the highest in which answers were taken it would use their numbers again.
    client.send(1, Outgoing { channel: 0, batch: false, payload: b"" }).unwrap();
    let hello = transmit(&mut client, 1).remove(0);
    let Datagram::Hello(hello) = opened(&mut hello.clone()) else { panic!("not a HELLO") };
    let epoch = Epoch::new(9).unwrap();
    let welcome = crate::codec::Welcome { client: CLIENT, epoch, credit: 64, nonce: hello.nonce };
    client.handle_datagram(2, &mut sealed_with(&key(), &Datagram::Welcome(welcome), 5)).unwrap();
    let data = transmit(&mut client, 2).remove(0);
    assert_eq!(peek(&data).unwrap().counter, (4 << 32) + 1);
    let answer = Answer { epoch, seq: Seq(5), ..ANSWER };
    client.handle_datagram(SECOND, &mut sealed_with(&key(), &Datagram::Answer(answer), 9)).unwrap();
    assert_eq!(client.poll_answer().map(|answered| (answered.message, answered.body)), Some((None, &b"open"[..])));
}

#[test]
fn in_a_session_of_an_earlier_run_random_numbers_rise_until_something_comes_back() {
    let mut client = client(None, CounterStart::random(12_345 << 20), AskConfig::HELD, 1);
    client.take(0, Epoch::new(9).unwrap(), Seq(5)).unwrap();
    let (mut counters, mut now_us) = (Vec::new(), 0);
    while counters.len() < 12 {
        counters.extend(transmit(&mut client, now_us).iter().map(|bytes| peek(bytes).unwrap().counter));
        now_us = client.poll_timeout().unwrap();
        client.handle_timeout(now_us);
    }
    assert!(counters.is_sorted_by(|before, after| before < after), "{counters:?}");
    assert!(counters[11] > (1 << 63) - (1 << 55), "{counters:?}");
}

/// The server replies to who used the highest number, and holds no TAKE with a lower one.
#[test]
fn a_later_run_that_knows_the_time_counts_at_once_above_all_that_went_before_in_that_session() {
    let mut highest = u64::MAX >> 1;
    for unix_ms in [1_790_000_000_000, 1_790_000_000_050] {
        for bits in [0, u64::MAX] {
            let mut client = client(None, CounterStart::random_at(bits, unix_ms), AskConfig::HELD, 1);
            client.take(0, Epoch::new(9).unwrap(), Seq(5)).unwrap();
            let mut now_us = 0;
            // Those that are lost do not lift it: where the server was away, the next run would be below.
            for _ in 0..12 {
                let sent = transmit(&mut client, now_us).remove(0);
                let counter = peek(&sent).unwrap().counter;
                assert!(counter > highest, "{counter} {highest}");
                highest = counter;
                now_us = client.poll_timeout().unwrap();
                client.handle_timeout(now_us);
            }
        }
    }
}
