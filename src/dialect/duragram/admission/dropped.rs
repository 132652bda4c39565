//! What is dropped in silence, and why (PROTOCOL.md#silence).

use duragram_proto::codec::DecodeError;

use crate::metrics::Metrics;

/// Why a datagram is dropped in silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DropReason {
    /// It is none of this protocol, or its seal is wrong.
    Undecoded(DecodeError),
    /// Only a server sends such datagrams.
    WrongDirection,
    /// It is a TAKE with room for more than the server ever says.
    TooLong,
    /// It is sealed for a client of which no key is known.
    UnknownKey,
    /// It is sealed for a client whose key is revoked.
    Revoked,
    /// It is to be refused, and so was much else from where it came; or its keys are not at hand, and too much else was forged.
    Limited,
}

/// Datagrams dropped in silence, by reason.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// Shorter than any datagram of the protocol, or cut by the kernel.
    pub truncated: u64,
    /// The CRC-32 does not match: garbled, or not of this protocol.
    pub checksum: u64,
    /// Well checksummed and still against the rules, broken batches among them.
    pub malformed: u64,
    /// Of a type that is not assigned.
    pub unknown_type: u64,
    /// Of a type that only a server sends.
    pub wrong_direction: u64,
    /// A TAKE that is longer than any datagram may be.
    pub too_long: u64,
    /// Sealed, and this server has no keys.
    pub sealed: u64,
    /// The tag is wrong: forged, or garbled on the way.
    pub bad_seal: u64,
    /// Sealed for a client of which this server has no key.
    pub unknown_key: u64,
    /// Sealed for a client whose key is revoked.
    pub revoked: u64,
    /// To be refused, but too much from its source was; or of an unknown session, of which too many were forged.
    pub limited: u64,
}

impl Dropped {
    pub(super) fn count(&mut self, reason: DropReason) {
        let counter = match reason {
            DropReason::WrongDirection => &mut self.wrong_direction,
            DropReason::TooLong => &mut self.too_long,
            DropReason::UnknownKey => &mut self.unknown_key,
            DropReason::Revoked => &mut self.revoked,
            DropReason::Limited => &mut self.limited,
            DropReason::Undecoded(error) => match error {
                DecodeError::Truncated => &mut self.truncated,
                DecodeError::Checksum => &mut self.checksum,
                DecodeError::UnknownType => &mut self.unknown_type,
                DecodeError::BadSeal => &mut self.bad_seal,
                DecodeError::Sealed | DecodeError::NotSealed => &mut self.sealed,
                DecodeError::Malformed | DecodeError::BrokenBatch | DecodeError::Version { .. } => &mut self.malformed,
            },
        };
        *counter += 1;
    }

    /// Adds it to the metrics.
    pub(crate) fn report(&self, metrics: &Metrics) {
        metrics.count("truncated", self.truncated);
        metrics.count("checksum", self.checksum);
        metrics.count("malformed", self.malformed);
        metrics.count("unknown_type", self.unknown_type);
        metrics.count("wrong_direction", self.wrong_direction);
        metrics.count("too_large", self.too_long);
        metrics.count("sealed", self.sealed);
        metrics.count("bad_seal", self.bad_seal);
        metrics.count("unknown_key", self.unknown_key);
        metrics.count("revoked", self.revoked);
        metrics.count("limited", self.limited);
    }
}
