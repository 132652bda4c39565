//! Keys of sealed mode (PROTOCOL.md#sealed-keys): which client has which, who is revoked, who may use which channels.
//!
//! A [`KeyRing`] is the keys in force, shared by all who need them and replaced as a whole by [`KeyRing::reload`];
//! [`Keys`] is what a key file says. [`mod@file`] reads and writes such files and says what stands in them; what
//! datagrams are sealed with are [`SessionKeys`]. Keys are wiped from memory when they are dropped; nothing here shows one, in
//! an error or by `Debug`. This module knows no socket, no session and no configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use duragram_proto::ClientId;
use duragram_proto::seal::{ClientKey, FleetKey};

use crate::model::ChannelSet;

pub mod file;
mod parse;
mod seal;
#[cfg(test)]
mod tests;

pub use file::KeyFileError;
pub use parse::{LineError, LineProblem};
pub use seal::{RingCipher, SessionKeys};

/// The keys in force. Cheap to clone; every clone sees a reload.
#[derive(Clone)]
pub struct KeyRing(Arc<Ring>);

struct Ring {
    /// `None`: there is no file, so nothing to read again.
    path: Option<PathBuf>,
    /// The keys that hold now; `None` makes a server without keys.
    keys: Option<RwLock<InForce>>,
    generation: AtomicU64,
}

struct InForce {
    keys: Arc<Keys>,
    loaded_unix_us: u64,
}

/// What a key file says.
pub struct Keys {
    fleet: Option<FleetKey>,
    /// Named by a line of their own; by rising id.
    clients: Vec<Named>,
    /// The clients that may not send, by rising id.
    revoked: Vec<ClientId>,
}

/// A client that the file names.
struct Named {
    client: ClientId,
    /// Where the file says so.
    line: usize,
    /// The client's own key; `None`: it is derived from the fleet key.
    key: Option<ClientKey>,
    channels: Option<ChannelSet>,
}

/// What there is to know about a client.
#[derive(Debug)]
pub enum Lookup {
    /// It may send, sealed with this key.
    Key(Arc<Client>),
    /// It may not, whatever keys there are.
    Revoked,
    /// There is no key for it.
    Unknown,
}

/// A client that may send.
#[derive(Clone)]
pub struct Client {
    /// Its own key, or the one derived from the fleet key.
    pub key: ClientKey,
    /// The channels that it may use; `None` for all that the server accepts.
    pub channels: Option<ChannelSet>,
}

/// What may be told of the keys in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The fleet key's fingerprint, if there is a fleet key.
    pub fleet: Option<[u8; 8]>,
    /// Clients with a key of their own.
    pub clients: usize,
    /// Clients whose channels are restricted.
    pub restricted: usize,
    /// So many clients are revoked: nothing of theirs is accepted.
    pub revoked: usize,
}

impl KeyRing {
    /// Of a server without keys.
    pub fn none() -> Self {
        Self(Arc::new(Ring { path: None, keys: None, generation: AtomicU64::new(0) }))
    }

    /// Of these keys, which stand in no file: for programs that embed the server, and for tests.
    pub fn of(keys: Keys) -> Self {
        Self::new(None, keys)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// The file cannot be read, can be read or changed by others, or is wrong.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        Ok(Self::new(Some(path.to_owned()), file::read(path)?))
    }

    fn new(path: Option<PathBuf>, keys: Keys) -> Self {
        let keys = Some(RwLock::new(InForce::now(keys)));
        Self(Arc::new(Ring { path, keys, generation: AtomicU64::new(1) }))
    }

    /// Reads the same file again and puts its keys in force; without a file nothing changes.
    ///
    /// # Errors
    /// As [`load`](Self::load). The keys that were in force stay so.
    pub fn reload(&self) -> Result<(), KeyFileError> {
        let Some(path) = &self.0.path else { return Ok(()) };
        self.replace(file::read(path)?);
        Ok(())
    }

    /// Puts these keys in force. Without effect on a ring without keys: whether a server has keys is decided at its start.
    pub fn replace(&self, keys: Keys) {
        let Some(in_force) = &self.0.keys else { return };
        *in_force.write().unwrap_or_else(PoisonError::into_inner) = InForce::now(keys);
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    /// Another number after each reload: what was looked up before may have changed. Who keeps an answer reads this
    /// number first and looks up then, so that the answer is at least as new as the number. One atomic load.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Whether the server has no keys, and so takes plain traffic alone.
    pub fn is_none(&self) -> bool {
        self.0.keys.is_none()
    }

    /// A client's key: its own, or derived from the fleet key. That it is revoked comes before both.
    pub fn lookup(&self, client: ClientId) -> Lookup {
        self.in_force().map_or(Lookup::Unknown, |(keys, _)| keys.lookup(client))
    }

    /// Whether a line of the key file names this client, to give it a key, to restrict or to revoke it: plain traffic in its
    /// name is refused, also where plain traffic is allowed (PROTOCOL.md#sealed-mix).
    pub fn has_own_key(&self, client: ClientId) -> bool {
        self.in_force().is_some_and(|(keys, _)| keys.names(client))
    }

    /// What may be told of the keys, and since when they are in force (Unix time in microseconds).
    pub fn summary(&self) -> Option<(Summary, u64)> {
        self.in_force().map(|(keys, since)| (keys.summary(), since))
    }

    /// The file that [`reload`](Self::reload) reads.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    fn in_force(&self) -> Option<(Arc<Keys>, u64)> {
        let in_force = self.0.keys.as_ref()?.read().unwrap_or_else(PoisonError::into_inner);
        Some((Arc::clone(&in_force.keys), in_force.loaded_unix_us))
    }
}

impl InForce {
    fn now(keys: Keys) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { keys: Arc::new(keys), loaded_unix_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX) }
    }
}

impl Keys {
    /// What the text of a key file says; see [`mod@file`].
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, LineError> {
        parse::parse(text)
    }

    /// Finds a client's key as [`KeyRing::lookup`] does.
    pub fn lookup(&self, client: ClientId) -> Lookup {
        if self.revoked.binary_search(&client).is_ok() {
            return Lookup::Revoked;
        }
        let (own, channels) = match self.named(client) {
            Some(named) => (named.key.clone(), named.channels.clone()),
            None => (None, None),
        };
        match own.or_else(|| Some(self.fleet.as_ref()?.client_key(client))) {
            Some(key) => Lookup::Key(Arc::new(Client { key, channels })),
            None => Lookup::Unknown,
        }
    }

    /// The client whose file this is: the only one with a key of its own, where there is no fleet key.
    pub fn only_client(&self) -> Option<ClientId> {
        match (&self.fleet, &self.clients[..]) {
            (None, [named]) => Some(named.client),
            _ => None,
        }
    }

    /// Clients that a line gives a key, their own or the derived one; by rising id.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.clients.iter().map(|named| named.client)
    }

    /// Clients that are revoked, by rising id.
    pub fn revoked(&self) -> &[ClientId] {
        &self.revoked
    }

    /// The fleet key, if the file has one.
    pub fn fleet(&self) -> Option<&FleetKey> {
        self.fleet.as_ref()
    }

    /// What may be shown of it.
    pub fn summary(&self) -> Summary {
        Summary {
            fleet: self.fleet.as_ref().map(FleetKey::fingerprint),
            clients: self.clients.iter().filter(|named| named.key.is_some()).count(),
            restricted: self.clients.iter().filter(|named| named.channels.is_some()).count(),
            revoked: self.revoked.len(),
        }
    }

    fn names(&self, client: ClientId) -> bool {
        self.named(client).is_some() || self.revoked.binary_search(&client).is_ok()
    }

    fn named(&self, client: ClientId) -> Option<&Named> {
        let at = self.clients.binary_search_by_key(&client, |named| named.client).ok()?;
        Some(&self.clients[at])
    }
}

/// As fingerprints are shown: 16 hexadecimal digits.
pub fn show_fingerprint(fingerprint: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(fingerprint))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fleet {
            Some(fingerprint) => write!(f, "fleet key {}, ", show_fingerprint(fingerprint))?,
            None => f.write_str("no fleet key, ")?,
        }
        let Self { clients, restricted, revoked, .. } = self;
        write!(f, "{clients} clients with a key of their own, {restricted} restricted, {revoked} revoked")
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.summary()).finish()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.summary()).finish()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(..)")
    }
}
