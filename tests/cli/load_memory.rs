//! A million datagrams into a server whose sink is slower than ingestion until they have all come: its memory stays within
//! the documented sum. `scripts/soak-memory` is the long version.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::server::duragram;

const DATAGRAMS: u64 = 1_000_000;
const SECONDS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// A child that is killed when the test fails before it ends.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> (Self, BufReader<ChildStdout>) {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        (Self(child), stdout)
    }

    fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it runs");
        kib.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Counts the lines of the server's stdout sink; slower than they come until it is told to be fast.
fn count_lines(mut stdout: BufReader<ChildStdout>, lines: &AtomicU64, fast: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = stdout.read(&mut buffer).expect("a pipe");
        if len == 0 {
            return;
        }
        let ends = buffer[..len].iter().filter(|byte| **byte == b'\n').count();
        lines.fetch_add(ends as u64, Ordering::Relaxed);
        if !fast.load(Ordering::Relaxed) {
            // At most some 25,000 lines a second.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn memory_stays_within_the_documented_sum_while_the_sink_is_slow_and_nothing_acked_is_left_out() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = duragram();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--sink", "stdout"]);
    // Few sessions, so that the documented sum is near what is needed.
    command.args(["--lanes", "2", "--sessions-max", "1024", "--log-level", "warn", "--data"]).arg(dir.path());
    let (mut server, stdout) = Running::start(command);
    // Its stdout is records alone.
    let mut stderr = BufReader::new(server.0.stderr.take().expect("stderr is piped"));
    let mut ready = String::new();
    while !ready.starts_with("duragram ready") {
        ready.clear();
        assert_ne!(stderr.read_line(&mut ready).expect("a pipe"), 0, "it ended before it was ready");
    }
    // What it warns of is shown with the test's own output.
    thread::spawn(move || io::copy(&mut stderr, &mut io::stderr()));
    let (udp, admin) = ready
        .trim()
        .strip_prefix("duragram ready udp=")
        .and_then(|addresses| addresses.split_once(" admin="))
        .unwrap_or_else(|| panic!("not the ready line: {ready}"));
    let mut status = ureq::get(format!("http://{admin}/api/status")).call().expect("the admin interface");
    let status: Value = serde_json::from_reader(status.body_mut().as_reader()).expect("JSON");
    let bound = status["memory"]["total_bytes"].as_u64().expect("the documented sum");

    let (lines, fast) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let reader = thread::spawn({
        let (lines, fast) = (Arc::clone(&lines), Arc::clone(&fast));
        move || count_lines(stdout, &lines, &fast)
    });
    let mut command = duragram();
    command.args(["load", "--json", "--server", udp, "--clients", "16", "--window", "1024", "--gso", "16"]).args([
        "--rate",
        &(DATAGRAMS / SECONDS).to_string(),
        "--seconds",
        &SECONDS.to_string(),
        "--drain",
        "60",
    ]);
    let (mut load, report) = Running::start(command);

    let start = Instant::now();
    let (mut behind, mut loaded) = (0, None);
    while lines.load(Ordering::Relaxed) < DATAGRAMS {
        let resident = server.resident_bytes();
        assert!(resident <= bound, "{resident} bytes are resident, the documented sum is {bound}");
        if loaded.is_none() {
            loaded = load.0.try_wait().expect("our own child");
            if loaded.is_some() {
                behind = DATAGRAMS - lines.load(Ordering::Relaxed);
                fast.store(true, Ordering::Relaxed);
            }
        }
        assert!(start.elapsed() < PATIENCE, "{lines:?} of {DATAGRAMS} came out; the load: {loaded:?}");
        thread::sleep(Duration::from_millis(20));
    }
    let report: Value = serde_json::from_reader(report).expect("a report");
    assert!(loaded.is_some_and(|status| status.success()), "{loaded:?}: {report}");
    assert!(report["acked"] == DATAGRAMS && report["unacked"] == 0, "{report}");
    assert!(behind > DATAGRAMS / 2, "the sink was to be slower than ingestion: {behind} behind");

    let killed = Command::new("kill").arg(server.0.id().to_string()).status().expect("the kill command");
    assert!(killed.success() && server.0.wait().expect("our own child").success(), "it ends in good order");
    reader.join().expect("no panic");
    assert_eq!(lines.load(Ordering::Relaxed), DATAGRAMS, "each record comes out once");
}
