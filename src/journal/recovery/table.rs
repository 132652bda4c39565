//! The decision table of recovery.

use super::facts::Bad::{BeforeGood, Last};
use super::facts::CheckpointFact::{Missing as NoCheckpoint, Newer as Ahead, Older as Behind};
use super::facts::DatabaseFact::{Absent, Readable, Unreadable as Closed};
use super::facts::Format::{Known, Newer, Older, Unreadable};
use super::facts::LastWrite::{Absent as NoBlock, Torn, Whole};
use super::facts::WitnessFact::{Beyond, Damaged, Missing, Reached};
use super::facts::{Bad, CheckpointFact, DatabaseFact, Facts, Format, LastWrite, WitnessFact};
use crate::journal::error::DamageKind;

pub use rows::decide;

/// A start does one of these, and each row of the table names one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Makes a new journal: there is none, and nothing says that there ever was.
    Create,
    /// Goes on where the journal ends.
    GoOn,
    /// Goes on without the writes that a crash has torn, one or as many as were under way. None of them was ever acked.
    DropTorn,
    /// Leaves a directory alone that a later version has written.
    NewerFormat,
    /// Refuses, and changes nothing: something that was durable is not what it was. `--accept-loss` overrides it.
    Refuse(DamageKind),
}

/// Writes the table once, as the `match` that decides and, for the test that no two rows claim the same facts, as one
/// predicate for each row.
macro_rules! table {
    ($($name:ident: $row:pat => $outcome:expr,)*) => {
        /// What a start does that has found this.
        ///
        /// The rows come in the order in which one cause explains the findings below it.
        pub fn decide(facts: &Facts) -> Outcome {
            match facts.row() {
                $($row => $outcome,)*
            }
        }

        /// The names of all rows that claim these facts.
        #[cfg(test)]
        pub(in crate::journal) fn rows(facts: &Facts) -> Vec<&'static str> {
            let mut names = Vec::new();
            $(if matches!(facts.row(), $row) {
                names.push(stringify!($name));
            })*
            names
        }

        #[cfg(test)]
        pub(in crate::journal) const ROWS: &[&str] = &[$(stringify!($name)),*];
    };
}

type Row = (Format, DatabaseFact, WitnessFact, Bad, bool, bool, CheckpointFact, bool, LastWrite);

impl Facts {
    fn row(&self) -> Row {
        let Self { format, database, witness, last, bad, hole, chain_broken, checkpoint, record_bad } = *self;
        (format, database, witness, bad, hole, chain_broken, checkpoint, record_bad, last)
    }
}

#[rustfmt::skip]
mod rows {
    use super::*;

    //                  format      database  witness             bad         hole   broken checkpoint    record last
    table! {
        newer_format:       (Newer(_),   _,        _,                  _,          _,     _,     _,            _,     _)
            => Outcome::NewerFormat,
        older_format:       (Older(_),   _,        _,                  _,          _,     _,     _,            _,     _)
            => Outcome::Refuse(DamageKind::Format),
        marker_unreadable:  (Unreadable, _,        _,                  _,          _,     _,     _,            _,     _)
            => Outcome::Refuse(DamageKind::Marker),
        first_start:        (Known,      Absent,   Missing | Reached,  _,          _,     _,     _,            _,     _)
            => Outcome::Create,
        database_gone:      (Known,      Absent,   Damaged | Beyond,   _,          _,     _,     _,            _,     _)
            => Outcome::Refuse(DamageKind::DatabaseMissing),
        database_closed:    (Known,      Closed,   _,                  _,          _,     _,     _,            _,     _)
            => Outcome::Refuse(DamageKind::DatabaseUnreadable),
        good_after_bad:     (Known,      Readable, _,                  BeforeGood, _,     _,     _,            _,     _)
            => Outcome::Refuse(DamageKind::GoodAfterBad),
        last_block_bad:     (Known,      Readable, _,                  Last,       _,     _,     _,            _,     _)
            => Outcome::Refuse(DamageKind::LastBlock),
        hole:               (Known,      Readable, _,                  Bad::None,  true,  _,     _,            _,     _)
            => Outcome::Refuse(DamageKind::Hole),
        chain_broken:       (Known,      Readable, _,                  Bad::None,  false, true,  _,            _,     _)
            => Outcome::Refuse(DamageKind::Chain),
        witness_gone:       (Known,      Readable, Missing | Damaged,  Bad::None,  false, false, _,            _,     _)
            => Outcome::Refuse(DamageKind::Witness),
        below_the_witness:  (Known,      Readable, Beyond,             Bad::None,  false, false, _,            _,     _)
            => Outcome::Refuse(DamageKind::BelowWitness),
        no_checkpoint:      (Known,      Readable, Reached,            Bad::None,  false, false, NoCheckpoint, _,     _)
            => Outcome::Refuse(DamageKind::Checkpoint),
        checkpoint_ahead:   (Known,      Readable, Reached,            Bad::None,  false, false, Ahead,        _,     _)
            => Outcome::Refuse(DamageKind::BelowCheckpoint),
        record_bad:         (Known,      Readable, Reached,            Bad::None,  false, false, Behind,       true,  _)
            => Outcome::Refuse(DamageKind::Record),
        torn:               (Known,      Readable, Reached,            Bad::None,  false, false, Behind,       false, Torn)
            => Outcome::DropTorn,
        sound:              (Known,      Readable, Reached,            Bad::None,  false, false, Behind,       false, Whole | NoBlock)
            => Outcome::GoOn,
    }
}

#[cfg(test)]
mod tests;
