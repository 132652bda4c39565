//! One sink under siege: the server that is killed and comes back, its clients, its target, and the way between.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::fault::Fault;
use super::judge::{Counts, judge};
use super::target::{Kind, PASSWORD, Target, write_secret};
use super::targets::file::found_of;
use crate::common::lossy::{LossyPath, Weather};
use crate::common::server::{Home, Server, duragram};
use crate::faults::fast_dir;
use crate::faults::load::{Crowd, Heard, Plan};

/// The sink under siege has this name.
pub(super) const NAME: &str = "besieged";

/// How long the target, the clients and the sink may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Small steps, so that a short run has many checkpoints and trims. Nothing waits for long.
const CONFIG: &str = "datagram_bytes_max = 16384\ncheckpoint_bytes = 65536\ncheckpoint_interval = \"20ms\"\nretain_bytes = 0\ndrain_timeout = \"2s\"\n\
                      [retry]\nfirst_delay = \"20ms\"\nlongest_delay = \"200ms\"\n";

/// A network that takes its time, which bounds how fast clients are.
const WEATHER: Weather = Weather { loss: 0.01, duplicate: 0.01, reorder: 1.0, hold_max: Duration::from_millis(12) };

pub(super) const PLAN: Plan = Plan { records: u64::MAX, window: 12, bytes_max: 700 };
const CLIENTS: usize = 3;

/// The configuration of a server with these sinks.
pub(super) fn config(sinks: &[(&str, String)]) -> String {
    let table = |(name, keys): &(&str, String)| format!("[[sink]]\nname = \"{name}\"\n{keys}");
    CONFIG.to_owned() + &sinks.iter().map(table).collect::<String>()
}

/// Starts the server with the sinks of its configuration alone.
///
/// # Panics
/// It is not ready in time.
pub(super) fn serve(home: &Home) -> Server {
    let mut command = duragram();
    command.arg("serve").arg("--config").arg(home.path().join("duragram.toml"));
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(home.data());
    Server::try_start(home, command).unwrap_or_else(|status| {
        let log = std::fs::read_to_string(home.log_path()).unwrap_or_default();
        panic!("the server is not ready: {status}\n{log}")
    })
}

/// What a running server says of one of its sinks.
pub(super) fn view(server: &Server, sink: &str) -> Value {
    let views: Value = serde_json::from_str(&server.get("/api/sinks")).expect("JSON");
    let views = views["sinks"].as_array().expect("a list");
    views.iter().find(|view| view["name"] == sink).unwrap_or_else(|| panic!("{sink} in {views:?}")).clone()
}

/// Whether a sink has processed all there is; it may not stand still for longer than `patience`.
pub(super) fn drains(server: &Server, sink: &str, patience: Duration) -> Result<(), String> {
    let (mut deadline, mut least) = (Instant::now() + patience, u64::MAX);
    loop {
        let view = view(server, sink);
        let lag = view["lag"].as_u64().expect("a number");
        if lag == 0 {
            return Ok(());
        }
        if lag < least {
            (deadline, least) = (Instant::now() + patience, lag);
        }
        if Instant::now() > deadline {
            return Err(format!("sink {sink} has stood still for {patience:?}: {view}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The siege. Its home goes with it.
pub(super) struct Siege {
    pub(super) kind: Kind,
    pub(super) home: Home,
    pub(super) target: Box<dyn Target>,
    server: Option<Server>,
    path: LossyPath,
    pub(super) heard: Vec<Heard>,
    counts: Counts,
    random: SmallRng,
    seed: u64,
}

impl Siege {
    /// Starts the target and the server.
    pub(super) fn begin(kind: Kind, seed: u64) -> Self {
        Self::begin_knowing(PASSWORD, kind, seed)
    }

    /// The same with what the sink takes for the target's password.
    pub(super) fn begin_knowing(known: &str, kind: Kind, seed: u64) -> Self {
        let home = Home::below(&fast_dir(), "");
        let target = kind.start(home.path());
        write_secret(&password(&home), known);
        let beside = format!("type = \"file\"\npath = \"{}\"\n", home.out().display());
        let besieged = target.sink(&password(&home)) + kind.timeout();
        home.configure(&config(&[(NAME, besieged), ("beside", beside)]));
        let server = serve(&home);
        let path = LossyPath::open((Ipv4Addr::LOCALHOST, 0).into(), server.udp, WEATHER, seed, None).expect("a path");
        let random = SmallRng::seed_from_u64(seed);
        let heard = vec![Heard::default(); CLIENTS];
        Self { kind, home, target, server: Some(server), path, heard, counts: Counts::default(), random, seed }
    }

    /// Clients send while these faults strike, one after the other; then all is mended, and the target must hold what the sink
    /// promises. Returns what was counted meanwhile.
    pub(super) fn phase(&mut self, faults: &[Fault]) -> Result<Counts, String> {
        self.strikes(faults).map_err(|error| {
            let log = self.server.as_ref().map(Server::log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(12).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            format!("{}, {faults:?}, FAULTS_SEED={}: {error}\n{}", self.kind, self.seed, tail.join("\n"))
        })
    }

    fn strikes(&mut self, faults: &[Fault]) -> Result<Counts, String> {
        let crowd = self.crowd();
        for &fault in faults {
            let more = self.random.random_range(5..120);
            if !crowd.wait_acked(more, PATIENCE) {
                return Err("nothing is acked any more".to_owned());
            }
            self.strike(fault, &crowd)?;
        }
        // All is well again for a moment.
        if !crowd.wait_acked(50, PATIENCE) {
            return Err("nothing is acked any more".to_owned());
        }
        self.settle(crowd)?;
        let counts = self.count(faults.len() as u64)?;
        let news = counts.since(self.counts);
        self.counts = counts;
        Ok(news)
    }

    /// Clients that go on from what those before have heard.
    pub(super) fn crowd(&self) -> Crowd {
        Crowd::go_on(self.path.addr(), &self.heard, PLAN)
    }

    /// All that clients have sent is acked, and has left the journal.
    pub(super) fn settle(&mut self, crowd: Crowd) -> Result<(), String> {
        crowd.stop();
        self.heard = crowd.finish(PATIENCE)?;
        drains(self.server(), NAME, PATIENCE)?;
        drains(self.server(), "beside", PATIENCE)
    }

    /// Returns the server, which must be running.
    pub(super) fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// What is in the target now, and in the file beside it.
    fn count(&mut self, strikes: u64) -> Result<Counts, String> {
        let acked: u64 = self.heard.iter().map(Heard::acked).sum();
        let dead = view(self.server(), NAME)["dead_letters"].as_u64().expect("a number");
        let expected = usize::try_from(acked - dead.min(acked)).expect("they fit into memory");
        let found = self.target.found(expected);
        let beside: Vec<_> = self.home.lines().iter().map(found_of).collect();
        judge(Kind::File, &beside, &self.heard, PLAN.bytes_max, 0)
            .map_err(|error| format!("the file beside it: {error}"))?;
        let counts = judge(self.kind, &found, &self.heard, PLAN.bytes_max, dead)?;
        let names = |all: &[super::target::Found]| -> std::collections::HashSet<_> {
            all.iter().map(|found| (found.offset, found.index, found.client, found.seq)).collect()
        };
        if let Some(other) = names(&found).difference(&names(&beside)).next() {
            return Err(format!("offset, index, client and seq {other:?} are not those of the file beside it"));
        }
        Ok(Counts { strikes: self.counts.strikes + strikes, ..counts })
    }

    fn strike(&mut self, fault: Fault, crowd: &Crowd) -> Result<(), String> {
        match fault {
            Fault::ServerKilled => {
                self.pause(60);
                self.kill_server();
                self.pause(60);
                self.start_server();
            }
            Fault::TargetKilled => {
                self.target.kill();
                self.pause(200);
                acks_go_on(crowd)?;
                self.target.start();
            }
            Fault::BothKilled if self.random.random() => {
                self.target.kill();
                self.kill_server();
                self.start_server();
                self.pause(200);
                self.target.start();
            }
            Fault::BothKilled => {
                self.kill_server();
                self.target.kill();
                self.target.start();
                self.pause(50);
                self.start_server();
            }
            Fault::Frozen => {
                self.target.freeze(true);
                self.pause(if self.kind == Kind::Exec { 4000 } else { 1500 });
                acks_go_on(crowd)?;
                self.target.freeze(false);
            }
            Fault::AnswersLost => {
                self.lose_answers(true);
                self.pause(1200);
                acks_go_on(crowd)?;
                self.lose_answers(false);
            }
            Fault::KilledInDoubt => {
                self.lose_answers(true);
                self.pause(150);
                self.kill_server();
                self.lose_answers(false);
                self.start_server();
            }
            Fault::HeldBack => {
                self.target.freeze(true);
                self.pause(150);
                self.kill_server();
                let late = self.random.random();
                if late {
                    self.start_server();
                    self.pause(300);
                }
                self.target.freeze(false);
                if !late {
                    self.start_server();
                }
            }
            Fault::Cut => {
                for _ in 0..3 {
                    let bytes = self.random.random_range(1..20_000);
                    let proxy = self.target.proxy().expect("it has a connection");
                    if bytes % 3 == 0 {
                        proxy.cut(false)
                    } else {
                        proxy.cut_after(bytes)
                    }
                    self.pause(100);
                }
                self.target.proxy().expect("it has a connection").cut_after(u64::MAX);
            }
            Fault::Delayed => {
                let delay = Duration::from_millis(self.random.random_range(1..60));
                self.target.proxy().expect("it has a connection").delay(delay);
                self.pause(800);
                acks_go_on(crowd)?;
                self.target.proxy().expect("it has a connection").delay(Duration::ZERO);
            }
            Fault::Away => {
                self.target.kill();
                let until = Instant::now() + Duration::from_millis(self.random.random_range(1000..3000));
                while Instant::now() < until {
                    acks_go_on(crowd)?;
                }
                self.target.start();
            }
            Fault::Paused => {
                self.operate("pause");
                self.pause(300);
                acks_go_on(crowd)?;
                if self.random.random() {
                    self.kill_server();
                    self.start_server();
                }
                self.operate("resume");
            }
        }
        Ok(())
    }

    /// `duragram sink pause` or `resume`.
    fn operate(&self, what: &str) {
        let mut command = duragram();
        command.args(["sink", what, NAME, "--admin", &self.server().admin.to_string()]);
        command.env("DURAGRAM_ADMIN_TOKEN_FILE", self.home.data().join("admin-token"));
        let output = command.output().expect("the binary");
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Up to so many milliseconds.
    fn pause(&mut self, ms_max: u64) {
        thread::sleep(Duration::from_micros(self.random.random_range(0..ms_max * 1000)));
    }

    /// The connections on which answers were lost end with it: TCP does not go on behind what is missing.
    fn lose_answers(&self, lost: bool) {
        let proxy = self.target.proxy().expect("it has a connection");
        if lost {
            proxy.lose_replies(true);
        } else {
            proxy.cut(true);
            proxy.lose_replies(false);
            proxy.cut(false);
        }
    }

    fn kill_server(&mut self) {
        // Its port may soon be somebody else's.
        self.path.set_server((Ipv4Addr::LOCALHOST, 9).into());
        self.server.take().expect("it runs").kill();
    }

    fn start_server(&mut self) {
        let server = serve(&self.home);
        self.path.set_server(server.udp);
        self.server = Some(server);
    }
}

/// Clients get their acks although the target is not there.
fn acks_go_on(crowd: &Crowd) -> Result<(), String> {
    if crowd.wait_acked(20, Duration::from_secs(20)) {
        Ok(())
    } else {
        Err("without its target nothing is acked".to_owned())
    }
}

/// Where the sink under siege reads its password.
pub(super) fn password(home: &Home) -> PathBuf {
    home.path().join("password")
}
