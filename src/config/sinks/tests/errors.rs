//! What is said of sinks that are wrong: the key that was meant, where it stands, and never a secret.

use super::super::super::tests::Case;
use super::EVERY_TYPE;
use crate::config::Config;

/// One table of a type that is whole, and lines after it, of which the first is line 4 of the file at least.
fn table(kind: &str, lines: &str) -> String {
    let rest = match kind {
        "http" => "url = \"https://h/x\"\n",
        "postgres" => "url = \"postgres://u@h/d\"\ntable = \"t\"\n",
        "nats" => "url = \"nats://h\"\nsubject = \"a\"\nstream = \"S\"\n",
        "redis" => "url = \"redis://h\"\nkey = \"k\"\n",
        "mqtt" => "url = \"mqtt://h\"\ntopic = \"t\"\n",
        "file" => "path = \"/x\"\n",
        "exec" => "command = \"cat\"\n",
        _ => "",
    };
    // What is given replaces what stands there.
    let given = |line: &&str| {
        !lines.lines().any(|new| new.split_once('=').map(|(key, _)| key) == line.split_once('=').map(|(key, _)| key))
    };
    let rest: Vec<&str> = rest.lines().filter(given).collect();
    format!("[[sink]]\nname = \"a\"\ntype = \"{kind}\"\n{lines}\n{}\n", rest.join("\n"))
}

#[track_caller]
fn wrong(kind: &str, lines: &str, expected: &str) {
    let problems = Case::new().file(&table(kind, lines)).problems();
    assert!(problems.contains(expected), "expected {expected:?} in:\n{problems}");
    assert_eq!(problems.lines().count(), 1, "one thing is wrong, and told once:\n{problems}");
}

#[test]
fn a_whole_table_of_each_type_is_taken() {
    for kind in ["http", "postgres", "nats", "redis", "mqtt", "file", "exec", "stdout", "null"] {
        assert_eq!(Case::new().file(&table(kind, "")).config().sink[0].target.kind(), kind);
    }
}

#[test]
fn several_servers_of_nats_are_named_with_their_schemes_or_without() {
    for url in ["nats://h1:4222,nats://h2", "tls://h1,h2:4223"] {
        Case::new().file(&table("nats", &format!("url = \"{url}\""))).config();
    }
    wrong("nats", "url = \"nats://h1,nats://u:p@h2\"", "a password must not stand in a URL");
}

#[test]
fn every_problem_of_every_sink_is_told_at_once_with_its_line() {
    let problems = Case::new()
        .file(
            "[[sink]]\nname = \"a\"\ntype = \"redis\"\nurl = \"redis://h\"\ntimeout = \"1ms\"\n\n\
             [[sink]]\nname = \"b\"\ntype = \"postgres\"\ntabel = \"t\"\nurl = \"mysql://h/d\"\nbatch.records_max = 0\n\n\
             [[sink]]\ntype = \"console\"\n[sink.batch]\nbytes_max = \"much\"\n",
        )
        .problems();
    let mut told: Vec<&str> = problems.lines().collect();
    told.sort_unstable();
    let expected = [
        "d.toml:10: sink[b].tabel: unknown key; did you mean table?",
        "d.toml:11: sink[b].url: begins with postgres:// or postgresql://: write one such as postgres://ingest@127.0.0.1:5432/app",
        "d.toml:11: sink[b].url: lacks its user: write one such as postgres://ingest@127.0.0.1:5432/app",
        "d.toml:12: sink[b].batch.records_max: 0 is out of range: 1 to 100000 records",
        "d.toml:14: sink[#3].name: must be given, such as name = \"events\": it stands for the sink's place in the journal, forever",
        "d.toml:15: sink[#3].type: there is no type \"console\"; here it is \"stdout\"",
        "d.toml:17: sink[#3].batch.bytes_max: \"much\" is no size; write bytes, or a number with a unit, such as 4194304, \"4 MiB\" or \"4 MB\"",
        "d.toml:1: sink[a].key: must be given, such as key = \"records\"",
        "d.toml:5: sink[a].timeout: 1ms is out of range: 100ms to 10m",
        "d.toml:7: sink[b].table: must be given, such as table = \"records\"",
    ];
    assert_eq!(told, expected, "{problems}");
}

#[test]
fn keys_of_other_programs_are_told_by_the_name_they_have_here() {
    for (kind, lines, expected) in [
        ("http", "inputs = [\"x\"]", "inputs: unknown key, known from Vector; here every sink gets all records"),
        ("http", "uri = \"x\"", "uri: unknown key; Vector calls it so, here it is url"),
        ("http", "endpoint = \"x\"", "endpoint: unknown key; Vector calls it so, here it is url"),
        ("http", "encoding.codec = \"json\"", "here a payload is written as it came"),
        ("http", "auth = { user = \"u\" }", "auth.user: unknown key; Vector calls it so, here it is user"),
        (
            "redis",
            "batch.max_events = 5",
            "d.toml:4: sink[a].batch.max_events: unknown key; Vector calls it so, here it is batch.records_max",
        ),
        ("redis", "batch.max_bytes = 5", "here it is batch.bytes_max"),
        ("redis", "batch.timeout_secs = 5", "here it is batch.delay_max (with a unit"),
        ("redis", "buffer.max_size = 5", "here it is backlog.bytes_max"),
        (
            "redis",
            "buffer.when_full = \"drop_newest\"",
            "here it is backlog.when_full = \"block\", \"drop_oldest\" or \"detach\"",
        ),
        ("redis", "buffer.type = \"disk\"", "here the journal is the only buffer"),
        ("redis", "acknowledgements.enabled = true", "here clients are always acked when their data is on disk"),
        ("http", "compression = \"gzip\"", "here it is gzip = true"),
        ("http", "request.timeout_secs = 5", "here it is timeout"),
        ("http", "request.concurrency = 5", "here it is in_flight_max"),
        ("http", "healthcheck.enabled = false", "/readyz tells of one that is away"),
        ("http", "tls.crt_file = \"x\"", "here it is tls.cert_file"),
        ("http", "tls.verify_certificate = false", "here certificates are always verified"),
        ("postgres", "database = \"x\"", "here it is part of the URL"),
        ("redis", "stream = \"x\"", "is no key of type redis: the stream is named by key"),
        ("mqtt", "username = \"x\"", "Telegraf calls it so, here it is user"),
        ("mqtt", "servers = [\"x\"]", "Telegraf calls it so, here it is url"),
        ("http", "retry_limit = 3", "Fluent Bit calls it so, here it is retry.attempts_max"),
        ("http", "auth.strategy = \"basic\"", "here it is user and password, or a token"),
        ("http", "Retry_Limit = 3", "Retry_Limit: unknown key; Fluent Bit calls it so, here it is retry.attempts_max"),
        ("http", "dsn = \"x\"", "others call it so, here it is url"),
    ] {
        wrong(kind, lines, expected);
    }
}

#[test]
fn a_key_of_another_type_says_which_have_it_and_a_misspelt_one_which_was_meant() {
    for (kind, lines, expected) in [
        ("redis", "table = \"t\"", "sink[a].table: is no key of type redis: type postgres has it"),
        ("file", "url = \"x\"", "sink[a].url: is no key of type file: types http, postgres, nats, redis, mqtt have it"),
        ("postgres", "user = \"u\"", "the user stands in the URL"),
        ("http", "token = { env = \"X\" }", "it is called bearer here"),
        ("stdout", "tls.ca_file = \"x\"", "types http, postgres, nats, redis, mqtt have it"),
        ("redis", "chanels = [1]", "d.toml:4: sink[a].chanels: unknown key; did you mean channels?"),
        ("redis", "batch.record_max = 1", "unknown key; did you mean batch.records_max?"),
        (
            "redis",
            "batch = 5",
            "sink[a].batch: is a table: write its keys with its name before them, such as batch.records_max",
        ),
        ("redis", "\"batch.records_max\" = 5", "unknown key; write it without quotes"),
        ("null", "zzzzzzzzzz = 5", "unknown key; type null has name, type, channels, start"),
        ("redis", "zzzzzzzzzz = { a = 5 }", "sink[a].zzzzzzzzzz: unknown key"),
    ] {
        wrong(kind, lines, expected);
    }
}

#[test]
fn a_type_that_is_not_there_is_told_by_the_one_that_is_meant() {
    for (kind, expected) in [
        ("postgresql", "there is no type \"postgresql\"; here it is \"postgres\""),
        ("blackhole", "here it is \"null\""),
        ("redsi", "did you mean \"redis\"?"),
        (
            "elasticsearch",
            "there are stdout, file, null, http, exec, postgres, nats, redis, mqtt. What else you need may be an exec",
        ),
    ] {
        wrong(kind, "", expected);
    }
    let problems = Case::new().file("[[sink]]\nname = \"a\"\n").problems();
    assert_eq!(
        problems,
        "d.toml:1: sink[a].type: must be given, one of stdout, file, null, http, exec, postgres, nats, redis, mqtt"
    );
}

#[test]
fn values_out_of_bounds_and_of_the_wrong_kind_are_refused() {
    for (kind, lines, expected) in [
        ("redis", "timeout = \"11m\"", "timeout: 11m is out of range: 100ms to 10m"),
        ("redis", "batch.records_max = 100001", "100001 is out of range: 1 to 100000 records"),
        ("redis", "batch.bytes_max = 1000", "1000 is out of range: 1024 to 16777216 bytes"),
        ("redis", "batch.delay_max = \"61s\"", "out of range: 0s to 1m"),
        (
            "redis",
            "retry.attempts_max = 0",
            "d.toml:4: sink[a].retry.attempts_max: 0 is out of range: 1 to 65535 attempts",
        ),
        ("redis", "backlog.bytes_max = \"1 MiB\"", "out of range: 67108864"),
        ("redis", "backlog.when_full = \"overflow\"", "\"overflow\" is none of \"block\", \"drop_oldest\", \"detach\""),
        ("redis", "start = \"yesterday\"", "\"yesterday\" is neither \"oldest\" nor \"now\" nor an offset"),
        ("redis", "channels = [\"9-5\"]", "channels: 9-5 is empty"),
        ("redis", "channels = [70000]", "channels: \"70000\" is no channel"),
        ("redis", "entries_max = 0", "0 is out of range: 1 to"),
        ("http", "in_flight_max = 65", "65 is out of range: 1 to 64 requests"),
        ("http", "mode = \"stream\"", "\"stream\" is none of \"record\", \"batch\""),
        ("http", "gzip = \"yes\"", "\"yes\" is neither true nor false"),
        ("http", "headers = \"x\"", "is a table: write headers = { Name = \"value\" }"),
        ("http", "headers = { \"A B\" = \"x\" }", "\"A B\" is no name of a header"),
        ("http", "headers = { Duragram-Offset = \"1\" }", "headers.Duragram-Offset: is set by the sink itself"),
        ("http", "headers = { A = \"x\\ny\" }", "headers.A: holds what no header may hold"),
        ("postgres", "table = \"a.b.c\"", "\"a.b.c\" is no table"),
        ("postgres", "table = \"a; drop\"", "is no table: write TABLE or SCHEMA.TABLE"),
        ("postgres", "payload = \"json\"", "\"json\" is none of \"bytea\", \"jsonb\""),
        ("postgres", "url = \"postgres://u@h/d?sslmode=prefer\"", "sslmode is require"),
        (
            "postgres",
            "url = \"postgres://u@h/d?conect_timeout=3\"",
            "has a parameter that is not known, \"conect_timeout\"",
        ),
        ("postgres", "url = \"postgres://u@h/d?table=x\"", "table is a key of its own here"),
        ("nats", "subject = \"a.*\"", "\"a.*\" is no subject to write to"),
        ("nats", "url = \"nats://h1,tls://h2\"", "is no URL with a host"),
        ("nats", "stream = \"a.b\"", "\"a.b\" is no name of a stream"),
        ("redis", "url = \"redis://h/x\"", "ends with the number of a database"),
        ("redis", "url = \"redis://h1,h2\"", "has several hosts"),
        ("redis", "url = \"redis\"", "is no URL with a host: write one such as redis://127.0.0.1:6379/0"),
        ("redis", "url = \"redis://u@h\"", "a user does not stand in this URL"),
        ("mqtt", "topic = \"a/#\"", "topic: must be 1 to 4096 bytes long, without + and #"),
        ("mqtt", "topic = \"a/{chan}\"", "{chan} stands for nothing: there are {client}, {epoch}"),
        ("mqtt", "url = \"mqtt://h/t\"", "the topic is a key of its own"),
        ("mqtt", "topic = \"a}/b\"", "topic: holds a } without its {"),
        ("mqtt", "topic = \"a\\tb\"", "topic: must be 1 to 4096 bytes long"),
        ("http", "headers = { Expect = \"100-continue\" }", "headers.Expect: is set by the sink itself"),
        ("mqtt", "url = \"mqtt://h?topic=t\"", "url: has parameters, which stand in the short form alone"),
        ("nats", "url = \"nats://h?subject=a\"", "url: has parameters"),
        ("redis", "url = \"redis://h/0?protocol=resp3#insecure\"", "url: has parameters"),
        (
            "postgres",
            "url = \"postgres://u@h/d?channel_binding=require\"",
            "has a parameter that is not known, \"channel_binding\": there are sslmode, options",
        ),
        ("exec", "command = \" \"", "must be a command for `sh -c`"),
        ("file", "path = \"\"", "path: must name a file"),
    ] {
        wrong(kind, lines, expected);
    }
}

#[test]
fn contradictions_are_refused() {
    for (kind, lines, expected) in [
        ("http", "tls.cert_file = \"x\"", "tls.cert_file: needs tls.key_file"),
        ("http", "tls.key_file = \"x\"", "tls.key_file: needs tls.cert_file"),
        ("http", "url = \"http://h\"\ntls.ca_file = \"x\"", "is for an encrypted connection: write https:// in url"),
        ("redis", "tls.ca_file = \"x\"", "write rediss:// in url"),
        (
            "postgres",
            "url = \"postgres://u@h/d?sslmode=disable\"\ntls.ca_file = \"x\"",
            "says sslmode=disable, and there are keys of tls",
        ),
        ("http", "mode = \"batch\"\nin_flight_max = 2", "in_flight_max: is for mode = \"record\""),
        ("http", "mode = \"batch\"\ncontent_type = \"text/plain\"", "content_type: is for mode = \"record\""),
        ("http", "user = \"u\"", "user: needs its password"),
        ("http", "password = { env = \"X\" }", "password: needs its user"),
        (
            "http",
            "bearer = { env = \"X\" }\nuser = \"u\"\npassword = { env = \"Y\" }",
            "by a token or by user and password, not by both",
        ),
        ("nats", "token = { env = \"X\" }\ncredentials = { env = \"Y\" }", "give one of them"),
        ("redis", "user = \"u\"", "user: needs its password"),
        ("mqtt", "password = { env = \"X\" }", "password: needs its user"),
    ] {
        wrong(kind, lines, expected);
    }
    let file = format!("channels = [1, 2]\n{}", table("redis", "channels = [\"3-9\"]"));
    assert!(Case::new().file(&file).problems().contains("sink[a].channels: gets nothing"));
    let file = format!("checkpoint_bytes = \"64 MiB\"\n{}", table("redis", "backlog.bytes_max = \"64 MiB\""));
    assert!(
        Case::new().file(&file).problems().contains("a sink holds that is not behind at all: give at least 136314880")
    );
}

#[test]
fn two_sinks_cannot_be_one() {
    let twice = table("null", "") + &table("null", "");
    let problems = Case::new().file(&twice).problems();
    assert!(problems.contains("sink a is given twice: a name stands for one place"), "{problems}");
    for (sinks, expected) in [
        ("\"stdout\", \"stdout\"", "sink: sink stdout is given twice"),
        (
            "\"file:x\", { name = \"a\", type = \"file\", path = \"x\" }",
            "sink[a].path: sinks file:x and a write to the same place",
        ),
        ("\"stdout\", { name = \"a\", type = \"stdout\" }", "sink[a].type: sinks stdout and a write to the same place"),
        ("\"null\", { name = \"null\", type = \"stdout\" }", "sink null is given twice"),
        ("\"redis://h?key=k\", { name = \"a\", type = \"redis\", url = \"redis://h\", key = \"k\" }", "sink[a].key"),
        (
            "\"redis://h?key=k\", { name = \"a\", type = \"redis\", url = \"redis://H:6379/0\", key = \"k\" }",
            "sink[a].key",
        ),
        (
            "\"nats://h/S?subject=a&exclusive=true\", { name = \"a\", type = \"nats\", url = \"nats://g,nats://h:4222\", subject = \"b\", \
             stream = \"S\" }",
            "sink[a].stream",
        ),
    ] {
        let problems = Case::new().file(&format!("sink = [{sinks}]")).problems();
        assert!(problems.contains(expected), "expected {expected:?} in:\n{problems}");
    }
}

#[test]
fn sinks_of_different_databases_ports_or_keys_are_two() {
    for (one, other) in [
        ("redis://h?key=k", "redis://h/1?key=k"),
        ("redis://h?key=k", "redis://h:6380?key=k"),
        ("redis://h?key=k", "redis://h?key=l"),
        ("redis://[::1]?key=k", "redis://[::1]:6380?key=k"),
        ("nats://h/S?subject=a&exclusive=true", "nats://h:4223/S?subject=a&exclusive=true"),
    ] {
        let config = Case::new().file(&format!("sink = [\"{one}\", \"{other}\"]")).config();
        assert_eq!(config.sink.len(), 2);
    }
}

#[test]
fn a_name_is_letters_digits_and_three_signs() {
    let file = |name: &str| table("null", "").replace("\"a\"", &format!("{name:?}"));
    for name in ["a b", "", "a/b", "ä", &"x".repeat(65), "file:x"] {
        let problems = Case::new().file(&file(name)).problems();
        assert!(problems.contains("d.toml:2: sink[#1].name: ") && problems.contains("is no name"), "{problems}");
    }
    for name in ["a-b_c.1", "7", &"x".repeat(64)] {
        assert_eq!(Case::new().file(&file(name)).config().sink[0].name, name);
    }
}

#[test]
fn a_secret_that_stands_in_the_configuration_is_refused_with_how_to_give_it_and_is_never_shown() {
    const SECRET: &str = "hunter2hunter2";
    let places = [
        ("http", "bearer = \"hunter2hunter2\"", "write bearer = { file = \"/etc/duragram/bearer\" }"),
        ("http", "user = \"u\"\npassword = \"hunter2hunter2\"", "write password = { file = "),
        ("http", "url = \"https://u:hunter2hunter2@h/x\"", "a password must not stand in a URL"),
        ("http", "headers = { Authorization = \"hunter2hunter2\" }", "write bearer = "),
        ("http", "headers = { X-Api-Key = \"hunter2hunter2\" }", "headers are shown"),
        ("http", "auth.password = \"hunter2hunter2\"", "here it is password"),
        ("postgres", "password = \"hunter2hunter2\"", "{ credential = \"NAME\" }"),
        ("postgres", "passwort = \"hunter2hunter2\"", "did you mean password?"),
        ("postgres", "url = \"postgres://u:hunter2hunter2@h/d\"", "a password must not stand in a URL"),
        ("postgres", "url = \"postgres://u@h/d?password=hunter2hunter2\"", "a password must not stand in a URL"),
        ("postgres", "url = \"postgres://u:hunter2hunter2/x@h/d\"", "is no URL with a host"),
        ("postgres", "password = { value = \"hunter2hunter2\" }", "a secret is not given as \"value\""),
        ("postgres", "password = { file = \"/x\", text = \"hunter2hunter2\" }", "a secret comes from one place"),
        ("postgres", "password = [\"hunter2hunter2\"]", "a secret must not stand in the configuration"),
        ("nats", "token = \"hunter2hunter2\"", "write token = "),
        ("nats", "credentials = \"hunter2hunter2\"", "write credentials = "),
        ("nats", "url = \"nats://hunter2hunter2@h\"", "a user does not stand in this URL"),
        ("redis", "password = \"hunter2hunter2\"", "write password = "),
        ("redis", "url = \"redis://:hunter2hunter2@h\"", "a password must not stand in a URL"),
        ("mqtt", "user = \"u\"\npassword = \"hunter2hunter2\"", "write password = "),
        ("mqtt", "url = \"mqtt://u:hunter2hunter2@h\"", "a password must not stand in a URL"),
    ];
    for (kind, lines, expected) in places {
        let error = Case::new().file(&table(kind, lines)).error();
        let text = format!("{error} {error:?}");
        assert!(error.to_string().contains(expected), "{lines}: expected {expected:?} in {error}");
        assert!(!text.contains(SECRET), "{text}");
    }
    let error = Case::new().flag("sink", &["postgres://u:hunter2hunter2@h/d?table=t"]).error();
    assert!(error.to_string().starts_with("--sink: sink: ") && !format!("{error:?}").contains(SECRET), "{error}");
    let error = Case::new().variable("DURAGRAM_SINK", "null,redis://:hunter2hunter2@h?key=k").error();
    assert!(
        error.to_string().starts_with("DURAGRAM_SINK: sink: ") && !format!("{error:?}").contains(SECRET),
        "{error}"
    );
}

#[test]
fn what_is_wrong_with_a_short_form_is_told_of_where_it_was_given() {
    let problems = Case::new().flag("sink", &["stdout", "postgres://h/d?table=t"]).problems();
    assert!(problems.starts_with("--sink: sink[#2].url: lacks its user"), "{problems}");
    let problems = Case::new().variable("DURAGRAM_SINK", "mqtt://h/a/#").problems();
    assert!(problems.starts_with("DURAGRAM_SINK: sink[#1].topic: must be"), "{problems}");
    let problems = Case::new().file("lanes = 1\nsink = [\"null\", \"nul\"]").problems();
    assert!(problems.starts_with("d.toml:2: sink: unknown sink \"nul\""), "{problems}");
    for text in [format!("exec:{}", "x".repeat(251)), "exec:cat\n".to_owned()] {
        let problems = Case::new().flag("sink", &[&text]).problems();
        assert!(problems.contains("cannot be named by its short form"), "{problems}");
    }
}

#[test]
fn a_configuration_made_by_hand_is_held_against_the_same_rules() {
    let sink = |text: &str| Config { sink: vec![text.parse().unwrap()], ..Config::default() };
    assert_eq!(sink("redis://h?key=k").validate(), Ok(()));
    let mut config = sink("redis://h?key=k");
    config.sink[0].name = "a b".into();
    let told = config.validate().unwrap_err().to_string();
    assert!(told.contains("sink[#1].name: \"a b\" is no name"), "{told}");
    config.sink[0].name = "a".into();
    config.sink[0].batch.records_max = 0;
    let told = config.validate().unwrap_err().to_string();
    assert!(told.contains("sink[a].batch.records_max: 0 is out of range"), "{told}");
    config.checkpoint_bytes = u64::MAX;
    config.sink[0].backlog.bytes_max = Some(1 << 30);
    assert!(config.validate().unwrap_err().to_string().contains("sink[a].backlog.bytes_max"));
    assert!(Config { sink: Vec::new(), ..Config::default() }.validate().is_err());
}

#[test]
fn what_every_type_together_is_has_no_problem() {
    assert!(Case::new().file(EVERY_TYPE).config().validate().is_ok());
}
