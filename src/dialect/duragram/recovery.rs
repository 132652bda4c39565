//! The memory of sessions and epochs, rebuilt from what the journal replays.

use crate::dialect::InvalidRecord;
use crate::dialect::duragram::Duragram;
use crate::journal::Replay;
use crate::model::SessionId;

/// What is known while the journal is being replayed.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// The limit of the server's counter that was stored last, 0 if none was.
    counter_limit: u64,
    /// Service time goes on where the sessions' last activity left it.
    service_s: u64,
    /// The first session whose record no session can have made.
    invalid: Option<SessionId>,
}

impl Duragram {
    pub(super) fn take_up(&mut self, replay: Replay<'_>) {
        match replay {
            Replay::Session(record) => {
                self.replayed.service_s = self.replayed.service_s.max(record.last_active_s);
                if record.sealed {
                    self.epochs.replay(record.id);
                }
                if !self.sessions.restore(&record) {
                    self.replayed.invalid.get_or_insert(record.id);
                }
            }
            Replay::Client(record) => self.epochs.restore(&record),
            // What nothing can have asked.
            Replay::Ask(_) | Replay::Answers(_) => {}
            Replay::CounterLimit(limit) => self.replayed.counter_limit = limit,
            Replay::Block(block) => {
                for entry in block.entries() {
                    if entry.meta.sealed {
                        self.epochs.replay(entry.meta.session);
                    }
                    self.sessions.replay(&entry, self.replayed.service_s);
                }
            }
        }
    }

    pub(super) fn go_on(&mut self) -> Result<(), InvalidRecord> {
        if let Some(id) = self.replayed.invalid {
            return Err(InvalidRecord(id));
        }
        self.replier.resume(self.replayed.counter_limit);
        self.service_base_s = self.sessions.last_active_s();
        if self.config.sealed {
            self.sessions.keep_half_for_sealed();
        }
        Ok(())
    }
}
