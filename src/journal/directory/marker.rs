//! The marker: whose directory it is, and of which format.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::adoption::{DATABASE_DAMAGED, DATABASE_REPAIR};
use super::files::{checked, replace_file, with_checksum};
use super::identity::{IDENTITY, read_identity};
use super::lock::LOCK;
use super::watch;
use super::witness::{WITNESS, has_witness};
use super::{DATABASE, DataDir};
use crate::journal::error::OpenError;
use crate::journal::recovery::Format;

/// The format of the data directory that this program writes.
///
/// | format | since it |
/// |---|---|
/// | 1 | there is a journal |
/// | 2 | entries and sessions may be sealed; clients' epochs and the server's counter are kept |
/// | 3 | blocks have version 2; the checkpoint has marks by sink and shard; the journal has instances; there may be asks and recent keys |
/// | 4 | the checkpoint keeps the configured sinks; dead letters may be theirs |
/// | 5 | entries may ask; asks are kept, and the answers of a commit in a record of their own |
///
/// All of them are read. A directory of an earlier format is marked anew before anything is written to it: from then on an earlier
/// version says that it is of a later one. Blocks and records stay as they are until they are trimmed or replaced.
///
/// Who first writes what this version takes for damage raises the format: an entry of another dialect, more of a sink than
/// the checkpoint has fields for, more sinks or losses of one than are remembered, a recent key of another dialect than 0, a record of a
/// new kind, a key of another length.
pub(in crate::journal) const DIRECTORY_FORMAT: u32 = 5;

pub(super) const MARKER: &str = "DURAGRAM";
/// The name of the admin token's file, which lies here unless the configuration names another place.
pub(super) const ADMIN_TOKEN: &str = "admin-token";
/// A directory at the root of a file system; no sign of another program.
pub(super) const LOST_AND_FOUND: &str = "lost+found";
/// The marker of format 1.
pub(super) const MARKER_1: &str = "duragram data directory, format 1\n";
/// In front of the format's number. From format 2 on the line ends with its checksum, as the witness's does: so a marker
/// of format 1 in which a bit has changed is not taken for one of a later version.
pub(super) const MARKER_TEXT: &str = "duragram data directory, format ";
/// The earliest format whose marker has a checksum.
const CHECKED_FORMAT: u32 = 2;

impl DataDir {
    /// Marks the directory as one of this program's format, where the marker is gone.
    pub(in crate::journal) fn mark(&mut self) -> io::Result<()> {
        if self.format != Format::Known {
            self.write_marker()?;
            self.format = Format::Known;
        }
        Ok(())
    }

    pub(super) fn write_marker(&self) -> io::Result<()> {
        replace_file(&self.root, &self.path, MARKER, &marker())
    }

    /// Marks a directory of an earlier format as one of this format: before anything of this format is written to it. A marker that
    /// could not be read when the directory was claimed, or that says something else, stays as it is.
    ///
    /// # Errors
    /// The marker cannot be read any more, or not be replaced. Nothing of this format may be written then.
    pub(in crate::journal) fn mark_anew(&self) -> io::Result<()> {
        if self.format != Format::Known {
            return Ok(());
        }
        match is_former(&fs::read(self.path.join(MARKER))?) {
            true => self.write_marker(),
            false => Ok(()),
        }
    }

    /// What became of the marker; `None` when it is there, or cannot be read now.
    pub(super) fn lost_marker(&self) -> Option<&'static str> {
        match fs::read(self.path.join(MARKER)) {
            Ok(text) => (text != marker().as_bytes()).then_some(watch::CHANGED),
            Err(error) => watch::is_gone(&error).then_some(watch::GONE),
        }
    }
}

/// Whose a directory is, by the names in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whose {
    /// This program's; the marker may be gone.
    Ours,
    /// It is empty, or holds what the very first start leaves when it is interrupted.
    Unclaimed,
}

/// An error when it is another program's. `is_of_a_journal` tells whether the database at a path is one of a journal.
pub(super) fn whose(path: &Path, is_of_a_journal: fn(&Path) -> bool) -> Result<Whose, OpenError> {
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
        return Ok(Whose::Unclaimed);
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
pub(super) fn is_known(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    let fixed = [MARKER, LOCK, WITNESS, IDENTITY, DATABASE, DATABASE_REPAIR, LOST_AND_FOUND, ADMIN_TOKEN];
    fixed.contains(&name) || name.starts_with(DATABASE_DAMAGED) || name.starts_with(&format!(".{ADMIN_TOKEN}."))
}

/// What the marker says in a directory of this format.
pub(super) fn marker() -> String {
    marker_of(DIRECTORY_FORMAT)
}

pub(super) fn marker_of(format: u32) -> String {
    with_checksum(&format!("{MARKER_TEXT}{format}"))
}

/// Whether it is the marker of an earlier format that this program reads.
fn is_former(text: &[u8]) -> bool {
    text == MARKER_1.as_bytes() || (CHECKED_FORMAT..DIRECTORY_FORMAT).any(|format| text == marker_of(format).as_bytes())
}

pub(super) fn read_marker(path: &Path) -> Format {
    let Ok(text) = fs::read(path.join(MARKER)) else { return Format::Unreadable };
    if is_former(&text) || text == marker().as_bytes() {
        return Format::Known;
    }
    let number = checked(&text).and_then(|text| text.strip_prefix(MARKER_TEXT)?.parse().ok());
    match number {
        Some(number) if number > DIRECTORY_FORMAT => Format::Newer(number),
        Some(number) => Format::Older(number),
        None => Format::Unreadable,
    }
}
