//! Whether the files of an open database are where RocksDB has put them.
//!
//! RocksDB goes on with what it holds open, whatever becomes of the names: it would sync a log that no start will find. So a
//! look at the names follows it, beside the commits. RocksDB itself deletes and renames what it needs no more, at any time;
//! hence whatever is missing must still be needed when RocksDB is asked again after it was missed. File numbers are never used
//! twice, so what is needed then was needed all the time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::journal::directory::watch::{self, CHANGED, GONE, REPLACED, is_gone};
use crate::journal::rocksdb::preallocate::logs;

const CURRENT: &str = "CURRENT";
const LOCK: &str = "LOCK";
const MANIFEST: &str = "MANIFEST-";
/// What is reported of a file that has become shorter.
const CUT: &str = "was cut short";

/// What RocksDB says of itself.
pub(in crate::journal) trait Needs {
    /// The number of the first write-ahead log that a start needs.
    fn first_log(&self) -> Option<u64>;
    /// Name and length of each table file that a start needs.
    fn tables(&self) -> Option<Vec<(String, u64)>>;
}

/// What was there at the last look.
pub(in crate::journal) struct DatabaseWatch {
    path: PathBuf,
    root: File,
    /// RocksDB holds this file open as long as it runs.
    lock: FileId,
    manifest: Option<(String, FileId, u64)>,
    /// Those that are needed, by their numbers.
    logs: BTreeMap<u64, Log>,
    /// By their names. What was replaced is another file of another time; one of these alone may be the file system's whim.
    tables: HashMap<String, (FileId, Option<SystemTime>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileId(u64, u64);

/// A write-ahead log as it was seen.
#[derive(Clone, Copy)]
struct Log {
    id: FileId,
    len: u64,
    modified: Option<SystemTime>,
}

impl Log {
    fn of(metadata: &Metadata) -> Self {
        Self { id: FileId::of(metadata), len: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

impl DatabaseWatch {
    /// Begins to watch a database that was just opened for writing.
    pub(in crate::journal) fn start(path: &Path) -> io::Result<Self> {
        Ok(Self {
            root: File::open(path)?,
            lock: FileId::of(&fs::metadata(path.join(LOCK))?),
            path: path.into(),
            manifest: None,
            logs: BTreeMap::new(),
            tables: HashMap::new(),
        })
    }

    /// What is missing, with what has become of it. What was missed is missed again when it is asked for again, unless it is
    /// there again.
    pub(in crate::journal) fn lost(&mut self, needs: &impl Needs, tables: bool) -> Option<String> {
        if let Some(what) = watch::lost(&self.root, &self.path) {
            return Some(format!("the database {} {what}", self.path.display()));
        }
        let lost = self.lost_lock().or_else(|| self.lost_manifest()).or_else(|| self.lost_log(needs));
        let lost = if tables { lost.or_else(|| self.lost_table(needs)) } else { lost };
        lost.map(|(name, what)| format!("`{name}` in {} {what}", self.path.display()))
    }

    fn lost_lock(&self) -> Lost {
        match fs::metadata(self.path.join(LOCK)) {
            Ok(there) if FileId::of(&there) == self.lock => None,
            Ok(_) => lost(LOCK, REPLACED),
            Err(error) => is_gone(&error).then(|| (LOCK.into(), GONE)),
        }
    }

    fn lost_manifest(&mut self) -> Lost {
        let current = || fs::read_to_string(self.path.join(CURRENT));
        let name = match current() {
            Ok(text) => match text.trim_end() {
                name if name.starts_with(MANIFEST) => name.to_owned(),
                _ => return lost(CURRENT, CHANGED),
            },
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return lost(CURRENT, CHANGED),
            Err(error) => return is_gone(&error).then(|| (CURRENT.into(), GONE)),
        };
        let known = self.manifest.as_ref();
        // RocksDB only goes on to higher numbers, all of one length here.
        if known.is_some_and(|(before, ..)| (name.len(), &name) < (before.len(), before)) {
            return lost(CURRENT, CHANGED);
        }
        let what = match fs::metadata(self.path.join(&name)) {
            Ok(there) => {
                let (id, len) = (FileId::of(&there), there.len());
                let what = known.filter(|(before, ..)| *before == name).and_then(|(_, id_before, len_before)| {
                    if *id_before != id { Some(REPLACED) } else { (len < *len_before).then_some(CUT) }
                });
                if what.is_none() {
                    self.manifest = Some((name, id, len));
                    return None;
                }
                what
            }
            Err(error) => is_gone(&error).then_some(GONE),
        }?;
        // Or RocksDB has begun another one meanwhile.
        let still = current().is_ok_and(|text| text.trim_end() == name);
        still.then_some((name, what))
    }

    fn lost_log(&mut self, needs: &impl Needs) -> Lost {
        let mut named: BTreeMap<u64, String> = logs(&self.path).ok()?.into_iter().collect();
        let first = needs.first_log()?;
        // A listing may miss what is there while others are renamed.
        named.extend(self.logs.keys().map(|&number| (number, log_name(number))));
        let mut there = BTreeMap::new();
        for (&number, name) in named.range(first..) {
            match fs::metadata(self.path.join(name)) {
                Ok(metadata) => drop(there.insert(number, Log::of(&metadata))),
                Err(error) if is_gone(&error) => {}
                // It cannot be told: as it was.
                Err(_) => there.extend(self.logs.get(&number).map(|&log| (number, log))),
            }
        }
        let last = there.keys().chain(self.logs.keys()).max().copied();
        // Some may not be needed any more by now. They are no loss, and must not hide one behind them.
        let first = needs.first_log()?;
        let found = self.logs.range(first..).find_map(|(&number, before)| {
            let is_last = Some(number) == last;
            match there.get(&number) {
                None => Some((number, GONE)),
                // RocksDB holds the last one open. Of the others an inode's number may be the file system's whim.
                Some(now) if now.id != before.id && (is_last || now.modified != before.modified) => {
                    Some((number, REPLACED))
                }
                // A log that is closed is cut to what it holds.
                Some(now) if is_last && now.len < before.len => Some((number, CUT)),
                Some(_) => None,
            }
        });
        match found {
            Some((number, what)) if self.is_last(number, what) => Some((log_name(number), what)),
            _ => {
                self.logs = there;
                None
            }
        }
    }

    /// Whether a log that seems to have been cut is the one that is written still.
    fn is_last(&self, number: u64, what: &str) -> bool {
        what != CUT || logs(&self.path).is_ok_and(|logs| logs.last().is_some_and(|&(last, _)| last == number))
    }

    fn lost_table(&mut self, needs: &impl Needs) -> Lost {
        let tables = needs.tables()?;
        let mut found = Vec::new();
        for (name, bytes) in &tables {
            let name = name.trim_start_matches('/');
            match fs::metadata(self.path.join(name)) {
                Ok(there) => {
                    let (id, modified) = (FileId::of(&there), there.modified().ok());
                    let known = self.tables.entry(name.into()).or_insert((id, modified));
                    if there.len() != *bytes {
                        found.push((name.to_owned(), if there.len() < *bytes { CUT } else { CHANGED }));
                    } else if known.0 != id && known.1 != modified {
                        found.push((name.to_owned(), REPLACED));
                    }
                }
                Err(error) if is_gone(&error) => found.push((name.to_owned(), GONE)),
                Err(_) => {}
            }
        }
        let named = |tables: &[(String, u64)]| -> HashSet<String> {
            tables.iter().map(|(name, _)| name.trim_start_matches('/').to_owned()).collect()
        };
        let live = named(&tables);
        self.tables.retain(|name, _| live.contains(name));
        if found.is_empty() {
            return None;
        }
        let still = named(&needs.tables()?);
        found.into_iter().find(|(name, _)| still.contains(name))
    }
}

fn log_name(number: u64) -> String {
    format!("{number:06}.log")
}

/// The name of a file, and what has become of it.
type Lost = Option<(String, &'static str)>;

fn lost(name: &str, what: &'static str) -> Lost {
    Some((name.into(), what))
}

#[cfg(test)]
mod tests;
