//! `duragram dead`, the real program against a real admin interface.

use std::sync::Arc;

use crate::cli::support::{FakeServer, TOKEN, duragram, outcome, run, text};
use duragram::admin::Admin;
use serde_json::Value;

fn server() -> (Arc<FakeServer>, Admin, String) {
    let server = FakeServer::new();
    let admin = server.admin(None);
    let address = admin.address().to_string();
    (server, admin, address)
}

/// As `outcome`, with the token in a file.
pub(super) fn outcome_with_token(args: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let output = duragram(args).env("DURAGRAM_ADMIN_TOKEN_FILE", dir.path().join("token")).output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_the_token_nothing_is_changed() {
    let (server, _admin, address) = server();
    server.put_dead(2, 0, b"x", "no paper");
    for command in ["retry", "discard"] {
        let (code, stdout, stderr) = outcome(&["dead", command, "2", "--admin", &address]);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.contains("needs the admin token") && stderr.contains("--admin-token-file"), "{stderr}");
    }
    let (code, _, stderr) =
        outcome(&["dead", "discard", "2", "--admin", &address, "--admin-token-file", "/nonexistent/token"]);
    assert_eq!((code, stderr.contains("/nonexistent/token: ")), (2, true), "{stderr}");
    assert_eq!(server.dead_count(), 1);
}

/// A server's own token stands where its data is.
#[test]
fn the_token_is_found_in_the_data_directory() {
    let (server, _admin, address) = server();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("duragram-data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("admin-token"), TOKEN).unwrap();
    for (offset, variable) in [("2", false), ("4", true)] {
        server.put_dead(offset.parse().unwrap(), 0, b"x", "no paper");
        let mut command = duragram(&["dead", "discard", offset, "--admin", &address]);
        match variable {
            true => command.env("DURAGRAM_DATA", &data),
            false => command.current_dir(dir.path()),
        };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(server.dead_count(), 0);
}

#[test]
fn all_pages_of_the_list_are_shown() {
    let (server, _admin, address) = server();
    let (code, stdout, stderr) = outcome(&["dead", "list", "--admin", &address]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", "duragram: there are no dead letters\n"));

    (0..250).for_each(|offset| server.put_dead(offset, 0, b"x", "no paper\x1b[2J\nat all"));
    let (code, stdout, _) = outcome(&["dead", "list", "--admin", &address, "--json"]);
    assert_eq!(code, 0);
    let offsets: Vec<u64> =
        stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, (0..250).collect::<Vec<_>>());

    let (_, stdout, _) = outcome(&["dead", "list", "--admin", &address]);
    assert_eq!(stdout.lines().count(), 251);
    assert!(stdout.lines().next().unwrap().starts_with("ID "), "{stdout}");
    assert!(stdout.lines().nth(1).unwrap().ends_with("no paper [2J at all"), "{stdout}");
}

#[test]
fn one_is_shown_with_its_payload() {
    let (server, _admin, address) = server();
    server.put_dead(7, 2, b"a\xffb", "no paper");
    let (code, stdout, _) = outcome(&["dead", "show", "7/2", "--admin", &address]);
    let letter: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &letter["error"], &letter["payload_base64"]), (0, &"no paper".into(), &"Yf9i".into()));
    assert_eq!(run(&["dead", "show", "7/2", "--payload", "--admin", &address]).stdout, b"a\xffb");
    let (code, _, stderr) = outcome(&["dead", "show", "7", "--admin", &address]);
    assert_eq!((code, stderr.as_str()), (1, "duragram: there is no dead letter 7/0\n"));
}

#[test]
fn retrying_goes_on_after_a_failure_and_fails_in_the_end() {
    let (server, _admin, address) = server();
    (0..4).for_each(|offset| server.put_dead(offset, 0, b"x", "no paper"));
    let (code, stdout, stderr) = outcome_with_token(&["dead", "retry", "--all", "--admin", &address]);
    assert_eq!((code, stdout.as_str()), (1, "0/0 retried\n2/0 retried\n"));
    let expected =
        "duragram: 1/0: it failed again: odd\nduragram: 3/0: it failed again: odd\nduragram: 2 of 4 not retried\n";
    assert_eq!(stderr, expected);
    assert_eq!(server.dead_count(), 2);
}

#[test]
fn discarding_deletes_just_what_was_named() {
    let (server, _admin, address) = server();
    (0..4).for_each(|offset| server.put_dead(offset, 1, b"x", "no paper"));
    let (code, stdout, _) = outcome_with_token(&["dead", "discard", "0/1", "2/1", "--admin", &address]);
    assert_eq!((code, stdout.as_str()), (0, "0/1 discarded\n2/1 discarded\n"));
    assert_eq!(server.dead_count(), 2);
    let (code, _, stderr) = outcome_with_token(&["dead", "discard", "0/1", "--admin", &address]);
    assert_eq!((code, stderr.contains("there is no dead letter 0/1")), (1, true), "{stderr}");
    let (code, _, _) = outcome_with_token(&["dead", "discard", "--all", "--admin", &address]);
    assert_eq!((code, server.dead_count()), (0, 0));
}

#[test]
fn what_is_not_an_id_and_nothing_at_all_are_usage_errors() {
    for args in [
        &["dead", "retry", "x"][..],
        &["dead", "discard"],
        &["dead", "discard", "1", "--all"],
        &["dead", "show", "1/99999"],
    ] {
        assert_eq!(outcome(args).0, 2, "{args:?}");
    }
}

#[test]
fn a_letter_is_that_of_the_sink_that_is_named() {
    let (server, _admin, address) = server();
    server.add_sink("events", 7, 0, None);
    server.add_sink("file:/var/a&b", 8, 0, None);
    [(7, 2), (8, 2), (8, 4), (9, 6)].into_iter().for_each(|(sink, offset)| server.put_dead_of(sink, offset));
    let listed = |args: &[&str]| {
        let (code, stdout, stderr) = outcome(&[&["dead", "list", "--admin", &address], args].concat());
        assert_eq!(code, 0, "{stderr}");
        stdout
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let gone = "00000000000000000000000000000009";
    let of_gone = format!("6/0 {gone}");
    assert_eq!(listed(&[]), ["2/0 events", "2/0 file:/var/a&b", "4/0 file:/var/a&b", &of_gone]);
    assert_eq!(listed(&["--sink", "file:/var/a&b"]), ["2/0 file:/var/a&b", "4/0 file:/var/a&b"]);
    assert_eq!(listed(&["--sink", gone]), [of_gone]);

    let (code, _, stderr) = outcome_with_token(&["dead", "discard", "2", "--admin", &address]);
    assert_eq!((code, server.dead_count()), (1, 4));
    assert!(stderr.contains("--sink NAME") && stderr.contains("events, file:/var/a&b"), "{stderr}");
    let (code, stdout, _) = outcome(&["dead", "show", "2", "--sink", "events", "--admin", &address]);
    assert_eq!((code, serde_json::from_str::<Value>(&stdout).unwrap()["sink"].as_str()), (0, Some("events")));
    let (code, stdout, _) = outcome_with_token(&["dead", "retry", "2", "--sink", "events", "--admin", &address]);
    assert_eq!((code, stdout.as_str()), (0, "2/0 retried\n"));
    let (code, stdout, _) =
        outcome_with_token(&["dead", "discard", "--all", "--sink", "file:/var/a&b", "--admin", &address]);
    assert_eq!((code, stdout.as_str()), (0, "2/0 of file:/var/a&b discarded\n4/0 of file:/var/a&b discarded\n"));
    let (code, _, stderr) = outcome(&["dead", "list", "--sink", "even", "--admin", &address]);
    assert_eq!((code, stderr.contains("there are: events, file:/var/a&b")), (1, true), "{stderr}");
    let (code, stdout, _) = outcome_with_token(&["dead", "discard", "--all", "--admin", &address]);
    assert_eq!((code, stdout, server.dead_count()), (0, format!("6/0 of {gone} discarded\n"), 0));
}

#[test]
fn it_is_shown_where_the_sender_was_told_that_its_message_failed_and_that_a_retry_tells_it_nothing() {
    let (server, _admin, address) = server();
    server.put_dead(1, 0, b"x", "no paper");
    server.put_dead_told(2);
    let (_, stdout, _) = outcome(&["dead", "list", "--admin", &address]);
    let told = |line: &str| line.split_whitespace().rev().nth(2).map(str::to_owned);
    let column: Vec<_> = stdout.lines().skip(1).map(told).collect();
    assert_eq!(column, [Some("-".to_owned()), Some("FAILED".to_owned())], "{stdout}");
    let (_, stdout, _) = outcome(&["dead", "list", "--json", "--admin", &address]);
    let flags: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["told_failed"].clone()).collect();
    assert_eq!(flags, [Value::Null, Value::Bool(true)]);
    let (code, stdout, _) = outcome_with_token(&["dead", "retry", "2", "--admin", &address]);
    let said = "2/0 retried; its sender asked and was told that it failed, and is told nothing more\n";
    assert_eq!((code, stdout.as_str()), (0, said));
}
