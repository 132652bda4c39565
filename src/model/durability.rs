//! How safe an entry is that a journal calls durable.

/// What a receipt promises of everything that it covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DurabilityLevel {
    /// Synced to the disk of this machine.
    Synced,
    /// Synced on a quorum of machines.
    Replicated,
}
