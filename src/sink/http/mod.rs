//! `http`: records as requests to an HTTP server, one each (`record`) or many at a time (`batch`).
//!
//! At least once: what is in doubt after a timeout, a cut connection or a crash comes again, the same record by the same name. Who
//! keeps the names that it has seen (`Idempotency-Key`, or journal, offset and index) has each record once.
//!
//! Whose fault a failure is decides what becomes of it (`verdict`): a record's makes a dead letter, and nothing else does. Secrets and
//! what TLS needs are read anew with every session of the `client`; nothing of them stands in an error.

mod answers;
mod batch;
mod client;
mod connect;
mod record;
mod reply;
mod request;
mod retry_after;
mod verdict;

use std::time::{Duration, Instant};

use batch::Batches;
use client::Client;
use connect::Connecting;
use request::Requests;

use crate::limits;
use crate::model::{HttpMode, HttpTarget, JournalId, Record};
use crate::process::handler::{Handler, HandlerError, Outcome, Outcomes};

/// Sends records to an HTTP server.
pub(super) struct HttpSink {
    client: Client,
    requests: Requests,
    /// Requests under way at a time, in mode `record`.
    in_flight: usize,
    /// Requests are put together here in mode `batch`; `None` in mode `record`.
    batches: Option<Batches>,
    /// The server wants to be left alone until then.
    pause_until: Option<Instant>,
}

impl HttpSink {
    /// A sink that connects when it has something to send. No call takes longer than `timeout`.
    ///
    /// # Errors
    /// The URL or a header is none, or the journal has no name that records could be named by.
    pub(super) fn new(
        target: &HttpTarget,
        timeout: Duration,
        journal: Option<JournalId>,
    ) -> Result<Self, HandlerError> {
        let journal =
            journal.ok_or_else(|| HandlerError::new("the journal has no id, by which its records are named"))?;
        let requests = Requests::new(target, journal)?;
        let (in_flight, batches) = match target.mode {
            HttpMode::Record => (target.in_flight_max.clamp(1, limits::HTTP_IN_FLIGHT), None),
            HttpMode::Batch => (1, Some(Batches::new())),
        };
        let connecting = Connecting::new(target.tls.clone());
        let client = Client::new(requests.origin(), target.auth.clone(), connecting, timeout, in_flight);
        Ok(Self { client, requests, in_flight, batches, pause_until: None })
    }
}

impl Handler for HttpSink {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let now = Instant::now();
        if let Some(left) =
            self.pause_until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
        {
            return outcomes.unavailable(format!(
                "{} wants to be left alone for {} s more (Retry-After)",
                self.client.origin(),
                left.as_secs() + 1
            ));
        }
        self.pause_until = None;
        let fault = match &mut self.batches {
            Some(batches) => batches.present(&self.client, &self.requests, records, outcomes),
            None => record::present(&self.client, &self.requests, self.in_flight, records, outcomes),
        };
        let Some(fault) = fault else { return };
        self.pause_until = fault.pause.and_then(|pause| Instant::now().checked_add(pause));
        let error = HandlerError::new(fault.reason);
        // A server that takes some before it fails is no reason to wait longer and longer.
        let some = (0..records.len()).any(|i| *outcomes.outcome(i) == Outcome::Done);
        outcomes.unavailable_for(if some { error.soon() } else { error });
    }

    /// Nothing is held back: what was answered *done* the server has.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        Ok(true)
    }

    /// Connects anew, with what the files hold now, and no longer waits for the end of a pause.
    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.pause_until = None;
        self.client.renew();
        Ok(())
    }
}
