//! Files that hold secrets: read once it is sure that no one else could, written so that no one else can.
//!
//! A file must belong to root or to the user who reads it, and others may have no permission on it. Nor may its group, unless
//! it is one that the process runs in: so orchestrators give a service its files (Kubernetes' `fsGroup`), and so does an
//! administrator who leaves a file to root. Nobody but the group's members has it, and whoever runs the server is one of them.
//! One exception is systemd's: a credential (`LoadCredential=`) that root owns is opened to the service by an access list,
//! which shows as a permission to read for the group.
//!
//! What the server has made itself ([`read_own`]) is not refused: its permissions are put right.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::file_modes::{OUR_DIRECTORY, OURS, has_no_links};

/// Why a file was not read or written. Nothing of what it holds is shown.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It is not there, or may not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file that was to be read.
        path: PathBuf,
        /// The system gave this as the reason.
        source: io::Error,
    },
    /// It could not be written. It is as it was, or is not there.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// The system gave this as the reason.
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{}: is no file", path.display())]
    NotAFile {
        /// The path that leads to it.
        path: PathBuf,
    },
    /// It is longer than any that is taken.
    #[error("{}: is longer than {bytes_max} bytes", path.display())]
    TooLong {
        /// The file that is too long.
        path: PathBuf,
        /// The longest that is taken, in bytes.
        bytes_max: usize,
    },
    /// Another user can change it.
    #[error("{}: belongs to user {owner}; it must belong to root or to the user who runs this", path.display())]
    Owner {
        /// The file that another user owns.
        path: PathBuf,
        /// The user who owns it.
        owner: u32,
    },
    /// Other users can read or change it.
    #[error(
        "{}: its permissions are {mode:04o}: others may have read it. `chmod 600` it (a Kubernetes secret: `defaultMode: 0400`), \
         and think of new secrets",
        path.display()
    )]
    Permissions {
        /// The file that others can use.
        path: PathBuf,
        /// The file has these permission bits.
        mode: u32,
    },
    /// A group that the process is not in can read or change it.
    #[error(
        "{}: its permissions are {mode:04o}, and this process is not in its group {group}, whose members may have read it. \
         `chmod 600` it, or give it a group that the server runs in, and think of new secrets",
        path.display()
    )]
    Group {
        /// The file that a group can use.
        path: PathBuf,
        /// The file has these permission bits.
        mode: u32,
        /// The group that owns it.
        group: u32,
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
    let (file, metadata) = open(path)?;
    let credential = is_credential(path, credentials);
    check_access(path, &Access::of(&metadata, credential), nix::unistd::geteuid().as_raw())?;
    if metadata.mode() & 0o020 != 0 {
        tracing::warn!(
            path = %path.display(), group = metadata.gid(),
            "the members of its group can change this file; `chmod g-w` it unless they all may",
        );
    }
    content(path, file, &metadata, bytes_max)
}

/// The bytes of a file that this program has made for itself, at most `bytes_max`, wiped when dropped. Permissions that
/// others have been given since are taken back; where the file system keeps none, it is read as it is.
///
/// # Errors
/// See [`SecretFileError`].
pub fn read_own(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let (file, metadata) = open(path)?;
    let (own, mode) = (nix::unistd::geteuid().as_raw(), metadata.mode() & 0o7777);
    let can_mend = metadata.uid() == own || own == 0;
    if mode & 0o077 == 0 || !can_mend || file.set_permissions(Permissions::from_mode(OURS)).is_err() {
        check_access(path, &Access::of(&metadata, false), own)?;
        return content(path, file, &metadata, bytes_max);
    }
    let closed = file.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 == 0);
    match (closed, mode & 0o007) {
        (true, 0) => tracing::info!(path = %path.display(), "its permissions were {mode:04o}, and are 0600 again"),
        (true, _) => tracing::warn!(
            path = %path.display(),
            "its permissions were {mode:04o}, and are 0600 again: others may have read it; remove the file to get a new one",
        ),
        (false, _) => tracing::warn!(
            path = %path.display(),
            "the file system keeps no permissions: whoever can read the directory can read this file too",
        ),
    }
    content(path, file, &metadata, bytes_max)
}

fn open(path: &Path) -> Result<(File, Metadata), SecretFileError> {
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
    // Without waiting for the other end of a pipe.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(SecretFileError::NotAFile { path: path.to_owned() }),
    }
}

fn content(
    path: &Path,
    mut file: File,
    metadata: &Metadata,
    bytes_max: usize,
) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let failed = |source| SecretFileError::Read { path: path.to_owned(), source };
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

/// Who may do what with a file.
#[derive(Clone, Copy, Debug)]
struct Access {
    owner: u32,
    group: u32,
    /// The process runs in that group.
    own_group: bool,
    mode: u32,
    credential: bool,
}

impl Access {
    fn of(metadata: &Metadata, credential: bool) -> Self {
        let group = metadata.gid();
        let member = || nix::unistd::getgroups().is_ok_and(|groups| groups.iter().any(|own| own.as_raw() == group));
        let own_group = nix::unistd::getegid().as_raw() == group || member();
        Self { owner: metadata.uid(), group, own_group, mode: metadata.mode() & 0o7777, credential }
    }
}

fn check_access(path: &Path, access: &Access, own: u32) -> Result<(), SecretFileError> {
    let &Access { owner, group, own_group, mode, credential } = access;
    let path = || path.to_owned();
    if owner != 0 && owner != own {
        return Err(SecretFileError::Owner { path: path(), owner });
    }
    if mode & 0o007 != 0 {
        return Err(SecretFileError::Permissions { path: path(), mode });
    }
    // An access list shows there.
    let tolerated = if credential && owner == 0 { 0o040 } else { 0 };
    if mode & 0o070 & !tolerated != 0 && !own_group {
        return Err(SecretFileError::Group { path: path(), mode, group });
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
    DirBuilder::new().mode(OUR_DIRECTORY).create(&own)?;
    let new = own.join("new");
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(OURS).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        match existing {
            Existing::Keep => put_new(&new, &path)?,
            Existing::Replace => fs::rename(&new, &path)?,
        }
        File::open(parent)?.sync_all()
    })();
    // What is left of it holds a secret for no reader's use.
    drop(fs::remove_file(&new));
    drop(fs::remove_dir(&own));
    written
}

/// Gives a complete file its name, unless that is taken.
fn put_new(new: &Path, path: &Path) -> io::Result<()> {
    // Unlike a rename, a link never replaces.
    match fs::hard_link(new, path) {
        Err(error) if has_no_links(&error) => claim_and_rename(new, path),
        linked => linked,
    }
}

/// The same where the file system knows no links: whoever makes an empty file under the name, alone, may replace it. When the
/// machine stops in between, the empty one is left, which holds no secret.
fn claim_and_rename(new: &Path, path: &Path) -> io::Result<()> {
    drop(File::options().write(true).create_new(true).mode(OURS).open(path)?);
    fs::rename(new, path).inspect_err(|_| drop(fs::remove_file(path)))
}

#[cfg(test)]
mod tests;
