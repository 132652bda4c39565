//! The server as a service: what it tells systemd, sockets that are bound for it, no rights, and the unit files. systemd
//! itself is played by the tests, but for its own judgement of the units.

use std::fs;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::PATIENCE;
use crate::common::server::{Home, Server};
use crate::common::wire::Wire;
use crate::faults::layer::{Action, Layer, Rule, calls};

pub(crate) const READY: &str = "READY=1\nSTATUS=serving\n";

/// The other end of `NOTIFY_SOCKET`.
pub(crate) struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    pub(crate) fn new(home: &Home) -> Self {
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// The server's command with what systemd puts into the environment.
    pub(crate) fn command(&self, home: &Home, watchdog: Option<Duration>) -> Command {
        let mut command = home.command(&home.data());
        command.env("NOTIFY_SOCKET", &self.path);
        if let Some(patience) = watchdog {
            command.env("WATCHDOG_USEC", patience.as_micros().to_string());
        }
        command
    }

    /// The next message that is neither WATCHDOG=1 nor of a start that takes its time.
    pub(crate) fn next(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1\n" && !message.starts_with("STATUS=") {
                return message;
            }
        }
    }

    pub(crate) fn any(&self) -> String {
        let mut bytes = [0; 4096];
        let len = self.socket.recv(&mut bytes).expect("a message in time");
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }
}

#[test]
fn systemd_is_told_of_the_start_of_a_reload_and_of_the_stop() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let server = Server::try_start(&home, manager.command(&home, None)).unwrap();
    assert_eq!(manager.next(), READY);
    server.signal("HUP");
    let reloading = manager.next();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{reloading}"));
    assert!(since.trim_end().parse::<u64>().unwrap() > 0);
    assert_eq!(manager.next(), READY);
    server.signal("TERM");
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping\n");
    assert!(server.wait().success());
}

#[test]
fn a_server_that_cannot_start_never_says_that_it_is_ready() {
    let home = Home::new();
    let manager = Manager::new(&home);
    fs::write(home.data(), "no directory").unwrap();
    assert!(Server::try_start(&home, manager.command(&home, None)).is_err());
    manager.socket.set_nonblocking(true).unwrap();
    // What it is at it may say, if that takes long.
    let mut message = [0; 4096];
    while let Ok(len) = manager.socket.recv(&mut message) {
        assert!(message[..len].starts_with(b"STATUS="), "{}", String::from_utf8_lossy(&message[..len]));
    }
}

/// The committer hangs in a sync of three seconds, and only the committer: the watchdog's thread runs all the time.
#[test]
fn the_watchdog_is_fed_as_long_as_the_committer_goes_round_and_not_when_it_hangs() {
    let home = Home::new();
    let manager = Manager::new(&home);
    let layer = Layer::over(&home.disk());
    let mut command = manager.command(&home, Some(Duration::from_millis(800)));
    layer.under(&mut command);
    let server = Server::try_start(&home, command).unwrap();
    for _ in 0..5 {
        let message = manager.any();
        assert!(message == READY || message == "WATCHDOG=1\n" || message.starts_with("STATUS="), "{message}");
    }
    let hang = Duration::from_secs(3);
    layer.set(0, Rule::nth(calls::SYNC, ".log", 1, Action::Delay(hang)));
    let wire = Wire::new(&server, 1);
    wire.send(&wire.data(1, b"one"));
    let (sent, mut last) = (Instant::now(), Instant::now());
    let mut longest = Duration::ZERO;
    while sent.elapsed() < hang + Duration::from_secs(1) {
        assert_eq!(manager.any(), "WATCHDOG=1\n");
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    // It was told once more after the hang had begun: the thread had gone round since the time before.
    assert!(longest > hang - Duration::from_millis(900), "{longest:?}");
    assert_eq!(wire.ack().floor, 1);
    assert!(server.log().contains("the committer is stuck"), "{}", server.log());
    assert!(server.terminate().success());
}

/// The server with a socket as its file descriptor 3, as systemd gives it.
pub(crate) fn start_with_socket(home: &Home, socket: &UdpSocket) -> Result<Server, ExitStatus> {
    let plain = home.command(&home.data());
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0 </dev/null && LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\""]);
    shell.arg(plain.get_program()).args(plain.get_args());
    Server::try_start_given(home, shell, Stdio::from(OwnedFd::from(socket.try_clone().unwrap())))
}

#[test]
fn what_comes_while_the_server_is_away_waits_in_a_socket_that_was_bound_for_it() {
    let home = Home::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let start = || start_with_socket(&home, &socket).unwrap();
    let server = start();
    assert_eq!(server.udp, address, "the ready line tells the address of the socket");
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
    assert!(server.terminate().success());

    // Nobody is there: no refusal comes back, and nothing is lost.
    (2..=20).for_each(|seq| wire.send(&wire.data(seq, b"more")));
    let server = start();
    let acked = std::iter::repeat_with(|| wire.ack()).find(|ack| ack.floor == 20).expect("the last ack");
    assert!(acked.above.is_empty());
    server.kill();
    wire.send(&wire.data(21, b"after a crash"));
    let server = start();
    assert_eq!(wire.ack().floor, 21);
    home.wait_lines(21);
    assert!(server.terminate().success());
}

#[test]
fn a_socket_that_others_reach_is_refused_without_keys_also_when_systemd_has_bound_it() {
    let home = Home::new();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let status = start_with_socket(&home, &socket).map(|_| ()).unwrap_err();
    let log = fs::read_to_string(home.log_path()).unwrap();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("LISTEN_FDS: listen: 0.0.0.0:"), "{log}");
    assert!(!home.data().exists(), "nothing was begun");
}

/// As root this is shown with another user who has no capability; without root every other test shows it.
#[test]
fn no_right_is_needed() {
    if !fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
        return;
    }
    let nobody = 65_534;
    let home = Home::new();
    for path in [home.path().to_owned(), home.disk()] {
        chown(&path, Some(nobody), Some(nobody)).unwrap();
    }
    let plain = home.command(&home.data());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]);
    // The build may lie where nobody else may look.
    let binary = home.path().join("duragram");
    fs::copy(plain.get_program(), &binary).unwrap();
    command.arg(&binary).args(plain.get_args());
    let server = Server::try_start(&home, command).unwrap();
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
    home.wait_lines(1);
    assert!(server.terminate().success());
}

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/systemd").join(name)
}

/// By systemd's own measure, from 0 (nothing it could do harm with) to 10.
#[test]
fn the_units_are_valid_and_leave_the_service_next_to_no_rights() {
    let analyze = |args: &[&str], unit: &Path| Command::new("systemd-analyze").args(args).arg(unit).output();
    let Ok(_) = analyze(&["--version"], Path::new("")) else {
        eprintln!("SKIPPED: there is no systemd-analyze here");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for name in ["duragram.service", "duragram.socket"] {
        let text = fs::read_to_string(unit(name)).unwrap();
        let here = text.replace("/usr/local/bin/duragram", env!("CARGO_BIN_EXE_duragram"));
        fs::write(dir.path().join(name), here).unwrap();
    }
    for name in ["duragram.service", "duragram.socket"] {
        let verified = analyze(&["verify", "--man=no"], &dir.path().join(name)).unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        // Of this machine's other units it may say anything.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("duragram")).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
    let judged =
        analyze(&["security", "--offline=true", "--threshold=12"], &dir.path().join("duragram.service")).unwrap();
    let table = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success() && table.contains("Overall exposure level"), "{table}");
}

/// The settings that the units make by variables are ones that the server has.
#[test]
fn the_service_names_settings_that_exist() {
    let text = fs::read_to_string(unit("duragram.service")).unwrap();
    let set = text.lines().filter_map(|line| line.strip_prefix("Environment=")).flat_map(str::split_whitespace);
    let names: Vec<&str> = set.filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        assert!(duragram::config::KEYS.iter().any(|key| key.variable() == name), "{name}");
    }
}
