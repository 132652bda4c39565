//! Sinks against their bounds, against the rest of the configuration, and against each other.

use std::ops::RangeInclusive;

use super::super::check::Check;
use super::super::{Channels, Config};
use super::targets;
use crate::limits;
use crate::model::{HttpMode, SinkConfig, SinkTarget};

/// Checks every sink of a configuration.
pub(in super::super) fn check(config: &Config, check: &mut Check) {
    let compared = usize::try_from(*limits::SINKS.end()).unwrap_or(usize::MAX);
    for (n, sink) in config.sink.iter().enumerate() {
        let label = super::label(n, sink);
        let key = |name: &str| format!("sink[{label}].{name}");
        if !is_name(&sink.name) && !sink.is_short() {
            check.add(
                &key("name"),
                format!(
                    "{:?} is no name: write 1 to {} letters, digits, -, _ and .",
                    sink.name,
                    limits::SINK_TABLE_NAME_BYTES
                ),
            );
        }
        if sink.is_short() && (sink.name.len() > limits::SINK_NAME_BYTES || sink.name.contains(char::is_control)) {
            let message = format!(
                "sink {:?} cannot be named by its short form, since a name is one line of at most {} bytes: write a table \
                 [[sink]] with a name",
                sink.name,
                limits::SINK_NAME_BYTES
            );
            check.add("sink", message);
        }
        bounds(sink, &key, check);
        together(sink, config, &key, check);
        targets::check(&sink.target, &mut |name, message| check.add(&key(name), message));
        // More than may be are refused already, and would take long to compare.
        for other in config.sink[..n].iter().take(compared) {
            if let Some((name, message)) = beside(other, sink) {
                let key = if name.is_empty() { "sink".to_owned() } else { key(name) };
                check.add(&key, message);
            }
        }
    }
    if let Some(name) = &config.answering_sink
        && !config.sink.iter().any(|sink| sink.name == *name)
    {
        let names: Vec<&str> = config.sink.iter().take(compared).map(|sink| sink.name.as_str()).collect();
        let message = format!("no sink is named {name:?}; there are: {}", names.join(", "));
        check.add("answering_sink", message);
    }
}

/// Whether a sink may be called so.
pub(super) fn is_name(name: &str) -> bool {
    (1..=limits::SINK_TABLE_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn bounds(sink: &SinkConfig, key: &impl Fn(&str) -> String, check: &mut Check) {
    check.lasts(&key("timeout"), sink.timeout, limits::SINK_TIMEOUT_MS);
    check.within(&key("batch.records_max"), sink.batch.records_max as u64, limits::SINK_BATCH_RECORDS, "records");
    check.within(&key("batch.bytes_max"), sink.batch.bytes_max as u64, limits::SINK_BATCH_BYTES, "bytes");
    check.lasts(&key("batch.delay_max"), sink.batch.delay_max, limits::SINK_BATCH_DELAY_MS);
    if let Some(bytes) = sink.backlog.bytes_max {
        check.within(&key("backlog.bytes_max"), bytes, limits::SINK_BACKLOG_BYTES, "bytes");
    }
    check.within(&key("channels"), sink.channels.len() as u64, limits::CHANNELS, "numbers or ranges");
    match &sink.target {
        SinkTarget::Http(http) => {
            check.within(&key("in_flight_max"), http.in_flight_max as u64, limits::SINK_IN_FLIGHT, "requests");
            check.within(&key("headers"), http.headers.len() as u64, limits::SINK_HEADERS, "headers");
        }
        SinkTarget::Redis(redis) => {
            if let Some(entries) = redis.entries_max {
                check.within(&key("entries_max"), entries, limits::SINK_STREAM_ENTRIES, "entries");
            }
        }
        _ => {}
    }
}

fn together(sink: &SinkConfig, config: &Config, key: &impl Fn(&str) -> String, check: &mut Check) {
    // Cursors are stored with checkpoints: even one that is never behind holds what comes between two of them.
    let always_held = config.checkpoint_bytes.saturating_add(config.commit_bytes_max as u64).saturating_mul(2);
    let bounded = sink.backlog.bytes_max.filter(|bytes| limits::SINK_BACKLOG_BYTES.contains(bytes));
    if let Some(bytes) = bounded.filter(|&bytes| bytes < always_held) {
        let message = format!(
            "{bytes} bytes are less than a sink holds that is not behind at all: give at least {always_held}, which is 2 x \
             (checkpoint_bytes + commit_bytes_max)"
        );
        check.add(&key("backlog.bytes_max"), message);
    }
    for range in sink.channels.iter().filter(|range| range.is_empty()) {
        check.add(&key("channels"), format!("{}-{} is empty: it ends before it starts", range.start(), range.end()));
    }
    if !sink.channels.is_empty() && !sink.channels.iter().any(|range| meets(range, &config.channels)) {
        check.add(
            &key("channels"),
            "gets nothing: clients may use none of them, by the channels outside of [[sink]]".into(),
        );
    }
    if let SinkTarget::Http(http) = &sink.target
        && http.mode == HttpMode::Batch
        && http.in_flight_max > 1
    {
        check.add(
            &key("in_flight_max"),
            "is for mode = \"record\": of batches one at a time is under way, in order".into(),
        );
    }
}

/// Whether clients may use a channel of the range.
fn meets(range: &RangeInclusive<u16>, channels: &Channels) -> bool {
    let allowed = channels.ranges();
    range.is_empty()
        || allowed.is_empty()
        || allowed.iter().any(|other| range.start() <= other.end() && other.start() <= range.end())
}

/// What two sinks cannot be at once: the key below the second one, or none where both are short forms, and why.
fn beside(one: &SinkConfig, other: &SinkConfig) -> Option<(&'static str, String)> {
    let short = || one.is_short() && other.is_short();
    if one.name == other.name {
        let short = short();
        let message = match short {
            true => format!("sink {} is given twice", one.name),
            false => format!("sink {} is given twice: a name stands for one place in the journal", one.name),
        };
        return Some((if short { "" } else { "name" }, message));
    }
    let key = targets::shared(&one.target, &other.target)?;
    let message = format!(
        "sinks {} and {} write to the same place: what one writes the other cannot tell from its own",
        one.name, other.name
    );
    Some((if short() { "" } else { key }, message))
}
