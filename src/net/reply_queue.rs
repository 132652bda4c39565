//! Replies that wait until there are enough for a system call.

use crate::limits;
use crate::model::Peer;
use crate::net::{Outbox, Transmit};

/// Collects replies, and hands on [`limits::REPLY_MESSAGES`] at a time.
#[derive(Debug)]
pub struct ReplyQueue<T> {
    outbox: Outbox,
    transmit: T,
}

impl<T: Transmit> ReplyQueue<T> {
    /// An empty queue in front of `transmit`.
    pub fn new(transmit: T) -> Self {
        Self { outbox: Outbox::default(), transmit }
    }

    /// Adds an encoded reply to a datagram of `request_len` bytes, as [`Outbox::push`] does; hands all on when there are
    /// enough.
    pub fn push(&mut self, to: Peer, request_len: usize, reply: &[u8]) {
        self.outbox.push(to, request_len, reply);
        if self.outbox.len() >= limits::REPLY_MESSAGES {
            self.flush();
        }
    }

    /// Hands on what there is.
    pub fn flush(&mut self) {
        if !self.outbox.is_empty() {
            self.transmit.transmit(&self.outbox);
            self.outbox.clear();
        }
    }
}
