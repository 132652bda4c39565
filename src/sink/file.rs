//! `file:PATH` on a regular file: every line durable before the watermark moves, and exactly once also after a crash.
//!
//! Lines are appended and synced in one go, by a flush. Nothing that was not synced is taken for written: after an error
//! the file is cut back to where it ended before, and the lines, which the lane still has, are written again. That is
//! also right after a failed sync, when the kernel may have dropped the pages: the new ones are dirty again.
//!
//! Nor is taken for written what nobody can read: lines count when the file still has a name after their sync, and is still as
//! long. One that was deleted or replaced begins anew at its path. One that was renamed is written to on, as rotation expects.

use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::file_state::{FileId, FileState};
use super::lines::Output;
use super::recover;
use crate::process::handler::HandlerError;

/// The file that a lane writes its lines to.
pub(super) struct FileSink {
    path: PathBuf,
    id: FileId,
    appender: Appender<File>,
    /// It was logged that the path does not name the file.
    told_away: bool,
}

impl FileSink {
    /// On a file that [`recover`] has opened.
    pub(super) fn new(path: &Path, opened: recover::Opened) -> Self {
        let appender = Appender::new(opened.file, opened.len, opened.newline_first);
        Self { path: path.to_owned(), id: opened.id, appender, told_away: false }
    }

    fn try_write(&mut self, lines: &[u8]) -> Result<(), HandlerError> {
        let failed = |error: io::Error| HandlerError::new(format_args!("writing to {}: {error}", self.path.display()));
        if lines.is_empty() {
            return self.appender.repair().map_err(failed);
        }
        let mut gone = self.appender.disk.is_gone().map_err(failed)?;
        // It may be deleted while it is written.
        for _ in 0..TRIES {
            if gone {
                self.begin_anew()?;
            }
            let failed =
                |error: io::Error| HandlerError::new(format_args!("writing to {}: {error}", self.path.display()));
            self.appender.append(lines).map_err(failed)?;
            gone = self.appender.disk.is_gone().map_err(failed)?;
            if !gone {
                self.check_name();
                return Ok(());
            }
        }
        Err(HandlerError::new(format_args!("writing to {}: it is deleted as soon as it is made", self.path.display())))
    }

    /// What is written to a file without a name is for nobody.
    fn begin_anew(&mut self) -> Result<(), HandlerError> {
        let opened = recover::open_for_append(&self.path).map_err(|error| {
            HandlerError::new(format_args!("{error} (the sink's file was deleted or lost, and must be made anew)"))
        })?;
        *self = Self::new(&self.path, opened);
        tracing::warn!(
            path = %self.path.display(),
            "the sink's file was deleted or replaced, or its file system has ended: lines go to the one that is at its path now"
        );
        Ok(())
    }

    /// Tells when the file was moved away, as rotation does just before SIGHUP.
    fn check_name(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|metadata| FileId::of(&metadata) == self.id) {
            self.told_away = false;
        } else if !std::mem::replace(&mut self.told_away, true) {
            let path = self.path.display();
            match recover::find(recover::directory(&self.path), self.id) {
                Ok(Some(renamed)) => tracing::info!(
                    %path, renamed = %renamed.display(),
                    "the sink's file was renamed: lines go on into it until SIGHUP"
                ),
                _ => tracing::error!(
                    %path,
                    "the sink's file is neither at its path nor in its directory: lines go on into it, wherever it is, until \
                     SIGHUP"
                ),
            }
        }
    }
}

/// How often lines are written again that somebody has taken away just then.
const TRIES: u32 = 3;

impl Output for FileSink {
    fn write(&mut self, lines: &mut Vec<u8>) -> Result<(), HandlerError> {
        self.try_write(lines)?;
        lines.clear();
        Ok(())
    }

    /// Where another file is at the path, it changes over. Nothing unsynced is left in the old one.
    fn reopen(&mut self) -> Result<(), HandlerError> {
        match fs::metadata(&self.path) {
            // One that was deleted may have left its number to the one that is there now.
            Ok(metadata) if FileId::of(&metadata) == self.id && matches!(self.appender.disk.is_gone(), Ok(false)) => {
                Ok(())
            }
            _ => {
                let opened = recover::open_for_append(&self.path)?;
                *self = Self::new(&self.path, opened);
                tracing::info!(path = %self.path.display(), "the sink's file was opened anew");
                Ok(())
            }
        }
    }

    fn state(&self) -> Result<Vec<u8>, HandlerError> {
        FileState::at(self.id, self.appender.len).to_bytes()
    }
}

/// The calls of a file that may fail, so that tests can let them.
trait Disk {
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no name any more.
    fn is_gone(&self) -> io::Result<bool>;
    /// Returns where the bytes end in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<u64>;
    fn sync(&mut self) -> io::Result<()>;
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Disk for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn is_gone(&self) -> io::Result<bool> {
        is_gone(self.metadata().map(|metadata| metadata.nlink()))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.write_all(bytes)?;
        self.stream_position()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// Judges by what the system says of the file: how many names it has.
fn is_gone(names: io::Result<u64>) -> io::Result<bool> {
    match names {
        Ok(names) => Ok(names == 0),
        // Who serves its file system has ended (FUSE) or forgotten the file (NFS): no call will ever reach it again, though what
        // is at its path may be fine.
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOTCONN | Errno::ESTALE) => Ok(true),
            _ => Err(error),
        },
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
        for _ in 0..TRIES {
            match self.try_append(lines) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    // Cut at once, for those who read the file while the disk is full. A failure is met again by the next call.
                    drop(self.repair());
                    return Err(error);
                }
            }
        }
        Err(io::Error::other("somebody cuts it while it is written"))
    }

    /// Returns whether the lines are still there after their sync.
    fn try_append(&mut self, lines: &[u8]) -> io::Result<bool> {
        let start = self.disk.len()?;
        if start < self.len {
            let before = self.len;
            tracing::warn!(
                before,
                now = start,
                "somebody has cut the sink's file: what was in it is for who has copied it"
            );
        }
        let newline: &[u8] = if self.newline_first { b"\n" } else { b"" };
        self.torn = Some(start..start + (newline.len() + lines.len()) as u64);
        if self.newline_first {
            self.disk.append(newline)?;
        }
        let end = self.disk.append(lines)?;
        self.disk.sync()?;
        self.torn = None;
        self.newline_first = false;
        // Not `start` plus our bytes: who rotates by copying may have cut the file meanwhile.
        self.len = self.disk.len()?;
        Ok(end <= self.len)
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
mod tests;
