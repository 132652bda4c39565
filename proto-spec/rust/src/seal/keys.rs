//! Keys, and how one follows from another (PROTOCOL.md#sealed-keys).

use core::fmt;

use blake2::Blake2bMac;
use blake2::digest::array::ArraySize;
use blake2::digest::consts::{U8, U32, U64};
use blake2::digest::typenum::{IsLessOrEqual, True};
use blake2::digest::{FixedOutput, KeyInit, Update};
use zeroize::Zeroizing;

use super::cipher::{Cipher, KEY_LEN, Portable};
use crate::{ClientId, Epoch};

/// The key from which the keys of all clients are derived. Only the server has it.
#[derive(Clone)]
pub struct FleetKey(Secret);

/// The key that one client shares with the server.
#[derive(Clone)]
pub struct ClientKey(Secret);

/// The two keys, one for each direction, of one session or of a client's HELLOs. Deriving them takes about as long as
/// sealing a datagram or two, so they are worth keeping. `C` is what seals by them.
#[derive(Clone)]
pub struct SessionKeys<C = Portable> {
    pub(super) to_server: C,
    pub(super) to_client: C,
}

type Secret = Zeroizing<[u8; KEY_LEN]>;

impl FleetKey {
    /// A key of 32 random bytes. The caller's copy is the caller's to wipe.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key of one client.
    pub fn client_key(&self, client: ClientId) -> ClientKey {
        let mut key = Secret::default();
        derive::<U32>(&self.0, &[b"duragram psk v1", &client.0.to_le_bytes()], &mut *key);
        ClientKey(key)
    }

    /// Tells keys apart without giving them away: 8 bytes that may be shown and logged.
    pub fn fingerprint(&self) -> [u8; 8] {
        fingerprint(&self.0)
    }

    /// The bytes, for storing them.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl ClientKey {
    /// A key of 32 random bytes. The caller's copy is the caller's to wipe.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The keys of a session, or, for `None`, those of HELLO and its answers (epoch 0 on the wire).
    pub fn keys(&self, client: ClientId, epoch: Option<Epoch>) -> SessionKeys {
        self.keys_with(client, epoch)
    }

    /// The same keys as [`keys`](Self::keys), with another cipher to seal by them.
    pub fn keys_with<C: Cipher>(&self, client: ClientId, epoch: Option<Epoch>) -> SessionKeys<C> {
        let mut both = Zeroizing::new([0; 2 * KEY_LEN]);
        let epoch = epoch.map_or(0, Epoch::value).to_le_bytes();
        derive::<U64>(&self.0, &[b"duragram keys v1", &client.0.to_le_bytes(), &epoch], &mut *both);
        let (mut to_server, mut to_client) = (Secret::default(), Secret::default());
        to_server.copy_from_slice(&both[..KEY_LEN]);
        to_client.copy_from_slice(&both[KEY_LEN..]);
        SessionKeys { to_server: C::new(&to_server), to_client: C::new(&to_client) }
    }

    /// Tells keys apart without giving them away: 8 bytes that may be shown and logged.
    pub fn fingerprint(&self) -> [u8; 8] {
        fingerprint(&self.0)
    }

    /// The bytes, for storing them.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

fn fingerprint(key: &Secret) -> [u8; 8] {
    let mut out = [0; 8];
    derive::<U8>(key, &[b"duragram key id v1"], &mut out);
    out
}

/// BLAKE2b with `N` bytes of output, keyed with `key`, over `parts`.
fn derive<N>(key: &[u8; KEY_LEN], parts: &[&[u8]], out: &mut [u8])
where
    N: ArraySize + IsLessOrEqual<U64, Output = True>,
{
    let mut mac = Blake2bMac::<N>::new_from_slice(key).expect("BLAKE2b takes keys of up to 64 bytes");
    for part in parts {
        mac.update(part);
    }
    let mut output = mac.finalize_fixed();
    out.copy_from_slice(&output);
    zeroize::Zeroize::zeroize(output.as_mut_slice());
}

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey(..)")
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(..)")
    }
}

impl<C> fmt::Debug for SessionKeys<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(..)")
    }
}
