//! The lock: one server, or any number of offline tools.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::files::unwritable;
use crate::host::file_modes;
use crate::journal::error::OpenError;

pub(super) const LOCK: &str = "lock";

/// Takes the lock for a server, alone. It is released when the file is closed.
pub(super) fn take(path: &Path) -> Result<File, OpenError> {
    let lock_path = path.join(LOCK);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(file_modes::OURS).open(&lock_path);
    let lock = lock.map_err(|error| unwritable(&lock_path, &error))?;
    lock.try_lock().map_err(|error| lock_failed(path, error))?;
    Ok(lock)
}

/// Takes the lock for an offline tool, together with others of its kind; `None` when there is no lock file, so no server.
pub(super) fn share(path: &Path) -> Result<Option<File>, OpenError> {
    let lock = match File::open(path.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::storage(format!("opening {}", path.join(LOCK).display()), error)),
    };
    lock.try_lock_shared().map_err(|error| lock_failed(path, error))?;
    Ok(Some(lock))
}

fn lock_failed(path: &Path, error: TryLockError) -> OpenError {
    match error {
        TryLockError::WouldBlock => OpenError::Locked { path: path.into() },
        TryLockError::Error(error) => OpenError::storage(format!("locking {}", path.join(LOCK).display()), error),
    }
}
