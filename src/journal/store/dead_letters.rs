//! Dead letters in the database.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use crate::journal::StorageError;
use crate::journal::database::{Cursor as _, DEAD, Database, Sidecar as _};
use crate::journal::dead_letter::{DeadLetterRoom, DeadLetters, LetterCounts, NoRoom, deleting};
use crate::journal::mask::unmask;
use crate::journal::store::Shared;
use crate::model::{DeadLetter, DeadLetterId};

/// Keeps dead letters beside the writer.
pub(in crate::journal) struct StoredDeadLetters<D: Database>(pub(in crate::journal) Arc<Shared<D>>);

impl<D: Database> DeadLetters for StoredDeadLetters<D> {
    fn put_all(&self, letters: &[DeadLetter], room: DeadLetterRoom) -> Result<Result<(), NoRoom>, StorageError> {
        let Some(first) = letters.first() else { return Ok(Ok(())) };
        let mut counts = self.0.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = BTreeSet::new();
        for letter in letters {
            if !self.0.has_letter(letter.id)? {
                new.insert(letter.id);
            }
        }
        // Looked at for each write, and by one lane at a time: what is written before the next look is bounded.
        if let Err(no_room) = room.for_more(counts.total(), new.len() as u64, self.0.dir.free_bytes()?) {
            return Ok(Err(no_room));
        }
        let (mut batch, mut scratch) = (self.0.batch(0), Vec::new());
        for letter in letters {
            self.0.store.put(&mut batch, DEAD, &letter.id.key(), &letter.encode(), &mut scratch);
        }
        let action = || format!("putting {} dead letters from entry {} on", letters.len(), first.id.offset);
        self.0.write(batch, action)?;
        new.into_iter().for_each(|id| counts.add(id));
        Ok(Ok(()))
    }

    fn list(&self, from: DeadLetterId, limit: usize) -> Result<Vec<DeadLetter>, StorageError> {
        let action = || format!("listing dead letters from entry {} on", from.offset);
        let mut records = self.0.store.iterate(DEAD, &from.key(), &DeadLetterId::KEYS_END);
        let mut letters = Vec::new();
        records.seek_to_first();
        while let (Some((key, value)), true) = (records.item(), letters.len() < limit) {
            letters.push(DeadLetter::decode(key, &unmask(value)).map_err(|error| StorageError::new(action(), error))?);
            records.next();
        }
        records.status().map_err(|error| StorageError::new(action(), error))?;
        Ok(letters)
    }

    fn get(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, StorageError> {
        let action = || format!("reading the dead letter of entry {}", id.offset);
        let value = self.0.store.get(DEAD, &id.key()).map_err(|error| StorageError::new(action(), error))?;
        let letter = value.map(|value| DeadLetter::decode(&id.key(), &value)).transpose();
        letter.map_err(|error| StorageError::new(action(), error))
    }

    fn delete_all(&self, ids: &[DeadLetterId]) -> Result<u64, StorageError> {
        let mut counts = self.0.dead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = BTreeSet::new();
        for id in ids {
            if self.get(*id)?.is_some() {
                kept.insert(*id);
            }
        }
        let Some(first) = kept.first().copied() else {
            // What is not there any more may be deleted by a commit that is not synced yet.
            self.0.sync()?;
            return Ok(0);
        };
        let mut batch = self.0.batch(0);
        kept.iter().for_each(|id| self.0.store.delete(&mut batch, DEAD, &id.key()));
        self.0.write(batch, || deleting(kept.len(), first))?;
        let deleted = kept.len() as u64;
        kept.into_iter().for_each(|id| counts.remove(id));
        Ok(deleted)
    }

    fn counts(&self) -> LetterCounts {
        self.0.dead.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
