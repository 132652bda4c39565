//! The thread that writes large commits while the committer builds the next block.
//!
//! The writer travels with the commit, to the thread and back: whoever holds it is the only one who writes, and there is no
//! lock.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::journal::database::Database;
use crate::journal::store::StoredWriter;
use crate::journal::{Commit, Landed, StorageError};

/// The writer again, and what came of the commit that it was sent with.
type Written<D> = (StoredWriter<D>, Result<Landed, StorageError>);

/// One commit is with it at most.
pub(super) struct WriteThread<D: Database> {
    /// Taken when it is dropped.
    commits: Option<Sender<(StoredWriter<D>, Commit)>>,
    written: Receiver<Written<D>>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Database> WriteThread<D> {
    /// Calls `notify` whenever a commit has ended.
    pub(super) fn start(notify: Box<dyn Fn() + Send>) -> io::Result<Self> {
        let (commits, waiting) = bounded::<(StoredWriter<D>, Commit)>(1);
        let (give_back, written) = bounded(1);
        let run = move || {
            for (mut writer, commit) in waiting {
                let result = writer.write(commit);
                if give_back.send((writer, result)).is_err() {
                    break;
                }
                notify();
            }
        };
        let thread = thread::Builder::new().name("write".into()).spawn(run)?;
        Ok(Self { commits: Some(commits), written, thread: Some(thread) })
    }

    /// Gives it a commit to write.
    ///
    /// # Errors
    /// The thread is gone, and the writer with it. The commit was not written.
    pub(super) fn write(&self, writer: StoredWriter<D>, commit: Commit) -> Result<(), StorageError> {
        let sent = self.commits.as_ref().map(|commits| commits.send((writer, commit)).is_ok());
        if sent == Some(true) { Ok(()) } else { Err(gone()) }
    }

    /// Whether [`written`](Self::written) would not wait, also because the thread is gone.
    pub(super) fn has_written(&self) -> bool {
        !self.written.is_empty() || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for what it was given.
    ///
    /// # Errors
    /// The thread is gone, and the writer with it. Whether the commit is on the disk is unknown, as after a failed sync.
    pub(super) fn written(&self) -> Result<Written<D>, StorageError> {
        self.written.recv().map_err(|_| gone())
    }
}

impl<D: Database> Drop for WriteThread<D> {
    /// Waits for what it was given, so that the journal stands still when its owner is gone.
    fn drop(&mut self) {
        drop(self.commits.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the write thread panicked");
        }
    }
}

/// A defect of this program.
fn gone() -> StorageError {
    StorageError::new("handing a commit to the write thread", "the thread has panicked")
}
