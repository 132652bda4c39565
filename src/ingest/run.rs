//! The threads of ingestion: loops around the receivers' and the committer's steps.
//!
//! [`Threading`] is the one place where it is chosen how the stages are spread over threads.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver as Queue, RecvTimeoutError, Sender as QueueSender, bounded};

use crate::ingest::{Committer, Downstream, IngestStatus};
use crate::journal::{Journal, StorageError};
use crate::limits;
use crate::metrics::Metrics;
use crate::net::{Batch, Receiver, Transmit, wait_readable};
use crate::types::SystemClock;

/// How the stages of ingestion are spread over threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threading {
    /// One thread receives what waits, commits it and acks it, over and over; the kernel's socket buffer is the queue.
    /// No hand-off: the lower latency, and on few cores the higher throughput.
    Single,
    /// One thread for each receiver, one for the committer.
    Pipeline,
}

/// Why ingestion stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The journal failed; nothing is acked any more.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A socket failed.
    #[error("receiving: {0}")]
    Socket(#[from] io::Error),
}

/// Ingestion at work.
pub struct Ingest<J, T, D> {
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<IngestStatus>>,
    committer: JoinHandle<Result<Committer<J, T, D>, IngestError>>,
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

impl<J, T, D> Ingest<J, T, D> {
    /// Reads the state from any thread.
    pub fn status(&self) -> StatusReader {
        StatusReader(Arc::clone(&self.status))
    }

    /// Stops receiving, commits and acks what is in hand, and gives the committer back for the last checkpoint.
    pub fn stop(self) -> Result<Committer<J, T, D>, IngestError> {
        self.stop.store(true, Ordering::Release);
        self.committer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Starts the threads. `ended` is called on the committer's thread when it ends by itself, because of an error; `stop`
/// then gives the error.
pub fn spawn<J, T, D>(
    receivers: Vec<Receiver>,
    committer: Committer<J, T, D>,
    threading: Threading,
    clock: SystemClock,
    metrics: Metrics,
    ended: impl FnOnce() + Send + 'static,
) -> io::Result<Ingest<J, T, D>>
where
    J: Journal + 'static,
    T: Transmit + Send + 'static,
    D: Downstream + 'static,
{
    let stop = Arc::new(AtomicBool::new(false));
    let status = Arc::new(Mutex::new(committer.status()));
    let shared = Shared { clock, metrics, stop: Arc::clone(&stop), status: Arc::clone(&status) };
    let committer = match threading {
        Threading::Single => spawn_thread("ingest", shared, ended, move |shared| single(receivers, committer, shared))?,
        Threading::Pipeline => {
            let (full, waiting) = bounded(receivers.len() * limits::SLABS_PER_RECEIVER);
            let (give_back, empty) = bounded(receivers.len() * limits::SLABS_PER_RECEIVER);
            for (index, receiver) in receivers.into_iter().enumerate() {
                for _ in 0..limits::SLABS_PER_RECEIVER {
                    give_back.send(Receiver::batch()).expect("the channel has room for every slab");
                }
                let (shared, empty, full) = (shared.clone(), empty.clone(), full.clone());
                thread::Builder::new()
                    .name(format!("receive-{index}"))
                    .spawn(move || receive(receiver, &empty, &full, &shared))?;
            }
            drop(full);
            spawn_thread("commit", shared, ended, move |shared| commit(committer, &waiting, &give_back, shared))?
        }
    };
    Ok(Ingest { stop, status, committer })
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
    shared: Shared,
    ended: impl FnOnce() + Send + 'static,
    body: impl FnOnce(&Shared) -> Result<R, IngestError> + Send + 'static,
) -> io::Result<JoinHandle<Result<R, IngestError>>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Also when the body panics: a server whose committer is gone must not look alive.
        let _ended = OnDrop(Some(ended));
        body(&shared)
    })
}

/// Runs a closure when dropped.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// Receive, commit, ack, in one thread.
fn single<J: Journal, T: Transmit, D: Downstream>(
    mut receivers: Vec<Receiver>,
    mut committer: Committer<J, T, D>,
    shared: &Shared,
) -> Result<Committer<J, T, D>, IngestError> {
    let mut batch = Receiver::batch();
    let alone = receivers.len() == 1;
    while !shared.stopping() {
        if !alone {
            wait_readable(&receivers, limits::RECEIVE_WAIT_MS)?;
        }
        let mut drops = 0;
        let mut more = false;
        for receiver in &mut receivers {
            // A block that is full leaves the rest to the socket's buffer.
            let mut block = alone;
            loop {
                let received = receiver.receive(&mut batch, block, &shared.clock)?;
                block = false;
                drops += u64::from(received.kernel_drops);
                committer.absorb(&batch, &shared.clock)?;
                more = received.full;
                if !received.full || committer.is_full() {
                    break;
                }
            }
        }
        shared.metrics.kernel_drops.inc_by(drops);
        // The socket's buffer overflowed, or it holds more than a block takes.
        committer.set_pressure(if drops > 0 { 1024 } else { u16::from(more) * 512 });
        committer.commit(&shared.clock)?;
        shared.publish(committer.status());
    }
    Ok(committer)
}

/// A receiver's thread. It ends when told to stop, or when the committer is gone.
fn receive(mut receiver: Receiver, empty: &Queue<Batch>, full: &QueueSender<Batch>, shared: &Shared) {
    while !shared.stopping() {
        // When no slab is free, the kernel's buffer and then the clients' retransmission take the rest.
        let Ok(mut batch) = empty.recv() else { return };
        loop {
            match receiver.receive(&mut batch, true, &shared.clock) {
                Ok(received) => {
                    shared.metrics.kernel_drops.inc_by(u64::from(received.kernel_drops));
                    if received.messages > 0 {
                        break;
                    }
                    if shared.stopping() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "receiving failed");
                    return;
                }
            }
        }
        if full.send(batch).is_err() {
            return;
        }
    }
}

/// The committer's thread in the pipeline. It ends when all receivers have ended.
fn commit<J: Journal, T: Transmit, D: Downstream>(
    mut committer: Committer<J, T, D>,
    waiting: &Queue<Batch>,
    give_back: &QueueSender<Batch>,
    shared: &Shared,
) -> Result<Committer<J, T, D>, IngestError> {
    let wait = Duration::from_millis(u64::from(limits::RECEIVE_WAIT_MS));
    let capacity = waiting.capacity().unwrap_or(1);
    loop {
        match waiting.recv_timeout(wait) {
            Ok(first) => {
                let mut next = Some(first);
                while let Some(batch) = next {
                    committer.absorb(&batch, &shared.clock)?;
                    // The channel has room for every slab there is; a receiver that has ended takes none back.
                    drop(give_back.try_send(batch));
                    next = if committer.is_full() { None } else { waiting.try_recv().ok() };
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if shared.stopping() => return Ok(committer),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(IngestError::Socket(io::Error::other("every receiver has ended, see the log")));
            }
        }
        let pressure = waiting.len() * 1024 / capacity;
        committer.set_pressure(u16::try_from(pressure).unwrap_or(1024));
        committer.commit(&shared.clock)?;
        shared.publish(committer.status());
    }
}
