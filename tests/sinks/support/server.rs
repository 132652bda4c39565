//! Servers that a test starts for itself on a free port, kills, and starts again on the same data.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use tempfile::TempDir;

/// A server of a test's own. It ends with its data when it is dropped.
pub(crate) struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    directory: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Starts a program with what `arguments` makes of its directory and port, and waits until it takes connections.
    pub(crate) fn start(program: PathBuf, arguments: impl FnOnce(&Path, u16) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        drop(listener);
        let arguments = arguments(directory.path(), address.port());
        let mut server = Self { program, arguments, directory, address, child: None };
        server.restart();
        server
    }

    /// The server listens on this address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as a power cut ends a process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it has ended");
        }
    }

    /// Starts it again on the same data and port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let log = fs::File::options().create(true).append(true).open(self.directory.path().join("log")).expect("a log");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone().expect("a copy")).stderr(log);
        let started = command.spawn();
        self.child = Some(started.unwrap_or_else(|error| {
            panic!("{}: {error}; scripts/test installs what tests need", self.program.display())
        }));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{} does not start: {}",
                self.program.display(),
                log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program that scripts/test has put aside for tests: named by a variable, in the path, or where it was put.
pub(crate) fn tool(variable: &str, name: &str, place: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file());
    let cache =
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/duragram-tools").join(place).join(name);
    in_path.unwrap_or_else(cache)
}
