//! A connection to the server, and what is read through it.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use ::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use ::redis::streams::StreamInfoStreamReply;
use ::redis::{
    Client, ClientTlsConfig, Cmd, ConnectionInfo, IntoConnectionInfo as _, RedisError, TlsCertificates, Value,
};
use ::redis::{ConnectionAddr, from_redis_value, from_redis_value_ref};

use super::trouble;
use crate::host::secret_file;
use crate::limits;
use crate::model::RedisTarget;
use crate::process::handler::HandlerError;
use crate::sink::position::EntryId;
use crate::sink::{secret, tls};

/// An open connection. After any error it is of no use any more: what it reads next may answer an earlier question.
pub(super) struct Connection {
    inner: ::redis::Connection,
    timeout: Duration,
    since: Instant,
}

/// What the server says of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// The highest id that it has taken, whether the entry is still there or not.
    pub(super) last: EntryId,
    /// The last entry that is still there, by its id, client, epoch and seq.
    pub(super) entry: Option<(EntryId, [String; 3])>,
}

impl Connection {
    /// Connects: resolves the name, reads password and certificates, and logs in.
    pub(super) fn open(target: &RedisTarget, timeout: Duration) -> Result<Self, HandlerError> {
        let client = client(target, timeout)?;
        let inner =
            client.get_connection_with_timeout(timeout).map_err(|e| HandlerError::new(trouble::of_connection(&e)))?;
        let set = inner.set_read_timeout(Some(timeout)).and_then(|()| inner.set_write_timeout(Some(timeout)));
        set.map_err(HandlerError::new)?;
        Ok(Self { inner, timeout, since: Instant::now() })
    }

    /// Whether to connect anew at the next opportunity, so that a changed name or certificate is noticed.
    pub(super) fn is_old(&self) -> bool {
        self.since.elapsed() >= limits::SINK_CONNECTION_AGE
    }

    /// Sends packed commands whose replies are read with those to the next ones.
    pub(super) fn send(&mut self, commands: &[u8]) -> Result<(), RedisError> {
        self.inner.send_packed_command(commands)
    }

    /// Sends packed commands and reads so many replies, those that are errors included.
    ///
    /// The library's own way goes on reading after a timeout, once for each reply that is still to come.
    pub(super) fn ask(&mut self, commands: &[u8], replies: usize) -> Result<Vec<Value>, RedisError> {
        let deadline = Instant::now() + self.timeout;
        self.inner.send_packed_command(commands)?;
        let mut answers = Vec::with_capacity(replies);
        while answers.len() < replies {
            answers.push(self.inner.recv_response()?);
            if Instant::now() > deadline && answers.len() < replies {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
        }
        Ok(answers)
    }

    /// Sends commands and returns what each was answered.
    pub(super) fn ask_all<const N: usize>(&mut self, commands: [&Cmd; N]) -> Result<[Value; N], RedisError> {
        let mut packed = Vec::new();
        for command in commands {
            command.write_packed_command(&mut packed);
        }
        let answers = self.ask(&packed, N)?;
        <[Value; N]>::try_from(answers).map_err(|_| trouble::strange("commands"))
    }
}

fn client(target: &RedisTarget, timeout: Duration) -> Result<Client, HandlerError> {
    let info: ConnectionInfo = target.url.as_str().into_connection_info().map_err(HandlerError::new)?;
    let mut login = info.redis_settings().clone();
    if let Some(user) = &target.user {
        login = login.set_username(user);
    }
    if let Some(password) = &target.password {
        login = login.set_password(secret::read(password)?.as_str());
    }
    // Linux counts them in seconds, and refuses 0.
    let pause = timeout.max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(pause).with_interval(pause);
    let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(timeout).set_keepalive(keepalive);
    let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    let info = info.set_redis_settings(login).set_tcp_settings(tcp);
    if !encrypted {
        return Client::open(info).map_err(HandlerError::new);
    }
    // The library puts together its own configuration from the same files; this one names what is wrong with them.
    tls::client_config(&target.tls)?;
    let failed =
        |path: &std::path::Path, error: io::Error| HandlerError::new(format_args!("{}: {error}", path.display()));
    let root_cert = match &target.tls.ca_file {
        Some(path) => Some(fs::read(path).map_err(|error| failed(path, error))?),
        None => None,
    };
    let client_tls = match (&target.tls.cert_file, &target.tls.key_file) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: fs::read(certificate).map_err(|error| failed(certificate, error))?,
            client_key: secret_file::read(key, limits::SECRET_BYTES).map_err(HandlerError::new)?.to_vec(),
        }),
        _ => None,
    };
    Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }).map_err(HandlerError::new)
}

/// What XINFO STREAM answered; `None`: there is no such stream.
pub(super) fn found(answer: Value) -> Result<Option<Found>, RedisError> {
    if let Value::ServerError(error) = &answer
        && trouble::is_no_such_key(error)
    {
        return Ok(None);
    }
    let info: StreamInfoStreamReply = from_redis_value(answer.extract_error()?)?;
    let last = EntryId::parse(&info.last_generated_id).ok_or_else(|| trouble::strange("XINFO STREAM"))?;
    let field = |name| info.last_entry.map.get(name).and_then(|value| from_redis_value_ref(value).ok());
    let entry = match (EntryId::parse(&info.last_entry.id), field("client"), field("epoch"), field("seq")) {
        (Some(id), Some(client), Some(epoch), Some(seq)) => Some((id, [client, epoch, seq])),
        _ => None,
    };
    Ok(Some(Found { last, entry }))
}
