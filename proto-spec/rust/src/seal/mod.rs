//! What sealed mode rests on: keys, counters, and the seal itself (PROTOCOL.md#sealed). Which bytes of a datagram are sealed
//! is the codec's matter.
//!
//! Keys are wiped from memory when they are dropped, and never shown: their `Debug` says no more than what they are.

mod counter;
mod keys;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

pub use counter::{CounterStart, ServerCounter};
pub use keys::{ClientKey, FleetKey, KEY_LEN, SessionKeys};

/// Bytes of the tag that stands in the CRC-32's place.
pub const TAG_LEN: usize = 16;

/// Whom a datagram is for: the first part of its nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    ToServer = 1,
    ToClient = 2,
}

/// The key of one direction.
#[derive(Clone)]
struct DirectionKey(ChaCha20Poly1305);

impl DirectionKey {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }
}

impl SessionKeys {
    /// Encrypts `text` in place and returns the tag over `clear` and it. `None` only for a text of more than 256 GiB.
    pub(crate) fn seal(
        &self,
        direction: Direction,
        counter: u64,
        clear: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        let cipher = &self.of(direction).0;
        cipher.encrypt_inout_detached(&nonce(direction, counter).into(), clear, text.into()).ok().map(Into::into)
    }

    /// Decrypts `text` in place if the tag is right; else nothing changes, and it returns false.
    pub(crate) fn open(
        &self,
        direction: Direction,
        counter: u64,
        clear: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        let cipher = &self.of(direction).0;
        cipher.decrypt_inout_detached(&nonce(direction, counter).into(), clear, text.into(), tag.into()).is_ok()
    }

    fn of(&self, direction: Direction) -> &DirectionKey {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

/// No two datagrams under one key have the same nonce (PROTOCOL.md#sealed-layout).
fn nonce(direction: Direction, counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&(direction as u32).to_le_bytes());
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests;
