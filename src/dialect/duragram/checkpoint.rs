//! What a checkpoint takes of sessions and asks: records of those that have changed, and the end of those that are idle for long.

use crate::dialect::Touched;
use crate::dialect::duragram::Duragram;
use crate::limits;
use crate::model::{Now, SessionId, SessionRecord};

impl Duragram {
    /// Lets idle sessions expire. Returns how many have changed since the last checkpoint.
    pub(super) fn expire(&mut self, now: Now) -> usize {
        // Before records are taken: a session that has changed since the last checkpoint does not expire.
        let expire_before_s = self.service_s(now).saturating_sub(self.config.session_ttl_s);
        let mut expired = self.sessions.expire(expire_before_s, limits::SESSIONS_SWEPT);
        for &id in &expired {
            self.end_asks_of(id);
        }
        expired.append(&mut self.evicted);
        self.metrics.sessions_expired.inc_by(expired.len() as u64);
        self.expired = expired;
        let untaken = self.asks.expire(self.service_s(now).saturating_sub(self.config.asks.answer_ttl_s));
        self.metrics.asks_expired.inc_by(untaken.len() as u64);
        self.ended(untaken);
        self.answers_below = self.answers_number;
        self.round_sessions = self.sessions.touched();
        self.round_sessions + self.asks.begin_round()
    }

    pub(super) fn touched(&mut self, count_max: usize, bytes_max: usize) -> Touched {
        // Sessions that change meanwhile must not take the place of asks that had changed before: the records of these are what
        // takes the place of answers that the checkpoint deletes.
        let (sessions_taken, sessions) = self.sessions.take_touched(count_max.min(self.round_sessions), bytes_max);
        self.round_sessions -= sessions_taken;
        let words = sessions.iter().map(|record| record.above.len()).sum::<usize>();
        let bytes = sessions.len() * size_of::<SessionRecord>() + words * size_of::<u64>();
        let (asks_taken, asks, forgotten) =
            self.asks.take_round(count_max - sessions_taken, bytes_max.saturating_sub(bytes));
        Touched { taken: sessions_taken + asks_taken, sessions, asks, forgotten }
    }

    /// The sessions that had expired when the checkpoint began: all that they count was in an earlier one.
    pub(super) fn forgotten(&mut self) -> Vec<SessionId> {
        let mut expired = std::mem::take(&mut self.expired);
        // One that was opened again meanwhile has a record that must stay.
        expired.retain(|id| self.sessions.find(*id).is_none());
        expired
    }
}
