//! Group commit: from requests to durable entries to replies.
//!
//! The [`Committer`] is the only writer of the dialect's memory and of the journal, so there is no lock on the way. It knows
//! neither what a request means nor what a reply says: both are the [dialect](crate::dialect)'s. What it knows is when a block
//! is closed, that nothing is confirmed before the journal has given its receipt, and what happens when it does not.
//!
//! # The run loop
//!
//! [`spawn`] composes the committer with receivers, in one thread or in several; the simulator and the tests call the same
//! steps by hand:
//!
//! ```text
//!   loop {
//!       receiver.receive(&mut arrivals.slab)      // what waits, or a short wait
//!       arrivals.admit(&mut admission)            // the dialect's, on the receiver's thread
//!       committer.absorb(&arrivals)               // new entries go into the block that is being built
//!       committer.set_pressure(...)               // how full the queue is
//!       committer.launch()                        // close the block, append it to the journal, answer what has landed
//!   }
//!   committer.shut_down()                         // the last checkpoint
//! ```
//!
//! `launch` appends the closed commit to the journal and returns; the next block is built meanwhile, and `land`, `launch` or
//! `commit` take the receipt when it is there. How many commits may be in flight is the journal's to say, and whether a small
//! one is written at once, in the calling thread. `commit` leaves none in flight.
//!
//! | inputs | outputs |
//! |---|---|
//! | [`absorb`](Committer::absorb): requests | [`Transmit`](crate::net::Transmit): replies |
//! | [`set_pressure`](Committer::set_pressure): the state of the queue | [`Journal::append`](crate::journal::Journal::append): blocks, records, checkpoints |
//! | [`Downstream`]: the lanes' marks, and their wish for a checkpoint | [`Downstream::committed`]: receipts of durable blocks |
//! | a [`Clock`](crate::model::Clock), asked at each step | [`status`](Committer::status): what of it is durable |
//! | [`AskControl`]: what operators ask about asks | its answers, with the receipt of the commit |
//!
//! # After an error
//!
//! Any error of a write or a sync, any failure that the journal finds beside its commits, and its word that it has another
//! owner or has lost what was acked, is final: every later call
//! returns the same error, and nothing is confirmed any more. A write is never tried again.

mod ask_control;
mod backlog;
mod bounds;
mod committer;
mod liveness;
mod recovery;
mod run;
#[cfg(test)]
mod tests;

pub use ask_control::{AskControl, AsksAnswer, AsksNotAsked};
pub use backlog::Backlog;
pub use bounds::{Holding, Verdict};
pub use committer::{Committer, CommitterConfig, Downstream, IngestStatus};
pub use liveness::{Liveness, LivenessProbe};
pub use recovery::{Recovered, Recovery};
pub use run::{Ingest, IngestError, Started, StatusReader, Threading, spawn};
