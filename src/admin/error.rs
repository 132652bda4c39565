//! Errors as the API tells them: a status and `{"error":"..."}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::journal::StorageError;

/// A request that was not fulfilled.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// DNS rebinding, or a proxy that does not set the Host.
    pub(super) fn foreign_host(host: &str) -> Self {
        let message = format!(
            "Host {host:?} is not this machine's loopback; a proxy must set it to 127.0.0.1 (protection from DNS rebinding)"
        );
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        tracing::warn!(%error, "an admin request could not read the journal");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}
