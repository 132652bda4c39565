//! The threads of ingestion: loops around the receivers' and the committer's steps.
//!
//! [`Threading`] is the one place where it is chosen how the stages are spread over threads.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver as Queue, RecvTimeoutError, Sender as QueueSender, bounded};

use crate::commit::{Committer, Downstream, IngestStatus};
use crate::journal::{Journal, StorageError};
use crate::limits;
use crate::metrics::Metrics;
use crate::model::SystemClock;
use crate::net::{Batch, Receiver, Transmit, Waker, wait_readable};

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
    /// The journal failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A socket failed for good.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// A defect of this program; the message is on stderr.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

/// What the committer's thread leaves.
type Ended<J, T, D> = Result<Committer<J, T, D>, IngestError>;

/// Ingestion at work.
pub struct Ingest<J, T, D> {
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<IngestStatus>>,
    /// Of the committer's thread; gone with it.
    rounds: Weak<AtomicU64>,
    /// Taken by `stop`.
    committer: Option<JoinHandle<Ended<J, T, D>>>,
}

/// A server that is dropped rather than stopped must not go on acking what nobody will process.
impl<J, T, D> Drop for Ingest<J, T, D> {
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

/// Tells whether the committer's thread lives, in the sense that it goes round its loop.
#[derive(Debug)]
pub struct Pulse {
    rounds: Weak<AtomicU64>,
    /// When it was looked at last.
    last: Option<u64>,
}

/// What [`Pulse::beat`] finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beat {
    /// It has gone round since it was looked at last.
    Alive,
    /// It has not. With nothing to do it goes round every [`limits::RECEIVE_WAIT_MS`].
    Stuck,
    /// It has ended, as it was told to or by itself.
    Ended,
}

impl Pulse {
    /// Looks whether the thread has gone round since the last look.
    pub fn beat(&mut self) -> Beat {
        let Some(rounds) = self.rounds.upgrade() else { return Beat::Ended };
        let now = Some(rounds.load(Ordering::Relaxed));
        if std::mem::replace(&mut self.last, now) == now { Beat::Stuck } else { Beat::Alive }
    }
}

impl<J, T, D> Ingest<J, T, D> {
    /// For a watchdog.
    pub fn pulse(&self) -> Pulse {
        Pulse { rounds: Weak::clone(&self.rounds), last: None }
    }

    /// Reads the state from any thread.
    pub fn status(&self) -> StatusReader {
        StatusReader(Arc::clone(&self.status))
    }

    /// Stops receiving, commits and acks what is in hand, and gives the committer back for the last checkpoint.
    pub fn stop(mut self) -> Result<Committer<J, T, D>, IngestError> {
        self.stop.store(true, Ordering::Release);
        let ended = self.committer.take().and_then(|committer| committer.join().ok());
        ended.unwrap_or(Err(IngestError::Panicked("committer")))
    }
}

/// Starts the threads. The returned channel closes when ingestion has ended, also by itself; `stop` then gives the error.
pub fn spawn<J, T, D>(
    receivers: Vec<Receiver>,
    mut committer: Committer<J, T, D>,
    threading: Threading,
    clock: SystemClock,
    metrics: Metrics,
) -> io::Result<(Ingest<J, T, D>, Queue<Never>)>
where
    J: Journal + 'static,
    T: Transmit + Send + 'static,
    D: Downstream + 'static,
{
    let waker = Waker::new()?;
    let landing = waker.clone();
    committer.start_writer(move || landing.wake())?;
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
            spawn_thread("ingest", alive, move || single(receivers, committer, &waker, &shared, &rounds))?
        }
        Threading::Pipeline => {
            let slabs = receivers.len() * limits::SLABS_PER_RECEIVER;
            // Sidecar the slabs, each receiver may leave an error.
            let (full, waiting) = bounded(slabs + receivers.len());
            let (give_back, empty) = bounded(slabs);
            for _ in 0..slabs {
                give_back.send(Receiver::batch()).expect("the channel has room for every slab");
            }
            for (index, receiver) in receivers.into_iter().enumerate() {
                let (shared, empty, full) = (shared.clone(), empty.clone(), full.clone());
                thread::Builder::new().name(format!("receive-{index}")).spawn(move || {
                    let receiving = || receive(receiver, &empty, &full, &shared);
                    let ended = catch_unwind(AssertUnwindSafe(receiving));
                    if let Err(error) = ended.unwrap_or(Err(IngestError::Panicked("receiver"))) {
                        // Fails when the committer is gone, which then has an error of its own.
                        drop(full.send(Err(error)));
                    }
                })?;
            }
            drop(full);
            spawn_thread("commit", alive, move || commit(committer, &waiting, &give_back, slabs, &shared, &rounds))?
        }
    });
    Ok((ingest, ended))
}

/// What the channel that tells of the end carries: nothing.
#[derive(Debug)]
pub enum Never {}

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
    alive: QueueSender<Never>,
    body: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<R>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Dropped also when the body panics: a server whose committer is gone must not look alive.
        let _alive = alive;
        body()
    })
}

/// Receive, commit, ack, in one thread; the sync of a large commit runs in another, beside the receiving of the next.
fn single<J: Journal, T: Transmit, D: Downstream>(
    mut receivers: Vec<Receiver>,
    mut committer: Committer<J, T, D>,
    waker: &Waker,
    shared: &Shared,
    rounds: &AtomicU64,
) -> Result<Committer<J, T, D>, IngestError> {
    let mut batch = Receiver::batch();
    let alone = receivers.len() == 1;
    while !shared.stopping() {
        rounds.fetch_add(1, Ordering::Relaxed);
        let in_flight = committer.is_in_flight();
        // With nothing in flight and one socket, receiving waits by itself, which saves a system call.
        if in_flight || !alone {
            wait_readable(&receivers, waker, limits::RECEIVE_WAIT_MS, &shared.clock)?;
        }
        let mut drops = 0;
        let mut more = false;
        for receiver in &mut receivers {
            // A block that is full leaves the rest to the socket's buffer.
            let mut block = alone && !in_flight;
            for round in 1.. {
                let received = receiver.receive(&mut batch, block, &shared.clock)?;
                shared.metrics.receive_errors.inc_by(received.failed.into());
                block = false;
                drops += u64::from(received.kernel_drops);
                committer.absorb(&batch, &shared.clock)?;
                // Whatever comes, and however much of it is garbage: the turn of the acks comes too.
                let turn = committer.is_full() || round == limits::RECEIVES_PER_COMMIT;
                if !received.full || turn || (in_flight && committer.has_landed()) {
                    more |= received.full;
                    break;
                }
            }
        }
        shared.metrics.kernel_drops.inc_by(drops);
        // The socket's buffer overflowed, or it holds more than a commit takes.
        committer.set_pressure(if drops > 0 { 1024 } else { u16::from(more && committer.is_full()) * 768 });
        // While the disk is busy the block grows.
        if !committer.is_in_flight() || committer.has_landed() || committer.is_full() {
            commit_or_launch(&mut committer, shared)?;
        }
    }
    finish(committer, shared)
}

/// Told to stop: what is in flight lands, what is in hand is committed, and both are acked and handed to the lanes, which
/// may still be told to process them.
fn finish<J: Journal, T: Transmit, D: Downstream>(
    mut committer: Committer<J, T, D>,
    shared: &Shared,
) -> Result<Committer<J, T, D>, IngestError> {
    committer.commit(&shared.clock)?;
    shared.publish(committer.status());
    Ok(committer)
}

/// What is small is committed here and now; what is large is synced by the writer's thread, while this one goes on.
fn commit_or_launch<J: Journal, T: Transmit, D: Downstream>(
    committer: &mut Committer<J, T, D>,
    shared: &Shared,
) -> Result<(), IngestError> {
    if committer.is_large() {
        committer.launch(&shared.clock)?;
    } else {
        committer.commit(&shared.clock)?;
    }
    shared.publish(committer.status());
    Ok(())
}

/// A receiver's thread. It ends when told to stop, or when the committer is gone.
fn receive(
    mut receiver: Receiver,
    empty: &Queue<Batch>,
    full: &QueueSender<Result<Batch, IngestError>>,
    shared: &Shared,
) -> Result<(), IngestError> {
    // When no slab is free, the kernel's buffer and then the clients' retransmission take the rest.
    while let Ok(mut batch) = empty.recv() {
        loop {
            if shared.stopping() {
                return Ok(());
            }
            let received = receiver.receive(&mut batch, true, &shared.clock)?;
            shared.metrics.receive_errors.inc_by(received.failed.into());
            shared.metrics.kernel_drops.inc_by(u64::from(received.kernel_drops));
            if received.messages > 0 {
                break;
            }
        }
        if full.send(Ok(batch)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The committer's thread in the pipeline. It ends when all receivers have ended as they were told, or one otherwise.
fn commit<J: Journal, T: Transmit, D: Downstream>(
    mut committer: Committer<J, T, D>,
    waiting: &Queue<Result<Batch, IngestError>>,
    give_back: &QueueSender<Batch>,
    slabs: usize,
    shared: &Shared,
    rounds: &AtomicU64,
) -> Result<Committer<J, T, D>, IngestError> {
    let wait = Duration::from_millis(u64::from(limits::RECEIVE_WAIT_MS));
    loop {
        rounds.fetch_add(1, Ordering::Relaxed);
        // With a commit in flight, that is what is waited for.
        let in_flight = committer.is_in_flight();
        match waiting.recv_timeout(if in_flight { Duration::ZERO } else { wait }) {
            Ok(first) => {
                let mut next = Some(first);
                let mut left = limits::RECEIVES_PER_COMMIT;
                while let Some(batch) = next {
                    let batch = batch?;
                    left -= 1;
                    committer.absorb(&batch, &shared.clock)?;
                    // There is room for every slab; only nobody may take it any more, when all receivers have ended.
                    drop(give_back.try_send(batch));
                    let turn = committer.is_full() || left == 0 || (in_flight && committer.has_landed());
                    next = if turn { None } else { waiting.try_recv().ok() };
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return finish(committer, shared),
        }
        committer.set_pressure(u16::try_from(waiting.len() * 1024 / slabs).unwrap_or(1024));
        commit_or_launch(&mut committer, shared)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_tells_a_thread_that_goes_round_from_one_that_hangs_and_one_that_has_ended() {
        let rounds = Arc::new(AtomicU64::new(0));
        let mut pulse = Pulse { rounds: Arc::downgrade(&rounds), last: None };
        assert_eq!(pulse.beat(), Beat::Alive, "not known to hang");
        assert_eq!(pulse.beat(), Beat::Stuck);
        rounds.fetch_add(1, Ordering::Relaxed);
        assert_eq!((pulse.beat(), pulse.beat()), (Beat::Alive, Beat::Stuck));
        drop(rounds);
        assert_eq!(pulse.beat(), Beat::Ended);
    }
}
