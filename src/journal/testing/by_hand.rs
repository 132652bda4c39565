//! Journals whose commits land when a test, or a simulation, thinks fit.
//!
//! A [`ByHand`] writes in the caller's thread, when its commits are landed. Once a test [holds](Hand::hold) them, they stay under
//! way until it [runs](Hand::run) them, or until whoever has appended them waits for them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::{Commit, Durable, Journal, JournalError, Landed, Room, StorageError};

/// Writes commits one after another, each of them all or nothing.
pub trait WriteCommit: Send {
    /// Returns what [`Journal::durable`] does.
    fn durable(&self) -> Durable;
    /// Makes a commit durable before it returns. The first error is final.
    ///
    /// # Errors
    /// As those of [`Journal::land`].
    fn write(&mut self, commit: Commit) -> Result<Landed, JournalError>;
    /// Returns what [`Journal::room`] does.
    ///
    /// # Errors
    /// As there.
    fn room(&self, reserve_bytes: u64) -> Result<Room, StorageError>;
    /// Returns what [`Journal::failure`] does.
    fn failure(&self) -> Option<JournalError>;
}

/// A journal over such a writer.
pub struct ByHand<W>(Hand<W>);

/// The hand that lets a journal's commits land. Clones are the same hand.
pub struct Hand<W>(Arc<Mutex<Commits<W>>>);

struct Commits<W> {
    writer: W,
    under_way_max: usize,
    /// Nothing is written before it is waited for, or run.
    held: bool,
    waiting: VecDeque<Commit>,
    ended: VecDeque<Result<Landed, JournalError>>,
    notify: Option<Box<dyn Fn() + Send>>,
}

impl<W> Clone for Hand<W> {
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

    /// Writes the oldest commit that waits, if one does.
    pub fn run(&self) {
        self.lock().run();
    }

    /// Whether a commit waits for the test to let it land.
    pub fn has_work(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Commits<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: WriteCommit> Commits<W> {
    fn run(&mut self) {
        if let Some(commit) = self.waiting.pop_front() {
            let ended = self.writer.write(commit);
            self.ended.push_back(ended);
            if let Some(notify) = &self.notify {
                notify();
            }
        }
    }
}

impl<W: WriteCommit> ByHand<W> {
    pub(in crate::journal) fn new(writer: W) -> Self {
        let (waiting, ended) = (VecDeque::new(), VecDeque::new());
        let commits = Commits { writer, under_way_max: 1, held: false, waiting, ended, notify: None };
        Self(Hand(Arc::new(Mutex::new(commits))))
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

    fn under_way_max(&self) -> usize {
        self.0.lock().under_way_max
    }

    fn append(&mut self, commit: Commit) -> Result<(), JournalError> {
        let mut commits = self.0.lock();
        if let Some(error) = commits.writer.failure() {
            return Err(error);
        }
        if commits.waiting.len() + commits.ended.len() >= commits.under_way_max {
            return Err(misused("appending a commit", "as many are under way as may be"));
        }
        commits.waiting.push_back(commit);
        Ok(())
    }

    fn landed(&self) -> bool {
        let commits = self.0.lock();
        !commits.ended.is_empty() || !commits.held && !commits.waiting.is_empty()
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
