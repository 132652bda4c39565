//! Two servers on copies of one data directory, which would give the same names to different records.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::drive::{config, drains, serve, view};
use super::target::{Found, Kind, PASSWORD, write_secret};
use crate::common::server::Home;
use crate::common::wait_for;
use crate::common::wire::Wire;
use crate::faults::fast_dir;

const PATIENCE: Duration = Duration::from_secs(60);

/// Clients of the time before the copy, and of each of the two servers after it.
const BEFORE: u64 = 1;
const AFTER: [u64; 2] = [101, 102];

/// Each of these clients sends so many records.
const RECORDS: u64 = 200;

fn send(wire: &Wire, client: u64, seqs: RangeInclusive<u64>) {
    for seq in seqs {
        wire.ask_ack(&wire.data(seq, &payload(client, seq)));
    }
}

fn payload(client: u64, seq: u64) -> Vec<u8> {
    format!("record {seq} of client {client}").into_bytes()
}

/// How many of each client's records are there. No name is there twice, and nothing that nobody sent.
fn count(found: &[Found]) -> BTreeMap<u64, usize> {
    let mut names = HashSet::new();
    let mut of = BTreeMap::new();
    for record in found {
        assert!(names.insert((record.offset, record.index)), "there twice, or for two records: {record:?}");
        assert_eq!(record.payload, payload(record.client, record.seq), "{record:?}");
        *of.entry(record.client).or_default() += 1;
    }
    of
}

fn two_copies(kind: Kind) {
    let homes = [Home::below(&fast_dir(), ""), Home::below(&fast_dir(), "")];
    let mut target = kind.start(homes[0].path());
    for home in &homes {
        let password = home.path().join("password");
        write_secret(&password, PASSWORD);
        home.configure(&config(&[("besieged", target.sink(&password) + kind.timeout())]));
    }
    let server = serve(&homes[0]);
    send(&Wire::new(&server, BEFORE), BEFORE, 1..=RECORDS);
    drains(&server, "besieged", PATIENCE).unwrap();
    assert!(server.terminate().success());
    let copied = Command::new("cp").arg("-a").args([homes[0].data(), homes[1].data()]).status();
    assert!(copied.unwrap().success());

    // Both take records, and give acks, throughout: `send` waits for each.
    let mut servers = homes.each_ref().map(serve);
    for part in 0..2 {
        let (from, to) = (part * RECORDS / 2 + 1, (part + 1) * RECORDS / 2);
        thread::scope(|scope| {
            for (server, client) in servers.iter().zip(AFTER) {
                let wire = Wire::new(server, client);
                scope.spawn(move || send(&wire, client, from..=to));
            }
        });
        let (winner, loser) = wait_for("one to go on and the other to stand still", || {
            let lag = servers.each_ref().map(|server| view(server, "besieged")["lag"].as_u64().unwrap());
            match lag {
                [0, behind] if behind > 0 => Some((0, 1)),
                [behind, 0] if behind > 0 => Some((1, 0)),
                _ => None,
            }
        });
        let reason = wait_for("the loser to say so", || {
            let ready = servers[loser].get("/readyz");
            let up = servers[loser].metric("duragram_sink_up", "sink=\"besieged\"");
            (ready.contains("sink besieged: ") && up == 0.0).then_some(ready)
        });
        eprintln!("{kind}: the other says {reason}");
        let of = count(&target.found(0));
        let part_of = usize::try_from(to).unwrap();
        let expected = BTreeMap::from([(BEFORE, usize::try_from(RECORDS).unwrap()), (AFTER[winner], part_of)]);
        assert_eq!(of, expected, "{kind}: the records before the copy and the winner's, each once");
        // The next starts of both find the same.
        for server in servers {
            server.kill();
        }
        servers = homes.each_ref().map(serve);
    }
}

#[test]
fn of_two_servers_on_copies_of_a_directory_one_writes_to_postgres_and_the_other_says_why_not() {
    two_copies(Kind::Postgres);
}

#[test]
fn of_two_servers_on_copies_of_a_directory_one_writes_to_nats_and_the_other_says_why_not() {
    two_copies(Kind::Nats);
}

#[test]
fn of_two_servers_on_copies_of_a_directory_one_writes_to_redis_and_the_other_says_why_not() {
    two_copies(Kind::Redis);
}
