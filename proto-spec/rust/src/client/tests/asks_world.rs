//! Asks over bad paths, through crashes and refusals: each that was acked ends exactly once, with what the server gave.

use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::{AskConfig, AskSlot, Client, ClientConfig, Event, FailReason, Slot, Status};
use super::bench::{CLIENT, SECOND};
use super::model_server::ModelServer;
use super::world::{Incident, Path, World, messages};
use crate::Epoch;

pub(super) type AskWorld = World<Vec<Slot>, Vec<u8>, Vec<AskSlot>, Vec<u8>>;

/// The longest that a TAKE waits for its turn, once no more is lost: an interval of 60 seconds and a quarter, and what a server
/// may hold one.
const TURN_US: u64 = 95 * SECOND;
/// 64 asks, of which 16 are taken at a time, each with a second TAKE for a long body; a window of two at least.
const ROUND_TRIPS: u64 = 64;

fn world(slots: usize, epoch: Option<u32>, asks: AskConfig, path: Path, seed: u64) -> AskWorld {
    let config = ClientConfig::new(CLIENT, epoch.and_then(Epoch::new));
    let client = Client::new(config, vec![Slot::EMPTY; slots], vec![0; (slots * 200).max(1_200)], seed);
    let client = client.with_asks(asks, vec![AskSlot::EMPTY; 64], vec![0; 4_096]);
    World::new(client, ModelServer::new(256), path, seed)
}

pub(super) fn bad_path() -> impl Strategy<Value = Path> {
    (0..50_000u64, 0..30_000u64, 0..300u64, 0..200u64).prop_map(|(delay_us, jitter_us, loss, repeat)| Path {
        delay_us,
        jitter_us,
        loss_per_mille: loss,
        repeat_per_mille: repeat,
        ..Path::CLEAN
    })
}

pub(super) fn asks() -> impl Strategy<Value = AskConfig> {
    (prop_oneof![Just(0u16), 100..3_000u16, Just(20_000)], prop_oneof![Just(0u16), Just(256), Just(2_000)])
        .prop_map(|(wait_ms, room)| AskConfig { wait_ms, room, ..AskConfig::HELD })
}

/// Every ask ended, well if `none_gone`.
pub(super) fn check_all_answered<M, B, A, Y>(world: &World<M, B, A, Y>, none_gone: bool) {
    let answered: BTreeSet<_> = world.answers.keys().copied().collect();
    assert_eq!(answered, world.asked);
    for (id, status) in &world.answers {
        assert!(!none_gone || *status != Status::Gone, "{id:?} is gone");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn each_ask_is_answered_once_over_any_path_and_through_crashes(
        path in bad_path(),
        slots in prop_oneof![Just(1usize), 2..8usize, Just(128)],
        asks_each in 1..4u64,
        asks in asks(),
        hello in any::<bool>(),
        crashes in prop::collection::vec(0..20_000_000u64, 0..6),
        seed in any::<u64>(),
    ) {
        let mut world = world(slots, (!hello).then_some(7), asks, path, seed);
        world.asks_each = asks_each;
        let mut crashes = crashes;
        crashes.sort_unstable();
        world.incidents = crashes.into_iter().map(|at| (at, Incident::Crash)).collect();
        world.offer(messages(150, 60, seed));
        world.run();
        check_all_answered(&world, true);
    }

    #[test]
    fn sessions_that_end_and_epochs_that_are_left_end_each_ask_once(
        path in bad_path(),
        asks in asks(),
        forgets in prop::collection::vec(0..10_000_000u64, 0..3),
        stale in prop::collection::vec((0..10_000_000u64, 1..50u32), 0..3),
        hello in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = world(64, (!hello).then_some(7), asks, path, seed);
        world.asks_each = 2;
        let (mut incidents, mut epoch) = (Vec::new(), 7);
        incidents.extend(forgets.iter().map(|at| (*at, Incident::ForgetSessions)));
        let mut stale = stale;
        stale.sort_unstable();
        for (at, step) in stale {
            epoch += step;
            incidents.push((at, Incident::EpochMin(epoch)));
        }
        incidents.sort_by_key(|(at, _)| *at);
        world.incidents = incidents.into();
        world.offer(messages(150, 60, seed));
        world.run();
        // Without a session that ends nothing is lost, in whichever epoch it is.
        check_all_answered(&world, forgets.is_empty());
    }

    #[test]
    fn a_server_that_is_full_of_asks_holds_back_these_alone_and_for_a_time(
        path in bad_path(),
        full in prop::collection::vec((0..6_000_000u64, 0..10usize), 1..5),
        seed in any::<u64>(),
    ) {
        let mut world = world(128, Some(7), AskConfig::HELD, path, seed);
        world.asks_each = 3;
        let mut times: Vec<_> = full.into_iter().map(|(at, most)| (at, Incident::AsksMax(most))).collect();
        times.sort_by_key(|(at, _)| *at);
        times.push((7_000_000, Incident::AsksMax(64)));
        world.incidents = times.into();
        world.server.answers.service_us = 300_000;
        world.offer(messages(300, 60, seed));
        world.run();
        check_all_answered(&world, true);
        prop_assert_eq!((world.server.missing, world.server.abandoned), (0, 0));
    }

    /// Whatever became of it before: once nothing is lost any more, all that is acked and answered is had within a bound.
    #[test]
    fn once_faults_stop_all_that_is_acked_is_had_within_a_turn_and_some_round_trips(
        path in bad_path(),
        asks in asks(),
        lasts_us in 1_000_000..60_000_000u64,
        crashes in prop::collection::vec(0..60_000_000u64, 0..4),
        downs in prop::collection::vec((0..60_000_000u64, 0..30_000_000u64), 0..3),
        seed in any::<u64>(),
    ) {
        let mut world = world(64, Some(7), asks, path, seed);
        world.asks_each = 1;
        world.server.answers.service_us = 1 + seed % 30_000_000;
        let mut incidents: Vec<_> = crashes.into_iter().map(|at| (at, Incident::Crash)).collect();
        for (at, us) in downs {
            incidents.extend([(at, Incident::Down), (at + us, Incident::Up)]);
        }
        incidents.retain(|(at, _)| *at < lasts_us);
        incidents.push((lasts_us, Incident::Up));
        incidents.sort_by_key(|(at, _)| *at);
        world.incidents = incidents.into();
        world.offer(messages(400, 60, seed));
        world.run_until(lasts_us);
        world.path = Path { delay_us: 1_000, ..Path::CLEAN };
        world.offer_no_more();
        while !world.client.is_idle() || world.server.answers.is_working() {
            world.step();
        }
        let begun_us = world.now_us.max(world.last_arrival_us());
        let timeout_us = world.client.rto_us() * 5 / 4;
        while world.client.asking() > 0 {
            world.step();
        }
        let bound_us = begun_us + TURN_US + timeout_us + ROUND_TRIPS * 2_000;
        prop_assert!(world.now_us <= bound_us, "{} of {}", world.now_us - begun_us, bound_us - begun_us);
        check_all_answered(&world, true);
    }
}

#[test]
fn a_server_without_the_extension_fails_what_asks_and_takes_the_rest() {
    let mut world = world(64, Some(7), AskConfig::HELD, Path { loss_per_mille: 200, ..Path::CLEAN }, 1);
    world.server.answers.has_extension = false;
    world.asks_each = 2;
    world.offer(messages(100, 60, 1));
    world.run();
    for (id, outcome) in &world.outcomes {
        let failed = matches!(outcome, Event::Failed { reason: FailReason::Unsupported, .. });
        assert_eq!(failed, world.asked.contains(id), "{outcome:?}");
    }
    assert!(world.server.answers.takes.is_empty() && world.answers.is_empty());
}

#[test]
fn on_a_good_path_an_answer_takes_a_round_trip_after_it_is_there_and_the_server_is_left_clean() {
    let mut world = world(64, Some(7), AskConfig::HELD, Path::CLEAN, 1);
    world.asks_each = 1;
    world.server.answers.service_us = 1_000_000;
    world.offer(messages(64, 60, 1));
    world.run();
    check_all_answered(&world, true);
    assert!(world.now_us < 2 * SECOND, "{}", world.now_us);
    // One TAKE for each, one more for each of the longer bodies.
    let takes = world.client.stats().takes;
    assert!((64..=128).contains(&takes), "{takes}");
    let at = world.client.poll_timeout().expect("the farewell");
    world.now_us = at;
    world.client.handle_timeout(at);
    world.drain();
    while world.server.answers.takes.len() < usize::try_from(takes).unwrap() + 1 {
        let at = world.last_arrival_us();
        world.run_until(at);
        world.arrive_all();
    }
    assert_eq!(world.server.answers.kept(), 0);
}
