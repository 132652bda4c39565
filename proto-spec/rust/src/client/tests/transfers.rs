//! Whole transfers over bad paths: everything is acked exactly once and arrives byte for byte.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::{Client, ClientConfig, Event, Slot};
use super::bench::{CLIENT, SECOND};
use super::model_server::ModelServer;
use super::world::{Incident, Message, Path, World, messages};
use crate::Epoch;
use crate::codec::RejectCode;

type VecWorld = World<Vec<Slot>, Vec<u8>>;

fn world(slots: usize, epoch: Option<u32>, path: Path, window: u16, seed: u64) -> VecWorld {
    let config = ClientConfig::new(CLIENT, epoch.and_then(Epoch::new));
    let buffer = vec![0; (slots * 200).max(1_200)];
    World::new(Client::new(config, vec![Slot::EMPTY; slots], buffer, seed), ModelServer::new(window), path, seed)
}

fn bad_path() -> impl Strategy<Value = Path> {
    (0..50_000u64, 0..30_000u64, 0..300u64, 0..200u64).prop_map(|(delay_us, jitter_us, loss, repeat)| Path {
        delay_us,
        jitter_us,
        loss_per_mille: loss,
        repeat_per_mille: repeat,
        ..Path::CLEAN
    })
}

/// Every message acked, and journaled once in each epoch that it was sent in.
fn check_all_acked<M, B>(world: &World<M, B>) {
    for (id, outcome) in &world.outcomes {
        assert!(matches!(outcome, Event::Acked { .. }), "{id:?}: {outcome:?}");
    }
    let mut times = BTreeMap::new();
    for entry in &world.server.journal {
        *times.entry((entry.session, entry.seq)).or_insert(0) += 1;
    }
    assert!(times.values().all(|n| *n == 1), "journaled twice");
}

fn check_journaled_once_in_order_of_send<M, B>(world: &World<M, B>) {
    check_all_acked(world);
    let mut entries: Vec<_> = world.server.journal.iter().collect();
    entries.sort_by_key(|entry| entry.seq);
    let journaled: Vec<&[u8]> = entries.iter().map(|entry| &entry.payload[..]).collect();
    let sent: Vec<&[u8]> = world.messages.values().map(|message| &message.payload[..]).collect();
    assert!(journaled == sent, "{} journaled, {} sent", journaled.len(), sent.len());
    assert_eq!((world.server.missing, world.server.abandoned), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn all_arrives_once_and_in_its_place_over_any_path(
        path in bad_path(),
        slots in prop_oneof![Just(1usize), 2..8usize, Just(64), Just(700)],
        window in prop_oneof![Just(1u16), 2..20u16, Just(256), Just(4_096)],
        hello in any::<bool>(),
        len_max in prop_oneof![Just(0usize), Just(20), Just(400), Just(1_168)],
        seed in any::<u64>(),
    ) {
        let mut world = world(slots, (!hello).then_some(7), path, window, seed);
        world.offer(messages(300, len_max, seed));
        world.run();
        prop_assert_eq!(world.outcomes.len(), 300);
        check_journaled_once_in_order_of_send(&world);
    }

    #[test]
    fn one_message_at_a_time_in_fixed_arrays(path in bad_path(), seed in any::<u64>()) {
        let config = ClientConfig::new(CLIENT, Epoch::new(1));
        let client = Client::new(config, [Slot::EMPTY; 1], [0u8; 100], seed);
        let mut world = World::new(client, ModelServer::new(64), path, seed);
        world.offer(messages(60, 100, seed));
        world.run();
        check_journaled_once_in_order_of_send(&world);
    }

    #[test]
    fn crashes_of_the_server_lose_nothing_that_was_acked(
        path in bad_path(),
        crashes in prop::collection::vec(0..3_000_000u64, 1..12),
        hello in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = world(256, (!hello).then_some(7), path, 1_024, seed);
        world.sync_us = 5_000;
        let mut crashes = crashes;
        crashes.sort_unstable();
        world.incidents = crashes.into_iter().map(|at| (at, Incident::Crash)).collect();
        world.offer(messages(800, 300, seed));
        world.run();
        check_journaled_once_in_order_of_send(&world);
    }

    #[test]
    fn a_server_that_forgets_its_sessions_goes_on_where_the_client_is(
        path in bad_path(),
        times in prop::collection::vec(0..2_000_000u64, 1..5),
        seed in any::<u64>(),
    ) {
        let mut world = world(64, Some(7), path, 128, seed);
        let mut times = times;
        times.sort_unstable();
        world.incidents = times.into_iter().map(|at| (at, Incident::ForgetSessions)).collect();
        world.offer(messages(500, 300, seed));
        world.run();
        for outcome in world.outcomes.values() {
            prop_assert!(matches!(outcome, Event::Acked { .. }), "{:?}", outcome);
        }
    }

    #[test]
    fn credit_that_shrinks_to_nothing_and_comes_back_only_delays(
        path in bad_path(),
        credits in prop::collection::vec((0..2_000_000u64, prop_oneof![Just(0u16), Just(1), 2..300u16]), 1..10),
        seed in any::<u64>(),
    ) {
        let mut world = world(256, Some(7), path, 256, seed);
        let mut credits = credits;
        credits.sort_unstable();
        world.incidents = credits.into_iter().map(|(at, credit)| (at, Incident::Credit(credit))).collect();
        world.incidents.push_back((2_500_000, Incident::Credit(64)));
        world.offer(messages(600, 300, seed));
        world.run();
        check_journaled_once_in_order_of_send(&world);
    }

    #[test]
    fn a_server_restarted_with_another_window_is_followed(
        path in bad_path(),
        windows in prop::collection::vec((0..2_000_000u64, prop_oneof![Just(1u16), 2..300u16]), 1..10),
        seed in any::<u64>(),
    ) {
        let mut world = world(256, Some(7), path, 256, seed);
        let mut windows = windows;
        windows.sort_unstable();
        world.incidents = windows.into_iter().map(|(at, window)| (at, Incident::Window(window))).collect();
        world.offer(messages(600, 300, seed));
        world.run();
        check_journaled_once_in_order_of_send(&world);
    }

    #[test]
    fn messages_refused_for_good_never_hold_up_the_others(
        path in bad_path(),
        window in prop_oneof![Just(1u16), 2..40u16],
        refused in prop::collection::vec(any::<bool>(), 1..20),
        hello in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = world(64, (!hello).then_some(7), path, window, seed);
        world.server.refuse = Some((Some(9), RejectCode::Channel, 0));
        // One that is taken, so that the credit is known.
        world.offer(messages(1, 50, seed));
        world.run();
        // Long runs of refused ones, longer than the window, and of others.
        let all = messages(refused.len() * 20, 50, seed).into_iter().enumerate();
        world.offer(all.map(|(n, message)| Message { channel: if refused[n / 20] { 9 } else { 0 }, ..message }));
        world.run();
        for (id, outcome) in &world.outcomes {
            let ended_well = matches!(outcome, Event::Acked { .. });
            prop_assert_eq!(ended_well, world.messages[id].channel == 0, "{:?}", outcome);
        }
        // The server is never told that something acked was lost.
        prop_assert_eq!(world.server.missing, 0);
        prop_assert_eq!(world.server.stale, 0);
    }

    #[test]
    fn refusals_of_every_temporary_kind_only_delay(
        path in bad_path(),
        refusals in prop::collection::vec(
            (0..3_000_000u64, prop_oneof![
                Just(RejectCode::Busy), Just(RejectCode::Storage), Just(RejectCode::Unknown(77)),
            ], 0..2_000u32),
            1..6,
        ),
        hello in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = world(128, (!hello).then_some(7), path, 256, seed);
        let mut times: Vec<(u64, Incident)> = Vec::new();
        for (at, code, retry_after_ms) in refusals {
            times.push((at, Incident::Refuse(Some((None, code, retry_after_ms)))));
            times.push((at + 300_000, Incident::Refuse(None)));
        }
        times.push((4_000_000, Incident::Refuse(None)));
        times.sort_by_key(|(at, _)| *at);
        world.incidents = times.into();
        world.offer(messages(400, 300, seed));
        world.run();
        check_journaled_once_in_order_of_send(&world);
    }

    #[test]
    fn stale_epochs_move_what_is_unacked_into_new_sessions(
        path in bad_path(),
        stale in prop::collection::vec((0..2_000_000u64, 1..50u32), 1..5),
        hello in any::<bool>(),
        clock in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = world(128, (!hello).then_some(7), path, 256, seed);
        if clock {
            world.client.config.unix_us_at_zero = Some(20_000_000);
        }
        let mut stale = stale;
        stale.sort_unstable();
        let mut epoch = 7;
        for (at, step) in stale {
            epoch += step;
            world.incidents.push_back((at, Incident::EpochMin(epoch)));
        }
        world.offer(messages(400, 300, seed));
        world.run();
        check_all_acked(&world);
        // In each session the seqs begin at 1 and have no hole: nothing was abandoned, nothing lost.
        prop_assert_eq!((world.server.missing, world.server.abandoned), (0, 0));
    }
}

#[test]
fn thousands_in_flight_over_a_long_lossy_path() {
    let path = Path { delay_us: 50_000, loss_per_mille: 1, jitter_us: 1_000, ..Path::CLEAN };
    for (len_max, seed) in [(100, 1), (8, 2), (1_000, 3)] {
        let mut config = ClientConfig::new(CLIENT, Epoch::new(7));
        config.window_initial = 4_000;
        let client = Client::new(config, vec![Slot::EMPTY; 8_192], vec![0; 8_192 * len_max], seed);
        let mut world = World::new(client, ModelServer::new(8_192), path, seed);
        world.offer(messages(20_000, len_max, seed));
        world.drain();
        assert_eq!(world.client.in_flight(), 4_000);
        world.run();
        check_journaled_once_in_order_of_send(&world);
    }
}

/// How long a transfer of full datagrams takes, as a fraction of what the bottleneck could carry meanwhile, and the
/// share of datagrams that were sent again.
fn efficiency(path: Path, count: usize, seed: u64) -> (f64, f64) {
    let mut config = ClientConfig::new(CLIENT, Epoch::new(7));
    config.rto_initial_us = 200_000;
    let client = Client::new(config, vec![Slot::EMPTY; 1_024], vec![0; 1_024 * 1_200], seed);
    let mut world = World::new(client, ModelServer::new(1_024), path, seed);
    let full = |n: usize| Message { channel: 0, batch: false, payload: vec![n.to_le_bytes()[0]; 1_168] };
    world.offer((0..count).map(full));
    world.run();
    check_journaled_once_in_order_of_send(&world);
    let stats = world.client.stats();
    let carried = world.now_us as f64 / path.serialization_us as f64;
    (count as f64 / carried, stats.retransmissions as f64 / stats.transmissions as f64)
}

#[test]
fn a_transfer_fills_its_link() {
    // 10 Mbit/s and 20 ms both ways: 20 datagrams fill it, 20 more may queue.
    let path = Path { delay_us: 10_000, serialization_us: 1_000, queue_max: 20, ..Path::CLEAN };
    let (fraction, again) = efficiency(path, 20_000, 1);
    assert!(fraction > 0.95, "{fraction}");
    assert!(again < 0.01, "sent again: {again}");
}

#[test]
fn a_transfer_over_one_per_cent_of_loss_keeps_most_of_its_link() {
    let path = Path { delay_us: 10_000, serialization_us: 1_000, queue_max: 20, loss_per_mille: 10, ..Path::CLEAN };
    let (fraction, again) = efficiency(path, 20_000, 1);
    // The square-root law (Mathis et al., 1997) gives 1.22 / √0.01 ≈ 12 datagrams a round trip, of the 20 that fill it.
    assert!(fraction > 0.5, "{fraction}");
    assert!(again < 0.03, "sent again: {again}");
}

#[test]
fn reordering_within_reason_is_not_taken_for_loss() {
    // Up to two datagrams overtake one: below the threshold of three.
    let path = Path { delay_us: 10_000, serialization_us: 1_000, jitter_us: 1_900, ..Path::CLEAN };
    let mut world = world(512, Some(7), path, 30, 1);
    world.offer(messages(5_000, 150, 1));
    world.run();
    check_journaled_once_in_order_of_send(&world);
    assert_eq!((world.client.stats().losses, world.server.duplicates), (0, 0));
}

#[test]
fn a_short_queue_before_the_bottleneck_keeps_the_window_small() {
    let path = Path { delay_us: 10_000, serialization_us: 1_000, queue_max: 5, ..Path::CLEAN };
    let mut world = world(512, Some(7), path, 512, 1);
    world.offer(messages(4_000, 100, 1));
    world.run();
    check_journaled_once_in_order_of_send(&world);
    let window = world.client.congestion_window();
    assert!(window <= 26, "{window} datagrams in flight where 20 fill the path and 5 may wait");
}

#[test]
fn an_outage_in_which_old_messages_make_room_for_new_ones_ends_without_a_false_alarm() {
    let mut world = world(64, Some(7), Path::CLEAN, 256, 1);
    world.offer(messages(100, 50, 1));
    world.run_until(10 * SECOND);
    world.incidents.push_back((10 * SECOND, Incident::Down));
    // An hour of one message a second: far more than the server's window.
    for (n, message) in (11..3_600).zip(messages(3_589, 50, 2)) {
        if world.client.queued() == 64 {
            world.client.abandon_oldest().expect("64 are queued");
        }
        world.offer([message]);
        world.run_until(n * SECOND);
    }
    assert_eq!(world.client.queued(), 64);
    world.incidents.push_back((3_600 * SECOND, Incident::Up));
    world.run();
    assert_eq!(world.outcomes.len(), 3_689);
    let acked = world.outcomes.values().filter(|event| matches!(event, Event::Acked { .. })).count();
    assert_eq!(acked, 100 + 64);
    // What the server counts as abandoned is what was transmitted in vain; of what was never sent it knows nothing.
    assert_eq!((world.server.missing, world.server.stale), (0, 0));
    let abandoned = world.server.abandoned;
    assert!((10..200).contains(&abandoned), "{abandoned}");
}

#[test]
fn a_lost_tail_is_recovered_in_a_few_round_trips_after_one_timeout() {
    // Without payload an ack has no room for a bitmap and tells of the lowest one alone.
    for len_max in [0, 8, 100, 1_168] {
        let config = ClientConfig::new(CLIENT, Epoch::new(7));
        let client = Client::new(config, vec![Slot::EMPTY; 2_048], vec![0; 2_048 * 1_200], 1);
        let mut world = World::new(client, ModelServer::new(4_096), Path::CLEAN, 1);
        world.offer(messages(4_000, len_max, 1));
        world.run();
        assert!(world.client.congestion_window() > 1_000, "wide open: {}", world.client.congestion_window());
        let (begin_us, before) = (world.now_us, world.client.stats());
        world.offer(messages(1_000, len_max, 2));
        // The first half arrives, of the rest nothing.
        world.lose_from = Some(world.arrivals.len() + 500);
        world.drain();
        world.lose_from = None;
        assert_eq!(world.client.in_flight(), 1_000);
        world.run();
        check_journaled_once_in_order_of_send(&world);
        let (ms, stats) = ((world.now_us - begin_us) / 1_000, world.client.stats());
        let again = stats.retransmissions - before.retransmissions;
        // 10 ms a round trip: the answers to the first half, the timeout, then one for each doubling of the window.
        assert!(ms < 12 + 130 + 12 * 10, "{len_max} bytes: {ms} ms, {again} sent again, {stats:?}");
        assert!((500..=750).contains(&again), "{len_max} bytes: {again} sent again");
    }
}

#[test]
fn batches_and_channels_arrive_as_they_were_given() {
    let mut world = world(16, Some(7), Path::CLEAN, 64, 1);
    let batch = |records: &[&[u8]]| {
        let mut payload = Vec::new();
        for record in records {
            payload.extend_from_slice(&u16::try_from(record.len()).unwrap().to_le_bytes());
            payload.extend_from_slice(record);
        }
        payload
    };
    world.offer([
        Message { channel: 3, batch: false, payload: b"alone".to_vec() },
        Message { channel: 0xffff, batch: true, payload: batch(&[b"one", b"", b"three"]) },
        Message { channel: 0, batch: false, payload: Vec::new() },
    ]);
    world.run();
    check_journaled_once_in_order_of_send(&world);
    let kinds: Vec<_> = world.server.journal.iter().map(|entry| (entry.channel, entry.batch)).collect();
    assert_eq!(kinds, [(3, false), (0xffff, true), (0, false)]);
}
