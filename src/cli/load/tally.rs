//! What a run has seen: counts and the histogram of latencies.

use hdrhistogram::Histogram;

/// The longest latency that is told apart, in nanoseconds: an hour, as long as a run.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Latencies are kept to a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Counts of datagrams, and their latencies.
#[derive(Debug)]
pub(super) struct Tally {
    /// Datagrams that were sent at least once.
    pub(super) started: u64,
    /// Datagrams that were acked, each counted once.
    pub(super) acked: u64,
    /// Transmissions after a datagram's first.
    pub(super) resent: u64,
    /// REJECTs that concerned something under way.
    pub(super) rejected: u64,
    /// Messages that the kernel would not send.
    pub(super) unsent: u64,
    latencies: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS);
        let latencies = latencies.expect("constant bounds are valid");
        Self { started: 0, acked: 0, resent: 0, rejected: 0, unsent: 0, latencies }
    }

    /// `count` datagrams were acked so long after they were meant to be sent.
    pub(super) fn acked(&mut self, latency_ns: u64, count: u64) {
        self.acked += count;
        self.latencies.saturating_record_n(latency_ns, count);
    }

    /// The latency that this share of the datagrams, from 0 to 1, did not exceed, in microseconds; `None` without any.
    pub(super) fn quantile_us(&self, share: f64) -> Option<f64> {
        (self.acked > 0).then(|| in_us(self.latencies.value_at_quantile(share)))
    }

    /// The longest latency in microseconds; `None` without any.
    pub(super) fn max_us(&self) -> Option<f64> {
        (self.acked > 0).then(|| in_us(self.latencies.max()))
    }
}

/// With one decimal: finer is noise.
fn in_us(ns: u64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}
