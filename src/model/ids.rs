//! What names an entry, a session and a lane.

use std::fmt;

use duragram_proto::{ClientId, Epoch};

/// The place of an entry in the journal: total order, no holes. The first is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// `self + n`. A journal of 2⁶⁴ entries cannot be reached: saturates.
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// Entries from `earlier` to `self`, 0 when `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One run of one client: the owner of a sequence space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId {
    /// The client whose run it is.
    pub client: ClientId,
    /// Which of its runs it is.
    pub epoch: Epoch,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.client, self.epoch)
    }
}

/// A client id as it is shown (16 hexadecimal digits) and as people write it (`0x` and such digits, or a decimal number).
pub fn parse_client_id(text: &str) -> Option<ClientId> {
    let plain = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let parsed = match text.strip_prefix("0x") {
        Some(digits) if plain(digits) => u64::from_str_radix(digits, 16),
        None if text.len() == 16 && plain(text) => u64::from_str_radix(text, 16),
        None if plain(text) => text.parse(),
        _ => return None,
    };
    parsed.ok().map(ClientId)
}

/// The protocol that an entry came in. Numbers stand in journals, and are never given to another protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialectId(pub u8);

impl DialectId {
    /// Entries of Duragram's own protocol have this id.
    pub const DURAGRAM: Self = Self(0);

    /// Whether this program knows what its entries mean.
    pub const fn is_known(self) -> bool {
        self.0 == Self::DURAGRAM.0
    }
}

/// One processing thread and the sessions that hash to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane(pub u16);

impl Lane {
    /// The lane of a session among `lanes`. Stable across restarts and versions: watermarks rest on it.
    pub const fn of(session: SessionId, lanes: u16) -> Self {
        // SplitMix64's finalizer: client ids are often small and consecutive.
        let mut x = session.client.0 ^ ((session.epoch.value() as u64) << 32 | session.epoch.value() as u64);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        // A multiply-shift reduction: uniform, and cheaper than a division. The result is below `lanes`.
        #[allow(clippy::cast_possible_truncation)]
        let lane = (((x >> 32) * lanes as u64) >> 32) as u16;
        Self(lane)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
