//! Looks at every record of a database once: verifies it, and hands what is good to a visitor.
//!
//! What it checks beyond each record's own checksum is what RocksDB cannot know: that the blocks follow each other without
//! hole from the lowest entry kept, each naming the checksum of the one before it, and that the journal reaches as far as
//! checkpoint, lanes and witness say. So a log whose tail RocksDB dropped in silence is found out.

use std::ops::Range;

use super::database::{Cursor as _, Database};
use super::dead::{DeadLetter, DeadLetterId};
use super::error::{Damage, DamagePlace};
use super::mask::unmask;
use super::meta::{self, CHECKPOINT_KEY, CheckpointState, Loss, MetaRecord};
use super::rocks_db::{DEAD, JOURNAL, META, block_key};
use super::{Block, Extent, SessionRecord};
use crate::types::Offset;

/// The longest key of any column family, in bytes: a session's.
const KEY_BYTES_MAX: usize = 13;

/// Something good that a scan came by.
pub(super) enum Visit<'a> {
    Session(SessionRecord),
    Block {
        block: &'a Block,
        /// It holds entries that the checkpoint does not include.
        since_checkpoint: bool,
    },
    Dead(DeadLetter),
}

/// What a scan found, all in all.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) checkpoint: CheckpointState,
    pub(super) losses: Vec<Loss>,
    /// How many changes the database has seen.
    pub(super) sequence: u64,
    /// The witness it was held against.
    pub(super) witness: Option<Offset>,
    /// The offset that the next entry gets.
    pub(super) end: Offset,
    /// Of the last block, for the next one to repeat.
    pub(super) last_checksum: u32,
    pub(super) extents: Vec<Extent>,
    pub(super) sessions: u64,
    pub(super) blocks: u64,
    pub(super) entries: u64,
    pub(super) block_bytes: u64,
    pub(super) dead: u64,
}

/// Scans everything. `found` is told of each damage and decides whether the scan goes on; its error ends it.
pub(super) fn scan(
    store: &impl Database,
    witness: Option<Offset>,
    visit: &mut dyn FnMut(Visit<'_>),
    found: &mut dyn FnMut(Damage) -> Result<(), Damage>,
) -> Result<Scan, Damage> {
    let mut scan = Scan { sequence: store.sequence(), witness, ..Scan::default() };
    let checkpoint = scan_meta(store, &mut scan, visit, found)?;
    scan_blocks(store, &mut scan, checkpoint, visit, found)?;
    for (who, claimed) in scan.claims() {
        if claimed > scan.end {
            let place = DamagePlace::Entries { from: scan.end, to: Some(claimed) };
            found(Damage::new(place, format!("missing: {who} proves that they were durable")))?;
        }
    }
    walk(store, DEAD, &[0; DeadLetterId::KEY_LEN]..&[0xff; DeadLetterId::KEY_LEN + 1], &mut |item| match item {
        Item::Unreadable(damage) => found(damage),
        Item::Record(key, value) => match DeadLetter::decode(key, &value) {
            Err(error) => found(bad_record(store, DEAD, key, error)),
            Ok(letter) => {
                scan.dead += 1;
                visit(Visit::Dead(letter));
                Ok(())
            }
        },
    })?;
    Ok(scan)
}

impl Scan {
    /// Who says up to where entries were durable.
    pub(super) fn claims(&self) -> Vec<(String, Offset)> {
        let mut claims = vec![("the checkpoint".to_owned(), self.checkpoint.at)];
        claims.extend(self.witness.map(|end| ("the witness".to_owned(), end)));
        let lanes = self.checkpoint.lanes.iter().enumerate();
        claims.extend(lanes.map(|(lane, mark)| (format!("the watermark of lane {lane}"), mark.watermark)));
        claims
    }
}

/// Returns the checkpoint; `None` when it is damaged and `found` goes on.
fn scan_meta(
    store: &impl Database,
    scan: &mut Scan,
    visit: &mut dyn FnMut(Visit<'_>),
    found: &mut dyn FnMut(Damage) -> Result<(), Damage>,
) -> Result<Option<CheckpointState>, Damage> {
    let mut checkpoint = None;
    walk(store, META, &[0]..&[0xff], &mut |item| match item {
        Item::Unreadable(damage) => found(damage),
        Item::Record(key, value) => match meta::decode(key, &value) {
            Err(error) => found(bad_record(store, META, key, error)),
            Ok(MetaRecord::Checkpoint(state)) => {
                checkpoint = Some(state);
                Ok(())
            }
            Ok(MetaRecord::Loss(loss)) => {
                scan.losses.push(loss);
                Ok(())
            }
            Ok(MetaRecord::Session(session)) => {
                scan.sessions += 1;
                visit(Visit::Session(session));
                Ok(())
            }
        },
    })?;
    match &checkpoint {
        None => found(Damage::new(record_place(META, CHECKPOINT_KEY), "there is no good checkpoint"))?,
        Some(state) if state.low > state.at => {
            found(Damage::new(record_place(META, CHECKPOINT_KEY), "it lies below the lowest entry kept"))?;
        }
        Some(_) => {}
    }
    Ok(checkpoint)
}

fn scan_blocks(
    store: &impl Database,
    scan: &mut Scan,
    checkpoint: Option<CheckpointState>,
    visit: &mut dyn FnMut(Visit<'_>),
    found: &mut dyn FnMut(Damage) -> Result<(), Damage>,
) -> Result<(), Damage> {
    let from = checkpoint.as_ref().map_or(Offset(0), |state| state.low);
    let at = checkpoint.as_ref().map_or(Offset(0), |state| state.at);
    let mut chain = Chain {
        holes: holes(&scan.losses),
        next: checkpoint.as_ref().map(|state| state.low),
        checksum: checkpoint.as_ref().map(|state| state.low_previous_checksum),
        bad: None,
    };
    let mut first = None;
    // No block begins at the last of all offsets.
    walk(store, JOURNAL, &block_key(from)..&block_key(Offset(u64::MAX)), &mut |item| {
        let (key, value) = match item {
            Item::Record(key, value) => (key, value),
            Item::Unreadable(damage) => {
                chain.bad.get_or_insert(damage);
                return Ok(());
            }
        };
        let block = match Block::parse(value) {
            Ok(block) if key == block_key(block.first()) => block,
            Ok(_) => return chain.note(bad_record(store, JOURNAL, key, "the block belongs under another key")),
            Err(error) => return chain.note(bad_record(store, JOURNAL, key, error)),
        };
        if !chain.follow(&block, found)? {
            return Ok(());
        }
        first.get_or_insert(block.first());
        Extent::add(&mut scan.extents, &block);
        scan.blocks += 1;
        scan.entries += block.end().since(block.first());
        scan.block_bytes += block.size() as u64;
        visit(Visit::Block { block: &block, since_checkpoint: block.end() > at });
        Ok(())
    })?;
    // Readers look for the block at or before an offset: RocksDB then touches what lies below, although it is trimmed.
    let mut below = store.iterate(JOURNAL, &block_key(from), &block_key(Offset(u64::MAX)));
    below.seek_for_prev(&block_key(from));
    if let Err(error) = below.status() {
        found(bad_record(store, JOURNAL, &block_key(from), format!("cannot be read on down from here: {error}")))?;
    }
    scan.end = chain.finish(found)?;
    scan.last_checksum = chain.checksum.unwrap_or(0);
    let restart = first.unwrap_or(scan.end);
    scan.checkpoint = checkpoint.unwrap_or(CheckpointState { at: restart, low: restart, ..CheckpointState::default() });
    Ok(())
}

/// The offsets that operators have given up, in order.
pub(super) fn holes(losses: &[Loss]) -> Vec<(Offset, Offset)> {
    let mut holes: Vec<_> = losses.iter().filter_map(|loss| loss.entries).collect();
    holes.sort_unstable();
    holes
}

/// What the next block must be.
struct Chain {
    holes: Vec<(Offset, Offset)>,
    /// Its first offset; `None` while the start is unknown.
    next: Option<Offset>,
    /// The checksum that it must repeat; `None` where the block before it is unknown.
    checksum: Option<u32>,
    /// Damage since the last good block. What it spans is known at the next good one.
    bad: Option<Damage>,
}

impl Chain {
    fn note(&mut self, damage: Damage) -> Result<(), Damage> {
        self.bad.get_or_insert(damage);
        Ok(())
    }

    /// Whether the block is to be used; it is not when its entries were there already.
    fn follow(&mut self, block: &Block, found: &mut dyn FnMut(Damage) -> Result<(), Damage>) -> Result<bool, Damage> {
        let first = block.first();
        let next = self.next.unwrap_or(first);
        if first < next {
            let place = DamagePlace::Entries { from: first, to: Some(block.end()) };
            found(Damage::new(place, "a block that overlaps the one before it"))?;
            return Ok(false);
        }
        let bad = self.bad.take();
        let given_up = self.holes.iter().any(|&(_, to)| to == first);
        if first > next && (bad.is_some() || !self.holes.contains(&(next, first))) {
            let place = DamagePlace::Entries { from: next, to: Some(first) };
            found(
                bad.map_or_else(|| Damage::new(place.clone(), "missing"), |bad| Damage { place: place.clone(), ..bad }),
            )?;
        } else if let Some(bad) = bad {
            found(bad)?;
        } else if !given_up && first == next && self.checksum.is_some_and(|sum| sum != block.previous_checksum()) {
            let place = DamagePlace::Entries { from: first, to: Some(first) };
            found(Damage::new(place, "the block here was not written after the one before it"))?;
        }
        self.next = Some(block.end());
        self.checksum = Some(block.checksum());
        Ok(true)
    }

    /// Where the next block goes.
    fn finish(&mut self, found: &mut dyn FnMut(Damage) -> Result<(), Damage>) -> Result<Offset, Damage> {
        let mut end = self.next.unwrap_or_default();
        if let Some(bad) = self.bad.take() {
            found(Damage { place: DamagePlace::Entries { from: end, to: None }, ..bad })?;
        }
        for &(from, to) in &self.holes {
            if from == end {
                end = to;
            }
        }
        Ok(end)
    }
}

enum Item<'a> {
    Record(&'a [u8], Vec<u8>),
    /// RocksDB cannot read on from here. The walk tries to go on behind it.
    Unreadable(Damage),
}

/// Walks the records of a column family in the order of their keys, also past what cannot be read.
fn walk(
    store: &impl Database,
    family: &'static str,
    range: Range<&[u8]>,
    each: &mut dyn FnMut(Item<'_>) -> Result<(), Damage>,
) -> Result<(), Damage> {
    let mut records = store.iterate(family, range.start, range.end);
    let mut last = range.start.to_vec();
    records.seek(&last);
    loop {
        while let Some((key, value)) = records.item() {
            last.clear();
            last.extend_from_slice(key);
            each(Item::Record(key, unmask(value)))?;
            records.next();
        }
        let Err(error) = records.status() else { return Ok(()) };
        each(Item::Unreadable(bad_record(store, family, &last, format!("cannot be read on from here: {error}"))))?;
        // What lies behind is found by ever larger steps: the bad part is a block of a table file, whose keys are unknown.
        last.resize(last.len().max(KEY_BYTES_MAX), 0);
        let mut bit = 0;
        loop {
            if !add_bit(&mut last, bit) {
                return Ok(());
            }
            records.seek(&last);
            if records.valid() {
                break;
            }
            if records.status().is_ok() {
                return Ok(());
            }
            bit += 1;
        }
    }
}

/// Adds 2^bit to a big-endian number; whether it fits.
fn add_bit(number: &mut [u8], bit: usize) -> bool {
    let Some(at) = number.len().checked_sub(1 + bit / 8) else { return false };
    let (sum, mut carry) = number[at].overflowing_add(1 << (bit % 8));
    number[at] = sum;
    for byte in number[..at].iter_mut().rev() {
        if !carry {
            break;
        }
        (*byte, carry) = byte.overflowing_add(1);
    }
    !carry
}

fn record_place(family: &'static str, key: &[u8]) -> DamagePlace {
    DamagePlace::Record { family, key: key.to_vec() }
}

fn bad_record(store: &impl Database, family: &'static str, key: &[u8], problem: impl std::fmt::Display) -> Damage {
    Damage::new(record_place(family, key), problem).in_files(store.files_of(family, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_over_keys_carry_and_end_at_the_last_key() {
        let mut key = [0, 0xff, 0xff];
        assert!(add_bit(&mut key, 0));
        assert_eq!(key, [1, 0, 0]);
        assert!(add_bit(&mut key, 15));
        assert_eq!(key, [1, 0x80, 0]);
        assert!(add_bit(&mut key, 15));
        assert_eq!(key, [2, 0, 0]);
        let mut last = [0xff, 0xff];
        assert!(!add_bit(&mut last, 3), "past the last key");
        assert!(!add_bit(&mut [0; 2], 16), "wider than the key");
    }
}
