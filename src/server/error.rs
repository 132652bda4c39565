//! Why a server could not start, or ended by itself, and which exit code that is.

use std::io;
use std::net::SocketAddr;

use crate::admin::TokenError;
use crate::commit::IngestError;
use crate::config;
use crate::host::resources::Shortage;
use crate::journal::{JournalError, OpenError, StorageError};
use crate::keys::KeyFileError;
use crate::process::HandlerError;
use crate::server::sinks::SinkRefusal;

/// Why the server could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself, and nothing was opened.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The configured sinks cannot go on in this journal.
    #[error(transparent)]
    Sinks(#[from] SinkRefusal),
    /// The key file was not taken.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// There is no admin token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An address is in use, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The configuration names this address.
        address: SocketAddr,
        /// The system gave this as the reason.
        source: io::Error,
    },
    /// The journal was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A handler could not be made, such as a sink that cannot be opened.
    #[error("cannot start processing: {0}")]
    Handler(#[from] HandlerError),
    /// The storage failed, or what it holds is damaged, as its [`damage`](StorageError::damage) says. Nothing was acked that is
    /// not on disk.
    #[error("{what}{0}", what = if .0.damage.is_some() { "" } else { "storage failed: " })]
    Storage(#[from] StorageError),
    /// The journal takes nothing any more, though its storage has not failed: it has another owner, or what was acked is gone.
    #[error(transparent)]
    Journal(JournalError),
    /// The system does not grant what is needed.
    #[error(transparent)]
    Short(#[from] Shortage),
    /// The system refused something else.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Error {
    /// The process's exit code for this error, as `duragram --help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Sinks(_) | Self::Keys(_) => 2,
            Self::Open(OpenError::Damaged(_) | OpenError::Refused(JournalError::Lost { .. })) => 3,
            Self::Journal(JournalError::Lost { .. }) => 3,
            Self::Storage(error) if error.damage.is_some() => 3,
            Self::Open(OpenError::Storage { .. } | OpenError::Refused(JournalError::Failed(_))) => 4,
            Self::Storage(_) | Self::Journal(JournalError::Failed(_)) => 4,
            Self::Token(TokenError::NoToken { .. }) => 2,
            Self::Token(_) | Self::Open(_) | Self::Bind { .. } | Self::Handler(_) => 1,
            Self::Journal(JournalError::Fenced { .. }) | Self::Short(_) | Self::System(_) => 1,
        }
    }
}

impl From<IngestError> for Error {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Journal(error) => error.into(),
            IngestError::Socket(error) => Self::System(error),
            panicked @ IngestError::Panicked(_) => Self::System(io::Error::other(panicked)),
        }
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Failed(error) => Self::Storage(error),
            other => Self::Journal(other),
        }
    }
}
