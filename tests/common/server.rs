//! `duragram serve` as a child process, on ports of its own, in a directory of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use super::sink::{self, Line};
use super::{PATIENCE, wait_for};

/// What outlives a run of the server: the data directory, the configuration, the sink's file. Deleted when dropped.
pub(crate) struct Home {
    dir: TempDir,
}

/// One run of the server. Killed with SIGKILL when dropped.
pub(crate) struct Server {
    child: Arc<Mutex<Child>>,
    pub(crate) udp: SocketAddr,
    pub(crate) admin: SocketAddr,
    stderr: PathBuf,
    stdout: Receiver<String>,
}

impl Home {
    /// With the defaults and a file sink.
    pub(crate) fn new() -> Self {
        Self::with_config("")
    }

    /// With a configuration file. Listening addresses, directory and sink are given as flags.
    pub(crate) fn with_config(toml: &str) -> Self {
        Self::below(&std::env::temp_dir(), toml)
    }

    /// As `with_config`, in a new directory below another one.
    pub(crate) fn below(parent: &Path, toml: &str) -> Self {
        let home = Self { dir: tempfile::tempdir_in(parent).expect("a temporary directory") };
        fs::create_dir(home.disk()).expect("a new directory");
        home.configure(toml);
        home
    }

    /// Another configuration file for the next run.
    pub(crate) fn configure(&self, toml: &str) {
        fs::write(self.config(), toml).expect("the configuration is written");
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("duragram.toml")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// All that the server writes, but its log: the journal's directory and the sink's file.
    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// The journal lies in this directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.disk().join("data")
    }

    /// What the server logs, run after run.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }

    /// The file sink writes to this file.
    pub(crate) fn out(&self) -> PathBuf {
        self.disk().join("out.ndjson")
    }

    /// What has come out of the sink, in its order: whole lines only.
    pub(crate) fn lines(&self) -> Vec<Line> {
        sink::read(&self.out())
    }

    /// Waits until `n` lines have come out, and returns all there are.
    pub(crate) fn wait_lines(&self, n: usize) -> Vec<Line> {
        wait_for(&format!("{n} lines in the sink"), || Some(self.lines()).filter(|lines| lines.len() >= n))
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// As `serve`, with more flags.
    pub(crate) fn serve_with(&self, flags: &[&str]) -> Server {
        let mut command = self.command(&self.data());
        command.args(flags);
        Server::start(self, command)
    }

    /// As `serve`, with the journal elsewhere.
    pub(crate) fn serve_data(&self, data: &Path) -> Server {
        Server::start(self, self.command(data))
    }

    /// Starts the server with other sinks than the file.
    pub(crate) fn serve_sinks(&self, sinks: &[&str]) -> Server {
        Server::start(self, self.command_with_sinks(&self.data(), sinks))
    }

    /// `duragram serve` with this home's arguments, not started.
    pub(crate) fn command(&self, data: &Path) -> Command {
        self.command_with_sinks(data, &[&self.file_sink()])
    }

    /// The file sink goes by this name, which is its short form.
    pub(crate) fn file_sink(&self) -> String {
        format!("file:{}", self.out().display())
    }

    /// As `command`, with other sinks than the file; with none, those of the configuration file.
    pub(crate) fn command_with_sinks(&self, data: &Path, sinks: &[&str]) -> Command {
        let mut command = duragram();
        command.arg("serve").arg("--config").arg(self.config()).args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        command.arg("--data").arg(data);
        for sink in sinks {
            command.args(["--sink", sink]);
        }
        command
    }
}

/// The binary, free of the environment's `DURAGRAM_*`.
pub(crate) fn duragram() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duragram"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DURAGRAM_") {
            command.env_remove(name);
        }
    }
    command
}

impl Server {
    fn start(home: &Home, command: Command) -> Self {
        Self::try_start(home, command).unwrap_or_else(|status| {
            let log = fs::read_to_string(home.log_path()).unwrap_or_default();
            panic!("the server is not ready: {status}\n{log}");
        })
    }

    /// Runs one of the home's commands; its exit status when it ends before it is ready, or is not ready in time.
    pub(crate) fn try_start(home: &Home, command: Command) -> Result<Self, ExitStatus> {
        Self::try_start_given(home, command, Stdio::null())
    }

    /// As `try_start`, with something as its stdin.
    pub(crate) fn try_start_given(home: &Home, mut command: Command, stdin: Stdio) -> Result<Self, ExitStatus> {
        let stderr = home.log_path();
        let log = File::options().create(true).append(true).open(&stderr).expect("a log file");
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(log).spawn().expect("the binary");
        let stdout = lines_of(child.stdout.take().expect("stdout is piped"));
        let Ok(ready) = stdout.recv_timeout(PATIENCE) else {
            // When it has ended this does nothing.
            child.kill().ok();
            return Err(child.wait().expect("our own child"));
        };
        let (udp, admin) = parse_ready(&ready).unwrap_or_else(|| panic!("not the ready line: {ready}"));
        Ok(Self { child: Arc::new(Mutex::new(child)), udp, admin, stderr, stdout })
    }

    /// The next line on stdout after the ready line; `None` at its end.
    pub(crate) fn stdout_line(&self) -> Option<String> {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("waited {PATIENCE:?} for a line on stdout"),
        }
    }

    /// SIGKILL: no time for a last word.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// SIGKILL from elsewhere, within microseconds.
    pub(crate) fn killer(&self) -> impl Fn() + Send + Sync + 'static {
        let child = Arc::clone(&self.child);
        move || child.lock().expect("nobody panicked with it").kill().expect("our own child")
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Sends a signal, such as "HUP".
    pub(crate) fn signal(&self, name: &str) {
        // The child is not waited for yet, so the pid is still its own.
        let pid = self.child().id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("the kill command").success());
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn wait(&self) -> ExitStatus {
        wait_for("the server's end", || self.child().try_wait().expect("our own child"))
    }

    /// The process of the server has this id.
    pub(crate) fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Whether the process of the server still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.child().try_wait().expect("our own child").is_none()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().expect("nobody panicked with it")
    }

    /// All that was logged in this home.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// The body of a GET on the admin address.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut response = ureq::get(format!("http://{}{path}", self.admin)).call().expect("the admin interface");
        response.body_mut().read_to_string().expect("text")
    }

    /// A metric's value, summed over its labels that contain `label` (all when empty); 0 when it is not there.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics");
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (series_name, labels) = series.split_once('{').unwrap_or((series, ""));
            (series_name == name && labels.contains(label)).then(|| value.parse::<f64>().expect("a number"))
        });
        samples.sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.kill().ok();
        child.wait().ok();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// The lines of a pipe as they come; the pipe is always read, so that the writer never blocks.
fn lines_of(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn parse_ready(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (udp, admin) = line.strip_prefix("duragram ready udp=")?.split_once(" admin=")?;
    Some((udp.parse().ok()?, admin.parse().ok()?))
}
