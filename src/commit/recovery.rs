//! A dialect's memory, rebuilt from the journal by the code that accepted its entries.

use crate::commit::Backlog;
use crate::dialect::{Dialect, InvalidRecord};
use crate::journal::{Opened, Replay};
use crate::model::Offset;

/// A dialect while the journal is replayed into it.
#[derive(Debug)]
pub struct Recovery<D>(D);

/// What recovery gives the committer to go on from.
#[derive(Debug)]
pub struct Recovered<D> {
    /// The dialect, with all that the journal holds applied.
    pub dialect: D,
    /// The blocks that the journal holds.
    pub backlog: Backlog,
    /// The lowest entry that the journal holds.
    pub low: Offset,
    /// The offset of the last checkpoint.
    pub checkpoint_at: Offset,
}

impl<D: Dialect> Recovery<D> {
    /// Begins with a dialect to which nothing was replayed yet.
    pub fn new(dialect: D) -> Self {
        Self(dialect)
    }

    /// Applies what the journal replays, in its order.
    pub fn apply(&mut self, replay: Replay<'_>) {
        self.0.replay(replay);
    }

    /// What the committer goes on from.
    ///
    /// # Errors
    /// The dialect cannot have made what was replayed.
    pub fn finish<J>(self, opened: &Opened<J>) -> Result<Recovered<D>, InvalidRecord> {
        let Self(mut dialect) = self;
        dialect.replayed()?;
        Ok(Recovered {
            dialect,
            backlog: Backlog::new(opened.extents.clone()),
            low: opened.low,
            checkpoint_at: opened.checkpoint_at,
        })
    }
}
