//! The doorbell of the committer: whoever has put a message into its queue rings, and the committer wakes.
//!
//! Two things must hold: no message stays in the queue beside a committer that sleeps; and of many messages that come together
//! only the first costs the system call that wakes. Both rest on the order of these steps in several threads, and on nothing
//! else; so they stand alone here, and `tests/doorbell_model` runs this very file under every interleaving.

use super::atomic::{AtomicBool, Ordering::SeqCst};

/// Shared by those who ring and the one who answers. Which queue it is about, and how to wake, the callers know.
#[derive(Debug)]
pub(super) struct Doorbell {
    /// Somebody has rung since the queue was last found empty: there is no need to ring again.
    rung: AtomicBool,
}

impl Doorbell {
    pub(super) fn new() -> Self {
        Self { rung: AtomicBool::new(false) }
    }

    /// The step of whoever has put a message into the queue. `wake` ends the other's sleep; or the next one, when it does not
    /// sleep.
    pub(super) fn ring(&self, wake: impl FnOnce()) {
        if !self.rung.swap(true, SeqCst) {
            wake();
        }
    }

    /// The step of the one who answers: the next message of the queue. After `None` it may sleep: whoever puts a message into
    /// the queue from then on rings anew. Before, it may not: nobody wakes it for what is in the queue already.
    ///
    /// The queue is looked at once more after the bell is ready to be rung again: whoever came between the two has not woken
    /// anybody.
    pub(super) fn take<T>(&self, receive: impl Fn() -> Option<T>) -> Option<T> {
        let first = receive();
        if first.is_some() || !self.rung.load(SeqCst) {
            return first;
        }
        self.rung.store(false, SeqCst);
        receive()
    }
}
