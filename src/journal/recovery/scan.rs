//! What a survey has counted and read of a directory, beside what it hands to its visitor.

use crate::journal::error::DamageKind;
use crate::journal::{Extent, LetterCounts, Loss};
use crate::model::{FormerLanes, LaneMark, Offset, SinkRecord};

/// A walk through the journal fills this in, also where something is damaged.
#[derive(Debug, Default)]
pub struct Scan {
    /// The offset of the checkpoint.
    pub checkpoint_at: Offset,
    /// Entries below are trimmed, and not in the journal any more.
    pub low: Offset,
    /// What the block there repeats as the checksum of the one before it.
    pub low_previous_checksum: u32,
    /// The lanes of the checkpoint.
    pub lanes: Vec<LaneMark>,
    /// Those of earlier runs, as the checkpoint has them.
    pub former: Vec<FormerLanes>,
    /// The sinks of the checkpoint.
    pub sinks: Vec<SinkRecord>,
    /// What operators have given up.
    pub losses: Vec<Loss>,
    /// How many changes the database has seen.
    pub changes: u64,
    /// The witness that it was held against.
    pub witness: Option<Offset>,
    /// The offset that the next entry gets.
    pub end: Offset,
    /// The checksum of the last block, for the next one to repeat.
    pub last_checksum: u32,
    /// Neighbouring blocks are summed up, so that this stays small.
    pub extents: Vec<Extent>,
    /// Blocks below were not read, and are to be verified when they are. The figures below are without them.
    pub unread_below: Offset,
    /// How many sessions there are.
    pub sessions: u64,
    /// How many asks have a record.
    pub asks: u64,
    /// How many of these are answered in it.
    pub asks_answered: u64,
    /// How many answers are in records of their own, which no checkpoint has put into those of their asks.
    pub answers: u64,
    /// How many blocks there are.
    pub blocks: u64,
    /// How many entries are in the blocks.
    pub entries: u64,
    /// How many bytes the blocks take.
    pub block_bytes: u64,
    /// How many dead letters each sink has.
    pub dead: LetterCounts,
}

impl Scan {
    /// What says up to where entries were durable, and up to where.
    pub(in crate::journal) fn claims(&self) -> Vec<(DamageKind, String, Offset)> {
        let mut claims = vec![(DamageKind::BelowCheckpoint, "the checkpoint".to_owned(), self.checkpoint_at)];
        claims.extend(self.witness.map(|end| (DamageKind::BelowWitness, "the witness".to_owned(), end)));
        let lanes = self.lanes.iter().enumerate();
        claims.extend(lanes.map(|(lane, mark)| {
            (DamageKind::BelowCheckpoint, format!("the watermark of lane {lane}"), mark.watermark)
        }));
        claims.extend(self.sinks.iter().map(|sink| {
            (DamageKind::BelowCheckpoint, format!("the watermark of sink `{}`", sink.name), sink.mark.watermark)
        }));
        claims
    }
}
