//! Lays a write-ahead log out: gives it blocks that are written before the first commit needs one.
//!
//! A write that only replaces what a file holds leaves the file's inode and extents as they are, so syncing it is the
//! data and no more. RocksDB gets there by recycling its logs, but begins with two new ones, which last for long where
//! little is sent. Here the first is filled before the journal is handed to its writer, while RocksDB stands at its start.
//!
//! The logs after it are new, each until it has been filled once. Under load that is soon; where little is sent [`LogWatch`]
//! tells when to leave such a log for one that was filled.
//!
//! What is filled in reads as the leftover of another log: a run of bytes each of which RocksDB takes for the type of a
//! recycled fragment, with a log number that is not in use. So a reader stops where the log's records end, as it does in
//! a recycled log; zeros it would skip. Nothing is acked before this is done, and a crash on the way leaves a log without
//! records, in part filled. RocksDB cuts off what is left of it when it closes the log.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::mem;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A log that grows by more than this between two looks is full soon enough.
const SLOW_BYTES: u64 = 2 << 20;
/// Every byte of the filling. As a fragment's header it says: type 5, log 0x05050505.
pub(in crate::journal) const FILL: u8 = 5;
const NO_ROOM: [ErrorKind; 3] = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
/// One write fills so many bytes.
const STEP_BYTES: u64 = 1 << 20;

/// Number and name of each write-ahead log in the database at `path`, in their order.
pub(in crate::journal) fn logs(path: &Path) -> io::Result<Vec<(u64, String)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let number = name.strip_suffix(".log").and_then(|number| number.parse().ok());
        logs.extend(number.map(|number| (number, name)));
    }
    logs.sort();
    Ok(logs)
}

/// Fills a log from its end up to `bytes`, and syncs it. Where the file system has no room for it, or the user may not take
/// so much, the log stays as it was: it is only slower.
///
/// Nobody may write to the log meanwhile.
pub(in crate::journal) fn preallocate(log: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(log)?;
    let start = file.metadata()?.len();
    let fill = vec![FILL; usize::try_from(STEP_BYTES.min(bytes)).unwrap_or_default()];
    let mut at = start;
    while at < bytes {
        let step = &fill[..usize::try_from(bytes - at).map_or(fill.len(), |left| left.min(fill.len()))];
        match file.write_all_at(step, at) {
            Ok(()) => at += step.len() as u64,
            Err(error) if NO_ROOM.contains(&error.kind()) => return file.set_len(start),
            Err(error) => return Err(error),
        }
    }
    file.sync_data()
}

/// Looks at the logs several times a second.
#[derive(Debug, Default)]
pub(in crate::journal) struct LogWatch {
    /// Number and length in bytes, at the last look, of the log that is written.
    last: (u64, u64),
}

impl LogWatch {
    /// Whether the log that is written grows slowly while a longer one waits to be written again.
    pub(in crate::journal) fn is_switch_due(&mut self, path: &Path) -> io::Result<bool> {
        let Some(log) = written_log(path)? else { return Ok(false) };
        let before = mem::replace(&mut self.last, (log.number, log.bytes));
        let grows_slowly = before.0 == log.number && before.1 < log.bytes && log.bytes - before.1 <= SLOW_BYTES;
        Ok(grows_slowly && log.longer_waits)
    }
}

/// How long the file of the log that is written is.
#[derive(Debug, Default)]
pub(in crate::journal) struct LogExtent {
    log: Option<PathBuf>,
    bytes: u64,
    /// At the last look. Other numbers: another log may have been begun.
    begun: [u64; 3],
}

impl LogExtent {
    /// Whether the file has not grown since the last look, at which the same log was written. No log was begun between two looks with
    /// the same numbers.
    pub(in crate::journal) fn has_stayed(&mut self, path: &Path, begun: [u64; 3]) -> bool {
        let is_new = self.log.is_none() || begun != self.begun;
        self.begun = begun;
        if is_new {
            self.log = logs(path).ok().and_then(|mut logs| logs.pop()).map(|(_, name)| path.join(name));
        }
        let bytes = self.log.as_ref().and_then(|log| fs::metadata(log).ok()).map(|log| log.len());
        let before = mem::replace(&mut self.bytes, bytes.unwrap_or_default());
        if bytes.is_none() {
            self.log = None;
        }
        !is_new && bytes == Some(before)
    }
}

/// The log that is written.
pub(in crate::journal) struct WrittenLog {
    number: u64,
    /// How long its file is, be it filled with records or not.
    bytes: u64,
    /// Whether a longer one waits to be written again.
    pub(in crate::journal) longer_waits: bool,
}

/// The log that is written in the database at `path`, if there is any.
pub(in crate::journal) fn written_log(path: &Path) -> io::Result<Option<WrittenLog>> {
    // One that is gone by now has become another.
    let len = |(number, name)| Some((number, fs::metadata(path.join(name)).ok()?.len()));
    let mut logs: Vec<(u64, u64)> = logs(path)?.into_iter().filter_map(len).collect();
    let Some((number, bytes)) = logs.pop() else { return Ok(None) };
    Ok(Some(WrittenLog { number, bytes, longer_waits: logs.iter().any(|&(_, other)| other > bytes) }))
}

#[cfg(test)]
mod tests;
