//! The lanes' threads: a loop around [`LaneWorker::step`] that sleeps when there is nothing to do.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, bounded};

use super::asked::{Asker, LaneCommand, asked};
use super::handler::{HandlerError, HandlerFactory, LaneStart};
use super::lane::{LaneParts, LaneStep, LaneWorker};
use super::progress::Fanout;
use super::retried::RetryError;
use crate::journal::{DeadLetter, StorageError};
use crate::limits;
use crate::model::{Clock, Lane, SinkId};

/// The lanes before their threads start: whoever drives them by hand needs nothing else.
#[derive(Debug)]
pub struct Lanes {
    /// The lanes, in lane order.
    pub workers: Vec<LaneWorker>,
    /// The end of the lanes that the committer holds.
    pub fanout: Fanout,
    /// The handle by which signals and the admin interface ask things of the lanes.
    pub control: LaneControl,
}

/// What a lane's thread left when it ended.
#[derive(Debug)]
pub struct LaneEnd {
    /// The lane that has ended.
    pub lane: Lane,
    /// Whether it had processed all that was durable when it was asked to end; or why the server must stop.
    pub drained: Result<bool, StorageError>,
}

impl Lanes {
    /// Makes each lane with its handler. Sinks are opened by this, so that one that cannot be is an error at start.
    ///
    /// Make the committer's first checkpoint after this: it then holds what the handlers returned.
    ///
    /// # Errors
    /// A handler could not be made, or its first flush failed.
    pub fn build(parts: &LaneParts, factory: &mut HandlerFactory) -> Result<Self, HandlerError> {
        let progress = &parts.progress;
        let marks = progress.marks();
        let (fanout, blocks) = Fanout::new(progress);
        let mut workers = Vec::with_capacity(marks.len());
        let mut askers = Vec::with_capacity(marks.len());
        for (lane, blocks) in (0..).map(Lane).zip(blocks) {
            let (durable_end, left) = (progress.durable_end(), progress.left());
            let (journal, instance) = (parts.journal.id(), parts.journal.instance());
            let sink = SinkId::EMBEDDED;
            let start = LaneStart { journal, instance, sink, lane, marks: &marks, durable_end, left };
            let handler = factory(&start)?;
            let (asker, asked) = asked();
            workers.push(LaneWorker::new(lane, parts, blocks, asked, handler)?);
            askers.push(asker);
        }
        Ok(Self { workers, fanout, control: LaneControl { lanes: askers.into() } })
    }
}

/// Starts a thread for each lane. Each sends its end on the returned channel: after [`LaneControl::drain`], or when the
/// server must stop because of it. A thread that its handler blocks may outlive the deadline; so wait on the channel with
/// a timeout rather than join.
///
/// # Errors
/// The system gives no thread. Those that were started end when the last [`LaneControl`] is dropped.
pub fn spawn_lanes<C>(workers: Vec<LaneWorker>, clock: C) -> io::Result<Receiver<LaneEnd>>
where
    C: Clock + Clone + Send + 'static,
{
    let (sender, ends) = bounded(workers.len());
    for worker in workers {
        let (clock, sender) = (clock.clone(), sender.clone());
        thread::Builder::new().name(format!("lane-{}", worker.lane())).spawn(move || {
            let lane = worker.lane();
            let drained = catch_unwind(AssertUnwindSafe(|| run(worker, &clock)))
                .unwrap_or_else(|_| Err(StorageError::new(format!("lane {lane}"), "it panicked, outside its handler")));
            // There is room for every lane's end; only nobody may be interested.
            drop(sender.send(LaneEnd { lane, drained }));
        })?;
    }
    Ok(ends)
}

fn run(mut worker: LaneWorker, clock: &impl Clock) -> Result<bool, StorageError> {
    // Whether anything was done since the last wait.
    let mut worked = false;
    loop {
        let now = clock.now();
        let (blocks_too, until_us) = match worker.step(now) {
            LaneStep::Worked => {
                worked = true;
                continue;
            }
            // While blocks keep coming the lane naps and takes all that have come at once. Nobody waits for it, and
            // being woken for each block would cost the committer a system call a lane and commit.
            LaneStep::Idle { .. } if std::mem::take(&mut worked) => {
                thread::sleep(Duration::from_micros(limits::LANE_NAP_US));
                continue;
            }
            LaneStep::Idle { until_us } => (true, until_us),
            LaneStep::RetryAt(at) => (false, Some(at)),
            LaneStep::Finished { drained } => return Ok(drained),
            LaneStep::Failed(error) => return Err(error),
        };
        if blocks_too && !worker.may_sleep() {
            continue;
        }
        let (blocks, commands) = worker.channels();
        let mut select = Select::new();
        select.recv(commands);
        if let (true, Some(blocks)) = (blocks_too, blocks) {
            select.recv(blocks);
        }
        match until_us {
            None => drop(select.ready()),
            Some(at) => drop(select.ready_timeout(Duration::from_micros(at.saturating_sub(now.mono_us)))),
        }
    }
}

/// Asks things of running lanes. Cheap to clone; when the last clone is dropped, the lanes end.
#[derive(Clone, Debug)]
pub struct LaneControl {
    lanes: Arc<[Asker]>,
}

/// A lane could not be asked: it has ended, or has not answered earlier requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("lane {lane} does not take requests now")]
pub struct LaneBusy {
    /// The lane that was asked.
    pub lane: Lane,
}

impl LaneControl {
    /// How many lanes there are.
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Lets every handler open its files anew (SIGHUP). Returns at once.
    pub fn reopen(&self) {
        self.lanes.iter().for_each(Asker::reopen);
    }

    /// Presents a dead letter to its handler once more, when the lane has no other record open, and if the letter is still
    /// there by then. A checkpoint that stores the handler's state deletes it.
    ///
    /// The answer comes on the returned channel; after `Err` the letter is as it was. When the
    /// channel closes without an answer, the lane has ended. Wait with a timeout: a lane whose handler blocks, or cannot
    /// flush, answers late. Whoever asks again for a letter that was processed meanwhile gets the same answer.
    ///
    /// # Errors
    /// [`LaneBusy`]; nothing has changed.
    pub fn retry_dead(&self, letter: &DeadLetter) -> Result<Receiver<Result<(), RetryError>>, LaneBusy> {
        let lane = Lane::of(letter.session, u16::try_from(self.lanes.len()).unwrap_or(u16::MAX));
        let (reply, answer) = bounded(1);
        let command = LaneCommand::RetryDead { id: letter.id, reply };
        self.lanes[usize::from(lane.0)].send(command).map_err(|_| LaneBusy { lane })?;
        Ok(answer)
    }

    /// Lets every lane process what is durable, until this time of the monotonic clock at the latest, flush, and end.
    /// Call it when the committer has published its last block.
    pub fn drain(&self, deadline_mono_us: u64) {
        self.lanes.iter().for_each(|lane| lane.drain(deadline_mono_us));
    }
}
