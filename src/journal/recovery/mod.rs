//! Recovery: what a start does with what it finds.
//!
//! In three parts, so that each can be checked by itself:
//!
//! 1. The survey reads everything that a data directory holds, and changes nothing. It verifies every record, and that the
//!    blocks make one chain that reaches as far as the witness, the checkpoint, the lanes and the sinks say. The same pass hands out
//!    what is good, so that a start reads everything once.
//! 2. What it finds is reduced to [`Facts`].
//! 3. [`decide`] is the decision table: facts in, outcome out, nothing else known. One row for each combination.
//!
//! What no survey can tell, since nothing on the disk says otherwise:
//!
//! - that the last commits are missing or damaged, when they came after the last witness, and nothing that was written after their
//!   sync is left: at most a second's, and none after a shutdown in good order. They look as if a crash had interrupted them;
//! - that the whole directory is an older copy of itself, or was emptied, or that database and witness are gone together.
//!
//! A start need not read all of a long backlog (`Reading`): what a checkpoint includes and no lane asks for yet is verified
//! when it is read, by the same rules, and damage found then ends the server. So nothing damaged is skipped, nor processed.
//! What is read at once: everything since the checkpoint, which recovery needs; all that is not in table files; the lowest
//! entry kept; and the newest of the backlog.
//!
//! This module knows no storage but by the trait `Database`: RocksDB's database and the simulator's go through the same code.

mod chain;
mod facts;
mod reading;
mod scan;
mod survey;
mod table;
mod walk;

pub use crate::journal::database::Witness;
pub(in crate::journal) use chain::holes;
pub use facts::{Bad, CheckpointFact, DatabaseFact, Facts, Format, LastWrite, WitnessFact};
pub use reading::ReadProgress;
pub(in crate::journal) use reading::Reading;
pub use scan::Scan;
pub(in crate::journal) use survey::{Directory, Visit, survey};
pub use survey::{Survey, Tail, Torn};
pub use table::{Outcome, decide};
