//! The mailbox of the committer: what processing has to say to it, and through it to clients.
//!
//! Bounded by messages and by bytes, and never waited for: a lane whose message finds no room keeps it and comes again later, since the lane is the one
//! that may be slow. An idle committer is woken, so that a message waits for no round of its own. What a message says is not
//! known here.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::doorbell::Doorbell;

/// Ends the committer's sleep, or its next one.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// A bounded queue from many lanes to one committer.
pub struct Mailbox<M> {
    sender: Sender<(M, usize)>,
    receiver: Receiver<(M, usize)>,
    /// Of the messages that wait.
    bytes: AtomicUsize,
    bytes_max: usize,
    bell: Doorbell,
    wake: OnceLock<Wake>,
}

impl<M> Mailbox<M> {
    /// An empty one with room for so many messages, and for no further one that has bytes of its own when those that wait have so
    /// many.
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        let (sender, receiver) = bounded(messages_max);
        Self { sender, receiver, bytes: AtomicUsize::new(0), bytes_max, bell: Doorbell::new(), wake: OnceLock::new() }
    }

    /// Puts a message into the mailbox, and wakes the committer. Never waits.
    ///
    /// # Errors
    /// There is no room now: the message comes back, and nothing has changed. The committer is at work on those before.
    pub fn post(&self, message: M) -> Result<(), M> {
        self.post_of(message, 0)
    }

    /// The same with a message that takes so many bytes beside its place.
    ///
    /// # Errors
    /// As those of [`post`](Self::post).
    pub fn post_of(&self, message: M, bytes: usize) -> Result<(), M> {
        if bytes > 0 && self.bytes.fetch_add(bytes, Ordering::SeqCst) >= self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
            return Err(message);
        }
        self.sender.try_send((message, bytes)).map_err(|error| {
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
            error.into_inner().0
        })?;
        self.bell.ring(|| {
            if let Some(wake) = self.wake.get() {
                wake();
            }
        });
        Ok(())
    }

    /// The next message, in the order in which they were put in. Only after `None` may the committer sleep.
    pub fn take(&self) -> Option<M> {
        let (message, bytes) = self.bell.take(|| self.receiver.try_recv().ok())?;
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        Some(message)
    }

    /// How many messages wait: those at least that were put in before this call, and were not taken.
    pub fn messages(&self) -> usize {
        self.receiver.len()
    }

    /// Says how the committer is woken from now on; the first call counts. It is woken at once, for what was put in before.
    pub fn wake_by(&self, wake: Wake) {
        self.wake.get_or_init(|| wake)();
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("messages", &self.receiver.len()).finish_non_exhaustive()
    }
}
