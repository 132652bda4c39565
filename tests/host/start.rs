//! The server while it starts and when it is told to stop: signals at any moment, what the admin interface and systemd are
//! told meanwhile, resources that are short, sinks that are away.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use duragram::config::Config;
use duragram::model::SinkSpec;
use duragram::server as embedded;
use duragram::sink::factory;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::common::server::{Home, Server, duragram};
use crate::common::wire::Wire;
use crate::common::{PATIENCE, wait_for};
use crate::faults::layer::{Action, Layer, Rule, calls};
use crate::host::systemd::{Manager, READY};

/// Far longer than any test waits for the end of a start that is stopped.
const LONG: Duration = Duration::from_secs(120);

/// A server whose start takes long: the first sync of its journal's marker does.
struct Slow {
    child: Child,
    admin: SocketAddr,
    log: PathBuf,
    _layer: Layer,
}

impl Slow {
    /// Starts it, below `around` if that is not empty, and waits until it reads its journal.
    fn start(home: &Home, around: &[&str]) -> Self {
        Self::start_for(home, home.command(&home.data()), around, LONG)
    }

    fn start_for(home: &Home, plain: Command, around: &[&str], time: Duration) -> Self {
        let layer = Layer::over(&home.disk());
        layer.set(0, Rule::nth(calls::SYNC, "DURAGRAM", 1, Action::Delay(time)));
        // A port that is free now; another process of the tests takes one by chance in some tens of thousands.
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = match around {
            [] => Command::new(plain.get_program()),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(plain.get_program());
                command
            }
        };
        let mut named = false;
        for argument in plain.get_args() {
            let is_address = std::mem::replace(&mut named, argument == "--admin");
            if is_address {
                command.arg(admin.to_string())
            } else {
                command.arg(argument)
            };
        }
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        layer.under(&mut command);
        let log = File::options().create(true).append(true).open(home.log_path()).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut slow = Self { child, admin, log: home.log_path(), _layer: layer };
        wait_for("the admin interface of a server that starts", || {
            assert!(slow.child.try_wait().unwrap().is_none(), "{}", slow.log());
            slow.get("/readyz").filter(|(_, answer)| answer.contains("reading the journal"))
        });
        slow
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.admin, path)
    }

    /// The server's own process, which the started one may only be around.
    fn pid(&self) -> u32 {
        let mut pid = self.child.id();
        while let Ok(children) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            && let Some(child) = children.split_whitespace().next()
        {
            pid = child.parse().unwrap();
        }
        pid
    }

    fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    fn wait(&mut self) -> ExitStatus {
        wait_for("the end of a start", || self.child.try_wait().unwrap())
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.expect("the kill command").success());
}

/// Status and body; `None` where nobody listens.
fn get(admin: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn while_it_starts_the_server_lives_and_is_not_ready_and_says_what_it_is_at() {
    let home = Home::new();
    let slow = Slow::start(&home, &[]);
    assert_eq!(slow.get("/healthz").unwrap().0, 200);
    let (status, answer) = slow.get("/readyz").unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["ready"]), (503, &Value::Bool(false)));
    assert!(answer["reasons"][0].as_str().unwrap().starts_with("recovering: reading the journal"), "{answer}");
    for path in ["/metrics", "/api/status", "/api/tail"] {
        let (status, answer) = slow.get(path).unwrap();
        assert!(
            status == 503 && answer.contains("not ready yet") && answer.contains("reading the journal"),
            "{answer}"
        );
    }
    wait_for("a log line of what is waited for", || {
        slow.log().contains("still starting: reading the journal").then_some(())
    });
}

#[test]
fn told_to_stop_while_it_starts_the_server_ends_at_once_with_exit_code_0() {
    for name in ["TERM", "INT"] {
        let home = Home::new();
        let mut slow = Slow::start(&home, &[]);
        let told = Instant::now();
        slow.signal(name);
        assert_eq!(slow.wait().code(), Some(0), "{}", slow.log());
        assert!(told.elapsed() < LONG / 10, "{:?}", told.elapsed());
        assert!(slow.log().contains("before the server was ready"), "{}", slow.log());
        // Nothing is left that a next start would mind.
        let server = home.serve();
        let wire = Wire::new(&server, 1);
        assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
        assert!(server.terminate().success());
    }
}

/// Its log is full, such as a pipe to a collector that hangs.
#[test]
fn a_log_that_nobody_takes_does_not_keep_a_start_from_being_stopped() {
    let home = Home::new();
    let layer = Layer::over(&home.disk());
    layer.set(0, Rule::nth(calls::SYNC, "DURAGRAM", 1, Action::Delay(LONG)));
    let mut command = home.command(&home.data());
    layer.under(&mut command);
    let (_reader, writer) = std::io::pipe().unwrap();
    // A descriptor of its own: that it does not wait concerns the server's no more.
    let own = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut full = File::options().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(own).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    wait_for("the start to come to its journal", || (layer.seen(0) > 0).then_some(()));
    while full.write(&[b'.'; 4096]).is_ok() {}
    signal(child.id(), "TERM");
    let ended = wait_for("the end of a start", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

/// As which it gets no signal that it has no handler for.
#[test]
fn as_the_first_process_of_a_container_it_is_stopped_while_it_starts_and_while_it_serves() {
    let around = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    if !Command::new(around[0]).args(&around[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no process namespace can be made here");
        return;
    }
    for name in ["TERM", "INT", "QUIT"] {
        let home = Home::new();
        let mut slow = Slow::start(&home, &around);
        slow.signal(name);
        assert_eq!(slow.wait().code(), Some(i32::from(name == "QUIT")), "{name}: {}", slow.log());
    }
    let home = Home::new();
    let mut slow = Slow::start_for(&home, home.command(&home.data()), &around, Duration::from_millis(1));
    wait_for("readiness", || slow.get("/readyz").filter(|(status, _)| *status == 200));
    slow.signal("TERM");
    assert_eq!(slow.wait().code(), Some(0), "{}", slow.log());
}

#[test]
fn told_to_reopen_while_it_starts_the_server_does_so_when_it_is_ready() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let slow = Slow::start_for(&home, manager.command(&home, None), &[], Duration::from_secs(2));
    for _ in 0..3 {
        slow.signal("HUP");
    }
    assert_eq!(manager.next(), READY);
    assert!(manager.next().starts_with("RELOADING=1\n"), "{}", slow.log());
    assert_eq!(manager.next(), READY);
    assert_eq!(slow.get("/readyz").unwrap().0, 200);
}

#[test]
fn systemd_is_told_how_a_long_start_goes_and_waits_longer_for_it() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let _slow = Slow::start_for(&home, manager.command(&home, None), &[], Duration::from_secs(3));
    // On a busy machine it may be at something else after the first second.
    let mut messages = std::iter::repeat_with(|| manager.any());
    let message = messages.find(|message| message.starts_with("STATUS=reading the journal")).unwrap();
    let extension = message.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    assert!(extension.unwrap().parse::<u64>().unwrap() >= 10_000_000, "{message}");
    // And its status is no longer that of the start.
    assert_eq!(manager.next(), READY);
}

#[test]
fn signals_that_mean_nothing_do_nothing_while_it_starts_and_while_it_serves() {
    let home = Home::new();
    let slow = Slow::start_for(&home, home.command(&home.data()), &[], Duration::from_secs(2));
    let all = ["USR1", "USR2", "PIPE", "XFSZ"];
    all.iter().for_each(|name| slow.signal(name));
    wait_for("readiness", || slow.get("/readyz").filter(|(status, _)| *status == 200));
    all.iter().for_each(|name| slow.signal(name));
    wait_for("a word on each", || (slow.log().matches("means nothing").count() >= 3).then_some(()));
    assert_eq!(slow.get("/readyz").unwrap().0, 200);
}

/// What a timer of the program that started this one, or a descriptor that it set up, sends.
#[test]
fn what_another_program_has_left_behind_does_not_end_the_server() {
    let home = Home::new();
    let server = home.serve();
    for name in ["IO", "PROF", "VTALRM"] {
        server.signal(name);
        let wire = Wire::new(&server, 1);
        assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1, "{name}");
    }
    assert!(server.terminate().success());
}

#[test]
fn out_of_time_or_of_power_the_server_stops_in_good_order() {
    for name in ["ALRM", "PWR", "XCPU"] {
        let home = Home::new();
        let server = home.serve();
        let wire = Wire::new(&server, 1);
        assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
        server.signal(name);
        assert_eq!(server.wait().code(), Some(0), "{name}: {}", server.log());
        assert!(server.log().contains("draining"), "{name}: {}", server.log());
    }
}

#[test]
fn an_embedded_server_hears_a_stop_however_often_files_were_to_be_opened_anew_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        admin: None,
        data: dir.path().to_owned(),
        sessions_max: 100,
        ..Config::default()
    };
    let server = embedded::Server::start(config, factory(vec![SinkSpec::Null])).unwrap();
    let handle = server.handle();
    (0..1_000).for_each(|_| handle.reopen());
    handle.stop();
    let serving = std::thread::spawn(move || server.wait());
    wait_for("the end", || serving.is_finished().then_some(()));
    serving.join().unwrap().unwrap();
}

#[test]
fn told_to_quit_the_server_ends_at_once_and_has_lost_nothing() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
    server.signal("QUIT");
    assert_eq!(server.wait().code(), Some(1), "{}", server.log());
    let server = home.serve();
    home.wait_lines(1);
    assert!(server.terminate().success());
}

/// The disk hangs: a stop in good order cannot come to its end.
#[test]
fn told_to_stop_a_third_time_the_server_ends_whatever_it_waits_for() {
    let home = Home::new();
    let layer = Layer::over(&home.disk());
    let mut command = home.command(&home.data());
    layer.under(&mut command);
    let server = Server::try_start(&home, command).unwrap();
    layer.set(0, Rule::always(calls::SYNC, ".log", Action::Delay(LONG)));
    let wire = Wire::new(&server, 1);
    wire.send(&wire.data(1, b"one"));
    wait_for("a sync", || (layer.seen(0) > 0).then_some(()));
    server.signal("TERM");
    wait_for("the stop to begin", || server.log().contains("stopping").then_some(()));
    assert!(server.is_running());
    // Several that come at once count as one.
    let status = wait_for("the end", || {
        server.signal("TERM");
        (!server.is_running()).then(|| server.wait())
    });
    assert_eq!(status.code(), Some(1), "{}", server.log());
}

fn fifo(home: &Home) -> PathBuf {
    let path = home.path().join("fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    path
}

/// The home's command with this sink in place of its file.
fn serve_into(home: &Home, sink: &Path) -> Command {
    let plain = home.command(&home.data());
    let mut command = Command::new(plain.get_program());
    let out = format!("file:{}", home.out().display());
    let sink = format!("file:{}", sink.display());
    command.args(plain.get_args().map(|argument| if argument == out.as_str() { sink.as_ref() } else { argument }));
    command
}

#[test]
fn a_fifo_that_nobody_reads_holds_up_neither_the_start_nor_the_acks_and_is_told() {
    let home = Home::new();
    let path = fifo(&home);
    let server = Server::try_start(&home, serve_into(&home, &path)).unwrap();
    let told = |server: &Server| {
        let answer: Value = serde_json::from_str(&server.get("/readyz")).unwrap();
        answer["waiting"].as_array().is_some_and(|all| all.iter().any(|why| why.as_str().unwrap().contains("fifo")))
    };
    assert!(told(&server), "{}", server.get("/readyz"));
    assert!(server.log().contains("nobody reads this FIFO"), "{}", server.log());
    let wire = Wire::new(&server, 1);
    for seq in 1..=20 {
        assert_eq!(wire.ask_ack(&wire.data(seq, b"a reading")).floor, seq);
    }
    let mut reader = BufReader::new(File::open(&path).unwrap());
    for seq in 1..=20 {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["seq"], seq);
    }
    wait_for("the FIFO to be no news any more", || (!told(&server)).then_some(()));
    assert!(server.terminate().success());
}

/// Docker and others kill what has not ended ten seconds after SIGTERM.
#[test]
fn with_a_sink_that_is_stuck_the_whole_stop_takes_well_below_ten_seconds() {
    let home = Home::new();
    let path = fifo(&home);
    // A reader that reads nothing.
    let reader = std::thread::spawn({
        let path = path.clone();
        move || File::open(path).unwrap()
    });
    let server = Server::try_start(&home, serve_into(&home, &path)).unwrap();
    let reader = reader.join().unwrap();
    let wire = Wire::new(&server, 1);
    for seq in 1..=200 {
        assert_eq!(wire.ask_ack(&wire.data(seq, &[b'x'; 1_000])).floor, seq);
    }
    let told = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    assert!(told.elapsed() < Duration::from_millis(8_500), "{:?}", told.elapsed());
    drop(reader);
}

/// What ends before it is ready: exit code and the last line of its log.
fn refused(home: &Home, limits: &[&str], as_user: bool) -> (Option<i32>, String) {
    let plain = home.command(&home.data());
    let mut command = Command::new("prlimit");
    command.args(limits);
    let mut program = PathBuf::from(plain.get_program());
    if as_user {
        // The build may lie where nobody else may look.
        let copy = home.path().join("duragram");
        if !copy.exists() {
            fs::copy(&program, &copy).unwrap();
        }
        program = copy;
        command.args(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]);
    }
    command.arg(program).args(plain.get_args());
    let status = Server::try_start(home, command).map(|_| "it is ready").unwrap_err();
    let log = fs::read_to_string(home.log_path()).unwrap();
    (status.code(), log.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn a_start_that_gets_too_little_memory_ends_with_a_sentence_and_exit_code_1() {
    let home = Home::new();
    for (limit, told) in [
        ("--as=62914560", "ulimit -v"),
        ("--as=209715200", "ulimit -v"),
        ("--as=1048576000", "ulimit -v"),
        ("--data=5242880", "ulimit -d"),
        ("--data=83886080", "ulimit -d"),
        ("--stack=131072", "ulimit -s"),
    ] {
        let (code, line) = refused(&home, &[limit], false);
        assert!(
            code == Some(1) && line.contains("address space") | line.contains("stacks"),
            "{limit}: {code:?} {line}"
        );
        assert!(line.contains(told), "{limit}: {line}");
    }
    assert!(!home.data().exists(), "nothing was begun");
}

#[test]
fn a_start_that_gets_too_few_threads_ends_with_a_sentence_and_exit_code_1() {
    if !fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
        eprintln!("SKIPPED: it takes root to be another user, whose threads are limited");
        return;
    }
    let home = Home::new();
    for path in [home.path().to_owned(), home.disk()] {
        std::os::unix::fs::chown(path, Some(54_321), Some(54_321)).unwrap();
    }
    for threads in [1, 2, 5, 10, 20, 30] {
        let (code, line) = refused(&home, &[&format!("--nproc={threads}")], true);
        assert!(code == Some(1) && line.contains("ulimit -u"), "{threads} threads: {code:?} {line}");
    }
    assert!(!home.data().exists(), "nothing was begun");
}

#[test]
fn a_look_into_a_journal_that_gets_too_little_ends_with_a_sentence_and_exit_code_1() {
    let home = Home::new();
    assert!(home.serve().terminate().success());
    for (limit, told) in
        [("--as=209715200", "ulimit -v"), ("--data=83886080", "ulimit -d"), ("--nofile=16:16", "ulimit -n")]
    {
        for command in ["verify", "stats", "dump"] {
            let mut limited = Command::new("prlimit");
            limited.arg(limit).arg(duragram().get_program()).args(["journal", command, "--data"]).arg(home.data());
            let output = limited.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && stderr.contains(told), "{limit} {command}: {stderr}");
        }
    }
}

#[test]
fn a_sender_that_gets_too_few_threads_ends_with_a_sentence_and_exit_code_1() {
    if !fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
        eprintln!("SKIPPED: it takes root to be another user, whose threads are limited");
        return;
    }
    let home = Home::new();
    let binary = home.path().join("duragram");
    fs::copy(duragram().get_program(), &binary).unwrap();
    std::os::unix::fs::chown(home.path(), Some(54_322), Some(54_322)).unwrap();
    for threads in [1, 2] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={threads}")).args(["setpriv", "--reuid=54322", "--regid=54322", "--clear-groups"]);
        let output =
            command.arg(&binary).args(["send", "--server", "127.0.0.1:9"]).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains("cannot start its threads"), "{stderr}");
    }
}

#[test]
fn no_memory_needs_to_be_locked() {
    let home = Home::new();
    let plain = home.command(&home.data());
    let mut command = Command::new("prlimit");
    command.arg("--memlock=0").arg(plain.get_program()).args(plain.get_args());
    let server = Server::try_start(&home, command).unwrap();
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
    assert!(server.terminate().success());
}
