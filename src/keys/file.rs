//! Key files.
//!
//! ```text
//! # Text; what follows a # is a comment. Keys are 64 hexadecimal digits.
//! fleet 8b7d…e1                                  every client's key is derived from this one,
//! client 00000000000000a1 04c1…9f                but this client has its own,
//! client 00000000000000b2 fleet channels=1,10-19   and this one may only use these channels.
//! revoked 00000000000000c3                       Nothing from this one is accepted.
//! ```
//!
//! The same format serves both ends: a client's file holds its own `client` line.

use std::path::{Path, PathBuf};

use super::{Keys, LineProblem, parse};
use crate::limits;
use crate::secret_file::{self, SecretFileError};

/// Why a key file was not taken. It names the file and the line, and shows nothing of what stands there.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read, or others can.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A line is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: LineProblem,
    },
}

/// Reads a key file, once it is sure that no one else could ([`secret_file`]).
///
/// # Errors
/// See [`KeyFileError`].
pub fn read(path: &Path) -> Result<Keys, KeyFileError> {
    let text = secret_file::read(path, limits::KEY_FILE_BYTES)?;
    parse::parse(&text).map_err(|error| KeyFileError::Line {
        path: path.to_owned(),
        line: error.line,
        problem: error.problem,
    })
}
