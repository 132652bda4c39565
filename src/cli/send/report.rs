//! What was sent, for people and programs.

use std::time::Duration;

use crate::cli::client_args::refusal_text;
use duragram_proto::{ClientId, Epoch};
use indicatif::HumanBytes;
use serde_json::json;

use crate::client::Stats;

/// The command reports this when it has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) client: ClientId,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) too_long: u64,
    /// Whether each record that asked is DONE.
    pub(super) is_done: bool,
    pub(super) elapsed: Duration,
    pub(super) stats: Stats,
    pub(super) epoch_used: bool,
    pub(super) trouble: Option<String>,
}

impl Done {
    pub(super) fn is_complete(&self) -> bool {
        self.stats.acked == self.records && self.is_done
    }

    fn per_second(&self) -> f64 {
        self.stats.acked as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn epoch(&self) -> String {
        self.stats.epoch.map_or_else(|| "none yet".to_owned(), |epoch| epoch.to_string())
    }

    pub(super) fn as_text(&self) -> String {
        let Self { client, records, bytes, stats, .. } = self;
        let acked = if self.is_complete() { "all acked".to_owned() } else { format!("{} acked", stats.acked) };
        format!(
            "{records} records ({}), {acked}, in {:.3} s: {:.0} a second\n\
             {} datagrams, {} of them retransmissions; {} rejects\n\
             client {client}, epoch {}\n",
            HumanBytes(*bytes),
            self.elapsed.as_secs_f64(),
            self.per_second(),
            stats.transmissions,
            stats.retransmissions,
            stats.rejects,
            self.epoch(),
        )
    }

    pub(super) fn as_json(&self) -> String {
        let stats = &self.stats;
        let report = json!({
            "client": self.client.to_string(),
            "epoch": stats.epoch.map(Epoch::value),
            "records": self.records,
            "bytes": self.bytes,
            "acked": stats.acked,
            "refused": stats.failed,
            "too_long": self.too_long,
            "unacked": stats.unacked,
            "epoch_used": self.epoch_used,
            "refusal": stats.refusal.map(refusal_text),
            "trouble": self.trouble,
            "seconds": self.elapsed.as_secs_f64(),
            "records_per_second": self.per_second(),
            "transmissions": stats.transmissions,
            "retransmissions": stats.retransmissions,
            "rejects": stats.rejects,
            "rtt_us": stats.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        });
        format!("{report}\n")
    }
}
