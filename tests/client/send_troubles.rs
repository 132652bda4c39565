//! `duragram send` where something is the matter: it says what, and waits where waiting may help.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::common::fake::Fake;
use crate::common::server::{Home, duragram};
use duragram_proto::codec::RejectCode;
use serde_json::Value;

fn send(server: impl ToString, args: &[&str]) -> Command {
    let mut command = duragram();
    command.args(["send", "--server", &server.to_string(), "--json"]).args(args);
    command
}

fn pipe(mut command: Command, input: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary");
    // A child that ends early does not read all: that shows in what it says.
    child.stdin.take().expect("stdin is piped").write_all(input).ok();
    child.wait_with_output().expect("our own child")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {output:?}"))
}

fn numbers(n: usize) -> Vec<u8> {
    (0..n).flat_map(|n| format!("{n}\n").into_bytes()).collect()
}

#[test]
fn an_epoch_that_was_used_before_fails_and_says_so_however_many_records_each_run_has() {
    let home = Home::new();
    let server = home.serve();
    let mut journaled = 0;
    for (epoch, (first, second)) in [(1, 1), (1, 10), (3, 10), (10, 3), (2000, 2000)].iter().enumerate() {
        let epoch = (epoch + 1).to_string();
        let args = ["--client", "0xa1", "--epoch", &epoch, "--timeout", "20s"];
        let output = pipe(send(server.udp, &args), &numbers(*first));
        assert!(output.status.success(), "{output:?}");
        journaled += first;

        let output = pipe(send(server.udp, &args), &numbers(*second));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{first} records, then {second}: {stderr}");
        let told = format!("epoch {epoch} was used before by client 00000000000000a1");
        assert_eq!(stderr.matches(&told).count(), 1, "{stderr}");
        let report = report(&output);
        assert_eq!((&report["acked"], &report["epoch_used"]), (&0.into(), &true.into()), "{report}");
        assert_eq!(home.wait_lines(journaled).len(), journaled, "nothing of it is on disk");
    }
    let output = pipe(send(server.udp, &["--client", "0xa1", "--epoch", "99"]), &numbers(3));
    assert_eq!((output.status.code(), &report(&output)["epoch_used"]), (Some(0), &false.into()), "{output:?}");
}

#[test]
fn a_sealed_client_in_a_used_epoch_fails_and_notices_it_at_the_first_answer_if_it_gets_one() {
    let home = Home::new();
    let keys = home.path().join("keys");
    assert!(duragram().args(["keys", "new", "--fleet"]).arg(&keys).stdout(Stdio::null()).status().unwrap().success());
    let keys = keys.to_str().unwrap();
    let server = home.serve_with(&["--keys", keys]);
    for (epoch, first) in [("1", 1), ("2", 4)] {
        let args = ["--client", "0xa1", "--epoch", epoch, "--key-file", keys, "--timeout", "1500ms"];
        assert!(pipe(send(server.udp, &args), &numbers(first)).status.success());
        let output = pipe(send(server.udp, &args), &numbers(2));
        let report = report(&output);
        // After a run of one message whose counters were the higher ones, the first answer is as good as lost, and the second
        // looks like any after a loss: PROTOCOL.md#epoch-used says so.
        if first == 1 && output.status.success() {
            assert!(report["retransmissions"].as_u64() > Some(0), "the first answer was heard: {report}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(report["acked"], 0, "{report}");
        // Whose counters are the higher ones is chance, and the answers go to that run. In silence they rise with each timeout.
        let stderr = text(&output.stderr);
        if report["epoch_used"] == true {
            assert!(stderr.contains(&format!("epoch {epoch} was used before by client")), "{stderr}");
            let at_once = report["retransmissions"] == 0;
            assert!(!at_once || report["seconds"].as_f64().unwrap() < 0.9, "at the first answer: {report}");
        } else {
            assert!(stderr.contains("was the epoch used before?"), "{stderr}");
        }
    }
}

#[test]
fn an_epoch_that_was_used_before_ends_a_run_whose_input_goes_on() {
    let home = Home::new();
    let server = home.serve();
    let args = ["--client", "0xa1", "--epoch", "1", "--batch"];
    assert!(pipe(send(server.udp, &args), b"one\n").status.success());
    let start = Instant::now();
    let mut command = send(server.udp, &args);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // As long as it reads.
    while input.write_all(b"again\n").is_ok() {
        assert!(start.elapsed() < crate::common::PATIENCE, "it goes on reading");
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(report(&output)["acked"], 0, "{output:?}");
}

#[test]
fn the_servers_last_refusal_is_named() {
    for (code, name) in
        [(RejectCode::Storage, "STORAGE"), (RejectCode::Busy, "BUSY"), (RejectCode::Unknown(77), "code 77")]
    {
        let fake = Fake::start();
        fake.refuse_if(move |_| Some((code, 50)));
        let output = pipe(send(fake.addr, &["--timeout", "700ms"]), b"one\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&format!("the server refuses: {name}")), "{stderr}");
        assert!(!stderr.contains("no answer"), "{stderr}");
        assert!(report(&output)["refusal"].as_str().unwrap().starts_with(name), "{output:?}");
    }
}

#[test]
fn a_server_that_is_full_or_takes_sealed_traffic_alone_is_told_from_one_that_is_away() {
    let home = Home::with_config("sessions_max = 1\n");
    let server = home.serve();
    assert!(pipe(send(server.udp, &[]), b"one\n").status.success());
    for epoch in [&[][..], &["--epoch", "7"]] {
        let output = pipe(send(server.udp, &[epoch, &["--timeout", "1s"]].concat()), b"two\n");
        assert!(text(&output.stderr).contains("the server refuses: BUSY"), "{output:?}");
    }
    drop(server);

    let keys = home.path().join("keys");
    assert!(duragram().args(["keys", "new", "--fleet"]).arg(&keys).stdout(Stdio::null()).status().unwrap().success());
    let server = home.serve_with(&["--keys", keys.to_str().unwrap()]);
    for epoch in [&[][..], &["--epoch", "7"]] {
        let output = pipe(send(server.udp, &[epoch, &["--timeout", "3s"]].concat()), b"three\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("sealed traffic alone") && !stderr.contains("no answer"), "{epoch:?}: {stderr}");
        assert!(report(&output)["refusal"].as_str().unwrap().starts_with("SEALED_ONLY"), "{output:?}");
    }
}

#[test]
fn nobody_listening_is_told_from_silence() {
    let fake = Fake::start();
    let address = fake.addr;
    drop(fake);
    // The kernel's word is heard with the second try, after a second.
    let output = pipe(send(address, &["--timeout", "2500ms"]), b"one\n");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("nobody listens at {address}")), "{stderr}");
    assert_eq!(report(&output)["trouble"], format!("nobody listens at {address}"));
}

/// In a network of its own, whose only interface is down at first. `None` where that is not permitted.
fn in_a_dead_network(script: &str) -> Option<Output> {
    let mut command = Command::new("unshare");
    command.args(["-rn", "sh", "-c", script]).env("BIN", env!("CARGO_BIN_EXE_duragram"));
    match command.output() {
        Ok(output) if !text(&output.stderr).contains("unshare failed") => Some(output),
        _ => {
            eprintln!("SKIPPED: no network of its own can be made here");
            None
        }
    }
}

#[test]
fn without_a_route_or_a_resolver_it_waits_until_the_timeout() {
    for (server, reason) in [("192.0.2.1:7117", "unreachable"), ("ingest.example.org:7117", "cannot resolve")] {
        let start = Instant::now();
        let Some(output) = in_a_dead_network(&format!("echo one | \"$BIN\" send --server {server} --timeout 1500ms"))
        else {
            return;
        };
        let stderr = text(&output.stderr);
        assert!(start.elapsed().as_millis() >= 1500, "{stderr}");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("trying on") && stderr.contains("gave up"), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
}

#[test]
fn a_network_that_comes_later_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        r#"cd {}
        "$BIN" serve --listen 127.0.0.1:7117 --admin off --data data --sink file:out >ready 2>log &
        server=$!
        n=0; until [ -s ready ] || ! kill -0 $server || [ $((n += 1)) -gt 200 ]; do sleep 0.1; done
        echo one | "$BIN" send --timeout 20s >sent 2>said &
        n=0; until grep -q 'trying on' said || [ $((n += 1)) -gt 200 ]; do sleep 0.1; done
        ip link set lo up
        wait $!; code=$?
        cat sent; cat said log >&2
        kill $server; wait $server; exit $code"#,
        dir.path().display()
    );
    let Some(output) = in_a_dead_network(&script) else { return };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout} {stderr}");
    assert!(stderr.contains("unreachable") && stdout.contains("1 records (3 B), all acked"), "{stdout} {stderr}");
}

#[test]
fn a_name_that_can_never_be_one_is_wrong_usage_at_once() {
    for (server, complaint) in [
        ("no port in this", "no blanks"),
        ("http://localhost:7117", "without http://"),
        ("localhost:port", "no port"),
        ("localhost:0", "from 1 to 65535"),
        ("::1", "[::1]:PORT"),
        ("256.0.0.1:7117", "no IPv4 address"),
    ] {
        let output = pipe(send(server, &[]), b"one\n");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{server}: {stderr}");
        assert!(stderr.starts_with("duragram: --server: ") && stderr.contains(complaint), "{stderr}");
    }
}

#[test]
fn a_server_is_found_by_name_with_and_without_brackets_and_where_the_first_address_is_dead() {
    let fake = Fake::start();
    for server in [format!("localhost:{}", fake.addr.port()), format!("[::ffff:127.0.0.1]:{}", fake.addr.port())] {
        let output = pipe(send(&server, &["--timeout", "20s"]), b"one\n");
        assert!(output.status.success(), "{server}: {output:?}");
    }
}
