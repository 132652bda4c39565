//! Recovery: what a start does with what it finds.
//!
//! In three parts, so that each can be checked by itself:
//!
//! 1. [`look`] reads everything that a data directory holds through [`Evidence`], which shows and never changes. It verifies
//!    every record, and that the blocks make one chain that reaches as far as the witness, the checkpoint and the lanes say.
//!    The same pass hands out what is good, so that a start reads everything once.
//! 2. What it finds is reduced to [`Facts`].
//! 3. [`decide`] is the decision table: facts in, outcome out, nothing else known. One row for each combination.
//!
//! This module knows no storage. RocksDB's database and the simulator's disk go through the same code.

mod facts;
mod look;
mod table;

pub use facts::{Bad, CheckpointFact, DatabaseFact, Facts, Format, LastWrite, WitnessFact};
pub use look::{Directory, Evidence, Family, Item, Look, Scan, Tail, Visit, Witness, look};
pub(super) use look::{KEY_LAST, holes};
pub use table::{Outcome, decide};
