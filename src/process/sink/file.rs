//! `file:PATH` on a regular file: every line durable before the watermark moves, and exactly once also after a crash.
//!
//! Lines are appended and synced in one go, by a flush. Nothing that was not synced is taken for written: after an error
//! the file is cut back to where it ended before, and the lines, which the lane still has, are written again. That is
//! also right after a failed sync, when the kernel may have dropped the pages: the new ones are dirty again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lines::Output;
use super::recover;
use crate::process::HandlerError;

/// Which file, whatever its name is by now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl FileId {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }
}

/// What the journal keeps with a lane's watermark: the lane's lines from there on lie in this file beyond this length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct FileState {
    #[serde(flatten)]
    pub(super) id: FileId,
    /// In bytes; all of it was synced.
    pub(super) len: u64,
}

impl FileState {
    pub(super) fn to_bytes(self) -> Result<Vec<u8>, HandlerError> {
        serde_json::to_vec(&self).map_err(HandlerError::new)
    }
}

/// The file that the lanes share.
pub(super) struct FileSink {
    path: PathBuf,
    id: FileId,
    appender: Appender<File>,
}

impl FileSink {
    /// On a file that [`recover`] has opened.
    pub(super) fn new(path: &Path, opened: recover::Opened) -> Self {
        let appender = Appender::new(opened.file, opened.len, opened.newline_first);
        Self { path: path.to_owned(), id: opened.id, appender }
    }
}

impl Output for FileSink {
    fn write(&mut self, lines: &mut Vec<u8>) -> Result<(), HandlerError> {
        let written = self.appender.append(lines);
        written.map_err(|error| HandlerError::new(format_args!("writing to {}: {error}", self.path.display())))?;
        lines.clear();
        Ok(())
    }

    /// Every lane asks for it; the first one that finds another file at the path changes over. Nothing unsynced is left in
    /// the old one.
    fn reopen(&mut self) -> Result<(), HandlerError> {
        match fs::metadata(&self.path) {
            Ok(metadata) if FileId::of(&metadata) == self.id => Ok(()),
            _ => {
                let opened = recover::open_for_append(&self.path)?;
                *self = Self::new(&self.path, opened);
                tracing::info!(path = %self.path.display(), "the sink's file was opened anew");
                Ok(())
            }
        }
    }

    fn state(&self) -> Result<Vec<u8>, HandlerError> {
        FileState { id: self.id, len: self.appender.len }.to_bytes()
    }
}

/// The calls of a file that may fail, so that tests can let them.
trait Disk {
    fn len(&self) -> io::Result<u64>;
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Disk for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

struct Appender<D> {
    disk: D,
    /// After the last write that succeeded, in bytes.
    len: u64,
    /// The file's last line, not ours, has no end.
    newline_first: bool,
    /// Where a write that failed may have left something.
    torn: Option<Range<u64>>,
}

impl<D: Disk> Appender<D> {
    fn new(disk: D, len: u64, newline_first: bool) -> Self {
        Self { disk, len, newline_first, torn: None }
    }

    /// Writes and syncs. On error nothing counts as written; what may be there is cut away, by the next call at the latest.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        self.repair()?;
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.try_append(lines);
        if written.is_err() {
            // Cut at once, for those who read the file while the disk is full. A failure is met again by the next call.
            drop(self.repair());
        }
        written
    }

    fn try_append(&mut self, lines: &[u8]) -> io::Result<()> {
        let start = self.disk.len()?;
        let newline: &[u8] = if self.newline_first { b"\n" } else { b"" };
        self.torn = Some(start..start + (newline.len() + lines.len()) as u64);
        if self.newline_first {
            self.disk.append(newline)?;
        }
        self.disk.append(lines)?;
        self.disk.sync()?;
        self.torn = None;
        self.newline_first = false;
        // Not `start` plus our bytes: who rotates by copying may have cut the file meanwhile.
        self.len = self.disk.len()?;
        Ok(())
    }

    /// Takes away what a failed write left, if it is ours alone: a file that has become shorter was cut by somebody else
    /// (`copytruncate`), and one that has become longer than our lines holds somebody else's.
    fn repair(&mut self) -> io::Result<()> {
        if let Some(torn) = &self.torn {
            let len = self.disk.len()?;
            if torn.start < len && len <= torn.end {
                self.disk.cut(torn.start)?;
            } else if len > torn.end {
                tracing::error!(
                    "somebody else writes to the sink's file: after a failed write it may hold a torn line"
                );
                self.newline_first = true;
            }
            self.torn = None;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
