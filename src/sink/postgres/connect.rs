//! Connections to the server: made anew each time from names, password and certificates as they are then, and within a time.

use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::{secret, tls};
use super::errors::{Trouble, describe};
use crate::model::{PostgresTarget, Secret, TlsConfig};
use crate::process::handler::HandlerError;

/// How long to wait for the reason why a connection was closed.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Where and as whom to connect.
pub(super) struct Server {
    user: Option<String>,
    database: Option<String>,
    options: Option<String>,
    hosts: Vec<(Host, u16)>,
    password: Option<Secret>,
    tls: Option<TlsConfig>,
    timeout: Duration,
}

/// A connection. It is closed when dropped.
pub(super) struct Link {
    pub(super) client: Client,
    carrier: JoinHandle<Result<(), Error>>,
    since: Instant,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// The answer did not come within this time.
    Late(Duration),
    /// PostgreSQL refused, or the connection broke.
    Error(Error),
}

impl Server {
    /// # Errors
    /// The URL cannot be meant.
    pub(super) fn new(target: &PostgresTarget, timeout: Duration) -> Result<Self, HandlerError> {
        // The URL is not shown: somebody may have written a password into it.
        let config: Config = target.url.parse().map_err(|error| {
            HandlerError::new(format_args!(
                "the URL cannot be read, which must be postgres://USER@HOST[:PORT][,HOST…]/DATABASE: {}",
                describe(&error)
            ))
        })?;
        if config.get_password().is_some() {
            return Err(HandlerError::new(
                "the URL holds a password, which everyone could read: give it as `password` (a file, a variable, a credential)",
            ));
        }
        let port = |i: usize| config.get_ports().get(i).or(config.get_ports().first()).copied().unwrap_or(5432);
        let hosts: Vec<_> = config.get_hosts().iter().cloned().enumerate().map(|(i, host)| (host, port(i))).collect();
        if hosts.is_empty() {
            return Err(HandlerError::new(
                "the URL names no host, and must be postgres://USER@HOST[:PORT][,HOST…]/DATABASE",
            ));
        }
        Ok(Self {
            user: config.get_user().map(str::to_owned),
            database: config.get_dbname().map(str::to_owned),
            options: config.get_options().map(str::to_owned),
            hosts,
            password: target.password.clone(),
            tls: target.tls.clone(),
            timeout,
        })
    }

    /// Connects to the first host that takes writes. All of them together get the timeout: one that is frozen leaves the others
    /// their share.
    pub(super) fn connect(&self, runtime: &Runtime) -> Result<Link, Trouble> {
        let unreadable = |error: HandlerError| Trouble::Away(error.to_string());
        let password = self.password.as_ref().map(secret::read).transpose().map_err(unreadable)?;
        let tls = self.tls.as_ref().map(tls::client_config).transpose().map_err(unreadable)?;
        let share = self.timeout / u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let mut failures = Vec::new();
        for (host, port) in &self.hosts {
            let mut config = self.config(host, *port, share);
            if let Some(password) = &password {
                config.password(password.as_bytes());
            }
            let failure = match runtime.block_on(async { timeout(share, open(&config, tls.clone())).await }) {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => describe(&error),
                Err(_) => format!("no answer within {share:?}"),
            };
            let host = match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            };
            failures.push(format!("connecting to PostgreSQL at {host}:{port}: {failure}"));
        }
        Err(Trouble::Away(failures.join("; ")))
    }

    fn config(&self, host: &Host, port: u16, share: Duration) -> Config {
        let mut config = Config::new();
        if let Some(user) = &self.user {
            config.user(user);
        }
        if let Some(database) = &self.database {
            config.dbname(database);
        }
        if let Some(options) = &self.options {
            config.options(options);
        }
        match host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(path) => config.host_path(path),
        };
        config
            .port(port)
            .application_name("duragram")
            .ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(share)
            .tcp_user_timeout(self.timeout)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        config
    }
}

async fn open(config: &Config, tls: Option<ClientConfig>) -> Result<Link, Error> {
    let since = Instant::now();
    let (client, carrier) = match tls {
        Some(tls) => {
            let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
            (client, tokio::spawn(connection))
        }
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            (client, tokio::spawn(connection))
        }
    };
    Ok(Link { client, carrier, since })
}

impl Link {
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether the server has closed it meanwhile.
    pub(super) fn has_ended(&self, runtime: &Runtime) -> bool {
        runtime.block_on(async {
            // Once to see what has come, once more for the carrier to read it.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        });
        self.client.is_closed()
    }

    /// What the failure was. Of a connection that was closed the server's last words tell why.
    pub(super) fn explain(&mut self, runtime: &Runtime, failure: &Failure) -> String {
        match failure {
            Failure::Late(time) => format!("PostgreSQL has not answered within {time:?}"),
            Failure::Error(error) if error.is_closed() => {
                let end = runtime.block_on(async { timeout(LAST_WORDS, &mut self.carrier).await });
                match end {
                    Ok(Ok(Err(error))) => format!("the connection to PostgreSQL was closed: {}", describe(&error)),
                    _ => "the connection to PostgreSQL was closed".into(),
                }
            }
            Failure::Error(error) => describe(error),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It would wait for ever for a peer that is frozen. It goes when the runtime is used next.
        self.carrier.abort();
    }
}

/// Runs what asks the server something, and no longer than that.
pub(super) fn within<T>(
    runtime: &Runtime,
    time: Duration,
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match runtime.block_on(async { timeout(time, asking).await }) {
        Ok(answer) => answer.map_err(Failure::Error),
        Err(_) => Err(Failure::Late(time)),
    }
}
