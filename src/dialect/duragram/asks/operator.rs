//! What an operator asks about asks, and has forgotten.

use super::table::SeenAt;
use crate::dialect::duragram::Duragram;
use crate::model::{AskRecord, AskTotals, AsksReport, AsksRequest, Now};

impl Duragram {
    /// How many asks there are.
    pub(in crate::dialect::duragram) fn ask_totals(&self) -> AskTotals {
        self.asks.totals(self.held.len())
    }

    /// Does what an operator wants, as a part of the commit that is being built, and says what it came to.
    pub(in crate::dialect::duragram) fn ask_report(&mut self, request: AsksRequest, now: Now) -> AsksReport {
        let at = SeenAt { mono_us: now.mono_us, service_s: self.service_s(now) };
        let mut report = AsksReport::default();
        match request {
            AsksRequest::Overview => {
                report.oldest = self.asks.oldest(at);
                report.clients = self.asks.largest();
                report.clients_len = self.asks.clients_len();
            }
            AsksRequest::Of(client) => report.asks = self.asks.of(client, at),
            AsksRequest::Forget(client) => {
                report.asks = self.asks.of(client, at);
                let gone = self.asks.forget_of(client);
                self.metrics.asks_forgotten.inc_by(gone.len() as u64);
                // An operator is told that they are forgotten when that is durable: they are a reason to write.
                self.answers_bytes += gone.len() * size_of::<AskRecord>();
                self.ended(gone);
                tracing::info!(%client, asks = report.asks.len(), "an operator has had the asks of a client forgotten");
            }
        }
        report.totals = self.ask_totals();
        report
    }
}
