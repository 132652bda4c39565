//! Journals for tests: one in memory, with faults, and a simulated disk under the code that stands on RocksDB.

pub mod by_hand;
pub mod memory;
#[cfg(test)]
pub(super) mod shared;
#[doc(hidden)]
pub mod simulated;
