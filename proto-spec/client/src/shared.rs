//! Where callers and the driver meet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use duragram_proto::{Epoch, Seq};

use super::core::{AnswerOutcome, Asker, Core, Outcome, Push, PushedAsk, Refused};
use super::{Incomplete, SendError, Stats};

/// The core, its clock, and who is to be woken by what. The lock is never held across an await or a system call.
#[derive(Debug)]
pub(super) struct Shared {
    origin: Instant,
    state: Mutex<State>,
    /// Callers that wait for room, served in turn: the one at the front holds the gate.
    gate: tokio::sync::Mutex<()>,
    /// To the caller at the gate: try again.
    room: Notify,
    /// Wakes callers that wait in `flush`, so that they look again.
    progress: Notify,
    /// Wakes the driver when a caller has added something.
    pub(super) work: Notify,
}

/// Callers and the driver share this, and hold the lock only briefly.
#[derive(Debug)]
pub(super) struct State {
    pub(super) core: Core,
    /// Where the server is from now on; taken by the driver.
    pub(super) moved_to: Option<String>,
    pub(super) reroutes: u64,
    /// Why nothing gets to the server.
    pub(super) trouble: Option<String>,
}

impl Shared {
    pub(super) fn new(core: Core) -> Self {
        Self {
            origin: Instant::now(),
            state: Mutex::new(State { core, moved_to: None, reroutes: 0, trouble: None }),
            gate: tokio::sync::Mutex::new(()),
            room: Notify::new(),
            progress: Notify::new(),
            work: Notify::new(),
        }
    }

    /// A caller that panicked while it held the lock has left a whole core: every change is made before its result is
    /// looked at.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn instant(&self, now_us: u64) -> Instant {
        self.origin + std::time::Duration::from_micros(now_us)
    }

    pub(super) async fn push(&self, channel: u16, record: &[u8]) -> Result<oneshot::Receiver<Outcome>, Refused> {
        let _turn = self.gate.lock().await;
        loop {
            let room = self.room.notified();
            // Outside of the match, whose scrutinee would keep the lock.
            let push = self.state().core.push(self.now_us(), channel, record)?;
            // Also when full: the push may have turned a batch into a message.
            self.work.notify_one();
            match push {
                Push::Taken(outcome) => return Ok(outcome),
                Push::Full => room.await,
            }
        }
    }

    /// As [`Shared::push`], without waiting for a turn or for room: who only tries holds up nobody, and may go ahead.
    pub(super) fn try_push(&self, channel: u16, record: &[u8]) -> Result<oneshot::Receiver<Outcome>, SendError> {
        let push = self.state().core.push(self.now_us(), channel, record)?;
        self.work.notify_one();
        match push {
            Push::Taken(outcome) => Ok(outcome),
            Push::Full => Err(SendError::Full),
        }
    }

    /// As [`Shared::push`], for a record that asks.
    pub(super) async fn push_ask(&self, channel: u16, record: &[u8]) -> Result<PushedAsk, Refused> {
        let _turn = self.gate.lock().await;
        loop {
            let room = self.room.notified();
            let pushed = self.state().core.push_ask(self.now_us(), channel, record)?;
            self.work.notify_one();
            match pushed {
                Some(pushed) => return Ok(pushed),
                None => room.await,
            }
        }
    }

    /// As [`Shared::try_push`], for a record that asks.
    pub(super) fn try_push_ask(&self, channel: u16, record: &[u8]) -> Result<PushedAsk, SendError> {
        let pushed = self.state().core.push_ask(self.now_us(), channel, record)?;
        self.work.notify_one();
        pushed.ok_or(SendError::Full)
    }

    pub(super) fn take(&self, epoch: Epoch, seq: Seq) -> Result<oneshot::Receiver<AnswerOutcome>, SendError> {
        let taken = self.state().core.take(self.now_us(), epoch, seq);
        self.work.notify_one();
        taken
    }

    pub(super) fn wake(&self) {
        self.state().core.wake(self.now_us());
        self.work.notify_one();
    }

    pub(super) fn forget(&self, asker: Asker) {
        self.state().core.forget(asker);
        self.work.notify_one();
    }

    /// Waits until the server was told that it need not keep what was had, if it is to be told.
    pub(super) async fn farewell(&self) {
        self.state().core.finish_asks();
        self.work.notify_one();
        loop {
            let progress = self.progress.notified();
            if !self.state().core.owes_farewell() {
                return;
            }
            progress.await;
        }
    }

    pub(super) fn abandon_oldest(&self) -> u64 {
        let records = self.state().core.abandon_oldest();
        // The driver goes by the machine's deadline, which is another one now.
        self.work.notify_one();
        self.tell_news();
        records
    }

    pub(super) async fn flush(&self) {
        let target = self.state().core.hurry();
        self.work.notify_one();
        loop {
            let progress = self.progress.notified();
            if self.state().core.is_settled(target) {
                return;
            }
            progress.await;
        }
    }

    /// Wakes those who wait for room or for a flush, after something was settled.
    pub(super) fn tell_news(&self) {
        self.room.notify_one();
        self.progress.notify_waiters();
    }

    pub(super) fn refuse_more(&self) {
        self.state().core.refuse_more();
        self.room.notify_one();
    }

    pub(super) fn end(&self) -> Incomplete {
        let incomplete = self.state().core.end();
        self.tell_news();
        incomplete
    }

    pub(super) fn set_server(self: &Arc<Self>, server: String) {
        self.state().moved_to = Some(server);
        self.work.notify_one();
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    pub(super) fn stats(&self) -> Stats {
        let state = self.state();
        Stats { reroutes: state.reroutes, ..state.core.stats() }
    }
}
