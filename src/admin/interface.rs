//! What the answers to all requests have in common: the server that they tell of, what is bounded over all of them, and how
//! one may wait without holding up the others.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};

use super::error::ApiError;
use super::state::AdminState;
use crate::config::memory::memory_bound;
use crate::config::{Config, KEYS, promise_of};
use crate::limits;

/// What is configured of a sink, as far as it is shown.
pub(super) struct KnownSink {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) promise: &'static str,
}

/// What every answer is made from.
pub(super) struct Interface {
    pub(super) state: Arc<dyn AdminState>,
    /// A place for each stream that may be open.
    pub(super) streams: Arc<Semaphore>,
    pub(super) stopping: watch::Receiver<bool>,
    /// What of `/api/status` never changes.
    pub(super) fixed: Map<String, Value>,
    /// The configuration names these sinks.
    pub(super) sinks: Arc<[KnownSink]>,
}

impl Interface {
    pub(super) fn new(
        state: Arc<dyn AdminState>,
        config: &Config,
        address: SocketAddr,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let values: Map<String, Value> = KEYS.iter().map(|key| (key.name.to_owned(), key.show(config))).collect();
        let fixed = [
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("admin", json!(address)),
            ("sinks", config.sink.iter().map(|sink| sink.name.as_str()).collect()),
            ("config", Value::Object(values)),
            ("memory", json!(memory_bound(config))),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let known = config.sink.iter().map(|sink| KnownSink {
            name: sink.name.clone(),
            kind: sink.target.kind(),
            promise: promise_of(sink),
        });
        let streams = Arc::new(Semaphore::new(limits::ADMIN_TAILS));
        Self { state, streams, stopping, fixed, sinks: known.collect() }
    }

    /// Runs what may wait for the disk beside the requests that wait for nothing.
    pub(super) async fn blocking<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn AdminState) -> Result<T, ApiError> + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || work(&*state)).await.unwrap_or_else(|panic| {
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the request failed: {panic}")))
        })
    }
}
