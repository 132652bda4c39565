//! What went wrong at the server, and what to do about it.

use std::error::Error as _;

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{ConnectError, ConnectErrorKind, RequestError, RequestErrorKind};

/// Why a batch or a message was not stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// The stream has not the last message that was expected: this was written already, or somebody else writes.
    Moved,
    /// There is no room for so much.
    Full(String),
    /// The record can never be stored, for this reason.
    Never(String),
    /// It was not stored for this reason, and may be tried again.
    Other(String),
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

pub(super) fn of_connecting(error: &ConnectError) -> String {
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            format!("{error}: check user, password, token or credentials; a changed secret is read at the next try")
        }
        _ => error.to_string(),
    }
}

pub(super) fn of_getting(error: &GetStreamError) -> String {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => of_jetstream(&error),
        // A server without JetStream has nobody who answers.
        GetStreamErrorKind::Request => format!("{error}: is JetStream on, and open to this user?"),
        _ => error.to_string(),
    }
}

pub(super) fn of_making(error: &CreateStreamError) -> String {
    match error.kind() {
        CreateStreamErrorKind::JetStream(error) => of_jetstream(&error),
        _ => error.to_string(),
    }
}

pub(super) fn of_request(error: &RequestError) -> Refused {
    Refused::Other(match error.kind() {
        RequestErrorKind::NoResponders => NOBODY.to_owned(),
        RequestErrorKind::TimedOut => "it did not answer in time (timeout)".to_owned(),
        _ => error.to_string(),
    })
}

pub(super) fn of_publishing(error: &PublishError) -> Refused {
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>()) {
        return refused(error);
    }
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Refused::Never(error.to_string()),
        PublishErrorKind::StreamNotFound => Refused::Other(NOBODY.to_owned()),
        PublishErrorKind::TimedOut => Refused::Other("it did not answer in time (timeout)".to_owned()),
        _ => Refused::Other(error.to_string()),
    }
}

/// What JetStream answered in place of storing something.
pub(super) fn refused(error: &jetstream::Error) -> Refused {
    match error.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE
        | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
        | ErrorCode::STREAM_WRONG_LAST_MESSAGE_ID => Refused::Moved,
        ErrorCode::STREAM_STORE_FAILED => Refused::Full(of_jetstream(error)),
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Refused::Never(of_jetstream(error)),
        _ => Refused::Other(of_jetstream(error)),
    }
}

const NOBODY: &str = "no stream takes this subject: make the stream, or add the subject to it";

fn of_jetstream(error: &jetstream::Error) -> String {
    let advice = match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND => "make the stream, or set exclusive = true to have it made",
        ErrorCode::STREAM_SUBJECT_OVERLAP => "another stream takes this subject: configure another one",
        ErrorCode::STREAM_STORE_FAILED => {
            "the stream is full or cannot be written: raise its limits, or look at the server's disk"
        }
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED | ErrorCode::INSUFFICIENT_RESOURCES => {
            "the account's or the server's room for JetStream is used up: raise it"
        }
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            "switch JetStream on, for this account too"
        }
        ErrorCode::CLUSTER_NOT_AVAILABLE => "the cluster has no majority: look at its servers",
        ErrorCode::ATOMIC_PUBLISH_DISABLED => "allow atomic publishing in the stream's configuration (allow_atomic)",
        ErrorCode::STREAM_SEALED => "the stream is sealed: configure another one",
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}
