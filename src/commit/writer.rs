//! A commit on its way to the disk, and the thread that takes it there while the next block is being built.
//!
//! The journal travels with the commit: whoever holds a [`Commit`] is its only writer, so one commit is in flight at
//! most, and there is no lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::journal::{BlockBuilder, Checkpoint, Durable, Journal, Records, StorageError};

/// What is written in one synced batch, and the journal that it is written to.
pub(super) struct Commit<J> {
    pub(super) journal: J,
    pub(super) block: BlockBuilder,
    pub(super) records: Records,
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

/// Who takes commits to the disk while the committer goes on.
pub(super) enum Writer<J> {
    Thread(WriterThread<J>),
    ByHand(WriterByHand<J>),
}

impl<J: Journal> Writer<J> {
    /// Takes a commit, unless the thread is gone.
    pub(super) fn launch(&self, commit: Commit<J>) -> Result<(), StorageError> {
        match self {
            Self::Thread(thread) => {
                let sent = thread.commits.as_ref().map(|commits| commits.send(commit).is_ok());
                if sent == Some(true) { Ok(()) } else { Err(gone()) }
            }
            Self::ByHand(hand) => {
                hand.lock().launched = Some(commit);
                Ok(())
            }
        }
    }

    /// Whether what was launched has ended, so that [`land`](Self::land) does not wait; also when the thread has panicked.
    pub(super) fn has_landed(&self) -> bool {
        match self {
            Self::Thread(thread) => {
                !thread.landed.is_empty() || thread.thread.as_ref().is_none_or(JoinHandle::is_finished)
            }
            Self::ByHand(hand) => hand.lock().landed.is_some(),
        }
    }

    /// Waits for what was launched.
    pub(super) fn land(&self) -> Result<Landed<J>, StorageError> {
        match self {
            Self::Thread(thread) => thread.landed.recv().map_err(|_| gone()),
            Self::ByHand(hand) => {
                hand.run();
                hand.lock().landed.take().ok_or_else(gone)
            }
        }
    }
}

/// The thread.
pub(super) struct WriterThread<J> {
    /// Taken when it is dropped.
    commits: Option<Sender<Commit<J>>>,
    landed: Receiver<Landed<J>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Journal + 'static> WriterThread<J> {
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

impl<J> Drop for WriterThread<J> {
    /// Waits for a commit in flight, so that the journal is closed when its committer is gone.
    fn drop(&mut self) {
        drop(self.commits.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the write thread panicked");
        }
    }
}

/// A writer whose work a simulator does when it thinks fit: a launched commit stays in flight until [`run`](Self::run) is
/// called, or until the committer waits for it.
#[doc(hidden)]
pub struct WriterByHand<J>(Arc<Mutex<Hand<J>>>);

struct Hand<J> {
    launched: Option<Commit<J>>,
    landed: Option<Landed<J>>,
}

impl<J> Clone for WriterByHand<J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<J: Journal> WriterByHand<J> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Hand { launched: None, landed: None })))
    }

    /// Writes and syncs what was launched, if anything was.
    pub fn run(&self) {
        let launched = self.lock().launched.take();
        if let Some(commit) = launched {
            let landed = commit.run();
            self.lock().landed = Some(landed);
        }
    }

    /// Whether something was launched and has not run.
    pub fn has_work(&self) -> bool {
        self.lock().launched.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Hand<J>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A defect of this program. Whether the commit is on the disk is unknown, as after a failed sync.
fn gone() -> StorageError {
    StorageError::new("handing a commit to the write thread", "the thread has panicked")
}
