//! The open database on a simulated disk.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use super::disk::{Disk, State, StoredWitness, Values};
use super::{Change, Family, SimulatedDisk, Write, lock};
use crate::journal::StorageError;
use crate::journal::database::{Cursor, Database, Sidecar};
use crate::journal::mask::{mask_into, unmask};
use crate::journal::recovery::Witness;
use crate::model::Offset;

/// What is said of a table that cannot be read.
const DAMAGED: &str = "the table is damaged here";

/// Why a write has failed.
#[derive(Debug)]
pub struct SimulatedError(pub(in crate::journal) &'static str);

impl fmt::Display for SimulatedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The directory around the database.
pub struct Directory {
    pub(in crate::journal) disk: SimulatedDisk,
    pub(in crate::journal) process: u64,
}

impl Sidecar for Directory {
    fn write_witness(&self, witness: Witness) -> io::Result<()> {
        let apply = |disk: &mut Disk, durable, _| {
            if durable {
                disk.witness = Some(StoredWitness::Good(witness));
            }
        };
        self.disk
            .decided(self.process, Write::Witness(witness), apply)
            .map_err(|error| io::Error::other(error.to_string()))
    }

    fn free_bytes(&self) -> Result<u64, StorageError> {
        Ok(lock(&self.disk.machine).free_bytes)
    }
}

/// Changes that are applied together.
pub struct Batch {
    /// So many changes were known to be synced when it was made.
    synced: u64,
    changes: Vec<Change>,
}

/// One process of the simulation has the database open through this.
pub struct SimulatedStore {
    pub(in crate::journal) disk: SimulatedDisk,
    pub(in crate::journal) process: u64,
    pub(in crate::journal) state: Mutex<State>,
}

impl Database for SimulatedStore {
    type Batch = Batch;
    type Error = SimulatedError;
    type Cursor<'a> = SimulatedCursor<'a>;
    type Sidecar = Directory;

    fn is_damage(error: &SimulatedError) -> bool {
        error.0 == DAMAGED
    }

    fn batch(&self, _: usize, synced: u64) -> Batch {
        Batch { synced, changes: Vec::new() }
    }

    fn put(&self, batch: &mut Batch, family: &'static str, key: &[u8], value: &[u8], scratch: &mut Vec<u8>) {
        mask_into(scratch, value, self.disk.mask());
        batch.changes.push(Change::Put {
            family: Family::named(family),
            key: key.to_vec(),
            value: value.to_vec(),
            stored: scratch[..].into(),
        });
    }

    fn delete(&self, batch: &mut Batch, family: &'static str, key: &[u8]) {
        batch.changes.push(Change::Delete { family: Family::named(family), key: key.to_vec() });
    }

    fn delete_range(&self, batch: &mut Batch, family: &'static str, from: &[u8], to: &[u8]) {
        let family = Family::named(family);
        batch.changes.push(Change::DeleteRange { family, from: from.to_vec(), to: to.to_vec() });
    }

    fn write(&self, batch: Batch) -> Result<(), SimulatedError> {
        self.apply(&batch, Write::Batch(&batch.changes))
    }

    fn write_ahead(&self, batch: Batch) -> Result<(), SimulatedError> {
        self.apply(&batch, Write::Ahead(&batch.changes))
    }

    fn sync(&self) -> Result<(), SimulatedError> {
        self.disk.decided(self.process, Write::Sync, |_, _, _| {})?;
        self.flush_if_due();
        Ok(())
    }

    fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, SimulatedError> {
        let family = Family::named(family);
        self.check(family, key)?;
        Ok(lock(&self.state).families[family as usize].get(key).map(|stored| unmask(stored)))
    }

    fn iterate(&self, family: &'static str, from: &[u8], to: &[u8]) -> SimulatedCursor<'_> {
        let family = Family::named(family);
        SimulatedCursor { store: self, family, from: from.to_vec(), to: to.to_vec(), at: None, failed: false }
    }

    fn sequence(&self) -> u64 {
        lock(&self.state).sequence
    }

    fn files_of(&self, _: &'static str, _: &[u8]) -> Vec<String> {
        Vec::new()
    }

    fn delete_files_below(&self, _: Offset) -> Result<(), SimulatedError> {
        Ok(())
    }

    fn unix_us(&self) -> u64 {
        lock(&self.disk.machine).unix_us
    }
}

impl SimulatedStore {
    fn apply(&self, batch: &Batch, write: Write<'_>) -> Result<(), SimulatedError> {
        let sequence = lock(&self.state).sequence;
        self.disk.decided(self.process, write, |disk, _, part| {
            disk.append(sequence, batch.synced, &batch.changes, part);
        })?;
        batch.changes.iter().for_each(|change| lock(&self.state).apply(change));
        self.flush_if_due();
        Ok(())
    }

    fn flush_if_due(&self) {
        let mut disk = lock(&self.disk.disk);
        if disk.is_flush_due() {
            disk.settle(lock(&self.state).clone());
        }
    }

    fn check(&self, family: Family, key: &[u8]) -> Result<(), SimulatedError> {
        let disk = lock(&self.disk.disk);
        let unreadable = !disk.unreadable.is_empty() && disk.unreadable.contains(&(family, key.to_vec()));
        if unreadable { Err(SimulatedError(DAMAGED)) } else { Ok(()) }
    }
}

/// A place in a [`SimulatedStore`].
pub struct SimulatedCursor<'a> {
    store: &'a SimulatedStore,
    family: Family,
    from: Vec<u8>,
    to: Vec<u8>,
    at: Option<(Vec<u8>, Arc<[u8]>)>,
    failed: bool,
}

impl SimulatedCursor<'_> {
    fn go(&mut self, find: impl FnOnce(&Values, &Self) -> Option<(Vec<u8>, Arc<[u8]>)>) {
        let found = find(&lock(&self.store.state).families[self.family as usize], self);
        self.failed = found.as_ref().is_some_and(|(key, _)| self.store.check(self.family, key).is_err());
        self.at = found.filter(|_| !self.failed);
    }
}

fn owned((key, value): (&Vec<u8>, &Arc<[u8]>)) -> (Vec<u8>, Arc<[u8]>) {
    (key.clone(), value.clone())
}

impl Cursor for SimulatedCursor<'_> {
    type Error = SimulatedError;

    fn seek(&mut self, key: &[u8]) {
        let from = key.max(&self.from).to_vec();
        self.go(|values, cursor| values.range(from..).next().filter(|(key, _)| **key < cursor.to).map(owned));
    }

    fn seek_for_prev(&mut self, key: &[u8]) {
        let key = key.to_vec();
        let before = |values: &Values, cursor: &Self| {
            let mut below = values.range(..=key).rev().skip_while(|(key, _)| **key >= cursor.to);
            below.next().filter(|(key, _)| **key >= cursor.from).map(owned)
        };
        self.go(before);
    }

    fn seek_to_first(&mut self) {
        self.seek(&self.from.clone());
    }

    fn next(&mut self) {
        let Some((mut key, _)) = self.at.take() else { return };
        key.push(0);
        self.seek(&key);
    }

    fn valid(&self) -> bool {
        self.at.is_some()
    }

    fn item(&self) -> Option<(&[u8], &[u8])> {
        self.at.as_ref().map(|(key, value)| (&key[..], &value[..]))
    }

    fn status(&self) -> Result<(), SimulatedError> {
        if self.failed { Err(SimulatedError(DAMAGED)) } else { Ok(()) }
    }
}
