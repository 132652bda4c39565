//! A run: clients, a network, a server on its disk, and what happens to them, all from one seed, in virtual time.
//!
//! For a while there are faults; then they stop, and everything must come to rest in good order.

mod happenings;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;

use duragram::journal::testing::simulated::{Image, SimulatedDisk};

use crate::asks::AskSeen;
use crate::client::SimClient;
use crate::core::{Core, Counts, Sabotage, Shared, Trace};
use crate::oracle::Oracle;
use crate::plan::{DiskFaults, HandlerFaults, Means, Path, Plan};
use crate::rng::Rng;
use crate::rude::Rude;
use crate::server::Life;
use crate::sinks::Seen;
use happenings::Happening;

const NEVER: u64 = u64::MAX;
/// Datagrams that an attacker keeps.
const RECORDED: usize = 200;

/// A run ends with this, whether a rule was broken or not.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    pub(crate) simulated_us: u64,
    pub(crate) hash: u64,
    pub(crate) counts: Counts,
    /// What has happened to sinks.
    pub(crate) seen: [u64; Seen::COUNT],
    /// What has happened to asks.
    pub(crate) asks_seen: [u64; AskSeen::COUNT],
}

/// Time, number (so that what is simultaneous keeps its order), whether to the server, the address at the far end, what.
type Travelling = Reverse<(u64, u64, bool, SocketAddr, Vec<u8>)>;

/// More than all clients together have in flight.
const SOCKET_DATAGRAMS_CALM: usize = 8_192;
/// What the server takes at a time at most.
const RECEIVE_MAX_CALM: u64 = 64;

pub(crate) struct World {
    plan: Plan,
    rng: Rng,
    core: Shared,
    disk: SimulatedDisk,
    life: Option<Box<Life>>,
    clients: Vec<SimClient>,
    rude: Rude,
    travelling: BinaryHeap<Travelling>,
    travelled: u64,
    happenings: Vec<(u64, Happening)>,
    outage: bool,
    faults: bool,
    /// No more faults, and the server has been up since.
    calm: bool,
    /// Some state of the disk in the past, and how many changes it had seen.
    old: Option<(Image, u64)>,
    /// Datagrams that clients sent, for replays.
    captured: VecDeque<Vec<u8>>,
    /// Sealed ones from the whole of the run, sessions that have ended long ago among them.
    recorded: Vec<Vec<u8>>,
    recordable: u64,
    /// ANSWERs of late, for replays to clients.
    answers: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// Runs one seed, and returns how that ended.
pub(crate) fn run(seed: u64, sabotage: Option<Sabotage>, print: bool) -> Outcome {
    World::new(seed, sabotage, print).run()
}

impl World {
    fn new(seed: u64, sabotage: Option<Sabotage>, print: bool) -> Self {
        let mut rng = Rng::new(crate::rng::mix(seed));
        let plan = Plan::of(&mut rng, seed);
        let oracle = Oracle::new(&plan);
        let core = Shared::new(Core {
            now_us: 1,
            skew_us: 0,
            rng: rng.fork(),
            oracle,
            disk: plan.disk,
            handlers: plan.handlers,
            calm: false,
            sync_us: plan.sync_us,
            slow_sync_us: plan.slow_sync_us,
            forced: None,
            write_failed: false,
            broken: false,
            dead: false,
            dies_after_replies: None,
            answer_bytes_max: plan.asks.as_ref().map(|asks| asks.answer_bytes_max),
            bodies: 0,
            stalled: Vec::new(),
            replies: Vec::new(),
            sabotage,
            trace: Trace { hash: seed, print },
            counts: Counts::default(),
        });
        let decide = core.clone();
        let disk = SimulatedDisk::new(Box::new(move |write| decide.decide(write)));
        let clients = (0..plan.clients.len()).map(|index| SimClient::new(index, &plan, rng.fork())).collect();
        let mut world = Self {
            core,
            disk,
            life: None,
            clients,
            rude: Rude::new(rng.fork()),
            travelling: BinaryHeap::new(),
            travelled: 0,
            happenings: vec![(1, Happening::Start), (plan.faults_us, Happening::FaultsEnd)],
            outage: false,
            faults: true,
            calm: false,
            old: None,
            captured: VecDeque::new(),
            recorded: Vec::new(),
            recordable: 0,
            answers: VecDeque::new(),
            plan,
            rng,
        };
        if print {
            println!("seed {seed}: {:#?}", world.plan);
        }
        let Means { crash, client_restart, address_change, clock_jump, outage, short_space, rude, stop, overload } =
            world.plan.means;
        for (mean, happening) in [
            (crash, Happening::Crash),
            (client_restart, Happening::ClientRestart),
            (address_change, Happening::AddressChange),
            (clock_jump, Happening::ClockJump),
            (outage, Happening::Outage),
            (short_space, Happening::ShortSpace),
            (rude, Happening::Rude),
            (stop, Happening::Stop),
            (overload, Happening::Overload),
        ] {
            world.again(mean, happening);
        }
        let command_us = world.plan.sinks.as_ref().map_or(0, |sinks| sinks.command_us);
        world.again(command_us, Happening::SinkCommand);
        world
    }

    fn run(mut self) -> Outcome {
        let mut busy = 0u32;
        while self.core.lock().oracle.violation.is_none() {
            let due_us = self.due_us();
            {
                let mut core = self.core.lock();
                busy = if due_us > core.now_us { 0 } else { busy + 1 };
                core.now_us = core.now_us.max(due_us);
                core.oracle.now_us = core.now_us;
                if busy > 1_000_000 {
                    core.oracle.fail(|| "the clock stands still: something is always due".into());
                }
            }
            self.step(due_us);
            self.check_liveness();
            if !self.faults && self.is_settled() {
                self.end();
                break;
            }
        }
        let core = self.core.lock();
        Outcome {
            violation: core.oracle.violation.clone(),
            simulated_us: core.now_us,
            hash: core.trace.hash,
            counts: core.counts,
            seen: core.oracle.truth.seen,
            asks_seen: core.oracle.asks.seen,
        }
    }

    fn due_us(&self) -> u64 {
        let happening = self.happenings.iter().map(|(at, _)| *at).min().unwrap_or(NEVER);
        let travelling = self.travelling.peek().map_or(NEVER, |Reverse((at, ..))| *at);
        let clients = self.clients.iter().map(SimClient::due_us).min().unwrap_or(NEVER);
        happening.min(travelling).min(clients).min(self.life.as_ref().map_or(NEVER, |life| life.due_us()))
    }

    /// Does one thing that is due at this time.
    fn step(&mut self, due_us: u64) {
        if let Some(at) = self.happenings.iter().position(|(at, _)| *at == due_us) {
            let (_, happening) = self.happenings.swap_remove(at);
            return self.happen(happening);
        }
        if self.travelling.peek().is_some_and(|Reverse((at, ..))| *at == due_us) {
            let Some(Reverse((_, _, to_server, address, datagram))) = self.travelling.pop() else { return };
            return if to_server { self.at_server(address, datagram) } else { self.at_client(address, &datagram) };
        }
        if let Some(index) = self.clients.iter().position(|client| client.due_us() == due_us) {
            let mut out = Vec::new();
            self.clients[index].step(&mut self.core.lock(), &mut out);
            return self.sent_by(index, out);
        }
        if let Some(life) = &mut self.life {
            let goes_on = life.step(&self.plan, &self.disk);
            self.carry_replies();
            if !goes_on {
                self.end_life();
            }
        }
    }

    // ---- the network ----

    fn sent_by(&mut self, index: usize, datagrams: Vec<Vec<u8>>) {
        let from = self.clients[index].address();
        for datagram in datagrams {
            if self.captured.len() == 32 {
                self.captured.pop_front();
            }
            self.captured.push_back(datagram.clone());
            self.record(&datagram);
            self.carry(true, from, datagram);
        }
    }

    /// Any datagram of the run is as likely to be kept as any other.
    fn record(&mut self, datagram: &[u8]) {
        if self.plan.mode.has_keys() {
            self.recordable += 1;
            if self.recorded.len() < RECORDED {
                self.recorded.push(datagram.to_vec());
            } else if self.rng.below(self.recordable) < RECORDED as u64 {
                let at = self.rng.index(RECORDED);
                self.recorded[at] = datagram.to_vec();
            }
        }
    }

    fn carry_replies(&mut self) {
        let replies = std::mem::take(&mut self.core.lock().replies);
        for (to, datagram) in replies {
            self.keep_answer(to, &datagram);
            self.carry(false, to, datagram);
        }
    }

    fn carry(&mut self, to_server: bool, address: SocketAddr, mut datagram: Vec<u8>) {
        let path = if to_server { self.plan.to_server } else { self.plan.to_client };
        let rng = &mut self.rng;
        if self.outage || rng.ppm(path.loss) {
            return;
        }
        let (now_us, sabotage) = {
            let core = self.core.lock();
            (core.now_us, core.sabotage)
        };
        if rng.ppm(path.truncate) {
            datagram.truncate(rng.index(datagram.len()));
        }
        if rng.ppm(path.flip) && !datagram.is_empty() {
            // So few that a CRC-32 finds them for sure.
            for _ in 0..rng.within(1, 3) {
                let at = rng.index(datagram.len());
                datagram[at] ^= 1 << rng.below(8);
            }
        }
        if sabotage == Some(Sabotage::ForgedPayload) && to_server && datagram.len() > 40 && rng.one_in(20) {
            let len = datagram.len();
            datagram[30] ^= 1;
            let crc = crc32fast::hash(&datagram[..len - 4]).to_le_bytes();
            datagram[len - 4..].copy_from_slice(&crc);
        }
        if sabotage == Some(Sabotage::Starved) && !to_server && SimClient::index_at(address) == 0 {
            return;
        }
        let copies = 1 + u64::from(rng.ppm(path.duplicate));
        for _ in 0..copies {
            let straggles = if rng.ppm(path.straggle) { rng.below(15_000_000) } else { 0 };
            let at = now_us + path.delay_us + rng.below(path.jitter_us + 1) + straggles;
            self.travelled += 1;
            self.travelling.push(Reverse((at, self.travelled, to_server, address, datagram.clone())));
        }
    }

    fn at_server(&mut self, from: SocketAddr, datagram: Vec<u8>) {
        let mut core = self.core.lock();
        core.counts.datagrams += 1;
        let now_us = core.now_us;
        core.trace.note(now_us, "to server", [u64::from(from.port()), 0], &datagram);
        let Some(life) = &mut self.life else { return };
        if life.deliver(&self.plan, now_us, from, datagram.clone()) {
            core.oracle.delivered(from, &datagram);
        }
    }

    fn at_client(&mut self, to: SocketAddr, datagram: &[u8]) {
        let index = SimClient::index_at(to);
        let Some(client) = self.clients.get_mut(index).filter(|client| client.address() == to) else { return };
        let mut out = Vec::new();
        {
            let mut core = self.core.lock();
            let now_us = core.now_us;
            core.trace.note(now_us, "to client", [u64::from(to.port()), 0], datagram);
            client.receive(&mut core, datagram, &mut out);
        }
        self.sent_by(index, out);
    }

    // ---- the end ----

    fn end_faults(&mut self) {
        self.faults = false;
        self.outage = false;
        self.plan.to_server = Path::CLEAN;
        self.plan.to_client = Path::CLEAN;
        // A socket too small for a flight would go on losing the end of each.
        self.plan.socket_datagrams = self.plan.socket_datagrams.max(SOCKET_DATAGRAMS_CALM);
        // With a sync for each datagram a flight's round trip would be as long as the flight.
        self.plan.receive_max = self.plan.receive_max.max(RECEIVE_MAX_CALM);
        self.plan.means = Means::default();
        self.plan.tick_us = self.plan.tick_us.max(300_000);
        self.plan.lane_us = self.plan.lane_us.min(1_000);
        self.disk.set_free_bytes(u64::MAX);
        self.happenings.retain(|(_, happening)| *happening == Happening::Start);
        let now_us = self.core.lock().now_us;
        for (index, client) in self.clients.iter_mut().enumerate() {
            let its = self.travelling.iter().filter(|Reverse((.., address, _))| SimClient::index_at(*address) == index);
            client.finish(its.map(|Reverse((at, ..))| *at).max().unwrap_or(now_us));
        }
        {
            let mut core = self.core.lock();
            core.disk = DiskFaults::default();
            core.broken = false;
            core.handlers = HandlerFaults::default();
            core.calm = true;
            core.sync_us = core.sync_us.min(2_000);
            core.dies_after_replies = None;
        }
        // Retransmission timeouts have doubled up to a minute; a full table empties by and by.
        let wait_us = 400_000_000 + 3 * self.plan.dialect.session_ttl_s * 1_000_000;
        self.at(wait_us, Happening::Deadline);
    }

    /// Liveness has a clock: once nothing fails any more, acks come within a bound, not just at last.
    fn check_liveness(&mut self) {
        if self.faults || self.life.is_none() {
            // A failure from before may be found only now, and end the server once more.
            self.calm = false;
            return;
        }
        let mut core = self.core.lock();
        let now_us = core.now_us;
        if !self.calm {
            self.calm = true;
            self.clients.iter_mut().for_each(|client| client.await_calm(now_us));
        }
        if let Some(client) = self.clients.iter_mut().find_map(|client| client.is_late(now_us).then_some(client)) {
            core.oracle.fail(|| format!("nothing fails any more, and {} for too long", client.describe()));
        }
    }

    fn is_settled(&self) -> bool {
        self.travelling.is_empty()
            && self.clients.iter().all(SimClient::is_idle)
            && self.life.as_ref().is_some_and(|life| life.is_idle())
    }

    /// A stop in good order and one more start: all is there, and all is processed.
    fn end(&mut self) {
        self.core.lock().oracle.at_the_end();
        if let Some(life) = &mut self.life {
            if let Err(error) = life.stop() {
                let mut core = self.core.lock();
                // What the housekeeping could not write is told by the next commit, and there was none since.
                if !core.write_failed {
                    core.oracle.fail(|| format!("the last stop fails: {error}"));
                }
            }
            self.core.lock().oracle.sinks_at_rest(self.plan.committer.retain_bytes);
            self.end_life();
            self.start();
        }
    }

    fn stuck(&mut self) {
        let clients: Vec<_> = self.clients.iter().filter(|client| !client.is_idle()).map(SimClient::describe).collect();
        let server = self.life.as_ref().map_or("the server is down".to_owned(), |life| life.describe());
        self.core.lock().oracle.fail(|| format!("long after the last fault {clients:?}; {server}"));
    }
}
