//! `duragram sink`, the real program against a real admin interface, and against a whole server.

use serde_json::Value;

use crate::cli::dead::outcome_with_token;
use crate::cli::support::{FakeServer, duragram, outcome, text};
use crate::common::server::{Home, Server};
use crate::common::wait_for;
use crate::common::wire::Wire;

const CONFIG: &str = "checkpoint_interval = \"20ms\"\nretain_bytes = 0\n";
/// A sink that is away for good.
const AWAY: &str = "file:/dev/full";

#[test]
fn the_list_shows_a_line_for_each_sink_and_below_one_that_is_away_why() {
    let server = FakeServer::new();
    (0..3).for_each(|_| server.commit(b"x"));
    let admin = server.admin(None);
    let address = admin.address().to_string();
    let (code, stdout, stderr) = outcome(&["sink", "list", "--admin", &address]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", "duragram: there are no sinks\n"));
    server.add_sink("stdout", 1, 3, None);
    server.add_sink("file:/var/a&b", 2, 1, Some("no\x1bspace"));
    server.put_dead_of(2, 0);
    let (code, stdout, _) = outcome(&["sink", "list", "--admin", &address]);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!((code, lines.len()), (0, 5), "{stdout}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[0]), ["NAME", "STATE", "LAG", "HELD", "OLDEST", "DEAD", "LOST"]);
    assert_eq!(words(lines[1]), ["stdout", "up", "0", "3.0", "MiB", "-", "0", "0"]);
    let second = words(lines[2]);
    assert_eq!(second[..5], ["file:/var/a&b", "down", "2", "3.0", "MiB"], "{stdout}");
    assert_eq!(second[second.len() - 3..], ["d", "1", "0"], "what came in 2023 is days old: {stdout}");
    assert_eq!(lines[3], "  since 2026-01-02T03:04:05.000000Z: no space");
    assert!(lines[4].contains("new data is refused"), "{stdout}");

    let (code, stdout, _) = outcome(&["sink", "list", "--json", "--admin", &address]);
    let all: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, all["sinks"][0]["type"].as_str()), (0, Some("stdout")));
    assert_eq!(all["sinks"][1]["backlog"]["when_full"], "block");
}

#[test]
fn what_is_told_to_a_sink_is_done_and_reported() {
    let server = FakeServer::new();
    (0..3).for_each(|_| server.commit(b"x"));
    server.add_sink("file:/var/a&b", 2, 1, None);
    server.put_dead_of(2, 0);
    let admin = server.admin(None);
    let address = admin.address().to_string();
    let tell = |args: &[&str]| outcome_with_token(&[&["sink"], args, &["--admin", &address]].concat());
    for (args, told) in [
        (&["pause", "file:/var/a&b"][..], "file:/var/a&b is paused until `duragram sink resume`\n"),
        (&["resume", "file:/var/a&b"], "file:/var/a&b goes on\n"),
        (&["seek", "file:/var/a&b", "oldest"], "file:/var/a&b goes on at entry 0 (kept are 0 up to 3)\n"),
        (&["seek", "file:/var/a&b", "99"], "file:/var/a&b goes on at entry 3, the journal's end (99 is beyond it)\n"),
        (&["remove", "file:/var/a&b"], "file:/var/a&b is removed; 1 of its dead letters are discarded\n"),
    ] {
        let (code, stdout, stderr) = tell(args);
        assert_eq!((code, stdout.as_str()), (0, told), "{args:?}: {stderr}");
    }
    assert_eq!(server.dead_count(), 0);
    let (code, stdout, stderr) = tell(&["resume", "file:/var/a&b"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (1, "", "duragram: there is no sink file:/var/a&b\n"));
}

#[test]
fn without_the_token_or_a_server_nothing_is_told_and_nonsense_is_a_usage_error() {
    let server = FakeServer::new();
    server.add_sink("a", 2, 0, None);
    let admin = server.admin(None);
    let address = admin.address().to_string();
    for args in [&["pause", "a"][..], &["resume", "a"], &["seek", "a", "now"], &["remove", "a", "--yes"]] {
        let (code, stdout, stderr) = outcome(&[&["sink"], args, &["--admin", &address]].concat());
        assert_eq!(
            (code, stdout.as_str(), stderr.contains("needs the admin token")),
            (1, "", true),
            "{args:?}: {stderr}"
        );
    }
    drop(admin);
    let (code, _, stderr) = outcome(&["sink", "pause", "a", "--admin", &address]);
    assert_eq!((code, stderr.contains("is the server running")), (1, true), "{stderr}");
    for args in [&["sink"][..], &["sink", "pause"], &["sink", "seek", "a"], &["sink", "seek", "a", "then"]] {
        assert_eq!(outcome(args).0, 2, "{args:?}");
    }
}

/// A whole server with a file, and a sink that is away.
struct Whole {
    home: Home,
    server: Server,
}

impl Whole {
    fn start(home: Home, sinks: &[&str]) -> Self {
        let flags: Vec<&str> = sinks.iter().flat_map(|sink| ["--sink", sink]).collect();
        let server = home.serve_with(&flags);
        Self { home, server }
    }

    /// Killed, and started again with these sinks beside the file.
    fn again(self, sinks: &[&str]) -> Self {
        self.server.kill();
        Self::start(self.home, sinks)
    }

    fn file(&self) -> String {
        format!("file:{}", self.home.out().display())
    }

    fn tell(&self, args: &[&str]) -> (i32, String, String) {
        let address = self.server.admin.to_string();
        let mut command = duragram(&[&["sink"], args, &["--admin", &address]].concat());
        let output = command.env("DURAGRAM_DATA", self.home.data()).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn told(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.tell(args);
        assert_eq!(code, 0, "{args:?}: {stderr}");
        stdout
    }

    fn sinks(&self) -> Vec<Value> {
        let all: Value = serde_json::from_str(&self.told(&["list", "--json"])).unwrap();
        all["sinks"].as_array().unwrap().clone()
    }

    fn sink(&self, name: &str) -> Value {
        self.sinks().into_iter().find(|sink| sink["name"] == name).unwrap_or_else(|| panic!("no sink {name}"))
    }

    fn send(&self, client: u64, seqs: std::ops::RangeInclusive<u64>) {
        let wire = Wire::new(&self.server, client);
        for seq in seqs {
            wire.ask_ack(&wire.data(seq, format!("record {seq}").as_bytes()));
        }
    }

    fn offsets(&self) -> Vec<u64> {
        self.home.lines().iter().map(|line| line.offset).collect()
    }

    /// Lines are visible a moment before their sync: what is deleted in that moment is written again.
    fn wait_settled(&self) {
        let file = self.file();
        wait_for("the file's sync", || (self.sink(&file)["lag"] == 0).then_some(()));
    }

    fn wait_offsets(&self, expected: impl Iterator<Item = u64>) {
        let expected: Vec<u64> = expected.collect();
        wait_for(&format!("entries {expected:?}"), || (self.offsets() == expected).then_some(()));
    }
}

#[test]
fn an_operator_sees_the_sink_that_is_away_and_forgets_it_and_no_other_notices() {
    let whole = Whole::start(Home::with_config(CONFIG), &[AWAY]);
    whole.send(1, 1..=10);
    whole.wait_offsets(0..10);
    let away = wait_for("the outage", || Some(whole.sink(AWAY)).filter(|sink| sink["state"] == "down"));
    assert!(away["reason"].as_str().unwrap().contains("/dev/full") && away["since"].is_string(), "{away}");
    assert_eq!((&away["lag"], &away["promise"]), (&10.into(), &"at least once (it is no regular file)".into()));
    assert!(away["oldest_seconds"].as_u64().unwrap() < 3600, "{away}");
    whole.wait_settled();
    assert_eq!(whole.sink(&whole.file())["state"], "up");
    assert!(whole.told(&["list"]).contains("/dev/full: "), "{}", whole.told(&["list"]));
    assert!(whole.server.get("/readyz").contains("sink file:/dev/full: "));

    whole.told(&["remove", AWAY]);
    assert_eq!(whole.sinks().len(), 1);
    assert_eq!(whole.server.get("/readyz"), r#"{"ready":true,"reasons":[]}"#);
    let is_of_it = |line: &&str| line.contains("/dev/full") && !line.contains("_total{");
    let metrics = whole.server.get("/metrics");
    assert_eq!(metrics.lines().find(is_of_it), None, "an alert on it would not end");
    let (code, _, stderr) = whole.tell(&["remove", AWAY]);
    assert_eq!((code, stderr), (1, format!("duragram: there is no sink \"{AWAY}\"; there are: {}\n", whole.file())));

    // What comes under the name again is a new sink.
    let whole = whole.again(&[AWAY]);
    whole.send(2, 1..=1);
    whole.wait_offsets(0..11);
    assert_ne!(whole.sink(AWAY)["id"], away["id"]);

    // Without it in the configuration it keeps its place, and does nothing that is asked of it.
    let whole = whole.again(&[]);
    assert_eq!(whole.sink(AWAY)["state"], "not configured");
    let (code, _, stderr) = whole.tell(&["pause", AWAY]);
    assert_eq!((code, stderr.contains("is not configured")), (1, true), "{stderr}");
    assert!(whole.server.get("/readyz").contains("not configured any more"));
    whole.told(&["remove", AWAY, "--yes"]);
    let whole = whole.again(&[]);
    assert_eq!(whole.sinks().len(), 1, "it is forgotten for good");
}

#[test]
fn a_sink_stays_paused_when_the_server_is_killed_and_goes_on_where_it_was() {
    let whole = Whole::start(Home::with_config(CONFIG), &[AWAY]);
    let file = whole.file();
    whole.send(1, 1..=10);
    whole.wait_offsets(0..10);
    whole.told(&["pause", &file]);
    whole.send(2, 1..=5);
    let whole = whole.again(&[AWAY]);
    whole.send(3, 1..=5);
    let paused = whole.sink(&file);
    assert_eq!((&paused["state"], &paused["lag"], whole.offsets().len()), (&"paused".into(), &10.into(), 10));
    assert!(whole.server.get("/readyz").contains("paused at entry 10"));
    whole.told(&["resume", &file]);
    whole.wait_offsets(0..20);
    let whole = whole.again(&[AWAY]);
    whole.send(4, 1..=5);
    whole.wait_offsets(0..25);
    assert_eq!(whole.sink(&file)["state"], "up");
}

/// A file knows what is in it: its lines come again where they are gone.
#[test]
fn a_sink_that_is_sent_back_has_its_records_again_and_one_that_is_sent_on_passes_over_some() {
    let whole = Whole::start(Home::with_config(CONFIG), &[AWAY]);
    let file = whole.file();
    whole.send(1, 1..=10);
    whole.wait_offsets(0..10);
    whole.wait_settled();
    std::fs::remove_file(whole.home.out()).unwrap();
    assert_eq!(whole.told(&["seek", &file, "4"]), format!("{file} goes on at entry 4 (kept are 0 up to 10)\n"));
    whole.wait_offsets(4..10);
    whole.wait_settled();
    whole.told(&["seek", &file, "oldest"]);
    whole.send(2, 1..=1);
    whole.wait_offsets((4..10).chain(0..4).chain(10..11));
    whole.wait_settled();
    whole.told(&["pause", &file]);
    whole.send(3, 1..=4);
    let to_the_end = format!("{file} goes on at entry 15, the journal's end (1000 is beyond it)\n");
    assert_eq!(whole.told(&["seek", &file, "1000"]), to_the_end);
    whole.told(&["resume", &file]);
    whole.send(4, 1..=2);
    let expected = || (4..10).chain(0..4).chain(10..11);
    whole.wait_offsets(expected().chain(15..17));
    // The place that it was sent to is what a crash finds.
    let whole = whole.again(&[AWAY]);
    whole.send(5, 1..=2);
    whole.wait_offsets(expected().chain(15..19));
    let data = whole.home.data();
    let data = data.to_str().unwrap();
    let (code, _, stderr) = outcome(&["sink", "list", "--data", data]);
    assert_eq!((code, stderr.contains("in use")), (1, true), "{stderr}");
    whole.told(&["pause", AWAY]);
    assert!(whole.server.terminate().success());
    let (code, stdout, stderr) = outcome(&["sink", "list", "--data", data]);
    assert_eq!(code, 0, "{stderr}");
    let line = |name: &str| {
        let line = stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{stdout}"));
        line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line(AWAY)[..2], ["paused", "19"]);
    assert_eq!(line(&file)[..3], ["no", "server", "0"]);
}
