//! What sealed mode rests on: keys, counters, and the seal itself (PROTOCOL.md#sealed). Which bytes of a datagram are sealed
//! is the codec's matter.
//!
//! What seals is [`Portable`], unless a program brings another [`Cipher`]. Keys are wiped from memory when they are dropped,
//! and never shown: their `Debug` says no more than what they are.

mod cipher;
mod counter;
mod keys;

pub use cipher::{Cipher, KEY_LEN, NONCE_LEN, Portable, TAG_LEN};
pub use counter::{CounterStart, ServerCounter};
pub use keys::{ClientKey, FleetKey, SessionKeys};

/// Whom a datagram is for: the first part of its nonce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    ToServer = 1,
    ToClient = 2,
}

impl<C: Cipher> SessionKeys<C> {
    /// Encrypts `text` in place and returns the tag over `clear` and it. `None` only for a text of more than 256 GiB.
    pub(crate) fn seal(
        &self,
        direction: Direction,
        counter: u64,
        clear: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        self.of(direction).seal(&nonce(direction, counter), clear, text)
    }

    /// Decrypts `text` in place if the tag is right; else it returns false, and `text` is as [`Cipher::open`] leaves it.
    pub(crate) fn open(
        &self,
        direction: Direction,
        counter: u64,
        clear: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        self.of(direction).open(&nonce(direction, counter), clear, text, tag)
    }

    fn of(&self, direction: Direction) -> &C {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

/// No two datagrams under one key have the same nonce (PROTOCOL.md#sealed-layout).
fn nonce(direction: Direction, counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[..4].copy_from_slice(&(direction as u32).to_le_bytes());
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests;
