//! Opening a journal: first look, then touch.
//!
//! Opening a RocksDB database for writing replays its log, drops in silence what comes after the first bad record, and
//! rewrites the files: the evidence of damage is gone. So the database is opened read-only first, and looked at in full:
//!
//! - every record is verified; the blocks must make one chain, and reach as far as the witness, the checkpoint and the lanes
//!   say. The same pass replays sessions and blocks, so a start reads everything once;
//! - the files of the log must hold no good record behind the place where RocksDB has stopped ([`super::rocks_wal`]).
//!
//! | what is found | what happens |
//! |---|---|
//! | no directory, an empty one, an interrupted first start | a new journal |
//! | all is good; at most the very last commit is missing, which was never acked | the journal goes on |
//! | something damaged or missing | [`OpenError::Damaged`], nothing changed |
//! | the same, with `accept_loss` | [`super::rocks_salvage`], and the journal goes on above all offsets in use |
//! | another program's directory, a newer format, a running server | the error says so, nothing changed |

use std::path::Path;
use std::sync::Arc;

use super::database::{Beside as _, Database as _};
use super::error::{Damage, DamagePlace, OpenError};
use super::files::DataDir;
use super::rocks::{Reader, StoredDeadLetters, RocksJournal};
use super::rocks_db::{LogReading, RocksOptions, Store};
use super::rocks_salvage::{create, salvage};
use super::rocks_scan::{Scan, Visit, scan};
use super::rocks_wal::{Dropped, find_dropped};
use super::{Opened, Replay, StorageError};
use crate::types::Offset;

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
        let dir = DataDir::claim(path)?;
        dir.finish_adoption().map_err(|error| OpenError::storage("finishing an interrupted salvage", error))?;
        let mut given_up = Vec::new();
        if options.accept_loss {
            let mut note = |damage| {
                given_up.push(damage);
                Ok(())
            };
            look(&dir, &mut |_| {}, &mut note)?;
            if !given_up.is_empty() {
                given_up = salvage(&dir, given_up, options)?;
            }
        }
        let mut visit = |visit: Visit<'_>| match visit {
            Visit::Session(session) => replay(Replay::Session(session)),
            Visit::Block { block, since_checkpoint: true } => replay(Replay::Block(block)),
            Visit::Block { .. } | Visit::Dead(_) => {}
        };
        let scan = match look(&dir, &mut visit, &mut Err)? {
            Some(scan) => scan,
            None => {
                create(&dir, options)?;
                look(&dir, &mut visit, &mut Err)?.unwrap_or_default()
            }
        };

        let store = Store::open(&dir.database(), options)?;
        if store.sequence() != scan.sequence {
            let problem = format!("it held {} changes when it was verified, now {}", scan.sequence, store.sequence());
            return Err(OpenError::storage("opening the database for writing", problem));
        }
        let free_bytes = dir.free_bytes().map_err(|error| OpenError::storage(error.action, error.cause))?;
        store.lay_out_log(options, free_bytes)?;
        let start = || {
            let (mut journal, kept) = RocksJournal::start(store, dir, &scan)?;
            journal.start_keeper(kept, options.witness_interval)?;
            Ok(journal)
        };
        let journal = start().map_err(|error: StorageError| OpenError::storage(error.action, error.cause))?;
        Ok(Opened {
            reader: Arc::new(Reader(journal.shared())),
            dead: Arc::new(StoredDeadLetters(journal.shared())),
            lanes: scan.checkpoint.lanes,
            checkpoint_at: scan.checkpoint.at,
            low: scan.checkpoint.low,
            end: scan.end,
            extents: scan.extents,
            given_up,
            journal,
        })
    }
}

/// Looks at everything in the directory and changes nothing; `None` when there is no journal yet.
///
/// `visit` is given everything good, `found` everything that is not; it decides whether to go on.
pub(super) fn look(
    dir: &DataDir,
    visit: &mut dyn FnMut(Visit<'_>),
    found: &mut dyn FnMut(Damage) -> Result<(), Damage>,
) -> Result<Option<Scan>, Damage> {
    let witness = dir.witness();
    if !dir.database().exists() {
        let problem = match witness {
            Ok(None | Some(Offset(0))) => return Ok(None),
            Ok(Some(end)) => format!("it is missing, and the witness proves that entries below {end} were durable"),
            Err(damage) => format!("it is missing ({damage})"),
        };
        found(Damage::new(DamagePlace::Database, problem))?;
        return Ok(Some(Scan::default()));
    }
    // A database is never in its place before the first witness.
    let witness = match witness {
        Ok(Some(end)) => Some(end),
        Ok(None) => {
            found(Damage::new(DamagePlace::File("witness"), "it is missing"))?;
            None
        }
        Err(damage) => {
            found(damage)?;
            None
        }
    };
    let store = match Store::open_read_only(&dir.database(), LogReading::ToFirstBad) {
        Ok(store) => store,
        Err(damage) => {
            found(damage)?;
            return Ok(Some(Scan { witness, ..Scan::default() }));
        }
    };
    // First, since it explains what else is missing.
    match find_dropped(&dir.database(), store.sequence()) {
        Ok(None) => {}
        Ok(Some(Dropped { file, at })) => {
            let problem = format!("its write-ahead log is damaged before byte {at}, where a later write is whole");
            found(Damage::new(DamagePlace::Database, problem).in_files(vec![format!("rocksdb/{file}")]))?;
        }
        Err(error) => found(Damage::new(DamagePlace::Database, error).in_files(store.logs()))?,
    }
    scan(&store, witness, visit, found).map(Some)
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
#[allow(clippy::single_range_in_vec_init)] // runs of entries, of which some tests commit one
mod tests;
