//! Which start of the journal writes to a stream. What is written names it, so that a server that was replaced, or runs on a copy of
//! the data directory, can be told from the one whose turn it is.

use std::fmt;

use crate::model::Instance;

/// The name of a start, as it is written: `NUMBER-NONCE`, the nonce in 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    number: u64,
    nonce: u64,
}

impl Claim {
    pub(super) fn of(instance: Option<Instance>) -> Self {
        instance
            .map_or(Self { number: 0, nonce: 0 }, |instance| Self { number: instance.number, nonce: instance.nonce })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, nonce) = text.split_once('-')?;
        Some(Self { number: number.parse().ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? })
    }

    /// Whether this start follows the other one. Of two that are as late, the journal was copied.
    pub(super) fn replaces(self, other: Self) -> bool {
        self.number > other.number
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_start_replaces_an_earlier_one_and_no_other() {
        let claim = |number, nonce| Claim::of(Some(Instance { number, nonce }));
        assert!(claim(3, 1).replaces(claim(2, 9)));
        assert!(!claim(2, 9).replaces(claim(3, 1)));
        assert!(!claim(3, 1).replaces(claim(3, 9)), "a copy of the journal was started as often");
        assert_eq!(Claim::parse(&claim(3, u64::MAX).to_string()), Some(claim(3, u64::MAX)));
        assert_eq!(Claim::parse("three"), None);
    }
}
