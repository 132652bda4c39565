//! The keys of the sessions at work, so that none of their datagrams has to wait for a derivation.
//!
//! What names keys that are not here costs more than a good datagram, and anybody can name any. So only so many a second
//! may turn out to be forged; with more, most of them are not looked at, and a session that is new to this receiver needs
//! luck to be let in. Those at work are let in always: there is a place for each that the table of sessions may hold, only a good
//! seal takes one, and those that were not used for the longest time give way. Sessions that the journal holds have their
//! places from the start.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use duragram_proto::codec::{self, Datagram, SealedHead, Side};
use duragram_proto::{ClientId, Epoch};
use hashbrown::HashTable;

use crate::keys::{KeyRing, Lookup, SessionKeys};
use crate::limits;
use crate::model::{ChannelSet, Now, SessionId};
use crate::rate::Buckets;

use super::Seal;
use super::dropped::DropReason;

/// The keys that one receiver has at hand.
#[derive(Debug)]
pub(super) struct KeyCache {
    /// Finds a place by client and epoch.
    index: HashTable<u32>,
    /// In chunks of a fixed size: none is copied when there are more.
    places: Vec<Vec<Place>>,
    places_max: usize,
    /// Where the search for a place to give away goes on.
    hand: usize,
    /// Ids are chosen by whoever sends: nobody outside can foresee which of them meet.
    hasher: RandomState,
    /// Forgeries that may still be looked at.
    forgeries: Buckets,
    /// There were more: each further look is paid for in advance.
    flooded: bool,
}

/// The place of a session's keys, or of the keys of a client's HELLOs.
#[derive(Debug)]
struct Place {
    client: ClientId,
    /// The epoch of the session; `None` for the keys of HELLO.
    epoch: Option<Epoch>,
    /// Used since the search for a place to give away has passed.
    used: bool,
    /// The generation of the key ring that the keys come from.
    generation: u64,
    /// `None`: not derived yet, or its client has no key any more.
    keys: Option<Arc<SessionKeys>>,
    /// The channels that the client may use; `None` for all that the server accepts.
    channels: Option<ChannelSet>,
}

const _: () = assert!(
    // Its places in the index, which is at times half empty, the keys with the counts of their owners, and what the allocator adds.
    size_of::<Place>() + 2 * (size_of::<u32>() + 1) + size_of::<SessionKeys>() + 2 * size_of::<usize>() + 16
        <= limits::KEY_CACHE_BYTES
);

/// A datagram that was opened.
pub(super) struct Opened<'a> {
    pub(super) datagram: Datagram<'a>,
    pub(super) channels: Option<ChannelSet>,
    pub(super) seal: Seal,
}

impl KeyCache {
    /// With places for `sessions_max` sessions, and some for HELLOs.
    pub(super) fn new(sessions_max: usize) -> Self {
        let per_s = limits::FORGERIES_PER_S;
        Self {
            index: HashTable::new(),
            places: Vec::new(),
            places_max: sessions_max.saturating_add(limits::KEY_CACHE),
            hand: 0,
            hasher: RandomState::new(),
            forgeries: Buckets::new(1, per_s, per_s),
            flooded: false,
        }
    }

    /// A session that the journal holds: it has shown a good seal before. Its keys are derived when it is heard.
    pub(super) fn expect(&mut self, session: SessionId) {
        let (client, epoch) = (session.client, Some(session.epoch));
        if self.find(client, epoch).is_none() {
            self.put(Place { client, epoch, used: false, generation: 0, keys: None, channels: None });
        }
    }

    /// Verifies a DATA, HELLO or PING with the keys that it names, and decrypts it in place.
    pub(super) fn unseal<'a>(
        &mut self,
        datagram: &'a mut [u8],
        ring: &KeyRing,
        now: Now,
    ) -> Result<Opened<'a>, DropReason> {
        let SealedHead { client, keys, counter, sender } = codec::peek(datagram).map_err(DropReason::Undecoded)?;
        if sender == Side::Server {
            return Err(DropReason::WrongDirection);
        }
        // Before the look-up: what is kept is never older than the number that it is kept under.
        let generation = ring.generation();
        let epoch = keys.epoch();
        if let Some(at) = self.find(client, epoch) {
            let place = self.place_mut(at);
            if place.generation != generation {
                // Whoever was revoked is so from the next datagram on. Each place is derived again once after each reload,
                // whoever names it, so that it need not be paid for.
                place.renew(ring, generation)?;
            }
            let Some(keys) = &place.keys else { return Err(place.refusal(ring)) };
            let datagram = codec::unseal_request(datagram, keys).map_err(DropReason::Undecoded)?;
            if !place.used {
                place.used = true;
            }
            let seal = Seal { keys: Arc::clone(keys), counter };
            return Ok(Opened { datagram, channels: place.channels.clone(), seal });
        }
        let paid = self.flooded;
        if paid && !self.forgeries.allows((), now.mono_us) {
            return Err(DropReason::Limited);
        }
        let of = match ring.lookup(client) {
            Lookup::Key(of) => of,
            Lookup::Revoked => return Err(DropReason::Revoked),
            Lookup::Unknown => return Err(DropReason::UnknownKey),
        };
        let keys: SessionKeys = of.key.keys_with(client, epoch);
        let opened = codec::unseal_request(datagram, &keys);
        self.flooded = match opened {
            Ok(_) => false,
            Err(_) => paid || !self.forgeries.allows((), now.mono_us),
        };
        let datagram = opened.map_err(DropReason::Undecoded)?;
        let (keys, channels) = (Arc::new(keys), of.channels.clone());
        let kept = (Some(Arc::clone(&keys)), channels.clone());
        self.put(Place { client, epoch, used: true, generation, keys: kept.0, channels: kept.1 });
        Ok(Opened { datagram, channels, seal: Seal { keys, counter } })
    }

    fn hash(&self, client: ClientId, epoch: Option<Epoch>) -> u64 {
        self.hasher.hash_one((client, epoch))
    }

    fn find(&self, client: ClientId, epoch: Option<Epoch>) -> Option<u32> {
        let of = |&at: &u32| (self.place(at).client, self.place(at).epoch) == (client, epoch);
        self.index.find(self.hash(client, epoch), of).copied()
    }

    fn place(&self, at: u32) -> &Place {
        &self.places[at as usize / limits::SESSIONS_PER_CHUNK][at as usize % limits::SESSIONS_PER_CHUNK]
    }

    fn place_mut(&mut self, at: u32) -> &mut Place {
        &mut self.places[at as usize / limits::SESSIONS_PER_CHUNK][at as usize % limits::SESSIONS_PER_CHUNK]
    }

    /// Takes a free place, or one that was not used for long. When too many in a row were used since the search has passed
    /// last, it is not kept: the search goes on from there with the next one.
    fn put(&mut self, new: Place) {
        let hash = self.hash(new.client, new.epoch);
        let len = self.index.len();
        let at = if len < self.places_max {
            if len.is_multiple_of(limits::SESSIONS_PER_CHUNK) {
                self.places.push(Vec::with_capacity(limits::SESSIONS_PER_CHUNK));
            }
            if let Some(last) = self.places.last_mut() {
                last.push(new);
            }
            index(len)
        } else {
            let Some(at) = self.give_away() else { return };
            let old = self.place(at);
            let old_hash = self.hash(old.client, old.epoch);
            if let Ok(found) = self.index.find_entry(old_hash, |&i| i == at) {
                found.remove();
            }
            *self.place_mut(at) = new;
            at
        };
        let (places, hasher) = (&self.places, &self.hasher);
        self.index.insert_unique(hash, at, |&at| {
            let place = &places[at as usize / limits::SESSIONS_PER_CHUNK][at as usize % limits::SESSIONS_PER_CHUNK];
            hasher.hash_one((place.client, place.epoch))
        });
    }

    /// As a clock's hand: passes those that were used, and takes the first that was not used since it has passed before.
    fn give_away(&mut self) -> Option<u32> {
        for _ in 0..limits::KEY_CACHE_SWEPT {
            let at = index(self.hand % self.places_max);
            self.hand = at as usize + 1;
            if !std::mem::take(&mut self.place_mut(at).used) {
                return Some(at);
            }
        }
        None
    }
}

impl Place {
    /// Takes up what the key ring says now.
    fn renew(&mut self, ring: &KeyRing, generation: u64) -> Result<(), DropReason> {
        self.generation = generation;
        (self.keys, self.channels) = (None, None);
        match ring.lookup(self.client) {
            Lookup::Key(of) => {
                self.keys = Some(Arc::new(of.key.keys_with(self.client, self.epoch)));
                self.channels = of.channels.clone();
                Ok(())
            }
            Lookup::Revoked => Err(DropReason::Revoked),
            Lookup::Unknown => Err(DropReason::UnknownKey),
        }
    }

    /// The reason for which its client has no keys.
    fn refusal(&self, ring: &KeyRing) -> DropReason {
        match ring.lookup(self.client) {
            Lookup::Revoked => DropReason::Revoked,
            _ => DropReason::UnknownKey,
        }
    }
}

/// `limits` keeps the number of places far below 2³².
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("the places are bounded below 2^32")
}
