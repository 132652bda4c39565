//! What lies in the data directory beside the database: the marker that says whose it is, the lock, the witness.
//!
//! | name | holds |
//! |---|---|
//! | `DURAGRAM` | the marker: one line of text with the directory's format; written first, never changed |
//! | `lock` | nothing; locked by a running server, shared by offline tools |
//! | `witness` | one line of text: what is known to be durable ([`Witness`]), and a checksum |
//! | `rocksdb/` | the database |
//! | `rocksdb.new/` | a database being made; worth nothing before it is renamed |
//! | `rocksdb.repair/` | a copy of a database that could not be opened, while it is salvaged |
//! | `rocksdb.damaged-…/` | what an operator gave up, untouched |
//!
//! The database cannot tell a torn tail from lost data; the witness can, since it was written by other means.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::database::Beside;
use super::error::{OpenError, StorageError};
use super::recovery::{Format, Witness};
use crate::types::Offset;

/// The format of the data directory that this program writes. It reads format 1 too, which knows nothing of sealed mode,
/// and marks such a directory anew before it writes to it: an earlier version then says that it is of a later one.
pub(super) const DIRECTORY_FORMAT: u32 = 2;

const MARKER: &str = "DURAGRAM";
const LOCK: &str = "lock";
const WITNESS: &str = "witness";
const DATABASE: &str = "rocksdb";
const DATABASE_NEW: &str = "rocksdb.new";
const DATABASE_REPAIR: &str = "rocksdb.repair";
const DATABASE_DAMAGED: &str = "rocksdb.damaged-";
/// Found at the root of a file system; no sign of another program.
const LOST_AND_FOUND: &str = "lost+found";
/// The marker of format 1.
const MARKER_1: &str = "duragram data directory, format 1\n";
/// In front of the format's number. From format 2 on the line ends with its checksum, as the witness's does: so a marker
/// of format 1 in which a bit has changed is not taken for one of a later version.
const MARKER_TEXT: &str = "duragram data directory, format ";
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
    _lock: Option<File>,
}

impl DataDir {
    /// Takes the directory for a server, alone; creates it where there is none.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenError> {
        match fs::create_dir(path) {
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
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| unwritable(&lock_path, &error))?;
        lock.try_lock().map_err(|error| lock_failed(path, error))?;
        let mut dir = Self { path: path.into(), format: Format::Known, _lock: Some(lock) };
        // Marked by another server between the look and the lock: then it is there now.
        if whose == Whose::Nobodys && self::whose(path)? == Whose::Nobodys {
            dir.write_marker().map_err(|error| unwritable(&path.join(MARKER), &error))?;
        } else {
            dir.format = read_marker(path);
        }
        Ok(dir)
    }

    /// Takes the directory for an offline tool, together with others of its kind. Changes nothing.
    pub(super) fn look(path: &Path) -> Result<Self, OpenError> {
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
        Ok(Self { path: path.into(), format: read_marker(path), _lock: lock })
    }

    /// Its format, by the marker.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Marks the directory as one of this program's format, where the marker is gone.
    pub(super) fn mark(&mut self) -> io::Result<()> {
        if self.format != Format::Known {
            self.write_marker()?;
            self.format = Format::Known;
        }
        Ok(())
    }

    fn write_marker(&self) -> io::Result<()> {
        replace_file(&self.path, MARKER, &with_checksum(&format!("{MARKER_TEXT}{DIRECTORY_FORMAT}")))
    }

    /// Marks a directory of format 1 as one of this format: before anything of this format is written to it.
    pub(super) fn mark_anew(&self) -> io::Result<()> {
        match fs::read(self.path.join(MARKER))? == MARKER_1.as_bytes() {
            true => self.write_marker(),
            false => Ok(()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where a database is made before [`adopt_new_database`](Self::adopt_new_database). Removes what a crash left.
    pub(super) fn new_database(&self) -> io::Result<PathBuf> {
        let path = self.path.join(DATABASE_NEW);
        remove_dir(&path)?;
        Ok(path)
    }

    /// A copy of the database to repair it in; its large files are shared with the original, which stays as it is.
    pub(super) fn copy_to_repair(&self) -> io::Result<PathBuf> {
        let copy = self.path.join(DATABASE_REPAIR);
        remove_dir(&copy)?;
        fs::create_dir(&copy)?;
        for entry in fs::read_dir(self.database())? {
            let (from, to) = entry.map(|entry| (entry.path(), copy.join(entry.file_name())))?;
            // Table files are never written again.
            match from.extension().is_some_and(|extension| extension == "sst") {
                true => fs::hard_link(from, to)?,
                false => drop(fs::copy(from, to)?),
            }
        }
        Ok(copy)
    }

    /// Removes what [`copy_to_repair`](Self::copy_to_repair) made, if it did.
    pub(super) fn remove_repaired(&self) -> io::Result<()> {
        remove_dir(&self.path.join(DATABASE_REPAIR))
    }

    /// Puts the new database in the place of the database, and the old one, if there is one, aside under `reason`.
    ///
    /// A crash in between leaves the new one complete and no database:
    /// [`finish_adoption`](Self::finish_adoption) goes on from there.
    pub(super) fn adopt_new_database(&self, reason: &str) -> io::Result<()> {
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
    pub(super) fn finish_adoption(&self) -> io::Result<()> {
        let mut names = fs::read_dir(&self.path)?.map(|entry| entry.map(|entry| entry.file_name()));
        let aside = names.any(|name| name.is_ok_and(|name| name.to_string_lossy().starts_with(DATABASE_DAMAGED)));
        if aside && !self.database().exists() && self.path.join(DATABASE_NEW).exists() {
            fs::rename(self.path.join(DATABASE_NEW), self.database())?;
            sync_dir(&self.path)?;
        }
        Ok(())
    }

    /// The last witness; `None` when there is none, an error when it is not what was written.
    pub(super) fn witness(&self) -> Result<Option<Witness>, String> {
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

impl Beside for DataDir {
    fn write_witness(&self, witness: Witness) -> io::Result<()> {
        replace_file(&self.path, WITNESS, &with_checksum(&witness_text(witness)))
    }

    fn free_bytes(&self) -> Result<u64, StorageError> {
        let stat = nix::sys::statvfs::statvfs(&self.path)
            .map_err(|error| StorageError::new("asking for the free space of the data directory", error))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
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
    let later = [WITNESS, &format!("{WITNESS}.new"), DATABASE, DATABASE_NEW, DATABASE_REPAIR];
    let known = |name: &String| {
        let name = name.as_str();
        of_first_start.contains(&name) || later.contains(&name) || name.starts_with(DATABASE_DAMAGED)
    };
    match has(WITNESS) && names.iter().all(known) {
        true => Ok(Whose::Ours),
        false => Err(not_ours(format!("it has no file `{MARKER}` but `{other}`"))),
    }
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

/// After a crash there is either the old file or the new one, whole.
fn replace_file(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))?;
    sync_dir(dir)
}

/// Whether an error says that space, file descriptors or memory are used up for now, and nothing about the disk's health.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    const KINDS: [ErrorKind; 3] = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::OutOfMemory];
    const DESCRIPTORS: [Errno; 2] = [Errno::EMFILE, Errno::ENFILE];
    let errno = error.raw_os_error().map(Errno::from_raw);
    KINDS.contains(&error.kind()) || errno.is_some_and(|errno| DESCRIPTORS.contains(&errno))
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
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_is_claimed_once_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let held = DataDir::claim(&path).unwrap();
        assert_eq!(DataDir::claim(&path).unwrap_err(), OpenError::Locked { path: path.clone() });
        assert_eq!(DataDir::look(&path).unwrap_err(), OpenError::Locked { path: path.clone() });
        drop(held);
        let tools = [DataDir::look(&path).unwrap(), DataDir::look(&path).unwrap()];
        assert_eq!(DataDir::claim(&path).unwrap_err(), OpenError::Locked { path: path.clone() });
        drop(tools);
        DataDir::claim(&path).unwrap();
    }

    #[test]
    fn a_directory_of_another_program_is_refused_and_left_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("base.ldb"), "x").unwrap();
        for result in [DataDir::claim(temp.path()), DataDir::look(temp.path())] {
            let error = result.unwrap_err();
            assert!(matches!(&error, OpenError::NotOurs { found, .. } if found.contains("base.ldb")), "{error}");
        }
        assert_eq!(names(temp.path()), ["base.ldb"]);
        let file = temp.path().join("base.ldb");
        assert!(matches!(DataDir::claim(&file), Err(OpenError::NotOurs { .. })));
    }

    #[test]
    fn an_interrupted_first_start_leaves_a_directory_that_the_second_takes() {
        for left in [&[][..], &[LOCK], &[LOCK, "DURAGRAM.new"], &[LOST_AND_FOUND]] {
            let temp = tempfile::tempdir().unwrap();
            left.iter().for_each(|name| fs::write(temp.path().join(name), "").unwrap());
            DataDir::claim(temp.path()).unwrap();
            DataDir::look(temp.path()).unwrap();
        }
    }

    #[test]
    fn a_missing_parent_a_newer_format_and_a_damaged_marker_have_their_own_errors() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        assert_eq!(DataDir::claim(&path).unwrap_err(), OpenError::MissingParent { path: path.clone() });
        assert_eq!(DataDir::look(&path).unwrap_err(), OpenError::Missing { path });

        let path = temp.path().join("data");
        drop(DataDir::claim(&path).unwrap());
        let format = |text: &str| {
            fs::write(path.join(MARKER), text).unwrap();
            DataDir::claim(&path).unwrap().format()
        };
        assert_eq!(format(&with_checksum(&format!("{MARKER_TEXT}3"))), Format::Newer(3));
        assert_eq!(format(&with_checksum(&format!("{MARKER_TEXT}2"))), Format::Known);
        assert_eq!(format(&with_checksum(&format!("{MARKER_TEXT}0"))), Format::Older(0));
        for text in ["", "duragram", "duragram data directory, format 2\n", "duragram data directory, format 1"] {
            assert_eq!(format(text), Format::Unreadable, "{text:?}");
        }
        assert_eq!(format("duragram data directory, format 1\n"), Format::Known);
    }

    #[test]
    fn a_directory_of_format_1_is_marked_anew_and_no_other_is() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let dir = DataDir::claim(&path).unwrap();
        let marker = || fs::read_to_string(path.join(MARKER)).unwrap();
        let new = marker();
        assert!(new.starts_with("duragram data directory, format 2 crc32 "), "{new}");
        for (old, marked) in [(MARKER_1, new.as_str()), (&new, &new), ("else", "else")] {
            fs::write(path.join(MARKER), old).unwrap();
            dir.mark_anew().unwrap();
            assert_eq!(marker(), marked);
        }
    }

    #[test]
    fn a_directory_without_its_marker_is_still_ours_when_all_names_in_it_are() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::claim(temp.path()).unwrap();
        dir.write_witness(Witness::NotInService).unwrap();
        fs::create_dir(dir.database()).unwrap();
        drop(dir);
        fs::remove_file(temp.path().join(MARKER)).unwrap();
        assert_eq!(DataDir::claim(temp.path()).unwrap().format(), Format::Unreadable);
        assert!(!temp.path().join(MARKER).exists(), "a marker is not made up");
        assert_eq!(DataDir::look(temp.path()).unwrap().format(), Format::Unreadable);
        fs::write(temp.path().join("notes.txt"), "").unwrap();
        assert!(matches!(DataDir::claim(temp.path()), Err(OpenError::NotOurs { .. })));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        // Nobody creates directories there, root neither.
        let error = DataDir::claim(Path::new("/sys/duragram-test")).unwrap_err();
        assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
    }

    #[test]
    fn a_witness_is_read_as_written_or_its_damage_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::claim(temp.path()).unwrap();
        assert_eq!(dir.witness(), Ok(None));
        let numbers = [0, 7, u64::MAX].map(|n| Witness::Durable { end: Offset(n), changes: n / 2 });
        for witness in numbers.into_iter().chain([Witness::NotInService]) {
            dir.write_witness(witness).unwrap();
            assert_eq!(dir.witness(), Ok(Some(witness)));
        }
        // As version 0.1.0 wrote it.
        fs::write(temp.path().join(WITNESS), "end 1234 crc32 cea31bf9\n").unwrap();
        assert_eq!(dir.witness(), Ok(Some(Witness::Durable { end: Offset(1234), changes: 0 })));
        dir.write_witness(Witness::Durable { end: Offset(1234), changes: 56 }).unwrap();
        let good = fs::read(temp.path().join(WITNESS)).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(temp.path().join(WITNESS), bad).unwrap();
                assert!(dir.witness().is_err(), "bit {bit} of byte {at}");
            }
            fs::write(temp.path().join(WITNESS), &good[..at]).unwrap();
            assert!(dir.witness().is_err(), "cut to {at} bytes");
        }
    }

    #[test]
    fn a_new_database_takes_the_old_ones_place_also_over_a_crash() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::claim(temp.path()).unwrap();
        fs::create_dir(dir.database()).unwrap();
        let new = dir.new_database().unwrap();
        fs::create_dir(&new).unwrap();
        fs::write(new.join("new"), "").unwrap();
        // Before anything was put aside, an unfinished one counts for nothing.
        dir.finish_adoption().unwrap();
        assert_eq!(names(&dir.database()), [""; 0]);
        // The crash: the old one is aside, the new one not yet in its place.
        fs::rename(dir.database(), temp.path().join("rocksdb.damaged-1")).unwrap();
        dir.finish_adoption().unwrap();
        assert_eq!(names(&dir.database()), ["new"]);

        fs::create_dir(dir.new_database().unwrap()).unwrap();
        dir.adopt_new_database("1").unwrap();
        assert_eq!(names(&temp.path().join("rocksdb.damaged-1-1")), ["new"]);
        assert_eq!(names(&dir.database()), [""; 0]);
    }
}
