//! What a server takes of memory when its load is over.

use std::fs;

use serde_json::Value;

use crate::common::server::{Home, Server, duragram};
use crate::common::wait_for;

/// A fresh server takes a third of it.
const IDLE_BYTES_MAX: u64 = 64 << 20;
/// So many datagrams of 100 bytes make memory large, on any machine.
const DATAGRAMS: u64 = 1_000_000;
const SECONDS: u64 = 4;

fn resident_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it runs");
    kib.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn a_server_gives_its_memory_back_when_the_load_is_over_and_goes_on_as_before() {
    let home = Home::new();
    let server = home.serve_sinks(&["null"]);
    let load = || {
        let mut command = duragram();
        let (udp, rate) = (server.udp.to_string(), (DATAGRAMS / SECONDS).to_string());
        command.args(["load", "--json", "--server", &udp, "--clients", "16", "--window", "1024", "--gso", "64"]);
        command.args(["--rate", &rate, "--seconds", &SECONDS.to_string(), "--drain", "60"]);
        let output = command.output().expect("the binary");
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert!(report["acked"].as_u64() >= Some(DATAGRAMS - 16 * 64) && report["unacked"] == 0, "{report}");
        resident_bytes(&server)
    };
    for _ in 0..2 {
        assert!(load() > IDLE_BYTES_MAX, "the load was to make memory large");
        let given_back = || Some(resident_bytes(&server)).filter(|resident| *resident <= IDLE_BYTES_MAX);
        wait_for(&format!("the server to take no more than {IDLE_BYTES_MAX} bytes"), given_back);
    }
    assert!(server.terminate().success());
}
