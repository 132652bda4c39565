//! Journals whose commits land when a test, or a simulation, thinks fit.
//!
//! A [`ByHand`] writes in the caller's thread, when its commits are landed. Once a test [holds](Hand::hold) them, they stay under
//! way until it [runs](Hand::run) them, or until whoever has appended them waits for them. Writing and syncing can be two steps
//! ([`Hand::write_ahead`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, iter, mem};

use crate::journal::{Commit, Durable, Journal, JournalError, Landed, Room, StorageError};

/// Writes commits one after another, each of them all or nothing.
pub trait WriteCommit: Send {
    /// A commit that is written, and not durable.
    type Written: Send;
    /// Returns what [`Journal::durable`] does.
    fn durable(&self) -> Durable;
    /// Makes a commit durable before it returns. The first error is final.
    ///
    /// # Errors
    /// As those of [`Journal::land`].
    fn write(&mut self, commit: Commit) -> Result<Landed, JournalError>;
    /// Writes a commit, which [`sync`](Self::sync) makes durable. The first error is final.
    ///
    /// # Errors
    /// As those of [`Journal::land`].
    fn write_ahead(&mut self, commit: Commit) -> Result<Self::Written, JournalError>;
    /// Makes durable all that was written, in one step, and returns what came of each in the same order.
    fn sync(&mut self, written: Vec<Self::Written>) -> Vec<Result<Landed, JournalError>>;
    /// Returns what [`Journal::room`] does.
    ///
    /// # Errors
    /// As there.
    fn room(&self, reserve_bytes: u64) -> Result<Room, StorageError>;
    /// Returns what [`Journal::failure`] does.
    fn failure(&self) -> Option<JournalError>;
}

/// A journal over such a writer.
pub struct ByHand<W: WriteCommit>(Hand<W>);

/// The hand that lets a journal's commits land. Clones are the same hand.
pub struct Hand<W: WriteCommit>(Arc<Mutex<Commits<W>>>);

struct Commits<W: WriteCommit> {
    writer: W,
    under_way_max: usize,
    /// Nothing is written before it is waited for, or run.
    held: bool,
    waiting: VecDeque<Commit>,
    /// Written, and not synced.
    ahead: Vec<W::Written>,
    ended: VecDeque<Result<Landed, JournalError>>,
    notify: Option<Box<dyn Fn() + Send>>,
}

impl<W: WriteCommit> Clone for Hand<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: WriteCommit> Hand<W> {
    /// From now on commits stay under way, so many at most.
    pub fn hold(&self, under_way_max: usize) {
        let mut commits = self.lock();
        (commits.held, commits.under_way_max) = (true, under_way_max);
    }

    /// Lets the oldest commit under way land, if there is one, and with it those that were written after it.
    pub fn run(&self) {
        self.lock().run();
    }

    /// Writes the oldest commit that waits, without a sync. False if none waits, or if that has failed: then it has ended.
    pub fn write_ahead(&self) -> bool {
        self.lock().write_ahead()
    }

    /// Whether a commit waits for the test to let it land.
    pub fn has_work(&self) -> bool {
        let commits = self.lock();
        !commits.waiting.is_empty() || !commits.ahead.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Commits<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: WriteCommit> Commits<W> {
    fn under_way(&self) -> usize {
        self.waiting.len() + self.ahead.len() + self.ended.len()
    }

    fn run(&mut self) {
        if !self.ahead.is_empty() {
            let written = mem::take(&mut self.ahead);
            self.ended.extend(self.writer.sync(written));
        } else if let Some(commit) = self.waiting.pop_front() {
            let ended = self.writer.write(commit);
            self.ended.push_back(ended);
        } else {
            return;
        }
        self.notify.iter().for_each(|notify| notify());
    }

    fn write_ahead(&mut self) -> bool {
        let Some(commit) = self.waiting.pop_front() else { return false };
        match self.writer.write_ahead(commit) {
            Ok(written) => self.ahead.push(written),
            Err(error) => {
                // Those before it are synced no more.
                let all = self.ahead.drain(..).count() + 1;
                self.ended.extend(iter::repeat_with(|| Err(error.clone())).take(all));
                self.notify.iter().for_each(|notify| notify());
                return false;
            }
        }
        true
    }
}

impl<W: WriteCommit> ByHand<W> {
    pub(in crate::journal) fn new(writer: W) -> Self {
        let (waiting, ahead, ended) = (VecDeque::new(), Vec::new(), VecDeque::new());
        let commits = Commits { writer, under_way_max: 1, held: false, waiting, ahead, ended, notify: None };
        Self(Hand(Arc::new(Mutex::new(commits))))
    }

    /// How many commits may be under way.
    #[cfg(test)]
    pub(in crate::journal) fn under_way_max(&self) -> usize {
        self.0.lock().under_way_max
    }

    /// For whoever decides when its commits land.
    pub fn hand(&self) -> Hand<W> {
        self.0.clone()
    }
}

/// A defect of the caller. Nothing was written.
fn misused(action: &str, cause: &str) -> JournalError {
    JournalError::Failed(StorageError::new(action, cause))
}

impl<W: WriteCommit> Journal for ByHand<W> {
    fn durable(&self) -> Durable {
        self.0.lock().writer.durable()
    }

    fn has_place(&self, _bytes: usize) -> bool {
        let commits = self.0.lock();
        commits.under_way() < commits.under_way_max
    }

    fn append(&mut self, commit: Commit) -> Result<(), JournalError> {
        let mut commits = self.0.lock();
        if let Some(error) = commits.writer.failure() {
            return Err(error);
        }
        if commits.under_way() >= commits.under_way_max {
            return Err(misused("appending a commit", "as many are under way as may be"));
        }
        commits.waiting.push_back(commit);
        Ok(())
    }

    fn landed(&self) -> bool {
        let commits = self.0.lock();
        !commits.ended.is_empty() || !commits.held && commits.under_way() > 0
    }

    fn land(&mut self) -> Result<Landed, JournalError> {
        let mut commits = self.0.lock();
        if commits.ended.is_empty() {
            commits.run();
        }
        commits.ended.pop_front().unwrap_or_else(|| Err(misused("landing a commit", "none is under way")))
    }

    fn notify_landings(&mut self, notify: Box<dyn Fn() + Send>) -> io::Result<()> {
        self.0.lock().notify = Some(notify);
        Ok(())
    }

    fn room(&self, reserve_bytes: u64) -> Result<Room, StorageError> {
        self.0.lock().writer.room(reserve_bytes)
    }

    fn failure(&self) -> Option<JournalError> {
        self.0.lock().writer.failure()
    }
}
