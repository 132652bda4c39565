//! Opening a sink's file so that after a crash no line is in it twice, none is torn, and nothing of others is touched.
//!
//! The journal knows the lane's watermark, and the file and length that went with it. What the lane wrote later is
//! found by reading on from there, and left out when its records come again ([`Replay`]). A file that the journal does not
//! know (the first start, a crash just after rotation, a copy) is read from its end backwards as far as such
//! lines can reach. When the file was renamed since (rotation), it is looked for beside its old name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirEntryExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use super::file_state::{FileId, FilePosition, FileState};
use super::lines::{LINE_MAX, Replay};
use crate::host::file_modes;
use crate::model::Offset;
use crate::process::handler::HandlerError;
use crate::record_json::{LINE_START, LOST_START, parse_key, parse_lost};

/// How much of a file that the journal does not know is read at start, from its end, in bytes. Far above what a lane
/// writes between two checkpoints.
const UNKNOWN_SCAN_MAX: u64 = 1 << 30;

/// A file that is ready for whole lines.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) id: FileId,
    /// The file is so many bytes long.
    pub(super) len: u64,
    /// The last line, not ours, has no end.
    pub(super) newline_first: bool,
}

/// What the journal knows of the lane's lines.
#[derive(Debug)]
pub(super) struct Recorded {
    /// The lane goes on at this watermark.
    pub(super) watermark: Offset,
    /// What was stored with it; or, of a journal in which several lanes went on together, what each of them left.
    pub(super) states: Vec<Option<FileState>>,
    /// No record above was ever presented.
    pub(super) durable_end: Offset,
}

/// Opens or creates the file at the start of the server; returns with it the lines that it has already.
///
/// # Errors
/// The file cannot be opened, read, synced, or another process writes to it.
pub(super) fn recover(path: &Path, recorded: &Recorded) -> Result<(Opened, Option<Replay>), HandlerError> {
    let open = || {
        let mut file = open_locked(path)?;
        let metadata = file.metadata()?;
        let id = FileId::of(&metadata);
        let known_len = recorded.known_len(id).filter(|&known| known <= metadata.len());
        let mut newline_first = mend_end(&mut file, known_len)?;
        let mut scan = Scan::new(recorded, id, file.metadata()?.len())?;
        if recorded.may_replay() {
            if let Some(hole) = scan.read(&file, scan.from, known_len)? {
                file.set_len(hole)?;
                newline_first = false;
            }
            scan.read_renamed(path, id)?;
        }
        // The lines that were found may be in the page cache alone, and the watermark is to move over them.
        file.sync_all()?;
        let len = file.metadata()?.len();
        Ok((Opened { file, id, len, newline_first }, scan.into_replay()))
    };
    open().map_err(|error: io::Error| HandlerError::new(format_args!("{}: {error}", path.display())))
}

/// Opens or creates the file while the server runs (after rotation): there is nothing to find in it.
///
/// # Errors
/// They are those of [`recover`].
pub(super) fn open_for_append(path: &Path) -> Result<Opened, HandlerError> {
    let open = || {
        let mut file = open_locked(path)?;
        let newline_first = mend_end(&mut file, None)?;
        let metadata = file.metadata()?;
        Ok(Opened { file, id: FileId::of(&metadata), len: metadata.len(), newline_first })
    };
    open().map_err(|error: io::Error| HandlerError::new(format_args!("{}: {error}", path.display())))
}

fn open_locked(path: &Path) -> io::Result<File> {
    // Before it is opened: to open a FIFO is an event to whoever is at its other end.
    if let Ok(metadata) = fs::metadata(path) {
        refuse_other_kinds(metadata.file_type())?;
    }
    let file = file_modes::open_for_operators(OpenOptions::new().read(true).append(true), path)?;
    // The lock is a courtesy between servers; a file system without locks is none to refuse.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(io::Error::other("another process writes to it"));
    }
    // A new file's name must be as durable as its lines.
    File::open(directory(path))?.sync_all()?;
    Ok(file)
}

/// What is written elsewhere than to a file cannot be told apart after a crash.
fn refuse_other_kinds(kind: fs::FileType) -> io::Result<()> {
    let name = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "directory",
        () if kind.is_fifo() => "FIFO",
        () if kind.is_socket() => "socket",
        () => "device",
    };
    let problem = format!("a {name} has come to be where the sink's file was: move it away, or restart the server");
    Err(io::Error::other(problem))
}

pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Cuts a line of ours that a crash has torn. Returns whether the end is a line of somebody else's without its newline.
fn mend_end(file: &mut File, known_len: Option<u64>) -> io::Result<bool> {
    let len = file.metadata()?.len();
    let window = len.min(LINE_MAX as u64);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(len - window))?;
    file.take(window).read_to_end(&mut end)?;
    let start = match end.iter().rposition(|&byte| byte == b'\n') {
        Some(newline) => newline + 1,
        None if window < len => return Ok(true),
        None => 0,
    };
    let line = &end[start..];
    if line.is_empty() {
        return Ok(false);
    }
    if serde_json::from_slice::<IgnoredAny>(line).is_ok() {
        let ours = is_ours(line);
        if ours {
            // Torn just before its newline.
            file.write_all(b"\n")?;
        }
        return Ok(!ours);
    }
    let at = len - line.len() as u64;
    let after_known = known_len.is_some_and(|known| at >= known);
    let before = end[..start].strip_suffix(b"\n").and_then(|lines| lines.rsplit(|&byte| byte == b'\n').next());
    let after_ours = after_known || before.is_some_and(is_ours);
    // A line must show whose it is; or so must the one before it, when the line is too short for that.
    let begins = |start: &[u8]| line.starts_with(start) || (after_ours && start.starts_with(line));
    let ours = begins(LINE_START) || begins(LOST_START) || (after_known && line[0] == 0);
    if ours {
        file.set_len(at)?;
        tracing::info!(bytes = line.len(), "cut the torn last line of the sink's file; its record comes again");
    }
    Ok(!ours)
}

/// Whether a line is one that a sink of this kind has written.
fn is_ours(line: &[u8]) -> bool {
    parse_key(line).is_some() || parse_lost(line).is_some()
}

impl Recorded {
    fn may_replay(&self) -> bool {
        self.watermark < self.durable_end
    }

    fn positions(&self) -> impl Iterator<Item = FilePosition> {
        self.states.iter().flatten().flat_map(FileState::positions)
    }

    /// The longest length that was stored for this file.
    fn known_len(&self, id: FileId) -> Option<u64> {
        self.positions().filter(|position| position.id == id).map(|position| position.len).max()
    }

    /// The shortest length that was stored for this file.
    fn first_len(&self, id: FileId) -> Option<u64> {
        self.positions().filter(|position| position.id == id).map(|position| position.len).min()
    }

    /// Returns the files that were stored, each once.
    fn ids(&self) -> Vec<FileId> {
        let mut ids: Vec<FileId> = self.positions().map(|position| position.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Gives the state that leads to the lane's lines, in a file that is read from this length on.
    fn leading(&self, id: FileId, from: u64) -> FileState {
        let here = FileState::at(id, from);
        if let [state] = &self.states[..] {
            return state.clone().unwrap_or(here);
        }
        let others = self.ids().into_iter().filter(|&other| other != id);
        let also = others.map(|id| FilePosition { id, len: self.first_len(id).unwrap_or(0) }).collect();
        FileState { also, ..here }
    }
}

/// Collects the lines of records that may come again.
struct Scan<'a> {
    recorded: &'a Recorded,
    /// The position from which the file itself is read.
    from: u64,
    replay: Replay,
}

impl<'a> Scan<'a> {
    fn new(recorded: &'a Recorded, id: FileId, len: u64) -> io::Result<Self> {
        let knows = |state: &FileState| state.positions().any(|position| position.id == id && position.len <= len);
        let all_know = recorded.states.iter().all(|state| state.as_ref().is_some_and(knows));
        let unknown_from = len.saturating_sub(UNKNOWN_SCAN_MAX);
        let from = recorded.first_len(id).filter(|_| all_know).unwrap_or(unknown_from);
        let state = recorded.leading(id, from).to_bytes().map_err(io::Error::other)?;
        Ok(Self { recorded, from, replay: Replay::new(state) })
    }

    /// Reads lines from `from` to the end, or up to a hole that a power cut has left beyond `known_len`: returns where the
    /// line with the hole starts.
    ///
    /// A line that `from` cuts, or that is too long to be ours, is read in parts. None of them can pass for a record's line.
    fn read(&mut self, mut file: &File, from: u64, known_len: Option<u64>) -> io::Result<Option<u64>> {
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut at = from;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE_MAX as u64).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(None);
            }
            if known_len.is_some_and(|known| at >= known) && line.contains(&0) {
                return Ok(Some(at));
            }
            self.insert(&line);
            at += read as u64;
        }
    }

    /// Reads on in files that have been renamed since their length was stored.
    fn read_renamed(&mut self, path: &Path, current: FileId) -> io::Result<()> {
        for id in self.recorded.ids().into_iter().filter(|&id| id != current) {
            match find(directory(path), id)? {
                Some(renamed) => {
                    // Who rotates may have taken the right to write; then a torn line stays.
                    let file = match OpenOptions::new().read(true).append(true).open(&renamed) {
                        Ok(mut file) => mend_end(&mut file, self.recorded.known_len(id)).map(|_| file)?,
                        Err(_) => File::open(&renamed)?,
                    };
                    self.read(&file, self.recorded.first_len(id).unwrap_or(0), None)?;
                    file.sync_data()?;
                    tracing::info!(file = %renamed.display(), "read on in the sink's rotated file");
                }
                None => tracing::warn!(
                    directory = %directory(path).display(),
                    "the file that the sink wrote to before is not there any more: \
                     what was written to it after the last checkpoint is written again"
                ),
            }
        }
        Ok(())
    }

    fn insert(&mut self, line: &[u8]) {
        let Recorded { watermark, durable_end, .. } = *self.recorded;
        if let Some((from, to)) = parse_lost(line) {
            if (watermark..=durable_end).contains(&to) {
                self.replay.insert_lost(from, line);
            }
        } else if let Some((offset, index)) = parse_key(line)
            && (watermark..durable_end).contains(&offset)
        {
            self.replay.insert(offset, index, line);
        }
    }

    fn into_replay(self) -> Option<Replay> {
        (!self.replay.is_empty()).then_some(self.replay)
    }
}

/// The file in a directory by its identity.
pub(super) fn find(directory: &Path, id: FileId) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // The inode number comes with the name; a file system that does not tell the true one there is of no interest.
        if entry.ino() == id.ino && entry.metadata().is_ok_and(|metadata| FileId::of(&metadata) == id) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
