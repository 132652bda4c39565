//! An answer as JSON, which `ask` and `send` share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::client::{Answer, Status};

/// What a status is called, as PROTOCOL.md does.
pub(super) fn status_name(status: Status) -> &'static str {
    match status {
        Status::Done => "DONE",
        Status::Failed => "FAILED",
        Status::Gone => "GONE",
    }
}

/// Adds an answer's body as text, or as base64 where it is none.
pub(super) fn add_body(told: &mut Value, answer: &Answer) {
    if answer.status == Status::Gone {
        return;
    }
    if answer.body.len() < answer.length as usize {
        told["length"] = answer.length.into();
        return;
    }
    match std::str::from_utf8(&answer.body) {
        Ok(text) => told["body"] = text.into(),
        Err(_) => told["body_base64"] = STANDARD.encode(&answer.body).into(),
    }
}
