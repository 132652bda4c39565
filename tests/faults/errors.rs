//! A disk that fails, lacks space, takes part of a write, or is slow.
//!
//! What the journal's files refuse ends the server: exit code 4, no ack after the failure, and the next start goes on. What
//! the sink's file refuses is tried again, while acks go on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Survival};
use super::layer::{Action, EIO, ENOSPC, Layer, Record, Rule, calls};
use super::load::{self, Crowd, Heard, Plan, overhear};
use super::{CONFIG, Long, OVERLAPPING, PATIENCE, fast_dir};
use crate::common::lossy::{LossyPath, Weather};
use crate::common::server::{Home, Server};
use crate::common::wait_for;

const CLIENTS: usize = 3;
const PLAN: Plan = Plan { records: u64::MAX, window: 32, bytes_max: 700 };

/// Clients of a server that comes and goes.
struct Patients {
    plan: Plan,
    home: Home,
    path: LossyPath,
    crowd: Crowd,
}

impl Patients {
    fn wait() -> Self {
        Self::wait_with(CLIENTS, PLAN)
    }

    fn wait_with(clients: usize, plan: Plan) -> Self {
        let home = Home::below(&fast_dir(), CONFIG);
        let nowhere = (Ipv4Addr::LOCALHOST, 9).into();
        let path = LossyPath::to(nowhere, Weather::CLEAR, 1);
        let crowd = Crowd::start(path.addr(), clients, plan);
        Self { plan, home, path, crowd }
    }

    fn serve(&self, layer: &Layer) -> Server {
        let mut command = self.home.command(&self.home.data());
        layer.under(&mut command);
        let server = Server::try_start(&self.home, command).expect("nothing fails yet");
        self.path.set_server(server.udp);
        assert!(self.crowd.wait_acked(100, PATIENCE));
        server
    }

    /// A server without faults gives everybody acks, and all has come out once.
    fn recover(self) -> Result<Vec<Heard>, String> {
        let server = Server::try_start(&self.home, self.home.command(&self.home.data()));
        let log = || std::fs::read_to_string(self.home.log_path()).unwrap_or_default();
        let server = server.map_err(|status| format!("it does not start: {status}\n{}", log()))?;
        self.path.set_server(server.udp);
        self.go_on(server)
    }

    /// The same of a server that has survived.
    fn go_on(self, server: Server) -> Result<Vec<Heard>, String> {
        if !self.crowd.wait_acked(100, PATIENCE) {
            return Err("no acks".into());
        }
        self.crowd.stop();
        let heard = self.crowd.finish(PATIENCE)?;
        let status = server.terminate();
        if !status.success() {
            return Err(format!("it ended with {status}"));
        }
        load::judge(&self.home.lines(), &heard, self.plan.bytes_max)?;
        Ok(heard)
    }
}

/// That nothing is acked any more when a rule has acted.
fn assert_silent_after_fault(records: &[Record]) {
    let fault = records.iter().position(|record| matches!(record, Record::Fault { .. })).expect("the rule has acted");
    let mut heard = vec![Heard::default(); CLIENTS];
    for (n, record) in records.iter().enumerate() {
        if let Record::Replies(replies) = record {
            let news = overhear(replies, &mut heard, &mut BTreeMap::new());
            assert!(!news || n < fault, "an ack went out after {:?}", records[fault]);
        }
    }
}

#[test]
fn a_write_or_sync_of_the_journal_that_fails_ends_the_server_before_another_ack() {
    let once = |calls, part, error| Rule::nth(calls, part, 3, Action::Fail(error));
    let ever = |calls, part, error| Rule::always(calls, part, Action::Fail(error));
    let rules = [
        once(calls::SYNC, ".log", EIO),
        ever(calls::SYNC, ".log", EIO),
        // RocksDB tries to help itself out of this one.
        once(calls::SYNC, ".log", ENOSPC),
        once(calls::WRITE, ".log", EIO),
        ever(calls::WRITE, ".log", EIO),
        once(calls::WRITE, ".log", ENOSPC),
        ever(calls::WRITE | calls::SYNC, "", ENOSPC),
        ever(calls::WRITE | calls::SYNC | calls::CREATE | calls::RENAME, "", EIO),
    ];
    for rule in rules {
        let patients = Patients::wait();
        let layer = Layer::tracing(&patients.home.disk());
        let server = patients.serve(&layer);
        layer.set(0, rule);
        assert_eq!(server.wait().code(), Some(4), "{rule:?}\n{}", server.log());
        assert_silent_after_fault(&layer.trace());
        patients.recover().unwrap_or_else(|problem| panic!("{rule:?}: {problem}"));
    }
}

/// Commits so large that the journal writes one while it syncs the one before it.
const LARGE: Plan = Plan { window: 300, bytes_max: 1200, ..PLAN };
/// So many clients that some send while others wait for their acks.
const MANY_CLIENTS: usize = 16;

/// Whichever of the writes and syncs it is, of those that overlap too: what was acked survives a power cut that takes all the rest.
#[test]
fn of_what_is_under_way_when_a_write_or_a_sync_fails_nothing_is_acked_that_is_not_on_the_disk() {
    let (mut overtaken, mut random) = (0, SmallRng::seed_from_u64(7));
    for n in 1..=8 {
        for calls in [calls::SYNC, calls::WRITE] {
            let patients = Patients::wait_with(MANY_CLIENTS, LARGE);
            patients.home.configure(OVERLAPPING);
            let mut disk = Disk::load(&patients.home.disk()).unwrap();
            let layer = Layer::tracing(&patients.home.disk());
            layer.set(0, Rule::always(calls::SYNC, ".log", Action::Linger(Duration::from_millis(3))));
            // Else it would not pay to write beside the sync.
            layer.set(2, Rule::always(calls::WRITE, ".log", Action::Delay(Duration::from_millis(2))));
            let server = patients.serve(&layer);
            layer.set(1, Rule::nth(calls, ".log", n, Action::Fail(EIO)));
            assert_eq!(server.wait().code(), Some(4), "{n}\n{}", server.log());
            let trace = layer.trace();
            overtaken += usize::from(has_overtaken_a_sync(&trace));
            trace.iter().for_each(|record| disk.apply(record));
            disk.cut_power(Survival::Nothing, &mut random, &patients.home.out()).unwrap();
            patients.recover().unwrap_or_else(|problem| panic!("{calls}, {n}: {problem}"));
        }
    }
    assert!(overtaken >= 4, "a commit was written beside a sync in {overtaken} runs of 16");
}

/// Whether anything was written to the log while a sync of it was under way.
fn has_overtaken_a_sync(records: &[Record]) -> bool {
    let is_log = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "log");
    let mut syncing = false;
    records.iter().any(|record| {
        match record {
            Record::Sync { path, .. } => syncing = is_log(path),
            Record::Synced { .. } => syncing = false,
            Record::Write { path, .. } => return syncing && is_log(path),
            _ => {}
        }
        false
    })
}

#[test]
fn a_witness_that_cannot_be_written_ends_the_server() {
    for (calls, part) in [(calls::SYNC, "witness.new"), (calls::RENAME, "witness"), (calls::SYNC, "/data")] {
        let patients = Patients::wait();
        let layer = Layer::over(&patients.home.disk());
        let server = patients.serve(&layer);
        layer.set(0, Rule::nth(calls, part, 1, Action::Fail(EIO)));
        assert_eq!(server.wait().code(), Some(4), "{part}\n{}", server.log());
        patients.recover().unwrap_or_else(|problem| panic!("{part}: {problem}"));
    }
}

#[test]
fn writes_that_are_taken_in_part_are_gone_on_with() {
    let patients = Patients::wait();
    let layer = Layer::over(&patients.home.disk());
    let server = patients.serve(&layer);
    layer.set(0, Rule::always(calls::WRITE, "", Action::Short));
    assert!(patients.crowd.wait_acked(500, PATIENCE));
    wait_for("each kind of file to be written", || (layer.seen(0) > 1000).then_some(()));
    patients.go_on(server).unwrap();
}

#[test]
fn a_sink_whose_file_fails_gets_every_line_once_it_is_well_again() {
    let rules = [
        Rule::nth(calls::WRITE, "out.ndjson", 2, Action::Fail(EIO)),
        Rule::nth(calls::SYNC, "out.ndjson", 2, Action::Fail(EIO)),
        Rule::always(calls::WRITE, "out.ndjson", Action::Fail(ENOSPC)),
        Rule::always(calls::SYNC | calls::TRUNCATE, "out.ndjson", Action::Fail(EIO)),
    ];
    for rule in rules {
        let patients = Patients::wait();
        let layer = Layer::over(&patients.home.disk());
        let server = patients.serve(&layer);
        layer.set(0, rule);
        wait_for("the sink to meet the fault", || (layer.seen(0) >= rule.first).then_some(()));
        assert!(patients.crowd.wait_acked(500, PATIENCE), "acks do not wait for the sink");
        layer.clear(0);
        patients.go_on(server).unwrap_or_else(|problem| panic!("{rule:?}: {problem}"));
    }
}

#[test]
fn on_a_slow_disk_acks_are_late_and_right() {
    slow_disk(Duration::from_millis(1200), 3);
}

fn slow_disk(delay: Duration, syncs: u64) {
    let patients = Patients::wait();
    let layer = Layer::tracing(&patients.home.disk());
    let server = patients.serve(&layer);
    layer.set(0, Rule { times: syncs, ..Rule::always(calls::SYNC, ".log", Action::Delay(delay)) });
    let started = Instant::now();
    let patience = delay * u32::try_from(syncs).unwrap() + PATIENCE;
    while layer.seen(0) <= syncs {
        assert!(started.elapsed() < patience, "{} slow syncs of {syncs}", layer.seen(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    let heard = patients.go_on(server).unwrap();
    for heard in heard {
        assert!(heard.stalled >= delay / 2, "not slow: {:?}", heard.stalled);
        assert!(heard.retransmissions > 0 && heard.rejects.is_empty(), "{heard:?}");
    }
}

#[test]
fn a_failure_at_the_nth_call_is_survived_or_ends_the_server_and_the_next_start_goes_on() {
    let mut random = SmallRng::seed_from_u64(6);
    for _ in 0..8 {
        fail_somewhere(&mut random);
    }
}

/// Any call of a start or of the work after it fails, once or from then on. What happens then, by exit code.
fn fail_somewhere(random: &mut SmallRng) -> Option<i32> {
    let error = if random.random() { EIO } else { ENOSPC };
    let n = if random.random() { random.random_range(1..120) } else { random.random_range(1..800) };
    let mut rule = Rule::nth(calls::ALL & !calls::REPLY, "", n, Action::Fail(error));
    if random.random() {
        rule.times = super::layer::EVER;
    }
    let patients = Patients::wait();
    // Not only of a new directory.
    if random.random() {
        drop(patients.serve(&Layer::over(&patients.home.disk())));
    }
    let layer = Layer::over(&patients.home.disk());
    layer.set(0, rule);
    let mut command = patients.home.command(&patients.home.data());
    layer.under(&mut command);
    let log = || std::fs::read_to_string(patients.home.log_path()).unwrap_or_default();
    let status = match Server::try_start(&patients.home, command) {
        Err(status) => Some(status),
        Ok(server) => {
            patients.path.set_server(server.udp);
            let deadline = Instant::now() + Duration::from_secs(3);
            while server.is_running() && layer.seen(0) < n && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Either it ends by itself, or what failed was nothing that it needs; the sink may be waiting to try again.
            let deadline = Instant::now() + Duration::from_millis(1500);
            while server.is_running() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if server.is_running() {
                layer.clear(0);
                None
            } else {
                Some(server.wait())
            }
        }
    };
    let code = status.map(|status| status.code().unwrap_or_else(|| panic!("{rule:?}: {status}\n{}", log())));
    assert!(matches!(code, None | Some(1 | 4)), "{rule:?}: {code:?}\n{}", log());
    patients.recover().unwrap_or_else(|problem| panic!("{rule:?}, then: {problem}"));
    code
}

/// `scripts/soak errors`
#[test]
#[ignore = "long: scripts/soak errors"]
fn errors_for_long() {
    let mut long = Long::start("errors", 100);
    let mut ends = BTreeMap::<_, u64>::new();
    while long.goes_on() {
        *ends.entry(fail_somewhere(&mut long.random)).or_default() += 1;
        long.round();
    }
    long.tell(&format!("exit codes, None where the server went on: {ends:?}"));
}

/// `scripts/soak slow`
#[test]
#[ignore = "long: scripts/soak slow"]
fn a_disk_that_takes_seconds_for_each_sync_for_long() {
    let mut long = Long::start("a disk that takes 4 s for a sync", 3);
    while long.goes_on() {
        slow_disk(Duration::from_secs(4), 15);
        long.round();
    }
    long.tell("acks late and right");
}
