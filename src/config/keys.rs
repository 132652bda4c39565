//! The table of keys: how each value is read from whatever a layer holds, and how it is written back as TOML.
//!
//! File, environment and flags share this one table, so that none of them knows a key that the others do not.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use figment::value::Value;
use humantime_serde::re::humantime;

use super::{Channels, Config, LogFormat, Threading};

/// A configuration key.
#[derive(Debug)]
pub struct Key {
    /// Such as `window` or `retry.first_delay`.
    pub name: &'static str,
    /// Several values: an array in TOML, separated by commas in the environment, a repeated flag.
    pub list: bool,
    pub(super) set: fn(&mut Config, &Value) -> Result<(), String>,
    show: fn(&Config) -> String,
}

impl Key {
    /// The environment variable, such as `DURAGRAM_RETRY_FIRST_DELAY`.
    pub fn variable(&self) -> String {
        format!("{}{}", super::load::PREFIX, self.name.replace('.', "_").to_uppercase())
    }

    /// The flag, such as `--retry-first-delay`.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace(['.', '_'], "-"))
    }

    /// The value in a configuration, as TOML.
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }
}

/// One scalar key: how to parse its text and how to show it.
macro_rules! key {
    ($name:literal, $($field:ident).+, $parse:expr, $show:expr) => {
        Key {
            name: $name,
            list: false,
            set: |config, value| {
                config.$($field).+ = $parse(&text(value)?)?;
                Ok(())
            },
            show: |config| $show(&config.$($field).+),
        }
    };
}

/// Every key that files, environment and flags may set, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        list: true,
        set: |config, value| {
            config.listen = texts(value)?.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| array(config.listen.iter().map(quoted)),
    },
    key!("admin", admin, admin_address, |admin: &Option<SocketAddr>| { admin.map_or_else(|| quoted("off"), quoted) }),
    key!("data", data, |text: &str| Ok::<_, String>(PathBuf::from(text)), |data: &PathBuf| quoted(data.display())),
    Key {
        name: "sink",
        list: true,
        set: |config, value| {
            config.sink = texts(value)?;
            Ok(())
        },
        show: |config| array(config.sink.iter().map(quoted)),
    },
    key!("allow_plain", allow_plain, boolean, bool::to_string),
    key!("datagram_bytes_max", datagram_bytes_max, size, show_size),
    key!("window", window, number, u16::to_string),
    key!("sessions_max", sessions_max, number, usize::to_string),
    key!("session_ttl", session_ttl, duration, |d: &Duration| quoted(show_duration(*d))),
    Key {
        name: "channels",
        list: true,
        set: |config, value| {
            let ranges = texts(value)?.iter().map(|text| channels(text)).collect::<Result<_, _>>()?;
            config.channels = Channels::listed(ranges);
            Ok(())
        },
        show: |config| {
            array(config.channels.ranges().iter().map(|range| match (range.start(), range.end()) {
                (from, to) if from == to => from.to_string(),
                (from, to) => quoted(format!("{from}-{to}")),
            }))
        },
    },
    key!("lanes", lanes, number, u16::to_string),
    key!("receivers", receivers, number, usize::to_string),
    key!("threading", threading, threading, |t: &Threading| quoted(match t {
        Threading::Auto => "auto",
        Threading::Single => "single",
        Threading::Pipeline => "pipeline",
    })),
    key!("receive_buffer_bytes", receive_buffer_bytes, size, show_size),
    key!("commit_bytes_max", commit_bytes_max, size, show_size),
    key!("checkpoint_bytes", checkpoint_bytes, size, show_size),
    key!("checkpoint_interval", checkpoint_interval, duration, |d: &Duration| quoted(show_duration(*d))),
    key!("retain_bytes", retain_bytes, size, show_size),
    key!("reserve_bytes", reserve_bytes, size, show_size),
    key!("retry.attempts_max", retry.attempts_max, number, u32::to_string),
    key!("retry.first_delay", retry.first_delay, duration, |d: &Duration| quoted(show_duration(*d))),
    key!("retry.longest_delay", retry.longest_delay, duration, |d: &Duration| quoted(show_duration(*d))),
    key!("drain_timeout", drain_timeout, duration, |d: &Duration| quoted(show_duration(*d))),
    key!("log.format", log.format, log_format, |f: &LogFormat| quoted(match f {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    })),
    key!("log.level", log.level, |text: &str| Ok::<_, String>(text.to_owned()), |level: &String| quoted(level)),
];

/// The text of a scalar, whatever its type in the file: `4096` and `"4096"` mean the same.
fn text(value: &Value) -> Result<String, String> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    if let Some(truth) = value.to_bool() {
        return Ok(truth.to_string());
    }
    if let Some(whole) = value.to_i128() {
        return Ok(whole.to_string());
    }
    if let Some(whole) = value.to_u128() {
        return Ok(whole.to_string());
    }
    if let Some(fraction) = value.to_f64() {
        return Ok(fraction.to_string());
    }
    Err("takes a single value, not a list or a table".to_owned())
}

/// The texts of a list; a scalar is a list of one.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value.as_array() {
        Some(values) => values.iter().map(text).collect(),
        None => text(value).map(|text| vec![text]).map_err(|_| "takes a list of values, not a table".to_owned()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address; write IP:PORT, such as 127.0.0.1:7117 or [::1]:7117"))
}

fn admin_address(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        text => address(text).map(Some).map_err(|message| message + ", or \"off\""),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let whole = text.replace('_', "");
    let value: u64 = whole.parse().map_err(|_| format!("{text:?} is no whole number"))?;
    T::try_from(value).map_err(|_| format!("{text} is too large"))
}

fn size<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let size: ByteSize = text.parse().map_err(|_| {
        format!("{text:?} is no size; write bytes, or a number with a unit, such as 4194304, \"4 MiB\" or \"4 MB\"")
    })?;
    T::try_from(size.as_u64()).map_err(|_| format!("{text} is too large"))
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| {
        format!("{text:?} is no duration; write a number with a unit, such as \"100ms\", \"30s\" or \"7d\"")
    })
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

fn channels(text: &str) -> Result<RangeInclusive<u16>, String> {
    let bound = |part: &str| part.trim().parse::<u16>().ok();
    let range = match text.split_once('-') {
        Some((from, to)) => bound(from).zip(bound(to)),
        None => bound(text).map(|one| (one, one)),
    };
    let (from, to) = range.ok_or_else(|| {
        format!("{text:?} is no channel; write a number from 0 to 65535 or a range such as \"10-19\"")
    })?;
    Ok(from..=to)
}

/// A TOML string.
fn quoted(value: impl Display) -> String {
    // JSON's escapes are a subset of TOML's.
    serde_json::Value::from(value.to_string()).to_string()
}

/// A TOML array.
fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A TOML size: with a unit where that loses nothing.
fn show_size<T: Copy + TryInto<u64>>(bytes: &T) -> String {
    let bytes: u64 = (*bytes).try_into().unwrap_or(u64::MAX);
    match bytes {
        0 => bytes.to_string(),
        b if b % (1 << 30) == 0 => quoted(format!("{} GiB", b >> 30)),
        b if b % (1 << 20) == 0 => quoted(format!("{} MiB", b >> 20)),
        b if b % (1 << 10) == 0 => quoted(format!("{} KiB", b >> 10)),
        b => b.to_string(),
    }
}

/// A duration as people write it, such as `7days` or `100ms`.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
