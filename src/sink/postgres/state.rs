//! What the journal keeps of the sink: which starts of this directory there were, and up to where PostgreSQL had confirmed.
//!
//! A start is in the journal before the sink writes anything: the first checkpoint holds what the first `flush` returned. So an
//! owner of the position that is not among these starts has another directory.

use serde::{Deserialize, Serialize};

use super::position::Position;
use crate::limits;
use crate::model::Instance;
use crate::process::handler::HandlerError;

/// What is stored with the watermark, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The starts that may own the position, as (number, nonce): the last that is known to have claimed it, and those since.
    starts: Vec<(u64, u64)>,
    /// The first record that was not confirmed, once there was a claim.
    next: Option<Position>,
}

impl State {
    /// Goes on from what was kept, with this start added.
    ///
    /// # Errors
    /// What was kept is not this sink's.
    pub(super) fn resume(kept: &[u8], instance: Option<Instance>) -> Result<Self, HandlerError> {
        let mut state: Self = match kept {
            [] => Self::default(),
            kept => serde_json::from_slice(kept).map_err(|error| {
                HandlerError::new(format_args!("what the journal has kept of this sink is of another kind: {error}"))
            })?,
        };
        let own = instance.map_or((0, 0), |Instance { number, nonce }| (number, nonce));
        if state.starts.last() != Some(&own) {
            state.starts.push(own);
        }
        if state.starts.len() > limits::POSTGRES_STARTS {
            // The first is known to have claimed; of those that never got so far the newest are the likeliest.
            state.starts.remove(1);
        }
        Ok(state)
    }

    /// The start that is running now, as (number, nonce).
    pub(super) fn own(&self) -> (u64, u64) {
        self.starts.last().copied().unwrap_or_default()
    }

    pub(super) fn knows(&self, start: (u64, u64)) -> bool {
        self.starts.contains(&start)
    }

    /// Where PostgreSQL had come to by what it has confirmed, if it ever has.
    pub(super) fn confirmed_next(&self) -> Option<Position> {
        self.next
    }

    /// The first record that is not in the table, as far as known.
    pub(super) fn next(&self) -> Position {
        self.next.unwrap_or_default()
    }

    /// This start owns the position, which is here.
    pub(super) fn claimed(&mut self, next: Position) {
        self.starts = vec![self.own()];
        self.next = Some(next);
    }

    /// All before is in the table.
    pub(super) fn confirmed(&mut self, next: Position) {
        self.next = self.next.max(Some(next));
    }

    /// What is true wherever the sink goes on: which starts there were. What PostgreSQL had confirmed an operator who moves the
    /// sink lets go: that is how one goes on with a database that was put back.
    pub(super) fn elsewhere(&self) -> Self {
        Self { starts: self.starts.clone(), next: None }
    }

    /// As the journal keeps it.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, HandlerError> {
        serde_json::to_vec(self).map_err(HandlerError::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seek_keeps_the_starts_and_lets_go_what_was_confirmed() {
        let start = |kept: &[u8], number| State::resume(kept, Some(Instance { number, nonce: 7 })).unwrap();
        let mut state = start(&[], 1);
        state.claimed(Position { offset: 5, index: 1 });
        // Started again while PostgreSQL was away, moved, and started once more.
        let moved = start(&state.to_bytes().unwrap(), 2).elsewhere();
        let again = start(&moved.to_bytes().unwrap(), 3);
        assert!([(1, 7), (2, 7), (3, 7)].into_iter().all(|known| again.knows(known)), "{again:?}");
        assert_eq!((again.own(), again.confirmed_next()), ((3, 7), None));
    }

    #[test]
    fn starts_that_never_connected_are_remembered_and_bounded_and_a_claim_forgets_them() {
        let mut kept = Vec::new();
        for number in 1..=300 {
            let mut state = State::resume(&kept, Some(Instance { number, nonce: 7 })).unwrap();
            if number == 2 {
                state.claimed(Position { offset: 5, index: 1 });
            }
            kept = state.to_bytes().unwrap();
        }
        let state = State::resume(&kept, Some(Instance { number: 300, nonce: 7 })).unwrap();
        assert_eq!(state.starts.len(), limits::POSTGRES_STARTS);
        assert!(!state.knows((1, 7)) && state.knows((2, 7)) && state.knows((300, 7)) && state.own() == (300, 7));
        assert_eq!(state.confirmed_next(), Some(Position { offset: 5, index: 1 }));
        assert!(State::resume(b"{\"dev\":1,\"ino\":2,\"len\":3}", None).is_err());
    }
}
