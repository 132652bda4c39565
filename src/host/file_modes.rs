//! Which permissions the server gives to the files that it makes, and leaves to those that are there.
//!
//! What is the server's alone (the data directory and all in it) is for its user alone, whatever umask it was started with.
//! Files that others are meant to read, such as those of sinks, get what the umask of whoever started the server allows.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};

/// The permissions of a file that is the server's alone.
pub(crate) const OURS: u32 = 0o600;
/// The permissions of such a directory.
pub(crate) const OUR_DIRECTORY: u32 = 0o700;
/// The permissions of a file that others may read, before the umask.
const ANYBODYS: u32 = 0o666;
/// What a user who is neither the owner nor of the group may do.
const OTHERS: u32 = 0o007;

/// The umask of whoever started the server.
static OPERATORS_UMASK: OnceLock<u32> = OnceLock::new();

/// From now on the files of this process, also those that RocksDB makes, are for its user alone. For a program that is the
/// server and nothing else, before it starts threads.
pub(crate) fn keep_ours_private() {
    let was = umask(Mode::from_bits_truncate(!OUR_DIRECTORY & 0o777));
    OPERATORS_UMASK.get_or_init(|| was.bits());
}

/// Opens a file for operators, with these options; one that it makes has the permissions that their umask allows.
pub(crate) fn open_for_operators(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let there = path.try_exists().unwrap_or(true);
    let file = options.create(true).open(path)?;
    if let (false, Some(umask)) = (there, OPERATORS_UMASK.get()) {
        // Where the file system keeps no permissions, it is as good as it gets.
        drop(file.set_permissions(Permissions::from_mode(ANYBODYS & !umask)));
    }
    Ok(file)
}

/// Takes from others what they may do with a file or directory of this user's; whether they could do anything. What is another
/// user's stays as it is, and so does what a link leads to.
pub(crate) fn close_to_others(path: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    let (own, mode) = (nix::unistd::geteuid().as_raw(), metadata.mode() & 0o7777);
    if metadata.is_symlink() || mode & OTHERS == 0 {
        return false;
    }
    let closed = match metadata.uid() == own || own == 0 {
        true => fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)),
        false => Err(io::Error::other(format!("it belongs to user {}", metadata.uid()))),
    };
    if let Err(error) = &closed {
        tracing::warn!(%error, path = %path.display(), "others may use it: its permissions are {mode:04o}; `chmod o-rwx` it");
    }
    closed.is_ok()
}

/// Whether an error says that the file system knows no hard links.
pub(crate) fn has_no_links(error: &io::Error) -> bool {
    const NO_LINKS: [Errno; 4] = [Errno::EPERM, Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::EMLINK];
    error.raw_os_error().is_some_and(|errno| NO_LINKS.contains(&Errno::from_raw(errno)))
}

/// Whether an error says that space, file descriptors or memory are used up for now, and nothing about the disk's health.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const KINDS: [ErrorKind; 3] = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::OutOfMemory];
    const DESCRIPTORS: [Errno; 2] = [Errno::EMFILE, Errno::ENFILE];
    let errno = error.raw_os_error().map(Errno::from_raw);
    KINDS.contains(&error.kind()) || errno.is_some_and(|errno| DESCRIPTORS.contains(&errno))
}
