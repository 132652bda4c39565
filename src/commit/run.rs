//! The threads of ingestion: loops around the receivers' and the committer's steps.
//!
//! [`Threading`] is the one place where it is chosen how the stages are spread over threads.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver as Queue, RecvTimeoutError, Sender as QueueSender, TryRecvError, bounded, select};

use crate::commit::{Committer, Downstream, IngestStatus, LivenessProbe};
use crate::dialect::{Admit, Arrivals, Dialect};
use crate::journal::{Journal, JournalError};
use crate::limits;
use crate::metrics::Metrics;
use crate::model::SystemClock;
use crate::net::{Receiver, Transmit, Waker, wait_readable};

/// How the stages of ingestion are spread over threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threading {
    /// One thread receives what waits, commits it and acks it, over and over; the kernel's socket buffer is the queue.
    /// No hand-off: the lower latency, and on few cores the higher throughput.
    Single,
    /// One thread for each receiver, one for the committer.
    Pipeline,
}

/// Why ingestion stopped by itself. Nothing is acked any more.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The journal takes nothing any more: its storage has failed, or it has another owner.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A socket failed for good.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// A defect of this program; the message is on stderr.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

/// What the committer's thread leaves when it ends.
type Ended<D, J, T, L> = Result<Committer<D, J, T, L>, IngestError>;

/// Ingestion at work, and the channel that closes when it has ended.
pub type Started<D, J, T, L> = (Ingest<D, J, T, L>, Queue<Infallible>);

/// Ingestion runs until this is stopped or dropped.
pub struct Ingest<D: Dialect, J, T, L> {
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<IngestStatus>>,
    /// Rounds of the committer's thread; gone with it.
    rounds: Weak<AtomicU64>,
    /// The committer's thread; `None` once `stop` has taken it.
    committer: Option<JoinHandle<Ended<D, J, T, L>>>,
}

/// A server that is dropped rather than stopped must not go on acking what nobody will process.
impl<D: Dialect, J, T, L> Drop for Ingest<D, J, T, L> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Reads the state of a running ingestion.
#[derive(Clone, Debug)]
pub struct StatusReader(Arc<Mutex<IngestStatus>>);

impl StatusReader {
    /// The state after the last commit.
    pub fn read(&self) -> IngestStatus {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Dialect, J, T, L> Ingest<D, J, T, L> {
    /// A look at the committer's thread, for a watchdog.
    pub fn liveness(&self) -> LivenessProbe {
        LivenessProbe::new(Weak::clone(&self.rounds))
    }

    /// Reads the state from any thread.
    pub fn status(&self) -> StatusReader {
        StatusReader(Arc::clone(&self.status))
    }

    /// Stops receiving, commits and acks what is in hand, and gives the committer back for the last checkpoint.
    pub fn stop(mut self) -> Result<Committer<D, J, T, L>, IngestError> {
        self.stop.store(true, Ordering::Release);
        let ended = self.committer.take().and_then(|committer| committer.join().ok());
        ended.unwrap_or(Err(IngestError::Panicked("committer")))
    }
}

/// Starts the threads; each receiver comes with its admission. The returned channel closes when ingestion has ended, also by
/// itself; `stop` then gives the error.
pub fn spawn<D, J, T, L>(
    receivers: Vec<(Receiver, D::Admission)>,
    mut committer: Committer<D, J, T, L>,
    threading: Threading,
    clock: SystemClock,
    metrics: Metrics,
) -> io::Result<Started<D, J, T, L>>
where
    D: Dialect,
    J: Journal + 'static,
    T: Transmit + Send + 'static,
    L: Downstream + 'static,
{
    let waker = Waker::new()?;
    let landing = waker.clone();
    committer.notify_landings(move || landing.wake())?;
    let stop = Arc::new(AtomicBool::new(false));
    let status = Arc::new(Mutex::new(committer.status()));
    let (alive, ended) = bounded(0);
    let rounds = Arc::new(AtomicU64::new(0));
    // From here on an error return stops the threads that run already.
    let mut ingest = Ingest {
        stop: Arc::clone(&stop),
        status: Arc::clone(&status),
        rounds: Arc::downgrade(&rounds),
        committer: None,
    };
    let shared = Shared { clock, metrics, stop, status };
    ingest.committer = Some(match threading {
        Threading::Single => {
            let bell = waker.clone();
            committer.wake_by(move || bell.wake());
            spawn_thread("ingest", alive, move || single(receivers, committer, &waker, &shared, &rounds))?
        }
        Threading::Pipeline => {
            let slabs = receivers.len() * limits::SLABS_PER_RECEIVER;
            // Beside the slabs, each receiver may leave an error.
            let (full, waiting) = bounded(slabs + receivers.len());
            let (give_back, empty) = bounded(slabs);
            for _ in 0..slabs {
                give_back.send(Arrivals::new(Receiver::slab())).expect("the channel has room for every slab");
            }
            for (index, (receiver, admission)) in receivers.into_iter().enumerate() {
                let (shared, empty, full) = (shared.clone(), empty.clone(), full.clone());
                thread::Builder::new().name(format!("receive-{index}")).spawn(move || {
                    let receiving = || receive(receiver, admission, &empty, &full, &shared);
                    let ended = catch_unwind(AssertUnwindSafe(receiving));
                    if let Err(error) = ended.unwrap_or(Err(IngestError::Panicked("receiver"))) {
                        // Fails when the committer is gone, which then has an error of its own.
                        drop(full.send(Err(error)));
                    }
                })?;
            }
            drop(full);
            let (bell, rung) = bounded(1);
            let ring = bell.clone();
            // One ring that waits stands for all.
            committer.wake_by(move || {
                let _one_waits_already = ring.try_send(());
            });
            spawn_thread("commit", alive, move || {
                // A bell without anybody who can ring it would always seem to be rung.
                let _bell = bell;
                commit(committer, &Incoming { arrivals: waiting, rung }, &give_back, slabs, &shared, &rounds)
            })?
        }
    });
    Ok((ingest, ended))
}

/// What every thread of ingestion needs.
#[derive(Clone)]
struct Shared {
    clock: SystemClock,
    metrics: Metrics,
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<IngestStatus>>,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn publish(&self, status: IngestStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

fn spawn_thread<R: Send + 'static>(
    name: &str,
    alive: QueueSender<Infallible>,
    body: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<R>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Dropped also when the body panics: a server whose committer is gone must not look alive.
        let _alive = alive;
        body()
    })
}

/// Receive, commit, answer, in one thread; the sync of a large commit runs in another, beside the receiving of the next.
fn single<D: Dialect, J: Journal, T: Transmit, L: Downstream>(
    mut receivers: Vec<(Receiver, D::Admission)>,
    mut committer: Committer<D, J, T, L>,
    waker: &Waker,
    shared: &Shared,
    rounds: &AtomicU64,
) -> Result<Committer<D, J, T, L>, IngestError> {
    let mut arrivals = Arrivals::new(Receiver::slab());
    let alone = receivers.len() == 1;
    // One socket, which held more than the last round took, is read at once.
    let mut at_once = false;
    let mut linger = Duration::ZERO;
    while !shared.stopping() {
        rounds.fetch_add(1, Ordering::Relaxed);
        let in_flight = committer.is_in_flight();
        // Not by receiving, which nobody could end who has a message for the committer.
        if in_flight || !at_once {
            wait_readable(
                receivers.iter().map(|(receiver, _)| receiver),
                waker,
                wait_before_next(&committer, linger),
                &shared.clock,
            )?;
        }
        let mut drops = 0;
        let mut more = false;
        for (receiver, admission) in &mut receivers {
            // A block that is full leaves the rest to the socket's buffer.
            for round in 1.. {
                let received = receiver.receive(&mut arrivals.slab, false, &shared.clock)?;
                shared.metrics.receive_errors.inc_by(received.failed.into());
                drops += u64::from(received.kernel_drops);
                arrivals.admit(admission);
                committer.absorb(&arrivals, &shared.clock)?;
                // Whatever comes, and however much of it is garbage: the turn of the acks comes too.
                let turn = committer.is_full() || round == limits::RECEIVES_PER_COMMIT;
                if !received.full || turn || (in_flight && committer.has_landed()) {
                    more |= received.full;
                    break;
                }
            }
        }
        at_once = alone && more;
        shared.metrics.kernel_drops.inc_by(drops);
        // The socket's buffer overflowed, or it holds more than a commit takes.
        committer.set_pressure(if drops > 0 { 1024 } else { u16::from(more && committer.is_full()) * 768 });
        linger = committer.linger(&shared.clock);
        // While the journal is busy the block grows.
        if linger.is_zero() && (committer.may_launch() || committer.has_landed() || committer.is_full()) {
            launch(&mut committer, shared)?;
        }
    }
    finish(committer, shared)
}

/// How long datagrams are waited for before the next round, which goes on after `linger` in any case.
fn wait_before_next<D: Dialect, J: Journal, T: Transmit, L: Downstream>(
    committer: &Committer<D, J, T, L>,
    linger: Duration,
) -> Duration {
    if !committer.is_in_flight() && committer.has_more_to_do() {
        Duration::ZERO
    } else if linger.is_zero() {
        Duration::from_millis(limits::RECEIVE_WAIT_MS.into())
    } else {
        linger
    }
}

/// Asked to stop: what is in flight lands, what is in hand is committed, and both are answered and handed to the lanes, which
/// may still process them.
fn finish<D: Dialect, J: Journal, T: Transmit, L: Downstream>(
    mut committer: Committer<D, J, T, L>,
    shared: &Shared,
) -> Result<Committer<D, J, T, L>, IngestError> {
    committer.commit(&shared.clock)?;
    shared.publish(committer.status());
    Ok(committer)
}

/// Commits what is in hand, and makes the state known.
fn launch<D: Dialect, J: Journal, T: Transmit, L: Downstream>(
    committer: &mut Committer<D, J, T, L>,
    shared: &Shared,
) -> Result<(), IngestError> {
    committer.launch(&shared.clock)?;
    shared.publish(committer.status());
    Ok(())
}

/// A receiver's thread. It ends when it is asked to stop, or when the committer is gone.
fn receive<A: Admit>(
    mut receiver: Receiver,
    mut admission: A,
    empty: &Queue<Arrivals<A>>,
    full: &QueueSender<Result<Arrivals<A>, IngestError>>,
    shared: &Shared,
) -> Result<(), IngestError> {
    // When no slab is free, the kernel's buffer and then the clients' retransmission take the rest.
    while let Ok(mut arrivals) = empty.recv() {
        loop {
            if shared.stopping() {
                return Ok(());
            }
            let received = receiver.receive(&mut arrivals.slab, true, &shared.clock)?;
            shared.metrics.receive_errors.inc_by(received.failed.into());
            shared.metrics.kernel_drops.inc_by(u64::from(received.kernel_drops));
            if received.messages > 0 {
                break;
            }
        }
        arrivals.admit(&mut admission);
        if full.send(Ok(arrivals)).is_err() {
            break;
        }
    }
    Ok(())
}

/// What ends the sleep of the committer's thread in the pipeline.
struct Incoming<A: Admit> {
    arrivals: Queue<Result<Arrivals<A>, IngestError>>,
    /// Processing has a message for the committer.
    rung: Queue<()>,
}

impl<A: Admit> Incoming<A> {
    /// What arrived next; an error of `Timeout` when nothing came in time, or before the bell was rung.
    fn next(&self, wait: Duration) -> Result<Result<Arrivals<A>, IngestError>, RecvTimeoutError> {
        match self.arrivals.try_recv() {
            Ok(arrivals) => return Ok(arrivals),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) if wait.is_zero() => return Err(RecvTimeoutError::Timeout),
            Err(TryRecvError::Empty) => {}
        }
        select! {
            recv(self.arrivals) -> arrivals => arrivals.map_err(|_| RecvTimeoutError::Disconnected),
            recv(self.rung) -> _ => Err(RecvTimeoutError::Timeout),
            default(wait) => Err(RecvTimeoutError::Timeout),
        }
    }
}

/// The committer's thread in the pipeline. It ends when all receivers have ended as they were asked to, or one otherwise.
fn commit<D: Dialect, J: Journal, T: Transmit, L: Downstream>(
    mut committer: Committer<D, J, T, L>,
    incoming: &Incoming<D::Admission>,
    give_back: &QueueSender<Arrivals<D::Admission>>,
    slabs: usize,
    shared: &Shared,
    rounds: &AtomicU64,
) -> Result<Committer<D, J, T, L>, IngestError> {
    let mut linger = Duration::ZERO;
    loop {
        rounds.fetch_add(1, Ordering::Relaxed);
        // With a commit in flight, that is what is waited for.
        let in_flight = committer.is_in_flight();
        match incoming.next(if in_flight { Duration::ZERO } else { wait_before_next(&committer, linger) }) {
            Ok(first) => {
                let mut next = Some(first);
                let mut left = limits::RECEIVES_PER_COMMIT;
                while let Some(arrivals) = next {
                    let arrivals = arrivals?;
                    left -= 1;
                    committer.absorb(&arrivals, &shared.clock)?;
                    // There is room for every slab; only nobody may take it any more, when all receivers have ended.
                    drop(give_back.try_send(arrivals));
                    let turn = committer.is_full() || left == 0 || (in_flight && committer.has_landed());
                    next = if turn { None } else { incoming.arrivals.try_recv().ok() };
                }
            }
            // More may be launched, and there is nothing: else `launch` waits, below.
            Err(RecvTimeoutError::Timeout) if in_flight && committer.may_launch() => committer.land(&shared.clock)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return finish(committer, shared),
        }
        committer.set_pressure(u16::try_from(incoming.arrivals.len() * 1024 / slabs).unwrap_or(1024));
        linger = committer.linger(&shared.clock);
        if linger.is_zero() {
            launch(&mut committer, shared)?;
        }
    }
}
