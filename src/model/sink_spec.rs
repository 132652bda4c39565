//! A sink in one word: what `--sink` and a text in the list `sink` say. And what every sink is unless it is said otherwise.

use std::str::FromStr;
use std::time::Duration;

use super::sink_url::{SinkUrl, decoded};
use super::{
    BacklogConfig, BatchConfig, ExecTarget, HttpMode, HttpTarget, MqttTarget, NatsAuth, NatsTarget, PostgresPayload,
    PostgresTarget, RedisTarget, Secret, SinkConfig, SinkStart, SinkTarget, TlsConfig,
};

/// Every short form, as help and errors list them.
const FORMS: &str = "stdout, file:PATH, null, http://HOST/PATH, exec:COMMAND, postgres://USER@HOST/DATABASE?table=NAME, \
                     nats://HOST/STREAM?subject=NAME, redis://HOST?key=NAME, mqtt://HOST/TOPIC";

/// Why a text is no sink. No error shows more of a URL than its scheme: there may be a password in the rest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SinkSpecError {
    /// There is no sink of this name.
    #[error("unknown sink \"{0}\": there are {FORMS}")]
    Unknown(String),
    /// It is `file:`, and no path follows.
    #[error("sink \"file:\" lacks its path: write file:PATH, such as file:/var/log/duragram.ndjson")]
    NoPath,
    /// It is `exec:`, and no command follows.
    #[error("sink \"exec:\" lacks its command: write exec:COMMAND, such as 'exec:python3 handler.py'")]
    NoCommand,
    /// Its URL has no host, or a port that is no number.
    #[error("sink {scheme}://… is no URL with a host: write {form}")]
    NoUrl {
        /// This stands before `://`, and says which sink it is.
        scheme: String,
        /// The sink is to be written like this.
        form: &'static str,
    },
    /// A password stands in it.
    #[error(
        "sink {scheme}://… has a password in its URL, where logs and lists of processes show it: take it out, and {instead}"
    )]
    Password {
        /// This stands before `://`, and says which sink it is.
        scheme: String,
        /// The password is to be given like this.
        instead: &'static str,
    },
    /// Something that it needs is not there.
    #[error("sink {scheme}://… lacks {what}: write {form}")]
    Lacks {
        /// This stands before `://`, and says which sink it is.
        scheme: String,
        /// It cannot do without this.
        what: &'static str,
        /// The sink is to be written like this.
        form: &'static str,
    },
    /// A parameter is unknown, given twice or says what it cannot say.
    #[error("sink {scheme}://…: {name}: {problem}")]
    Parameter {
        /// This stands before `://`, and says which sink it is.
        scheme: String,
        /// The parameter has this name in the URL.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl SinkConfig {
    /// A sink with every default: all channels, from the oldest entry on, batches as its target likes them, no bound but the
    /// disk's.
    pub fn new(name: impl Into<String>, target: SinkTarget) -> Self {
        Self {
            name: name.into(),
            channels: Vec::new(),
            start: SinkStart::Oldest,
            timeout: Duration::from_secs(30),
            batch: target.batch(),
            attempts_max: 0,
            backlog: BacklogConfig::default(),
            target,
        }
    }

    /// Whether its name alone says all of it.
    pub fn is_short(&self) -> bool {
        self.name.parse().is_ok_and(|short: Self| short == *self)
    }
}

impl SinkTarget {
    /// Its type as the configuration writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Stdout => "stdout",
            Self::File(_) => "file",
            Self::Http(_) => "http",
            Self::Exec(_) => "exec",
            Self::Postgres(_) => "postgres",
            Self::Nats(_) => "nats",
            Self::Redis(_) => "redis",
            Self::Mqtt(_) => "mqtt",
        }
    }

    /// How often a record reaches the target, whatever crashes: `exact` means once.
    pub fn promise(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Stdout | Self::Exec(_) | Self::Mqtt(_) => "at least once",
            Self::Http(_) => "at least once (each request carries its name in Idempotency-Key)",
            Self::File(_) | Self::Postgres(_) => "exact",
            Self::Nats(target) if target.exclusive => "exact",
            Self::Nats(_) => "window",
            Self::Redis(_) => "exact while the key lives",
        }
    }

    /// Where a call costs a round trip records may wait for others to share it; where it costs none they do not.
    fn batch(&self) -> BatchConfig {
        let together = BatchConfig { records_max: 1000, bytes_max: 1 << 20, delay_max: Duration::from_millis(20) };
        match self {
            Self::Postgres(_) | Self::Nats(_) | Self::Redis(_) => together,
            Self::Http(target) if target.mode == HttpMode::Batch => together,
            Self::Http(_) | Self::Mqtt(_) => BatchConfig { delay_max: Duration::ZERO, ..together },
            Self::Null | Self::Stdout | Self::File(_) | Self::Exec(_) => {
                BatchConfig { records_max: 1024, bytes_max: 1 << 20, delay_max: Duration::ZERO }
            }
        }
    }
}

impl HttpTarget {
    /// A target with every default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            mode: HttpMode::Record,
            content_type: "application/octet-stream".to_owned(),
            headers: Vec::new(),
            auth: None,
            tls: TlsConfig::default(),
            gzip: false,
            in_flight_max: 1,
        }
    }
}

impl FromStr for SinkConfig {
    type Err = SinkSpecError;

    fn from_str(text: &str) -> Result<Self, SinkSpecError> {
        let target = match (text, text.split_once(':')) {
            ("null", _) => SinkTarget::Null,
            ("stdout", _) => SinkTarget::Stdout,
            (_, Some(("file", ""))) => return Err(SinkSpecError::NoPath),
            (_, Some(("file", path))) => SinkTarget::File(path.into()),
            (_, Some(("exec", command))) if command.trim().is_empty() => return Err(SinkSpecError::NoCommand),
            (_, Some(("exec", command))) => {
                SinkTarget::Exec(ExecTarget { command: command.to_owned(), withheld: Vec::new() })
            }
            (_, Some((scheme, rest))) if rest.starts_with("//") => Form::of(scheme)?.target(text)?,
            // What looks like no sink may be anything, and still is no secret up to its first colon.
            (_, Some((scheme, _))) => return Err(SinkSpecError::Unknown(format!("{scheme}:…"))),
            (_, None) => return Err(SinkSpecError::Unknown(text.to_owned())),
        };
        Ok(Self::new(text, target))
    }
}

/// How the URLs of one kind of sink are written.
#[derive(Clone, Copy)]
enum Form {
    Http,
    Postgres,
    Nats,
    Redis,
    Mqtt,
}

impl Form {
    fn of(scheme: &str) -> Result<Self, SinkSpecError> {
        match scheme {
            "http" | "https" => Ok(Self::Http),
            "postgres" | "postgresql" => Ok(Self::Postgres),
            "nats" => Ok(Self::Nats),
            "redis" | "rediss" => Ok(Self::Redis),
            "mqtt" | "mqtts" => Ok(Self::Mqtt),
            _ => Err(SinkSpecError::Unknown(format!("{scheme}://…"))),
        }
    }

    fn written(self) -> &'static str {
        match self {
            Self::Http => "http://HOST:PORT/PATH or https://HOST/PATH",
            Self::Postgres => "postgres://USER@HOST:PORT/DATABASE?table=NAME",
            Self::Nats => "nats://HOST:PORT/STREAM?subject=NAME",
            Self::Redis => "redis://HOST:PORT/DB?key=NAME",
            Self::Mqtt => "mqtt://HOST:PORT/TOPIC",
        }
    }

    fn target(self, text: &str) -> Result<SinkTarget, SinkSpecError> {
        let scheme = || text.split(':').next().unwrap_or_default().to_owned();
        let form = self.written();
        let url = SinkUrl::parse(text).ok_or_else(|| SinkSpecError::NoUrl { scheme: scheme(), form })?;
        if url.has_password || (url.user.is_some() && matches!(self, Self::Http)) {
            let instead = match self {
                Self::Http => "give user and password in a table [[sink]], with password = { env = \"NAME\" }",
                _ => "add password_env=NAME, password_file=PATH or password_credential=NAME after its ?",
            };
            return Err(SinkSpecError::Password { scheme: scheme(), instead });
        }
        if matches!(self, Self::Http) {
            return match url.parameters().map(|(name, _)| name).find(|name| names_a_secret(name)) {
                Some(name) => {
                    Err(SinkSpecError::Parameter { scheme: scheme(), name, problem: SECRET_IN_NAME.to_owned() })
                }
                None => Ok(SinkTarget::Http(HttpTarget::new(text))),
            };
        }
        let mut given = Parameters::of(url)?;
        let path = || Some(decoded(url.path)).filter(|path| !path.is_empty());
        let user = url.user.map(decoded);
        let password = given.password()?;
        let base = format!("{}://{}", url.scheme, url.hosts);
        let lacks = |what| SinkSpecError::Lacks { scheme: scheme(), what, form };
        let target = match self {
            Self::Postgres => SinkTarget::Postgres(PostgresTarget {
                table: given.take("table").ok_or_else(|| lacks("its table"))?,
                payload: given.payload()?,
                tls: given.postgres_tls()?,
                password,
                url: given.rest_to(&postgres_base(&url)),
            }),
            Self::Nats => SinkTarget::Nats(NatsTarget {
                url: base,
                auth: given.nats_auth(user, password)?,
                subject: given.take("subject").ok_or_else(|| lacks("its subject"))?,
                stream: path().ok_or_else(|| lacks("its stream"))?,
                exclusive: given.truth("exclusive")?,
                tls: TlsConfig::default(),
            }),
            Self::Redis => SinkTarget::Redis(RedisTarget {
                key: given.take("key").ok_or_else(|| lacks("its key"))?,
                url: if url.path.is_empty() { base } else { format!("{base}/{}", url.path) },
                user,
                password,
                entries_max: given.number("entries_max")?,
                tls: TlsConfig::default(),
            }),
            Self::Mqtt | Self::Http => SinkTarget::Mqtt(MqttTarget {
                url: base,
                user,
                password,
                topic: path().ok_or_else(|| lacks("its topic"))?,
                client_id: given.take("client_id"),
                tls: TlsConfig::default(),
            }),
        };
        given.none_left(form)?;
        Ok(target)
    }
}

/// Why a short form has no secret among its parameters.
const SECRET_IN_NAME: &str = "looks like a secret, and a short form is the sink's name, which logs, metrics and lists of processes \
                              show: write a table [[sink]] with a name and the url, or with a bearer token or a password if the \
                              receiver takes these";

/// Whether a parameter of this name gives access, as far as its name says.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let within = ["token", "secret", "signature", "passw", "credential"];
    within.iter().any(|part| name.contains(part))
        || name.ends_with("key")
        || matches!(name.as_str(), "sig" | "auth" | "code")
}

/// A URL of PostgreSQL without its parameters.
fn postgres_base(url: &SinkUrl<'_>) -> String {
    let user = url.user.map_or_else(String::new, |user| format!("{user}@"));
    format!("{}://{user}{}/{}", url.scheme, url.hosts, url.path)
}

/// The parameters of a URL, taken one by one.
struct Parameters {
    scheme: String,
    left: Vec<(String, String)>,
}

impl Parameters {
    fn of(url: SinkUrl<'_>) -> Result<Self, SinkSpecError> {
        let all = Self { scheme: url.scheme.to_owned(), left: url.parameters().collect() };
        for (n, (name, value)) in all.left.iter().enumerate() {
            if value.is_empty() {
                return Err(all.wrong(name, "says nothing"));
            }
            if all.left[..n].iter().any(|(other, _)| other == name) {
                return Err(all.wrong(name, "is given twice"));
            }
        }
        Ok(all)
    }

    fn wrong(&self, name: &str, problem: impl Into<String>) -> SinkSpecError {
        SinkSpecError::Parameter { scheme: self.scheme.clone(), name: name.to_owned(), problem: problem.into() }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.left.iter().position(|(other, _)| other == name)?;
        Some(self.left.remove(at).1)
    }

    /// The secret that the parameters of this beginning name: one of them at most.
    fn secret(&mut self, of: &str) -> Result<Option<Secret>, SinkSpecError> {
        let file = self.take(&format!("{of}_file")).map(|path| Secret::File(path.into()));
        let variable = self.take(&format!("{of}_env")).map(Secret::Env);
        let credential = self.take(&format!("{of}_credential")).map(Secret::Credential);
        let mut given = [file, variable, credential].into_iter().flatten();
        match (given.next(), given.next()) {
            (secret, None) => Ok(secret),
            _ => Err(self.wrong(of, format!("take one of {of}_file, {of}_env and {of}_credential"))),
        }
    }

    fn password(&mut self) -> Result<Option<Secret>, SinkSpecError> {
        self.secret("password")
    }

    fn payload(&mut self) -> Result<PostgresPayload, SinkSpecError> {
        match self.take("payload").as_deref() {
            None | Some("bytea") => Ok(PostgresPayload::Bytea),
            Some("jsonb") => Ok(PostgresPayload::Jsonb),
            Some(_) => Err(self.wrong("payload", "is either bytea or jsonb")),
        }
    }

    fn postgres_tls(&mut self) -> Result<Option<TlsConfig>, SinkSpecError> {
        let mode = self.take("sslmode");
        let ca_file = self.take("sslrootcert").map(Into::into);
        match mode.as_deref() {
            None if ca_file.is_none() => Ok(None),
            Some("disable") if ca_file.is_none() => Ok(None),
            None | Some("require" | "verify-ca" | "verify-full") => {
                Ok(Some(TlsConfig { ca_file, ..TlsConfig::default() }))
            }
            Some(_) => Err(self.wrong(
                "sslmode",
                "write require (encrypted, and the server's certificate is verified) or disable: nothing here falls back \
                 to plain text by itself",
            )),
        }
    }

    fn nats_auth(&mut self, user: Option<String>, password: Option<Secret>) -> Result<Option<NatsAuth>, SinkSpecError> {
        let (token, credentials) = (self.secret("token")?, self.secret("credentials")?);
        match (user, password, token, credentials) {
            (None, None, None, None) => Ok(None),
            (Some(user), Some(password), None, None) => Ok(Some(NatsAuth::User { user, password })),
            (None, None, Some(token), None) => Ok(Some(NatsAuth::Token(token))),
            (None, None, None, Some(credentials)) => Ok(Some(NatsAuth::Credentials(credentials))),
            _ => Err(self.wrong("password", "a server knows us by USER@ and a password, or a token, or credentials")),
        }
    }

    fn truth(&mut self, name: &str) -> Result<bool, SinkSpecError> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(self.wrong(name, "is either true or false")),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, SinkSpecError> {
        let Some(text) = self.take(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.wrong(name, "is no whole number"))
    }

    /// A URL with the parameters that are left, which are the target's own.
    fn rest_to(&mut self, base: &str) -> String {
        let own = |name: &str| POSTGRES_PARAMETERS.contains(&name);
        let parts: Vec<(String, String)> = self.left.iter().filter(|(name, _)| own(name)).cloned().collect();
        self.left.retain(|(name, _)| !own(name));
        let encoded = |text: &str| text.replace('%', "%25").replace('&', "%26").replace(' ', "%20").replace('#', "%23");
        let parts: Vec<String> = parts.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        if parts.is_empty() { base.to_owned() } else { format!("{base}?{}", parts.join("&")) }
    }

    fn none_left(&self, form: &'static str) -> Result<(), SinkSpecError> {
        match self.left.first() {
            Some((name, _)) => Err(self.wrong(name, format!("is no parameter of this sink: write {form}"))),
            None => Ok(()),
        }
    }
}

/// Parameters of a URL for PostgreSQL that stay in it. The sink sees to all others itself (the host that takes writes, timeouts,
/// keep-alive): to take and then ignore one, such as `channel_binding=require`, would pretend what is not so.
pub(crate) const POSTGRES_PARAMETERS: &[&str] = &["options"];

#[cfg(test)]
mod tests;
