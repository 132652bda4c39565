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
use super::{CONFIG, PATIENCE, Progress, fast_dir, rounds, setting};
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
    crowd: Option<Crowd>,
    seed: u64,
    /// Kills by the layer, and ends of servers that were killed from here, since the point did not come up.
    struck: u64,
    missed: u64,
}

impl Siege {
    fn begin(seed: u64) -> Self {
        let home = Home::below(&fast_dir(), CONFIG);
        // Nobody is there yet.
        let nowhere = (Ipv4Addr::LOCALHOST, 9).into();
        let path = LossyPath::open((Ipv4Addr::LOCALHOST, 0).into(), nowhere, Weather::FOUL, seed, None).unwrap();
        let crowd = Some(Crowd::start(path.addr(), CLIENTS, PLAN));
        Self { home, path, crowd, seed, struck: 0, missed: 0 }
    }

    /// A server that ends itself by this rule, or is killed when that does not happen for a while.
    fn strike(&mut self, rule: Rule) {
        let layer = Layer::over(&self.home.disk());
        layer.set(0, rule);
        let mut command = self.home.command(&self.home.data());
        layer.under(&mut command);
        // Killed before it was ready, or afterwards: both count.
        let struck = match Server::try_start(&self.home, command) {
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
        };
        self.struck += u64::from(struck);
        self.missed += u64::from(!struck);
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

    /// A server that is killed from outside, after some time.
    fn kill_after(&mut self, time: Duration) {
        if let Ok(server) = Server::try_start(&self.home, self.home.command(&self.home.data())) {
            self.path.set_server(server.udp);
            std::thread::sleep(time);
            self.struck += u64::from(server.is_running());
        } else {
            panic!("it does not start, seed {}: {}", self.seed, std::fs::read_to_string(self.home.log_path()).unwrap());
        }
    }

    /// The last server: every record that was sent gets its ack, and comes out once.
    fn end(mut self) -> u64 {
        let crowd = self.crowd.take().expect("taken here only");
        crowd.stop();
        let server = self.home.serve();
        self.path.set_server(server.udp);
        self.path.set_weather(Weather::CLEAR);
        let heard = crowd.finish(PATIENCE).unwrap_or_else(|problem| panic!("seed {}: {problem}", self.seed));
        assert!(server.terminate().success());
        if let Err(problem) = load::judge(&self.home.lines(), &heard, PLAN.bytes_max) {
            panic!("seed {}: {problem}", self.seed);
        }
        heard.iter().map(|heard| heard.sent).sum()
    }
}

#[test]
fn a_kill_at_any_named_point_loses_nothing_and_repeats_nothing() {
    let mut siege = Siege::begin(4);
    for (n, &(what, calls, part, _)) in POINTS.iter().enumerate() {
        let before = siege.missed;
        let action = if n % 2 == 0 { Action::KillBefore } else { Action::KillAfter };
        siege.strike(Rule::nth(calls, part, 1, action));
        assert_eq!(siege.missed, before, "{what}: it never came to that");
    }
    assert!(siege.end() > 100);
}
