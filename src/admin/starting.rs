//! The admin interface while the server starts: the process lives and is not ready, and says how far it is. A probe that
//! asks whether it lives must not have a server restarted over and over that has much to read.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use bytesize::ByteSize;
use serde::Serialize;
use serde_json::json;

use super::error::ApiError;
use super::guard::{Guard, foreign_host};

/// What the admin interface sees of a server that starts.
pub trait Starting: Send + Sync + 'static {
    /// How far the start is.
    fn at(&self) -> StartingAt;
}

/// How far a server is that starts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct StartingAt {
    /// The step, such as "reading the journal".
    pub step: String,
    /// Bytes of the journal that were read.
    pub bytes: u64,
    /// Bytes that are to be read, as far as is known.
    pub bytes_total: u64,
    /// How long ago the start began, in seconds.
    pub seconds: u64,
}

impl fmt::Display for StartingAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, bytes, bytes_total, seconds } = self;
        write!(f, "{step}")?;
        if *bytes_total > 0 {
            write!(f, ", {} of about {} read", ByteSize(*bytes), ByteSize(*bytes_total))?;
        }
        write!(f, ", for {seconds} s")
    }
}

/// What every request sees until the server is ready.
struct Waiting {
    starting: Arc<dyn Starting>,
    guard: Guard,
}

/// Answers the questions of probes, and everything else with 503.
pub(super) fn router(starting: Arc<dyn Starting>, guard: Guard) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(Waiting { starting, guard }))
}

async fn answer(State(waiting): State<Arc<Waiting>>, request: Request) -> Response {
    let Waiting { starting, guard } = &*waiting;
    if let Some(host) = foreign_host(guard.local, &request) {
        return ApiError::foreign_host(&host).into_response();
    }
    let may_know = guard.local || guard.has_token(&request);
    let at = starting.at();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let mut answer = match request.uri().path() {
        "/healthz" if reads => {
            return Json(if may_know { json!({ "healthy": true, "reasons": [] }) } else { json!({ "healthy": true }) })
                .into_response();
        }
        "/readyz" if reads => {
            let mut answer = json!({ "ready": false });
            if may_know {
                answer["reasons"] = json!([format!("recovering: {at}")]);
                answer["progress"] = json!(at);
            }
            (StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response()
        }
        _ => {
            let how_far = if may_know { format!(": {at}") } else { String::new() };
            let message = format!("the server is not ready yet, ask again later{how_far}");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
    };
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
