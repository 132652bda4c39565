//! How asks are opened, what processing says of them, and what follows when they end.

use std::sync::Arc;

use super::answer::{Due, Says};
use super::table::Gone;
use crate::dialect::duragram::Duragram;
use crate::model::{AnswerRecord, AskId, AskRecord, LaneAnswer, Now, Offset, Processed, SessionId};

impl Duragram {
    /// Whether what asks may be journaled: a session may have one more ask.
    pub(in crate::dialect::duragram) fn may_ask(&self, session: SessionId, sealed: bool) -> bool {
        self.asks.has_room(session, sealed)
    }

    /// Opens an ask, for which there is room: its entry is part of the commit being built.
    pub(in crate::dialect::duragram) fn ask(&mut self, id: AskId, offset: Offset, sealed: bool) {
        let gave_way = self.asks.make_room(id.session, sealed);
        self.metrics.asks_expired.inc_by(u64::from(gave_way.is_some()));
        let before = self.asks.open(id, offset, self.number, sealed);
        self.ended(gave_way.into_iter().chain(before));
        self.opened.push(id);
    }

    /// Takes in what a lane says of records that asked.
    pub(in crate::dialect::duragram) fn take_answers(&mut self, answers: Vec<LaneAnswer>, now: Now) {
        for LaneAnswer { id, offset, failed, body } in answers {
            self.take_answer(id, offset, failed, body, now);
        }
    }

    /// Takes in what processing says of all asks that are open below an offset.
    pub(in crate::dialect::duragram) fn take_processed(&mut self, processed: Processed, now: Now) {
        match processed {
            Processed::ByAll(below) => {
                let nothing: Arc<[u8]> = Arc::default();
                for (id, offset) in self.asks.open_below(below) {
                    self.take_answer(id, offset, false, Arc::clone(&nothing), now);
                }
            }
            Processed::Passed(below) => {
                let passed = self.asks.open_below(below);
                if passed.is_empty() {
                    return;
                }
                self.metrics.asks_expired.inc_by(passed.len() as u64);
                if let Some(suppressed) = self.client_log.allows(now) {
                    tracing::warn!(
                        asks = passed.len(), %below, suppressed,
                        "no answer will come to messages that the sink which answers is beyond; their clients are told so",
                    );
                }
                let gone: Vec<Gone> = passed.into_iter().filter_map(|(id, _)| self.asks.forget(id)).collect();
                self.ended(gone);
            }
        }
    }

    /// The first answer to an open ask stands; all else is nothing.
    fn take_answer(&mut self, id: AskId, offset: Offset, failed: bool, body: Arc<[u8]>, now: Now) {
        // Lanes refuse a longer one to its handler: memory is bounded here whatever they do.
        let body = if body.len() > self.config.asks.answer_bytes_max { Arc::default() } else { body };
        let answer = AnswerRecord { failed, body, answered_s: self.service_s(now) };
        let Some(ask) = self.asks.answer(id, offset, answer.clone(), self.number) else { return };
        let (held, acked_us) = (ask.held.take(), ask.acked_us());
        if acked_us > 0 {
            self.waited_since.push(acked_us);
        }
        if let Some(index) = self.sessions.find(id.session) {
            let session = self.sessions.at(index);
            session.ready = session.ready.saturating_add(1);
            // Its next ack says READY.
            session.changed_for = self.number;
        }
        if let Some(held) = held {
            let held = self.held.release(*held);
            self.due.push(Due { to: held.to, id, says: Says::of(&answer), rests_on: self.number });
        }
        self.answers_bytes += size_of::<AskRecord>() + answer.body.len();
        self.answers.push(AskRecord { id, offset, answer: Some(answer) });
    }

    /// Says in the metrics how many there are.
    pub(in crate::dialect::duragram) fn report_asks(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let open = self.asks.open_len();
        self.metrics.asks_open.set(gauge(open));
        self.metrics.asks_answered.set(gauge(self.asks.len() - open));
        self.metrics.takes_held.set(gauge(self.held.len()));
    }

    /// The asks of a session that has ended are gone.
    pub(in crate::dialect::duragram) fn end_asks_of(&mut self, session: SessionId) {
        if self.asks.len() == 0 {
            return;
        }
        let ended = self.asks.end(session);
        self.metrics.asks_expired.inc_by(ended.len() as u64);
        self.ended(ended);
    }

    /// Asks were forgotten: who waits for one hears of it, and after a start they stay forgotten, as soon as anything else is
    /// written.
    pub(in crate::dialect::duragram) fn ended(&mut self, gone: impl IntoIterator<Item = Gone>) {
        for Gone { id, offset, answered, held } in gone {
            if answered && let Some(index) = self.sessions.find(id.session) {
                let session = self.sessions.at(index);
                session.ready = session.ready.saturating_sub(1);
            }
            if let Some(held) = held {
                let held = self.held.release(*held);
                self.due.push(Due { to: held.to, id, says: Says::Gone, rests_on: held.rests_on });
            }
            self.answers.push(AskRecord { id, offset, answer: None });
        }
    }
}
