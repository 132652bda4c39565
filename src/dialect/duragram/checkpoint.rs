//! What a checkpoint takes of the sessions: records of those that have changed, and the end of those that are idle for long.

use crate::dialect::Touched;
use crate::dialect::duragram::Duragram;
use crate::limits;
use crate::model::{Now, SessionId};

impl Duragram {
    /// Lets idle sessions expire. Returns how many have changed since the last checkpoint.
    pub(super) fn expire(&mut self, now: Now) -> usize {
        // Before records are taken: a session that has changed since the last checkpoint does not expire.
        let expire_before_s = self.service_s(now).saturating_sub(self.config.session_ttl_s);
        let mut expired = self.sessions.expire(expire_before_s, limits::SESSIONS_SWEPT);
        expired.append(&mut self.evicted);
        self.metrics.sessions_expired.inc_by(expired.len() as u64);
        self.expired = expired;
        self.sessions.touched()
    }

    pub(super) fn touched(&mut self, count_max: usize, bytes_max: usize) -> Touched {
        let (taken, sessions) = self.sessions.take_touched(count_max, bytes_max);
        Touched { taken, sessions, ..Touched::default() }
    }

    /// The sessions that had expired when the checkpoint began: all that they count was in an earlier one.
    pub(super) fn forgotten(&mut self) -> Vec<SessionId> {
        let mut expired = std::mem::take(&mut self.expired);
        // One that was opened again meanwhile has a record that must stay.
        expired.retain(|id| self.sessions.find(*id).is_none());
        expired
    }
}
