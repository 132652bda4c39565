//! The lanes' threads: a loop around [`LaneWorker::step`] that sleeps when there is nothing to do.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, bounded};

use super::asked::{Asker, LaneCommand, asked};
use super::cursor::Cursor;
use super::cursors::Cursors;
use super::fanout::Fanout;
use super::handler::{HandlerError, HandlerFactory, LaneStart};
use super::lane::{LaneParts, LaneStep, LaneWorker};
use super::lane_name::LaneName;
use super::progress::Progress;
use super::recent::RecentReader;
use super::remade::Remade;
use super::retried::RetryError;
use crate::journal::{DeadLetter, StorageError};
use crate::limits;
use crate::model::{Clock, Lane, SinkId, SinkRecord};

/// The lanes before their threads start: whoever drives them by hand needs nothing else.
#[derive(Debug)]
pub struct Lanes {
    /// The lanes, sink by sink, in lane order.
    pub workers: Vec<LaneWorker>,
    /// The end of the lanes that the committer holds.
    pub fanout: Fanout,
    /// The handle by which signals and the admin interface ask things of the lanes.
    pub control: LaneControl,
    /// How far all sinks have come.
    pub cursors: Arc<Cursors>,
}

/// What a lane's thread left when it ended.
#[derive(Debug)]
pub struct LaneEnd {
    /// The lane that has ended.
    pub lane: LaneName,
    /// Whether it had processed all that was durable when it was asked to end; or why the server must stop.
    pub drained: Result<bool, StorageError>,
}

impl Lanes {
    /// Makes each lane of an embedded handler. Sinks are opened by this, so that one that cannot be is an error at start.
    ///
    /// Make the committer's first checkpoint after this: it then holds what the handlers returned.
    ///
    /// # Errors
    /// A handler could not be made, or its first flush failed.
    pub fn build(parts: &LaneParts, factory: &mut HandlerFactory) -> Result<Self, HandlerError> {
        Self::build_beside(parts, factory, Vec::new())
    }

    /// The same beside sinks that were configured once: they keep their place.
    ///
    /// # Errors
    /// As those of [`build`](Self::build).
    pub fn build_beside(
        parts: &LaneParts,
        factory: &mut HandlerFactory,
        not_configured: Vec<SinkRecord>,
    ) -> Result<Self, HandlerError> {
        let cursors =
            Arc::new(Cursors::new(vec![(Arc::clone(&parts.progress), parts.config.answering)], not_configured));
        let (fanout, blocks) = Fanout::new(Arc::clone(&cursors));
        let (workers, askers) = build(parts, blocks.into_iter().next().unwrap_or_default(), factory)?;
        Ok(Self { workers, fanout, control: LaneControl::new(&cursors, vec![askers]), cursors })
    }

    /// Makes the lane of each configured sink, beside sinks that were configured once. The progress of all has one mailbox. What is
    /// paused is not opened before it goes on.
    ///
    /// # Errors
    /// A handler could not be made, or its first flush failed.
    pub fn build_sinks(
        sinks: Vec<(LaneParts, HandlerFactory)>,
        not_configured: Vec<SinkRecord>,
    ) -> Result<Self, HandlerError> {
        let groups = sinks.iter().map(|(parts, _)| (Arc::clone(&parts.progress), parts.config.answering)).collect();
        let cursors = Arc::new(Cursors::new(groups, not_configured));
        let (fanout, blocks) = Fanout::new(Arc::clone(&cursors));
        let (mut workers, mut askers) = (Vec::new(), Vec::new());
        for ((parts, factory), blocks) in sinks.into_iter().zip(blocks) {
            let name = parts.progress.lane_name(Lane(0));
            let factory = Arc::new(Mutex::new(factory));
            let is_paused = parts.progress.cursor().is_some_and(Cursor::is_paused);
            let built = build(&parts, blocks, &mut now_or_later(&factory, is_paused));
            let (mut lane, asker) = built.map_err(|error| HandlerError::new(format_args!("{name}: {error}")))?;
            if let Some(worker) = lane.first_mut() {
                worker.remake_by(factory);
            }
            workers.extend(lane);
            askers.push(asker);
        }
        Ok(Self { workers, fanout, control: LaneControl::new(&cursors, askers), cursors })
    }
}

/// Makes the handler now, or, of a sink that is paused, when it goes on: until then its target may be away.
fn now_or_later(factory: &Arc<Mutex<HandlerFactory>>, later: bool) -> HandlerFactory {
    let factory = Arc::clone(factory);
    Box::new(move |start| {
        if !later {
            return (factory.lock().unwrap_or_else(PoisonError::into_inner))(start);
        }
        let (journal, mark) = ((start.journal, start.instance), start.mark().clone());
        Ok(Box::new(Remade::new(Arc::clone(&factory), journal, start.sink, mark, start.durable_end).at_start()))
    })
}

/// The lanes of one sink.
fn build(
    parts: &LaneParts,
    blocks: Vec<RecentReader>,
    factory: &mut HandlerFactory,
) -> Result<(Vec<LaneWorker>, Vec<Asker>), HandlerError> {
    let progress = &parts.progress;
    let marks = progress.marks();
    let mut workers = Vec::with_capacity(marks.len());
    let mut askers = Vec::with_capacity(marks.len());
    for (lane, blocks) in (0..).map(Lane).zip(blocks) {
        let (durable_end, left) = (progress.durable_end(), progress.left());
        let (journal, instance) = (parts.journal.id(), parts.journal.instance());
        let sink = progress.sink();
        let start = LaneStart { journal, instance, sink, lane, marks: &marks, durable_end, left };
        let handler = factory(&start)?;
        let (asker, asked) = asked();
        workers.push(LaneWorker::new(lane, parts, blocks, asked, handler)?);
        askers.push(asker);
    }
    Ok((workers, askers))
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
        thread::Builder::new().name(worker.name().thread()).spawn(move || {
            let lane = worker.name().clone();
            let drained = catch_unwind(AssertUnwindSafe(|| run(worker, &clock)))
                .unwrap_or_else(|_| Err(StorageError::new(lane.to_string(), "it panicked, outside its handler")));
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
            // While blocks keep coming the lane naps and takes all that have come at once. Nobody waits for it, unless for an
            // answer, and being woken for each block would cost the committer a system call a lane and commit.
            LaneStep::Idle { .. } if std::mem::take(&mut worked) && !worker.take_asked() => {
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
    sinks: Arc<[Group]>,
}

/// The lanes of one sink.
#[derive(Debug)]
struct Group {
    names: Vec<LaneName>,
    askers: Vec<Asker>,
}

impl Group {
    fn id(&self) -> Option<SinkId> {
        self.names.first().map(LaneName::id)
    }
}

/// Why a lane was not asked. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAsked {
    /// It has ended, or has not answered earlier requests.
    #[error("{0} does not take requests now")]
    Busy(LaneName),
    /// The sink whose record it is does not run here.
    #[error(
        "its sink is not configured any more (it has the id {0}): configure it again under its name, or discard the letter"
    )]
    NoSuchSink(SinkId),
    /// The record was given up when all sinks still went on together, and now there are several.
    #[error(
        "it was given up when all sinks went on together, so that it belongs to none of them: look at it and discard it"
    )]
    OfAllSinks,
}

impl LaneControl {
    fn new(cursors: &Cursors, askers: Vec<Vec<Asker>>) -> Self {
        let group = |(progress, askers): (&Arc<Progress>, Vec<Asker>)| Group {
            names: (0..progress.lanes()).map(|lane| progress.lane_name(Lane(lane))).collect(),
            askers,
        };
        Self { sinks: cursors.groups().iter().zip(askers).map(group).collect() }
    }

    /// How many lanes there are, of all sinks together.
    pub fn count(&self) -> usize {
        self.askers().count()
    }

    /// Lets every handler open its files anew (SIGHUP). Returns at once.
    pub fn reopen(&self) {
        self.askers().for_each(Asker::reopen);
    }

    /// Presents a dead letter once more to the sink that gave it up, when its lane has no other record open, and if the letter
    /// is still there by then. A checkpoint that stores the handler's state deletes it.
    ///
    /// The answer comes on the returned channel; after `Err` the letter is as it was. When the
    /// channel closes without an answer, the lane has ended. Wait with a timeout: a lane whose handler blocks, or cannot
    /// flush, answers late. Whoever asks again for a letter that was processed meanwhile gets the same answer.
    ///
    /// # Errors
    /// [`NotAsked`]; nothing has changed.
    pub fn retry_dead(&self, letter: &DeadLetter) -> Result<Receiver<Result<(), RetryError>>, NotAsked> {
        let group = self.whose(letter.id.sink)?;
        let lane = Lane::of(letter.session, u16::try_from(group.askers.len()).unwrap_or(u16::MAX));
        let (reply, answer) = bounded(1);
        let command = LaneCommand::RetryDead { id: letter.id, reply };
        let lane = usize::from(lane.0);
        group.askers[lane].send(command).map_err(|_| NotAsked::Busy(group.names[lane].clone()))?;
        Ok(answer)
    }

    /// The sink with this id. A letter of the time when all sinks went on together is the only sink's.
    fn whose(&self, sink: SinkId) -> Result<&Group, NotAsked> {
        match (self.sinks.iter().find(|group| group.id() == Some(sink)), &self.sinks[..]) {
            (Some(group), _) => Ok(group),
            (None, [only]) if sink == SinkId::EMBEDDED => Ok(only),
            (None, _) if sink == SinkId::EMBEDDED => Err(NotAsked::OfAllSinks),
            (None, _) => Err(NotAsked::NoSuchSink(sink)),
        }
    }

    /// Asks the lane of a configured sink.
    pub(super) fn send(&self, sink: SinkId, command: LaneCommand) -> Result<(), NotAsked> {
        let group = self.whose(sink)?;
        let sent = group.askers.first().map(|asker| asker.send(command));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(group.names.first().map_or(NotAsked::NoSuchSink(sink), |name| NotAsked::Busy(name.clone()))),
        }
    }

    /// Lets the lanes of a sink look at what has changed for them.
    pub(super) fn wake(&self, sink: SinkId) {
        self.sinks
            .iter()
            .filter(|group| group.id() == Some(sink))
            .flat_map(|group| &group.askers)
            .for_each(Asker::wake);
    }

    /// Lets every lane process what is durable, until this time of the monotonic clock at the latest, flush, and end.
    /// Call it when the committer has published its last block.
    pub fn drain(&self, deadline_mono_us: u64) {
        self.askers().for_each(|lane| lane.drain(deadline_mono_us));
    }

    fn askers(&self) -> impl Iterator<Item = &Asker> {
        self.sinks.iter().flat_map(|group| &group.askers)
    }
}
