//! What the server and `duragram load` seal with: `ring`, which is C and assembler, and takes less than half of the time of the
//! portable cipher in duragram-proto on the machines that servers run on. Nothing else names it.

use std::fmt;
use std::hint::black_box;

use duragram_proto::seal::{Cipher, KEY_LEN, NONCE_LEN, TAG_LEN};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// The keys of a session, or of a client's HELLOs, at the server.
pub type SessionKeys = duragram_proto::seal::SessionKeys<RingCipher>;

/// ChaCha20-Poly1305 by `ring`. A text that it does not open is zeros then.
///
/// The key is wiped from memory when it is dropped. What `ring` makes of it is half a KiB, and `ring` does not wipe it: so it
/// is made anew for each call and overwritten at its end, which takes 20 ns. Not overwritten are the copies that `ring` and
/// the compiler make during a call, on the stack and in registers. Of those the last ones stay until the thread writes there
/// again, as it does with the next datagram.
#[derive(Clone)]
pub struct RingCipher(Zeroizing<[u8; KEY_LEN]>);

impl Cipher for RingCipher {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(*key))
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], clear: &[u8], text: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.with(|key| key.seal_in_place_separate_tag(nonce, Aad::from(clear), text)).ok()?;
        tag.as_ref().try_into().ok()
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], clear: &[u8], text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened =
            self.with(|key| key.open_in_place_separate_tag(nonce, Aad::from(clear), (*tag).into(), text, 0..).is_ok());
        if !opened {
            // It is decrypted before the tag is compared, and `ring` does not say what it leaves.
            text.fill(0);
        }
        opened
    }
}

impl RingCipher {
    fn with<T>(&self, work: impl FnOnce(&LessSafeKey) -> T) -> T {
        let mut key = ring_key(&self.0);
        let done = work(&key);
        key = ring_key(&[0; KEY_LEN]);
        // Else the compiler sees that nobody reads the zeros, and does not write them.
        black_box(&key);
        done
    }
}

fn ring_key(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("ChaCha20 takes keys of 32 bytes"))
}

impl fmt::Debug for RingCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RingCipher(..)")
    }
}

#[cfg(test)]
mod tests;
