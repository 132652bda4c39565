//! A PostgreSQL of the tests' own, on a free port, with its data in a temporary directory. It ends with the test program, also
//! when that is killed: a shell waits for the end of a pipe, and ends the server by its process id.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Ends the server at a word, or when whoever could say it is gone: then it removes the directory, too.
const SHELL: &str = r#"directory=$1; shift; "$@" </dev/null & server=$!; read -r word; kill -QUIT $server; wait $server
[ "$word" = stop ] || rm -rf "$directory""#;

/// The server's directories, settings and process.
pub(crate) struct Cluster {
    directory: TempDir,
    port: u16,
    running: Option<(Child, ChildStdin)>,
}

impl Cluster {
    /// The one that the tests share which do it no harm.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    /// One for a test that ends it. The user `locked` needs a password, the superuser `postgres` does not.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-days",
            "2",
        ]);
        openssl.args(["-subj", "/CN=db", "-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key", "-out", "certificate"]);
        succeed(openssl.current_dir(directory.path()));
        if geteuid().is_root() {
            succeed(Command::new("chown").args(["-R", "postgres"]).arg(directory.path()));
        }
        let data = directory.path().join("data");
        let mut initdb = as_server_user("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"]);
        succeed(initdb.arg(&data));
        let rules = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("the rules are written");
        fs::write(data.join("postgresql.auto.conf"), "fsync = off\n").expect("the settings are written");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let mut cluster = Self { directory, port, running: None };
        cluster.start();
        cluster
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The certificate that it shows, for 127.0.0.1 alone.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate")
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log"));
        let log = log.expect("its log");
        let mut server = as_server_user("postgres");
        server.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "unix_socket_directories=", "-c", "max_connections=200"]);
        for (setting, file) in [("ssl_cert_file", "certificate"), ("ssl_key_file", "key")] {
            server.args(["-c", &format!("{setting}={}", self.directory.path().join(file).display())]);
        }
        server.args(["-c", "ssl=on"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", SHELL, "sh"]).arg(self.directory.path());
        shell.arg(server.get_program()).args(server.get_args());
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().expect("a shell");
        let stdin = child.stdin.take().expect("a pipe");
        self.running = Some((child, stdin));
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = self.try_sql("postgres", "SELECT 1") {
            assert!(Instant::now() < deadline, "the server does not start: {error}\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would: without a checkpoint, every connection cut.
    pub(crate) fn crash(&mut self) {
        let pid = fs::read_to_string(self.data().join("postmaster.pid")).expect("its process id");
        let pid: i32 = pid.lines().next().and_then(|line| line.trim().parse().ok()).expect("a number");
        kill(Pid::from_raw(pid), Signal::SIGQUIT).expect("it is there");
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.data().join("postmaster.pid").exists() {
            assert!(Instant::now() < deadline, "the server does not end");
            thread::sleep(Duration::from_millis(5));
        }
        self.stop();
    }

    fn stop(&mut self) {
        if let Some((mut child, mut stdin)) = self.running.take() {
            stdin.write_all(b"stop\n").expect("the shell reads");
            drop(stdin);
            child.wait().expect("the shell ends");
        }
    }

    /// Makes a database that no other test has, and returns its name.
    pub(crate) fn database(&self) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", MADE.fetch_add(1, Ordering::SeqCst));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs statements; returns the rows, their columns separated by `|`.
    pub(crate) fn sql(&self, database: &str, text: &str) -> Vec<String> {
        self.try_sql(database, text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn try_sql(&self, database: &str, text: &str) -> Result<Vec<String>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let url = format!("postgres://postgres@{}/{database}", self.address());
        runtime.block_on(async {
            let connected = tokio_postgres::connect(&url, NoTls).await;
            let (client, connection) = connected.map_err(|error| format!("{error:?}"))?;
            let carrier = tokio::spawn(connection);
            let answers = client.simple_query(text).await.map_err(|error| format!("{error:?}"))?;
            carrier.abort();
            let row = |answer| match answer {
                SimpleQueryMessage::Row(row) => {
                    let columns: Vec<_> = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect();
                    Some(columns.join("|"))
                }
                _ => None,
            };
            Ok(answers.into_iter().filter_map(row).collect())
        })
    }

    /// Runs psql with these commands in its input.
    pub(crate) fn psql(&self, database: &str, commands: &str) {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-d", database, "-p"]);
        let mut child = psql
            .arg(self.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("psql is installed");
        child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("psql reads");
        assert!(child.wait().expect("psql ends").success(), "{commands}");
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// PostgreSQL refuses to run as root.
fn as_server_user(program: &str) -> Command {
    let path = binaries().join(program);
    if !geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(path);
    command
}

/// Where the newest version's programs are.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: scripts/test does it");
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(|path| number(path));
    newest.expect("a version of PostgreSQL").join("bin")
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
