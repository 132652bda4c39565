//! Whether the committer's thread lives, for a watchdog.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

/// Looks at the committer's thread from outside.
#[derive(Debug)]
pub struct LivenessProbe {
    /// Counts the rounds of the thread's loop; gone with the thread.
    rounds: Weak<AtomicU64>,
    /// The count at the last look.
    last: Option<u64>,
}

/// [`LivenessProbe::check`] finds one of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveness {
    /// The thread has gone round its loop since the last look.
    Alive,
    /// It has not. With nothing to do it goes round every [`limits::RECEIVE_WAIT_MS`](crate::limits::RECEIVE_WAIT_MS).
    Stuck,
    /// It has ended, because it was asked to or by itself.
    Ended,
}

impl LivenessProbe {
    pub(super) fn new(rounds: Weak<AtomicU64>) -> Self {
        Self { rounds, last: None }
    }

    /// Looks whether the thread has gone round its loop since the last look.
    pub fn check(&mut self) -> Liveness {
        let Some(rounds) = self.rounds.upgrade() else { return Liveness::Ended };
        let now = Some(rounds.load(Ordering::Relaxed));
        if std::mem::replace(&mut self.last, now) == now { Liveness::Stuck } else { Liveness::Alive }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_thread_that_goes_round_is_told_from_one_that_hangs_and_one_that_has_ended() {
        let rounds = Arc::new(AtomicU64::new(0));
        let mut probe = LivenessProbe::new(Arc::downgrade(&rounds));
        assert_eq!(probe.check(), Liveness::Alive, "not known to hang");
        assert_eq!(probe.check(), Liveness::Stuck);
        rounds.fetch_add(1, Ordering::Relaxed);
        assert_eq!((probe.check(), probe.check()), (Liveness::Alive, Liveness::Stuck));
        drop(rounds);
        assert_eq!(probe.check(), Liveness::Ended);
    }
}
