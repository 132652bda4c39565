//! Every sink under siege: the real program, its clients, a real target of each kind, and faults at any moment.
//!
//! What is compared in the end is the set of names in the target with what clients have in acks ([`judge`]). The short forms run
//! with all other tests; `scripts/soak sinks` runs for as long as it is told and prints a table.

mod copies;
mod drive;
mod fault;
mod judge;
mod mistakes;
mod target;
mod targets;
mod together;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::faults::Long;
use drive::Siege;
use fault::Fault;
use judge::Counts;
use target::Kind;

/// Three strikes each of two faults, and of any.
fn short(kind: Kind, faults: &[Fault]) {
    let mut siege = Siege::begin(kind, 0x51e6e);
    let mut random = SmallRng::seed_from_u64(7);
    let mut counts = Counts::default();
    for fault in faults {
        counts += siege.phase(&[*fault, *fault]).unwrap_or_else(|error| panic!("{error}"));
    }
    let any: Vec<Fault> = (0..3).map(|_| Fault::draw(kind, &mut random)).collect();
    counts += siege.phase(&any).unwrap_or_else(|error| panic!("{error}"));
    assert!(counts.acked > 100 && counts.found == counts.acked, "{counts:?}");
    assert_eq!((counts.missing, counts.dead), (0, 0), "{counts:?}");
}

#[test]
fn every_acked_record_is_in_the_file_once_whatever_is_killed() {
    short(Kind::File, &[Fault::ServerKilled]);
}

#[test]
fn every_acked_record_reaches_the_child_whatever_is_killed() {
    short(Kind::Exec, &[Fault::ServerKilled, Fault::TargetKilled]);
}

#[test]
fn every_acked_record_reaches_the_http_server_whatever_is_killed_or_cut() {
    short(Kind::Http, &[Fault::KilledInDoubt, Fault::TargetKilled]);
}

#[test]
fn every_acked_record_reaches_the_http_server_in_batches_whatever_is_killed_or_cut() {
    short(Kind::HttpBatch, &[Fault::KilledInDoubt, Fault::Cut]);
}

#[test]
fn every_acked_record_is_in_postgres_once_whatever_is_killed_or_cut() {
    short(Kind::Postgres, &[Fault::HeldBack, Fault::BothKilled]);
}

#[test]
fn every_acked_record_is_in_a_stream_of_nats_once_whatever_is_killed_or_cut() {
    short(Kind::Nats, &[Fault::KilledInDoubt, Fault::BothKilled]);
}

#[test]
fn every_acked_record_is_in_a_shared_stream_of_nats_once_within_its_window() {
    short(Kind::NatsShared, &[Fault::HeldBack, Fault::TargetKilled]);
}

#[test]
fn every_acked_record_is_in_a_stream_of_redis_once_whatever_is_killed_or_cut() {
    short(Kind::Redis, &[Fault::KilledInDoubt, Fault::BothKilled]);
}

#[test]
fn every_acked_record_is_in_a_stream_of_valkey_once_whatever_is_killed_or_cut() {
    short(Kind::Valkey, &[Fault::HeldBack, Fault::TargetKilled]);
}

#[test]
fn every_acked_record_reaches_subscribers_of_mqtt_whatever_is_killed_or_cut() {
    short(Kind::Mqtt, &[Fault::KilledInDoubt, Fault::TargetKilled]);
}

/// `scripts/soak sinks`
#[test]
#[ignore = "long: scripts/soak sinks"]
fn sinks_for_long() {
    let only = std::env::var("SIEGE_SINK").unwrap_or_default();
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.name().starts_with(&only)).collect();
    let table: Mutex<BTreeMap<(Kind, Fault), Counts>> = Mutex::default();
    let mut failed = Vec::new();
    // Three at a time: most of the time each waits.
    for some in kinds.chunks(3) {
        thread::scope(|scope| {
            let table = &table;
            let threads: Vec<_> = some.iter().map(|&kind| (kind, scope.spawn(move || besiege(kind, table)))).collect();
            failed.extend(threads.into_iter().filter_map(|(kind, thread)| match thread.join() {
                Ok(outcome) => outcome.err(),
                Err(_) => Some(format!("{kind}: it panicked")),
            }));
        });
    }
    eprintln!(
        "| sink | fault | rounds | acked | in the target | missing | doubled | dead letters |\n|---|---|---|---|---|---|---|---|"
    );
    for ((kind, fault), counts) in &*table.lock().expect("nobody panicked with it") {
        eprintln!("| {kind} | {} | {counts} |", fault.name());
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Siege after siege of one kind, each of six phases of three strikes.
fn besiege(kind: Kind, table: &Mutex<BTreeMap<(Kind, Fault), Counts>>) -> Result<(), String> {
    let mut long = Long::start(kind.name(), 60);
    while long.goes_on() {
        let mut siege = Siege::begin(kind, long.random.random());
        for _ in 0..6 {
            let fault = Fault::draw(kind, &mut long.random);
            let counts = siege.phase(&[fault; 3])?;
            *table.lock().expect("nobody panicked with it").entry((kind, fault)).or_default() += counts;
            (0..counts.strikes).for_each(|_| long.round());
        }
    }
    long.tell("all is in its target");
    Ok(())
}
