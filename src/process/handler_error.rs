//! Why a handler could not do what it was asked.

use std::fmt;

/// Why a handler could not start, flush or reopen, for the operator to read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct HandlerError {
    message: String,
    soon: bool,
}

impl HandlerError {
    /// Makes one of any error or text.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), soon: false }
    }

    /// Part of it was done, or to ask again costs nothing: the next try comes after the first delay of the
    /// [`RetryPolicy`](crate::process::RetryPolicy), which does not grow.
    pub fn soon(self) -> Self {
        Self { soon: true, ..self }
    }

    pub(crate) fn is_soon(&self) -> bool {
        self.soon
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }
}
