//! The server while it starts and when it is told to stop: signals at any moment, what the admin interface and systemd are
//! told meanwhile, sinks that are away.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use duragram::config::Config;
use duragram::server as embedded;
use duragram::sink;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::common::server::{Home, Server};
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
    let null = "null".parse().unwrap();
    let server = embedded::Server::start(config, move |start| sink::handler(&null, start)).unwrap();
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
