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

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use duragram_proto::ClientId;
use duragram_proto::seal::{ClientKey, FleetKey, KEY_LEN};
use rand::TryRng as _;
use rand::rngs::{SysError, SysRng};
use zeroize::Zeroizing;

use super::{Keys, LineProblem, Lookup, parse, show_fingerprint};
use crate::host::secret_file::{self, Existing, SecretFileError};
use crate::limits;

/// Why a key file was not taken. It names the file and the line, and shows nothing of what stands there.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read, or others can.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A line of it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file that holds the line.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
}

/// Reads a key file, once it is sure that no one else could ([`secret_file`]).
///
/// # Errors
/// See [`KeyFileError`].
pub fn read(path: &Path) -> Result<Keys, KeyFileError> {
    parsed(path, &secret_file::read(path, limits::KEY_FILE_BYTES)?)
}

/// Adds lines that revoke clients, and returns which were not revoked before. The file is replaced as a whole; who reads it
/// meanwhile sees the old one or the new one.
///
/// # Errors
/// [`KeyFileError`]; the file is as it was.
pub fn revoke(path: &Path, clients: &[ClientId], comment: &str) -> Result<Vec<ClientId>, KeyFileError> {
    let text = secret_file::read(path, limits::KEY_FILE_BYTES)?;
    let keys = parsed(path, &text)?;
    let is_new = |client: &&ClientId| !matches!(keys.lookup(**client), Lookup::Revoked);
    let mut new: Vec<ClientId> = clients.iter().filter(is_new).copied().collect();
    new.sort_unstable();
    new.dedup();
    if new.is_empty() {
        return Ok(new);
    }
    let mut lines = String::new();
    if !text.ends_with(b"\n") {
        lines.push('\n');
    }
    for client in &new {
        let _infallible = writeln!(lines, "revoked {client} # {comment}");
    }
    let mut longer = Zeroizing::new(Vec::with_capacity(text.len() + lines.len()));
    longer.extend_from_slice(&text);
    longer.extend_from_slice(lines.as_bytes());
    // What the next reader would refuse must not be put in place.
    if longer.len() > limits::KEY_FILE_BYTES {
        return Err(SecretFileError::TooLong { path: path.to_owned(), bytes_max: limits::KEY_FILE_BYTES }.into());
    }
    parsed(path, &longer)?;
    secret_file::write(path, &longer, Existing::Replace)?;
    Ok(new)
}

/// The line that gives everyone a key derived from this one.
pub fn fleet_line(key: &FleetKey) -> Zeroizing<String> {
    line(format_args!("fleet"), key.expose(), key.fingerprint(), None)
}

/// The line that gives a client its key; `channels` as the file says them, such as `1,10-19`.
pub fn client_line(client: ClientId, key: &ClientKey, channels: Option<&str>) -> Zeroizing<String> {
    line(format_args!("client {client}"), key.expose(), key.fingerprint(), channels)
}

/// A new key, of the operating system's randomness.
///
/// # Errors
/// The system has none.
pub fn random_key() -> Result<Zeroizing<[u8; KEY_LEN]>, SysError> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    SysRng.try_fill_bytes(&mut *key)?;
    Ok(key)
}

fn line(
    whose: std::fmt::Arguments<'_>,
    key: &[u8; KEY_LEN],
    fingerprint: [u8; 8],
    channels: Option<&str>,
) -> Zeroizing<String> {
    // Large enough from the start: a text that grows leaves its old bytes behind.
    let mut line = Zeroizing::new(String::with_capacity(200 + channels.map_or(0, str::len)));
    let _infallible = write!(line, "{whose} ");
    for digit in key.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        line.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
    }
    if let Some(channels) = channels {
        let _infallible = write!(line, " channels={channels}");
    }
    let _infallible = writeln!(line, " # id {}", show_fingerprint(fingerprint));
    line
}

fn parsed(path: &Path, text: &[u8]) -> Result<Keys, KeyFileError> {
    parse::parse(text).map_err(|error| KeyFileError::Line {
        path: path.to_owned(),
        line: error.line,
        problem: error.problem,
    })
}
