//! What a run has seen: counts and the histogram of latencies.

use hdrhistogram::Histogram;

/// The longest latency that is told apart, in nanoseconds: an hour, as long as a run.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Latencies are kept to a thousandth, as `duragram load` does.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Counts of requests, and the latencies of those that were acked.
pub(crate) struct Tally {
    pub(crate) started: u64,
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) first_refusal: Option<String>,
    latencies: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS);
        let latencies = latencies.expect("constant bounds are valid");
        Self { started: 0, acked: 0, refused: 0, first_refusal: None, latencies }
    }

    pub(crate) fn acked(&mut self, latency_ns: u64) {
        self.acked += 1;
        self.latencies.saturating_record(latency_ns);
    }

    pub(crate) fn refused(&mut self, why: String) {
        self.refused += 1;
        self.first_refusal.get_or_insert(why);
    }

    /// The latency that this share of the requests, from 0 to 1, did not exceed, in microseconds; `None` without any.
    pub(crate) fn quantile_us(&self, share: f64) -> Option<f64> {
        (self.acked > 0).then(|| in_us(self.latencies.value_at_quantile(share)))
    }

    /// The longest latency in microseconds; `None` without any.
    pub(crate) fn max_us(&self) -> Option<f64> {
        (self.acked > 0).then(|| in_us(self.latencies.max()))
    }
}

/// With one decimal: finer is noise.
fn in_us(ns: u64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}
