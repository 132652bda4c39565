//! What a sink is configured as: its name, where it writes to, what it takes, and how far it may fall behind. How its keys are
//! written the configuration knows, what becomes of a record the sinks.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::Offset;

/// Which sink a cursor, a dead letter or a loss belongs to, in one journal and forever. Drawn at random when a name is first
/// configured: a name that was removed and comes again is another sink.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SinkId(pub u128);

impl SinkId {
    /// The handler of a program that embeds the server. Its shards are the lanes.
    pub const EMBEDDED: Self = Self(0);

    /// Reads it as it is shown: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for SinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A sink as it is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkConfig {
    /// Names its cursor, forever: letters, digits, `-`, `_`, `.`; a short form (`file:PATH`) is its own name.
    pub name: String,
    /// Its records go to this target.
    pub target: SinkTarget,
    /// The channels whose records it takes; empty means all.
    pub channels: Vec<RangeInclusive<u16>>,
    /// Where it begins, at its first start only.
    pub start: SinkStart,
    /// The longest that one call to the target may take.
    pub timeout: Duration,
    /// How records are put together for one call.
    pub batch: BatchConfig,
    /// Attempts at one record before it becomes a dead letter; outages do not count. 0: as `retry.attempts_max` says.
    pub attempts_max: u16,
    /// How much of the journal it may hold.
    pub backlog: BacklogConfig,
}

impl SinkConfig {
    /// Lets no `exec` among these sinks see the variables from which any of them reads a secret.
    pub fn withhold_secrets(sinks: &mut [Self]) {
        let variable = |secret: &Secret| match secret {
            Secret::Env(name) => Some(name.clone()),
            Secret::File(_) | Secret::Credential(_) => None,
        };
        let variables: Vec<String> =
            sinks.iter().filter_map(|sink| sink.target.secret()).filter_map(variable).collect();
        for sink in sinks {
            if let SinkTarget::Exec(exec) = &mut sink.target {
                exec.withheld.clone_from(&variables);
            }
        }
    }
}

/// Where a new sink begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SinkStart {
    /// At the lowest entry that is kept.
    #[default]
    Oldest,
    /// It takes what comes after its first start, and nothing older.
    Now,
    /// At this offset, or the lowest one kept.
    At(Offset),
}

/// How records are put together for one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchConfig {
    /// Records from which on a call gets no further entry.
    pub records_max: usize,
    /// The same in bytes of the entries.
    pub bytes_max: usize,
    /// How long a record may wait for others to join it. Zero: a call takes what is there.
    pub delay_max: Duration,
}

/// How much of the journal a sink may hold that it has not processed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BacklogConfig {
    /// In bytes; `None`: as much as the disk has room for.
    pub bytes_max: Option<u64>,
    /// What happens at that bound.
    pub when_full: WhenFull,
}

/// What happens when a sink holds as much of the journal as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// New data is refused until the sink has come further: nothing is lost.
    #[default]
    Block,
    /// The sink loses its oldest entries, which is recorded.
    DropOldest,
    /// The sink holds nothing any more: what is trimmed before it comes back is lost to it, which is recorded.
    Detach,
}

/// Where a sink writes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SinkTarget {
    /// Takes every record and keeps none.
    Null,
    /// Lines of JSON on standard output.
    Stdout,
    /// Lines of JSON in what is at the path.
    File(PathBuf),
    /// Requests to an HTTP server.
    Http(HttpTarget),
    /// Lines of JSON to a child process, which answers.
    Exec(ExecTarget),
    /// Rows of a table of PostgreSQL.
    Postgres(PostgresTarget),
    /// Messages of a JetStream stream.
    Nats(NatsTarget),
    /// Entries of a stream of Redis or Valkey.
    Redis(RedisTarget),
    /// Messages to an MQTT broker.
    Mqtt(MqttTarget),
}

impl SinkTarget {
    /// What it shows to be let in, where that is secret.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Null | Self::Stdout | Self::File(_) | Self::Exec(_) => None,
            Self::Http(HttpTarget { auth, .. }) => auth.as_ref().map(|auth| match auth {
                HttpAuth::Bearer(secret) | HttpAuth::Basic { password: secret, .. } => secret,
            }),
            Self::Nats(NatsTarget { auth, .. }) => auth.as_ref().map(|auth| match auth {
                NatsAuth::Token(secret) | NatsAuth::Credentials(secret) | NatsAuth::User { password: secret, .. } => {
                    secret
                }
            }),
            Self::Postgres(PostgresTarget { password, .. })
            | Self::Redis(RedisTarget { password, .. })
            | Self::Mqtt(MqttTarget { password, .. }) => password.as_ref(),
        }
    }
}

/// Where a secret is read from. What it says is never part of a configuration, and never shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Secret {
    /// A file that only root or the server's user may read; a line's end at its end is not part of it.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// A credential that systemd has loaded (`LoadCredential=`): a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// How the other end of a TLS connection is known, and how it knows us. Files are read at each connect.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsConfig {
    /// Certificate authorities, PEM; `None`: those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and those up to the root's, PEM; with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key of our certificate, PEM.
    pub key_file: Option<PathBuf>,
}

/// `http` sends records in requests to an HTTP server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpTarget {
    /// `http://` or `https://`, without user and password.
    pub url: String,
    /// It says whether a request carries one record or a batch.
    pub mode: HttpMode,
    /// `Content-Type` of a record's request. Default `application/octet-stream`.
    pub content_type: String,
    /// Further headers of each request.
    pub headers: Vec<(String, String)>,
    /// How the server knows us.
    pub auth: Option<HttpAuth>,
    /// It holds for `https://` alone.
    pub tls: TlsConfig,
    /// Bodies are compressed with gzip.
    pub gzip: bool,
    /// Requests under way at a time; above 1 records arrive in any order. Default 1.
    pub in_flight_max: usize,
}

/// What one HTTP request carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HttpMode {
    /// One record, its payload as it came.
    #[default]
    Record,
    /// Many records, a line of JSON each.
    Batch,
}

/// How an HTTP server knows us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpAuth {
    /// Requests carry `Authorization: Bearer TOKEN`.
    Bearer(Secret),
    /// Requests carry `Authorization: Basic …`, made of both.
    Basic {
        /// The HTTP server knows us by this name.
        user: String,
        /// The HTTP server checks this password.
        password: Secret,
    },
}

/// `exec` gives records to a child process, and reads its answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecTarget {
    /// `sh -c` runs this command.
    pub command: String,
    /// Variables of the environment that it does not get: those in which other sinks have secrets. No key of the configuration;
    /// [`SinkConfig::withhold_secrets`] fills it.
    pub withheld: Vec<String>,
}

/// `postgres` writes records as rows of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresTarget {
    /// It is `postgres://USER@HOST[:PORT][,HOST…]/DATABASE`, without a password.
    pub url: String,
    /// PostgreSQL checks this password; `None` where it wants none.
    pub password: Option<Secret>,
    /// The table, as `TABLE` or `SCHEMA.TABLE`. Made when it is missing.
    pub table: String,
    /// The type of the column `payload`.
    pub payload: PostgresPayload,
    /// Whether and how the connection is encrypted; `None`: it is not.
    pub tls: Option<TlsConfig>,
}

/// The type of the column `payload`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PostgresPayload {
    /// The column is `bytea`, which takes any bytes.
    #[default]
    Bytea,
    /// `jsonb`: a payload that is not JSON, or that PostgreSQL cannot keep as such, becomes a dead letter.
    Jsonb,
}

/// `nats` publishes records as messages of a JetStream stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsTarget {
    /// `nats://HOST[:PORT]` or `tls://…`, several separated by commas; without user and password.
    pub url: String,
    /// How the server knows us.
    pub auth: Option<NatsAuth>,
    /// The subject of each message.
    pub subject: String,
    /// The stream. With `exclusive` it is made when it is missing.
    pub stream: String,
    /// Nobody else writes to the stream: then each record is in it exactly once. Else repetitions are known for as long as the
    /// stream remembers message ids.
    pub exclusive: bool,
    /// For `tls://`, and when the server asks for it.
    pub tls: TlsConfig,
}

/// How a NATS server knows us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NatsAuth {
    /// A token that its operator has given us.
    Token(Secret),
    /// A user and a password.
    User {
        /// The NATS server knows us by this name.
        user: String,
        /// The NATS server checks this password.
        password: Secret,
    },
    /// The content of a `.creds` file: a JWT and a seed.
    Credentials(Secret),
}

/// `redis`: entries of a stream of Redis or Valkey.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisTarget {
    /// `redis://HOST[:PORT][/DB]` or `rediss://…`, without user and password.
    pub url: String,
    /// The user, where there are several (ACL).
    pub user: Option<String>,
    /// The user's password, or the server's.
    pub password: Option<Secret>,
    /// What the stream's key begins with; the journal's id follows.
    pub key: String,
    /// Entries that the stream keeps at least (`MAXLEN ~`); `None`: all.
    pub entries_max: Option<u64>,
    /// It holds for `rediss://` alone.
    pub tls: TlsConfig,
}

/// `mqtt`: messages to a broker, QoS 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MqttTarget {
    /// `mqtt://HOST[:PORT]` or `mqtts://…`, without user and password.
    pub url: String,
    /// The broker knows us by this name; `None` where it wants none.
    pub user: Option<String>,
    /// The broker checks this password; `None` where it wants none.
    pub password: Option<Secret>,
    /// The topic of each message; `{client}`, `{epoch}`, `{channel}`, `{journal}`, `{offset}`, `{index}` and `{seq}` stand for the
    /// record's own.
    pub topic: String,
    /// The client id at the broker; `None`: one made of the journal and the sink, the same at every start.
    pub client_id: Option<String>,
    /// It holds for `mqtts://` alone.
    pub tls: TlsConfig,
}
