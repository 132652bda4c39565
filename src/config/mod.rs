//! Configuration: one validated struct, whatever it was made from.
//!
//! [`Config`] is plain data; a program that embeds the server fills it in and calls [`Config::validate`]. The command
//! line makes one from defaults, a TOML file, `DURAGRAM_*` variables and flags in [`load`]. Bounds live in
//! [`crate::limits`]. This module knows nothing of what its values configure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use duragram_proto::codec::SEALED_MIN_LEN;

use crate::limits;
use crate::model::{SinkConfig, SinkTarget};

mod check;
pub(crate) mod environment;
mod keys;
mod lines;
pub mod load;
pub(crate) mod log_level;
pub mod memory;
mod nearest;
mod sinks;
#[cfg(test)]
mod tests;
mod toml;
mod values;
mod wrong;

use check::Check;
pub use keys::{KEYS, Key};
pub use load::{Loaded, Sources};
pub use sinks::{SINK_KEYS, SinkKey, promise_of};

/// The server listens on this UDP port unless it is told another.
pub const UDP_PORT: u16 = 7117;
/// The default TCP port of the admin interface.
pub const ADMIN_PORT: u16 = 7118;

/// Everything that can be configured. Field names are the TOML keys; `DURAGRAM_` and the name in capitals the variables.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// UDP addresses to listen on. Port 0 takes a free one. Default 127.0.0.1:7117.
    pub listen: Vec<SocketAddr>,
    /// TCP address of the admin interface, `None` for none. One that other machines reach needs `admin_token_file`.
    /// Default 127.0.0.1:7118.
    pub admin: Option<SocketAddr>,
    /// The file with the token that admin requests must carry which change something, and all requests that come to an
    /// address that other machines reach. `None`: the file `admin-token` in `data`, made at the first start. Default `None`.
    pub admin_token_file: Option<PathBuf>,
    /// The journal's directory, made when it is missing. Default `./duragram-data`.
    pub data: PathBuf,
    /// Where records go. A short form is read by `"stdout".parse()`. Default `stdout`.
    pub sink: Vec<SinkConfig>,
    /// The name of the sink that answers clients which ask what came of a message; the others only store. `None`: the only one
    /// there is, and of several none, so that clients hear that a message is processed when all of them have it. An embedded handler
    /// answers by itself. Default `None`.
    pub answering_sink: Option<String>,
    /// The file with the clients' keys (`crate::keys`): the server then takes sealed traffic alone, unless `allow_plain`.
    /// Default none.
    pub keys: Option<PathBuf>,
    /// Plain (unsealed) traffic is accepted on addresses that other machines can reach, and beside sealed traffic.
    /// Default false.
    pub allow_plain: bool,
    /// Longest accepted UDP payload, bytes. Default 1472.
    pub datagram_bytes_max: usize,
    /// How far beyond a session's floor the server accepts, seqs. Default 4096.
    pub window: u16,
    /// Sessions in the table; at the maximum new ones are refused (BUSY). Default 1,000,000.
    pub sessions_max: usize,
    /// After this long without a datagram a session is forgotten. Default 7 days.
    pub session_ttl: Duration,
    /// Asks that are remembered, of all clients: messages whose senders want an answer, until they have had it. 0: nobody may ask.
    /// Default 65,536.
    pub asks_max: usize,
    /// The longest body of an answer, bytes; see [`Config::answer_bytes`]. Default 1,024.
    pub answer_bytes_max: usize,
    /// An answer that nobody takes is forgotten after so long. Default 1 day.
    pub answer_ttl: Duration,
    /// Plain (unsealed) asks are taken although other machines can reach an address: answers are readable there. Default false.
    pub plain_asks: bool,
    /// The channels that clients may use; others get REJECT 8. Default all.
    pub channels: Channels,
    /// Processing threads of an embedded handler; each configured sink has one. Default half of the cores, at least 1 and at most 4.
    pub lanes: u16,
    /// Sockets (and receiver threads) for each address in `listen`, sharing it by SO_REUSEPORT. Default 1.
    pub receivers: usize,
    /// How the stages of ingestion are laid on threads. Default [`Threading::Auto`].
    pub threading: Threading,
    /// SO_RCVBUF to ask for, bytes for each socket; the kernel may grant less. Default 16 MiB: 16 clients that have 1,024
    /// datagrams of 1,232 bytes each under way do not overflow it.
    pub receive_buffer_bytes: usize,
    /// A group commit takes no further datagram at this size, bytes. Default 1 MiB.
    pub commit_bytes_max: usize,
    /// A checkpoint is due after this many journaled bytes. Default 4 MiB.
    pub checkpoint_bytes: u64,
    /// A checkpoint is due after this long, if anything was journaled or processed. Default 1 s.
    pub checkpoint_interval: Duration,
    /// Processed entries to keep for `duragram tail`, bytes. Default 1 MiB.
    pub retain_bytes: u64,
    /// With less free space than this on the journal's file system new data gets REJECT 7, bytes. Default 512 MiB.
    pub reserve_bytes: u64,
    /// How often and when a handler sees a record again that it could not process.
    pub retry: Retry,
    /// Dead letters that are kept at most; at the maximum a lane that has another one waits. Default 100,000.
    pub dead_letters_max: u64,
    /// On SIGTERM: how long lanes may go on with what is journaled. The rest is processed after the next start.
    /// Default 5 s: the whole stop then ends before those who kill what has not ended after 10 s (Docker, supervisord).
    pub drain_timeout: Duration,
    /// How the server logs to stderr.
    pub log: Log,
    /// Start although acked data is damaged, and record the loss. Only ever the flag `--accept-loss`: it must not stay
    /// in a file and hide the next damage.
    pub accept_loss: bool,
}

/// Retries of a record whose handler asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first included, before the record becomes a dead letter. Default 10.
    pub attempts_max: u16,
    /// Before the second attempt; doubles from then on, with jitter. Default 100 ms.
    pub first_delay: Duration,
    /// The delay grows no longer than this. Default 30 s.
    pub longest_delay: Duration,
}

/// The server logs in this form, from this level on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for programs. Default text.
    pub format: LogFormat,
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`, upper or lower case), or a filter such as
    /// `info,duragram::commit=debug`. Default `info`.
    pub level: String,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the stages of ingestion are laid on threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threading {
    /// The server chooses, by cores and receivers.
    Auto,
    /// Receive, commit and ack in one thread: no hand-off.
    Single,
    /// Receivers and committer in threads of their own.
    Pipeline,
}

/// A set of channels: all, or what is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels(Vec<RangeInclusive<u16>>);

impl Channels {
    /// Every channel is in it.
    pub const ALL: Self = Self(Vec::new());

    /// Whether a client may use the channel.
    pub fn allows(&self, channel: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|range| range.contains(&channel))
    }

    /// Returns the ranges; where there are none, every channel is allowed.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }
}

/// The channels in these ranges; no range means all.
impl FromIterator<RangeInclusive<u16>> for Channels {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

/// Something wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `retry.first_delay`; empty when the whole file is meant.
    pub key: String,
    /// Where its value comes from, such as `duragram.toml:12`, `DURAGRAM_WINDOW` or `--window`.
    pub place: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration. Nothing was opened, bound or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong: at least one problem.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            listen: vec![loopback(UDP_PORT)],
            admin: Some(loopback(ADMIN_PORT)),
            admin_token_file: None,
            data: PathBuf::from("./duragram-data"),
            sink: vec![SinkConfig::new("stdout", SinkTarget::Stdout)],
            answering_sink: None,
            keys: None,
            allow_plain: false,
            datagram_bytes_max: 1472,
            window: 4096,
            sessions_max: 1_000_000,
            session_ttl: Duration::from_secs(7 * 86_400),
            asks_max: 65_536,
            answer_bytes_max: 1_024,
            answer_ttl: Duration::from_secs(86_400),
            plain_asks: false,
            channels: Channels::ALL,
            lanes: u16::try_from((cores / 2).clamp(1, 4)).unwrap_or(1),
            receivers: 1,
            threading: Threading::Auto,
            receive_buffer_bytes: 16 << 20,
            commit_bytes_max: 1 << 20,
            checkpoint_bytes: 4 << 20,
            checkpoint_interval: Duration::from_secs(1),
            retain_bytes: 1 << 20,
            reserve_bytes: 512 << 20,
            retry: Retry {
                attempts_max: 10,
                first_delay: Duration::from_millis(100),
                longest_delay: Duration::from_secs(30),
            },
            dead_letters_max: 100_000,
            drain_timeout: Duration::from_secs(5),
            log: Log { format: LogFormat::Text, level: "info".to_owned() },
            accept_loss: false,
        }
    }
}

impl Config {
    /// Checks every value against its bounds and the values against each other; names everything that is wrong at once.
    /// Looks at the file system (what `data` is), changes nothing.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut check = Check { problems: Vec::new() };
        self.check_bounds(&mut check);
        self.check_addresses(&mut check);
        self.check_together(&mut check);
        sinks::check(self, &mut check);
        if check.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: check.problems }) }
    }

    /// The name of the configured sink that answers clients; `None` when none does alone.
    pub fn answers_by(&self) -> Option<&str> {
        match (&self.answering_sink, self.sink.as_slice()) {
            (Some(name), _) => Some(name),
            (None, [only]) => Some(&only.name),
            (None, _) => None,
        }
    }

    fn check_bounds(&self, check: &mut Check) {
        check.within("listen", self.listen.len() as u64, limits::LISTEN, "addresses");
        check.within("sink", self.sink.len() as u64, limits::SINKS, "sinks");
        check.within("channels", self.channels.0.len() as u64, limits::CHANNELS, "numbers or ranges");
        check.within("datagram_bytes_max", self.datagram_bytes_max as u64, limits::DATAGRAM_BYTES, "bytes");
        check.within("window", u64::from(self.window), limits::WINDOW, "seqs");
        check.within("sessions_max", self.sessions_max as u64, limits::SESSIONS, "sessions");
        check.lasts("session_ttl", self.session_ttl, limits::SESSION_TTL_MS);
        check.within("asks_max", self.asks_max as u64, limits::ASKS, "asks");
        check.within("answer_bytes_max", self.answer_bytes_max as u64, limits::ANSWER_BYTES, "bytes");
        check.lasts("answer_ttl", self.answer_ttl, limits::ANSWER_TTL_MS);
        check.within("lanes", u64::from(self.lanes), limits::LANES, "threads");
        check.within("receivers", self.receivers as u64, limits::RECEIVERS, "sockets for each address");
        check.within("receive_buffer_bytes", self.receive_buffer_bytes as u64, limits::RECEIVE_BUFFER_BYTES, "bytes");
        check.within("commit_bytes_max", self.commit_bytes_max as u64, limits::COMMIT_BYTES, "bytes");
        check.within("checkpoint_bytes", self.checkpoint_bytes, limits::CHECKPOINT_BYTES, "bytes");
        check.lasts("checkpoint_interval", self.checkpoint_interval, limits::CHECKPOINT_INTERVAL_MS);
        check.within("retain_bytes", self.retain_bytes, limits::RETAIN_BYTES, "bytes");
        check.within("reserve_bytes", self.reserve_bytes, limits::RESERVE_BYTES, "bytes");
        check.within("retry.attempts_max", u64::from(self.retry.attempts_max), limits::RETRY_ATTEMPTS, "attempts");
        check.lasts("retry.first_delay", self.retry.first_delay, limits::RETRY_DELAY_MS);
        check.lasts("retry.longest_delay", self.retry.longest_delay, limits::RETRY_DELAY_MS);
        check.within("dead_letters_max", self.dead_letters_max, limits::DEAD_LETTERS, "letters");
        check.lasts("drain_timeout", self.drain_timeout, limits::DRAIN_TIMEOUT_MS);
        if let Err(problem) = log_level::normal(&self.log.level) {
            check.add("log.level", problem);
        }
    }

    fn check_addresses(&self, check: &mut Check) {
        for address in &self.listen {
            if let Some(problem) = self.problem_of_listening_on(address) {
                check.add("listen", problem);
            }
        }
        for (i, one) in self.listen.iter().enumerate() {
            if let Some(other) = self.listen[..i].iter().find(|other| overlap(one, other)) {
                let message = format!("{other} and {one} are the same port; datagrams would be split between them");
                check.add("listen", message);
            }
        }
        if let Some(address) = self.admin.filter(|address| !is_loopback(address))
            && self.admin_token_file.is_none()
        {
            check.add(
                "admin",
                format!(
                    "{address} can be reached from other machines: name a file with a token that every request must carry \
                     (admin_token_file), or keep to loopback (such as 127.0.0.1:{ADMIN_PORT}) and reach it by \
                     `ssh -L {ADMIN_PORT}:127.0.0.1:{ADMIN_PORT} HOST`; \"off\" switches it off. There is no TLS here: on a \
                     network that others listen to, put a reverse proxy before it"
                ),
            );
        }
    }

    /// Why the server must not listen on an address, whether it binds it or is given a socket that is bound to it.
    pub fn problem_of_listening_on(&self, address: &SocketAddr) -> Option<String> {
        let open = !self.allow_plain && self.keys.is_none() && !is_loopback(address);
        open.then(|| {
            format!(
                "{address} can be reached from other machines, and plain traffic is neither encrypted nor authenticated: \
                 whoever reaches the port can write to the journal and forge acks. Give clients keys (keys = FILE, see \
                 `duragram keys --help`); or if the network is trusted, say so with allow_plain = true (or \
                 DURAGRAM_ALLOW_PLAIN=true, or --allow-plain); else listen on loopback, such as 127.0.0.1:{UDP_PORT}"
            )
        })
    }

    /// How long the body of an answer may be, in bytes: no longer than what fits into the longest TAKE that the server accepts.
    pub fn answer_bytes(&self) -> usize {
        self.answer_bytes_max.min(self.datagram_bytes_max.saturating_sub(SEALED_MIN_LEN))
    }

    fn check_together(&self, check: &mut Check) {
        if self.data.as_os_str().is_empty() {
            check.add("data", "must name a directory".to_owned());
        } else if self.data.exists() && !self.data.is_dir() {
            check.add("data", format!("{} is not a directory", self.data.display()));
        }
        if self.commit_bytes_max < self.datagram_bytes_max {
            let message = format!(
                "{} bytes cannot hold one datagram of datagram_bytes_max = {}",
                self.commit_bytes_max, self.datagram_bytes_max
            );
            check.add("commit_bytes_max", message);
        }
        if self.receive_buffer_bytes < self.datagram_bytes_max {
            let message = format!(
                "{} bytes cannot hold one datagram of datagram_bytes_max = {}",
                self.receive_buffer_bytes, self.datagram_bytes_max
            );
            check.add("receive_buffer_bytes", message);
        }
        if self.retry.first_delay > self.retry.longest_delay {
            check.add("retry.first_delay", "is longer than retry.longest_delay".to_owned());
        }
        for range in self.channels.ranges().iter().filter(|range| range.is_empty()) {
            check.add("channels", format!("{}-{} is empty: it ends before it starts", range.start(), range.end()));
        }
    }
}

/// Whether only this machine reaches the address.
pub(crate) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether two sockets bound to these would take each other's datagrams. Port 0 is a different port each time.
fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let (one_ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let same_family = one_ip.is_ipv4() == other_ip.is_ipv4();
    let same_host = match (one, other) {
        // A link-local address is another one on each interface.
        (SocketAddr::V6(one), SocketAddr::V6(other)) if one.scope_id() != other.scope_id() => false,
        _ => one_ip == other_ip,
    } || one_ip.is_unspecified()
        || other_ip.is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_family && same_host
}
