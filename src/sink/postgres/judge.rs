//! Whether this start may take the position that it finds, and what the operator is told when it may not.

use super::Owner;
use super::errors::Trouble;
use super::position::Position;
use super::state::State;
use crate::model::Offset;

/// A position's row as a claim finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) next: Position,
    /// Number and nonce of the start that has claimed it.
    pub(super) start: (u64, u64),
}

/// Why a position may not be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// A start owns it that this directory does not know.
    Copy {
        /// That start has this number.
        number: u64,
    },
    /// It lies beyond what this journal has ever had.
    Ahead(Position),
    /// It lies before what was confirmed.
    Behind { found: Position, confirmed: Position },
    /// It is not there, and was.
    Gone(Position),
}

/// Where to go on from. `end`: no record from there on has been presented by this journal, now or in an earlier run.
///
/// | position | its owner | where it is | |
/// |---|---|---|---|
/// | not there | | and none was confirmed | begins at 0 |
/// | not there | | and one was confirmed | refused: another database, or one put back |
/// | there | a start that is not known | anywhere | refused: a copy of this directory, or this is an older one put back |
/// | there | a known start | beyond the journal's end | refused: an older directory put back |
/// | there | a known start | before what was confirmed | refused: the database has lost what it had confirmed |
/// | there | a known start | else | goes on from there |
pub(super) fn judge(found: Option<&Found>, state: &State, end: Offset) -> Result<Position, Refusal> {
    let Some(found) = found else {
        return state.confirmed_next().map_or(Ok(Position::default()), |next| Err(Refusal::Gone(next)));
    };
    if !state.knows(found.start) {
        return Err(Refusal::Copy { number: found.start.0 });
    }
    if found.next > (Position { offset: end.0, index: 0 }) {
        return Err(Refusal::Ahead(found.next));
    }
    if found.next < state.next() {
        return Err(Refusal::Behind { found: found.next, confirmed: state.next() });
    }
    Ok(found.next)
}

impl Refusal {
    /// What the operator is told: what was found, what it means, what to do.
    pub(super) fn trouble(self, table: &str, owner: &Owner, state: &State) -> Trouble {
        let (own, next) = (state.own(), state.next());
        let row = format!("journal = '{}' AND sink = '{}' AND shard = {}", owner.journal, owner.sink, owner.lane.0);
        Trouble::Away(match self {
            Self::Copy { number } => {
                let (own_number, own_nonce) = own;
                let Position { offset, index } = next;
                format!(
                    "another server (start {number} of a copy of this data directory) has taken over the position in {table}, or this \
                     directory is an older one that was put back; this one writes nothing more. Stop one of the two for good. If both \
                     have taken in data since, records of both have the same names: then this one needs a new sink name and a table of \
                     its own. Else this one goes on by: UPDATE {table} SET start_number = {own_number}, start_nonce = {}, \
                     next_offset = {offset}, next_index = {index} WHERE {row}",
                    own_nonce.cast_signed()
                )
            }
            Self::Ahead(next) => format!(
                "the position in {table} is at offset {}, which this journal has not reached: the data directory is an older one \
                 that was put back, and rows of other records have the names that it will give next. Give the sink a new name and \
                 another table",
                next.offset
            ),
            Self::Behind { found, confirmed } => format!(
                "the position in {table} is at offset {} index {}, and PostgreSQL had confirmed up to offset {} index {}: it was put \
                 back, or a standby took over that lacked the last rows. To go on without what is missing: UPDATE {table} SET \
                 next_offset = {2}, next_index = {3} WHERE {row}",
                found.offset, found.index, confirmed.offset, confirmed.index
            ),
            Self::Gone(confirmed) => {
                let (number, nonce) = own;
                format!(
                    "{table} has no position of this sink, and PostgreSQL had confirmed up to offset {} index {}: it is another \
                     database, or one that was put back. To go on from there: INSERT INTO {table} VALUES ('{}', '{}', {}, 1, {0}, \
                     {1}, {number}, {})",
                    confirmed.offset,
                    confirmed.index,
                    owner.journal,
                    owner.sink,
                    owner.lane.0,
                    nonce.cast_signed()
                )
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instance;

    const fn at(offset: u64, index: u32) -> Position {
        Position { offset, index }
    }

    /// Start 5 of a directory whose start 4 had come to offset 20.
    fn state() -> State {
        let mut state = State::resume(&[], Some(Instance { number: 4, nonce: 44 })).unwrap();
        state.claimed(at(20, 0));
        State::resume(&state.to_bytes().unwrap(), Some(Instance { number: 5, nonce: 55 })).unwrap()
    }

    #[test]
    fn every_row_of_the_table_is_decided_as_it_says() {
        let found = |next, start| Found { next, start };
        let new = State::resume(&[], Some(Instance { number: 1, nonce: 11 })).unwrap();
        for (found, state, expected) in [
            (None, &new, Ok(at(0, 0))),
            (None, &state(), Err(Refusal::Gone(at(20, 0)))),
            (Some(found(at(20, 0), (5, 56))), &state(), Err(Refusal::Copy { number: 5 })),
            (Some(found(at(20, 0), (6, 55))), &state(), Err(Refusal::Copy { number: 6 })),
            (Some(found(at(20, 0), (3, 33))), &state(), Err(Refusal::Copy { number: 3 })),
            (Some(found(at(0, 0), (1, 12))), &new, Err(Refusal::Copy { number: 1 })),
            (Some(found(at(30, 1), (4, 44))), &state(), Err(Refusal::Ahead(at(30, 1)))),
            (
                Some(found(at(19, 7), (4, 44))),
                &state(),
                Err(Refusal::Behind { found: at(19, 7), confirmed: at(20, 0) }),
            ),
            (Some(found(at(29, 3), (4, 44))), &state(), Ok(at(29, 3))),
            (Some(found(at(30, 0), (5, 55))), &state(), Ok(at(30, 0))),
        ] {
            assert_eq!(judge(found.as_ref(), state, Offset(30)), expected, "{found:?}");
        }
    }
}
