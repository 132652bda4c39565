//! What holds for every command: exit codes, help, configuration, output that nobody reads.

use std::fs;
use std::process::Stdio;

use crate::cli::support::{Running, duragram, outcome};
use serde_json::Value;

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_0() {
    for args in [
        &["nonsense"][..],
        &["serve", "--nonsense"],
        &["tail", "--from", "x"],
        &["tail", "--from", "1", "--from-start"],
        &[],
    ] {
        let (code, _, stderr) = outcome(args);
        assert!(code == 2 && !stderr.is_empty(), "{args:?}: {code} {stderr}");
    }
    for args in [&["--help"][..], &["serve", "--help"], &["dead", "discard", "--help"], &["--version"]] {
        let (code, stdout, stderr) = outcome(args);
        assert!(code == 0 && !stdout.is_empty() && stderr.is_empty(), "{args:?}: {code} {stderr}");
    }
}

#[test]
fn a_wrong_configuration_is_exit_code_2_and_every_problem_is_a_line_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("d.toml");
    fs::write(&file, "window = 0\nlanse = 2\n").unwrap();
    let data = dir.path().join("data");
    for command in ["serve", "check-config"] {
        let mut command = duragram(&[command, "--config", file.to_str().unwrap(), "--listen", "0.0.0.0:0"]);
        let output = command.env("DURAGRAM_DATA", &data).env("DURAGRAM_RECEIVERS", "none").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.stdout, b"");
        let stderr = crate::cli::support::text(&output.stderr);
        let file = file.display();
        for problem in [
            format!("duragram: {file}:1: window: 0 is out of range: 1 to 65535 seqs"),
            format!("duragram: {file}:2: lanse: unknown key; did you mean lanes?"),
            "duragram: DURAGRAM_RECEIVERS: receivers: \"none\" is no whole number".to_owned(),
            "duragram: --listen: listen: 0.0.0.0:0 can be reached from other machines".to_owned(),
        ] {
            assert!(stderr.lines().any(|line| line.starts_with(&problem)), "{problem:?} is missing in:\n{stderr}");
        }
        assert_eq!(stderr.lines().count(), 4, "{stderr}");
    }
    assert!(!data.exists(), "a refused configuration touches nothing");
}

#[test]
fn what_serve_refuses_of_sinks_check_config_refuses_too() {
    for sinks in [["stdout", "stdout"], ["file:/tmp/x", "file:/tmp/x"], ["null", "nonsense"], ["file:", "null"]] {
        for command in ["serve", "check-config"] {
            let (code, _, stderr) = outcome(&[command, "--sink", sinks[0], "--sink", sinks[1]]);
            assert!(code == 2 && stderr.starts_with("duragram: --sink: sink: "), "{command} {sinks:?}: {stderr}");
        }
    }
}

#[test]
fn an_admin_token_that_serve_does_not_find_check_config_does_not_find_either() {
    let dir = tempfile::tempdir().unwrap();
    let (data, missing, empty) = (dir.path().join("data"), dir.path().join("missing"), dir.path().join("empty"));
    fs::write(&empty, "").unwrap();
    fs::set_permissions(&empty, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for file in [&missing, &empty] {
        let args = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--sink", "null", "--admin-token-file"];
        let run = |command: &str| {
            let args = [&[command], &args[..], &[file.to_str().unwrap(), "--data", data.to_str().unwrap()]].concat();
            let (code, _, stderr) = outcome(&args);
            (code, stderr.lines().last().unwrap_or_default().to_owned())
        };
        let (serve, check) = (run("serve"), run("check-config"));
        assert_eq!(serve, check);
        assert_ne!(serve.0, 0, "{serve:?}");
    }
}

#[test]
fn check_config_says_what_each_sink_promises_and_shows_where_secrets_come_from_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("d.toml");
    let table = "[[sink]]\nname = \"events\"\ntype = \"postgres\"\nurl = \"postgres://u@h/d\"\ntable = \"t\"\n\
                 password = { env = \"PG_SECRET\" }\n[[sink]]\nname = \"device\"\ntype = \"file\"\npath = \"/dev/null\"\n";
    fs::write(&file, table).unwrap();
    let mut command = duragram(&["check-config", "--config", file.to_str().unwrap()]);
    let output = command.env("PG_SECRET", "hunter2hunter2").output().unwrap();
    let shown = crate::cli::support::text(&output.stdout);
    assert!(output.status.success(), "{}", crate::cli::support::text(&output.stderr));
    assert!(shown.contains("# events: exact\n"), "{shown}");
    assert!(shown.contains("# device: at least once (it is no regular file)\n"), "{shown}");
    assert!(shown.contains("password = { env = \"PG_SECRET\" }") && !shown.contains("hunter2"), "{shown}");

    fs::write(&file, &shown).unwrap();
    let (code, again, stderr) = outcome(&["check-config", "--config", file.to_str().unwrap(), "--json"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let json: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(
        json["sinks"][0],
        serde_json::json!({ "name": "events", "type": "postgres", "promise": "exact", "answers": false })
    );
    assert_eq!(json["config"]["sink"][0]["password"], serde_json::json!({ "env": "PG_SECRET" }));

    let (code, shown, _) = outcome(&["check-config", "--sink", "nats://h/S?subject=a", "--sink", "stdout"]);
    assert_eq!(code, 0);
    assert!(shown.contains("# nats://h/S?subject=a: window\n# stdout: at least once\n"), "{shown}");
    let (code, _, stderr) = outcome(&["serve", "--sink", "postgres://u:hunter2@h/d?table=t"]);
    assert!(code == 2 && stderr.starts_with("duragram: --sink: sink: ") && !stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn check_config_shows_values_places_and_memory_and_its_output_is_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = duragram(&[
        "check-config",
        "--window",
        "77",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "[::1]:0",
        "--allow-plain",
    ]);
    let output = command.env("DURAGRAM_SINK", "null,stdout").output().unwrap();
    assert!(output.status.success(), "{}", crate::cli::support::text(&output.stderr));
    let shown = crate::cli::support::text(&output.stdout);
    assert!(
        shown.contains("window = 77") && shown.contains("# --window") && shown.contains("# DURAGRAM_SINK"),
        "{shown}"
    );
    assert!(shown.contains("# Memory at most ") && shown.contains("session table"), "{shown}");

    let file = dir.path().join("d.toml");
    fs::write(&file, &shown).unwrap();
    let (code, again, stderr) = outcome(&["check-config", "--config", file.to_str().unwrap(), "--json"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let json: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(json["config"]["window"], 77);
    assert_eq!(json["config"]["sink"], serde_json::json!(["null", "stdout"]));
    assert_eq!(json["places"]["window"], format!("{}:11", file.display()));
    assert!(json["memory"]["total_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn output_that_nobody_reads_is_no_failure_and_no_panic() {
    for args in [&["completions", "bash"][..], &["man"], &["check-config"], &["serve", "--help"]] {
        let mut command = duragram(args);
        command.stdout(Stdio::piped());
        // The reader is gone before the first byte.
        let mut running = Running::start(command);
        drop(running.0.stdout.take());
        let code = running.wait();
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut running.0.stderr.take().unwrap(), &mut stderr).unwrap();
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn completions_and_manual_pages_are_printed() {
    let (code, script, _) = outcome(&["completions", "fish"]);
    assert!(code == 0 && script.contains("complete -c duragram"), "{script}");
    let (code, page, _) = outcome(&["man"]);
    assert!(code == 0 && page.contains(".TH duragram 1"), "{page}");
}
