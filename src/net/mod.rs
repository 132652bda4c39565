//! Sockets: many datagrams a system call in, many replies a system call out. The only place that names nix and socket2.
//!
//! A [`Receiver`] reads into a [`Slab`]; [`Outbox`] collects replies and [`Sender`] hands them to the kernel: bytes in, bytes
//! out. Nothing here knows a protocol, keys, sessions or
//! the journal.

mod local;
mod options;
mod outbox;
mod receive;
mod reply_queue;
mod send;
mod sharing;
mod slab;
mod socket;
#[cfg(test)]
mod tests;
mod trouble;

pub use outbox::{Outbox, Run, Transmit};
pub use receive::{Received, Receiver, Waker, wait_readable};
pub use reply_queue::ReplyQueue;
pub use send::Sender;
pub use sharing::refuse_sharing;
pub use slab::{RawDatagram, Slab};
pub use socket::{BoundSockets, adopt, bind};
