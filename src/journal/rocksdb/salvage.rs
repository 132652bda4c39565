//! Goes on without what is damaged, when an operator has decided so.
//!
//! Everything good is copied into a new database, which then takes the place of the damaged one; that is set aside as it
//! is. So the evidence survives, a second attempt can do better, and whatever was wrong with the old files cannot trouble
//! the new ones.

use std::time::{SystemTime, UNIX_EPOCH};

use rocksdb::WriteBatch;

use crate::journal::database::{DEAD, Database as _, JOURNAL, META, Sidecar as _, block_key};
use crate::journal::directory::DataDir;
use crate::journal::error::{Damage, DamageKind, DamagePlace, OpenError};
use crate::journal::meta::{CHECKPOINT_KEY, COUNTER_KEY, CheckpointState, Loss, encode_counter_limit, loss_key};
use crate::journal::recovery::{Directory, Format, Reading, Scan, Tail, Visit, Witness, survey};
use crate::journal::rocksdb::database::Store;
use crate::journal::rocksdb::settings::{LogReading, RocksOptions};
use crate::model::Offset;

/// Offsets that are left unused above everything that may have been given out. Entries that were lost may have been
/// processed, and sinks know records by their offsets: one that came twice would be taken for a repetition. The witness is
/// a second old at worst; no journal writes so many entries in a second.
const OFFSETS_SKIPPED: u64 = 1 << 32;
/// The copy is written in batches of about this many bytes.
const BATCH_BYTES: usize = 8 << 20;

/// Makes the database of a new data directory.
///
/// On error there is none; the next start begins again.
pub(in crate::journal) fn create(dir: &DataDir, options: &RocksOptions) -> Result<(), OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::storage("making a new database", error);
    let path = dir.new_database().map_err(|error| failed(&error))?;
    let new = Store::create(&path, options).map_err(|error| failed(&error))?;
    let mut batch = WriteBatch::default();
    new.put(&mut batch, META, CHECKPOINT_KEY, &CheckpointState::default().encode(), &mut Vec::new());
    new.write(batch).map_err(|error| failed(&error))?;
    drop(new);
    // Before the database is in its place: there a database without witness is a damaged one.
    dir.write_witness(Witness::NotInService).and_then(|()| dir.adopt_new_database("")).map_err(|error| failed(&error))
}

/// Makes the directory's database anew from what is good in it (nothing, when it cannot be opened at all). `findings` is
/// what a survey has found; returns what is given up, which is often less: here good records behind bad ones count too.
///
/// On error the damaged database is as it was, beside an unfinished copy that counts for nothing.
pub(in crate::journal) fn salvage(
    dir: &mut DataDir,
    findings: Vec<Damage>,
    options: &RocksOptions,
) -> Result<Vec<Damage>, OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::storage("copying what is good to a new database", error);
    let path = dir.new_database().map_err(|error| failed(&error))?;
    let new = Store::create(&path, options).map_err(|error| failed(&error))?;
    let mut copy = Copy { to: &new, batch: WriteBatch::default(), scratch: Vec::new(), error: None };
    let mut given_up = findings;
    let found = match open_damaged(dir, options) {
        Ok(damaged) => {
            let of_records = |damage: &Damage| !matches!(damage.place, DamagePlace::File(_) | DamagePlace::Database);
            given_up.retain(|damage| !of_records(damage));
            // RocksDB has delivered all that is good in the log.
            let (witness, tail) = (dir.witness(), Ok(Tail::Clean));
            let directory =
                Directory { format: Format::Known, witness, database: Ok(Some(&damaged)), tail, reading: Reading::ALL };
            let found = survey(&directory, &mut |visit| copy.take(visit));
            given_up.extend(found.damage.into_iter().filter(of_records));
            found.scan
        }
        Err(damage) => {
            given_up.push(damage);
            Scan { witness: dir.witness().ok().flatten().map(Witness::end), ..Scan::default() }
        }
    };
    dir.remove_repaired().map_err(|error| failed(&error))?;
    copy.flush();
    if let Some(error) = copy.error {
        return Err(failed(&error));
    }
    let accepted = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let next =
        found.claims().into_iter().fold(found.end, |end, (_, _, claimed)| end.max(claimed)).plus(OFFSETS_SKIPPED);
    let batch = closing_batch(&new, &found, next, &given_up, u64::try_from(accepted.as_micros()).unwrap_or(u64::MAX));
    new.write(batch).map_err(|error| failed(&error))?;
    drop(new);
    let mut adopt = || {
        // First: the new database is of this format, and an earlier version must not take it for a damaged one of its own.
        dir.mark()?;
        // How many changes the new database holds is known when it is opened.
        dir.write_witness(Witness::Durable { end: next, changes: 0 })?;
        dir.adopt_new_database(&accepted.as_secs().to_string())
    };
    adopt().map_err(|error| failed(&error))?;
    Ok(given_up)
}

/// The damaged database, read as far as it can be; or a repaired copy of it, when it cannot be opened as it is.
fn open_damaged(dir: &DataDir, options: &RocksOptions) -> Result<Store, Damage> {
    if dir.database().exists()
        && let Ok(store) = Store::open_read_only(&dir.database(), LogReading::AllGood)
    {
        return Ok(store);
    }
    let beyond = |error: &dyn std::fmt::Display| {
        let kind = DamageKind::DatabaseUnreadable;
        Damage::new(kind, DamagePlace::Database, format!("it cannot be repaired, nothing of it is kept: {error}"))
    };
    let copy = dir.copy_to_repair().map_err(|error| beyond(&error))?;
    Store::repair(&copy, options).map_err(|error| beyond(&error))
}

/// Checkpoint and losses: what makes the copy a journal.
fn closing_batch(new: &Store, found: &Scan, next: Offset, given_up: &[Damage], accepted_unix_us: u64) -> WriteBatch {
    let mut batch = WriteBatch::default();
    // Without a block to begin at, everything begins at the next offset.
    let low = if found.blocks == 0 { next } else { found.low };
    let state = CheckpointState {
        at: found.checkpoint_at.max(low),
        low,
        low_previous_checksum: found.low_previous_checksum,
        lanes: found.lanes.clone(),
        former: found.former.clone(),
        sinks: found.sinks.clone(),
    };
    new.put(&mut batch, META, CHECKPOINT_KEY, &state.encode(), &mut Vec::new());

    let losses = given_up.iter().map(|damage| {
        let entries = match damage.place {
            DamagePlace::Entries { from, to: Some(to) } if to <= found.end => Some((from, to)),
            _ => None,
        };
        Loss { entries, accepted_unix_us, what: damage.to_string() }
    });
    let skipped = Loss {
        entries: (found.blocks > 0).then_some((found.end, next)),
        accepted_unix_us,
        what: format!("no entry has an offset from {} up to {next}: some may have been in use", found.end),
    };
    for (number, loss) in (0..).zip(found.losses.iter().cloned().chain(losses).chain([skipped])) {
        new.put(&mut batch, META, &loss_key(number), &loss.encode(number), &mut Vec::new());
    }
    batch
}

/// Writes what a scan visits to another database.
struct Copy<'a> {
    to: &'a Store,
    batch: WriteBatch,
    scratch: Vec<u8>,
    error: Option<rocksdb::Error>,
}

impl Copy<'_> {
    fn take(&mut self, visit: Visit<'_>) {
        let mut put = |family: &'static str, key: &[u8], value: &[u8]| {
            self.to.put(&mut self.batch, family, key, value, &mut self.scratch);
        };
        match visit {
            Visit::Session(session) => {
                let (key, value) = session.encode();
                put(META, &key, &value);
            }
            Visit::Client(client) => {
                let (key, value) = client.encode();
                put(META, &key, &value);
            }
            Visit::Ask(ask) => {
                let (key, value) = ask.encode();
                put(META, &key, &value);
            }
            Visit::Answers(answers) => {
                let (key, value) = answers.encode();
                put(META, &key, &value);
            }
            Visit::Recent(recent) => {
                let (key, value) = recent.encode();
                put(META, &key, &value);
            }
            Visit::CounterLimit(limit) => put(META, COUNTER_KEY, &encode_counter_limit(limit)),
            Visit::Block { block, .. } => put(JOURNAL, &block_key(block.first()), block.bytes()),
            Visit::Dead(letter) => put(DEAD, &letter.id.key(), &letter.encode()),
        }
        if self.batch.size_in_bytes() >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if self.error.is_none() {
            self.error = self.to.write(batch).err();
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // runs of entries, of which some tests commit one
mod tests;
