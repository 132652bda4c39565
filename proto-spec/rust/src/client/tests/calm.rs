//! Once the path has become good, all is acked within a bound that follows from what the client was left with: the timer that
//! runs, one timeout more for what no answer has room to tell of, and round trips.

use std::vec;
use std::vec::Vec;

use super::super::{Client, ClientConfig, Event, Slot};
use super::bench::{CLIENT, SECOND};
use super::model_server::ModelServer;
use super::world::{Incident, Message, Path, World};
use crate::Epoch;
use crate::codec::RejectCode;
use crate::random::Random;

/// One way, when the path is good.
const DELAY_US: u64 = 1_000;
const SYNC_US_MAX: u64 = 2_000;
/// What slow start takes, and slow growth after it.
const ROUND_TRIPS: u64 = 40;

/// Bad weather: what it leaves behind in a client is as various as can be.
struct Weather {
    path: Path,
    slots: usize,
    window: u16,
    payload_len: usize,
    rto_max_us: u64,
    sync_us: u64,
    tells_completeness: bool,
    lasts_us: u64,
    bursts: u64,
}

/// A number between the two, where each order of magnitude is as likely as another.
fn magnitude(random: &mut Random, low: u64, high: u64) -> u64 {
    let from = low << random.up_to(u64::from((high / low).ilog2()));
    from + random.up_to(from.min(high - from))
}

impl Weather {
    fn of(random: &mut Random) -> Self {
        let delay_us = magnitude(random, 50, 300_000);
        let often = |random: &mut Random, most: u64| if random.up_to(1) == 0 { 0 } else { random.up_to(most) };
        Self {
            path: Path {
                delay_us,
                jitter_us: often(random, 4 * delay_us),
                loss_per_mille: often(random, 400),
                repeat_per_mille: often(random, 100),
                late_per_mille: often(random, 20),
                ..Path::CLEAN
            },
            slots: usize::try_from(magnitude(random, 1, 512)).unwrap(),
            window: u16::try_from(magnitude(random, 2, 1_024)).unwrap(),
            payload_len: usize::try_from(magnitude(random, 1, 64)).unwrap(),
            rto_max_us: magnitude(random, 2 * SECOND, 60 * SECOND),
            sync_us: magnitude(random, 50, 20_000),
            tells_completeness: random.up_to(3) > 0,
            lasts_us: magnitude(random, SECOND / 8, 64 * SECOND),
            bursts: 1 + random.up_to(5),
        }
    }
}

/// Now and then: something that the server or the path does for a while, and its end.
fn trouble(random: &mut Random) -> Option<(Incident, Incident)> {
    let refuse =
        |code, retry_after_ms| Some((Incident::Refuse(Some((None, code, retry_after_ms))), Incident::Refuse(None)));
    match random.up_to(11) {
        0..=2 => Some((Incident::Down, Incident::Up)),
        3 => refuse(RejectCode::Busy, u32::try_from(random.up_to(2_000)).unwrap()),
        4 => refuse(RejectCode::Storage, 0),
        5 => Some((Incident::Credit(u16::try_from(random.up_to(3)).unwrap()), Incident::Credit(u16::MAX))),
        6 => Some((Incident::Crash, Incident::Crash)),
        7 => Some((Incident::ForgetSessions, Incident::Crash)),
        _ => None,
    }
}

/// A client in that weather, when it has just become good and all that was under way has arrived and been answered.
fn after(weather: &Weather, seed: u64, random: &mut Random) -> World<Vec<Slot>, Vec<u8>> {
    let &Weather { slots, payload_len, lasts_us, bursts, .. } = weather;
    let config = ClientConfig { rto_max_us: weather.rto_max_us, ..ClientConfig::new(CLIENT, Epoch::new(7)) };
    let client = Client::new(config, vec![Slot::EMPTY; slots], vec![0; slots * payload_len], seed);
    let mut world = World::new(client, ModelServer::new(weather.window), weather.path, seed);
    world.sync_us = weather.sync_us;
    world.server.tells_completeness = weather.tells_completeness;
    let mut at_us = 0;
    for _ in 0..bursts {
        at_us += random.up_to(2 * lasts_us / bursts);
        if at_us >= lasts_us {
            break;
        }
        world.run_until(at_us);
        let messages = usize::try_from(magnitude(random, 1, 1_024)).unwrap();
        world.offer((0..messages).map(|_| Message { channel: 0, batch: false, payload: vec![0xab; payload_len] }));
        if let Some((begins, ends)) = trouble(random) {
            let ends_us = (at_us + random.up_to(lasts_us / 2)).min(lasts_us);
            world.incidents.extend([(at_us, begins), (ends_us, ends)]);
            world.run_until(ends_us);
            at_us = ends_us;
        }
    }
    world.run_until(lasts_us);
    world.path = Path { delay_us: DELAY_US, ..Path::CLEAN };
    world.sync_us = world.sync_us.min(SYNC_US_MAX);
    world.offer_no_more();
    let arrived_us = world.last_arrival_us() + 2 * DELAY_US + 2 * SYNC_US_MAX;
    while world.now_us < arrived_us && !world.client.is_idle() {
        world.step();
    }
    world
}

#[test]
fn once_nothing_is_lost_any_more_all_is_acked_within_a_timeout_and_some_round_trips() {
    for seed in 0..4_000 {
        let mut random = Random::new(seed);
        let weather = Weather::of(&mut random);
        let mut world = after(&weather, seed, &mut random);
        let left = world.client.queued() as u64;
        let mut timer_us = world.client.poll_timeout().unwrap_or(0).max(world.now_us);
        world.others.clear();
        // With up to a quarter more at random, as it stands when it is waited for.
        let mut timeout_us = 0;
        while !world.client.is_idle() {
            timeout_us = timeout_us.max(world.client.rto_us() * 5 / 4);
            if world.client.credit() == Some(0) {
                // It asks for credit, ever less often.
                timer_us = timer_us.max(world.client.poll_timeout().unwrap_or(0));
            }
            world.step();
            for event in world.others.drain(..) {
                if let Event::ServerWaits { until_us, .. } = event {
                    timer_us = timer_us.max(until_us);
                }
            }
        }
        let round_trips = ROUND_TRIPS + left / u64::from(weather.window);
        let bound_us = timer_us + timeout_us + round_trips * (2 * DELAY_US + 2 * world.sync_us);
        let (now_us, slots, window) = (world.now_us, weather.slots, weather.window);
        assert!(
            now_us <= bound_us,
            "seed {seed}: {left} of {slots} slots at a window of {window}: the timer expired at {timer_us} at the latest, a \
             timeout takes {timeout_us}, and it took until {now_us} (us)"
        );
    }
}
