//! Opening a journal on RocksDB: first it is surveyed, then it is touched.
//!
//! Opening a RocksDB database for writing replays its log, drops in silence what comes after the first bad record, and
//! rewrites the files: the evidence of damage is gone. So the database is opened read-only first and surveyed in full
//! ([`crate::journal::recovery`]), and the files of the log must hold no good record behind the place where RocksDB has stopped
//! ([`crate::journal::rocksdb::write_ahead_log`]). What is done then is the decision table's ([`crate::journal::recovery::decide`]).

use std::path::Path;

use crate::journal::RocksJournal;
use crate::journal::database::{Database as _, Sidecar as _};
use crate::journal::directory::{DIRECTORY_FORMAT, DataDir};
use crate::journal::error::OpenError;
use crate::journal::recovery::{Directory, Format, Outcome, Reading, Survey, Tail, Visit, survey};
use crate::journal::rocksdb::database::{Store, is_of_a_journal};
use crate::journal::rocksdb::salvage::{create, salvage};
use crate::journal::rocksdb::settings::{LogReading, RocksOptions};
use crate::journal::rocksdb::write_ahead_log::tail;
use crate::journal::store::{StoredWriter, opened};
use crate::journal::{Opened, Replay, StorageError};

impl RocksJournal {
    /// Opens the journal in the data directory `path`, or makes a new one; the directory's parent must exist.
    ///
    /// `replay` gets the sessions of the last checkpoint and then the blocks from there on. What it has seen counts only
    /// when this succeeds.
    ///
    /// # Errors
    /// [`OpenError`] says what stands in the way, and whether anything was changed.
    pub fn open(
        path: &Path,
        options: &RocksOptions,
        replay: &mut dyn FnMut(Replay<'_>),
    ) -> Result<Opened<Self>, OpenError> {
        let mut dir = DataDir::claim(path, is_of_a_journal)?;
        dir.mend_modes();
        dir.finish_adoption().map_err(|error| OpenError::storage("finishing an interrupted salvage", error))?;
        let mut given_up = Vec::new();
        if options.accept_loss {
            let found = examine(&dir, Reading::ALL, &mut |_| {});
            if let Outcome::Refuse(_) = found.outcome() {
                mark_anew(&dir)?;
                given_up = salvage(&mut dir, found.damage, options)?;
            }
        }
        let mut visit = |visit: Visit<'_>| {
            if let Some(told) = visit.replay() {
                replay(told);
            }
        };
        let reading = Reading { newest_bytes: options.start_read_bytes, progress: Some(&options.progress) };
        let mut found = examine(&dir, reading, &mut visit);
        if found.outcome() == Outcome::Create {
            mark_anew(&dir)?;
            create(&dir, options)?;
            found = examine(&dir, reading, &mut visit);
        }
        let outcome = found.outcome();
        let Some(found) = sound(&dir, found)? else {
            return Err(OpenError::storage("making a new database", "it is not there"));
        };
        if let (Outcome::DropTorn, Some(torn)) = (outcome, &found.torn) {
            tracing::info!(
                end = %found.scan.end, whole = torn.whole,
                "the last writes were torn by a crash before any of them was acked: they are dropped",
            );
        }

        let scan = found.scan;
        if scan.unread_below > scan.low {
            tracing::info!(
                from = %scan.low, to = %scan.unread_below,
                "a long backlog: its older entries are verified when they are read",
            );
        }
        mark_anew(&dir)?;
        let begun = dir.begin_instance();
        let (id, instance) = begun.map_err(|error| OpenError::storage("counting the journal's start", error))?;
        tracing::info!(journal = %id, %instance, "opening the journal");
        let store = Store::open(&dir.database(), options)?;
        if store.sequence() != scan.changes {
            let problem = format!("it held {} changes when it was verified, now {}", scan.changes, store.sequence());
            return Err(OpenError::storage("opening the database for writing", problem));
        }
        let free_bytes = dir.free_bytes().unwrap_or_else(|error| {
            tracing::warn!(%error, "free space cannot be read: the write-ahead log is preallocated in the hope that there is some");
            u64::MAX
        });
        store.preallocate_log(options, free_bytes)?;
        let start = || {
            let mut journal = RocksJournal::new(StoredWriter::new(store, dir, &scan));
            journal.start_housekeeping(options.witness_interval)?;
            Ok(journal)
        };
        let journal = start().map_err(|error: StorageError| OpenError::storage(error.action, error.cause))?;
        let shared = journal.shared();
        Ok(opened(journal, &shared, scan, given_up))
    }
}

/// Before anything is written that an earlier version would not understand.
fn mark_anew(dir: &DataDir) -> Result<(), OpenError> {
    dir.mark_anew().map_err(|error| OpenError::storage("marking the directory's format", error))
}

/// Surveys everything in the directory, but for older blocks as `reading` says, and changes nothing. `visit` is given everything
/// good.
pub(in crate::journal) fn examine(dir: &DataDir, reading: Reading<'_>, visit: &mut dyn FnMut(Visit<'_>)) -> Survey {
    let opened = match dir.format() {
        // Nothing is known of what is in there.
        Format::Older(_) | Format::Newer(_) => None,
        Format::Known | Format::Unreadable if !dir.database().exists() => None,
        Format::Known | Format::Unreadable => Some(Store::open_read_only(&dir.database(), LogReading::ToFirstBad)),
    };
    let opened = opened.transpose();
    let tail = match &opened {
        Ok(Some(store)) => match Store::changes_in_tables(store.path(), dir.path()) {
            Ok(in_tables) => tail(store.path(), store.first_log(), in_tables, store.sequence())
                .map_err(|error| format!("its log cannot be read: {error}")),
            Err(error) => Err(error.to_string()),
        },
        _ => Ok(Tail::Clean),
    };
    let database = opened.as_ref().map(Option::as_ref).map_err(Clone::clone);
    survey(&Directory { format: dir.format(), witness: dir.witness(), database, tail, reading }, visit)
}

/// What was found, if it is good; `None` when there is no journal yet.
///
/// # Errors
/// What the decision table says that stands in the way.
pub(in crate::journal) fn sound(dir: &DataDir, found: Survey) -> Result<Option<Survey>, OpenError> {
    match found.outcome() {
        Outcome::GoOn | Outcome::DropTorn => Ok(Some(found)),
        Outcome::Create => Ok(None),
        Outcome::NewerFormat => Err(newer_format(dir)),
        Outcome::Refuse(kind) => Err(OpenError::Damaged(found.finding(kind))),
    }
}

fn newer_format(dir: &DataDir) -> OpenError {
    let found = if let Format::Newer(found) = dir.format() { found } else { DIRECTORY_FORMAT };
    OpenError::NewerFormat { path: dir.path().into(), found, known: DIRECTORY_FORMAT }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // runs of entries, of which some tests commit one
pub(in crate::journal) mod tests;

#[cfg(test)]
mod former;

#[cfg(test)]
mod refusals;

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // runs of entries, of which some tests commit one
mod sinks;

#[cfg(test)]
mod later;
