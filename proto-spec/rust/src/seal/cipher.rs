//! What seals and opens, behind a trait: a program for larger machines may bring one that is faster there, and this crate stays
//! without C and without `std`.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

/// Every key has so many bytes.
pub const KEY_LEN: usize = 32;

/// Bytes of the number that no two datagrams under one key have in common.
pub const NONCE_LEN: usize = 12;

/// Bytes of the tag that stands in the CRC-32's place.
pub const TAG_LEN: usize = 16;

/// The key of one direction, with what seals by it: AEAD_CHACHA20_POLY1305 (RFC 8439 §2.8) and nothing else, so that which one
/// an end uses cannot be seen from the other.
///
/// It wipes its key from memory when it is dropped.
pub trait Cipher {
    /// Copies the key. The caller's copy is the caller's to wipe.
    fn new(key: &[u8; KEY_LEN]) -> Self;

    /// Encrypts `text` in place and returns the tag over `clear` and it. `None` only for a text of more than 256 GiB.
    fn seal(&self, nonce: &[u8; NONCE_LEN], clear: &[u8], text: &mut [u8]) -> Option<[u8; TAG_LEN]>;

    /// Decrypts `text` in place if the tag is right. Else it returns false, and `text` is as it was or zeros all through: nothing
    /// of what it would have said can be read from it.
    fn open(&self, nonce: &[u8; NONCE_LEN], clear: &[u8], text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool;
}

/// The crate `chacha20poly1305`: runs everywhere, and leaves a text that it does not open as it was.
#[derive(Clone)]
pub struct Portable(ChaCha20Poly1305);

impl Cipher for Portable {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], clear: &[u8], text: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        self.0.encrypt_inout_detached(nonce.into(), clear, text.into()).ok().map(Into::into)
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], clear: &[u8], text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        self.0.decrypt_inout_detached(nonce.into(), clear, text.into(), tag.into()).is_ok()
    }
}

impl core::fmt::Debug for Portable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Portable(..)")
    }
}
