use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// A file's text, variables and flags, put together as the command line does it.
pub(super) struct Case {
    dir: TempDir,
    sources: Sources,
}

impl Case {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), sources: Sources::default() }
    }

    pub(super) fn file(mut self, text: &str) -> Self {
        let path = self.dir.path().join("d.toml");
        fs::write(&path, text).unwrap();
        self.sources.file = Some(path);
        self
    }

    pub(super) fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    pub(super) fn flag(mut self, key: &'static str, values: &[&str]) -> Self {
        self.sources.flags.push((key, values.iter().map(|v| (*v).to_owned()).collect()));
        self
    }

    pub(super) fn config(&self) -> Config {
        self.sources.load().unwrap_or_else(|error| panic!("{error}")).config
    }

    pub(super) fn places(&self) -> std::collections::BTreeMap<&'static str, String> {
        self.sources.load().unwrap().places
    }

    pub(super) fn error(&self) -> ConfigError {
        self.sources.load().expect_err("this configuration is wrong")
    }

    /// The problems, one a line, with the file called `d.toml`.
    pub(super) fn problems(&self) -> String {
        let error = self.sources.load().expect_err("this configuration is wrong");
        error.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }
}

#[track_caller]
fn wrong(file: &str, expected: &str) {
    let problems = Case::new().file(file).problems();
    assert!(problems.contains(expected), "expected {expected:?} in:\n{problems}");
}

#[test]
fn without_any_source_the_defaults_hold_and_are_valid() {
    assert_eq!(Case::new().config(), Config::default());
}

#[test]
fn a_later_layer_wins_key_by_key() {
    let case = Case::new()
        .file("window = 1\nlanes = 1\nreceivers = 1\n[retry]\nattempts_max = 3\nfirst_delay = \"1s\"\n")
        .variable("DURAGRAM_LANES", "2")
        .variable("DURAGRAM_RECEIVERS", "2")
        .variable("DURAGRAM_RETRY_FIRST_DELAY", "2s")
        .flag("receivers", &["3"]);
    let config = case.config();
    assert_eq!((config.window, config.lanes, config.receivers), (1, 2, 3));
    assert_eq!((config.retry.attempts_max, config.retry.first_delay), (3, Duration::from_secs(2)));
}

#[test]
fn each_value_is_told_with_its_place() {
    let case = Case::new()
        .file("window = 1\n\n[retry]\nattempts_max = 3\n")
        .variable("DURAGRAM_LANES", "2")
        .flag("datagram_bytes_max", &["1200"]);
    let places = case.sources.load().unwrap().places;
    let path = case.sources.file.as_ref().unwrap().display();
    assert_eq!(places["window"], format!("{path}:1"));
    assert_eq!(places["retry.attempts_max"], format!("{path}:4"));
    assert_eq!(places["lanes"], "DURAGRAM_LANES");
    assert_eq!(places["datagram_bytes_max"], "--datagram-bytes-max");
    assert_eq!(places.len(), 4);
}

#[test]
fn every_key_can_be_set_in_each_layer_and_is_shown_as_toml_that_reads_back() {
    let config = Config {
        listen: vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
        admin: None,
        admin_token_file: Some(PathBuf::from("/etc/duragram/token")),
        data: PathBuf::from("/var/lib/dura \"gram\""),
        sink: ["null", "file:/tmp/x", "postgres://u@h1,h2/d?table=t"]
            .iter()
            .map(|sink| sink.parse().unwrap())
            .collect(),
        answering_sink: Some("file:/tmp/x".into()),
        keys: Some(PathBuf::from("./off")),
        allow_plain: true,
        datagram_bytes_max: 1201,
        window: 77,
        sessions_max: 5,
        session_ttl: Duration::from_secs(3600),
        asks_max: 9,
        answer_bytes_max: 77,
        answer_ttl: Duration::from_secs(60),
        plain_asks: true,
        channels: [1..=1, 5..=9].into_iter().collect(),
        lanes: 3,
        receivers: 2,
        threading: Threading::Pipeline,
        receive_buffer_bytes: 1 << 20,
        commit_bytes_max: 100_001,
        checkpoint_bytes: 1 << 30,
        checkpoint_interval: Duration::from_millis(1500),
        retain_bytes: 0,
        reserve_bytes: 400 << 20,
        retry: Retry { attempts_max: 2, first_delay: Duration::from_millis(5), longest_delay: Duration::from_secs(61) },
        dead_letters_max: 7,
        drain_timeout: Duration::from_secs(3),
        log: Log { format: LogFormat::Json, level: "warn,duragram=debug".into() },
        accept_loss: false,
    };
    let toml: String = KEYS.iter().map(|key| format!("{} = {}\n", key.name, key.show_toml(&config))).collect();
    let from_file = Case::new().file(&toml);
    assert_eq!(from_file.config(), config, "{toml}");
    assert_eq!(from_file.sources.load().unwrap().places.len(), KEYS.len());

    let from_variables =
        KEYS.iter().fold(Case::new(), |case, key| case.variable(&key.variable(), &key.show_plain(&config)));
    assert_eq!(from_variables.config(), config);

    let from_flags = KEYS.iter().fold(Case::new(), |case, key| {
        let text = key.show_plain(&config);
        let values = match key.name {
            "sink" => sinks::split(&text),
            _ if key.list => text.split(',').collect(),
            _ => vec![text.as_str()],
        };
        case.flag(key.name, &values)
    });
    assert_eq!(from_flags.config(), config);
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let problems = Case::new()
        .file("windw = 1\nsessions_max = 0\n[retry]\nattempts = 3\nfirst_delay = \"soon\"\n")
        .variable("DURAGRAM_LANES", "many")
        .flag("commit_bytes_max", &["1"])
        .problems();
    let mut told: Vec<&str> = problems.lines().collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "--commit-bytes-max: commit_bytes_max: 1 bytes cannot hold one datagram of datagram_bytes_max = 1472",
            "--commit-bytes-max: commit_bytes_max: 1 is out of range: 65536 to 134217728 bytes",
            "DURAGRAM_LANES: lanes: \"many\" is no whole number",
            "d.toml:1: windw: unknown key; did you mean window?",
            "d.toml:2: sessions_max: 0 is out of range: 1 to 100000000 sessions",
            "d.toml:4: retry.attempts: unknown key; did you mean retry.attempts_max?",
            "d.toml:5: retry.first_delay: \"soon\" is no duration; write a number with a unit, such as \"100ms\", \
             \"30s\" or \"7d\"",
        ]
    );
}

#[test]
fn what_is_said_of_a_text_that_is_no_toml_does_not_repeat_it() {
    let problems = Case::new().file("window = 1\n[[sink]]\npassword = \"hunter2\n").problems();
    assert!(problems.contains("line 3") && !problems.contains("hunter2"), "{problems}");
}

#[test]
fn a_key_whose_dot_stands_within_quotes_is_not_ignored() {
    wrong("\"retry.attempts_max\" = 3", "d.toml:1: retry.attempts_max: unknown key");
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let mut case = Case::new();
    case.sources.file = Some(case.dir.path().join("none.toml"));
    assert!(case.problems().starts_with("none.toml: cannot be read: "), "{}", case.problems());
    wrong("window = 1\nlanes = = 2\n", "line 2");
    assert!(Case::new().file("=").problems().starts_with("d.toml: "));
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    wrong("listen = \"localhost:7117\"", "d.toml:1: listen: \"localhost:7117\" is no address");
    wrong("listen = [\"127.0.0.1:1\", 5]", "listen: \"5\" is no address");
    wrong("listen = []", "listen: 0 is out of range: 1 to 16 addresses");
    wrong("admin = \"no\"", "or \"off\"");
    wrong("allow_plain = \"yes\"", "allow_plain: \"yes\" is neither true nor false");
    wrong("window = 70000", "window: 70000 is too large");
    wrong("window = 0", "window: 0 is out of range: 1 to 65535 seqs");
    wrong("window = -1", "window: \"-1\" is no whole number");
    wrong("window = 1.5", "window: \"1.5\" is no whole number");
    wrong("window = [1]", "window: takes a single value");
    wrong("sink = { a = 1 }", "sink: is a list: write [[sink]], with two brackets, and its keys below");
    wrong("retry = 3", "d.toml:1: retry: is a table; write [retry] and its keys below");
    wrong("commit_bytes_max = \"4 Mega\"", "commit_bytes_max: \"4 Mega\" is no size");
    wrong("session_ttl = 7", "session_ttl: \"7\" is no duration");
    wrong("channels = [\"9-\"]", "channels: \"9-\" is no channel");
    wrong("channels = [65536]", "channels: \"65536\" is no channel");
    wrong("threading = \"two\"", "threading: \"two\" is none of");
    wrong("[log]\nformat = \"xml\"", "d.toml:2: log.format: \"xml\" is neither");
    wrong("[log]\nlevel = \"duragram=loud\"", "d.toml:2: log.level: \"loud\" is no level; write error");
    wrong("[log]\nlevel = \"notice\"", "d.toml:2: log.level: \"notice\" is no level; write error");
    wrong("[log]\nlevel = \"\"", "d.toml:2: log.level: \"\" is no level; write error");
    wrong("listen = \"[fe80::1%none7]:1\"", "listen: this machine has no network interface \"none7\"");
    wrong("admin = \"[fe80::1%none7]:1\"", "admin: this machine has no network interface \"none7\"");
}

#[test]
fn values_out_of_bounds_are_refused() {
    wrong("datagram_bytes_max = 31", "31 is out of range: 32 to 65507 bytes");
    wrong("datagram_bytes_max = 65508", "65508 is out of range");
    wrong("session_ttl = \"900ms\"", "session_ttl: 900ms is out of range: ");
    wrong("lanes = 0", "lanes: 0 is out of range: 1 to 256 threads");
    wrong("receivers = 65", "receivers: 65 is out of range");
    wrong("receive_buffer_bytes = 1", "receive_buffer_bytes: 1 is out of range");
    wrong("checkpoint_bytes = 0", "checkpoint_bytes: 0 is out of range");
    wrong("checkpoint_interval = \"1ms\"", "checkpoint_interval: 1ms is out of range: 10ms to 1h");
    wrong("reserve_bytes = 0", "reserve_bytes: 0 is out of range");
    wrong("drain_timeout = \"2h\"", "drain_timeout: 2h is out of range: 0s to 1h");
    wrong("retry.attempts_max = 0", "d.toml:1: retry.attempts_max: 0 is out of range");
}

#[test]
fn contradictions_are_refused() {
    wrong(
        "commit_bytes_max = 65536\ndatagram_bytes_max = 65507\n[retry]\nfirst_delay = \"2m\"",
        "d.toml:4: retry.first",
    );
    wrong("channels = [\"9-5\"]", "channels: 9-5 is empty");
    wrong("listen = [\"127.0.0.1:7\", \"127.0.0.1:7\"]", "127.0.0.1:7 and 127.0.0.1:7 are the same port");
    wrong(
        "listen = [\"127.0.0.1:7\", \"[::ffff:127.0.0.1]:7\"]",
        "127.0.0.1:7 and [::ffff:127.0.0.1]:7 are the same port",
    );
    wrong(
        "allow_plain = true\nlisten = [\"0.0.0.0:7\", \"127.0.0.1:7\"]",
        "0.0.0.0:7 and 127.0.0.1:7 are the same port",
    );
    let case = Case::new();
    let file = case.dir.path().join("a-file");
    fs::write(&file, "").unwrap();
    let problems = case.flag("data", &[file.to_str().unwrap()]).problems();
    assert_eq!(problems, "--data: data: a-file is not a directory");
}

#[test]
fn several_sockets_may_ask_for_free_ports_and_admin_may_share_the_number_with_udp() {
    let config = Case::new().file("listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nadmin = \"127.0.0.1:7117\"").config();
    assert_eq!(config.listen.len(), 2);
}

#[test]
fn an_address_that_others_reach_needs_allow_plain_and_the_refusal_says_so() {
    for address in ["0.0.0.0:7117", "192.0.2.1:7117", "[::]:7117"] {
        let case = Case::new().flag("listen", &[address]);
        let problems = case.problems();
        assert!(problems.starts_with(&format!("--listen: listen: {address} can be reached")), "{problems}");
        assert!(problems.contains("allow_plain = true"), "{problems}");
        assert_eq!(case.variable("DURAGRAM_ALLOW_PLAIN", "true").config().listen[0].to_string(), address);
    }
    for address in ["127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        Case::new().flag("listen", &[address]).config();
    }
}

#[test]
fn a_server_with_keys_may_listen_where_others_reach_it() {
    let case = Case::new().flag("listen", &["0.0.0.0:7117"]).flag("keys", &["/etc/duragram/keys"]);
    assert!(!case.config().allow_plain);
    let problems = case.flag("keys", &["off"]).problems();
    assert!(problems.contains("keys = FILE"), "{problems}");
}

#[test]
fn the_admin_interface_is_where_others_reach_it_only_with_a_token_of_the_operators() {
    let case = Case::new().flag("admin", &["0.0.0.0:7118"]).flag("allow_plain", &["true"]);
    assert!(case.problems().contains("admin_token_file"), "{}", case.problems());
    let config = case.flag("admin_token_file", &["/etc/duragram/token"]).config();
    assert_eq!(config.admin, Some("0.0.0.0:7118".parse().unwrap()));
    assert_eq!(Case::new().flag("admin", &["off"]).config().admin, None);
}

#[test]
fn loss_is_accepted_by_a_flag_alone() {
    wrong("accept_loss = true", "d.toml:1: accept_loss: can only be given as the flag --accept-loss");
    let problems = Case::new().variable("DURAGRAM_ACCEPT_LOSS", "true").problems();
    assert!(problems.starts_with("DURAGRAM_ACCEPT_LOSS: accept_loss: can only be given as the flag"), "{problems}");
}

#[test]
fn variables_that_are_no_settings_change_nothing_and_are_told_in_one_line() {
    let case = Case::new()
        .variable("DURAGRAM_PORT", "tcp://10.0.0.1:7117")
        .variable("DURAGRAM_SERVICE_HOST", "10.0.0.1")
        .variable("DURAGRAM_PORT_7117_UDP_ADDR", "10.0.0.1")
        .variable("DURAGRAM_CONFIG", "x.toml")
        .variable("DURAGRAM_ADMIN_PORT", "tcp://10.0.0.1:7118")
        .variable("DURAGRAM_VERSION", "1.2")
        .variable("DURAGRAM_WINDOWS", "4")
        .variable("DURAGRAMMAR", "x");
    assert_eq!(case.config(), Config::default());
    assert_eq!(
        case.sources.strangers().unwrap(),
        "variables that are no settings of duragram are ignored: DURAGRAM_ADMIN_PORT, DURAGRAM_PORT, \
         DURAGRAM_PORT_7117_UDP_ADDR, DURAGRAM_SERVICE_HOST, DURAGRAM_VERSION, DURAGRAM_WINDOWS (did you mean \
         DURAGRAM_WINDOW?)"
    );
}

#[test]
fn an_empty_variable_of_any_key_is_as_if_it_were_not_there() {
    for empty in ["", "  "] {
        let case = KEYS.iter().fold(Case::new().file("channels = [3]\n[log]\nlevel = \"warn\"\n"), |case, key| {
            case.variable(&key.variable(), empty)
        });
        let loaded = case.variable("DURAGRAM_ACCEPT_LOSS", empty).sources.load().unwrap();
        assert!(!loaded.config.channels.allows(4), "what the file restricts stays restricted");
        assert_eq!(loaded.config.log.level, "warn");
        assert_eq!(loaded.places.len(), 2, "{:?}", loaded.places);
    }
    let problems = Case::new().variable("DURAGRAM_CHANNELS", ",").problems();
    assert_eq!(problems, "DURAGRAM_CHANNELS: channels: names no value between its commas");
}

#[test]
fn an_empty_flag_is_no_value() {
    for (key, complaint) in [
        ("channels", "is no channel"),
        ("log.level", "is no level"),
        ("listen", "is no address"),
        ("admin", "is no address"),
        ("window", "is no whole number"),
        ("data", "must name a directory"),
        ("keys", "must name a file"),
    ] {
        let problems = Case::new().flag(key, &[""]).problems();
        assert!(problems.contains(complaint), "{key}: {problems}");
    }
}

#[test]
fn a_level_is_understood_in_every_layer_as_tracing_calls_it() {
    let level = |case: Case| case.config().log.level;
    assert_eq!(level(Case::new().file("[log]\nlevel = \"Warning\"")), "warn");
    assert_eq!(level(Case::new().variable("DURAGRAM_LOG_LEVEL", "INFORMATION")), "info");
    assert_eq!(level(Case::new().flag("log.level", &["info,duragram=DEBUG"])), "info,duragram=debug");
}

#[test]
fn one_link_local_address_on_two_interfaces_is_two_addresses() {
    let listen =
        |case: Case, other: &str| case.flag("listen", &["[fe80::1%1]:7", other]).flag("allow_plain", &["true"]);
    assert_eq!(listen(Case::new(), "[fe80::1%2]:7").config().listen.len(), 2);
    assert!(listen(Case::new(), "[fe80::1%1]:7").problems().contains("are the same port"));
}

#[test]
fn channels_without_a_list_are_all_allowed() {
    assert!(Channels::ALL.allows(0) && Channels::ALL.allows(u16::MAX));
    let some = Case::new().variable("DURAGRAM_CHANNELS", "3, 10-12").config().channels;
    let allowed: Vec<u16> = (0..20).filter(|&channel| some.allows(channel)).collect();
    assert_eq!(allowed, [3, 10, 11, 12]);
}

#[test]
fn two_problems_of_keys_with_one_name_in_different_tables_point_at_the_right_lines() {
    wrong(
        "# window = 1\n[log]\nlevel = \"info\" # a comment\n\n[retry]\n\"attempts_max\" = 0\n",
        "d.toml:6: retry.attempts_max",
    );
    wrong("window = 5\nretry = { attempts_max = 0 }\n", "d.toml:2: retry.attempts_max");
}

#[test]
fn no_answer_is_longer_than_what_a_take_may_make_room_for() {
    let bytes = |answer_bytes_max, datagram_bytes_max| {
        Config { answer_bytes_max, datagram_bytes_max, ..Config::default() }.answer_bytes()
    };
    assert_eq!((bytes(1_024, 1_472), bytes(1_024, 552), bytes(1_024, 40), bytes(0, 1_472)), (1_024, 500, 0, 0));
}
