//! `duragram send` as people and scripts run it, against a server in memory.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::fake::Fake;
use crate::common::lossy::{LossyPath, Weather};
use crate::common::server::duragram;
use duragram_proto::codec::RejectCode;
use serde_json::Value;

fn send(server: impl ToString) -> Command {
    let mut command = duragram();
    command.arg("send").args(["--server", &server.to_string()]).stdin(Stdio::null());
    command
}

/// Runs with an input on stdin.
fn pipe(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
    // A child that ends early does not read all: that shows in what it says.
    child.stdin.take().expect("stdin is piped").write_all(input).ok();
    child.wait_with_output().expect("our own child")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn file(dir: &Path, content: &[u8]) -> String {
    let path = dir.join("input");
    fs::write(&path, content).expect("a temporary file");
    path.display().to_string()
}

#[test]
fn each_line_is_a_record_whatever_its_bytes() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let input = b"o\0e\n\nthree \xff\xfe not text\r\nthe last has no newline";
    let expected = [&b"o\0e"[..], b"", b"three \xff\xfe not text\r", b"the last has no newline"].map(<[u8]>::to_vec);

    let output =
        send(fake.addr).args(["--epoch", "1", "--client", "0xa1"]).arg(file(dir.path(), input)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fake.records(), expected);
    let report = text(&output.stdout);
    assert!(report.starts_with("4 records (44 B), all acked, in "), "{report}");
    assert!(report.contains("4 datagrams, 0 of them retransmissions; 0 rejects\n"), "{report}");
    assert!(report.ends_with("client 00000000000000a1, epoch 1\n"), "{report}");
    assert_eq!(text(&output.stderr), "", "no progress bar where there is no terminal");

    fake.memory().taken.clear();
    let mut command = send(fake.addr);
    command.args(["--epoch", "2", "--client", "00000000000000a1", "--channel", "9"]);
    let output = pipe(command, input);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fake.records(), expected, "the same from stdin");
    assert!(fake.memory().taken.iter().all(|taken| (taken.client.0, taken.epoch, taken.channel) == (0xa1, 2, 9)));
}

#[test]
fn nothing_to_send_is_done_at_once() {
    let fake = Fake::start();
    fake.set_silent(true);
    let output = pipe(send(fake.addr), b"");
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).starts_with("0 records (0 B), all acked"), "{output:?}");
}

#[test]
fn with_batch_lines_share_datagrams_and_keep_their_order() {
    let fake = Fake::start();
    let lines: Vec<_> = (0..20_000).map(|n| format!("line {n}").into_bytes()).collect();
    let mut command = send(fake.addr);
    command.args(["--batch", "--json"]);
    let output = pipe(command, &lines.join(&b'\n'));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fake.records(), lines);
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["records"], 20_000);
    assert_eq!(report["acked"], 20_000);
    assert_eq!(report["unacked"], 0);
    assert_eq!(report["epoch"], 1001, "the server's");
    assert!(report["transmissions"].as_u64().unwrap() < 2000, "{report}");
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    let id = report["client"].as_str().unwrap();
    assert_eq!(u64::from_str_radix(id, 16).unwrap(), fake.memory().taken[0].client.0);
}

#[test]
fn a_bad_network_costs_retransmissions_only() {
    let fake = Fake::start();
    let path = LossyPath::to(fake.addr, Weather::FOUL, 3);
    let lines: Vec<_> = (0..500).map(|n| format!("line {n}").into_bytes()).collect();
    let mut command = send(path.addr());
    command.arg("--json");
    let output = pipe(command, &lines.join(&b'\n'));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fake.records(), lines);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["retransmissions"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn a_line_that_fits_in_no_datagram_is_named_and_the_others_are_sent() {
    let fake = Fake::start();
    let long = vec![b'x'; 1169];
    let huge = vec![b'y'; 1 << 20];
    let input = [b"one", long.as_slice(), b"three", &huge, b"five"].join(&b'\n');
    let output = pipe(send(fake.addr), &input);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fake.records(), [b"one".to_vec(), b"three".to_vec(), b"five".to_vec()]);
    assert_eq!(
        text(&output.stderr),
        "duragram: line 2: a record of 1169 bytes does not fit in a datagram: at most 1168\n\
         duragram: line 4: a record of 1048576 bytes does not fit in a datagram: at most 1168\n"
    );
    assert!(text(&output.stdout).starts_with("5 records"), "{output:?}");
    assert!(text(&output.stdout).contains("3 acked"), "{output:?}");

    fake.memory().taken.clear();
    let mut command = send(fake.addr);
    command.args(["--datagram-bytes-max", "1201"]);
    assert!(pipe(command, &long).status.success());
    assert_eq!(fake.records(), [long]);
}

#[test]
fn a_line_that_the_server_refuses_is_named() {
    let fake = Fake::start();
    fake.refuse_if(|data| (data.payload == b"two").then_some((RejectCode::Channel, 0)));
    let output = pipe(send(fake.addr), b"one\ntwo\nthree\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "duragram: line 2: refused by the server: it does not accept this channel\n");
    assert_eq!(fake.records(), [b"one".to_vec(), b"three".to_vec()]);
    assert!(text(&output.stdout).contains("1 rejects"), "{output:?}");
}

#[test]
fn without_an_answer_it_gives_up_after_the_timeout_only() {
    let fake = Fake::start();
    fake.set_silent(true);
    let mut command = send(fake.addr);
    command.args(["--timeout", "200ms", "--json"]);
    let output = pipe(command, b"one\ntwo\n");
    assert_eq!(output.status.code(), Some(1));
    let complaint = text(&output.stderr);
    assert!(complaint.contains("gave up"), "{complaint}");
    assert!(complaint.contains("2 records were not acked"), "{complaint}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["unacked"], &report["epoch"]), (&Value::from(2), &Value::Null));
}

#[test]
fn wrong_usage_ends_with_2_and_sends_nothing() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing").display().to_string();
    let directory = dir.path().display().to_string();
    for (args, complaint) in [
        (vec![missing.as_str()], "cannot read"),
        (vec![directory.as_str()], "is a directory"),
        (vec!["--client", "nobody"], "--client"),
        (vec!["--epoch", "0"], "--epoch"),
        (vec!["--channel", "65536"], "--channel"),
        (vec!["--timeout", "soon"], "--timeout"),
        (vec!["--window", "0"], "window is 0; it must be 1 to 65,536"),
        (vec!["--datagram-bytes-max", "32"], "datagram_bytes_max is 32"),
        (vec!["--no-such-option"], "--no-such-option"),
    ] {
        let output = send(fake.addr).args(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(text(&output.stderr).contains(complaint), "{args:?}: {output:?}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
    assert_eq!(fake.memory().arrived, 0);
}
