//! What is counted of one configured sink.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::{LaneLabel, Metrics, SinkLabel};

/// What is counted of one configured sink, as [`Metrics`] says of each.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// Entries that it has not processed.
    pub lag: Gauge,
    /// Bytes of the journal that it has not processed.
    pub held_bytes: Gauge,
    /// Seconds since its oldest record arrived.
    pub oldest_seconds: Gauge,
    /// It is 1 while the sink takes records, else 0.
    pub up: Gauge,
    /// That is so since this time, in seconds since 1970; 0 when it was not noted yet.
    pub changed: Gauge,
    /// Whether an operator has stopped it.
    pub paused: Gauge,
    /// Whether new data is refused because of it.
    pub blocks: Gauge,
    /// Its records that became dead letters.
    pub dead_letters: Counter,
    /// So many entries were lost to it, since it held too much.
    pub lost_entries: Counter,
}

impl SinkMetrics {
    /// Notes whether it takes records, at this time in microseconds since 1970.
    pub fn set_up(&self, up: bool, unix_us: u64) {
        if self.up.set(i64::from(up)) != i64::from(up) || self.changed.get() == 0 {
            self.changed.set(i64::try_from(unix_us / 1_000_000).unwrap_or(i64::MAX));
        }
    }
}

impl Metrics {
    /// The metrics of one configured sink; each is there from the first call on.
    pub fn of_sink(&self, name: &str) -> SinkMetrics {
        let label = SinkLabel { sink: name.to_owned() };
        SinkMetrics {
            lag: self.sink_lag.get_or_create(&label).clone(),
            held_bytes: self.sink_held_bytes.get_or_create(&label).clone(),
            oldest_seconds: self.sink_oldest_seconds.get_or_create(&label).clone(),
            up: self.sink_up.get_or_create(&label).clone(),
            changed: self.sink_changed.get_or_create(&label).clone(),
            paused: self.sink_paused.get_or_create(&label).clone(),
            blocks: self.sink_blocks.get_or_create(&label).clone(),
            dead_letters: self.sink_dead_letters.get_or_create(&label).clone(),
            lost_entries: self.sink_lost_entries.get_or_create(&label).clone(),
        }
    }

    /// Shows how many bytes of the journal a sink may hold.
    pub fn bound_sink(&self, name: &str, bytes_max: u64) {
        let label = SinkLabel { sink: name.to_owned() };
        self.sink_backlog_max_bytes.get_or_create(&label).set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
    }

    /// Shows a sink no more that was removed: what was last said of it would be alerted on until the next start.
    pub fn forget_sink(&self, name: &str) {
        let label = SinkLabel { sink: name.to_owned() };
        for family in [
            &self.sink_lag,
            &self.sink_held_bytes,
            &self.sink_oldest_seconds,
            &self.sink_up,
            &self.sink_changed,
            &self.sink_backlog_max_bytes,
            &self.sink_paused,
            &self.sink_blocks,
        ] {
            family.remove(&label);
        }
        let lane = LaneLabel { sink: name.to_owned(), lane: 0 };
        self.lane_lag.remove(&lane);
        self.lane_down.remove(&lane);
    }
}
