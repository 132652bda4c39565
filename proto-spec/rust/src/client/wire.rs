//! How the machine's datagrams are protected: by a checksum, or by a seal (PROTOCOL.md#sealed-client).

use super::Ignored;
use crate::codec::{self, Datagram, MIN_LEN};
use crate::{ClientId, Epoch};

#[cfg(feature = "sealed")]
pub(super) use sealed::Seal;
#[cfg(feature = "sealed")]
pub use sealed::Sealing;

/// Encodes what is sent and decodes what comes.
#[derive(Debug)]
pub(super) enum Wire {
    Plain,
    #[cfg(feature = "sealed")]
    Sealed(Seal),
}

impl Wire {
    /// The length of a datagram without payload.
    pub(super) fn overhead(&self) -> usize {
        match self {
            Self::Plain => MIN_LEN,
            #[cfg(feature = "sealed")]
            Self::Sealed(_) => codec::SEALED_MIN_LEN,
        }
    }

    /// Whether a WELCOME must lead upwards. In plain mode the server itself may have to begin anew past the last epoch.
    pub(super) fn epochs_only_rise(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// Whether only the server can have made what is decoded.
    pub(super) fn is_authentic(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// Goes over to the keys of a session, at its beginning.
    pub(super) fn enter(&mut self, epoch: Epoch) {
        match self {
            Self::Plain => _ = epoch,
            #[cfg(feature = "sealed")]
            Self::Sealed(seal) => seal.enter(epoch),
        }
    }

    /// Whether nothing more can be sent in this session.
    pub(super) fn is_used_up(&self) -> bool {
        match self {
            Self::Plain => false,
            #[cfg(feature = "sealed")]
            Self::Sealed(seal) => seal.is_used_up(),
        }
    }

    /// Nothing was heard in an epoch that another run may have used: the answers go to who used the highest counter in it
    /// (PROTOCOL.md#sealed-address).
    pub(super) fn rise(&mut self) {
        match self {
            Self::Plain => {}
            #[cfg(feature = "sealed")]
            Self::Sealed(seal) => seal.rise(),
        }
    }

    /// Writes a datagram and returns its length.
    pub(super) fn encode(&mut self, datagram: &Datagram<'_>, out: &mut [u8]) -> Option<usize> {
        match self {
            Self::Plain => datagram.encode(out).ok(),
            #[cfg(feature = "sealed")]
            Self::Sealed(seal) => seal.encode(datagram, out),
        }
    }

    /// Writes a TAKE in the session that is now, or in another one of this client id. `None` when all numbers that could seal
    /// it are used.
    #[cfg_attr(not(feature = "sealed"), allow(unused_variables))]
    pub(super) fn encode_take(&mut self, take: &Datagram<'_>, is_current: bool, out: &mut [u8]) -> Option<usize> {
        match self {
            #[cfg(feature = "sealed")]
            Self::Sealed(seal) if !is_current => seal.encode_in_old_epoch(take, out),
            _ => self.encode(take, out),
        }
    }

    /// What was sent in another session than the one that is now had no reply: they go to who used the highest counter in it.
    pub(super) fn rise_in_old_epochs(&mut self) {
        match self {
            Self::Plain => {}
            #[cfg(feature = "sealed")]
            Self::Sealed(seal) => seal.rise_in_old_epochs(),
        }
    }

    /// Reads a datagram, which is decrypted where it stands. `client`, `epoch` and `hello`, the nonce of an open HELLO, say which
    /// keys may be tried; `waits_in`: those of which other sessions as well, for an ANSWER.
    #[cfg_attr(not(feature = "sealed"), allow(unused_variables))]
    pub(super) fn decode<'a>(
        &self,
        bytes: &'a mut [u8],
        client: ClientId,
        epoch: Option<Epoch>,
        hello: Option<u64>,
        waits_in: impl Fn(Epoch) -> bool,
    ) -> Result<Datagram<'a>, Ignored> {
        match self {
            Self::Plain => {
                let bytes: &'a [u8] = bytes;
                let refusal = || codec::decode_version_refusal(bytes).map(Datagram::Reject);
                codec::decode(bytes).or_else(|error| refusal().ok_or(Ignored::Undecodable(error)))
            }
            #[cfg(feature = "sealed")]
            Self::Sealed(seal) => seal.decode(bytes, (client, epoch, hello), waits_in),
        }
    }
}

#[cfg(feature = "sealed")]
mod sealed {
    use super::Ignored;
    use crate::codec::{self, Datagram, KeysOf, SealedHead, Side};
    use crate::seal::{ClientKey, CounterStart, SessionKeys};
    use crate::{ClientId, Epoch};

    /// What a sealed client seals with.
    #[derive(Clone, Debug)]
    pub struct Sealing {
        /// The key that it shares with the server.
        pub key: ClientKey,
        /// Its counter begins here in each epoch, so that no number is used twice.
        pub counter: CounterStart,
    }

    /// Keys and counter of a client. Not to be copied: two that go on from one counter would use it twice.
    #[derive(Debug)]
    pub(in crate::client) struct Seal {
        sealing: Sealing,
        client: ClientId,
        /// Of the session. Those of HELLO are derived when they are needed: once or twice in a client's life.
        session: Option<SessionKeys>,
        /// Of the next transmission in the session; `None` when all numbers are used.
        counter: Option<u64>,
        /// The same for TAKEs in other sessions of this client id: at least as high as the numbers used in any session that was
        /// left; so one will do for all of them.
        old_counter: Option<u64>,
        /// The highest epoch in which it was used.
        old_epoch_max: Option<Epoch>,
    }

    /// Counters that start at random start below this one.
    const RANDOM_END: u64 = 1 << 63;
    /// So far below it a counter stops to rise: above all but one of 256 others, and still random enough never to meet one that
    /// has risen as well.
    const RISE_STOPS_BELOW: u64 = 1 << 55;

    impl Seal {
        pub(in crate::client) fn new(sealing: Sealing, client: ClientId, epoch: Option<Epoch>) -> Self {
            let old_counter = Some(sealing.counter.taking_first());
            let mut seal = Self { sealing, client, session: None, counter: None, old_counter, old_epoch_max: None };
            if let Some(epoch) = epoch {
                seal.enter(epoch);
            }
            seal
        }

        /// New keys, under which every number is unused, but where answers of a session with this epoch were taken before.
        pub(super) fn enter(&mut self, epoch: Epoch) {
            if self.session.is_some() {
                // `None`, all used, is lower than any number, so it is looked at by itself.
                self.old_counter = self.counter.and_then(|left| self.old_counter.map(|old| old.max(left)));
            }
            let is_fresh = self.old_epoch_max.is_none_or(|taken| taken < epoch);
            self.session = Some(self.sealing.key.keys(self.client, Some(epoch)));
            self.counter = if is_fresh { Some(*self.sealing.counter.range().start()) } else { self.old_counter };
        }

        pub(super) fn rise(&mut self) {
            self.counter = self.risen(self.counter);
        }

        pub(super) fn rise_in_old_epochs(&mut self) {
            self.old_counter = self.risen(self.old_counter);
        }

        /// Half of the way up to where random starts end; not where a stored count or the time keeps the ranges of runs apart.
        fn risen(&self, counter: Option<u64>) -> Option<u64> {
            let counter = counter?;
            let left = RANDOM_END.saturating_sub(counter);
            let rises = *self.sealing.counter.range().end() == u64::MAX && left > RISE_STOPS_BELOW;
            Some(if rises { counter + left / 2 } else { counter })
        }

        pub(super) fn is_used_up(&self) -> bool {
            self.session.is_some() && self.counter.is_none()
        }

        /// PROTOCOL.md#sealed-counter: another number for each transmission, HELLO's its nonce.
        pub(super) fn encode(&mut self, datagram: &Datagram<'_>, out: &mut [u8]) -> Option<usize> {
            if let Datagram::Hello(hello) = datagram {
                return hello.seal(&self.sealing.key.keys(self.client, None), out).ok();
            }
            let counter = self.counter?;
            self.counter = self.after(counter);
            datagram.seal(self.session.as_ref()?, counter, out).ok()
        }

        /// The number after this one; `None` when it was the last.
        fn after(&self, counter: u64) -> Option<u64> {
            (counter < *self.sealing.counter.range().end()).then(|| counter + 1)
        }

        /// Of a session that is not the one that is now.
        pub(super) fn encode_in_old_epoch(&mut self, take: &Datagram<'_>, out: &mut [u8]) -> Option<usize> {
            let Datagram::Take(of) = take else { return None };
            let counter = self.old_counter?;
            self.old_counter = self.after(counter);
            self.old_epoch_max = self.old_epoch_max.max(Some(of.epoch));
            take.seal(&self.old_keys(of.epoch), counter, out).ok()
        }

        /// The keys of a session that is not the one that is now, derived anew: seldom enough.
        fn old_keys(&self, epoch: Epoch) -> SessionKeys {
            self.sealing.key.keys(self.client, Some(epoch))
        }

        pub(super) fn decode<'a>(
            &self,
            bytes: &'a mut [u8],
            (client, epoch, hello): (ClientId, Option<Epoch>, Option<u64>),
            waits_in: impl Fn(Epoch) -> bool,
        ) -> Result<Datagram<'a>, Ignored> {
            let head: SealedHead = codec::peek(bytes).map_err(Ignored::Undecodable)?;
            if head.sender == Side::Client {
                return Err(Ignored::ForServers);
            }
            if head.client != client {
                return Err(Ignored::OtherClient);
            }
            let opened = match (head.keys, &self.session) {
                (KeysOf::Session(of), Some(keys)) if Some(of) == epoch => codec::unseal_reply(bytes, keys),
                (KeysOf::Session(of), _) if codec::is_answer(bytes) && waits_in(of) => {
                    codec::unseal_reply(bytes, &self.old_keys(of))
                }
                (KeysOf::Session(_), _) => return Err(Ignored::OtherEpoch),
                (KeysOf::Hello { nonce }, _) if Some(nonce) == hello => {
                    codec::unseal_reply(bytes, &self.sealing.key.keys(client, None))
                }
                (KeysOf::Hello { .. }, _) => return Err(Ignored::Unasked),
            };
            opened.map_err(Ignored::Undecodable)
        }
    }
}
