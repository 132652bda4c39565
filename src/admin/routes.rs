//! Which path answers what.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use prometheus_client::encoding::text::encode;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};

use super::error::ApiError;
use super::exposition::Exposition;
use super::guard::{Guard, MayKnow};
use super::{AdminState, dead, entries, guard};
use crate::config::memory::memory_bound;
use crate::config::{Config, KEYS};
use crate::limits;

/// What every request sees.
pub(super) struct Shared {
    pub(super) state: Arc<dyn AdminState>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) guard: Guard,
    /// What of `/api/status` never changes.
    fixed: Map<String, Value>,
}

impl Shared {
    pub(super) fn new(
        state: Arc<dyn AdminState>,
        config: &Config,
        guard: Guard,
        address: SocketAddr,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let values: Map<String, Value> = KEYS.iter().map(|key| (key.name.to_owned(), key.show(config))).collect();
        let fixed = [
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("admin", json!(address)),
            ("sinks", json!(config.sink)),
            ("config", Value::Object(values)),
            ("memory", json!(memory_bound(config))),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { state, streams: Arc::new(Semaphore::new(limits::ADMIN_TAILS)), stopping, guard, fixed }
    }

    /// Runs what may wait for the disk or a lane beside the requests that wait for nothing.
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

/// The whole interface.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/entries", get(entries::page))
        .route("/api/tail", get(entries::tail))
        .route("/api/dead", get(dead::list))
        .route("/api/dead/{offset}/{index}", get(dead::show).delete(dead::discard))
        .route("/api/dead/{offset}/{index}/retry", post(dead::retry))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::check))
        .with_state(shared)
}

/// 200 while the process can do its work, 503 once a commit has failed: restart it then.
async fn healthz(State(shared): State<Arc<Shared>>, Extension(may_know): Extension<MayKnow>) -> Response {
    probed("healthy", shared.state.failure().into_iter().collect(), may_know, None)
}

/// 200 while datagrams are accepted, else 503 with the reasons. A sink that is away keeps nobody from sending: it is told as
/// what is waited for.
async fn readyz(State(shared): State<Arc<Shared>>, Extension(may_know): Extension<MayKnow>) -> Response {
    let mut reasons = shared.state.not_ready();
    reasons.extend(shared.state.failure());
    let waiting = shared.state.waiting();
    probed("ready", reasons, may_know, (!waiting.is_empty()).then_some(("waiting", waiting)))
}

fn probed(what: &str, reasons: Vec<String>, MayKnow(may_know): MayKnow, more: Option<(&str, Vec<String>)>) -> Response {
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = json!({ what: reasons.is_empty() });
    if may_know {
        answer["reasons"] = json!(reasons);
        if let Some((name, more)) = more {
            answer[name] = json!(more);
        }
    }
    (status, Json(answer)).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let mut text = String::new();
    encode(&mut text, shared.state.registry())
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let exposition = Exposition::accepted_by(&headers);
    Ok(([(CONTENT_TYPE, exposition.content_type()), (VARY, "Accept")], exposition.write(text)).into_response())
}

async fn status(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let status = serde_json::to_value(shared.state.status())
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut all = shared.fixed.clone();
    if let Value::Object(changing) = status {
        all.extend(changing);
    }
    all.insert("waiting".to_owned(), json!(shared.state.waiting()));
    let journal = shared.state.journal();
    all.insert("journal".to_owned(), json!(journal.id().map(|id| id.to_string())));
    all.insert("instance".to_owned(), json!(journal.instance().map(|instance| instance.to_string())));
    Ok(Json(Value::Object(all)).into_response())
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
