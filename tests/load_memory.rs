//! A million datagrams into an embedded server whose processing is slower than ingestion for half of them: its memory stays
//! within the documented sum. `scripts/soak-memory` is the long version.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use duragram::limits::memory_bound;
use duragram::server::Server;
use serde_json::Value;

use crate::slow;

const DATAGRAMS: u64 = 1_000_000;
const SECONDS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// `duragram load`; killed when a test fails before it ends.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Resident memory of this process, which is the server's, in bytes.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
    kib.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn memory_stays_within_the_documented_sum_while_processing_is_slow_and_nothing_acked_is_left_out() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = slow::config(dir.path().join("data"));
    let bound = memory_bound(&config).total_bytes;
    let pace = slow::Pace::new(u32::try_from(DATAGRAMS / SECONDS / 10).expect("a rate"));
    let server = Server::start(config, slow::handlers(&pace)).expect("the server starts");
    let (udp, handle) = (server.ready().udp[0], server.handle());
    let served = thread::spawn(move || server.wait());

    let load = Command::new(env!("CARGO_BIN_EXE_duragram"))
        .args(["load", "--json", "--server", &udp.to_string(), "--clients", "16", "--window", "1024", "--gso", "16"])
        .args(["--rate", &(DATAGRAMS / SECONDS).to_string(), "--seconds", &SECONDS.to_string(), "--drain", "60"])
        .stdout(Stdio::piped())
        .spawn();
    let mut load = Load(load.expect("the binary"));
    let start = Instant::now();
    let (mut peak, mut behind, mut loaded) = (0, 0, None);
    loop {
        let resident = resident_bytes();
        assert!(resident <= bound, "{resident} bytes are resident, the documented sum is {bound}");
        peak = peak.max(resident);
        if loaded.is_none() {
            loaded = load.0.try_wait().expect("our own child");
            if loaded.is_some() {
                behind = DATAGRAMS - pace.processed();
                pace.be_fast();
            }
        }
        if pace.processed() >= DATAGRAMS {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{} of {DATAGRAMS} processed, load: {loaded:?}", pace.processed());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(loaded.is_some_and(|status| status.success()), "{loaded:?}");
    let report: Value = serde_json::from_reader(load.0.stdout.take().expect("stdout is piped")).expect("a report");
    assert!(report["acked"] == DATAGRAMS && report["unacked"] == 0, "{report}");
    assert!(behind > DATAGRAMS / 2, "processing was to be slower than ingestion: {behind} behind");

    handle.stop();
    served.join().expect("no panic").expect("the server ends in good order");
    assert_eq!(pace.processed(), DATAGRAMS, "each record is processed once");
    eprintln!("peak {peak} of {bound} bytes, {behind} entries behind");
}
