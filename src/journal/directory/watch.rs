//! Whether what the server holds open is still what lies under its name.
//!
//! A file that is deleted goes on for whoever has it open: the server would sync, and ack, what no start will ever find.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;

/// What is reported of a name that leads nowhere any more.
pub(in crate::journal) const GONE: &str = "was deleted or renamed";
/// What is reported of one that leads elsewhere.
pub(in crate::journal) const REPLACED: &str = "is another one now: it was replaced, or something was mounted over it";
/// What is reported of a file with other content than was written.
pub(in crate::journal) const CHANGED: &str = "is not what was written";

/// What became of a name under which `held` was opened; `None` when it is still there, and also when that cannot be told.
pub(in crate::journal) fn lost(held: &File, path: &Path) -> Option<&'static str> {
    let ours = held.metadata().ok()?;
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => None,
        Ok(_) => Some(REPLACED),
        Err(error) => is_gone(&error).then_some(GONE),
    }
}

/// Whether an error says that there is nothing under a name. Others say nothing: a disk that does not answer is told of by the
/// next write.
pub(in crate::journal) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::StaleNetworkFileHandle)
        || error.raw_os_error() == Some(Errno::ELOOP as i32)
}
