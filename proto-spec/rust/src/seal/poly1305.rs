//! Poly1305 (RFC 8439 §2.5), in three limbs of 44, 44 and 42 bits, after Andrew Moon's poly1305-donna-64.
//!
//! Written here, against the rule that what a well-kept crate does this project does not write, because of what was
//! measured: the crate `poly1305` 0.9.1 chooses its AVX2 code at run time, and in a program that is not itself compiled for
//! AVX2 each of its vector instructions becomes a function call. With it the shortest datagram took 1,640 ns to seal and one
//! with 100 bytes of payload 1,930; so they take 290 and 370 (`benches/sealed.rs`). The choice can be turned off only by
//! compiler flags for the whole program. `tests` compares the two.
//!
//! No branch and no index depends on a secret.

use zeroize::Zeroize;

/// One message's authenticator. A key is used for one message alone.
pub(super) struct Poly1305 {
    r: [u64; 3],
    /// 20 times the upper limbs of `r`: what overflows 2¹³² comes back as 5 · 2² times itself, modulo 2¹³⁰ − 5.
    s: [u64; 2],
    h: [u64; 3],
    pad: u128,
}

const LOW_44: u64 = (1 << 44) - 1;
const LOW_42: u64 = (1 << 42) - 1;

impl Poly1305 {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let [t0, t1, t2, t3] = words(key);
        // RFC 8439 §2.5: some bits of r are clear.
        let r = [t0 & 0xffc_0fff_ffff, (t0 >> 44 | t1 << 20) & 0xfff_ffc0_ffff, t1 >> 24 & 0xf_ffff_fc0f];
        Self { r, s: [r[1] * 20, r[2] * 20], h: [0; 3], pad: u128::from(t2) | u128::from(t3) << 64 }
    }

    /// Takes in the data, filled up with zeros to a whole number of blocks, as AEAD_CHACHA20_POLY1305 does it.
    #[inline]
    pub(super) fn update_padded(&mut self, data: &[u8]) {
        let (blocks, rest) = data.as_chunks::<16>();
        for block in blocks {
            self.block(block);
        }
        if !rest.is_empty() {
            let mut block = [0; 16];
            block[..rest.len()].copy_from_slice(rest);
            self.block(&block);
        }
    }

    /// h ← (h + block + 2¹²⁸) · r, carried but not fully reduced.
    #[inline]
    pub(super) fn block(&mut self, block: &[u8; 16]) {
        let [t0, t1] = words(block);
        let [r0, r1, r2] = self.r;
        let [s1, s2] = self.s;
        let h0 = self.h[0] + (t0 & LOW_44);
        let h1 = self.h[1] + ((t0 >> 44 | t1 << 20) & LOW_44);
        let h2 = self.h[2] + (t1 >> 24 | 1 << 40);
        let d0 = wide(h0, r0) + wide(h1, s2) + wide(h2, s1);
        let d1 = wide(h0, r1) + wide(h1, r0) + wide(h2, s2) + (d0 >> 44);
        let d2 = wide(h0, r2) + wide(h1, r1) + wide(h2, r0) + (d1 >> 44);
        let h0 = (low(d0) & LOW_44) + low(d2 >> 42) * 5;
        self.h = [h0 & LOW_44, (low(d1) & LOW_44) + (h0 >> 44), low(d2) & LOW_42];
    }

    pub(super) fn finish(self) -> [u8; 16] {
        let [mut h0, mut h1, mut h2] = self.h;
        // Twice around, for the first may carry out of the top again.
        for _ in 0..2 {
            h2 += h1 >> 44;
            h1 &= LOW_44;
            h0 += (h2 >> 42) * 5;
            h2 &= LOW_42;
            h1 += h0 >> 44;
            h0 &= LOW_44;
        }
        // g = h − (2¹³⁰ − 5), to be taken if it is not negative.
        let g0 = h0 + 5;
        let g1 = h1 + (g0 >> 44);
        let g2 = (h2 + (g1 >> 44)).wrapping_sub(1 << 42);
        let take_g = (g2 >> 63).wrapping_sub(1);
        let chosen = |h: u64, g: u64| u128::from(h & !take_g | g & take_g);
        let h = chosen(h0, g0 & LOW_44) | chosen(h1, g1 & LOW_44) << 44 | chosen(h2, g2) << 88;
        h.wrapping_add(self.pad).to_le_bytes()
    }
}

impl Drop for Poly1305 {
    fn drop(&mut self) {
        self.r.zeroize();
        self.s.zeroize();
        self.h.zeroize();
        self.pad.zeroize();
    }
}

/// 64-bit words, little-endian.
#[inline]
fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[inline]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // The lower half is what is asked for.
fn low(wide: u128) -> u64 {
    wide as u64
}
