//! The admin token: whoever shows it may change something, and on an address that other machines reach, read anything.

use std::path::Path;
use std::{fmt, fs};

use rand::TryRng as _;
use rand::rngs::SysRng;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::host::secret_file::{self, Existing, SecretFileError};
use crate::limits;

/// The file in the data directory, when the configuration names none.
pub const TOKEN_FILE: &str = "admin-token";
/// Shorter ones could be guessed.
const BYTES_MIN: usize = 16;

/// Whoever has a token is let in, so it is never shown.
pub struct Token(Zeroizing<Vec<u8>>);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written, or others can read it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// What stands there is no token.
    #[error(
        "{path}: wants one line of {BYTES_MIN} or more printable ASCII characters without blanks, such as `openssl rand -hex 32` makes"
    )]
    NoToken {
        /// The path of the file that holds the token.
        path: String,
    },
    /// The system gives no randomness.
    #[error("no random bytes for an admin token: {0}")]
    Random(String),
}

impl Token {
    /// The token in a file, whose permissions are checked.
    ///
    /// # Errors
    /// [`TokenError`]; nothing was changed.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let text = secret_file::read(path, limits::ADMIN_TOKEN_BYTES)?;
        Self::parse_in(path, &text)
    }

    /// The token in a data directory, which is made there when there is none.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn in_directory(data: &Path) -> Result<Self, TokenError> {
        let path = data.join(TOKEN_FILE);
        // What a machine that stopped has left of a token that was being made.
        let empty = path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0);
        if empty {
            let removed = fs::remove_file(&path);
            removed.map_err(|source| SecretFileError::Write { path: path.clone(), source })?;
        }
        if empty || !path.try_exists().unwrap_or(true) {
            let mut random = Zeroizing::new([0; 32]);
            SysRng.try_fill_bytes(&mut *random).map_err(|error| TokenError::Random(error.to_string()))?;
            let mut text = Zeroizing::new(Vec::with_capacity(65));
            text.extend(
                random
                    .iter()
                    .flat_map(|byte| [byte >> 4, byte & 15])
                    .map(|digit| b"0123456789abcdef"[usize::from(digit)]),
            );
            text.push(b'\n');
            secret_file::write(&path, &text, Existing::Keep)?;
        }
        let text = secret_file::read_own(&path, limits::ADMIN_TOKEN_BYTES)?;
        Self::parse_in(&path, &text)
    }

    fn parse_in(path: &Path, text: &[u8]) -> Result<Self, TokenError> {
        Self::parse(text).ok_or_else(|| TokenError::NoToken { path: path.display().to_string() })
    }

    /// A token as it stands in a file; `None` when it could be guessed or does not fit into a header.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let token = text.trim_ascii();
        let good = token.len() >= BYTES_MIN && token.iter().all(u8::is_ascii_graphic);
        good.then(|| Self(Zeroizing::new(token.to_vec())))
    }

    /// Whether this is it, in a time that tells nothing but the length.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }

    /// The bytes, for the header of a request.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_without_a_token_gets_one_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let made = Token::in_directory(dir.path()).unwrap();
        assert_eq!(made.expose().len(), 64);
        let again = Token::in_directory(dir.path()).unwrap();
        assert!(again.is(made.expose()));
        let other = Token::in_directory(tempfile::tempdir().unwrap().path()).unwrap();
        assert!(!other.is(made.expose()));
        let path = dir.path().join(TOKEN_FILE);
        // As Kubernetes' fsGroup gives it away.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(Token::in_directory(dir.path()).unwrap().is(made.expose()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_empty_token_file_is_one_that_was_being_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TOKEN_FILE), "").unwrap();
        assert_eq!(Token::in_directory(dir.path()).unwrap().expose().len(), 64);
    }

    #[test]
    fn only_the_whole_token_is_it() {
        let token = Token::parse(b" 0123456789abcdef\n").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdeF", b"0123456789abcdef0", b"0123456789abcdef\n"] {
            assert!(!token.is(wrong));
        }
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn what_could_be_guessed_or_fits_in_no_header_is_no_token() {
        for text in [
            &b""[..],
            b"\n",
            b"0123456789abcde",
            b"0123456789 abcdef",
            b"0123456789abcde\xff",
            b"0123456789\n0123456789",
        ] {
            assert!(Token::parse(text).is_none());
        }
    }
}
