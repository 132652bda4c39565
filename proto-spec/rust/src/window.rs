//! Which seqs of a session are accounted for: a floor, and a bitmap of what is journaled above it
//! (PROTOCOL.md#server-rules).
//!
//! It knows nothing of epochs, clients or datagrams, nor of what is durable: the caller inserts a seq when it has
//! decided to journal it. A session whose datagrams come in order keeps no bitmap and no heap.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::Seq;
use crate::codec::BITMAP_LEN_MAX;

/// The widest window, in seqs: what a `credit` can express.
pub const WINDOW_MAX: u16 = u16::MAX;

const WORD_BITS: u64 = u64::BITS as u64;

/// What a seq is to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Accounted for: to be acked again, not journaled again (PROTOCOL.md#rule-2).
    Duplicate,
    /// It was never seen: it is to be journaled (PROTOCOL.md#rule-5).
    New,
    /// Above floor + window (PROTOCOL.md#rule-3).
    BeyondWindow,
}

/// The floor and the bitmap of a session.
///
/// Every operation takes constant time, or time for the words of the bitmap that the floor passes for good.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DedupWindow {
    floor: u64,
    /// The highest seq that is set; `floor` when none is.
    highest: u64,
    /// A ring: the bit of seq `s` is bit `s % 64` of word `s / 64 % len`. Its length is 0 or a power of two, and no two
    /// of the words between `floor + 1` and `highest` share a place. All other bits are clear, and `floor + 1` always is.
    ring: Box<[u64]>,
}

impl DedupWindow {
    /// Every seq up to `floor` accounted for, none above.
    pub fn new(floor: Seq) -> Self {
        Self { floor: floor.0, highest: floor.0, ring: Box::default() }
    }

    /// From what [`floor`](Self::floor) and [`words`](Self::words) gave. `None` when a bit lies further above the floor
    /// than [`WINDOW_MAX`], or above the last seq.
    pub fn from_words(floor: Seq, words: &[u64]) -> Option<Self> {
        let mut window = Self::new(floor);
        for (base, word) in (0..).step_by(64).zip(words) {
            let mut rest = *word;
            while rest != 0 {
                let above = base + 1 + u64::from(rest.trailing_zeros());
                if above > u64::from(WINDOW_MAX) {
                    return None;
                }
                // Above the given floor: the window's own moves as bits right above it are set.
                window.insert(floor.checked_add(above)?);
                rest &= rest - 1;
            }
        }
        Some(window)
    }

    /// Every seq up to here is accounted for.
    pub fn floor(&self) -> Seq {
        Seq(self.floor)
    }

    /// The highest seq that is accounted for; the floor when none is above it.
    pub fn highest(&self) -> Seq {
        Seq(self.highest)
    }

    /// Whether `seq` is accounted for.
    pub fn contains(&self, seq: Seq) -> bool {
        seq.0 <= self.floor || (seq.0 <= self.highest && self.word(seq.0 / WORD_BITS) >> (seq.0 % WORD_BITS) & 1 == 1)
    }

    /// What a datagram with `seq` is, where the server accepts `window` seqs above the floor.
    pub fn classify(&self, seq: Seq, window: u16) -> Verdict {
        if self.contains(seq) {
            Verdict::Duplicate
        } else if seq.0 - self.floor > u64::from(window) {
            Verdict::BeyondWindow
        } else {
            Verdict::New
        }
    }

    /// Counts `seq` as accounted for and moves the floor over what is now contiguous. Returns whether it was not before.
    ///
    /// Grows the bitmap up to `seq`, so the caller classifies first: a seq above floor + [`WINDOW_MAX`] is a defect.
    pub fn insert(&mut self, seq: Seq) -> bool {
        if self.contains(seq) {
            return false;
        }
        debug_assert!(seq.0 - self.floor <= u64::from(WINDOW_MAX));
        if seq.0 == self.floor + 1 {
            self.floor = seq.0;
            self.highest = self.highest.max(seq.0);
            self.absorb();
        } else {
            self.reserve(seq.0);
            self.highest = self.highest.max(seq.0);
            *self.word_mut(seq.0 / WORD_BITS) |= 1 << (seq.0 % WORD_BITS);
        }
        true
    }

    /// Moves the floor to `floor`, and on over what is set above it (PROTOCOL.md#rule-4). Returns how many of the seqs
    /// up to `floor` were not accounted for. Without effect when the floor is there already.
    pub fn advance_to(&mut self, floor: Seq) -> u64 {
        if floor.0 <= self.floor {
            return 0;
        }
        let mut missing = floor.0 - self.floor;
        if self.highest > self.floor {
            let last = floor.0.min(self.highest);
            let (first_word, last_word) = ((self.floor + 1) / WORD_BITS, last / WORD_BITS);
            for at in first_word..=last_word {
                let passed = if at == last_word { u64::MAX >> (WORD_BITS - 1 - last % WORD_BITS) } else { u64::MAX };
                let word = self.word_mut(at);
                missing -= u64::from((*word & passed).count_ones());
                *word &= !passed;
            }
        }
        self.floor = floor.0;
        self.highest = self.highest.max(floor.0);
        self.absorb();
        missing
    }

    /// The runs of seqs above the floor, up to `to`, that are not accounted for: first and last of each, in their order. Takes
    /// time for the words of the bitmap and for the runs, however far `to` lies.
    pub fn missing_up_to(&self, to: Seq) -> Vec<(Seq, Seq)> {
        let mut runs = Vec::new();
        if to.0 <= self.floor {
            return runs;
        }
        // The first seq that is missing and in no run yet.
        let mut first = self.floor + 1;
        let bits = self.highest.min(to.0);
        for (word, base) in self.words().zip((first..).step_by(64)) {
            let mut rest = word;
            while rest != 0 {
                let (at, len) = (rest.trailing_zeros(), (rest >> rest.trailing_zeros()).trailing_ones());
                let set = base + u64::from(at);
                if set > bits {
                    break;
                }
                if first < set {
                    runs.push((Seq(first), Seq(set - 1)));
                }
                // Up to the last seq, behind which there is no next.
                let Some(behind) = set.checked_add(u64::from(len)) else { return runs };
                first = behind;
                rest &= u64::MAX.checked_shl(at + len).unwrap_or(0);
            }
        }
        if first <= to.0 {
            runs.push((Seq(first), to));
        }
        runs
    }

    /// Writes the bitmap of an ACK (PROTOCOL.md#ack) and returns its length in bytes: a multiple of 8, cut to `out` and
    /// to the longest that an ACK may carry, without zero words at its end.
    pub fn write_bitmap(&self, out: &mut [u8]) -> usize {
        let (mut at, mut len) = (0, 0);
        for (word, place) in self.words().zip(out.chunks_exact_mut(8)).take(BITMAP_LEN_MAX / 8) {
            place.copy_from_slice(&word.to_le_bytes());
            at += 8;
            if word != 0 {
                len = at;
            }
        }
        len
    }

    /// The bitmap, to persist it: bit i of word w stands for seq `floor + 1 + 64 w + i`. The last word is not zero.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let words = (self.highest - self.floor).div_ceil(WORD_BITS);
        (0..words).map(|w| {
            let first = self.floor + 1 + w * WORD_BITS;
            let (at, shift) = (first / WORD_BITS, first % WORD_BITS);
            let low = self.word(at) >> shift;
            // `highest` may lie in the word of `first`: what is above it is not in the ring.
            if shift == 0 || at + 1 > self.highest / WORD_BITS {
                low
            } else {
                low | self.word(at + 1) << (WORD_BITS - shift)
            }
        })
    }

    /// Gives back the bitmap's memory that is not needed now.
    pub fn shrink(&mut self) {
        let len = self.len_for(self.highest);
        if len < self.ring.len() {
            self.resize(len);
        }
    }

    /// Heap memory held, in bytes.
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.ring)
    }

    /// Moves the floor over the run of set bits right above it.
    fn absorb(&mut self) {
        while self.highest > self.floor {
            let first = self.floor + 1;
            let shift = first % WORD_BITS;
            let word = self.word_mut(first / WORD_BITS);
            let run = (*word >> shift).trailing_ones();
            if run == 0 {
                return;
            }
            *word &= !(u64::MAX >> (u64::BITS - run) << shift);
            self.floor += u64::from(run);
        }
    }

    /// Makes room for bits up to `seq`.
    fn reserve(&mut self, seq: u64) {
        let len = self.len_for(seq);
        if len > self.ring.len() {
            self.resize(len);
        }
    }

    /// The length of a ring that holds bits from `floor + 1` to `highest`.
    fn len_for(&self, highest: u64) -> usize {
        if highest <= self.floor {
            return 0;
        }
        let words = highest / WORD_BITS - (self.floor + 1) / WORD_BITS + 1;
        usize::try_from(words).unwrap_or(usize::MAX).next_power_of_two()
    }

    fn resize(&mut self, len: usize) {
        let mut ring = vec![0; len].into_boxed_slice();
        if self.highest > self.floor {
            for at in (self.floor + 1) / WORD_BITS..=self.highest / WORD_BITS {
                ring[place(at, len)] = self.word(at);
            }
        }
        self.ring = ring;
    }

    /// Word `at` counted from seq 0, which must lie between `floor + 1` and `highest`.
    fn word(&self, at: u64) -> u64 {
        self.ring[place(at, self.ring.len())]
    }

    fn word_mut(&mut self, at: u64) -> &mut u64 {
        let place = place(at, self.ring.len());
        &mut self.ring[place]
    }
}

/// The place of word `at` in a ring of `len` words, a power of two.
#[allow(clippy::cast_possible_truncation)] // masked to a ring's length, which is a usize
fn place(at: u64, len: usize) -> usize {
    at as usize & (len - 1)
}

#[cfg(test)]
mod tests;
