//! The threads that write and sync large commits while the committer builds the next block.
//!
//! One writes a commit while the other syncs the one before it: the disk works without a pause, and the committer waits for neither.
//! What was written when a sync begins is covered by it, one commit or two.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::journal::database::Database;
use crate::journal::store::{Shared, StoredWriter, Written};
use crate::journal::{Commit, Landed, StorageError};
use crate::limits::COMMITS_UNDER_WAY;

/// So many commits are in it at most as may be under way.
pub(super) struct Pipeline {
    /// Taken when it is dropped.
    commits: Option<Sender<Commit>>,
    landed: Receiver<Result<Landed, StorageError>>,
    write: Option<JoinHandle<()>>,
    sync: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Calls `notify` whenever commits have landed.
    pub(super) fn start<D: Database>(
        writer: &Arc<Mutex<StoredWriter<D>>>,
        shared: &Arc<Shared<D>>,
        notify: Box<dyn Fn() + Send>,
    ) -> io::Result<Self> {
        let (commits, waiting) = bounded::<Commit>(COMMITS_UNDER_WAY);
        let (pass_on, written) = bounded(COMMITS_UNDER_WAY);
        let (tell, landed) = bounded(COMMITS_UNDER_WAY);
        let (writer, shared) = (Arc::clone(writer), Arc::clone(shared));
        // Each ends when the one before it in the pipeline has.
        let write = move || {
            for commit in waiting {
                let result = writer.lock().unwrap_or_else(PoisonError::into_inner).write_ahead(commit);
                if pass_on.send(result).is_err() {
                    break;
                }
            }
        };
        let sync = move || {
            while let Ok(first) = written.recv() {
                // One sync is for all that is written when it begins.
                let all: Vec<_> = std::iter::once(first).chain(written.try_iter()).collect();
                if sync_all(&shared, all).into_iter().any(|result| tell.send(result).is_err()) {
                    break;
                }
                notify();
            }
        };
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        let mut pipeline = Self { commits: Some(commits), landed, write: None, sync: None };
        pipeline.sync = Some(spawn("sync").spawn(sync)?);
        pipeline.write = Some(spawn("write").spawn(write)?);
        Ok(pipeline)
    }

    /// Gives it a commit to write and sync.
    ///
    /// # Errors
    /// The thread is gone. The commit was not written.
    pub(super) fn write(&self, commit: Commit) -> Result<(), StorageError> {
        let sent = self.commits.as_ref().map(|commits| commits.send(commit).is_ok());
        if sent == Some(true) { Ok(()) } else { Err(gone()) }
    }

    /// Whether [`landed`](Self::landed) would not wait, also because a thread is gone.
    pub(super) fn has_landed(&self) -> bool {
        !self.landed.is_empty() || self.sync.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the oldest commit that it was given, and returns what came of it.
    ///
    /// # Errors
    /// A thread is gone. Whether the commit is on the disk is unknown, as after a failed sync.
    pub(super) fn landed(&self) -> Result<Result<Landed, StorageError>, StorageError> {
        self.landed.recv().map_err(|_| gone())
    }
}

/// What comes of commits that were written: they land together, or none of them that is behind a failed write.
pub(in crate::journal) fn sync_all<D: Database>(
    shared: &Shared<D>,
    all: Vec<Result<Written, StorageError>>,
) -> Vec<Result<Landed, StorageError>> {
    let synced = if all.iter().any(Result::is_ok) { Some(shared.sync()) } else { None };
    let land = |written: Result<Written, StorageError>| match (&synced, written) {
        (Some(Ok(synced)), Ok(written)) => shared.land(written, *synced),
        (Some(Err(error)), Ok(_)) => Err(error.clone()),
        (_, Err(error)) => Err(error),
        (None, Ok(_)) => unreachable!("what is written is synced"),
    };
    all.into_iter().map(land).collect()
}

impl Drop for Pipeline {
    /// Waits for what it was given, so that the journal stands still when its owner is gone.
    fn drop(&mut self) {
        drop(self.commits.take());
        for thread in [self.write.take(), self.sync.take()].into_iter().flatten() {
            if thread.join().is_err() {
                tracing::error!("a thread that writes commits has panicked");
            }
        }
    }
}

/// A defect of this program.
fn gone() -> StorageError {
    StorageError::new("handing a commit to the thread that writes it", "the thread has panicked")
}
