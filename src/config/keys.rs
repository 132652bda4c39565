//! The table of keys: what each means, how its value is read from whatever a layer holds, and how it is shown.
//!
//! File, environment, flags and `--help` share this one table, so that none of them knows a key that the others do not.

use std::net::SocketAddr;
use std::path::PathBuf;

use figment::value::Value;
use serde_json::Value as Json;

use super::sinks;
use super::toml;
use super::values::{
    boolean, channels, duration, number, show_channels, show_number, show_size, show_time, shown, size, text, texts,
};
use super::wrong::Wrongs;
use super::{Channels, Config, LogFormat, Threading, log_level};
use crate::client::address;

/// What the names of the keys' variables begin with.
pub(super) const PREFIX: &str = "DURAGRAM_";

/// A key of the configuration, with all that is known of it.
#[derive(Debug)]
pub struct Key {
    /// Such as `window` or `retry.first_delay`.
    pub name: &'static str,
    /// What its value is called in help, such as `SIZE`.
    pub value: &'static str,
    /// What it means, for `--help`.
    pub help: &'static str,
    /// Several values: an array in TOML, separated by commas in the environment, a repeated flag.
    pub list: bool,
    pub(super) set: fn(&mut Config, &Value) -> Result<(), Wrongs>,
    show: fn(&Config) -> Json,
}

impl Key {
    /// The environment variable, such as `DURAGRAM_RETRY_FIRST_DELAY`.
    pub fn variable(&self) -> String {
        format!("{}{}", PREFIX, self.name.replace('.', "_").to_uppercase())
    }

    /// The flag without its dashes, such as `retry-first-delay`.
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The value in a configuration. Its text is TOML too: a string, a number, a truth or an array of them.
    pub fn show(&self, config: &Config) -> Json {
        (self.show)(config)
    }

    /// The value as TOML. What is a table stands in a line of its own.
    pub fn show_toml(&self, config: &Config) -> String {
        match self.show(config) {
            Json::Array(values) if values.iter().any(Json::is_object) => {
                let lines: String = values.iter().map(|value| format!("  {},\n", toml::of(value))).collect();
                format!("[\n{lines}]")
            }
            value => value.to_string(),
        }
    }

    /// The value as one writes it in a variable or after the flag.
    pub fn show_plain(&self, config: &Config) -> String {
        let plain = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self.show(config) {
            Json::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
            value => plain(&value),
        }
    }
}

/// A key of one value: its field, how to parse its text, how to show it.
macro_rules! one {
    ($name:literal, $($field:ident).+, $parse:expr, $show:expr, $value:literal, $help:literal) => {
        Key {
            name: $name,
            value: $value,
            help: $help,
            list: false,
            set: |config, value| {
                config.$($field).+ = $parse(&text(value)?)?;
                Ok(())
            },
            show: |config| $show(&config.$($field).+),
        }
    };
}

/// A key of several values: how to parse each, how to show all.
macro_rules! many {
    ($name:literal, $field:ident, $parse:expr, $show:expr, $value:literal, $help:literal) => {
        Key {
            name: $name,
            value: $value,
            help: $help,
            list: true,
            set: |config, value| {
                config.$field = texts(value)?.iter().map(|text| $parse(text)).collect::<Result<_, String>>()?;
                Ok(())
            },
            show: |config| $show(&config.$field),
        }
    };
}

/// Every key that files, environment and flags may set, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    many!(
        "listen",
        listen,
        |text: &String| address::literal(text),
        |all: &Vec<SocketAddr>| all.iter().map(shown).collect(),
        "IP:PORT",
        "UDP address to listen on; port 0 takes a free one. One that other machines reach needs keys or allow_plain"
    ),
    one!(
        "admin",
        admin,
        admin_address,
        show_admin,
        "IP:PORT|off",
        "TCP address of the admin interface (health, metrics, API), or \"off\". One that other machines reach needs admin_token_file"
    ),
    one!(
        "admin_token_file",
        admin_token_file,
        |text: &str| file_or(text, "data"),
        |file: &Option<PathBuf>| show_file(file, "data"),
        "FILE|data",
        "File with the token for admin requests; \"data\": admin-token in the data directory, made at the first start"
    ),
    one!(
        "data",
        data,
        |text: &str| Ok::<_, String>(PathBuf::from(text)),
        |data: &PathBuf| shown(data.display()),
        "DIR",
        "The journal's directory; made when it is missing, held by one server at a time"
    ),
    Key {
        name: "sink",
        value: "SPEC",
        help: "Where processed records go: stdout, file:PATH, null, http://HOST/PATH, exec:COMMAND, \
               postgres://USER@HOST/DATABASE?table=NAME, nats://HOST/STREAM?subject=NAME, redis://HOST?key=NAME or \
               mqtt://HOST/TOPIC; in the file, tables [[sink]] say more",
        list: true,
        set: |config, value| {
            let (sinks, wrongs) = sinks::read(value)?;
            config.sink = sinks;
            wrongs.into_result()
        },
        show: |config| config.sink.iter().map(sinks::show).collect(),
    },
    one!(
        "answering_sink",
        answering_sink,
        answering_sink,
        |name: &Option<String>| Json::from(name.as_deref().unwrap_or(ALL_SINKS)),
        "NAME|all",
        "Sink that answers clients which ask what came of a message; \"all\": with several sinks they hear that it is processed \
         when all have it"
    ),
    one!(
        "keys",
        keys,
        |text: &str| file_or(text, "off"),
        |keys: &Option<PathBuf>| show_file(keys, "off"),
        "FILE|off",
        "File with the clients' keys (see `duragram keys --help`): takes sealed traffic alone, unless allow_plain"
    ),
    one!(
        "allow_plain",
        allow_plain,
        boolean,
        |&allow: &bool| allow.into(),
        "BOOL",
        "Accept unencrypted and unauthenticated traffic on addresses that other machines reach, and beside sealed traffic"
    ),
    many!(
        "channels",
        channels,
        channels,
        |all: &Channels| show_channels(all.ranges()),
        "N|N-M",
        "Channels that clients may use, others are refused; none given: all"
    ),
    one!("datagram_bytes_max", datagram_bytes_max, size, show_size, "SIZE", "Longest accepted UDP payload"),
    one!("window", window, number, show_number, "SEQS", "How far beyond its oldest missing datagram a client may send"),
    one!(
        "sessions_max",
        sessions_max,
        number,
        show_number,
        "N",
        "Sessions in memory; with a full table new clients are told to wait"
    ),
    one!("session_ttl", session_ttl, duration, show_time, "TIME", "A session that is silent for so long is forgotten"),
    one!(
        "asks_max",
        asks_max,
        number,
        show_number,
        "N",
        "Messages at a time whose senders want an answer and have not had it; 0: nobody may ask"
    ),
    one!(
        "answer_bytes_max",
        answer_bytes_max,
        size,
        show_size,
        "SIZE",
        "Longest body of an answer; one that does not fit into datagram_bytes_max is too long all the same"
    ),
    one!(
        "answer_ttl",
        answer_ttl,
        duration,
        show_time,
        "TIME",
        "An answer that nobody takes is forgotten after so long"
    ),
    one!(
        "plain_asks",
        plain_asks,
        boolean,
        |&asks: &bool| asks.into(),
        "BOOL",
        "Take unencrypted asks although other machines reach an address: answers can be read on the way there"
    ),
    one!(
        "retain_bytes",
        retain_bytes,
        size,
        show_size,
        "SIZE",
        "Processed entries to keep on disk for `duragram tail`"
    ),
    one!(
        "reserve_bytes",
        reserve_bytes,
        size,
        show_size,
        "SIZE",
        "With less free disk space than this, new data is refused until there is more"
    ),
    one!(
        "drain_timeout",
        drain_timeout,
        duration,
        show_time,
        "TIME",
        "At SIGTERM: how long processing may go on; the rest waits on disk for the next start"
    ),
    one!(
        "retry.attempts_max",
        retry.attempts_max,
        number,
        show_number,
        "N",
        "Attempts to process a record before it becomes a dead letter"
    ),
    one!(
        "retry.first_delay",
        retry.first_delay,
        duration,
        show_time,
        "TIME",
        "Wait before the second attempt; doubles from then on"
    ),
    one!("retry.longest_delay", retry.longest_delay, duration, show_time, "TIME", "Longest wait between two attempts"),
    one!(
        "dead_letters_max",
        dead_letters_max,
        number,
        show_number,
        "N",
        "Dead letters kept; at the maximum a lane with another one waits, and its records with it"
    ),
    one!("log.format", log.format, log_format, show_log_format, "FORMAT", "Shape of the log on stderr: text or json"),
    one!(
        "log.level",
        log.level,
        log_level::normal,
        |level: &String| shown(level),
        "FILTER",
        "error, warn, info, debug, trace, off, or a filter such as info,duragram::commit=debug (RUST_LOG is not read)"
    ),
    one!("lanes", lanes, number, show_number, "N", "Processing threads"),
    one!(
        "receivers",
        receivers,
        number,
        show_number,
        "N",
        "Sockets and receiving threads for each address, sharing it by SO_REUSEPORT"
    ),
    one!(
        "threading",
        threading,
        threading,
        show_threading,
        "MODE",
        "Receiving and committing in one thread, large syncs in another (single), a thread for each receiver besides (pipeline), or as fits (auto)"
    ),
    one!(
        "receive_buffer_bytes",
        receive_buffer_bytes,
        size,
        show_size,
        "SIZE",
        "Receive buffer to ask of the kernel for each socket (SO_RCVBUF; see sysctl net.core.rmem_max)"
    ),
    one!(
        "commit_bytes_max",
        commit_bytes_max,
        size,
        show_size,
        "SIZE",
        "A group commit takes no further datagram at this size"
    ),
    one!(
        "checkpoint_bytes",
        checkpoint_bytes,
        size,
        show_size,
        "SIZE",
        "A checkpoint is due after so much was journaled; a start reads about this much"
    ),
    one!("checkpoint_interval", checkpoint_interval, duration, show_time, "TIME", "A checkpoint is due after so long"),
];

/// In place of the name of the sink that answers.
pub(super) const ALL_SINKS: &str = "all";

fn answering_sink(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Err(format!("must name a sink, or be \"{ALL_SINKS}\"")),
        ALL_SINKS => Ok(None),
        name => Ok(Some(name.to_owned())),
    }
}

fn admin_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        text => address::literal(text).map(Some).map_err(|message| message + ", or \"off\""),
    }
}

/// A file's path, or a word that stands for none.
fn file_or(text: &str, none: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "" => Err(format!("must name a file, or be \"{none}\"")),
        word if word == none => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    }
}

fn threading(text: &str) -> Result<Threading, String> {
    match text {
        "auto" => Ok(Threading::Auto),
        "single" => Ok(Threading::Single),
        "pipeline" => Ok(Threading::Pipeline),
        _ => Err(format!("{text:?} is none of \"auto\", \"single\" and \"pipeline\"")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither \"text\" nor \"json\"")),
    }
}

fn show_admin(admin: &Option<SocketAddr>) -> Json {
    admin.map_or_else(|| "off".into(), shown)
}

fn show_file(file: &Option<PathBuf>, none: &str) -> Json {
    file.as_ref().map_or_else(|| none.into(), |path| shown(path.display()))
}

fn show_threading(threading: &Threading) -> Json {
    shown(match threading {
        Threading::Auto => "auto",
        Threading::Single => "single",
        Threading::Pipeline => "pipeline",
    })
}

fn show_log_format(format: &LogFormat) -> Json {
    shown(match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    })
}
