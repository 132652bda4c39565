//! The protocol's numbers as types, so that a seq cannot be passed where an epoch is meant.

use core::fmt;
use core::num::NonZeroU32;

/// A client: a device or a program, named by 64 bits of its choice. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClientId(pub u64);

/// One run of a client. Never 0 on the wire's DATA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(NonZeroU32);

/// The number of a datagram within its session. The first is 1; 0 stands for "none yet", as in a floor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

impl Epoch {
    /// `None` for 0, which no session may use.
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number on the wire.
    pub const fn value(self) -> u32 {
        self.0.get()
    }

    /// The epoch after this one; `None` past the last.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }
}

impl Seq {
    /// Below the first seq: the floor of a session in which nothing is accounted for.
    pub const ZERO: Self = Self(0);

    /// `self + n`; `None` past 2⁶⁴ − 1.
    pub const fn checked_add(self, n: u64) -> Option<Self> {
        match self.0.checked_add(n) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// Returns `self − n`, or `None` where that is below 0.
    pub const fn checked_sub(self, n: u64) -> Option<Self> {
        match self.0.checked_sub(n) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// How far `self` lies above `floor`, 0 when it does not.
    pub const fn above(self, floor: Self) -> u64 {
        self.0.saturating_sub(floor.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
