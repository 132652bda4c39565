//! A new database takes the place of the one that is there, or of none, so that a crash at any moment leaves one of them whole.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::DataDir;
use super::files::{make_dir, remove_dir, sync_dir};
use crate::host::file_modes;

/// A database being made; worth nothing before it is renamed.
const DATABASE_NEW: &str = "rocksdb.new";
/// A copy of a database, while it is salvaged.
pub(super) const DATABASE_REPAIR: &str = "rocksdb.repair";
/// In front of the reason for which a database was set aside.
pub(super) const DATABASE_DAMAGED: &str = "rocksdb.damaged-";

impl DataDir {
    /// Where a database is made before [`adopt_new_database`](Self::adopt_new_database). Removes what a crash left.
    pub(in crate::journal) fn new_database(&self) -> io::Result<PathBuf> {
        let path = self.path.join(DATABASE_NEW);
        remove_dir(&path)?;
        Ok(path)
    }

    /// A copy of the database to repair it in; its large files are shared with the original, which stays as it is.
    pub(in crate::journal) fn copy_to_repair(&self) -> io::Result<PathBuf> {
        let copy = self.path.join(DATABASE_REPAIR);
        remove_dir(&copy)?;
        make_dir(&copy)?;
        for entry in fs::read_dir(self.database())? {
            let (from, to) = entry.map(|entry| (entry.path(), copy.join(entry.file_name())))?;
            // Table files are never written again.
            match from.extension().is_some_and(|extension| extension == "sst") {
                true => match fs::hard_link(&from, &to) {
                    Err(error) if file_modes::has_no_links(&error) => drop(fs::copy(from, to)?),
                    linked => linked?,
                },
                false => drop(fs::copy(from, to)?),
            }
        }
        Ok(copy)
    }

    /// Removes what [`copy_to_repair`](Self::copy_to_repair) made, if it did.
    pub(in crate::journal) fn remove_repaired(&self) -> io::Result<()> {
        remove_dir(&self.path.join(DATABASE_REPAIR))
    }

    /// Puts the new database in the place of the database, and the old one, if there is one, aside under `reason`.
    ///
    /// A crash in between leaves the new one complete and no database:
    /// [`finish_adoption`](Self::finish_adoption) goes on from there.
    pub(in crate::journal) fn adopt_new_database(&self, reason: &str) -> io::Result<()> {
        sync_dir(&self.path.join(DATABASE_NEW))?;
        if self.database().exists() {
            // Two losses may be accepted within one second.
            let name = |n: u32| {
                self.path
                    .join(format!("{DATABASE_DAMAGED}{reason}{}", if n > 0 { format!("-{n}") } else { String::new() }))
            };
            let free = (0..).map(name).find(|name| !name.exists());
            fs::rename(self.database(), free.ok_or(ErrorKind::AlreadyExists)?)?;
            sync_dir(&self.path)?;
        }
        fs::rename(self.path.join(DATABASE_NEW), self.database())?;
        sync_dir(&self.path)
    }

    /// Goes on where a crash interrupted [`adopt_new_database`](Self::adopt_new_database) after it had put a damaged
    /// database aside: the new one was complete by then.
    pub(in crate::journal) fn finish_adoption(&self) -> io::Result<()> {
        let mut names = fs::read_dir(&self.path)?.map(|entry| entry.map(|entry| entry.file_name()));
        let aside = names.any(|name| name.is_ok_and(|name| name.to_string_lossy().starts_with(DATABASE_DAMAGED)));
        if aside && !self.database().exists() && self.path.join(DATABASE_NEW).exists() {
            fs::rename(self.path.join(DATABASE_NEW), self.database())?;
            sync_dir(&self.path)?;
        }
        Ok(())
    }
}
