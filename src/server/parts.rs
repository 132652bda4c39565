//! What each part is given of the configuration.

use std::thread;

use crate::commit::{CommitterConfig, Threading};
use crate::config::{self, Config};
use crate::dialect::duragram::{AdmissionConfig, AskConfig, AsksOf, DuragramConfig};
use crate::journal::DeadLetterRoom;
use crate::keys::{KeyFileError, KeyRing};
use crate::model::ChannelSet;
use crate::process::{Answering, LaneConfig, RetryPolicy};

pub(super) fn load_keys(config: &Config) -> Result<KeyRing, KeyFileError> {
    let keys = config.keys.as_deref().map_or_else(|| Ok(KeyRing::none()), KeyRing::load)?;
    log_keys(&keys);
    Ok(keys)
}

pub(super) fn log_keys(keys: &KeyRing) {
    if let (Some((summary, _)), Some(path)) = (keys.summary(), keys.path()) {
        tracing::info!(file = %path.display(), "keys in force: {summary}");
    }
}

pub(super) fn admission(config: &Config, keys: KeyRing) -> AdmissionConfig {
    let ranges = config.channels.ranges();
    let channels = (!ranges.is_empty()).then(|| ChannelSet::of(ranges.iter().cloned().flatten()));
    AdmissionConfig {
        datagram_bytes_max: config.datagram_bytes_max,
        channels,
        keys,
        allow_plain: config.allow_plain,
        sessions_max: config.sessions_max,
        asks: asks_of(config),
    }
}

/// Plain asks are for loopback alone, unless the operator says that answers may be read on the way.
fn asks_of(config: &Config) -> AsksOf {
    if config.asks_max == 0 {
        AsksOf::Nobody
    } else if config.plain_asks || config.listen.iter().all(config::is_loopback) {
        AsksOf::Everybody
    } else {
        AsksOf::Sealed
    }
}

pub(super) fn dialect_config(config: &Config, keys: &KeyRing) -> DuragramConfig {
    DuragramConfig {
        window: config.window,
        sessions_max: config.sessions_max,
        session_ttl_s: config.session_ttl.as_secs(),
        sealed: !keys.is_none(),
        asks: AskConfig {
            asks_max: config.asks_max,
            answer_bytes_max: config.answer_bytes(),
            answer_ttl_s: config.answer_ttl.as_secs(),
        },
    }
}

pub(super) fn committer_config(config: &Config) -> CommitterConfig {
    CommitterConfig {
        commit_bytes_max: config.commit_bytes_max,
        checkpoint_bytes: config.checkpoint_bytes,
        checkpoint_interval_us: u64::try_from(config.checkpoint_interval.as_micros()).unwrap_or(u64::MAX),
        retain_bytes: config.retain_bytes,
        reserve_bytes: config.reserve_bytes,
    }
}

/// How the lanes of an embedded handler work; a configured sink's change some of it.
pub(super) fn lane_config(config: &Config) -> LaneConfig {
    let config::Retry { attempts_max, first_delay, longest_delay } = config.retry;
    let retry = RetryPolicy { attempts_max, first_delay, longest_delay };
    let dead_letter_room = DeadLetterRoom { letters_max: config.dead_letters_max, reserve_bytes: config.reserve_bytes };
    let answering = if config.asks_max == 0 { Answering::Nothing } else { Answering::Bodies };
    let answer_bytes_max = config.answer_bytes();
    LaneConfig { retry, dead_letter_room, answering, answer_bytes_max, ..LaneConfig::default() }
}

/// The one place where the default is chosen.
pub(super) fn threading(config: &Config) -> Threading {
    match config.threading {
        config::Threading::Single => Threading::Single,
        config::Threading::Pipeline => Threading::Pipeline,
        config::Threading::Auto => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            if config.receivers > 1 || cores > 4 { Threading::Pipeline } else { Threading::Single }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_asks_are_taken_on_loopback_or_where_the_operator_says_so() {
        let on = |listen: &str| Config { listen: vec![listen.parse().unwrap()], ..Config::default() };
        assert_eq!(asks_of(&on("127.0.0.1:1")), AsksOf::Everybody);
        assert_eq!(asks_of(&on("[::1]:1")), AsksOf::Everybody);
        assert_eq!(asks_of(&on("0.0.0.0:1")), AsksOf::Sealed);
        assert_eq!(asks_of(&Config { plain_asks: true, ..on("0.0.0.0:1") }), AsksOf::Everybody);
        assert_eq!(asks_of(&Config { asks_max: 0, ..on("127.0.0.1:1") }), AsksOf::Nobody);
        let both = vec!["127.0.0.1:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()];
        assert_eq!(asks_of(&Config { listen: both, ..Config::default() }), AsksOf::Sealed, "one address is enough");
    }
}
