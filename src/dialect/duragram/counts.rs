//! What became of datagrams, summed up for a batch so that the metrics are touched once.

use duragram_proto::codec::RejectCode;

use crate::metrics::Metrics;

/// What became of the requests that arrived together.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) duplicate: u64,
    pub(super) hello: u64,
    pub(super) ping: u64,
    pub(super) take: u64,
    /// DATA of a sealed session that has ended, or that never was.
    pub(super) replayed_session: u64,
    /// A HELLO whose epoch is in use or was.
    pub(super) replayed_hello: u64,
    /// What asks for a session, and comes too often from its source.
    pub(super) limited: u64,
    refused: [u64; 10],
}

impl Counts {
    pub(super) fn refuse(&mut self, code: RejectCode) {
        self.refused[usize::from(code.to_wire()).min(9)] += 1;
    }

    pub(super) fn report(self, metrics: &Metrics) {
        metrics.count("duplicate", self.duplicate);
        metrics.count("hello", self.hello);
        metrics.count("ping", self.ping);
        metrics.count("take", self.take);
        metrics.count("replayed_session", self.replayed_session);
        metrics.count("replayed_hello", self.replayed_hello);
        metrics.count("limited", self.limited);
        const NAMES: [&str; 10] = [
            "",
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
        for (name, &count) in NAMES.iter().zip(&self.refused) {
            metrics.count(name, count);
        }
    }
}
