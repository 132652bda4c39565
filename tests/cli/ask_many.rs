//! `duragram send --ask` and `duragram load --ask`: many asks, against the real server and a service behind it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::cli::support::{duragram, text};
use crate::common::server::{Home, Server};
use crate::common::service::Service;

fn serve(toml: &str, service: &Service) -> (Home, Server) {
    let home = Home::with_config(toml);
    let server = home.serve_sinks(&[&service.sink()]);
    (home, server)
}

fn send(server: &Server, args: &[&str]) -> Command {
    let mut command = duragram(&["send", "--ask", "--server", &server.udp.to_string()]);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn pipe(mut command: Command, input: &str) -> Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Beside it: who reads the answers slowly must not be written to for ever.
    let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

fn answers(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_line_is_answered_once_and_the_report_goes_to_stderr() {
    let service = Service::start();
    let (_home, server) = serve("", &service);
    let input: String = (1..=300).map(|n| format!("order {n}\n")).collect();
    let output = pipe(send(&server, &[]), &input);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.starts_with("300 records ("), "{stderr}");
    let mut told = answers(&output);
    told.sort_by_key(|answer| answer["line"].as_u64());
    let expected: Vec<_> =
        (1..=300).map(|n| json!({"line": n, "status": "DONE", "body": format!("ORDER {n}")})).collect();
    assert_eq!(told, expected);
    assert_eq!(service.requests().len(), 300);
    assert_eq!(server.metric("duragram_asks_answered", ""), 0.0, "the server was told that all are had");
}

#[test]
fn a_line_that_is_given_up_is_failed_and_the_exit_code_is_1() {
    let service = Service::start();
    let (_home, server) = serve("", &service);
    let output = pipe(send(&server, &["--json"]), "order 1\nno such order\nnone needed\n");
    assert_eq!(output.status.code(), Some(1));
    let mut told = answers(&output);
    told.sort_by_key(|answer| answer["line"].as_u64());
    let expected = [("DONE", "ORDER 1"), ("FAILED", ""), ("DONE", "")];
    let expected: Vec<_> = (1..)
        .zip(expected)
        .map(|(line, (status, body))| json!({"line": line, "status": status, "body": body}))
        .collect();
    assert_eq!(told, expected);
    let stderr = text(&output.stderr);
    let report: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&report["records"], &report["acked"]), (&json!(3), &json!(3)), "{stderr}");
}

#[test]
fn lines_that_are_too_long_or_whose_answers_are_get_no_body_and_the_exit_code_is_1() {
    let service = Service::start();
    let (_home, server) = serve("answer_bytes_max = 1400\n", &service);
    let input = format!("order 1\n{}\nlong 1300\n", "x".repeat(1169));
    let output = pipe(send(&server, &[]), &input);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("line 2: a record of 1169 bytes"), "{stderr}");
    assert!(stderr.contains("line 3: its answer has 1300 bytes"), "{stderr}");
    let told: BTreeSet<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(answers(&output).contains(&json!({"line": 3, "status": "DONE", "length": 1300})), "{told:?}");
}

#[test]
fn a_server_that_takes_no_asks_is_exit_code_1() {
    let service = Service::start();
    let (_home, server) = serve("asks_max = 0\n", &service);
    let output = pipe(send(&server, &[]), "order 1\norder 2\n");
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
    assert!(stderr.contains("line 1: refused by the server"), "{stderr}");
    assert_eq!(service.requests().len(), 0);
}

#[test]
fn answers_come_as_they_are_given_while_the_input_is_still_open() {
    let service = Service::start();
    let (_home, server) = serve("", &service);
    let mut child = send(&server, &[]).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for n in 1..=3 {
        writeln!(stdin, "order {n}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer, json!({"line": n, "status": "DONE", "body": format!("ORDER {n}")}));
    }
    drop(stdin);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn when_nobody_reads_the_answers_any_more_every_record_is_sent_all_the_same() {
    let service = Service::start();
    let (_home, server) = serve("", &service);
    let mut child = send(&server, &[]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    writeln!(stdin, "order 1").unwrap();
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    for n in 2..=200 {
        writeln!(stdin, "order {n}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(service.requests().len(), 200);
    assert!(stderr.contains("nobody reads the answers"), "{stderr}");
    assert!(stderr.lines().count() < 30, "it is said once, not for each: {stderr}");
}

fn load(server: &Server, args: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = duragram(&["load", "--json", "--server", &server.udp.to_string(), "--seconds", "0.5"]);
    let output = command.args(args).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), report, text(&output.stderr))
}

#[test]
fn load_asks_takes_and_measures() {
    let home = Home::new();
    let server = home.serve_sinks(&["null"]);
    let (code, report, stderr) = load(&server, &["--ask", "--clients", "4", "--window", "16"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{report}");
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"));
    assert!(number("acked") > 50.0, "{report}");
    assert_eq!(number("answered"), number("acked"), "{report}");
    for key in ["failed", "gone", "unfit", "unanswered", "unacked"] {
        assert_eq!(number(key), 0.0, "{key}: {report}");
    }
    let mut last = number("p50_us");
    for key in ["answer_p50_us", "answer_p90_us", "answer_p99_us", "answer_max_us"] {
        assert!(number(key) >= last, "{key}: {report}");
        last = number(key);
    }
    assert!(number("answered_per_s") > 0.0 && number("pending") >= 0.0);
}

#[test]
fn load_without_asks_has_no_word_of_answers() {
    let home = Home::new();
    let server = home.serve_sinks(&["null"]);
    let (code, report, _) = load(&server, &["--clients", "1", "--window", "1"]);
    assert_eq!((code, report.get("answered")), (Some(0), None), "{report}");
}

#[test]
fn load_makes_room_for_longer_answers_and_counts_failed_ones() {
    let service = Service::start_with(|request| {
        use crate::sinks::http::server::Response;
        if request.body[0] % 2 == 0 { Response::status(422) } else { Response::status(200).body([b'y'; 500]) }
    });
    let (_home, server) = serve("", &service);
    let (code, report, stderr) = load(&server, &["--ask", "--clients", "2", "--window", "4", "--answer-bytes", "10"]);
    assert_eq!(code, Some(0), "{stderr} {report}");
    assert_eq!((&report["answered"], &report["unfit"]), (&report["acked"], &json!(0)), "{report}");
}

#[test]
fn load_ends_with_1_where_nobody_may_ask_or_nobody_answers_and_with_2_where_it_makes_no_sense() {
    let service = Service::start_with(|_| crate::sinks::http::server::Response::status(503));
    let (_home, server) = serve("asks_max = 0\n", &service);
    let (code, report, stderr) = load(&server, &["--ask", "--clients", "1", "--drain", "0.2"]);
    assert_eq!(code, Some(1), "{report}");
    assert!(stderr.contains("refuses this load: Unsupported"), "{stderr}");
    let (_home, server) = serve("", &service);
    let (code, report, stderr) = load(&server, &["--ask", "--clients", "1", "--window", "4", "--drain", "0.2"]);
    assert_eq!((code, &report["acked"], &report["unanswered"]), (Some(1), &json!(64), &json!(64)), "{stderr}");
    assert!(stderr.contains("64 messages were not answered"), "{stderr}");
    for args in [&["--ask", "--batch", "2"][..], &["--ask", "--gso", "2"], &["--answer-bytes", "7"]] {
        let (code, _, stderr) = load(&server, args);
        assert_eq!((code, stderr.contains("--ask")), (Some(2), true), "{args:?}: {stderr}");
    }
}
