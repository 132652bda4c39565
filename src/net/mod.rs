//! Sockets: many datagrams a system call in, many replies a system call out. The only place that names nix and socket2.
//!
//! A [`Receiver`] reads into a [`Batch`], decodes, verifies and unseals in place, through its [`Gate`]; [`Outbox`] collects replies and [`Sender`]
//! hands them to the kernel. [`BulkSocket`] is the other end: what a load generator sends with. Nothing here knows sessions
//! or the journal.

mod batch;
mod bulk;
mod gate;
mod outbox;
mod receive;
mod send;
mod socket;
#[cfg(test)]
mod tests;

pub use batch::{Batch, DataItem, Dropped, Item, ItemKind, Seal};
pub use bulk::{BulkSocket, Burst, GSO_SEGMENTS_MAX, Inbox, Poller};
pub use gate::{Admission, Gate};
pub use outbox::{Outbox, Run, Transmit};
pub use receive::{Received, Receiver, Waker, wait_readable};
pub use send::Sender;
pub use socket::{BoundSockets, adopt, bind};

use std::net::SocketAddr;

pub use crate::types::ChannelSet;

/// Where a datagram came from, and by which of the server's sockets: a reply must leave by the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The sender's address.
    pub addr: SocketAddr,
    /// Index of the socket among those that the server has bound.
    pub socket: u16,
}
