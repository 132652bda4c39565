//! What the kernel can take from a process: time, file descriptors, memory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::load::{self, Crowd, Plan};
use super::{CONFIG, Long, PATIENCE, comes_back};
use crate::common::server::{Home, Server};
use crate::common::wait_for;

const PLAN: Plan = Plan { records: u64::MAX, window: 64, bytes_max: 1100 };
const CLIENTS: usize = 3;

/// Every record gets its ack and has come out once; returns what the clients went through.
fn ends_well(home: &Home, server: Server, crowd: Crowd, bytes_max: usize) -> Vec<load::Heard> {
    assert!(crowd.wait_acked(200, PATIENCE), "{:?}\n{}", crowd.heard(), server.log());
    crowd.stop();
    let heard = crowd.finish(PATIENCE).unwrap();
    assert!(server.terminate().success());
    load::judge(&home.lines(), &heard, bytes_max).unwrap();
    heard
}

#[test]
fn a_server_that_was_stopped_for_seconds_goes_on_as_if_nothing_had_been() {
    stopped_for(Duration::from_secs(3));
}

fn stopped_for(time: Duration) {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    let crowd = Crowd::start(server.udp, CLIENTS, PLAN);
    assert!(crowd.wait_acked(200, PATIENCE));
    server.signal("STOP");
    std::thread::sleep(time);
    server.signal("CONT");
    for heard in ends_well(&home, server, crowd, PLAN.bytes_max) {
        assert!(heard.stalled >= time / 2 && heard.retransmissions > 0, "{heard:?}");
    }
}

/// `scripts/soak stop`
#[test]
#[ignore = "long: scripts/soak stop"]
fn a_server_that_was_stopped_for_a_minute_goes_on() {
    let mut long = Long::start("stopped for a minute", 2);
    while long.goes_on() {
        stopped_for(Duration::from_secs(60));
        long.round();
    }
    long.tell("went on");
}

fn limit_files(server: &Server, files: usize) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &server.pid().to_string(), &format!("--nofile={files}:")]);
    assert!(command.status().expect("prlimit, of util-linux").success());
}

#[test]
fn a_server_without_file_descriptors_goes_on_and_uses_them_again_when_there_are_some() {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    // Little, so that the journal needs no further log.
    let crowd = Crowd::start(server.udp, CLIENTS, Plan { window: 2, bytes_max: 60, ..PLAN });
    assert!(crowd.wait_acked(200, PATIENCE));
    // It may keep what it has open, and open nothing more: no witness, no connection.
    limit_files(&server, 3);
    let witness = || fs::read(home.data().join("witness")).unwrap();
    let before = witness();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        assert!(crowd.wait_acked(200, PATIENCE), "{:?}\n{}", crowd.heard(), server.log());
    }
    assert!(server.is_running(), "{}", server.log());
    limit_files(&server, 1024);
    wait_for("the witness to go on", || (witness() != before).then_some(()));
    assert!(server.get("/healthz").contains("true"));
    ends_well(&home, server, crowd, 60);
}

#[test]
fn without_a_file_descriptor_for_a_new_log_the_server_ends_and_has_lost_nothing() {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    let crowd = Crowd::start(server.udp, CLIENTS, PLAN);
    assert!(crowd.wait_acked(200, PATIENCE));
    limit_files(&server, 3);
    assert_eq!(server.wait().code(), Some(4), "{}", server.log());
    let heard = crowd.give_up();
    comes_back(&home, &heard, PLAN).unwrap();
}

#[test]
fn a_start_without_file_descriptors_fails_and_harms_nothing() {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    let crowd = Crowd::start(server.udp, CLIENTS, PLAN);
    assert!(crowd.wait_acked(500, PATIENCE));
    server.kill();
    let heard = crowd.give_up();
    for files in [8, 16, 24, 32, 64] {
        let plain = home.command(&home.data());
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}:{files}")).arg(plain.get_program()).args(plain.get_args());
        let status = Server::try_start(&home, command).map(|_| "it is ready").unwrap_err();
        let log = fs::read_to_string(home.log_path()).unwrap();
        assert_eq!(status.code(), Some(1), "{files} files\n{log}");
        assert!(log.lines().last().unwrap().contains("file descriptors"), "{files} files\n{log}");
    }
    comes_back(&home, &heard, PLAN).unwrap();
}

/// A memory limit for the processes put into it. Removed when dropped; its processes must have ended by then.
struct Cgroup {
    dir: PathBuf,
    kills: &'static str,
}

impl Cgroup {
    /// Says so where there is none to be had.
    fn with_memory(bytes: u64) -> Option<Self> {
        let name = format!("duragram-test-{}-{bytes}", std::process::id());
        // Version 2, and version 1.
        for (root, limit, kills) in [
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
        ] {
            let dir = PathBuf::from(root).join(&name);
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            // In a cgroup the kernel has made this file.
            let limit = dir.join(limit);
            if limit.exists() && fs::write(limit, bytes.to_string()).is_ok() {
                return Some(Self { dir, kills });
            }
            fs::remove_dir(&dir).ok();
        }
        eprintln!("SKIPPED: no memory cgroup can be made here (that takes root)");
        None
    }

    /// Runs a command in it.
    fn around(&self, inner: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(self.dir.join("cgroup.procs"));
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }

    /// How many processes were killed for want of memory.
    fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.dir.join(self.kills)).expect("a cgroup");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("a count").parse().expect("a number")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may not be quite gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} stays", self.dir.display());
    }
}

const SMALL: &str = "sessions_max = 1024\nreceive_buffer_bytes = 1048576\nwindow = 256\n";

#[test]
fn within_the_memory_that_is_documented_it_is_not_killed() {
    let home = Home::with_config(&format!("{CONFIG}{SMALL}"));
    let server = home.serve();
    let status: serde_json::Value = serde_json::from_str(&server.get("/api/status")).unwrap();
    let bound = find_number(&status, "total_bytes").expect("the sum that the limits allow");
    assert!(server.terminate().success());
    let Some(cgroup) = Cgroup::with_memory(bound) else { return };
    let server = Server::try_start(&home, cgroup.around(&home.command(&home.data()))).unwrap();
    let crowd = Crowd::start(server.udp, CLIENTS, PLAN);
    assert!(crowd.wait_acked(60_000, PATIENCE), "{:?}\n{}", crowd.heard(), server.log());
    ends_well(&home, server, crowd, PLAN.bytes_max);
    assert_eq!(cgroup.killed(), 0);
}

fn find_number(value: &serde_json::Value, name: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(map) => {
            let here = map.get(name).and_then(serde_json::Value::as_u64);
            here.or_else(|| map.values().find_map(|value| find_number(value, name)))
        }
        serde_json::Value::Array(values) => values.iter().find_map(|value| find_number(value, name)),
        _ => None,
    }
}

#[test]
fn killed_for_want_of_memory_it_has_lost_nothing() {
    let home = Home::with_config(&format!("{CONFIG}{SMALL}"));
    // Enough to start; the journal's memory does not fit.
    let Some(cgroup) = Cgroup::with_memory(48 << 20) else { return };
    let server = Server::try_start(&home, cgroup.around(&home.command(&home.data()))).unwrap();
    let crowd = Crowd::start(server.udp, CLIENTS, PLAN);
    assert_eq!(server.wait().code(), None, "killed");
    assert!(cgroup.killed() > 0);
    let heard = crowd.give_up();
    assert!(heard.iter().all(|heard| heard.floor > 0), "{heard:?}");
    comes_back(&home, &heard, PLAN).unwrap();
}
