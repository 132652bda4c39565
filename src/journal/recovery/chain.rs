//! The chain of blocks: each begins where the one before it ends, and names its checksum.

use crate::journal::Block;
use crate::journal::error::{Damage, DamageKind, DamagePlace};
use crate::journal::meta::{CheckpointState, Loss};
use crate::model::Offset;

/// The offsets that operators have given up, in order; those that border on each other are one.
pub(in crate::journal) fn holes(losses: &[Loss]) -> Vec<(Offset, Offset)> {
    let mut given_up: Vec<_> = losses.iter().filter_map(|loss| loss.entries).collect();
    given_up.sort_unstable();
    let mut holes: Vec<(Offset, Offset)> = Vec::new();
    for (from, to) in given_up {
        match holes.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => holes.push((from, to)),
        }
    }
    holes
}

/// What the next block must be.
pub(in crate::journal) struct Chain {
    holes: Vec<(Offset, Offset)>,
    /// Its first offset; `None` while the start is unknown.
    next: Option<Offset>,
    /// The checksum that it must repeat; `None` where the block before it is unknown.
    checksum: Option<u32>,
    /// Damage since the last good block. What it spans is known at the next good one.
    bad: Option<Damage>,
}

impl Chain {
    /// From the lowest entry kept, if a checkpoint says which that is.
    pub(in crate::journal) fn from(checkpoint: Option<&CheckpointState>, losses: &[Loss]) -> Self {
        Self {
            holes: holes(losses),
            next: checkpoint.map(|state| state.low),
            checksum: checkpoint.map(|state| state.low_previous_checksum),
            bad: None,
        }
    }

    /// What the next block repeats.
    pub(in crate::journal) fn last_checksum(&self) -> u32 {
        self.checksum.unwrap_or(0)
    }

    /// Something that is no good block. What it costs is known when the next good one comes.
    pub(in crate::journal) fn note(&mut self, damage: Damage) {
        self.bad.get_or_insert(damage);
    }

    /// What is wrong, and whether the block is to be used; it is not when its entries were there already.
    pub(in crate::journal) fn follow(&mut self, block: &Block) -> (Option<Damage>, bool) {
        let first = block.first();
        let next = self.next.unwrap_or(first);
        if first < next {
            let place = DamagePlace::Entries { from: first, to: Some(block.end()) };
            return (Some(Damage::new(DamageKind::Chain, place, "a block that overlaps the one before it")), false);
        }
        let place = DamagePlace::Entries { from: next, to: Some(first) };
        let bad = self.bad.take().map(|bad| Damage { kind: DamageKind::GoodAfterBad, ..bad });
        let given_up = self.holes.iter().any(|&(_, to)| to == first);
        let found = if first > next && (bad.is_some() || !self.holes.contains(&(next, first))) {
            Some(match bad {
                Some(bad) => Damage { place, ..bad },
                None => Damage::new(DamageKind::Hole, place, "missing"),
            })
        } else if bad.is_some() {
            bad
        } else if !given_up && first == next && self.checksum.is_some_and(|sum| sum != block.previous_checksum()) {
            Some(Damage::new(DamageKind::Chain, place, "the block here was not written after the one before it"))
        } else {
            None
        };
        self.next = Some(block.end());
        self.checksum = Some(block.checksum());
        (found, true)
    }

    /// Where the next block goes, and what is wrong behind the last one.
    pub(in crate::journal) fn finish(&mut self) -> (Offset, Option<Damage>) {
        let end = self.next.unwrap_or_default();
        let bad = self.bad.take().map(|bad| Damage { place: DamagePlace::Entries { from: end, to: None }, ..bad });
        let hole = self.holes.iter().find(|&&(from, _)| from == end);
        (hole.map_or(end, |&(_, to)| to), bad)
    }
}

#[cfg(test)]
mod tests;
