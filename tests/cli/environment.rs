//! What the environment may hold without harm, how levels and addresses may be written: in each command alike.

use std::process::Output;

use crate::cli::support::{FakeServer, Running, duragram, text};
use crate::common::fake::Fake;
use crate::common::server::{Home, Server};
use crate::common::wait_for;

/// As Kubernetes makes them for services called duragram, duragram-udp, duragram-admin and duragram-listen, Docker for a link,
/// and people for an image.
const INJECTED: [(&str, &str); 16] = [
    ("DURAGRAM_PORT", "tcp://10.0.0.1:7117"),
    ("DURAGRAM_SERVICE_HOST", "10.0.0.1"),
    ("DURAGRAM_SERVICE_PORT", "7117"),
    ("DURAGRAM_SERVICE_PORT_UDP", "7117"),
    ("DURAGRAM_PORT_7117_UDP", "udp://10.0.0.1:7117"),
    ("DURAGRAM_PORT_7117_UDP_ADDR", "10.0.0.1"),
    ("DURAGRAM_UDP_PORT", "udp://10.0.0.1:7117"),
    ("DURAGRAM_UDP_SERVICE_HOST", "10.0.0.1"),
    ("DURAGRAM_ADMIN_PORT", "tcp://10.0.0.1:7118"),
    ("DURAGRAM_ADMIN_SERVICE_HOST", "10.0.0.1"),
    ("DURAGRAM_ADMIN_SERVICE_PORT_HTTP", "7118"),
    ("DURAGRAM_LISTEN_PORT_7117_TCP_PROTO", "tcp"),
    ("DURAGRAM_NAME", "/app/duragram"),
    ("DURAGRAM_ENV_PATH", "/bin"),
    ("DURAGRAM_VERSION", "1.2.3"),
    ("DURAGRAM_WINDOWS", "4"),
];

fn run_with(args: &[&str], variables: &[(&str, &str)]) -> Output {
    duragram(args).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn variables_that_orchestrators_inject_stop_no_command_and_are_told_once_by_name() {
    let home = Home::new();
    let mut command = home.command(&home.data());
    command.envs(INJECTED);
    let server = Server::try_start(&home, command).expect("it serves all the same");
    let log = server.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("no settings of duragram are ignored")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    let (_, names) = warnings[0].split_once("ignored: ").unwrap();
    let told: Vec<&str> = names.split(", ").map(|name| name.split(' ').next().unwrap()).collect();
    let mut injected = INJECTED.map(|(name, _)| name);
    injected.sort_unstable();
    assert_eq!(told, injected, "{log}");
    assert!(warnings[0].contains("DURAGRAM_WINDOWS (did you mean DURAGRAM_WINDOW?)"), "{log}");

    let checked = run_with(&["check-config"], &INJECTED);
    assert!(checked.status.success(), "{checked:?}");
    assert!(text(&checked.stderr).contains("DURAGRAM_WINDOWS (did you mean DURAGRAM_WINDOW?)"), "{checked:?}");
    let (udp, admin) = (server.udp.to_string(), server.admin.to_string());
    let sent = run_with(&["send", "--server", &udp], &INJECTED);
    assert!(sent.status.success() && sent.stderr.is_empty(), "{sent:?}");
    for args in [&["tail", "--from-start", "--no-follow"][..], &["dead", "list", "--json"]] {
        let output = run_with(&[args, &["--admin", &admin]].concat(), &INJECTED);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_misspelt_setting_is_told_beside_what_is_wrong_without_it() {
    let wrong = [("DURAGRAM_LISTEN", "0.0.0.0:0"), ("DURAGRAM_ALOW_PLAIN", "true")];
    for command in ["serve", "check-config"] {
        let output = run_with(&[command], &wrong);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("DURAGRAM_ALOW_PLAIN (did you mean DURAGRAM_ALLOW_PLAIN?)"), "{stderr}");
        assert!(stderr.contains("can be reached from other machines"), "{stderr}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset_for_every_command() {
    let empty: Vec<(String, &str)> = [
        "CONFIG",
        "SERVER",
        "KEY_FILE",
        "LISTEN",
        "ADMIN",
        "ADMIN_TOKEN_FILE",
        "DATA",
        "CHANNELS",
        "LOG_LEVEL",
        "KEYS",
    ]
    .map(|name| (format!("DURAGRAM_{name}"), ""))
    .into();
    let empty: Vec<(&str, &str)> = empty.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let with = run_with(&["check-config", "--json"], &empty);
    let without = run_with(&["check-config", "--json"], &[]);
    assert!(with.status.success(), "{with:?}");
    assert_eq!(text(&with.stdout), text(&without.stdout));
    assert_eq!(text(&with.stderr), "");

    let fake = Fake::start();
    let sent = run_with(&["send", "--server", &fake.addr.to_string()], &empty);
    assert!(sent.status.success(), "{sent:?}");
    let server = FakeServer::new();
    server.commit(b"one");
    let admin = server.admin(None).address().to_string();
    // Whether or not a server happens to run at the default address, an empty variable is no wrong usage.
    for args in [&["tail", "--no-follow"][..], &["dead", "list"], &["journal", "stats"]] {
        let output = run_with(args, &empty);
        assert_ne!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
    let output = run_with(&["tail", "--admin", &admin, "--from-start", "--no-follow"], &empty);
    assert_eq!(output.status.code(), Some(1), "the interface has ended: {output:?}");
}

#[test]
fn a_word_that_is_no_level_is_refused_alike_by_serve_and_check_config_and_other_names_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("d.toml");
    for level in ["notice", "verbose", "informational", "info,verbose", "duragram=loud", "info,duragram"] {
        std::fs::write(&file, format!("[log]\nlevel = \"{level}\"\n")).unwrap();
        let in_file = ["--config", file.to_str().unwrap()];
        for command in ["serve", "check-config"] {
            for output in [
                run_with(&[command, "--log-level", level], &[]),
                run_with(&[command], &[("DURAGRAM_LOG_LEVEL", level)]),
                run_with(&[&[command], &in_file[..]].concat(), &[]),
            ] {
                let stderr = text(&output.stderr);
                assert_eq!(output.status.code(), Some(2), "{command} {level}: {stderr}");
                assert!(stderr.contains("is no level; write error, warn, info, debug, trace or off"), "{stderr}");
            }
        }
    }
    for (level, meant) in [("warning", "warn"), ("Information", "info"), ("DEBUG", "debug"), ("2", "warn")] {
        let output = run_with(&["check-config", "--log-level", level, "--json"], &[("RUST_LOG", "no=such,level=!")]);
        assert!(text(&output.stdout).contains(&format!("\"log.level\":\"{meant}\"")), "{output:?}");
    }
}

#[test]
fn logs_at_level_warning_hold_warnings_and_no_more() {
    let home = Home::new();
    // What is warned of: a variable that is no setting.
    let logged = |level: &str| {
        let mut command = home.command(&home.data());
        command.env("DURAGRAM_LOG_LEVEL", level).env("DURAGRAM_VERSION", "1").env("RUST_LOG", "off");
        std::fs::remove_file(home.log_path()).ok();
        let server = Server::try_start(&home, command).unwrap();
        server.signal("TERM");
        assert!(server.wait().success());
        std::fs::read_to_string(home.log_path()).unwrap()
    };
    let log = logged("Warning");
    assert!(log.contains("DURAGRAM_VERSION") && !log.contains("INFO"), "{log}");
    let log = logged("Information");
    assert!(log.contains("INFO"), "RUST_LOG is not read: {log}");
}

#[test]
fn where_the_servers_admin_interface_is_off_its_clients_say_so_unless_told_of_another() {
    let server = FakeServer::new();
    server.commit(b"one");
    let admin = server.admin(None);
    let address = admin.address().to_string();
    let off = [("DURAGRAM_ADMIN", "off")];
    for args in [&["tail", "--no-follow"][..], &["dead", "list"], &["dead", "show", "1"], &["dead", "retry", "--all"]] {
        let output = run_with(args, &off);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("admin interface is off") && stderr.contains("--admin IP:PORT"), "{stderr}");
    }
    let output = run_with(&["tail", "--no-follow", "--from-start", "--admin", &address], &off);
    assert!(output.status.success() && text(&output.stdout).contains("one"), "{output:?}");
    // Offline nobody is asked.
    let output = run_with(&["dead", "list", "--data", "/nonexistent/data"], &off);
    assert!(!text(&output.stderr).contains("admin"), "{output:?}");
    // Port 0 is right for the server, and nothing to call.
    let output = run_with(&["tail"], &[("DURAGRAM_ADMIN", "127.0.0.1:0")]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("ready line"), "{output:?}");
}

#[test]
fn an_admin_interface_is_found_by_name_and_an_interface_that_is_not_there_is_named() {
    let server = FakeServer::new();
    server.commit(b"one");
    let admin = server.admin(None);
    let name = format!("localhost:{}", admin.address().port());
    let output = run_with(&["tail", "--no-follow", "--from-start", "--admin", &name], &[]);
    assert!(output.status.success() && text(&output.stdout).contains("one"), "{output:?}");
    for args in [
        &["tail", "--admin", "[fe80::1%none7]:7118"][..],
        &["send", "--server", "[fe80::1%none7]:7117"],
        &["load", "--server", "[fe80::1%none7]:7117"],
        &["serve", "--listen", "[fe80::1%none7]:7117"],
        &["check-config", "--admin", "[fe80::1%none7]:7118"],
    ] {
        let output = run_with(args, &[]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains("no network interface \"none7\""), "{args:?}: {stderr}");
    }
}

/// A network of its own with two ends of a cable, each with a link-local address; SKIPPED where that is not permitted.
#[test]
fn a_link_local_address_with_its_interface_is_listened_on_and_sent_to() {
    const SCRIPT: &str = r#"
        ip link set lo up && ip link add v0 type veth peer name v1 || exit 77
        sysctl -qw net.ipv6.conf.v0.accept_dad=0 net.ipv6.conf.v1.accept_dad=0
        ip link set v0 up && ip link set v1 up
        ip addr add fe80::10/64 dev v0 nodad && ip addr add fe80::11/64 dev v1 nodad || exit 77
        "$BIN" serve --data "$DIR/data" --sink "file:$DIR/out" --allow-plain --listen '[fe80::10%v0]:7117' \
            --admin '[fe80::10%v0]:7118' --admin-token-file "$DIR/token" >"$DIR/ready" 2>"$DIR/log" &
        server=$!
        n=0; until [ -s "$DIR/ready" ] || ! kill -0 $server || [ $((n += 1)) -gt 200 ]; do sleep 0.1; done
        cat "$DIR/ready" "$DIR/log" >&2
        number=$(ip -o link show v0 | cut -d: -f1)
        echo one | "$BIN" send --timeout 15s --server '[fe80::10%v0]:7117' || exit 1
        echo two | "$BIN" send --timeout 15s --server "[fe80::10%$number]:7117" || exit 2
        "$BIN" tail --from-start --no-follow --admin '[fe80::10%v0]:7118' --admin-token-file "$DIR/token" || exit 3
        kill $server; wait $server
    "#;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, crate::cli::support::TOKEN).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["-rn", "sh", "-c", SCRIPT]).env("BIN", env!("CARGO_BIN_EXE_duragram")).env("DIR", dir.path());
    let output = match command.output() {
        Ok(output) if output.status.code() != Some(77) && !text(&output.stderr).contains("unshare failed") => output,
        _ => return eprintln!("SKIPPED: no network of its own can be made here"),
    };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?} {stderr}", output.status);
    assert!(stdout.contains("\"payload\":\"one\"") && stdout.contains("\"payload\":\"two\""), "{stdout} {stderr}");
}

#[test]
fn with_the_stdout_sink_stdout_is_records_alone_and_stderr_has_the_ready_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for sinks in
        [&["--sink", "stdout"][..], &[], &["--sink", "null", "--sink", "stdout"], &["--sink", "file:/dev/stdout"]]
    {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--log-format", "json", "--data"];
        let command = duragram(&[&serve[..], &[data.to_str().unwrap()], sinks].concat());
        let mut running = Running::start(command);
        let stderr = crate::cli::support::lines(running.0.stderr.take().unwrap());
        let stdout = crate::cli::support::lines(running.0.stdout.take().unwrap());
        let ready = wait_for("the ready line on stderr", || {
            stderr.try_iter().find(|line| line.starts_with("duragram ready udp="))
        });
        let udp = ready.strip_prefix("duragram ready udp=").and_then(|rest| rest.strip_suffix(" admin=off")).unwrap();
        let mut send = duragram(&["send", "--server", udp, "--batch"]);
        send.stdin(std::fs::File::open("/proc/self/status").unwrap());
        assert!(send.output().unwrap().status.success());
        let first = stdout.recv_timeout(crate::cli::support::DEADLINE).expect("a record");
        for line in [first].into_iter().chain(stdout.try_iter()) {
            let record: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no record: {line}"));
            assert!(record["payload"].is_string(), "{line}");
        }
    }
}
