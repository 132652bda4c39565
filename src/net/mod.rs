//! Sockets: many datagrams a system call in, many replies a system call out. The only place that names nix and socket2.
//!
//! A [`Receiver`] reads into a [`Batch`], decodes, verifies and unseals in place, through its [`Gate`]; [`Outbox`] collects replies and [`Sender`]
//! hands them to the kernel. Nothing here knows sessions
//! or the journal.

mod batch;
mod gate;
#[cfg(test)]
mod gate_tests;
mod key_cache;
mod local;
mod options;
mod outbox;
mod receive;
mod send;
mod sharing;
mod socket;
#[cfg(test)]
mod tests;
mod trouble;

pub use batch::{Batch, DataItem, Dropped, Item, ItemKind, Seal};
pub use gate::{Admission, Gate};
pub use outbox::{Outbox, Run, Transmit};
pub use receive::{Received, Receiver, Waker, wait_readable};
pub use send::Sender;
pub use sharing::refuse_sharing;
pub use socket::{BoundSockets, adopt, bind};
