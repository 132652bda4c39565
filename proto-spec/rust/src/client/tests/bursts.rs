//! A burst of losses in a wide window is made good in a bounded number of round trips.

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::super::{Client, ClientConfig, Slot};
use super::bench::CLIENT;
use super::model_server::ModelServer;
use super::world::{Burst, Message, Path, World};
use crate::Epoch;

const WINDOW: u16 = 4_096;
/// How long a datagram takes one way.
const DELAY_US: u64 = 5_000;
const SYNC_US: u64 = 200;
/// What a burst may cost beside the timeout.
const ROUND_TRIPS_MAX: u64 = 12;

type VecWorld = World<Vec<Slot>, Vec<u8>>;

fn messages(count: usize, len: usize) -> impl Iterator<Item = Message> {
    (0..count).map(move |_| Message { channel: 0, batch: false, payload: vec![0xab; len] })
}

/// A client whose window has opened as wide as it can.
fn warm(len: usize, serialization_us: u64, seed: u64, tells_completeness: bool) -> VecWorld {
    let config = ClientConfig::new(CLIENT, Epoch::new(7));
    let slots = usize::from(WINDOW);
    let client = Client::new(config, vec![Slot::EMPTY; slots], vec![0; slots * len.max(1)], seed);
    let path = Path { delay_us: DELAY_US, serialization_us, ..Path::CLEAN };
    let mut world = World::new(client, ModelServer::new(WINDOW), path, seed);
    world.sync_us = SYNC_US;
    world.server.tells_completeness = tells_completeness;
    // More than the window in one go, so that the congestion window is the limit.
    world.offer(messages(16_000, len));
    world.run();
    assert_eq!(world.client.congestion_window(), u32::from(WINDOW));
    assert_eq!(world.client.stats().retransmissions, 0);
    world
}

struct Recovered {
    round_trips: f64,
    retransmissions: u64,
    timeouts: u64,
}

/// A burst, and what there is around it.
#[derive(Clone, Copy, Debug)]
struct Case {
    len: usize,
    share_percent: u64,
    /// The answers are lost, not the datagrams.
    answers: bool,
    payload_len: usize,
    /// What each datagram takes on the path: 0, and a flight has one answer; 1, and it has twenty.
    serialization_us: u64,
    /// So many messages follow the burst.
    more: usize,
    tells_completeness: bool,
}

/// Sends a burst and counts round trips until all of it is acked. What the timeout takes is not counted.
fn recover(case: Case) -> Recovered {
    let Case { len, share_percent, answers, payload_len, serialization_us, more, tells_completeness } = case;
    let seed = 1 + len as u64 + share_percent;
    let mut world = warm(payload_len, serialization_us, seed, tells_completeness);
    let (begin_us, before) = (world.now_us, world.client.stats());
    let begin = world.outcomes.len();
    world.burst = Some(Burst { after: world.sent(), len, share_percent, answers });
    world.offer(messages(len + more, payload_len));
    let mut timeout_us = 0;
    let acked = |world: &VecWorld| {
        let all = begin..begin + len;
        all.into_iter().all(|n| world.outcomes.contains_key(&super::super::MessageId(n as u64)))
    };
    while !acked(&world) {
        world.step();
        // Up to a quarter more at random.
        timeout_us = timeout_us.max(world.client.timeout_us() * 5 / 4);
        let waited_us = world.now_us - begin_us;
        if waited_us > 30_000_000 {
            break;
        }
    }
    let stats = world.client.stats();
    let round_trip_us = 2 * DELAY_US + SYNC_US + u64::from(WINDOW) * serialization_us;
    let timeouts = stats.timeouts - before.timeouts;
    let waited_us = if timeouts > 0 { timeout_us } else { 0 };
    Recovered {
        round_trips: (world.now_us - begin_us).saturating_sub(waited_us) as f64 / round_trip_us as f64,
        retransmissions: stats.retransmissions - before.retransmissions,
        timeouts,
    }
}

fn check(cases: impl IntoIterator<Item = Case>) {
    let mut late: Vec<String> = Vec::new();
    for case in cases {
        for len in [64, 1_500, 3_500, 4_096] {
            for share_percent in [5, 30, 60, 100] {
                let case = Case { len, share_percent, ..case };
                let Recovered { round_trips, retransmissions, timeouts } = recover(case);
                let told = format!(
                    "{case:?}: {round_trips:.1} round trips, {timeouts} timeouts, {retransmissions} sent again"
                );
                if round_trips > ROUND_TRIPS_MAX as f64 || timeouts > 1 {
                    late.push(told);
                }
            }
        }
    }
    assert!(late.is_empty(), "{} are late:\n{}", late.len(), late.join("\n"));
}

const CASE: Case = Case {
    len: 0,
    share_percent: 0,
    answers: false,
    payload_len: 100,
    serialization_us: 1,
    more: 0,
    tells_completeness: true,
};

#[test]
fn a_burst_of_losses_is_made_good_within_twelve_round_trips_and_a_timeout() {
    for payload_len in [0, 8, 20, 100] {
        check([0, 1].map(|serialization_us| Case { payload_len, serialization_us, ..CASE }));
    }
    check([Case { more: 3_000, ..CASE }, Case { more: 3_000, payload_len: 8, ..CASE }]);
}

#[test]
fn lost_answers_to_a_burst_are_made_good_within_twelve_round_trips_and_a_timeout() {
    check([0, 100].map(|payload_len| Case { payload_len, answers: true, ..CASE }));
}

#[test]
fn a_burst_is_made_good_at_a_server_that_does_not_say_what_is_complete() {
    check([8, 100].map(|payload_len| Case { payload_len, tells_completeness: false, ..CASE }));
}

/// A path of 200 µs both ways that loses a share of so many datagrams in a row, those that make losses good among them.
#[derive(Clone, Copy)]
struct Stretch {
    len: usize,
    share_percent: u64,
    slots: usize,
    payload_len: usize,
}

/// Milliseconds that 20,000 messages take over it.
fn ms_through(stretch: Stretch, seed: u64) -> u64 {
    let Stretch { len, share_percent, slots, payload_len } = stretch;
    let config = ClientConfig::new(CLIENT, Epoch::new(7));
    let client = Client::new(config, vec![Slot::EMPTY; slots], vec![0; slots * payload_len.max(1)], seed);
    // With a thousand in flight 5 ms of what an answer takes are the client's own queue.
    let path = Path { delay_us: 100, serialization_us: 5, ..Path::CLEAN };
    let mut world = World::new(client, ModelServer::new(WINDOW), path, seed);
    world.sync_us = SYNC_US;
    world.burst = Some(Burst { after: 5_000, len, share_percent, answers: false });
    world.offer(messages(20_000, payload_len));
    world.run();
    world.now_us / 1_000
}

#[test]
fn a_lossy_stretch_longer_than_the_window_is_passed_without_waiting_for_a_timeout_at_each_step() {
    let mut late: Vec<String> = Vec::new();
    for (len, share_percent, most_ms) in
        [(6_000, 5, 300), (6_000, 30, 400), (700, 60, 300), (3_500, 60, 500), (6_000, 60, 700)]
    {
        for slots in [512, 1_024, 4_096] {
            let stretch = Stretch { len, share_percent, slots, payload_len: 100 };
            let mut all: Vec<u64> = (1..=5).map(|seed| ms_through(stretch, seed)).collect();
            all.sort_unstable();
            if all[2] > most_ms || all[4] > 2 * most_ms {
                late.push(format!("{share_percent} % of {len}, {slots} slots: {all:?} ms"));
            }
        }
    }
    assert!(late.is_empty(), "{}", late.join("\n"));
}

#[test]
fn on_a_slow_path_that_is_full_the_window_comes_down_to_what_the_path_bears() {
    // 600 ms both ways, a hundred datagrams a second, and a queue of twenty: no more than 80 are under way.
    let path = Path { delay_us: 300_000, serialization_us: 10_000, queue_max: 20, ..Path::CLEAN };
    let config = ClientConfig::new(CLIENT, Epoch::new(7));
    let client = Client::new(config, vec![Slot::EMPTY; 1_024], vec![0; 1_024 * 100], 1);
    let mut world = World::new(client, ModelServer::new(WINDOW), path, 1);
    world.offer(messages(20_000, 100));
    world.run_until(30_000_000);
    let mut windows = Vec::new();
    for second in 30..150 {
        world.run_until(second * 1_000_000);
        windows.push(world.client.congestion_window());
    }
    assert!(windows.iter().all(|window| (20..=90).contains(window)), "{windows:?}");
    // The path gets ten times slower: so does the client.
    world.path.serialization_us = 100_000;
    world.run_until(210_000_000);
    let before = world.client.stats();
    world.run_until(270_000_000);
    let stats = world.client.stats();
    let (sent, acked) = (stats.transmissions - before.transmissions, stats.acked - before.acked);
    assert!(world.client.congestion_window() <= 30, "{}", world.client.congestion_window());
    assert!(acked > 300 && sent < 900, "{sent} sent for {acked}");
}
