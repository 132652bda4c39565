//! Small files of a line of text with its checksum, and what else is done to files and directories here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::host::file_modes;
use crate::journal::error::OpenError;

/// In front of the checksum of what stands before it in the line.
const CHECKSUM_TEXT: &str = " crc32 ";

pub(super) fn with_checksum(text: &str) -> String {
    format!("{text}{CHECKSUM_TEXT}{:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// What stands before the checksum, if it is what was written.
pub(super) fn checked(line: &[u8]) -> Option<&str> {
    let (text, _) = str::from_utf8(line).ok()?.rsplit_once(CHECKSUM_TEXT)?;
    (with_checksum(text).as_bytes() == line).then_some(text)
}

/// After a crash there is either the old file or the new one, whole. `root` is the directory, so that no descriptor is needed for
/// syncing it when the new file is in its place.
pub(super) fn replace_file(root: &File, dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(file_modes::OURS).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))?;
    root.sync_all()
}

/// Makes a directory that nobody else enters.
pub(in crate::journal) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(file_modes::OUR_DIRECTORY).create(path)
}

pub(super) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn unwritable(path: &Path, error: &io::Error) -> OpenError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            OpenError::NotWritable { path: path.into(), cause: error.to_string() }
        }
        _ => OpenError::storage(format!("creating {}", path.display()), error),
    }
}
