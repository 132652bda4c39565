//! What sealed mode rests on: keys, counters, and the seal itself (PROTOCOL.md#sealed). Which bytes of a datagram are sealed
//! is the codec's matter.
//!
//! Keys are wiped from memory when they are dropped, and never shown: their `Debug` says no more than what they are.

mod counter;
mod keys;
mod poly1305;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use poly1305::Poly1305;

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
struct DirectionKey(Zeroizing<[u8; KEY_LEN]>);

impl SessionKeys {
    /// Encrypts `text` in place and returns the tag over `clear` and it.
    pub(crate) fn seal(&self, direction: Direction, counter: u64, clear: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let mut cipher = Cipher::<GO_LEN>::new(self.of(direction), nonce(direction, counter));
        cipher.apply(text);
        cipher.tag(clear, text)
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
        let mut cipher = Cipher::<GO_LEN>::new(self.of(direction), nonce(direction, counter));
        let right = cipher.tag(clear, text).ct_eq(tag).into();
        if right {
            cipher.apply(text);
        }
        right
    }

    fn of(&self, direction: Direction) -> &DirectionKey {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

/// AEAD_CHACHA20_POLY1305 (RFC 8439 §2.8) for one datagram. The keystream is made `GO` bytes at a time, a multiple of a block.
struct Cipher<const GO: usize> {
    /// After what is in `begin`.
    rest: ChaCha20,
    /// The authenticator's key, and from the second block on what encrypts.
    begin: Keystream<GO>,
}

/// A piece of keystream. Wiped as a slice: an array is wiped byte by byte.
struct Keystream<const LEN: usize>([u8; LEN]);

impl<const LEN: usize> Drop for Keystream<LEN> {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

const BLOCK_LEN: usize = 64;

/// Vector instructions make four blocks in the time of one, and `chacha20` makes them also where it is asked for one.
const GO_LEN: usize =
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 4 * BLOCK_LEN } else { BLOCK_LEN };

impl<const GO: usize> Cipher<GO> {
    fn new(key: &DirectionKey, nonce: [u8; 12]) -> Self {
        let mut rest = ChaCha20::new((&*key.0).into(), &nonce.into());
        let begin = Keystream::next(&mut rest);
        Self { rest, begin }
    }

    /// Encrypts or decrypts. Once only: the keystream goes on.
    fn apply(&mut self, text: &mut [u8]) {
        let (first, further) = text.split_at_mut(text.len().min(GO - BLOCK_LEN));
        xor(first, &self.begin.0[BLOCK_LEN..]);
        let (whole, last) = further.split_at_mut(further.len() / GO * GO);
        self.rest.apply_keystream(whole);
        if !last.is_empty() {
            xor(last, &Keystream::<GO>::next(&mut self.rest).0);
        }
    }

    /// The tag over the clear part and the encrypted text.
    fn tag(&self, clear: &[u8], text: &[u8]) -> [u8; TAG_LEN] {
        let mut mac = Poly1305::new(self.begin.0.first_chunk().expect("a keystream begins with a block"));
        mac.update_padded(clear);
        mac.update_padded(text);
        let lengths = clear.len() as u128 | (text.len() as u128) << 64;
        mac.block(&lengths.to_le_bytes());
        mac.finish()
    }
}

impl<const LEN: usize> Keystream<LEN> {
    fn next(cipher: &mut ChaCha20) -> Self {
        let mut stream = Self([0; LEN]);
        cipher.apply_keystream(&mut stream.0);
        stream
    }
}

fn xor(text: &mut [u8], stream: &[u8]) {
    for (byte, key) in text.iter_mut().zip(stream) {
        *byte ^= key;
    }
}

/// PROTOCOL.md#sealed-layout.
fn nonce(direction: Direction, counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&(direction as u32).to_le_bytes());
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests;
