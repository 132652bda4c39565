//! `duragram load` as users run it, against a server that journals in memory.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use crate::common::fake::Fake;
use duragram_proto::codec::RejectCode;
use serde_json::Value;

/// Runs `duragram load --json` against the fake with further arguments.
fn load(server: &str, args: &[&str]) -> Output {
    let mut command: Command = crate::common::server::duragram();
    command.args(["load", "--json", "--server", server, "--seconds", "0.5"]).args(args).output().expect("the binary")
}

/// The exit code, the report, and what is on stderr.
fn outcome(fake: &Fake, args: &[&str]) -> (i32, Value, String) {
    let output = load(&fake.addr.to_string(), args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().expect("no signal"), report, stderr)
}

/// As [`outcome`] for a run that must succeed; with the seqs that the fake has taken of each client.
fn all_acked(fake: &Fake, args: &[&str]) -> (Value, BTreeMap<u64, Vec<u64>>) {
    let (code, report, stderr) = outcome(fake, args);
    assert_eq!((code, stderr.as_str()), (0, ""), "{report}");
    let mut sessions: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for taken in &fake.memory().taken {
        sessions.entry(taken.client.0).or_default().push(taken.seq);
    }
    for (client, seqs) in &mut sessions {
        seqs.sort_unstable();
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "client {client} has holes or repetitions: {seqs:?}");
    }
    let taken: usize = sessions.values().map(Vec::len).sum();
    assert_eq!(report["acked"], taken, "acked and journaled are the same");
    assert_eq!((&report["unacked"], &report["unsent"]), (&0.into(), &0.into()));
    (report, sessions)
}

#[test]
fn every_client_sends_and_the_report_has_every_key() {
    let fake = Fake::start();
    let (report, sessions) = all_acked(&fake, &["--clients", "20", "--window", "5"]);
    assert_eq!(sessions.len(), 20);
    let ids: Vec<u64> = sessions.keys().copied().collect();
    assert_eq!(ids[19] - ids[0], 19, "ids follow each other from a random one");
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"));
    let mut last = 0.0;
    for key in ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"] {
        assert!(number(key) >= last && number(key) > 0.0, "{key}: {report}");
        last = number(key);
    }
    let (acked, seconds) = (number("acked"), number("seconds"));
    assert!((0.5..2.0).contains(&seconds), "{report}");
    let rate = number("acked_per_s");
    assert!(rate <= acked / seconds + 1.0 && rate > (acked - 100.0) / seconds - 1.0, "{report}");
    assert_eq!(number("records_per_s"), rate);
    assert!((number("bytes_per_s") / rate - 100.0).abs() < 1e-9, "{report}");
    assert_eq!(number("rejected"), 0.0);
}

#[test]
fn two_runs_are_two_sets_of_clients() {
    let fake = Fake::start();
    for runs in 1..=2 {
        let (code, _, stderr) = outcome(&fake, &["--clients", "3", "--window", "1"]);
        assert_eq!(code, 0, "{stderr}");
        let clients: std::collections::BTreeSet<u64> = fake.memory().taken.iter().map(|taken| taken.client.0).collect();
        assert_eq!(clients.len(), 3 * runs);
    }
}

#[test]
fn with_gso_a_batch_and_few_sockets_every_datagram_arrives_whole() {
    let fake = Fake::start();
    let args = ["--clients", "6", "--window", "32", "--gso", "16", "--batch", "7", "--size", "50", "--sockets", "2"];
    let (report, _) = all_acked(&fake, &args);
    let memory = fake.memory();
    assert!(memory.taken.iter().all(|taken| taken.batch && taken.records.len() == 7));
    assert!(memory.taken.iter().all(|taken| taken.records.iter().all(|record| record.len() == 50)));
    assert_eq!(memory.peers.len(), 2, "two sockets, two ports");
    let (datagrams, records) = (report["acked_per_s"].as_f64().unwrap(), report["records_per_s"].as_f64().unwrap());
    assert!((records - 7.0 * datagrams).abs() < 1.0, "{report}");
}

#[test]
fn what_is_lost_on_purpose_both_ways_is_sent_again_until_it_is_acked() {
    let fake = Fake::start();
    let (report, _) = all_acked(&fake, &["--clients", "4", "--window", "64", "--loss", "0.1"]);
    let (acked, resent) = (report["acked"].as_f64().unwrap(), report["resent"].as_f64().unwrap());
    assert!(resent > acked * 0.05, "a tenth was lost on its way: {report}");
}

#[test]
fn an_open_loop_sends_what_was_asked_for_and_counts_a_stall_in_the_latency() {
    let fake = Fake::start();
    let stalled = std::sync::atomic::AtomicBool::new(false);
    fake.refuse_if(move |data| {
        // Once, in the middle: a server that does nothing for a while.
        if data.seq.0 > 50 && !stalled.swap(true, std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        None
    });
    let (report, sessions) = all_acked(&fake, &["--rate", "2000", "--clients", "10", "--window", "1"]);
    assert_eq!(report["acked"], 1_000);
    assert!(sessions.values().all(|seqs| seqs.len() == 100), "clients take turns");
    // 200 ms of 500 ms: those that were due meanwhile waited for 100 ms on average, though none was under way.
    assert!(report["p90_us"].as_f64().unwrap() > 50_000.0, "{report}");
    assert!(report["max_us"].as_f64().unwrap() > 150_000.0, "{report}");
}

#[test]
fn a_server_that_is_busy_for_a_while_is_waited_for() {
    let fake = Fake::start();
    let mut refusals = 0;
    fake.refuse_if(move |_| {
        refusals += 1;
        (refusals <= 20).then_some((RejectCode::Busy, 20))
    });
    let (report, _) = all_acked(&fake, &["--clients", "2", "--window", "8"]);
    let (rejected, resent) = (report["rejected"].as_u64().unwrap(), report["resent"].as_u64().unwrap());
    assert!((8..=20).contains(&rejected) && resent >= 8, "{report}");
}

#[test]
fn a_narrow_server_window_is_kept_to() {
    let fake = Fake::start();
    fake.memory().window = 3;
    let (report, _) = all_acked(&fake, &["--clients", "2", "--window", "50"]);
    assert!(report["acked"].as_u64().unwrap() > 100, "{report}");
}

#[test]
fn a_server_that_refuses_the_load_for_good_ends_it_with_exit_code_1() {
    let fake = Fake::start();
    fake.refuse_if(|_| Some((RejectCode::TooLarge, 0)));
    let (code, report, stderr) = outcome(&fake, &["--clients", "2"]);
    assert_eq!((code, &report["acked"], &report["p50_us"]), (1, &0.into(), &Value::Null), "{report}");
    assert!(report["unacked"].as_u64().unwrap() > 0 && report["rejected"].as_u64().unwrap() > 0, "{report}");
    assert!(stderr.contains("refuses this load: TooLarge"), "{stderr}");
}

#[test]
fn what_is_not_acked_in_the_end_is_exit_code_1() {
    let fake = Fake::start();
    fake.refuse_if(|data| (data.seq.0 == 30).then_some((RejectCode::Busy, 60_000)));
    let (code, report, stderr) = outcome(&fake, &["--clients", "1", "--window", "1", "--drain", "0.2"]);
    assert_eq!((code, &report["acked"], &report["unacked"]), (1, &29.into(), &1.into()), "{report}");
    assert!(stderr.contains("1 datagrams were not acked"), "{stderr}");
}

#[test]
fn a_server_that_is_not_there_is_exit_code_1() {
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = load(&gone.to_string(), &["--drain", "0.2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no reply"), "{output:?}");
}

#[test]
fn what_makes_no_sense_or_does_harm_is_refused_with_exit_code_2() {
    for (args, expected) in [
        (&["--server", "192.0.2.1:7117"][..], "--i-own-this-server"),
        (&["--server", "no where"], "--server: \"no where\""),
        (&["--server", "::1:7117"], "[::1]:7117"),
        (&["--clients", "0"], "--clients"),
        (&["--clients", "1000001"], "--clients"),
        (&["--window", "65536"], "--window"),
        (&["--clients", "1000000", "--window", "1000"], "--window"),
        (&["--size", "65476"], "at most 65475 bytes"),
        (&["--batch", "0"], "--batch"),
        (&["--batch", "18446744073709551615"], "at most 65475 bytes"),
        (&["--gso", "65"], "--gso"),
        (&["--seconds", "3601"], "--seconds"),
        (&["--seconds", "0"], "--seconds"),
        (&["--seconds", "NaN"], "--seconds"),
        (&["--rate=-1"], "--rate"),
        (&["--loss", "1"], "--loss"),
        (&["--sockets", "513"], "--sockets"),
    ] {
        let mut command = crate::common::server::duragram();
        let output = command.arg("load").args(args).output().expect("the binary");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}
