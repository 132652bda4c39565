//! The memory of sessions, epochs and asks, rebuilt from what the journal replays.

use crate::dialect::InvalidRecord;
use crate::dialect::duragram::Duragram;
use crate::journal::Replay;
use crate::model::{AskId, EntryKind, SessionId};

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
            Replay::Ask(record) => self.asks.restore(record),
            Replay::Answers(record) => {
                self.answers_number = self.answers_number.max(record.number.saturating_add(1));
                record.answers.into_iter().for_each(|answer| self.asks.replay_answer(answer));
            }
            Replay::CounterLimit(limit) => self.replayed.counter_limit = limit,
            Replay::Block(block) => {
                for entry in block.entries() {
                    if entry.meta.sealed {
                        self.epochs.replay(entry.meta.session);
                    }
                    self.sessions.replay(&entry, self.replayed.service_s);
                    if entry.meta.asks && entry.kind == EntryKind::Data {
                        let id = AskId { session: entry.meta.session, seq: entry.meta.seq };
                        self.asks.replay(id, entry.offset, entry.meta.sealed);
                    }
                }
            }
        }
    }

    pub(super) fn go_on(&mut self) -> Result<(), InvalidRecord> {
        if let Some(id) = self.replayed.invalid {
            return Err(InvalidRecord(id));
        }
        self.replier.resume(self.replayed.counter_limit);
        self.service_base_s = self.sessions.last_active_s().max(self.asks.latest_answer_s());
        if self.config.sealed {
            self.sessions.keep_half_for_sealed();
            self.asks.keep_half_for_sealed();
        }
        let sessions = &mut self.sessions;
        let answered = self.asks.settle(|id| sessions.find(id).map(|index| sessions.at(index).is_sealed()));
        for id in answered {
            if let Some(index) = self.sessions.find(id) {
                let session = self.sessions.at(index);
                session.ready = session.ready.saturating_add(1);
            }
        }
        Ok(())
    }
}
