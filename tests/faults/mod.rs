//! The real server on the real RocksDB under real faults.
//!
//! | fault | where | how |
//! |---|---|---|
//! | power cut at any moment, recovery included | [`power`] | a trace of what was asked of the disk ([`layer`]), of which only what was synced survives ([`disk`]) |
//! | SIGKILL at a named point, at the n-th call, at any time | [`kills`] | the layer strikes; clients on a bad network |
//! | SIGKILL and SIGTERM of the server and of what answers its clients | [`asks`] | clients that ask, on a bad network |
//! | failing writes and syncs, a lack of space, short writes, slow syncs | [`errors`] | the layer |
//! | a file system without links, without a size; files deleted or replaced under the server | [`surroundings`] | the layer, and plain commands |
//! | a file system that is full | [`full`] | a small one, mounted |
//! | no file descriptors, no memory, a stopped process | [`limits`] | the kernel's own limits and signals |
//! | a sink whose file is deleted, whose reader leaves, which is full | [`sinks`] | what an operator does, and what the kernel limits |
//!
//! The oracle stands outside ([`load`]): what clients have in acks against what comes out of the sink, each record once.
//! The short form of each runs with all other tests. The long ones are ignored there; `scripts/soak` runs them.

mod asks;
mod disk;
mod errors;
mod full;
mod kills;
pub(crate) mod layer;
mod limits;
pub(crate) mod load;
mod power;
mod sinks;
mod surroundings;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::common::server::{Home, Server};
use crate::common::wire::Wire;
use load::{Crowd, Heard, Plan};

/// Small steps, so that a short run has many checkpoints and trims.
const CONFIG: &str = "checkpoint_bytes = 65536\ncheckpoint_interval = \"20ms\"\nretain_bytes = 0\nlanes = 2\n";

/// The same with blocks so small that they are full soon, and one is written while another is synced.
const OVERLAPPING: &str = "checkpoint_bytes = 65536\ncheckpoint_interval = \"20ms\"\nretain_bytes = 0\nlanes = 2\n\
                           commit_bytes_max = 65536\n";

/// How long a test waits for clients that have to get their acks.
const PATIENCE: Duration = Duration::from_secs(30);

/// A number from the environment, for the long runs.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A long test: how many rounds it takes (`FAULTS_ROUNDS`), for how long at most (`FAULTS_SECONDS`), with which seed
/// (`FAULTS_SEED`, else a random one), and how far it is.
pub(crate) struct Long {
    what: &'static str,
    pub(crate) random: SmallRng,
    rounds: u64,
    seconds: u64,
    done: u64,
    started: Instant,
    told: Instant,
}

impl Long {
    pub(crate) fn start(what: &'static str, rounds: u64) -> Self {
        let seed = setting("FAULTS_SEED").unwrap_or_else(rand::random);
        let rounds = setting("FAULTS_ROUNDS").unwrap_or(rounds);
        let seconds = setting("FAULTS_SECONDS").unwrap_or(u64::MAX);
        eprintln!("{what}: {rounds} rounds, FAULTS_SEED={seed}");
        let random = SmallRng::seed_from_u64(seed);
        Self { what, random, rounds, seconds, done: 0, started: Instant::now(), told: Instant::now() }
    }

    /// Whether there is a further round to go.
    pub(crate) fn goes_on(&self) -> bool {
        self.done < self.rounds && self.started.elapsed().as_secs() < self.seconds
    }

    /// Another round is over; says so about once in five seconds.
    pub(crate) fn round(&mut self) {
        self.done += 1;
        if self.told.elapsed() > Duration::from_secs(5) {
            self.tell("so far");
        }
    }

    pub(crate) fn tell(&mut self, what: &str) {
        eprintln!("{}: {} of {} in {:.0?}, {what}", self.what, self.done, self.rounds, self.started.elapsed());
        self.told = Instant::now();
    }
}

/// Where a file system in memory is large enough, there; else among temporary files. For what is not about the disk's time.
pub(crate) fn fast_dir() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let free = nix::sys::statvfs::statvfs(&memory).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    if free > 4 << 30 { memory } else { std::env::temp_dir() }
}

/// After a fault: the server starts, knows all that was acked, takes everything else that was sent, ends well, and what has
/// come out is right. `heard`: what was acked, and the highest numbers that can have been sent.
fn comes_back(home: &Home, heard: &[Heard], plan: Plan) -> Result<(), String> {
    let log_before = std::fs::read_to_string(home.log_path()).unwrap_or_default().len();
    let told = || std::fs::read_to_string(home.log_path()).unwrap_or_default().split_off(log_before);
    let server = Server::try_start(home, home.command(&home.data()));
    let server = server.map_err(|status| format!("it does not start: {status}\n{}", told()))?;
    for (client, heard) in (1..).zip(heard) {
        let floor = Wire::new(&server, client).ping().floor;
        if floor < heard.floor {
            return Err(format!("client {client} had acks up to {}, now the floor is {floor}", heard.floor));
        }
    }
    let crowd = Crowd::go_on(server.udp, heard, plan);
    crowd.stop();
    let heard = crowd.finish(PATIENCE)?;
    let status = server.terminate();
    if !status.success() {
        return Err(format!("it ended with {status}\n{}", told()));
    }
    load::judge(&home.lines(), &heard, plan.bytes_max)
}
