//! What lies in the data directory beside the database: the marker that says whose it is, the lock, the witness.
//!
//! | name | holds |
//! |---|---|
//! | `DURAGRAM` | the marker: one line of text with the directory's format; written first, never changed |
//! | `lock` | nothing; locked by a running server, shared by offline tools |
//! | `journal-id` | one line of text: which journal this is ([`JournalId`]), and a checksum |
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

pub(in crate::journal) mod watch;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use crate::host::file_modes;
use crate::journal::error::{OpenError, StorageError};
use crate::journal::recovery::{Format, Witness};
use crate::journal::rocksdb::database::is_of_a_journal;
use crate::journal::store::database::Sidecar;
use crate::model::{JournalId, Offset};

/// The format of the data directory that this program writes. It reads format 1 too, which knows nothing of sealed mode,
/// and marks such a directory anew before it writes to it: an earlier version then says that it is of a later one.
pub(in crate::journal) const DIRECTORY_FORMAT: u32 = 2;

const MARKER: &str = "DURAGRAM";
const LOCK: &str = "lock";
const WITNESS: &str = "witness";
const IDENTITY: &str = "journal-id";
const DATABASE: &str = "rocksdb";
const DATABASE_NEW: &str = "rocksdb.new";
const DATABASE_REPAIR: &str = "rocksdb.repair";
const DATABASE_DAMAGED: &str = "rocksdb.damaged-";
/// Of the admin interface, which lies here unless the configuration names another place.
const ADMIN_TOKEN: &str = "admin-token";
/// Found at the root of a file system; no sign of another program.
const LOST_AND_FOUND: &str = "lost+found";
/// The marker of format 1.
const MARKER_1: &str = "duragram data directory, format 1\n";
/// In front of the format's number. From format 2 on the line ends with its checksum, as the witness's does: so a marker
/// of format 1 in which a bit has changed is not taken for one of a later version.
const MARKER_TEXT: &str = "duragram data directory, format ";
/// In front of the journal's name.
const IDENTITY_TEXT: &str = "journal ";
/// In front of the checksum of what stands before it in the line.
const CHECKSUM_TEXT: &str = " crc32 ";
/// Of a directory that was never in service.
const WITNESS_UNUSED: &str = "not in service";

/// A data directory that this process holds: no server can open it meanwhile.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    format: Format,
    /// Released when the file is closed. `None`: an offline tool found no lock file, so there is no server.
    lock: Option<File>,
    /// The directory itself, held open so that another one under its name is told from it.
    root: File,
    /// `None` in a directory that no server of a version with names has opened.
    id: Option<JournalId>,
    /// It was told that the file system does not say how much is free.
    size_unknown: AtomicBool,
}

impl DataDir {
    /// Takes the directory for a server, alone; creates it where there is none.
    pub(in crate::journal) fn claim(path: &Path) -> Result<Self, OpenError> {
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
        let whose = whose(path)?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(file_modes::OURS).open(&lock_path);
        let lock = lock.map_err(|error| unwritable(&lock_path, &error))?;
        lock.try_lock().map_err(|error| lock_failed(path, error))?;
        let mut dir = Self::over(path, Format::Known, Some(lock))?;
        // Marked by another server between the look and the lock: then it is there now.
        if whose == Whose::Nobodys && self::whose(path)? == Whose::Nobodys {
            dir.write_marker().map_err(|error| unwritable(&path.join(MARKER), &error))?;
        } else {
            dir.format = read_marker(path);
        }
        Ok(dir)
    }

    /// Takes the directory for an offline tool, together with others of its kind. Changes nothing.
    pub(in crate::journal) fn look(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing { path: path.into() });
        }
        if whose(path)? == Whose::Nobodys {
            return Err(OpenError::NotOurs { path: path.into(), found: format!("it has no file `{MARKER}`") });
        }
        let lock = match File::open(path.join(LOCK)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(OpenError::storage(format!("opening {}", path.join(LOCK).display()), error)),
        };
        if let Some(lock) = &lock {
            lock.try_lock_shared().map_err(|error| lock_failed(path, error))?;
        }
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
            id: read_identity(path),
            size_unknown: AtomicBool::new(false),
        })
    }

    /// Which journal this is, if it has a name.
    pub(in crate::journal) fn id(&self) -> Option<JournalId> {
        self.id
    }

    /// Gives the journal a name, if it has none that can be read.
    pub(in crate::journal) fn identify(&mut self) -> io::Result<JournalId> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let id = JournalId::random();
        replace_file(&self.root, &self.path, IDENTITY, &with_checksum(&format!("{IDENTITY_TEXT}{id}")))?;
        self.id = Some(id);
        Ok(id)
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

    /// Marks the directory as one of this program's format, where the marker is gone.
    pub(in crate::journal) fn mark(&mut self) -> io::Result<()> {
        if self.format != Format::Known {
            self.write_marker()?;
            self.format = Format::Known;
        }
        Ok(())
    }

    fn write_marker(&self) -> io::Result<()> {
        replace_file(&self.root, &self.path, MARKER, &marker())
    }

    /// Marks a directory of format 1 as one of this format: before anything of this format is written to it.
    pub(in crate::journal) fn mark_anew(&self) -> io::Result<()> {
        match fs::read(self.path.join(MARKER))? == MARKER_1.as_bytes() {
            true => self.write_marker(),
            false => Ok(()),
        }
    }

    pub(in crate::journal) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database is.
    pub(in crate::journal) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

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

    /// The last witness; `None` when there is none, an error when it is not what was written.
    pub(in crate::journal) fn witness(&self) -> Result<Option<Witness>, String> {
        let text = match fs::read(self.path.join(WITNESS)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let witness = checked(&text).and_then(parse_witness);
        match witness {
            Some(witness) => Ok(Some(witness)),
            None => Err("it is not what was written".into()),
        }
    }
}

impl Sidecar for DataDir {
    fn write_witness(&self, witness: Witness) -> io::Result<()> {
        replace_file(&self.root, &self.path, WITNESS, &with_checksum(&witness_text(witness)))
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
        self.id
    }

    fn lost(&self) -> Option<String> {
        let told = |name: &str, what: &str| Some(format!("`{name}` in {} {what}", self.path.display()));
        if let Some(what) = watch::lost(&self.root, &self.path) {
            return Some(format!("the data directory {} {what}", self.path.display()));
        }
        if let Some(what) = self.lock.as_ref().and_then(|lock| watch::lost(lock, &self.path.join(LOCK))) {
            return told(LOCK, what);
        }
        match fs::read(self.path.join(MARKER)) {
            Ok(text) if text == marker().as_bytes() => None,
            Ok(_) => told(MARKER, watch::CHANGED),
            Err(error) if watch::is_gone(&error) => told(MARKER, watch::GONE),
            // What cannot be read now says nothing of what is there.
            Err(_) => None,
        }
    }

    fn lost_witness(&self, written: Witness) -> Option<String> {
        let what = match fs::read(self.path.join(WITNESS)) {
            Ok(text) if text == with_checksum(&witness_text(written)).as_bytes() => return None,
            Ok(_) => watch::CHANGED,
            Err(error) if watch::is_gone(&error) => watch::GONE,
            Err(_) => return None,
        };
        Some(format!("`{WITNESS}` in {} {what}", self.path.display()))
    }
}

/// Whose a directory is, by the names in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    /// This program's; the marker may be gone.
    Ours,
    /// It is empty, or holds what the very first start leaves when it is interrupted.
    Nobodys,
}

/// An error when it is another program's.
fn whose(path: &Path) -> Result<Whose, OpenError> {
    let not_ours = |found: String| OpenError::NotOurs { path: path.into(), found };
    let names = match fs::read_dir(path) {
        Ok(names) => names.collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Err(not_ours("it is no directory".into())),
        Err(error) => Err(error),
    };
    let names = names.map_err(|error| OpenError::storage(format!("reading {}", path.display()), error))?;
    let names: Vec<_> = names.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let has = |name: &str| names.iter().any(|other| other == name);
    if has(MARKER) {
        return Ok(Whose::Ours);
    }
    let of_first_start = [LOCK, &format!("{MARKER}.new"), LOST_AND_FOUND];
    let Some(other) = names.iter().find(|name| !of_first_start.contains(&name.as_str())) else {
        return Ok(Whose::Nobodys);
    };
    // All of them together may be lost but one: what is left says whose it is.
    let proven = has_witness(path) || read_identity(path).is_some() || is_of_a_journal(&path.join(DATABASE));
    // A file of such a name alone may be anybody's.
    let looks_so = has(WITNESS) && (has(DATABASE) || has(LOCK));
    match proven || looks_so && names.iter().all(|name| is_known(name)) {
        true => Ok(Whose::Ours),
        false => Err(not_ours(format!("it has no file `{MARKER}` but `{other}`"))),
    }
}

/// Whether a name is one that this program gives to what it makes in a data directory.
fn is_known(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    let fixed = [MARKER, LOCK, WITNESS, IDENTITY, DATABASE, DATABASE_REPAIR, LOST_AND_FOUND, ADMIN_TOKEN];
    fixed.contains(&name) || name.starts_with(DATABASE_DAMAGED) || name.starts_with(&format!(".{ADMIN_TOKEN}."))
}

fn has_witness(path: &Path) -> bool {
    fs::read(path.join(WITNESS)).is_ok_and(|text| checked(&text).and_then(parse_witness).is_some())
}

/// Which journal is there; `None` when nothing says so, or not what was written.
fn read_identity(path: &Path) -> Option<JournalId> {
    let text = fs::read(path.join(IDENTITY)).ok()?;
    JournalId::parse(checked(&text)?.strip_prefix(IDENTITY_TEXT)?)
}

/// What the marker says.
fn marker() -> String {
    with_checksum(&format!("{MARKER_TEXT}{DIRECTORY_FORMAT}"))
}

fn read_marker(path: &Path) -> Format {
    let Ok(text) = fs::read(path.join(MARKER)) else { return Format::Unreadable };
    if text == MARKER_1.as_bytes() {
        return Format::Known;
    }
    let number = checked(&text).and_then(|text| text.strip_prefix(MARKER_TEXT)?.parse().ok());
    match number {
        Some(DIRECTORY_FORMAT) => Format::Known,
        Some(number) if number > DIRECTORY_FORMAT => Format::Newer(number),
        Some(number) => Format::Older(number),
        None => Format::Unreadable,
    }
}

fn witness_text(witness: Witness) -> String {
    match witness {
        Witness::NotInService => WITNESS_UNUSED.into(),
        Witness::Durable { end, changes } => format!("end {end} changes {changes}"),
    }
}

fn parse_witness(text: &str) -> Option<Witness> {
    if text == WITNESS_UNUSED {
        return Some(Witness::NotInService);
    }
    let rest = text.strip_prefix("end ")?;
    // Version 0.1.0 did not count changes.
    let (end, changes) = rest.split_once(" changes ").unwrap_or((rest, "0"));
    Some(Witness::Durable { end: Offset(end.parse().ok()?), changes: changes.parse().ok()? })
}

fn with_checksum(text: &str) -> String {
    format!("{text}{CHECKSUM_TEXT}{:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// What stands before the checksum, if it is what was written.
fn checked(line: &[u8]) -> Option<&str> {
    let (text, _) = str::from_utf8(line).ok()?.rsplit_once(CHECKSUM_TEXT)?;
    (with_checksum(text).as_bytes() == line).then_some(text)
}

/// After a crash there is either the old file or the new one, whole. `root` is the directory, so that no descriptor is needed for
/// syncing it when the new file is in its place.
fn replace_file(root: &File, dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(file_modes::OURS).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))?;
    root.sync_all()
}

/// Whether an error says that space, file descriptors or memory are used up for now, and nothing about the disk's health.
pub(in crate::journal) fn is_shortage(error: &io::Error) -> bool {
    const KINDS: [ErrorKind; 3] = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::OutOfMemory];
    const DESCRIPTORS: [Errno; 2] = [Errno::EMFILE, Errno::ENFILE];
    let errno = error.raw_os_error().map(Errno::from_raw);
    KINDS.contains(&error.kind()) || errno.is_some_and(|errno| DESCRIPTORS.contains(&errno))
}

/// Makes a directory that nobody else enters.
pub(in crate::journal) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(file_modes::OUR_DIRECTORY).create(path)
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn lock_failed(path: &Path, error: TryLockError) -> OpenError {
    match error {
        TryLockError::WouldBlock => OpenError::Locked { path: path.into() },
        TryLockError::Error(error) => OpenError::storage(format!("locking {}", path.join(LOCK).display()), error),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> OpenError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            OpenError::NotWritable { path: path.into(), cause: error.to_string() }
        }
        _ => OpenError::storage(format!("creating {}", path.display()), error),
    }
}

#[cfg(test)]
mod tests;
