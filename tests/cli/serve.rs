//! `duragram serve` as a process: its ready line, its exit codes, its logs, its signals.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::support::{DEADLINE, Running, duragram};
use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;

struct Serve {
    dir: TempDir,
    running: Running,
    udp: Vec<SocketAddr>,
    admin: String,
    // Keeps the pipe open, so that the server's stdout is.
    _stdout: BufReader<std::process::ChildStdout>,
}

/// Starts a server on free ports and reads its ready line.
fn serve(args: &[&str]) -> Serve {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(command(&dir, args));
    let mut stdout = BufReader::new(running.0.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let rest = line.strip_prefix("duragram ready udp=").and_then(|rest| rest.strip_suffix('\n'));
    let (udp, admin) = rest.and_then(|rest| rest.split_once(" admin=")).unwrap_or_else(|| {
        let mut stderr = String::new();
        running.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        panic!("not ready: {line:?} {stderr}")
    });
    let udp = udp.split(',').map(|address| address.parse().unwrap()).collect();
    let admin = admin.to_owned();
    Serve { dir, running, udp, admin, _stdout: stdout }
}

fn command(dir: &TempDir, args: &[&str]) -> Command {
    let data = dir.path().join("data");
    let mut all = vec!["serve", "--data", data.to_str().unwrap(), "--sink", "null"];
    if !args.contains(&"--listen") {
        all.extend(["--listen", "127.0.0.1:0"]);
    }
    if !args.contains(&"--admin") {
        all.extend(["--admin", "127.0.0.1:0"]);
    }
    all.extend(args);
    duragram(&all)
}

impl Serve {
    fn signal(&self, name: &str) {
        let pid = self.running.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn stderr_to_end(&mut self) -> String {
        let mut text = String::new();
        self.running.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn get(&self, path: &str) -> (u16, String) {
        let config = Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(DEADLINE));
        let agent = Agent::new_with_config(config.build());
        let mut answer = agent.get(format!("http://{}{path}", self.admin)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }
}

#[test]
fn a_server_that_is_ready_says_where_and_each_stop_signal_ends_it_in_good_order() {
    for signal in ["TERM", "INT"] {
        let mut server = serve(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
        assert!(server.udp.len() == 2 && server.udp.iter().all(|udp| udp.port() != 0), "{:?}", server.udp);
        assert_eq!(server.get("/readyz").0, 200);
        let status: Value = serde_json::from_str(&server.get("/api/status").1).unwrap();
        assert_eq!(status["udp"], serde_json::json!(server.udp));
        assert_eq!(status["phase"], "running");
        server.signal(signal);
        assert_eq!(server.running.wait(), 0, "{}", server.stderr_to_end());
    }
}

#[test]
fn metrics_of_a_running_server_count_what_it_receives() {
    let server = serve(&[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"not of this protocol", server.udp[0]).unwrap();
    let start = Instant::now();
    let counted = |line: &str| line.starts_with("duragram_datagrams_total{") && !line.ends_with(" 0");
    while !server.get("/metrics").1.lines().any(counted) {
        assert!(start.elapsed() < DEADLINE, "{}", server.get("/metrics").1);
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_an_admin_interface_the_ready_line_says_off() {
    let mut server = serve(&["--admin", "off"]);
    assert_eq!(server.admin, "off");
    server.signal("TERM");
    assert_eq!(server.running.wait(), 0);
}

#[test]
fn a_port_in_use_is_exit_code_1_and_names_the_address() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let output = command(&dir, &["--listen", &address]).output().unwrap();
    let stderr = crate::cli::support::text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.lines().any(|line| line.starts_with(&format!("duragram: cannot listen on {address}"))), "{stderr}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn a_directory_in_use_is_exit_code_1_and_is_named() {
    let server = serve(&[]);
    let output = command(&server.dir, &[]).output().unwrap();
    let stderr = crate::cli::support::text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(server.dir.path().to_str().unwrap()) && stderr.contains("in use"), "{stderr}");
    assert_eq!(server.get("/readyz").0, 200, "the running server is not disturbed");
}

#[test]
fn logs_are_json_objects_when_asked_and_keep_to_the_level() {
    let mut server = serve(&["--log-format", "json", "--log-level", "info"]);
    server.signal("TERM");
    assert_eq!(server.running.wait(), 0);
    let stderr = server.stderr_to_end();
    assert!(stderr.lines().count() > 0, "a start at level info says something");
    for line in stderr.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(event["timestamp"].is_string() && event["message"].is_string(), "{line}");
        assert!(["INFO", "WARN", "ERROR"].contains(&event["level"].as_str().unwrap()), "{line}");
    }

    let mut server = serve(&["--log-level", "off"]);
    server.signal("TERM");
    assert_eq!(server.running.wait(), 0);
    assert_eq!(server.stderr_to_end(), "");
}

#[test]
fn a_log_that_nobody_reads_any_more_does_not_stop_the_server() {
    let mut server = serve(&["--log-level", "trace"]);
    drop(server.running.0.stderr.take());
    // Each of these is logged at level trace or debug by someone on its way.
    for _ in 0..20 {
        assert_eq!(server.get("/healthz").0, 200);
    }
    server.signal("HUP");
    assert_eq!(server.get("/readyz").0, 200);
    server.signal("TERM");
    assert_eq!(server.running.wait(), 0);
}
