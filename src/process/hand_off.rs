//! One lane's hand-off: the few steps by which committed blocks reach it without anyone waiting for it.
//!
//! Where the lane's channel is full the block is not sent, and the lane reads it from the journal instead. Two things must
//! hold: no block stays unseen by a lane that sleeps on its channel, and the channel's bytes are bounded. Both rest on the
//! order of these steps in two threads, and on nothing else; so they stand alone here, and `tests/hand_off_model` runs this very file
//! under every interleaving.

use super::atomic::{AtomicU64, Ordering::SeqCst};

/// Shared by the committer and one lane. Which channel it is about, and how to send, the callers know.
#[derive(Debug)]
pub(super) struct HandOff {
    /// Entries below are not promised to come through the channel: what the lane does not find there it must read from the
    /// journal.
    unsent_end: AtomicU64,
    /// Bytes of the blocks in the channel.
    channel_bytes: AtomicU64,
    channel_bytes_max: u64,
}

impl HandOff {
    /// What is below `durable_end` is in the journal alone.
    pub(super) fn new(durable_end: u64, channel_bytes_max: u64) -> Self {
        Self { unsent_end: AtomicU64::new(durable_end), channel_bytes: AtomicU64::new(0), channel_bytes_max }
    }

    /// The committer's step, for a block of `size` bytes that ends at the offset `end` and can be read from the journal.
    ///
    /// `send` tries to put it into the channel, and says whether it is there, or no lane is there any more to miss it. It
    /// must not wait.
    pub(super) fn publish(&self, size: u64, end: u64, send: impl Fn() -> bool) {
        if !self.offer(size, &send) {
            self.unsent_end.store(end, SeqCst);
            // The lane may have emptied its channel since, not yet seen the line above, and be going to sleep. If there
            // is room now, the block wakes it; if not, it has blocks to take out first and sees the line above after.
            // A block that the lane meets in both places it processes once.
            self.offer(size, &send);
        }
    }

    fn offer(&self, size: u64, send: impl Fn() -> bool) -> bool {
        let held = self.channel_bytes.load(SeqCst);
        // An empty channel takes any block, or one above the limit would never come.
        if held > 0 && held + size > self.channel_bytes_max {
            return false;
        }
        self.channel_bytes.fetch_add(size, SeqCst);
        let sent = send();
        if !sent {
            self.channel_bytes.fetch_sub(size, SeqCst);
        }
        sent
    }

    /// The lane's step: the next block of the channel; or, when that is empty, the offset below which it must read what it
    /// has not seen from the journal. When it has seen all of that, it may sleep until there is something in the channel.
    ///
    /// The channel is looked at first: the committer sets the mark and then looks at the channel, so that one of the two
    /// always sees what the other did.
    pub(super) fn take<T>(&self, receive: impl FnOnce() -> Option<T>, size: impl FnOnce(&T) -> u64) -> Result<T, u64> {
        match receive() {
            Some(block) => {
                self.channel_bytes.fetch_sub(size(&block), SeqCst);
                Ok(block)
            }
            None => Err(self.unsent_end.load(SeqCst)),
        }
    }
}
