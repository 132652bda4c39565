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
//!
//! A file must belong to root or to the user who reads it, and nobody else may have any permission on it. The one exception
//! is systemd's: a credential (`LoadCredential=`) that root owns is opened to the service by an access list, which shows as
//! a permission to read for the group.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::{Keys, LineProblem, parse};
use crate::limits;

/// Why a key file was not taken. It names the file and the line, and shows nothing of what stands there.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there, or may not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{}: is no file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// It is longer than any that the server takes.
    #[error("{}: is longer than {} bytes", path.display(), limits::KEY_FILE_BYTES)]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Another user can change it.
    #[error("{}: belongs to user {owner}; it must belong to root or to the user who runs this", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Other users can read or change it.
    #[error("{}: has permissions {mode:04o}, so others may have read the keys; `chmod 600` it, and think of new keys", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
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

/// Reads a file, once it is sure that no one else could.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read(path: &Path) -> Result<Keys, KeyFileError> {
    let text = read_text(path, std::env::var_os("CREDENTIALS_DIRECTORY"))?;
    parse::parse(&text).map_err(|error| KeyFileError::Line {
        path: path.to_owned(),
        line: error.line,
        problem: error.problem,
    })
}

/// The file's bytes, wiped when dropped.
fn read_text(path: &Path, credentials: Option<OsString>) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    // Without waiting for the other end of a pipe.
    let mut file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path: path.to_owned() });
    }
    let own = nix::unistd::geteuid().as_raw();
    check_access(path, metadata.uid(), own, metadata.mode(), is_credential(path, credentials))?;
    // The place is large enough from the start: a vector that grows leaves its old bytes behind.
    let Some(len) = usize::try_from(metadata.len()).ok().filter(|&len| len <= limits::KEY_FILE_BYTES) else {
        return Err(KeyFileError::TooLong { path: path.to_owned() });
    };
    let mut text = Zeroizing::new(vec![0; len]);
    match file.read_exact(&mut text).and_then(|()| file.read(&mut [0])) {
        Ok(0) => Ok(text),
        // What stands there now is told by the next attempt.
        Ok(_) => Err(failed(io::Error::other("it changed while it was read"))),
        Err(error) => Err(failed(error)),
    }
}

fn check_access(path: &Path, owner: u32, own: u32, mode: u32, credential: bool) -> Result<(), KeyFileError> {
    if owner != 0 && owner != own {
        return Err(KeyFileError::Owner { path: path.to_owned(), owner });
    }
    let tolerated = if credential && owner == 0 { 0o040 } else { 0 };
    if mode & 0o077 & !tolerated != 0 {
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode: mode & 0o7777 });
    }
    Ok(())
}

/// Whether it is one of the credentials that systemd has laid out for this process, in a directory that nobody else enters.
fn is_credential(path: &Path, credentials: Option<OsString>) -> bool {
    let directory = credentials.and_then(|directory| Path::new(&directory).canonicalize().ok());
    let parent = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
    directory.is_some() && directory == parent
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn access(owner: u32, mode: u32, credential: bool) -> bool {
        check_access(Path::new("k"), owner, 1000, mode, credential).is_ok()
    }

    #[test]
    fn a_file_is_ones_own_or_roots_and_nobody_else_has_any_permission() {
        for mode in 0..0o1000 {
            assert_eq!(access(0, mode, false), mode & 0o077 == 0, "{mode:o}");
            assert_eq!(access(1000, 0o100_000 | mode, false), mode & 0o077 == 0, "{mode:o}");
            assert!(!access(1001, mode, false) && !access(1001, mode, true), "{mode:o}");
        }
    }

    #[test]
    fn a_credential_of_roots_may_show_an_access_list_and_no_more() {
        assert!(access(0, 0o440, true) && access(0, 0o400, true) && access(1000, 0o400, true));
        assert!(!access(0, 0o460, true) && !access(0, 0o444, true) && !access(0, 0o450, true));
        assert!(!access(1000, 0o440, true));
    }

    #[test]
    fn a_credential_lies_in_the_directory_itself_wherever_a_link_leads_from() {
        let dir = tempfile::tempdir().unwrap();
        let [inside, outside] = ["credentials", "elsewhere"].map(|name| dir.path().join(name));
        for place in [&inside, &outside] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("keys"), "").unwrap();
        }
        symlink(outside.join("keys"), inside.join("link")).unwrap();
        let credentials = || Some(inside.clone().into_os_string());
        assert!(is_credential(&inside.join("keys"), credentials()));
        assert!(is_credential(&inside.join("../credentials/keys"), credentials()));
        assert!(!is_credential(&inside.join("link"), credentials()));
        assert!(!is_credential(&outside.join("keys"), credentials()));
        assert!(!is_credential(&inside.join("keys"), None));
        assert!(!is_credential(&inside.join("none"), credentials()));
    }

    #[test]
    fn what_is_no_file_and_what_is_too_long_are_refused_without_reading() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(KeyFileError::NotAFile { .. })));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(read(&pipe), Err(KeyFileError::NotAFile { .. })));
        let long = dir.path().join("long");
        let file = File::create(&long).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.set_len(limits::KEY_FILE_BYTES as u64 + 1).unwrap();
        assert!(matches!(read(&long), Err(KeyFileError::TooLong { .. })));
        assert!(matches!(read(&dir.path().join("none")), Err(KeyFileError::Read { .. })));
    }
}
