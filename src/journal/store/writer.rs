//! Writing commits, one after another, each in one batch; and trimming.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::journal::block::Place;
use crate::journal::database::{Cursor as _, DEAD, Database, JOURNAL, META, block_key};
use crate::journal::meta::{
    CHECKPOINT_KEY, COUNTER_KEY, CheckpointState, answers_key, ask_key, encode_counter_limit, session_key,
};
use crate::journal::recovery::Scan;
use crate::journal::store::Shared;
use crate::journal::store::log::Synced;
use crate::journal::store::reader::parse;
use crate::journal::{Block, BlockBuilder, Checkpoint, Commit, Durable, Landed, Records, StorageError};
use crate::limits::TRIM_PLACES;
use crate::model::{DurabilityLevel, Offset, SessionRecord};

/// Whoever holds it is the only one who writes blocks, records and checkpoints.
pub(in crate::journal) struct StoredWriter<D: Database> {
    shared: Arc<Shared<D>>,
    end: Offset,
    low: Offset,
    low_previous_checksum: u32,
    last_checksum: u32,
    /// Records of answers with a number below are deleted, by this writer.
    answers_low: u64,
    /// It knows where the blocks lie that were committed last.
    places: Places,
    /// For values as they are stored. Bounded by the caller's bound on blocks.
    scratch: Vec<u8>,
}

impl<D: Database> StoredWriter<D> {
    /// Takes over a database that a scan has found good.
    pub(in crate::journal) fn new(store: D, dir: D::Sidecar, scan: &Scan) -> Self {
        Self {
            shared: Arc::new(Shared::new(store, dir, scan)),
            end: scan.end,
            low: scan.low,
            low_previous_checksum: scan.low_previous_checksum,
            last_checksum: scan.last_checksum,
            answers_low: 0,
            places: Places::default(),
            scratch: Vec::new(),
        }
    }

    pub(in crate::journal) fn shared(&self) -> Arc<Shared<D>> {
        self.shared.clone()
    }

    /// Writes a commit and syncs it; then what its checkpoint allows is deleted.
    ///
    /// # Errors
    /// The first one poisons the journal: whether the commit is on the disk is unknown.
    pub(in crate::journal) fn write(&mut self, commit: Commit) -> Result<Landed, StorageError> {
        let shared = self.shared();
        let mut synced = None;
        let written = self.put(commit, |batch, action| {
            let proof = shared.write(batch, action)?;
            synced = Some(proof);
            Ok(proof.changes())
        })?;
        match synced {
            Some(synced) => shared.land(written, synced),
            None => Ok(Landed { receipt: shared.durable(), block: written.block }),
        }
    }

    /// Writes a commit, which a later [`Shared::sync`] makes durable.
    ///
    /// # Errors
    /// As those of [`write`](Self::write).
    pub(in crate::journal) fn write_ahead(&mut self, commit: Commit) -> Result<Written, StorageError> {
        let shared = self.shared();
        self.put(commit, |batch, action| shared.write_ahead(batch, action))
    }

    /// Puts a commit into a batch, and has it written by `write`, which returns the number of changes with it. From then on the next
    /// one follows it.
    fn put(
        &mut self,
        commit: Commit,
        write: impl FnOnce(D::Batch, &dyn Fn() -> String) -> Result<u64, StorageError>,
    ) -> Result<Written, StorageError> {
        self.shared.check()?;
        let Commit { mut block, records, checkpoint } = commit;
        let first = self.end;
        if block.is_empty() && records.is_empty() && checkpoint.is_none() {
            return Ok(Written { built: None, block, end: first, low: self.low, changes: 0 });
        }
        let without_entries = block.is_empty();
        let action = || match without_entries {
            true => format!("checkpoint or records at offset {first}"),
            false => format!("commit of the block at offset {first}"),
        };
        let mut batch = self.shared.batch(block.size() + records.answers_bytes() + 64);
        let mut built = None;
        if !block.is_empty() {
            let place =
                Place { first, previous_checksum: self.last_checksum, committed_unix_us: self.shared.store.unix_us() };
            let block = block.build(place).map_err(|error| self.shared.fail(action(), error))?;
            self.shared.store.put(&mut batch, JOURNAL, &block_key(first), block.bytes(), &mut self.scratch);
            built = Some(block);
        }
        for id in &records.given_up {
            self.shared.store.delete(&mut batch, META, &session_key(*id));
        }
        put_records(&self.shared.store, &mut batch, &records, &mut self.scratch);
        let end = built.as_ref().map_or(first, Block::end);
        let mut low = self.low;
        let mut low_previous_checksum = self.low_previous_checksum;
        let mut answers_low = self.answers_low;
        if let Some(checkpoint) = &checkpoint {
            checkpoint.verify(end).map_err(|problem| self.shared.fail(action(), problem))?;
            (low, low_previous_checksum) =
                self.trimmed(checkpoint.trim_below).map_err(|error| self.shared.fail_with(error))?;
            let store = &self.shared.store;
            put_sessions(store, &mut batch, &checkpoint.sessions, &mut self.scratch);
            for id in &checkpoint.expired {
                store.delete(&mut batch, META, &session_key(*id));
            }
            for id in &checkpoint.retried {
                store.delete(&mut batch, DEAD, &id.key());
            }
            if checkpoint.answers_below > answers_low {
                // One deletion for as many records as there are: one for each would double what an answer costs the database.
                answers_low = checkpoint.answers_below;
                store.delete_range(&mut batch, META, &answers_key(self.answers_low), &answers_key(answers_low));
            }
            let Checkpoint { at, ref lanes, ref former, ref sinks, .. } = *checkpoint;
            let (lanes, former, sinks) = (lanes.clone(), former.clone(), sinks.clone());
            let state = CheckpointState { at, low, low_previous_checksum, lanes, former, sinks };
            store.put(&mut batch, META, CHECKPOINT_KEY, &state.encode(), &mut self.scratch);
            if low > self.low {
                store.delete_range(&mut batch, JOURNAL, &block_key(self.low), &block_key(low));
            }
        }
        // Before it is gone: whoever then misses something below looks here again.
        self.shared.low.store(low.0, Ordering::Release);
        let retried = checkpoint.as_ref().map_or(&[][..], |checkpoint| &checkpoint.retried);
        let changes = self.shared.write_retried(retried, || write(batch, &action))?;
        block.clear();
        if let Some(block) = &built {
            self.places.push(first, self.last_checksum);
            self.end = end;
            self.last_checksum = block.checksum();
        }
        self.low = low;
        self.low_previous_checksum = low_previous_checksum;
        self.answers_low = answers_low;
        Ok(Written { built, block, end, low, changes })
    }

    /// Where the journal would begin if it were trimmed, and the checksum that the first block there repeats.
    fn trimmed(&self, below: Offset) -> Result<(Offset, u32), StorageError> {
        if below >= self.end {
            return Ok((self.end, self.last_checksum));
        }
        if below <= self.low {
            return Ok((self.low, self.low_previous_checksum));
        }
        if let Some(place) = self.places.at_or_before(below) {
            return Ok(place);
        }
        let mut blocks = self.shared.store.iterate(JOURNAL, &block_key(self.low), &block_key(self.end));
        blocks.seek_for_prev(&block_key(below));
        match blocks.item().map(|(key, value)| parse(&self.shared.store, below, key, value)) {
            Some(block) => block.map(|block| (block.first(), block.previous_checksum())),
            None => {
                blocks.status().map_err(|error| StorageError::new("looking for the block to trim at", error))?;
                Ok((self.low, self.low_previous_checksum))
            }
        }
    }
}

/// A commit that is written, and that a sync makes durable.
pub(in crate::journal) struct Written {
    built: Option<Block>,
    /// Empty, and ready for another block.
    block: BlockBuilder,
    /// The journal ends here with it.
    end: Offset,
    /// The journal begins here with it.
    low: Offset,
    /// The database has seen so many changes with it.
    changes: u64,
}

impl<D: Database> Shared<D> {
    /// The receipt of a commit that a sync has covered, which readers may see now.
    ///
    /// # Errors
    /// The sync began before the commit was written, which is a defect of the caller. The journal is poisoned.
    pub(in crate::journal) fn land(&self, written: Written, synced: Synced) -> Result<Landed, StorageError> {
        let Written { built, block, end, low, changes } = written;
        if !synced.covers(changes) {
            return Err(self.fail("landing a commit".into(), "no sync has covered it"));
        }
        self.end.fetch_max(end.0, Ordering::AcqRel);
        self.trimmed.fetch_max(low.0, Ordering::AcqRel);
        let receipt = Durable { block: built.map(Arc::new), end, level: DurabilityLevel::Synced };
        Ok(Landed { receipt, block })
    }
}

/// Where the blocks begin that were committed last, and the checksum that each repeats: what trimming needs to know of
/// the block it stops at, without reading that back.
#[derive(Default)]
struct Places(VecDeque<(Offset, u32)>);

impl Places {
    fn push(&mut self, first: Offset, previous_checksum: u32) {
        if self.0.len() == TRIM_PLACES {
            self.0.pop_front();
        }
        self.0.push_back((first, previous_checksum));
    }

    /// The last block that begins at `offset` or before; `None` when that is older than what is remembered.
    fn at_or_before(&self, offset: Offset) -> Option<(Offset, u32)> {
        let after = self.0.partition_point(|&(first, _)| first <= offset);
        self.0.get(after.checked_sub(1)?).copied()
    }
}

fn put_records<D: Database>(store: &D, batch: &mut D::Batch, records: &Records, scratch: &mut Vec<u8>) {
    put_sessions(store, batch, &records.sessions, scratch);
    for client in &records.clients {
        let (key, value) = client.encode();
        store.put(batch, META, &key, &value, scratch);
    }
    if let Some(limit) = records.counter_limit {
        store.put(batch, META, COUNTER_KEY, &encode_counter_limit(limit), scratch);
    }
    for id in &records.forgotten {
        store.delete(batch, META, &ask_key(*id));
    }
    for ask in &records.asks {
        let (key, value) = ask.encode();
        store.put(batch, META, &key, &value, scratch);
    }
    if let Some(answers) = &records.answers {
        let (key, value) = answers.encode();
        store.put(batch, META, &key, &value, scratch);
    }
}

fn put_sessions<D: Database>(store: &D, batch: &mut D::Batch, sessions: &[SessionRecord], scratch: &mut Vec<u8>) {
    for session in sessions {
        let (key, value) = session.encode();
        store.put(batch, META, &key, &value, scratch);
    }
}
