//! A load whose server stands still for a moment, as a machine may that is short of something.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::server::{Home, Server, duragram};
use crate::common::wait_for;

/// Datagrams a second over all clients: far below what a busy machine takes, and far above what clients take that crawl.
const RATE: f64 = 200_000.0;
const STOOD_STILL: Duration = Duration::from_millis(700);

/// A child that is killed when the test ends before it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn journaled(server: &Server) -> f64 {
    server.metric("duragram_datagrams_total", "outcome=\"journaled\"")
}

#[test]
fn clients_whose_server_stood_still_make_up_for_it_and_none_crawls() {
    let home = Home::new();
    let server = home.serve_sinks(&["null"]);
    let mut command = duragram();
    let (udp, rate) = (server.udp.to_string(), RATE.to_string());
    command.args(["load", "--server", &udp, "--clients", "100", "--window", "1024", "--gso", "64", "--rate", &rate]);
    command.args(["--seconds", "60"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _load = Running(command.spawn().expect("the binary"));
    wait_for("the load to have begun", || (journaled(&server) > RATE).then_some(()));
    let (before, at) = (journaled(&server), Instant::now());
    server.signal("STOP");
    thread::sleep(STOOD_STILL);
    server.signal("CONT");
    // Whoever crawls is missing from the sum ever more.
    let behind = || RATE * at.elapsed().as_secs_f64() - (journaled(&server) - before);
    wait_for("all that is due to be journaled", || (behind() < RATE / 20.0).then_some(()));
    assert!(server.terminate().success());
}
