//! Every metric of the server: counted by the stages, shown by the admin interface. `docs/operations.md` says what they mean.

mod sinks;

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
pub use sinks::SinkMetrics;

/// What can become of a datagram. Each is counted from 0: a rate of failures that begins with the first failure, and an alert
/// on a counter that is not there, would miss it.
const DATAGRAMS: [&str; 26] = [
    "journaled",
    "duplicate",
    "hello",
    "ping",
    "take",
    "truncated",
    "checksum",
    "malformed",
    "unknown_type",
    "wrong_direction",
    "sealed",
    "bad_seal",
    "unknown_key",
    "revoked",
    "limited",
    "replayed_session",
    "replayed_hello",
    "version",
    "unsupported",
    "too_large",
    "stale_epoch",
    "beyond_window",
    "busy",
    "storage",
    "channel",
    "sealed_only",
];
/// Types of replies, each counted from 0.
const REPLIES: [&str; 4] = ["ack", "reject", "welcome", "answer"];
/// Why replies are withheld, each counted from 0.
const WITHHELD: [&str; 2] = ["limited", "unsealable"];
/// What came of reading the key file again, each counted from 0.
const RELOADS: [&str; 2] = ["done", "failed"];

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// Such as "journaled", "duplicate", "malformed".
    pub outcome: &'static str,
}

/// The label of what is counted by lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LaneLabel {
    /// The configured sink whose lane it is; empty for an embedded handler, which to Prometheus is no label.
    pub sink: String,
    /// The lane's number among the sink's, from 0.
    pub lane: u16,
}

/// The label of what is counted by configured sink.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SinkLabel {
    /// The name is the one that the configuration gives.
    pub sink: String,
}

/// The metrics, cheap to share and to clone: every clone counts into the same values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Each datagram counts once, under its [`Outcome`].
    pub datagrams: Family<Outcome, Counter>,
    /// The UDP payloads received since the start have so many bytes.
    pub received_bytes: Counter,
    /// Datagrams that the kernel dropped because the receive buffer was full.
    pub kernel_drops: Counter,
    /// Receives that failed, and are tried again.
    pub receive_errors: Counter,
    /// Replies handed to the kernel, by type: ack, reject, welcome, answer.
    pub replies: Family<Outcome, Counter>,
    /// Replies that were not sent: too many to one source, or no number on disk to seal with.
    pub replies_withheld: Family<Outcome, Counter>,
    /// Replies that the kernel refused.
    pub reply_errors: Counter,
    /// Group commits that were made durable.
    pub commits: Counter,
    /// How many entries a commit has.
    pub commit_entries: Histogram,
    /// Seconds of one commit: write and sync.
    pub commit_seconds: Histogram,
    /// Seconds from a datagram's arrival to its ack.
    pub ack_delay_seconds: Histogram,
    /// Bytes of blocks written to the journal.
    pub journal_bytes: Counter,
    /// Bytes of blocks in the journal, not trimmed.
    pub backlog_bytes: Gauge,
    /// So many checkpoints became durable since the start.
    pub checkpoints: Counter,
    /// How many sessions are in the table.
    pub sessions: Gauge,
    /// So many sessions expired since the start.
    pub sessions_expired: Counter,
    /// Asks that are not answered.
    pub asks_open: Gauge,
    /// Asks that are answered, and whose answers wait to be had.
    pub asks_answered: Gauge,
    /// TAKEs that are held until their answer is there.
    pub takes_held: Gauge,
    /// Answers that clients have had.
    pub asks_taken: Counter,
    /// Asks that ended without their client saying so: with their session, by their age, for a newer epoch, or because no answer
    /// will come.
    pub asks_expired: Counter,
    /// Asks that operators had forgotten.
    pub asks_forgotten: Counter,
    /// Asks that were refused because there was no room for one more.
    pub asks_refused: Counter,
    /// Seconds from the ack of an ask until its answer is durable.
    pub answer_delay_seconds: Histogram,
    /// Seqs that clients gave up (SKIP).
    pub abandoned: Counter,
    /// Seqs that clients count as acked and the journal does not hold: lost data.
    pub lost: Counter,
    /// Bytes free on the journal's file system.
    pub free_bytes: FreeBytes,
    /// Entries that a lane has not yet processed.
    pub lane_lag: Family<LaneLabel, Gauge>,
    /// Handlers have finished so many records since the start.
    pub processed: Family<LaneLabel, Counter>,
    /// Records that handlers asked to see again, times.
    pub retries: Counter,
    /// Records that became dead letters.
    pub dead_letters: Counter,
    /// Times a handler could not flush, or found its sink away.
    pub sink_failures: Counter,
    /// 1 while a lane waits for its sink, else 0.
    pub lane_down: Family<LaneLabel, Gauge>,
    /// Entries that a sink has not processed.
    pub sink_lag: Family<SinkLabel, Gauge>,
    /// Bytes of the journal that a sink has not processed.
    pub sink_held_bytes: Family<SinkLabel, Gauge>,
    /// Seconds since the oldest record arrived that a sink has taken and not made durable; 0 for none.
    pub sink_oldest_seconds: Family<SinkLabel, Gauge>,
    /// 1 while a sink takes records, 0 while it is away.
    pub sink_up: Family<SinkLabel, Gauge>,
    /// Since when it has been up or down, in seconds since 1970.
    pub sink_changed: Family<SinkLabel, Gauge>,
    /// Bytes of the journal that a sink may hold; of those alone that have such a bound.
    pub sink_backlog_max_bytes: Family<SinkLabel, Gauge>,
    /// 1 while an operator has stopped a sink.
    pub sink_paused: Family<SinkLabel, Gauge>,
    /// Records of a sink that became dead letters.
    pub sink_dead_letters: Family<SinkLabel, Counter>,
    /// Entries lost to a sink, because it held too much.
    pub sink_lost_entries: Family<SinkLabel, Counter>,
    /// 1 while new data is refused because of what a sink holds.
    pub sink_blocks: Family<SinkLabel, Gauge>,
    /// Handlers panicked so many times, and the lane went on.
    pub handler_panics: Counter,
    /// Answers of handlers that were longer than they may be.
    pub answers_too_long: Counter,
    /// Times a lane read blocks back from the journal, because they were not in memory any more or the server had restarted.
    pub lane_journal_reads: Counter,
    /// Times the key file was read again (SIGHUP), by what came of it: done, failed.
    pub key_reloads: Family<Outcome, Counter>,
}

/// Free space, which is not told of before it is known: a file system may never tell, and neither all nor nothing would be true.
#[derive(Clone, Debug)]
pub struct FreeBytes(Gauge<u64, AtomicU64>);

impl FreeBytes {
    const UNKNOWN: u64 = u64::MAX;

    /// Sets the number of bytes; with `None` the metric is not shown.
    pub fn set(&self, bytes: Option<u64>) {
        self.0.set(bytes.unwrap_or(Self::UNKNOWN));
    }
}

impl Default for FreeBytes {
    fn default() -> Self {
        let gauge = Gauge::default();
        gauge.set(Self::UNKNOWN);
        Self(gauge)
    }
}

impl EncodeMetric for FreeBytes {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.get() == Self::UNKNOWN
    }
}

impl Metrics {
    /// Makes the metrics and registers them under the prefix `duragram`, and those of the process under `process`, as
    /// Prometheus clients name them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            datagrams: Family::default(),
            received_bytes: Counter::default(),
            kernel_drops: Counter::default(),
            receive_errors: Counter::default(),
            replies: Family::default(),
            replies_withheld: Family::default(),
            reply_errors: Counter::default(),
            commits: Counter::default(),
            commit_entries: Histogram::new(exponential_buckets(1.0, 4.0, 10)),
            commit_seconds: Histogram::new(exponential_buckets(50e-6, 2.0, 17)),
            ack_delay_seconds: Histogram::new(exponential_buckets(50e-6, 2.0, 17)),
            journal_bytes: Counter::default(),
            backlog_bytes: Gauge::default(),
            checkpoints: Counter::default(),
            sessions: Gauge::default(),
            sessions_expired: Counter::default(),
            asks_open: Gauge::default(),
            asks_answered: Gauge::default(),
            takes_held: Gauge::default(),
            asks_taken: Counter::default(),
            asks_expired: Counter::default(),
            asks_forgotten: Counter::default(),
            asks_refused: Counter::default(),
            answer_delay_seconds: Histogram::new(exponential_buckets(50e-6, 2.0, 28)),
            abandoned: Counter::default(),
            lost: Counter::default(),
            free_bytes: FreeBytes::default(),
            lane_lag: Family::default(),
            processed: Family::default(),
            retries: Counter::default(),
            dead_letters: Counter::default(),
            sink_failures: Counter::default(),
            lane_down: Family::default(),
            sink_lag: Family::default(),
            sink_held_bytes: Family::default(),
            sink_oldest_seconds: Family::default(),
            sink_up: Family::default(),
            sink_changed: Family::default(),
            sink_backlog_max_bytes: Family::default(),
            sink_paused: Family::default(),
            sink_dead_letters: Family::default(),
            sink_lost_entries: Family::default(),
            sink_blocks: Family::default(),
            handler_panics: Counter::default(),
            answers_too_long: Counter::default(),
            lane_journal_reads: Counter::default(),
            key_reloads: Family::default(),
        };
        for (family, outcomes) in [
            (&metrics.datagrams, &DATAGRAMS[..]),
            (&metrics.replies, &REPLIES),
            (&metrics.replies_withheld, &WITHHELD),
            (&metrics.key_reloads, &RELOADS),
        ] {
            outcomes.iter().for_each(|outcome| drop(family.get_or_create(&Outcome { outcome })));
        }
        registry.register_collector(Box::new(Process { started: SystemTime::now() }));
        let m = &metrics;
        let r = registry.sub_registry_with_prefix("duragram");
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The version that runs", version);
        r.register("datagrams", "Datagrams received, by what became of them", m.datagrams.clone());
        r.register_with_unit("received", "UDP payload received", Unit::Bytes, m.received_bytes.clone());
        r.register("kernel_drops", "Datagrams dropped by the kernel: receive buffer full", m.kernel_drops.clone());
        r.register("receive_errors", "Receives that failed, and are tried again", m.receive_errors.clone());
        r.register("replies", "Replies handed to the kernel, by type", m.replies.clone());
        r.register(
            "replies_withheld",
            "Replies not sent: too many to a source, or not to be sealed yet",
            m.replies_withheld.clone(),
        );
        r.register("reply_errors", "Replies that the kernel refused", m.reply_errors.clone());
        r.register("commits", "Group commits", m.commits.clone());
        r.register("commit_entries", "Entries in a group commit", m.commit_entries.clone());
        r.register_with_unit(
            "commit",
            "Time of a group commit: write and sync",
            Unit::Seconds,
            m.commit_seconds.clone(),
        );
        r.register_with_unit(
            "ack_delay",
            "From a datagram's arrival to its ack",
            Unit::Seconds,
            m.ack_delay_seconds.clone(),
        );
        r.register_with_unit("journal_written", "Blocks written to the journal", Unit::Bytes, m.journal_bytes.clone());
        r.register_with_unit("backlog", "Blocks in the journal, not trimmed", Unit::Bytes, m.backlog_bytes.clone());
        r.register("checkpoints", "Checkpoints written", m.checkpoints.clone());
        r.register("sessions", "Sessions in the table", m.sessions.clone());
        r.register("sessions_expired", "Sessions that expired", m.sessions_expired.clone());
        r.register("asks_open", "Asks that are not answered", m.asks_open.clone());
        r.register("asks_answered", "Asks whose answers wait to be had", m.asks_answered.clone());
        r.register("takes_held", "TAKEs held until their answer is there", m.takes_held.clone());
        r.register("asks_taken", "Answers that clients have had", m.asks_taken.clone());
        r.register("asks_expired", "Asks that ended without their client saying so", m.asks_expired.clone());
        r.register("asks_forgotten", "Asks that operators had forgotten", m.asks_forgotten.clone());
        r.register("asks_refused", "Asks refused because there was no room", m.asks_refused.clone());
        r.register_with_unit(
            "answer_delay",
            "From the ack of an ask until its answer is durable",
            Unit::Seconds,
            m.answer_delay_seconds.clone(),
        );
        r.register("abandoned_seqs", "Seqs that clients gave up (SKIP)", m.abandoned.clone());
        r.register("lost_seqs", "Seqs acked once that this journal does not hold", m.lost.clone());
        r.register_with_unit("free", "Free on the journal's file system", Unit::Bytes, m.free_bytes.clone());
        r.register("lane_lag_entries", "Entries that a lane has not processed", m.lane_lag.clone());
        r.register("processed_records", "Records that handlers finished", m.processed.clone());
        r.register("retries", "Times a handler asked to see a record again", m.retries.clone());
        r.register("dead_letters", "Records that became dead letters", m.dead_letters.clone());
        r.register("sink_failures", "Times a sink could not be written", m.sink_failures.clone());
        r.register("lane_down", "1 while a lane waits for its sink", m.lane_down.clone());
        r.register("sink_lag_entries", "Entries that a sink has not processed", m.sink_lag.clone());
        r.register_with_unit(
            "sink_held",
            "Journal that a sink has not processed",
            Unit::Bytes,
            m.sink_held_bytes.clone(),
        );
        r.register_with_unit(
            "sink_backlog_max",
            "Journal that a sink may hold unprocessed",
            Unit::Bytes,
            m.sink_backlog_max_bytes.clone(),
        );
        r.register_with_unit(
            "sink_oldest",
            "Age of the oldest record that a sink has not finished",
            Unit::Seconds,
            m.sink_oldest_seconds.clone(),
        );
        r.register("sink_up", "1 while a sink takes records", m.sink_up.clone());
        r.register_with_unit(
            "sink_changed_timestamp",
            "When a sink has gone up or down, since 1970",
            Unit::Seconds,
            m.sink_changed.clone(),
        );
        r.register("sink_paused", "1 while an operator has stopped a sink", m.sink_paused.clone());
        r.register("sink_blocks", "1 while a sink holds too much to take new data", m.sink_blocks.clone());
        r.register("sink_dead_letters", "Records of a sink that became dead letters", m.sink_dead_letters.clone());
        r.register("sink_lost_entries", "Entries lost to a sink that held too much", m.sink_lost_entries.clone());
        r.register("handler_panics", "Panics of handlers, contained", m.handler_panics.clone());
        r.register(
            "answers_too_long",
            "Answers of handlers that were longer than answer_bytes_max: refused",
            m.answers_too_long.clone(),
        );
        r.register("lane_journal_reads", "Times a lane read back from the journal", m.lane_journal_reads.clone());
        r.register("key_reloads", "Times the key file was read again, by what came of it", m.key_reloads.clone());
        metrics
    }

    /// Name, type and meaning of every metric, in the order of `/metrics`, as `docs/operations.md` lists them.
    pub fn catalogue() -> Vec<Described> {
        let mut registry = Registry::default();
        let metrics = Self::register(&mut registry);
        // Families without a member are not written.
        let label = LaneLabel { sink: String::new(), lane: 0 };
        drop(metrics.lane_lag.get_or_create(&label));
        drop(metrics.processed.get_or_create(&label));
        drop(metrics.lane_down.get_or_create(&label));
        drop(metrics.of_sink("name"));
        metrics.bound_sink("name", 0);
        metrics.free_bytes.set(Some(0));
        let mut text = String::new();
        // Writing to a string fails only when a metric's own encoding does; the list is then cut and its test fails.
        let _encoded = encode(&mut text, &registry);
        let mut described: Vec<Described> = Vec::new();
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                let help = help.trim_end_matches('.').to_owned();
                described.push(Described { name: name.to_owned(), kind: String::new(), help });
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
                && let Some(last) = described.last_mut().filter(|last| last.name == name)
            {
                kind.clone_into(&mut last.kind);
                match kind {
                    "counter" => last.name.push_str("_total"),
                    "info" => last.name.push_str("_info"),
                    _ => {}
                }
            }
        }
        described
    }

    /// Counts `n` datagrams with one outcome.
    pub fn count(&self, outcome: &'static str, n: u64) {
        if n > 0 {
            self.datagrams.get_or_create(&Outcome { outcome }).inc_by(n);
        }
    }

    /// Counts an attempt to read the key file again.
    pub fn keys_reloaded(&self, done: bool) {
        self.key_reloads.get_or_create(&Outcome { outcome: if done { "done" } else { "failed" } }).inc();
    }

    /// Counts `n` replies that were not sent, by the reason.
    pub fn replies_withheld(&self, reason: &'static str, n: u64) {
        if n > 0 {
            self.replies_withheld.get_or_create(&Outcome { outcome: reason }).inc_by(n);
        }
    }

    /// Counts `n` replies of one type.
    pub fn replies_sent(&self, kind: &'static str, n: u64) {
        if n > 0 {
            self.replies.get_or_create(&Outcome { outcome: kind }).inc_by(n);
        }
    }
}

/// One metric of [`Metrics::catalogue`] is described by this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// As it is written at `/metrics`, such as `duragram_commits_total`.
    pub name: String,
    /// What kind of metric it is, such as `counter`.
    pub kind: String,
    /// What the metric tells, as its line of help does.
    pub help: String,
}

/// The metrics of the process itself, read from `/proc` when they are asked for.
#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let started = self.started.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut gauge = |name, help, unit, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        gauge("process_start_time", "Start of the process, since 1970", Some(&Unit::Seconds), started)?;
        // What cannot be read (no /proc) is left out rather than told wrong.
        if let Some(bytes) = resident_bytes() {
            gauge("process_resident_memory", "Resident memory", Some(&Unit::Bytes), bytes)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The directory that is being read is open too.
            let count = u32::try_from(open.count().saturating_sub(1)).unwrap_or(u32::MAX);
            gauge("process_open_fds", "Open file descriptors", None, f64::from(count))?;
        }
        Ok(())
    }
}

/// The memory that is resident (`VmRSS`), in bytes.
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) * 1024.0)
}

#[cfg(test)]
mod tests;
