//! What lies in the data directory beside the database: the marker that says whose it is, the lock, the witness.
//!
//! | name | holds |
//! |---|---|
//! | `DURAGRAM` | the marker: one line of text with the directory's format; written first, changed only to a later format |
//! | `lock` | nothing; locked by a running server, shared by offline tools |
//! | `journal-id` | one line of text: which journal this is ([`JournalId`]), which of its starts ([`Instance`]), and a checksum |
//! | `witness` | one line of text: what is known to be durable ([`Witness`]), and a checksum |
//! | `rocksdb/` | the database |
//! | `rocksdb.new/` | a database being made; worth nothing before it is renamed |
//! | `rocksdb.repair/` | a copy of a database that could not be opened, while it is salvaged |
//! | `rocksdb.damaged-…/` | what an operator gave up, untouched |
//!
//! A directory is known as this program's by more than its marker, which may be lost: by a good `witness` or `journal-id`, by
//! the database's column families, or because every name in it is one of these. Nobody but the server's user may enter what is
//! made here, whatever the umask is.
//!
//! The database cannot tell a torn tail from lost data; the witness can, since it was written by other means.

mod adoption;
mod files;
mod identity;
mod lock;
mod marker;
pub(in crate::journal) mod watch;
mod witness;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::host::file_modes;
use crate::journal::database::Sidecar;
use crate::journal::error::{OpenError, StorageError};
use crate::journal::recovery::{Format, Witness};
use crate::model::{Instance, JournalId};
pub(in crate::journal) use files::make_dir;
use files::{sync_dir, unwritable};
use identity::{Identity, read_identity};
use lock::LOCK;
pub(in crate::journal) use marker::DIRECTORY_FORMAT;
use marker::{ADMIN_TOKEN, MARKER, Whose, is_known, read_marker};

const DATABASE: &str = "rocksdb";

/// A data directory that this process holds: no server can open it meanwhile.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    format: Format,
    /// Released when the file is closed. `None`: an offline tool found no lock file, so there is no server.
    lock: Option<File>,
    /// The directory itself, held open so that another one under its name is told from it.
    root: File,
    /// `None` in a directory that no server has opened since journals have names.
    identity: Option<Identity>,
    /// It was told that the file system does not say how much is free.
    size_unknown: AtomicBool,
}

impl DataDir {
    /// Takes the directory for a server, alone; creates it where there is none.
    pub(in crate::journal) fn claim(path: &Path, is_of_a_journal: fn(&Path) -> bool) -> Result<Self, OpenError> {
        match make_dir(path) {
            Ok(()) => sync_dir(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
                .map_err(|error| unwritable(path, &error))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(OpenError::MissingParent { path: path.into() });
            }
            Err(error) => return Err(unwritable(path, &error)),
        }
        // Before anything is written, so that another program's directory stays as it is.
        let whose = marker::whose(path, is_of_a_journal)?;
        let mut dir = Self::over(path, Format::Known, Some(lock::take(path)?))?;
        // Marked by another server between the look and the lock: then it is there now.
        if whose == Whose::Unclaimed && marker::whose(path, is_of_a_journal)? == Whose::Unclaimed {
            dir.write_marker().map_err(|error| unwritable(&path.join(MARKER), &error))?;
        } else {
            dir.format = read_marker(path);
        }
        Ok(dir)
    }

    /// Takes the directory for an offline tool, together with others of its kind. Changes nothing.
    pub(in crate::journal) fn inspect(path: &Path, is_of_a_journal: fn(&Path) -> bool) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing { path: path.into() });
        }
        if marker::whose(path, is_of_a_journal)? == Whose::Unclaimed {
            return Err(OpenError::NotOurs { path: path.into(), found: format!("it has no file `{MARKER}`") });
        }
        let lock = lock::share(path)?;
        Self::over(path, read_marker(path), lock)
    }

    fn over(path: &Path, format: Format, lock: Option<File>) -> Result<Self, OpenError> {
        let root =
            File::open(path).map_err(|error| OpenError::storage(format!("opening {}", path.display()), error))?;
        Ok(Self {
            path: path.into(),
            format,
            lock,
            root,
            identity: read_identity(path),
            size_unknown: AtomicBool::new(false),
        })
    }

    /// Which journal this is, if it has a name.
    pub(in crate::journal) fn id(&self) -> Option<JournalId> {
        self.identity.map(|identity| identity.id)
    }

    /// Which start of it is the last one, if any was counted.
    pub(in crate::journal) fn instance(&self) -> Option<Instance> {
        self.identity.and_then(|identity| identity.instance)
    }

    /// Takes from all other users what an earlier version, a careless copy or a wide umask has given them. What belongs to
    /// another user stays: who that is has decided it. The group keeps what it has, since an orchestrator may have given it.
    pub(in crate::journal) fn mend_modes(&self) {
        let mut closed = usize::from(file_modes::close_to_others(&self.root_path()));
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            // The token's reader tells whether others have read it.
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_known(&name) || name == ADMIN_TOKEN {
                continue;
            }
            closed += usize::from(file_modes::close_to_others(&entry.path()));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let files = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                closed += files.filter(|file| file_modes::close_to_others(&file.path())).count();
            }
        }
        if closed > 0 {
            tracing::info!(path = %self.path.display(), closed, "files of the data directory were open to other users; they are not any more");
        }
    }

    /// Where a link leads to, if the directory is named by one.
    fn root_path(&self) -> PathBuf {
        self.path.canonicalize().unwrap_or_else(|_| self.path.clone())
    }

    /// Its format, by the marker.
    pub(in crate::journal) fn format(&self) -> Format {
        self.format
    }

    pub(in crate::journal) fn path(&self) -> &Path {
        &self.path
    }

    /// The database has this folder of the data directory to itself.
    pub(in crate::journal) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }
}

impl Sidecar for DataDir {
    fn write_witness(&self, witness: Witness) -> io::Result<()> {
        self.replace_witness(witness)
    }

    fn free_bytes(&self) -> Result<u64, StorageError> {
        let stat = nix::sys::statvfs::statvfs(&self.path)
            .map_err(|error| StorageError::new("asking for the free space of the data directory", error))?;
        let block_bytes = if stat.fragment_size() > 0 { stat.fragment_size() } else { stat.block_size() };
        if stat.blocks() == 0 || block_bytes == 0 {
            // A file system without any size is one that does not tell it, not one that is full.
            if !self.size_unknown.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    path = %self.path.display(),
                    "the file system does not say how much space is free: reserve_bytes has no effect, and a full disk ends the server",
                );
            }
            return Ok(u64::MAX);
        }
        Ok(stat.blocks_available().saturating_mul(block_bytes))
    }

    fn id(&self) -> Option<JournalId> {
        DataDir::id(self)
    }

    fn instance(&self) -> Option<Instance> {
        DataDir::instance(self)
    }

    fn lost(&self) -> Option<String> {
        let told = |name: &str, what: &str| Some(format!("`{name}` in {} {what}", self.path.display()));
        if let Some(what) = watch::lost(&self.root, &self.path) {
            return Some(format!("the data directory {} {what}", self.path.display()));
        }
        if let Some(what) = self.lock.as_ref().and_then(|lock| watch::lost(lock, &self.path.join(LOCK))) {
            return told(LOCK, what);
        }
        self.lost_marker().and_then(|what| told(MARKER, what))
    }

    fn lost_witness(&self, written: Witness) -> Option<String> {
        self.lost_witness_file(written)
    }
}

#[cfg(test)]
mod tests;
