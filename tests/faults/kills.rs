//! SIGKILL at points that are named, at the n-th call that matters, and at any time: what the kernel was given is kept,
//! and nothing else.
//!
//! The clients go on through all of it, on a bad network. The layer strikes in the very call; from without nobody could.

use std::net::Ipv4Addr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::layer::{Action, Layer, Rule, calls};
use super::load::{self, Crowd, Plan};
use super::{CONFIG, Long, PATIENCE, fast_dir};
use crate::common::lossy::{LossyPath, Weather};
use crate::common::server::{Home, Server};

const CLIENTS: usize = 4;
const PLAN: Plan = Plan { records: u64::MAX, window: 64, bytes_max: 700 };

/// Calls between which a kill can make a difference, by the name of what they are part of.
const POINTS: &[(&str, u32, &str, u64)] = &[
    ("a commit is written, not synced", calls::SYNC, ".log", 400),
    ("in the middle of writing a commit", calls::WRITE, ".log", 400),
    ("an ack is about to be sent", calls::REPLY, "", 400),
    ("the sink's lines are being written", calls::WRITE, "out.ndjson", 100),
    ("the sink's lines are being synced", calls::SYNC, "out.ndjson", 100),
    ("the witness is written", calls::WRITE | calls::SYNC | calls::CREATE, "witness.new", 3),
    ("the witness takes its place", calls::RENAME, "witness", 1),
    ("a table file is written", calls::WRITE | calls::SYNC | calls::CREATE, ".sst", 3),
    ("the manifest is written", calls::WRITE | calls::SYNC | calls::CREATE, "MANIFEST", 4),
    ("the manifest is made current", calls::RENAME, "CURRENT", 1),
    ("a log is begun and laid out", calls::WRITE | calls::CREATE | calls::TRUNCATE, ".log", 50),
    ("files are removed", calls::REMOVE, "", 3),
    ("directories are synced", calls::SYNC, "/rocksdb", 8),
];

/// A server that is killed and comes back, again and again; its clients; the way between.
struct Siege {
    home: Home,
    path: LossyPath,
    crowd: Crowd,
    seed: u64,
}

impl Siege {
    fn begin(seed: u64) -> Self {
        let home = Home::below(&fast_dir(), CONFIG);
        // Nobody is there yet.
        let nowhere = (Ipv4Addr::LOCALHOST, 9).into();
        let path = LossyPath::open((Ipv4Addr::LOCALHOST, 0).into(), nowhere, Weather::FOUL, seed, None).unwrap();
        let crowd = Crowd::start(path.addr(), CLIENTS, PLAN);
        Self { home, path, crowd, seed }
    }

    /// A server that ends itself by this rule; `false` when that does not happen for a while, and it was killed from here.
    fn strike(&self, rule: Rule) -> bool {
        let layer = Layer::over(&self.home.disk());
        layer.set(0, rule);
        let mut command = self.home.command(&self.home.data());
        layer.under(&mut command);
        // Killed before it was ready, or afterwards: both count.
        match Server::try_start(&self.home, command) {
            Err(status) => {
                assert_eq!(status.code(), None, "it ended by itself, {rule:?}, seed {}: {status}", self.seed);
                true
            }
            Ok(server) => {
                self.path.set_server(server.udp);
                let ended = self.ends_within(&server, Duration::from_millis(1500));
                if ended {
                    assert_eq!(server.wait().code(), None, "it ended by itself, {rule:?}, seed {}", self.seed);
                }
                ended
            }
        }
    }

    fn ends_within(&self, server: &Server, time: Duration) -> bool {
        let deadline = std::time::Instant::now() + time;
        while server.is_running() {
            if std::time::Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// A server that is killed from outside, when so much more is acked, and after that time.
    fn kill_after(&self, acks: u64, time: Duration) {
        let server = self.home.serve();
        self.path.set_server(server.udp);
        assert!(self.crowd.wait_acked(acks, PATIENCE), "nothing is acked, seed {}", self.seed);
        std::thread::sleep(time);
        assert!(server.is_running(), "it ended by itself, seed {}", self.seed);
    }

    /// The last server: every record that was sent gets its ack, and comes out once.
    fn end(self) -> u64 {
        self.crowd.stop();
        let server = self.home.serve();
        self.path.set_server(server.udp);
        self.path.set_weather(Weather::CLEAR);
        let heard = self.crowd.finish(PATIENCE).unwrap_or_else(|problem| panic!("seed {}: {problem}", self.seed));
        assert!(server.terminate().success());
        if let Err(problem) = load::judge(&self.home.lines(), &heard, PLAN.bytes_max) {
            panic!("seed {}: {problem}", self.seed);
        }
        heard.iter().map(|heard| heard.sent).sum()
    }
}

#[test]
fn a_kill_at_any_named_point_loses_nothing_and_repeats_nothing() {
    let siege = Siege::begin(4);
    for (n, &(what, calls, part, _)) in POINTS.iter().enumerate() {
        // So that there is something to recover.
        siege.kill_after(50, Duration::ZERO);
        let action = if n % 2 == 0 { Action::KillBefore } else { Action::KillAfter };
        assert!(siege.strike(Rule::nth(calls, part, 1, action)), "{what}: it never came to that");
    }
    assert!(siege.end() >= 50 * POINTS.len() as u64);
}

#[test]
fn a_kill_at_the_nth_call_loses_nothing_and_repeats_nothing() {
    let mut random = SmallRng::seed_from_u64(5);
    let siege = Siege::begin(5);
    for _ in 0..12 {
        strike_somewhere(&siege, &mut random);
    }
    siege.end();
}

/// At any of the calls of a start and of the work after it.
fn strike_somewhere(siege: &Siege, random: &mut SmallRng) -> bool {
    // The start takes about a hundred calls.
    let n = if random.random() { random.random_range(1..150) } else { random.random_range(1..1500) };
    let action = if random.random() { Action::KillBefore } else { Action::KillAfter };
    siege.strike(Rule::nth(calls::ALL, "", n, action))
}

/// `scripts/soak kills`
#[test]
#[ignore = "long: scripts/soak kills"]
fn kills_for_long() {
    let mut long = Long::start("kills", 300);
    let (mut missed, mut records) = (0, 0);
    while long.goes_on() {
        let siege = Siege::begin(long.random.random());
        let mut random = SmallRng::seed_from_u64(siege.seed);
        for _ in 0..20 {
            let hit = match random.random_range(0..4) {
                0 => strike_somewhere(&siege, &mut random),
                1 | 2 => {
                    let (_, calls, part, most) = POINTS[random.random_range(0..POINTS.len())];
                    let action = if random.random() { Action::KillBefore } else { Action::KillAfter };
                    siege.strike(Rule::nth(calls, part, random.random_range(1..=most), action))
                }
                _ => {
                    let time = Duration::from_micros(random.random_range(0..60_000));
                    siege.kill_after(random.random_range(0..2000), time);
                    true
                }
            };
            missed += u64::from(!hit);
            if random.random_range(0..4) == 0 {
                siege.path.rebind();
            }
            long.round();
        }
        records += siege.end();
    }
    long.tell(&format!(
        "{missed} of them from outside since the call did not come; {records} records, each there once"
    ));
}
