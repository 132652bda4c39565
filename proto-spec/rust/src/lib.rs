//! The Duragram wire protocol, version 1, as state machines without I/O, clock or allocation.
//!
//! The normative text is `proto-spec/PROTOCOL.md`; comments cite its sections by their anchors.
//!
//! - [`codec`]: datagrams to bytes and back; decoding borrows, encoding writes into a slice.
//! - [`client`]: the client's half as a state machine, in memory that the caller provides.
//! - [`rtt`]: round-trip time and retransmission timeout, for clients with a loop of their own.
//! - `seal`: keys and counters of sealed mode (feature `sealed`).
//! - `window`: the server's record of which seqs are accounted for (feature `alloc`).
//!
//! Time and randomness come in as arguments, datagrams as byte slices: whoever has a socket and a clock can drive it.
#![no_std]

#[cfg(any(test, feature = "std"))]
extern crate std;

#[cfg(feature = "alloc")]
extern crate alloc;

mod backoff;
pub mod client;
pub mod codec;
mod congestion;
mod random;
pub mod rtt;
#[cfg(feature = "sealed")]
pub mod seal;
mod types;
#[cfg(feature = "alloc")]
pub mod window;

pub use types::{ClientId, Epoch, Seq};
