//! Which sink writes to a stream, and in which start of the journal. What is written names both: so a server that was replaced, or
//! runs on a copy of the data directory, can be told from the one whose turn it is, and another sink of the same journal, whose
//! records have the same names, from this one.

use std::fmt;

use crate::model::{Instance, SinkId};

/// A sink in a start, as it is written: `NUMBER-NONCE-SINK`, the nonce in 16 hexadecimal digits and the sink in 32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    number: u64,
    nonce: u64,
    sink: SinkId,
}

impl Claim {
    pub(super) fn of(instance: Option<Instance>, sink: SinkId) -> Self {
        let (number, nonce) = instance.map_or((0, 0), |instance| (instance.number, instance.nonce));
        Self { number, nonce, sink }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, rest) = text.split_once('-')?;
        let (nonce, sink) = rest.split_once('-')?;
        let nonce = u64::from_str_radix(nonce, 16).ok()?;
        Some(Self { number: number.parse().ok()?, nonce, sink: SinkId::parse(sink)? })
    }

    /// Whether both are of one sink: only then does what the other has written tell how far this one has come.
    pub(super) fn is_of_the_sink_of(self, other: Self) -> bool {
        self.sink == other.sink
    }

    /// The same sink in a start that each other one replaces.
    pub(super) fn earliest(self) -> Self {
        Self { number: 0, nonce: 0, ..self }
    }

    /// A name of no more than 42 bytes for what only has to differ from what others name at the same time.
    pub(super) fn short(self) -> String {
        format!("{:x}-{:x}-{:x}", self.number, self.nonce, self.sink.0 >> 96)
    }

    /// Whether this start follows the other one. Of two that are as late, the journal was copied.
    pub(super) fn replaces(self, other: Self) -> bool {
        self.number > other.number
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{}", self.number, self.nonce, self.sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_start_replaces_an_earlier_one_and_no_other() {
        let claim = |number, nonce| Claim::of(Some(Instance { number, nonce }), SinkId(7));
        assert!(claim(3, 1).replaces(claim(2, 9)));
        assert!(!claim(2, 9).replaces(claim(3, 1)));
        assert!(!claim(3, 1).replaces(claim(3, 9)), "a copy of the journal was started as often");
        assert_eq!(Claim::parse(&claim(3, u64::MAX).to_string()), Some(claim(3, u64::MAX)));
        for text in ["three", "3-1", "3-1-7", "3-x-00000000000000000000000000000007"] {
            assert_eq!(Claim::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_claim_tells_one_sink_from_another_in_any_start() {
        let claim = |number, sink| Claim::of(Some(Instance { number, nonce: 1 }), SinkId(sink));
        assert!(claim(3, 7).is_of_the_sink_of(claim(2, 7)));
        assert!(!claim(3, 7).is_of_the_sink_of(claim(3, 8)));
        let longest = Claim::of(Some(Instance { number: u64::MAX, nonce: u64::MAX }), SinkId(u128::MAX));
        assert!(longest.short().len() <= 42, "{}", longest.short());
    }
}
