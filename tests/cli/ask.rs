//! `duragram ask` as people and scripts run it, against the real server and a service behind it.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::UdpSocket;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::cli::support::{duragram, text};
use crate::common::server::{Home, Server};
use crate::common::service::Service;
use crate::common::wait_for;
use crate::sinks::http::server::Response;

/// A server and the service that answers.
struct Place {
    server: Server,
    service: Service,
    home: Home,
}

impl Place {
    fn new() -> Self {
        Self::with("", Service::start())
    }

    fn with(toml: &str, service: Service) -> Self {
        let home = Home::with_config(toml);
        let server = home.serve_sinks(&[&service.sink()]);
        Self { server, service, home }
    }

    fn restart(self) -> Self {
        let Self { server, service, home } = self;
        server.kill();
        let server = home.serve_sinks(&[&service.sink()]);
        Self { server, service, home }
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&self.server.udp.to_string(), args)
    }

    /// Exit code, stdout and stderr.
    fn ask(&self, args: &[&str]) -> (i32, String, String) {
        told(&self.command(args).output().unwrap())
    }
}

fn command(server: &str, args: &[&str]) -> Command {
    let mut command = duragram(&["ask", "--server", server]);
    command.args(args);
    command
}

fn told(output: &Output) -> (i32, String, String) {
    (output.status.code().expect("no signal"), text(&output.stdout), text(&output.stderr))
}

fn nobody() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn the_answer_is_printed_as_it_is_and_nothing_else() {
    let place = Place::new();
    assert_eq!(place.ask(&["open valve 7"]), (0, "OPEN VALVE 7".to_owned(), String::new()));
    assert_eq!(place.ask(&["none needed"]), (0, String::new(), String::new()));
    assert_eq!(place.ask(&["two\nlines\n"]).1, "TWO\nLINES\n");
    assert_eq!(place.ask(&["--channel", "9", ""]), (0, String::new(), String::new()));
    assert_eq!(place.service.requests().last().unwrap().header("duragram-channel"), "9");
    assert_eq!(place.service.requests().last().unwrap().header("duragram-ask"), "1");
}

#[test]
fn a_message_comes_from_a_file_and_from_stdin_byte_for_byte() {
    let place = Place::with("", Service::start_with(|request| Response::status(200).body(request.body.clone())));
    let bytes = b"\0\xff no text\r\n\n";
    let path = place.home.path().join("request");
    fs::write(&path, bytes).unwrap();
    let output = place.command(&["--file", path.to_str().unwrap()]).output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &bytes[..]));
    let mut child = place.command(&[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &bytes[..]));
}

#[test]
fn json_has_the_name_the_status_and_the_body() {
    let place = Place::with(
        "",
        Service::start_with(|request| match &request.body[..] {
            b"bytes" => Response::status(200).body([0, 255]),
            b"no" => Response::status(422).body("not for the client"),
            _ => Response::status(200).body(request.text()),
        }),
    );
    let json_of = |args: &[&str]| {
        let (code, stdout, _) = place.ask(&[&["--json", "--client", "0xa1"], args].concat());
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        let mut told: Value = serde_json::from_str(&stdout).unwrap();
        let epoch = told.as_object_mut().unwrap().remove("epoch").unwrap().as_u64().unwrap();
        (code, told, epoch)
    };
    let named = |status: &str| json!({"client": "00000000000000a1", "seq": 1, "status": status});
    let with = |mut told: Value, key: &str, value: &str| {
        told[key] = value.into();
        told
    };
    let (code, told, epoch) = json_of(&["ä"]);
    assert_eq!((code, told), (0, with(named("DONE"), "body", "ä")));
    let (code, told, _) = json_of(&["bytes"]);
    assert_eq!((code, told), (0, with(named("DONE"), "body_base64", "AP8=")));
    let (code, told, _) = json_of(&["no"]);
    assert_eq!((code, told), (5, with(named("FAILED"), "body", "")));
    let (code, told, _) = json_of(&["--take", &format!("{epoch}:1")]);
    assert_eq!((code, told), (6, named("GONE")), "the first run has had it");
    let (code, told, _) = json_of(&["--no-wait", "later"]);
    assert_eq!((code, told), (0, named("PENDING")));
}

#[test]
fn what_was_given_up_is_exit_code_5_and_says_nothing_of_why() {
    let place = Place::new();
    let (code, stdout, stderr) = place.ask(&["no such valve"]);
    assert_eq!((code, stdout.as_str()), (5, ""));
    assert_eq!(stderr, "duragram: FAILED: the message was given up; an operator may still process it\n");
}

#[test]
fn an_answer_is_taken_later_by_another_process_once_whatever_was_killed_in_between() {
    let place = Place::new();
    place.service.hold(b"slow");
    let (code, name, stderr) = place.ask(&["--client", "0xa1", "--no-wait", "slow"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let name = name.strip_suffix('\n').expect("a line");
    assert_eq!(name.split(':').count(), 2, "the client is known: {name}");
    let (code, unnamed, _) = place.ask(&["--no-wait", "other"]);
    let unnamed = unnamed.trim_end();
    assert_eq!((code, unnamed.split(':').count()), (0, 3), "the client was drawn: {unnamed}");
    let place = place.restart();
    let later = ["--client", "0xa1", "--take", name, "--timeout", "200ms"];
    let (code, stdout, stderr) = place.ask(&later);
    assert_eq!((code, stdout.as_str()), (7, ""), "{stderr}");
    assert_eq!(stderr, format!("duragram: not answered in time; take it later with --take {name}\n"));
    place.service.release(b"slow");
    let place = place.restart();
    assert_eq!(place.ask(&["--client", "0xa1", "--take", name]), (0, "SLOW".to_owned(), String::new()));
    assert_eq!(place.ask(&["--take", unnamed]), (0, "OTHER".to_owned(), String::new()));
    for had in [&["--client", "161", "--take", name][..], &["--take", unnamed], &["--take", "0xa1:1:1"]] {
        let (code, stdout, stderr) = place.ask(had);
        assert_eq!((code, stdout.as_str()), (6, ""), "{had:?}");
        assert!(stderr.starts_with("duragram: GONE: no answer will come"), "{stderr}");
    }
}

/// What is behind the sink works at one message for as long as it likes: what it has answered before is told meanwhile.
fn an_answer_waits_for_no_message_behind_it(ask: impl Fn(&[&str]) -> (i32, String, String), let_first_go: impl Fn()) {
    let take_later = |text: &str| {
        let (code, name, stderr) = ask(&["--client", "0xa1", "--no-wait", text]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        name.trim_end().to_owned()
    };
    take_later("first");
    // These two are given to the sink together, once the first is done.
    let (quick, slow) = (take_later("quick"), take_later("slow"));
    let_first_go();
    let take = |name: &str, timeout| ask(&["--client", "0xa1", "--take", name, "--timeout", timeout]);
    assert_eq!(take(&quick, "20s"), (0, "QUICK".to_owned(), String::new()));
    assert_eq!(take(&slow, "10ms").0, 7, "it is still at work");
}

#[test]
fn an_answer_of_an_http_service_waits_for_no_slower_message_behind_it() {
    let place = Place::new();
    place.service.hold(b"first");
    place.service.hold(b"slow");
    an_answer_waits_for_no_message_behind_it(|args| place.ask(args), || place.service.release(b"first"));
}

#[test]
fn an_answer_of_a_child_waits_for_no_slower_message_behind_it() {
    let home = Home::new();
    let script = home.path().join("child.py");
    let go = home.path().join("go");
    let code = r#"
import json, os, sys, time
for line in sys.stdin:
    record = json.loads(line)
    while record["payload"] == "slow" or record["payload"] == "first" and not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    print(json.dumps({"offset": record["offset"], "index": 0, "done": True, "answer": record["payload"].upper()}), flush=True)
"#;
    fs::write(&script, code).unwrap();
    let server = home.serve_sinks(&[&format!("exec:exec python3 {} {}", script.display(), go.display())]);
    let ask = |args: &[&str]| told(&command(&server.udp.to_string(), args).output().unwrap());
    an_answer_waits_for_no_message_behind_it(ask, || drop(File::create(&go).unwrap()));
}

#[test]
fn what_is_not_answered_in_time_is_exit_code_7_and_waits() {
    let place = Place::new();
    place.service.hold(b"slow");
    let (code, stdout, stderr) = place.ask(&["--timeout", "300ms", "--json", "slow"]);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &told["status"]), (7, &json!("PENDING")));
    let name = stderr.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(stderr, format!("duragram: not answered in time; take it later with --take {name}\n"));
    place.service.release(b"slow");
    assert_eq!(place.ask(&["--take", name]), (0, "SLOW".to_owned(), String::new()));
}

#[test]
fn what_nobody_replies_to_is_exit_code_1() {
    let server = nobody();
    let (code, stdout, stderr) = told(&command(&server, &["--timeout", "300ms", "open"]).output().unwrap());
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains(&server), "{stderr}");
    // What is taken was acked once: it may be there still.
    for (take, name) in
        [(&["--take", "1:2:3"][..], "0000000000000001:2:3"), (&["--client", "1", "--take", "2:3"], "2:3")]
    {
        let args = [take, &["--timeout", "300ms"]].concat();
        let (code, stdout, stderr) = told(&command(&server, &args).output().unwrap());
        assert_eq!((code, stdout.as_str()), (7, ""), "{stderr}");
        assert!(stderr.starts_with("duragram: not answered in time"), "{stderr}");
        assert!(stderr.ends_with(&format!("; take it later with --take {name}\n")), "{stderr}");
    }
}

#[test]
fn a_server_that_takes_no_asks_is_exit_code_1_and_named_as_such() {
    let place = Place::with("asks_max = 0\n", Service::start());
    let (code, stdout, stderr) = place.ask(&["open"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("refused by the server"), "{stderr}");
    assert_eq!(place.service.requests().len(), 0);
    let (code, stdout, _) = place.ask(&["--take", "1:2:3", "--timeout", "300ms"]);
    assert_eq!((code, stdout.as_str()), (7, ""));
}

#[test]
fn an_answer_that_fits_in_no_datagram_is_told_by_its_length_and_does_not_ask_for_the_message_again() {
    let place = Place::with("answer_bytes_max = 1400\n", Service::start());
    let (code, stdout, stderr) = place.ask(&["long 1168"]);
    assert_eq!((code, stdout.len(), stderr.as_str()), (0, 1168, ""), "as long as fits");
    let (code, stdout, stderr) = place.ask(&["--json", "long 1300"]);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &told["status"], &told["length"]), (7, &json!("DONE"), &json!(1300)));
    assert!(told.get("body").is_none(), "{told}");
    assert!(stderr.contains("1300 bytes"), "{stderr}");
    let (code, stdout, stderr) = place.ask(&["long 1300"]);
    assert_eq!((code, stdout.as_str()), (7, ""), "{stderr}");
    assert_eq!(place.service.times(b"long 1300"), 2);
    let name = stderr.trim_end().rsplit(' ').next().unwrap();
    let (code, stdout, stderr) = place.ask(&["--datagram-bytes-max", "1400", "--take", name]);
    assert_eq!((code, stdout.len(), stderr.as_str()), (0, 1300, ""), "a longer datagram takes it");
}

#[test]
fn an_answer_that_cannot_be_printed_stays_at_the_server() {
    let place = Place::new();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for args in [&["open"][..], &["--json", "open"]] {
        let child = place.command(args).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let (code, _, stderr) = told(&child.wait_with_output().unwrap());
        assert_eq!(code, 7, "it is processed, so a script must not send it again: {stderr}");
        assert!(stderr.contains("stdout"), "{stderr}");
        let name = stderr.trim_end().rsplit(' ').next().unwrap();
        assert_eq!(place.ask(&["--take", name]), (0, "OPEN".to_owned(), String::new()), "{stderr}");
    }
    // Nobody reads: what became of the message is told by the exit code all the same.
    for (message, expected) in [("open", 0), ("no such valve", 5)] {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(ours);
        let stdout = Stdio::from(std::os::fd::OwnedFd::from(theirs));
        let child = place.command(&["--json", message]).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let (code, _, stderr) = told(&child.wait_with_output().unwrap());
        assert_eq!(code, expected, "{message}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_sends_nothing() {
    let place = Place::new();
    let missing = place.home.path().join("missing").display().to_string();
    for (args, complaint) in [
        (&["--take", "5"][..], "not EPOCH:SEQ"),
        (&["--take", "0:5"], "not EPOCH:SEQ"),
        (&["--take", "5:0"], "not EPOCH:SEQ"),
        (&["--take", "a1:5:5"], "neither 16 hexadecimal digits"),
        (&["--take", "5:5"], "who asked"),
        (&["--client", "1", "--take", "2:5:5"], "--take names client 0000000000000002"),
        (&["--take", "1:5:5", "open"], "cannot be used with"),
        (&["--take", "1:5:5", "--no-wait"], "cannot be used with"),
        (&["--file", &missing, "open"], "cannot be used with"),
        (&["--file", &missing], "cannot read"),
        (&["--client", "nobody", "open"], "--client"),
        (&["--channel", "65536", "open"], "--channel"),
        (&["--timeout", "soon", "open"], "--timeout"),
        (&["--key-file", &missing, "open"], &missing),
        (&["open", "valve"], "unexpected argument"),
    ] {
        let (code, stdout, stderr) = place.ask(args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(complaint), "{args:?}: {stderr}");
    }
    let (code, _, stderr) = told(&command("no where", &["open"]).output().unwrap());
    assert_eq!((code, stderr.contains("no where")), (2, true), "{stderr}");
    assert_eq!(place.service.requests().len(), 0);
}

#[test]
fn a_message_that_fits_in_no_datagram_is_exit_code_1_and_is_not_sent() {
    let place = Place::new();
    let (code, stdout, stderr) = place.ask(&[&"x".repeat(1169)]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("1169 bytes") && stderr.contains("at most 1168"), "{stderr}");
    assert_eq!(place.service.requests().len(), 0);
}

#[test]
fn a_client_with_a_key_asks_and_takes_sealed() {
    let place = Place::new();
    let key_file = |name: &str, mode_text: &str| {
        let path = place.home.path().join(name);
        fs::write(&path, mode_text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let key = key_file("a1.key", &format!("client 00000000000000a1 {}\n", "01".repeat(32)));
    place.home.configure(&format!("keys = {key:?}\n"));
    let place = place.restart();
    place.service.hold(b"slow");
    assert_eq!(place.ask(&["--key-file", &key, "open"]), (0, "OPEN".to_owned(), String::new()));
    let (code, name, stderr) = place.ask(&["--key-file", &key, "--no-wait", "slow"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    place.service.release(b"slow");
    assert_eq!(place.ask(&["--key-file", &key, "--take", name.trim_end()]), (0, "SLOW".to_owned(), String::new()));

    // Each is another run, which counts from elsewhere: heard at its first question, for the second comes after two seconds. Nor had
    // the run before it the answer, however soon that came.
    for _ in 0..12 {
        let (code, name, stderr) = place.ask(&["--key-file", &key, "--no-wait", "open"]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        let take = ["--key-file", &key, "--timeout", "1900ms", "--take", name.trim_end()];
        assert_eq!(place.ask(&take), (0, "OPEN".to_owned(), String::new()));
    }
    let (code, _, stderr) = place.ask(&["--timeout", "2s", "open"]);
    assert_eq!(code, 1, "plain is refused: {stderr}");
}

#[test]
fn a_server_that_is_restarted_while_somebody_waits_answers_all_the_same() {
    let place = Place::new();
    place.service.hold(b"slow");
    // The server comes back elsewhere; the path between stays.
    let path = crate::common::lossy::LossyPath::open(
        (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        place.server.udp,
        crate::common::lossy::Weather::CLEAR,
        1,
        None,
    )
    .unwrap();
    let asking = command(&path.addr().to_string(), &["slow"]).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the TAKE to be held", || (place.server.metric("duragram_takes_held", "") == 1.0).then_some(()));
    let place = place.restart();
    path.set_server(place.server.udp);
    place.service.release(b"slow");
    // The answer is there; the client finds out when the server stays silent for longer than it may hold.
    wait_for("the answer", || (place.server.metric("duragram_asks_answered", "") == 1.0).then_some(()));
    let output = wait_within(asking, std::time::Duration::from_secs(40));
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"SLOW"[..]));
}

fn wait_within(child: std::process::Child, patience: std::time::Duration) -> Output {
    let pid = child.id();
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let waiting = std::thread::spawn(move || {
        let output = child.wait_with_output().unwrap();
        drop(ended);
        output
    });
    if end.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        drop(Command::new("kill").arg(pid.to_string()).status());
        panic!("it does not end");
    }
    waiting.join().unwrap()
}

#[test]
fn check_config_says_which_sink_answers() {
    let check = |args: &[&str]| {
        let output = duragram(&[&["check-config"], args].concat()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    let answers = |args: &[&str]| {
        let stdout = check(args);
        let line = stdout.lines().find(|line| line.contains("what came of a message (docs/")).expect("a line of it");
        line.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(answers(&["--sink", "null"]), "sink null answers");
    let two = ["--sink", "null", "--sink", "exec:cat"];
    assert!(answers(&two).starts_with("no sink answers alone"), "{}", answers(&two));
    let home = Home::with_config("answering_sink = \"exec:cat\"\n");
    let config = home.path().join("duragram.toml").display().to_string();
    let named = [&two[..], &["--config", &config]].concat();
    assert_eq!(answers(&named), "sink exec:cat answers; the others only store");
    let json: Value = serde_json::from_str(&check(&[&named[..], &["--json"]].concat())).unwrap();
    let told: Vec<_> = json["sinks"].as_array().unwrap().iter().map(|sink| (&sink["name"], &sink["answers"])).collect();
    assert_eq!(told, [(&json!("null"), &json!(false)), (&json!("exec:cat"), &json!(true))]);
}
