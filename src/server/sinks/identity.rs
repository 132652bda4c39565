//! Whether a sink is still the one that its name stood for.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use crate::model::{SinkConfig, SinkTarget};

/// A number that is the same as long as a sink writes to the same place and takes the same channels. Stands in journals.
///
/// Part of it are the kind of the sink; the address, without user and password; what is written to there (a table, a subject and
/// its stream, a key, a topic, a path, a command); and the channels. Not part of it are how fast and in which form records are
/// written, with which credentials, and how the connection is protected: these may change under a name.
pub(in crate::server) fn identity(config: &SinkConfig) -> u64 {
    let mut text = String::from("1");
    let mut add = |part: &str| {
        // With lengths, so that no two lists of parts are one text. Writing to a string cannot fail.
        let _infallible = write!(text, "\n{}:{part}", part.len());
    };
    match &config.target {
        SinkTarget::Null => add("null"),
        SinkTarget::Stdout => add("stdout"),
        SinkTarget::File(path) => ["file", &path.to_string_lossy()].into_iter().for_each(add),
        SinkTarget::Http(http) => ["http", address(&http.url).as_str()].into_iter().for_each(add),
        SinkTarget::Exec(exec) => ["exec", &exec.command].into_iter().for_each(add),
        SinkTarget::Postgres(postgres) => {
            ["postgres", &address(&postgres.url), &postgres.table].into_iter().for_each(add);
        }
        SinkTarget::Nats(nats) => {
            ["nats", &address(&nats.url), &nats.stream, &nats.subject].into_iter().for_each(add);
        }
        SinkTarget::Redis(redis) => ["redis", &address(&redis.url), &redis.key].into_iter().for_each(add),
        SinkTarget::Mqtt(mqtt) => ["mqtt", &address(&mqtt.url), &mqtt.topic].into_iter().for_each(add),
    }
    for range in merged(&config.channels) {
        let _infallible = write!(text, "\n{}-{}", range.start(), range.end());
    }
    fnv1a(text.as_bytes())
}

/// The address without what stands before an `@` in its host's part, and the same with encryption as without.
fn address(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let scheme = match scheme {
        "https" => "http",
        "rediss" => "redis",
        "mqtts" => "mqtt",
        "tls" => "nats",
        "postgresql" => "postgres",
        plain => plain,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    format!("{scheme}://{hosts}{path}")
}

/// The same channels however they are written.
fn merged(channels: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    let mut sorted: Vec<_> = channels.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// FNV-1a of 64 bits (draft-eastlake-fnv): small, and the same forever.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn an_address_is_the_same_whoever_connects_and_however_that_is_protected() {
        for (url, same) in [
            ("postgres://ingest@db1,db2/app", "postgres://db1,db2/app"),
            ("nats://host:4222", "nats://host:4222"),
            ("http://host/path@x", "http://host/path@x"),
            ("mqtt://a:b@host", "mqtt://host"),
            ("tls://host:4222", "nats://host:4222"),
            ("odd", "odd"),
        ] {
            assert_eq!(address(url), same);
        }
    }

    #[test]
    fn channels_are_the_same_however_they_are_written() {
        assert_eq!(merged(&[5..=9, 1..=2, 3..=4, 8..=20]), [1..=20]);
        assert_eq!(merged(&[7..=7, 65_535..=65_535, 65_534..=65_534]), [7..=7, 65_534..=65_535]);
    }
}
