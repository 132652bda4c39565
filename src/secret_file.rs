//! Files that hold secrets: read once it is sure that no one else could, written so that no one else can.
//!
//! A file must belong to root or to the user who reads it, and nobody else may have any permission on it. The one exception
//! is systemd's: a credential (`LoadCredential=`) that root owns is opened to the service by an access list, which shows as
//! a permission to read for the group.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

/// Why a file was not read or written. Nothing of what it holds is shown.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It is not there, or may not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be written. It is as it was, or is not there.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
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
    /// It is longer than any that is taken.
    #[error("{}: is longer than {bytes_max} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The longest.
        bytes_max: usize,
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
    #[error(
        "{}: its permissions are {mode:04o}: others may have read it. `chmod 600` it, and think of new secrets",
        path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// The file's bytes, at most `bytes_max`, wiped when dropped.
///
/// # Errors
/// See [`SecretFileError`].
pub fn read(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    read_as(path, bytes_max, std::env::var_os("CREDENTIALS_DIRECTORY"))
}

fn read_as(
    path: &Path,
    bytes_max: usize,
    credentials: Option<OsString>,
) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
    // Without waiting for the other end of a pipe.
    let mut file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotAFile { path: path.to_owned() });
    }
    let own = nix::unistd::geteuid().as_raw();
    check_access(path, metadata.uid(), own, metadata.mode(), is_credential(path, credentials))?;
    let Some(len) = usize::try_from(metadata.len()).ok().filter(|&len| len <= bytes_max) else {
        return Err(SecretFileError::TooLong { path: path.to_owned(), bytes_max });
    };
    // The place is large enough from the start: a vector that grows leaves its old bytes behind.
    let mut text = Zeroizing::new(vec![0; len]);
    match file.read_exact(&mut text).and_then(|()| file.read(&mut [0])) {
        Ok(0) => Ok(text),
        Ok(_) => Err(failed(io::Error::other("it grew while it was read"))),
        Err(error) => Err(failed(error)),
    }
}

fn check_access(path: &Path, owner: u32, own: u32, mode: u32, credential: bool) -> Result<(), SecretFileError> {
    if owner != 0 && owner != own {
        return Err(SecretFileError::Owner { path: path.to_owned(), owner });
    }
    let tolerated = if credential && owner == 0 { 0o040 } else { 0 };
    if mode & 0o077 & !tolerated != 0 {
        return Err(SecretFileError::Permissions { path: path.to_owned(), mode: mode & 0o7777 });
    }
    Ok(())
}

/// Whether it is one of the credentials that systemd has laid out for this process, in a directory that nobody else enters.
fn is_credential(path: &Path, credentials: Option<OsString>) -> bool {
    let directory = credentials.and_then(|directory| Path::new(&directory).canonicalize().ok());
    let parent = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
    directory.is_some() && directory == parent
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// It stays, and that is an error.
    Keep,
    /// The new one takes its place.
    Replace,
}

/// Writes a file for this user alone: whole or not at all, and on the disk when this returns.
///
/// # Errors
/// [`SecretFileError::Write`]; a file that was there is as it was.
pub fn write(path: &Path, text: &[u8], existing: Existing) -> Result<(), SecretFileError> {
    write_whole(path, text, existing).map_err(|source| SecretFileError::Write { path: path.to_owned(), source })
}

fn write_whole(path: &Path, text: &[u8], existing: Existing) -> io::Result<()> {
    // A link is followed, so that what it points to is replaced and not the link.
    let path = if existing == Existing::Replace { path.canonicalize()? } else { path.to_owned() };
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // In a directory of its own, which only this user enters, so that no other process meets the half-written file.
    let mut own = OsString::from(".");
    own.push(name);
    own.push(format!(".{:016x}", rand::random::<u64>()));
    let own = parent.join(own);
    DirBuilder::new().mode(0o700).create(&own)?;
    let new = own.join("new");
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        match existing {
            // Unlike a rename, a link never replaces.
            Existing::Keep => fs::hard_link(&new, &path)?,
            Existing::Replace => fs::rename(&new, &path)?,
        }
        File::open(parent)?.sync_all()
    })();
    // What is left of it holds a secret for no reader's use.
    drop(fs::remove_file(&new));
    drop(fs::remove_dir(&own));
    written
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
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
        assert!(matches!(read(dir.path(), 9), Err(SecretFileError::NotAFile { .. })));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(read(&pipe, 9), Err(SecretFileError::NotAFile { .. })));
        let long = dir.path().join("long");
        write(&long, b"ten bytes!", Existing::Keep).unwrap();
        assert!(matches!(read(&long, 9), Err(SecretFileError::TooLong { .. })));
        assert_eq!(**read(&long, 10).unwrap(), *b"ten bytes!");
        assert!(matches!(read(&dir.path().join("none"), 9), Err(SecretFileError::Read { .. })));
    }

    #[test]
    fn what_is_written_is_for_this_user_alone_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write(&path, b"one", Existing::Keep).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(write(&path, b"two", Existing::Keep).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(write(&link, b"two", Existing::Keep).is_err());
        write(&link, b"three", Existing::Replace).unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode() & 0o777), (b"three".to_vec(), 0o600));
        assert!(write(&dir.path().join("none"), b"", Existing::Replace).is_err());
        assert!(write(&dir.path().join("no/secret"), b"", Existing::Keep).is_err());
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
