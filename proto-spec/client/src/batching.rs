//! Whether small records share datagrams, and how long one waits for others.

use std::time::Duration;

/// Whether small records share datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Batching {
    /// Each record has a datagram of its own.
    #[default]
    Off,
    /// Records of one channel share a datagram while others are under way: at once when nothing is, else when it is
    /// full, or `linger` after its first record. A lone record is never held back.
    Linger(Duration),
}

impl Batching {
    /// [`Batching::Linger`] with one millisecond: far below a network's round trip, long enough to fill datagrams.
    pub const ON: Self = Self::Linger(Duration::from_millis(1));
}
