//! The door: which datagrams come in, and how sealed ones are opened.
//!
//! Everything here is looked at before any session: length, checksum or seal, keys, channels. What is plainly refused is
//! answered, at a bounded rate; everything else that does not belong is dropped in silence (PROTOCOL.md#silence).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use duragram_proto::codec::{self, Data, Datagram, DecodeError, RejectCode, SealedHead, Side};
use duragram_proto::seal::{SessionKeys, TAG_LEN};
use duragram_proto::{ClientId, Epoch};

use crate::keys::{Client, KeyRing, Lookup};
use crate::limits;
use crate::net::Peer;
use crate::net::batch::{DataItem, ItemKind, Seal};
use crate::rate::{self, Buckets};
use crate::types::{ChannelSet, Now, SessionId};

/// What the server accepts of well-formed datagrams; the rest is answered with a REJECT.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The longest UDP payload accepted, in bytes.
    pub datagram_bytes_max: usize,
    /// The channels accepted; `None` for all.
    pub channels: Option<ChannelSet>,
    /// The keys of sealed mode.
    pub keys: KeyRing,
    /// With keys: plain traffic is accepted too, of clients that have no key of their own.
    pub allow_plain: bool,
}

/// One receiver's way in.
#[derive(Debug)]
pub struct Gate {
    admission: Admission,
    cache: KeyCache,
    /// Answers to what is refused whoever sent it, for each source.
    refusals: Buckets,
    /// The same for all sources together, where nothing shows that a source is real.
    plain_refusals: Buckets,
}

/// Why a datagram is dropped in silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drop {
    /// It is none of this protocol, or its seal is wrong.
    Undecoded(DecodeError),
    /// Only a server sends that.
    WrongDirection,
    /// Sealed for a client of which no key is known.
    UnknownKey,
    /// Sealed for a client whose key is revoked.
    Revoked,
    /// It is to be refused, and so was much else from where it came; or its keys are not at hand, and too much else was forged.
    Limited,
}

impl Admission {
    /// Plain datagrams up to this length, on every channel.
    pub fn plain(datagram_bytes_max: usize) -> Self {
        Self { datagram_bytes_max, channels: None, keys: KeyRing::none(), allow_plain: true }
    }

    /// PROTOCOL.md#sealed-mix.
    fn refuses_plain(&self, client: ClientId) -> bool {
        !self.keys.is_none() && (!self.allow_plain || self.keys.has_own_key(client))
    }

    /// `own`: the channels that the client may use.
    fn refuses(&self, len: usize, data: &Data<'_>, own: Option<&ChannelSet>) -> Option<RejectCode> {
        let outside = |set: Option<&ChannelSet>| set.is_some_and(|set| !set.contains(data.channel));
        if len > self.datagram_bytes_max {
            Some(RejectCode::TooLarge)
        } else if !data.is_supported() {
            Some(RejectCode::Unsupported)
        } else if outside(self.channels.as_ref()) || outside(own) {
            Some(RejectCode::Channel)
        } else {
            None
        }
    }
}

impl Gate {
    /// With nothing remembered yet.
    pub fn new(admission: Admission) -> Self {
        let (per_s, burst) = (limits::REFUSALS_PER_S, limits::REFUSALS_BURST);
        let all = limits::PLAIN_REFUSALS_PER_S;
        Self {
            admission,
            cache: KeyCache::new(),
            refusals: Buckets::new(limits::SOURCE_BUCKETS, per_s, burst),
            plain_refusals: Buckets::new(1, all, all),
        }
    }

    /// Verifies a datagram, opens it in place if it is sealed, and tells what it asks for. `at` is where its first byte
    /// stands in the slab.
    pub(super) fn admit(
        &mut self,
        datagram: &mut [u8],
        at: usize,
        peer: Peer,
        now: Now,
    ) -> Result<(ItemKind, Option<Seal>), Drop> {
        let len = datagram.len();
        let (kind, seal) = match codec::decode(datagram) {
            Ok(datagram) => {
                let kind = kind(&datagram, at + codec::MIN_LEN - codec::CRC_LEN, |data| {
                    self.admission.refuses(len, data, None)
                })?;
                (if self.admission.keys.is_none() { kind } else { self.refuse_plain(kind) }, None)
            }
            Err(DecodeError::Sealed) if !self.admission.keys.is_none() => {
                let (datagram, client, seal) = self.cache.unseal(datagram, &self.admission.keys, now)?;
                let kind = kind(&datagram, at + codec::SEALED_MIN_LEN - TAG_LEN, |data| {
                    self.admission.refuses(len, data, client.channels.as_ref())
                })?;
                (kind, Some(seal))
            }
            Err(DecodeError::Version { client, epoch, seq }) => {
                (ItemKind::Refused { client, epoch, seq, code: RejectCode::Version }, None)
            }
            Err(error) => return Err(Drop::Undecoded(error)),
        };
        if matches!(kind, ItemKind::Refused { .. }) && !self.may_refuse(peer, seal.is_none(), now) {
            return Err(Drop::Limited);
        }
        Ok((kind, seal))
    }

    fn refuse_plain(&self, kind: ItemKind) -> ItemKind {
        let (client, epoch, seq) = match &kind {
            ItemKind::Data(data) => (data.session.client, data.session.epoch.value(), data.seq.0),
            ItemKind::Hello { client, nonce } => (*client, 0, *nonce),
            ItemKind::Ping(id) => (id.client, id.epoch.value(), 0),
            ItemKind::Refused { client, epoch, seq, .. } => (*client, *epoch, *seq),
        };
        match self.admission.refuses_plain(client) {
            true => ItemKind::Refused { client, epoch, seq, code: RejectCode::SealedOnly },
            false => kind,
        }
    }

    fn may_refuse(&self, peer: Peer, plain: bool, now: Now) -> bool {
        let Some(source) = rate::source(peer.addr) else { return true };
        self.refusals.allows(source, now.mono_us) && (!plain || self.plain_refusals.allows((), now.mono_us))
    }
}

/// `payload_at` is where a DATA's payload begins.
fn kind(
    datagram: &Datagram<'_>,
    payload_at: usize,
    refuses: impl FnOnce(&Data<'_>) -> Option<RejectCode>,
) -> Result<ItemKind, Drop> {
    Ok(match datagram {
        Datagram::Data(data) => match refuses(data) {
            Some(code) => {
                let epoch = data.epoch.value();
                ItemKind::Refused { client: data.client, epoch, seq: data.seq.0, code }
            }
            None => ItemKind::Data(DataItem::new(data, payload_at)),
        },
        Datagram::Hello(hello) => ItemKind::Hello { client: hello.client, nonce: hello.nonce },
        Datagram::Ping(ping) => ItemKind::Ping(SessionId { client: ping.client, epoch: ping.epoch }),
        Datagram::Ack(_) | Datagram::Reject(_) | Datagram::Welcome(_) => return Err(Drop::WrongDirection),
    })
}

/// Keys that were derived and have opened a datagram: deriving them again takes longer than opening one. Each pair has one
/// place, which another may take; but only a good seal takes a place, so that forged datagrams drive nothing out.
///
/// What names keys that are not here costs more than a good datagram, and anybody can name any. So only so many a second
/// may turn out to be forged; with more, most of them are not looked at, and a session that is new to this receiver needs
/// luck to be let in. Those at work are let in always.
#[derive(Debug)]
struct KeyCache {
    /// Empty, or all of them.
    places: Vec<Option<Cached>>,
    hasher: RandomState,
    /// Of the key ring that all of it comes from.
    generation: u64,
    /// Forgeries that may still be looked at.
    forgeries: Buckets,
    /// There were more: each further look is paid for in advance.
    flooded: bool,
}

#[derive(Debug)]
struct Cached {
    client: ClientId,
    /// `None`: the keys of HELLO.
    epoch: Option<Epoch>,
    of: Arc<Client>,
    keys: Arc<SessionKeys>,
}

impl KeyCache {
    fn new() -> Self {
        let per_s = limits::FORGERIES_PER_S;
        Self {
            places: Vec::new(),
            hasher: RandomState::new(),
            generation: 0,
            forgeries: Buckets::new(1, per_s, per_s),
            flooded: false,
        }
    }

    /// Verifies a DATA, HELLO or PING with the keys that it names, and decrypts it in place.
    fn unseal<'a>(
        &mut self,
        datagram: &'a mut [u8],
        ring: &KeyRing,
        now: Now,
    ) -> Result<(Datagram<'a>, Arc<Client>, Seal), Drop> {
        let SealedHead { client, keys, counter, sender } = codec::peek(datagram).map_err(Drop::Undecoded)?;
        if sender == Side::Server {
            return Err(Drop::WrongDirection);
        }
        // Before the look-up: what is kept is never older than the number that it is kept under.
        let generation = ring.generation();
        if generation != self.generation {
            // Whoever was revoked is so from the next datagram on.
            self.places.clear();
            self.generation = generation;
        }
        let epoch = keys.epoch();
        let place = self.place(client, epoch);
        let cached = self.places.get(place).and_then(Option::as_ref);
        if let Some(Cached { of, keys, .. }) = cached.filter(|cached| (cached.client, cached.epoch) == (client, epoch))
        {
            let datagram = codec::unseal_request(datagram, keys).map_err(Drop::Undecoded)?;
            return Ok((datagram, Arc::clone(of), Seal { keys: Arc::clone(keys), counter }));
        }
        let paid = self.flooded;
        if paid && !self.forgeries.allows((), now.mono_us) {
            return Err(Drop::Limited);
        }
        let of = match ring.lookup(client) {
            Lookup::Key(of) => of,
            Lookup::Revoked => return Err(Drop::Revoked),
            Lookup::Unknown => return Err(Drop::UnknownKey),
        };
        let keys = of.key.keys(client, epoch);
        let opened = codec::unseal_request(datagram, &keys);
        self.flooded = match opened {
            Ok(_) => false,
            Err(_) => paid || !self.forgeries.allows((), now.mono_us),
        };
        let datagram = opened.map_err(Drop::Undecoded)?;
        let keys = Arc::new(keys);
        if self.places.is_empty() {
            self.places.resize_with(limits::KEY_CACHE, || None);
        }
        self.places[place] = Some(Cached { client, epoch, of: Arc::clone(&of), keys: Arc::clone(&keys) });
        Ok((datagram, of, Seal { keys, counter }))
    }

    fn place(&self, client: ClientId, epoch: Option<Epoch>) -> usize {
        #[allow(clippy::cast_possible_truncation)] // the remainder is below a usize
        let place = (self.hasher.hash_one((client, epoch)) % limits::KEY_CACHE as u64) as usize;
        place
    }
}
