//! From datagrams to durable entries to acks.
//!
//! The [`Committer`] is the only writer of sessions and journal, so there is no lock on the way. It absorbs the batches
//! that wait, builds one block of what is new, commits it, and only then makes acks: `acks` takes the journal's
//! receipt, which nothing else can make. [`spawn`] composes it with receivers, in one thread or in several.

mod acks;
mod backlog;
mod committer;
mod counts;
mod liveness;
mod out;
mod recovery;
mod run;
#[cfg(test)]
mod tests;

pub use backlog::Backlog;
pub use committer::{Committer, CommitterConfig, Downstream, IngestStatus, Recovered};
use counts::Counts;
pub use liveness::{Liveness, LivenessProbe};
pub use recovery::Recovery;
pub use run::{Ingest, IngestError, StatusReader, Threading, spawn};
