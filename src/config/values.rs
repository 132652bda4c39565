//! How the values of keys are written and shown, whichever key's they are.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use figment::value::Value;
use humantime_serde::re::humantime;
use serde_json::Value as Json;

use crate::model::parse_channels;

/// The text of a scalar, whatever its type in the file: `4096` and `"4096"` mean the same.
pub(super) fn text(value: &Value) -> Result<String, String> {
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
    Err("takes a single value, not a list, a table or a date".to_owned())
}

/// The texts of a list; a scalar is a list of one.
pub(super) fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value.as_array() {
        Some(values) => values.iter().map(text).collect(),
        None => text(value).map(|text| vec![text]).map_err(|_| "takes a list of values, not a table".to_owned()),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

pub(super) fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let value: u64 = text.replace('_', "").parse().map_err(|_| format!("{text:?} is no whole number"))?;
    T::try_from(value).map_err(|_| format!("{text} is too large"))
}

pub(super) fn size<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let size: ByteSize = text.parse().map_err(|_| {
        format!("{text:?} is no size; write bytes, or a number with a unit, such as 4194304, \"4 MiB\" or \"4 MB\"")
    })?;
    T::try_from(size.as_u64()).map_err(|_| format!("{text} is too large"))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| {
        format!("{text:?} is no duration; write a number with a unit, such as \"100ms\", \"30s\" or \"7d\"")
    })
}

pub(super) fn channels(text: &str) -> Result<RangeInclusive<u16>, String> {
    parse_channels(text)
        .ok_or_else(|| format!("{text:?} is no channel; write a number from 0 to 65535 or a range such as \"10-19\""))
}

pub(super) fn shown(value: impl Display) -> Json {
    value.to_string().into()
}

pub(super) fn show_channels(channels: &[RangeInclusive<u16>]) -> Json {
    let range = |range: &RangeInclusive<u16>| match (*range.start(), *range.end()) {
        (from, to) if from == to => from.into(),
        (from, to) => shown(format!("{from}-{to}")),
    };
    channels.iter().map(range).collect()
}

pub(super) fn show_number<T: Copy + TryInto<u64>>(number: &T) -> Json {
    (*number).try_into().unwrap_or(u64::MAX).into()
}

/// A size: with a unit where that loses nothing.
pub(super) fn show_size<T: Copy + TryInto<u64>>(bytes: &T) -> Json {
    let bytes: u64 = (*bytes).try_into().unwrap_or(u64::MAX);
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes != 0 && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => shown(format!("{} {name}", bytes / unit)),
        None => bytes.into(),
    }
}

pub(super) fn show_time(duration: &Duration) -> Json {
    shown(show_duration(*duration))
}

/// A duration as people write it, such as `7days` or `100ms`.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
