//! Rebuilding the sessions from the journal, by the code that accepted its entries.

use crate::commit::{Backlog, Recovered};
use crate::dialect::duragram::session::{EpochBook, SessionTable};
use crate::journal::{Opened, Replay};
use crate::limits;
use crate::model::SessionId;

/// The sessions while the journal is replayed into them.
#[derive(Debug)]
pub struct Recovery {
    sessions: SessionTable,
    epochs: EpochBook,
    counter_limit: u64,
    /// Service time goes on where the sessions' last activity left it.
    service_s: u64,
    invalid: Option<SessionId>,
}

impl Recovery {
    /// Nothing replayed yet.
    pub fn new(sessions_max: usize) -> Self {
        Self {
            sessions: SessionTable::new(sessions_max),
            epochs: EpochBook::new(sessions_max.saturating_mul(limits::SEALED_CLIENTS_PER_SESSION)),
            counter_limit: 0,
            service_s: 0,
            invalid: None,
        }
    }

    /// Applies what the journal replays, in its order.
    pub fn apply(&mut self, replay: Replay<'_>) {
        match replay {
            Replay::Session(record) => {
                self.service_s = self.service_s.max(record.last_active_s);
                if record.sealed {
                    self.epochs.replay(record.id);
                }
                if !self.sessions.restore(&record) {
                    self.invalid.get_or_insert(record.id);
                }
            }
            Replay::Client(record) => self.epochs.restore(&record),
            Replay::CounterLimit(limit) => self.counter_limit = limit,
            Replay::Block(block) => {
                for entry in block.entries() {
                    if entry.meta.sealed {
                        self.epochs.replay(entry.meta.session);
                    }
                    self.sessions.replay(&entry, self.service_s);
                }
            }
        }
    }

    /// What the committer goes on from; or the session whose record no session can have made.
    pub fn finish<J>(self, opened: &Opened<J>) -> Result<Recovered, SessionId> {
        match self.invalid {
            Some(id) => Err(id),
            None => Ok(Recovered {
                sessions: self.sessions,
                epochs: self.epochs,
                counter_limit: self.counter_limit,
                backlog: Backlog::new(opened.extents.clone()),
                low: opened.low,
                checkpoint_at: opened.checkpoint_at,
            }),
        }
    }
}
