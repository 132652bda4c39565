//! A commit on its way to the disk, and the thread that takes it there while the next block is being built.
//!
//! The journal travels with the commit: whoever holds a [`Commit`] is its only writer, so one commit is in flight at
//! most, and there is no lock.

use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::journal::{BlockBuilder, Checkpoint, Durable, Journal, SessionRecord, StorageError};

/// What is written in one synced batch, and the journal that it is written to.
pub(super) struct Commit<J> {
    pub(super) journal: J,
    pub(super) block: BlockBuilder,
    pub(super) records: Vec<SessionRecord>,
    pub(super) checkpoint: Option<Checkpoint>,
}

/// A commit that has ended, one way or the other.
pub(super) struct Landed<J> {
    pub(super) journal: J,
    /// Empty again.
    pub(super) block: BlockBuilder,
    pub(super) result: Result<Durable, StorageError>,
}

impl<J: Journal> Commit<J> {
    /// Writes and syncs.
    pub(super) fn run(self) -> Landed<J> {
        let Self { mut journal, mut block, records, checkpoint } = self;
        let result = journal.write(&mut block, &records, checkpoint.as_ref());
        Landed { journal, block, result }
    }
}

/// The thread.
pub(super) struct Writer<J> {
    /// Taken when it is dropped.
    commits: Option<Sender<Commit<J>>>,
    landed: Receiver<Landed<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Journal + 'static> Writer<J> {
    /// Calls `on_landing` whenever a commit has ended.
    pub(super) fn start(on_landing: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (commits, waiting) = bounded::<Commit<J>>(1);
        let (land, landed) = bounded(1);
        let run = move || {
            for commit in waiting {
                if land.send(commit.run()).is_err() {
                    break;
                }
                on_landing();
            }
        };
        let thread = thread::Builder::new().name("write".into()).spawn(run)?;
        Ok(Self { commits: Some(commits), landed, thread: Some(thread) })
    }
}

impl<J> Writer<J> {
    /// Takes a commit, unless the thread is gone.
    pub(super) fn launch(&self, commit: Commit<J>) -> Result<(), StorageError> {
        let sent = self.commits.as_ref().map(|commits| commits.send(commit).is_ok());
        if sent == Some(true) { Ok(()) } else { Err(gone()) }
    }

    /// Whether what was launched has ended, so that [`land`](Self::land) does not wait; also when the thread has panicked.
    pub(super) fn has_landed(&self) -> bool {
        !self.landed.is_empty() || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for what was launched.
    pub(super) fn land(&self) -> Result<Landed<J>, StorageError> {
        self.landed.recv().map_err(|_| gone())
    }
}

impl<J> Drop for Writer<J> {
    /// Waits for a commit in flight, so that the journal is closed when its committer is gone.
    fn drop(&mut self) {
        drop(self.commits.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the write thread panicked");
        }
    }
}

/// A defect of this program. Whether the commit is on the disk is unknown, as after a failed sync.
fn gone() -> StorageError {
    StorageError::new("handing a commit to the write thread", "the thread has panicked")
}
