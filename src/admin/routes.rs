//! Each path of the interface has its handler here.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::header::{CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router, middleware};
use prometheus_client::encoding::text::encode;
use serde_json::{Value, json};

use super::error::ApiError;
use super::exposition::Exposition;
use super::guard::{self, Guard, MayKnow};
use super::interface::Interface;
use super::{asks, dead, entries, sinks};
use crate::limits;

/// Makes the whole interface, with the guard before every path.
pub(super) fn router(interface: Interface, guard: Guard) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/status", get(status))
        .route("/api/entries", get(entries::page))
        .route("/api/tail", get(entries::tail))
        .route("/api/asks", get(asks::show))
        .route("/api/asks/{client}", delete(asks::forget))
        .route("/api/dead", get(dead::list))
        .route("/api/dead/{offset}/{index}", get(dead::show).delete(dead::discard))
        .route("/api/dead/{offset}/{index}/retry", post(dead::retry))
        .route("/api/sinks", get(sinks::list))
        .route("/api/sinks/pause", post(sinks::pause))
        .route("/api/sinks/resume", post(sinks::resume))
        .route("/api/sinks/seek", post(sinks::seek))
        .route("/api/sinks/remove", post(sinks::remove))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .with_state(Arc::new(interface))
}

/// 200 while the process can do its work, 503 once a commit has failed: restart it then.
async fn healthz(State(interface): State<Arc<Interface>>, Extension(may_know): Extension<MayKnow>) -> Response {
    probed("healthy", interface.state.failure().into_iter().collect(), may_know, None)
}

/// 200 while datagrams are accepted, else 503 with the reasons. A sink that is away keeps nobody from sending: it is reported as
/// what is waited for.
async fn readyz(State(interface): State<Arc<Interface>>, Extension(may_know): Extension<MayKnow>) -> Response {
    let mut reasons = interface.state.not_ready();
    reasons.extend(interface.state.failure());
    let waiting = interface.state.waiting();
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

async fn metrics(State(interface): State<Arc<Interface>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let mut text = String::new();
    encode(&mut text, interface.state.registry())
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let exposition = Exposition::accepted_by(&headers);
    Ok(([(CONTENT_TYPE, exposition.content_type()), (VARY, "Accept")], exposition.write(text)).into_response())
}

async fn status(State(interface): State<Arc<Interface>>) -> Result<Response, ApiError> {
    let status = serde_json::to_value(interface.state.status())
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let mut all = interface.fixed.clone();
    if let Value::Object(changing) = status {
        all.extend(changing);
    }
    all.insert("waiting".to_owned(), json!(interface.state.waiting()));
    let journal = interface.state.journal();
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
