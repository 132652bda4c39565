//! What a lane is asked for. To reopen and to end are not lost, however many other requests wait and whatever the lane is at:
//! they are notes beside the queue, and what goes through that only wakes the lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::cursors::Cursors;
use super::retried::RetryReply;
use crate::journal::DeadLetterId;
use crate::limits;
use crate::model::Offset;

/// What goes through the queue.
#[derive(Debug)]
pub(super) enum LaneCommand {
    /// Wakes the lane, which looks at the notes.
    Look,
    /// Asks to present a dead letter once more, if it is still there; it is deleted when that is done, durably.
    RetryDead { id: DeadLetterId, reply: RetryReply },
    /// Asks a configured sink to go on at another place.
    Seek(Seek),
}

/// Where an operator wants a configured sink to go on, and who wait until that is durable.
#[derive(Debug)]
pub(super) struct Seek {
    pub(super) to: Offset,
    pub(super) cursors: Arc<Cursors>,
    pub(super) replies: Vec<Sender<()>>,
}

#[derive(Debug)]
struct Notes {
    /// Files are to be opened anew.
    reopen: AtomicBool,
    /// The lane is to process what is durable, until this time of the monotonic clock at the latest, and to end; [`NEVER`] when
    /// that was not asked for.
    drain_by_us: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// The end of whoever asks things of a lane.
#[derive(Debug)]
pub(super) struct Asker {
    notes: Arc<Notes>,
    commands: Sender<LaneCommand>,
}

/// The end of the lane that is asked.
#[derive(Debug)]
pub(super) struct Asked {
    notes: Arc<Notes>,
    pub(super) commands: Receiver<LaneCommand>,
}

pub(super) fn asked() -> (Asker, Asked) {
    let notes = Arc::new(Notes { reopen: AtomicBool::new(false), drain_by_us: AtomicU64::new(NEVER) });
    let (sender, commands) = bounded(limits::LANE_COMMANDS);
    (Asker { notes: Arc::clone(&notes), commands: sender }, Asked { notes, commands })
}

impl Asker {
    pub(super) fn reopen(&self) {
        self.notes.reopen.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn drain(&self, deadline_mono_us: u64) {
        self.notes.drain_by_us.fetch_min(deadline_mono_us.min(NEVER - 1), Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn send(&self, command: LaneCommand) -> Result<(), TrySendError<LaneCommand>> {
        self.commands.try_send(command)
    }

    pub(super) fn wake(&self) {
        // A queue that is full wakes the lane as well: it looks at the notes after what it takes out of there.
        drop(self.send(LaneCommand::Look));
    }
}

impl Asked {
    /// Whether to reopen was asked for since this was last called.
    pub(super) fn take_reopen(&self) -> bool {
        self.notes.reopen.load(Ordering::Relaxed) && self.notes.reopen.swap(false, Ordering::SeqCst)
    }

    /// Until when to go on, once an end was asked for.
    pub(super) fn drain_by_us(&self) -> Option<u64> {
        Some(self.notes.drain_by_us.load(Ordering::SeqCst)).filter(|&at| at != NEVER)
    }
}
