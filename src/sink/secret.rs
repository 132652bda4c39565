//! What a sink shows to be let in, read whenever it connects: a password that was changed is taken without a restart.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::host::secret_file;
use crate::limits;
use crate::model::Secret;
use crate::process::handler::HandlerError;

/// The secret's text, wiped when dropped. Line ends at its end are not part of it.
///
/// # Errors
/// It is not there, is no text, or others could read it. The error says where it was looked for and never what it holds.
pub(super) fn read(secret: &Secret) -> Result<Zeroizing<String>, HandlerError> {
    let file = |path: PathBuf| {
        let bytes = secret_file::read(&path, limits::SECRET_BYTES).map_err(HandlerError::new)?;
        match str::from_utf8(&bytes) {
            Ok(text) => Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(_) => Err(HandlerError::new(format_args!("{}: the secret in it is no text", path.display()))),
        }
    };
    match secret {
        Secret::File(path) => file(path.clone()),
        Secret::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(directory) => file(PathBuf::from(directory).join(name)),
            None => Err(HandlerError::new(format_args!(
                "the credential {name} cannot be read: systemd has set no $CREDENTIALS_DIRECTORY (add LoadCredential={name}:FILE \
                 to the unit)"
            ))),
        },
        Secret::Env(name) => match std::env::var(name) {
            Ok(text) if !text.is_empty() => Ok(Zeroizing::new(text)),
            Ok(_) => Err(HandlerError::new(format_args!("the variable {name}, which holds the secret, is empty"))),
            Err(error) => Err(HandlerError::new(format_args!("the variable {name}, which holds the secret: {error}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_what_its_file_holds_without_the_end_of_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "s3cret \r\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&Secret::File(path)).unwrap().as_str(), "s3cret ");
    }

    #[test]
    fn a_secret_that_others_can_read_or_that_is_not_there_is_refused_without_showing_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "s3cret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        for secret in [
            Secret::File(path),
            Secret::File(directory.path().join("none")),
            Secret::Env("DURAGRAM_TEST_NO_SUCH_VARIABLE".into()),
            Secret::Credential("no-such-credential".into()),
        ] {
            let error = read(&secret).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
