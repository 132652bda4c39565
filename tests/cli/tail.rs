//! `duragram tail`, the real program against a real admin interface.

use std::io::{BufRead, BufReader, Read};
use std::process::ChildStdout;

use crate::cli::support::{FakeServer, Running, duragram, outcome, run};
use duragram::admin::Admin;
use serde_json::Value;

fn follow(admin: &Admin, args: &[&str]) -> (Running, BufReader<ChildStdout>) {
    let address = admin.address().to_string();
    let mut running = Running::start(duragram(&[&["tail", "--admin", &address], args].concat()));
    let stdout = running.0.stdout.take().unwrap();
    (running, BufReader::new(stdout))
}

fn next_line(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line
}

fn place(line: &str) -> (u64, u64) {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
    (value["offset"].as_u64().unwrap(), value["index"].as_u64().unwrap())
}

#[test]
fn everything_that_is_there_comes_out_and_tail_ends_when_it_shall_not_follow() {
    let server = FakeServer::new();
    server.commit(b"one");
    server.commit_batch(&[b"two", b"th\xffee"]);
    let admin = server.admin(None);
    let address = admin.address().to_string();

    let (code, stdout, stderr) = outcome(&["tail", "--admin", &address, "--from-start", "--no-follow"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let places: Vec<_> = stdout.lines().map(place).collect();
    assert_eq!(places, [(0, 0), (1, 0), (1, 1)]);
    let first: Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&first["payload"], &first["client"]), (&"one".into(), &"00000000000000a1".into()));

    let payloads = run(&["tail", "--admin", &address, "--from", "1", "--no-follow", "--payload"]);
    assert_eq!(payloads.stdout, b"two\nth\xffee\n");

    let (_, stdout, _) = outcome(&["tail", "--admin", &address, "--no-follow"]);
    assert_eq!(stdout, "", "without an offset only what comes is shown");
}

#[test]
fn a_tail_goes_on_where_it_was_when_the_server_is_back() {
    let server = FakeServer::new();
    server.commit_batch(&[b"a", b"b"]);
    let admin = server.admin(None);
    let address = admin.address();
    let (_running, mut lines) = follow(&admin, &["--from", "0"]);
    assert_eq!(place(&next_line(&mut lines)), (0, 0));
    assert_eq!(place(&next_line(&mut lines)), (0, 1));

    admin.stop();
    server.commit_batch(&[b"c", b"d"]);
    let _admin = server.admin(Some(address));
    assert_eq!(place(&next_line(&mut lines)), (1, 0));
    assert_eq!(place(&next_line(&mut lines)), (1, 1));
    server.commit(b"e");
    assert_eq!(place(&next_line(&mut lines)), (2, 0));
}

fn told(mut running: Running) -> String {
    running.0.kill().unwrap();
    let mut told = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    told
}

#[test]
fn another_journal_on_the_same_address_is_told_and_read_from_its_beginning() {
    let server = FakeServer::new();
    (0..3).for_each(|_| server.commit(b"of the one"));
    let admin = server.admin(None);
    let address = admin.address();
    let (running, mut lines) = follow(&admin, &["--from", "1"]);
    assert_eq!(place(&next_line(&mut lines)), (1, 0));
    assert_eq!(place(&next_line(&mut lines)), (2, 0));
    admin.stop();
    // It is longer than where the reader was, so that an offset alone would tell nothing.
    let other = FakeServer::new();
    (0..9).for_each(|_| other.commit(b"of the other"));
    let _admin = other.admin(Some(address));
    for offset in 0..9 {
        let line = next_line(&mut lines);
        assert!(place(&line) == (offset, 0) && line.contains("of the other"), "{line}");
    }
    let told = told(running);
    assert!(told.contains(&format!("another journal answers at {address}")), "{told}");
}

#[test]
fn who_follows_what_comes_sees_of_another_journal_what_comes() {
    let server = FakeServer::new();
    server.commit(b"0");
    let admin = server.admin(None);
    let address = admin.address();
    let (running, mut lines) = follow(&admin, &[]);
    let admin = until_shown(&server, admin, &mut lines);
    admin.stop();
    let other = FakeServer::new();
    other.commit(b"before");
    let admin = other.admin(Some(address));
    let _admin = until_shown(&other, admin, &mut lines);
    let told = told(running);
    assert!(told.contains("another journal") && told.contains("going on at offset"), "{told}");
}

/// Commits entries until one is shown, which must be one of these.
fn until_shown(server: &std::sync::Arc<FakeServer>, admin: Admin, lines: &mut BufReader<ChildStdout>) -> Admin {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                server.commit(b"new");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        let line = next_line(lines);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(line.contains("new"), "{line}");
    });
    admin
}

#[test]
fn an_offset_of_another_journal_is_refused_by_the_api() {
    let server = FakeServer::new();
    server.commit(b"0");
    let admin = server.admin(None);
    let get = |path: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(format!("http://{}{path}", admin.address())).call().unwrap();
        let name = answer.headers().get("duragram-journal").map(|name| name.to_str().unwrap().to_owned());
        (answer.status().as_u16(), name, answer.body_mut().read_to_string().unwrap())
    };
    let status: Value = serde_json::from_str(&get("/api/status").2).unwrap();
    let journal = status["journal"].as_str().unwrap().to_owned();
    assert_eq!(journal.len(), 32);
    for path in ["/api/entries?from=0", "/api/tail?from=0&follow=false"] {
        assert_eq!(get(path).1, Some(journal.clone()), "{path}");
        assert_eq!(get(&format!("{path}&journal={journal}")).0, 200, "{path}");
        for other in ["00000000000000000000000000000000", "other"] {
            let (status, _, text) = get(&format!("{path}&journal={other}"));
            assert!(status == 409 && text.contains(&journal), "{path}: {status} {text}");
        }
    }
}

#[test]
fn what_was_trimmed_while_the_server_was_away_is_told() {
    let server = FakeServer::new();
    server.commit(b"0");
    let admin = server.admin(None);
    let address = admin.address();
    let (mut running, mut lines) = follow(&admin, &["--from", "0"]);
    assert_eq!(place(&next_line(&mut lines)), (0, 0));
    admin.stop();
    (1..4).for_each(|_| server.commit(b"x"));
    server.trim(3);
    let _admin = server.admin(Some(address));
    assert_eq!(place(&next_line(&mut lines)), (3, 0));
    running.0.kill().unwrap();
    let mut told = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("entries 1 to 2 were trimmed"), "{told}");
}

#[test]
fn a_reader_that_has_enough_ends_the_tail_without_noise() {
    let server = FakeServer::new();
    server.commit(b"0");
    let admin = server.admin(None);
    let (mut running, mut lines) = follow(&admin, &["--from-start"]);
    assert_eq!(place(&next_line(&mut lines)), (0, 0));
    drop(lines);
    server.commit(b"1");
    assert_eq!(running.wait(), 0);
    let mut told = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(told, "");
}

#[test]
fn no_server_and_a_journal_that_ends_before_are_told() {
    let server = FakeServer::new();
    let admin = server.admin(None);
    let address = admin.address().to_string();
    let (code, _, stderr) = outcome(&["tail", "--admin", &address, "--from", "5"]);
    assert_eq!((code, stderr.as_str()), (1, "duragram: offset 5 is beyond the journal's end, 0\n"));
    admin.stop();
    let (code, _, stderr) = outcome(&["tail", "--admin", &address, "--from-start"]);
    assert_eq!(code, 1);
    assert!(stderr.starts_with(&format!("duragram: no answer from the admin interface at {address}")), "{stderr}");
}

#[test]
fn a_proxy_in_the_environment_is_not_asked() {
    let server = FakeServer::new();
    server.commit(b"0");
    let admin = server.admin(None);
    let address = admin.address().to_string();
    let mut command = duragram(&["tail", "--from-start", "--no-follow"]);
    let output = command.env("http_proxy", "http://127.0.0.1:1").env("DURAGRAM_ADMIN", address).output().unwrap();
    assert!(output.status.success(), "{}", crate::cli::support::text(&output.stderr));
    assert_eq!(output.stdout.iter().filter(|&&byte| byte == b'\n').count(), 1);
}
