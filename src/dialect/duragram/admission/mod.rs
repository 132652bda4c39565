//! Admission: which datagrams come in, and how sealed ones are opened.
//!
//! It runs on the receivers' threads, each with an [`Admission`] of its own, and checks what needs no session: length,
//! checksum or seal, keys, channels. What is plainly refused is answered, at a bounded rate; everything else that does not
//! belong is dropped in silence (PROTOCOL.md#silence). What comes of a datagram is a [`Request`] to the committer's thread.

mod dropped;
mod key_cache;
mod request;
#[cfg(test)]
mod tests;

use duragram_proto::ClientId;
use duragram_proto::codec::{self, Data, Datagram, DecodeError, RejectCode};
use duragram_proto::seal::TAG_LEN;

use crate::dialect::Admit;
use crate::keys::KeyRing;
use crate::limits;
use crate::model::{ChannelSet, Now, Peer, SessionId};
use crate::net::{RawDatagram, Slab};
use crate::rate::{self, Buckets};
use dropped::DropReason;
pub use dropped::Dropped;
use key_cache::{KeyCache, Opened};
pub use request::{DataRequest, Request, RequestKind, Seal, TakeRequest};

/// What the server accepts of well-formed datagrams; the rest is answered with a REJECT.
#[derive(Clone, Debug)]
pub struct AdmissionConfig {
    /// The longest UDP payload accepted, in bytes.
    pub datagram_bytes_max: usize,
    /// Datagrams on other channels are refused; `None` accepts all channels.
    pub channels: Option<ChannelSet>,
    /// The keys of sealed mode.
    pub keys: KeyRing,
    /// With keys: plain traffic is accepted too, of clients that have no key of their own.
    pub allow_plain: bool,
    /// The most sessions that the server may have: for each there is room for its keys.
    pub sessions_max: usize,
    /// Who may ask for answers.
    pub asks: AsksOf,
}

/// Whose asks the server takes. To others it is one without them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AsksOf {
    /// Those of nobody: the extension is off.
    Nobody,
    /// Those that come sealed: others hear no answers.
    Sealed,
    /// Those that come plain are taken too.
    Everybody,
}

/// What one receiver lets in.
#[derive(Debug)]
pub struct Admission {
    config: AdmissionConfig,
    cache: KeyCache,
    /// Answers to plain datagrams that are refused, for each source.
    refusals: Buckets,
    /// The same for all sources together, since nothing shows that a source is real.
    plain_refusals: Buckets,
    /// Answers to sealed datagrams that are refused, for each client: what is sent in its name without its key takes nothing
    /// from them.
    sealed_refusals: Buckets,
}

impl AdmissionConfig {
    /// Plain datagrams up to this length, on every channel.
    pub fn plain(datagram_bytes_max: usize) -> Self {
        Self {
            datagram_bytes_max,
            channels: None,
            keys: KeyRing::none(),
            allow_plain: true,
            sessions_max: 0,
            asks: AsksOf::Everybody,
        }
    }

    /// Whether asks and TAKEs are taken that came so.
    fn takes_asks(&self, sealed: bool) -> bool {
        match self.asks {
            AsksOf::Nobody => false,
            AsksOf::Sealed => sealed,
            AsksOf::Everybody => true,
        }
    }

    /// Whether plain datagrams in this client's name are refused (PROTOCOL.md#sealed-mix).
    fn refuses_plain(&self, client: ClientId) -> bool {
        !self.keys.is_none() && (!self.allow_plain || self.keys.has_own_key(client))
    }

    /// Why a DATA is refused whatever its session is. `own`: the channels that the client may use, if it came sealed.
    fn refuses(&self, len: usize, data: &Data<'_>, sealed: bool, own: Option<&ChannelSet>) -> Option<RejectCode> {
        let outside = |set: Option<&ChannelSet>| set.is_some_and(|set| !set.contains(data.channel));
        if len > self.datagram_bytes_max {
            Some(RejectCode::TooLarge)
        } else if !data.is_supported() || (data.asks() && !self.takes_asks(sealed)) {
            Some(RejectCode::Unsupported)
        } else if outside(self.channels.as_ref()) || outside(own) {
            Some(RejectCode::Channel)
        } else {
            None
        }
    }
}

impl Admission {
    /// An admission that remembers nothing yet.
    pub fn new(config: AdmissionConfig) -> Self {
        let (per_s, burst) = (limits::REFUSALS_PER_S, limits::REFUSALS_BURST);
        let all = limits::PLAIN_REFUSALS_PER_S;
        // Nothing sealed is refused where nothing sealed is taken.
        let clients = if config.keys.is_none() { 1 } else { limits::SOURCE_BUCKETS };
        Self {
            cache: KeyCache::new(config.sessions_max),
            config,
            refusals: Buckets::new(limits::SOURCE_BUCKETS, per_s, burst),
            plain_refusals: Buckets::new(1, all, all),
            sealed_refusals: Buckets::new(clients, per_s, burst),
        }
    }

    /// Sealed sessions that were at work before the server's start: they are let in as if they had been heard since.
    pub fn expect(&mut self, sessions: &[SessionId]) {
        if !self.config.keys.is_none() {
            sessions.iter().for_each(|&session| self.cache.expect(session));
        }
    }

    /// Verifies a datagram, opens it in place if it is sealed, and tells what it asks for.
    fn check(&mut self, raw: RawDatagram<'_>, now: Now) -> Result<Request, DropReason> {
        let RawDatagram { peer, at, bytes: datagram } = raw;
        let len = datagram.len();
        let (kind, seal) = match codec::decode(datagram) {
            Ok(datagram) => {
                let kind = kind(&datagram, at + codec::MIN_LEN - codec::CRC_LEN, |data| {
                    self.config.refuses(len, data, false, None)
                })?;
                (if self.config.keys.is_none() { kind } else { self.refuse_plain(kind) }, None)
            }
            Err(DecodeError::Sealed) if !self.config.keys.is_none() => {
                let Opened { datagram, channels, seal } = self.cache.unseal(datagram, &self.config.keys, now)?;
                let kind = kind(&datagram, at + codec::SEALED_MIN_LEN - TAG_LEN, |data| {
                    self.config.refuses(len, data, true, channels.as_ref())
                })?;
                (kind, Some(seal))
            }
            Err(DecodeError::Version { client, epoch, seq }) => {
                (RequestKind::Refused { client, epoch, seq, code: RejectCode::Version }, None)
            }
            Err(error) => return Err(DropReason::Undecoded(error)),
        };
        if matches!(kind, RequestKind::Take(_)) {
            if !self.config.takes_asks(seal.is_some()) {
                return Err(DropReason::Undecoded(DecodeError::UnknownType));
            }
            if len > self.config.datagram_bytes_max {
                return Err(DropReason::TooLong);
            }
        }
        if let RequestKind::Refused { client, .. } = kind
            && !self.may_refuse(peer, seal.is_some().then_some(client), now)
        {
            return Err(DropReason::Limited);
        }
        Ok(Request { peer, len, kind, seal })
    }

    fn refuse_plain(&self, kind: RequestKind) -> RequestKind {
        let (client, epoch, seq) = match &kind {
            RequestKind::Data(data) => (data.session.client, data.session.epoch.value(), data.seq.0),
            RequestKind::Hello { client, nonce } => (*client, 0, *nonce),
            RequestKind::Ping(id) => (id.client, id.epoch.value(), 0),
            RequestKind::Take(take) => (take.session.client, take.session.epoch.value(), 0),
            RequestKind::Refused { client, epoch, seq, .. } => (*client, *epoch, *seq),
        };
        match self.config.refuses_plain(client) {
            true => RequestKind::Refused { client, epoch, seq, code: RejectCode::SealedOnly },
            false => kind,
        }
    }

    /// Whether one more refusal may be answered. `sealed_by`: the client whose key the datagram was sealed with, if it was.
    /// What is let through here is not counted again.
    fn may_refuse(&self, peer: Peer, sealed_by: Option<ClientId>, now: Now) -> bool {
        let Some(source) = rate::source(peer.addr) else { return true };
        match sealed_by {
            Some(client) => self.sealed_refusals.allows(client, now.mono_us),
            None => self.refusals.allows(source, now.mono_us) && self.plain_refusals.allows((), now.mono_us),
        }
    }
}

impl Admit for Admission {
    type Request = Request;
    type Dropped = Dropped;

    fn admit(&mut self, slab: &mut Slab, requests: &mut Vec<Request>, dropped: &mut Dropped) {
        dropped.truncated += slab.cut;
        let now = slab.arrived;
        slab.for_each(|datagram| match self.check(datagram, now) {
            Ok(request) => requests.push(request),
            Err(reason) => dropped.count(reason),
        });
    }
}

/// What a datagram asks for. `payload_at` is where a DATA's payload begins.
fn kind(
    datagram: &Datagram<'_>,
    payload_at: usize,
    refuses: impl FnOnce(&Data<'_>) -> Option<RejectCode>,
) -> Result<RequestKind, DropReason> {
    Ok(match datagram {
        Datagram::Data(data) => match refuses(data) {
            Some(code) => {
                let epoch = data.epoch.value();
                RequestKind::Refused { client: data.client, epoch, seq: data.seq.0, code }
            }
            None => RequestKind::Data(DataRequest::new(data, payload_at)),
        },
        Datagram::Hello(hello) => RequestKind::Hello { client: hello.client, nonce: hello.nonce },
        Datagram::Ping(ping) => RequestKind::Ping(SessionId { client: ping.client, epoch: ping.epoch }),
        Datagram::Take(take) => RequestKind::Take(TakeRequest {
            session: SessionId { client: take.client, epoch: take.epoch },
            seq: take.seq,
            span: take.span,
            wait_ms: take.wait_ms,
        }),
        Datagram::Ack(_) | Datagram::Reject(_) | Datagram::Welcome(_) | Datagram::Answer(_) => {
            return Err(DropReason::WrongDirection);
        }
    })
}
