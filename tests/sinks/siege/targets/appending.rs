//! `exec` and `http`: a program in Python that appends what it takes to a file.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::target::{Found, PASSWORD, Target};
use super::file::found_of;
use crate::sinks::support::proxy::Proxy;
use crate::sinks::support::server::Server;

const CHILD: &str = include_str!("../append.py");
const RECEIVER: &str = include_str!("../receive.py");

/// What was appended. A line that was cut short by a kill is no record: it was answered by nobody.
fn read(path: &Path) -> Vec<Found> {
    let bytes = fs::read(path).unwrap_or_default();
    let lines = bytes.split(|&byte| byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).map(|line| found_of(&line)).collect()
}

/// The child of an `exec` sink.
pub(crate) struct Child {
    script: PathBuf,
    out: PathBuf,
}

impl Child {
    pub(crate) fn new(directory: &Path) -> Self {
        let (script, out) = (directory.join("append.py"), directory.join("appended.ndjson"));
        fs::write(&script, CHILD).expect("a script");
        Self { script, out }
    }

    fn beside(&self, extension: &str) -> PathBuf {
        self.out.with_extension(format!("ndjson.{extension}"))
    }

    fn signal(&self, signal: Signal) {
        let pid = fs::read_to_string(self.beside("pid")).ok().and_then(|text| text.parse().ok());
        let Some(pid) = pid else { return };
        // Its number may be another's by now: only who runs the script is meant.
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.contains(&*self.script.to_string_lossy()) {
            // It may have ended in this moment.
            let _ended_already = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Target for Child {
    fn sink(&self, _password: &Path) -> String {
        let (script, out) = (self.script.display(), self.out.display());
        format!("type = \"exec\"\ncommand = \"exec python3 {script} {out}\"\n")
    }

    fn proxy(&self) -> Option<&Proxy> {
        None
    }

    fn kill(&mut self) {
        fs::write(self.beside("away"), "").expect("a file");
        self.signal(Signal::SIGKILL);
    }

    fn start(&mut self) {
        fs::remove_file(self.beside("away")).expect("it was away");
    }

    fn freeze(&self, frozen: bool) {
        self.signal(if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    fn found(&mut self, _expected: usize) -> Vec<Found> {
        read(&self.out)
    }
}

/// This HTTP server appends what it receives to a file.
pub(crate) struct Receiver {
    server: Server,
    proxy: Proxy,
    mode: &'static str,
    out: PathBuf,
}

impl Receiver {
    pub(crate) fn start(directory: &Path, mode: &'static str) -> Self {
        let (script, out) = (directory.join("receive.py"), directory.join("received.ndjson"));
        fs::write(&script, RECEIVER).expect("a script");
        let server = Server::start("python3".into(), |_, port| {
            vec![script.display().to_string(), out.display().to_string(), port.to_string(), PASSWORD.into()]
        });
        let proxy = Proxy::to(server.address());
        Self { server, proxy, mode, out }
    }
}

impl Target for Receiver {
    fn sink(&self, password: &Path) -> String {
        let (address, mode, password) = (self.proxy.address(), self.mode, password.display());
        format!(
            "type = \"http\"\nurl = \"http://{address}/records\"\nmode = \"{mode}\"\nbearer = {{ file = \"{password}\" }}\n"
        )
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    fn start(&mut self) {
        self.server.restart();
    }

    fn found(&mut self, _expected: usize) -> Vec<Found> {
        read(&self.out)
    }
}

/// An address on which nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}
