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
    /// Messages that were answered, DONE or FAILED, each counted once.
    pub(super) answered: u64,
    /// So many of these were answered FAILED.
    pub(super) failed: u64,
    /// Messages whose answer will not come.
    pub(super) gone: u64,
    /// Messages whose answer is longer than any that this load has room for.
    pub(super) unfit: u64,
    /// How often an answer was not there yet.
    pub(super) pending: u64,
    answers: Histogram<u64>,
    latencies: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS);
        let latencies = latencies.expect("constant bounds are valid");
        Self {
            started: 0,
            acked: 0,
            resent: 0,
            rejected: 0,
            unsent: 0,
            answered: 0,
            failed: 0,
            gone: 0,
            unfit: 0,
            pending: 0,
            answers: latencies.clone(),
            latencies,
        }
    }

    /// `count` datagrams were acked so long after they were meant to be sent.
    pub(super) fn acked(&mut self, latency_ns: u64, count: u64) {
        self.acked += count;
        self.latencies.saturating_record_n(latency_ns, count);
    }

    /// A message was answered so long after it was meant to be sent.
    pub(super) fn answered(&mut self, latency_ns: u64, failed: bool) {
        self.answered += 1;
        self.failed += u64::from(failed);
        self.answers.saturating_record(latency_ns);
    }

    /// Messages of which nothing more will be heard.
    pub(super) fn finished(&self) -> u64 {
        self.answered + self.gone + self.unfit
    }

    /// The time to the answer that this share of the answered messages, from 0 to 1, did not exceed, in microseconds; `None` without
    /// any.
    pub(super) fn answer_quantile_us(&self, share: f64) -> Option<f64> {
        (self.answered > 0).then(|| in_us(self.answers.value_at_quantile(share)))
    }

    /// The longest time to an answer in microseconds; `None` without any.
    pub(super) fn answer_max_us(&self) -> Option<f64> {
        (self.answered > 0).then(|| in_us(self.answers.max()))
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

/// Rounds to a tenth of a microsecond: finer is noise.
fn in_us(ns: u64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}
