//! Sessions: which seqs are accounted for (PROTOCOL.md#server-rules).
//!
//! [`Session`] holds the rules for one sequence space, [`SessionTable`] finds sessions and bounds their number, [`EpochBook`]
//! remembers which epochs can never be opened again in sealed mode. The
//! committer applies datagrams to it, recovery applies the journal's entries to it, by the same code. Nothing here
//! does I/O or reads a clock; what must reach the disk before an answer may leave is returned to the caller.

mod epochs;
mod rules;
mod table;
#[cfg(test)]
mod tests;

pub use epochs::{EpochBook, HelloAnswer, Unopened};
pub use rules::{FloorMove, Judgement, Session};
pub use table::{SessionTable, TableFull};
