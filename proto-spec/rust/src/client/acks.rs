//! What the acks of a session have told so far: how far the server has got, how far the client may go, and which
//! bits of their bitmaps were handled already.

use crate::Seq;
use crate::codec::{Ack, BITMAP_LEN_MAX};

const WORDS: usize = BITMAP_LEN_MAX / 8;

/// The state of the acks of one session.
#[derive(Clone, Debug)]
pub(super) struct Acks {
    /// The server has told no higher floor.
    pub(super) floor: Seq,
    /// How many seqs, from the lowest that is still held on, may be sent; `None` before the server told.
    pub(super) credit: Option<u64>,
    /// The largest credit told: the server's window is at least this.
    pub(super) credit_max: u64,
    /// Whether a message was acked.
    pub(super) fruitful: bool,
    /// The newest transmission known to have arrived; 0 before the first.
    pub(super) newest_arrived: u64,
    /// What is not acked up to here was missing when the ack with the highest floor was made.
    pub(super) told: Seq,
    /// The bitmap of the ack with the highest floor, above that floor.
    seen: [u64; WORDS],
}

impl Acks {
    pub(super) const NONE: Self = Self {
        floor: Seq::ZERO,
        credit: None,
        credit_max: 0,
        fruitful: false,
        newest_arrived: 0,
        told: Seq::ZERO,
        seen: [0; WORDS],
    };

    /// The bits of word `w` of this ack's bitmap that were not in an earlier one's. With thousands in flight behind one
    /// lost datagram each ack repeats a thousand bits, of which few are new.
    pub(super) fn new_bits(&self, ack: &Ack<'_>, w: usize) -> u64 {
        let word = word(ack.bitmap, w);
        match ack.floor.checked_sub(self.floor.0) {
            Some(Seq(ahead)) => word & !self.seen_at(ahead.saturating_add(64 * w as u64)),
            None => word,
        }
    }

    /// Notes an ack when all of its new bits have been handled.
    pub(super) fn note(&mut self, ack: &Ack<'_>) {
        if ack.floor < self.floor {
            return;
        }
        self.floor = ack.floor;
        self.told = told(ack);
        for (w, seen) in self.seen.iter_mut().enumerate() {
            *seen = word(ack.bitmap, w);
        }
    }

    /// The server is the same: its credit is the best guess until it tells.
    pub(super) fn of_next_session(&self) -> Self {
        Self { credit: self.credit, credit_max: self.credit_max, ..Self::NONE }
    }

    pub(super) fn set_credit(&mut self, credit: u16) {
        self.credit = Some(u64::from(credit));
        self.credit_max = self.credit_max.max(u64::from(credit));
    }

    /// 64 bits of `seen`, from bit `first` on.
    fn seen_at(&self, first: u64) -> u64 {
        let (w, shift) = (usize::try_from(first / 64).unwrap_or(usize::MAX), first % 64);
        let word = |w: usize| self.seen.get(w).copied().unwrap_or(0);
        if shift == 0 { word(w) } else { word(w) >> shift | word(w.saturating_add(1)) << (64 - shift) }
    }
}

/// The highest seq that an ack says is journaled; `None` where that is above the last seq.
pub(super) fn highest_acked(ack: &Ack<'_>) -> Option<Seq> {
    let words = ack.bitmap.len() / 8;
    for w in (0..words).rev() {
        let bits = 64 - word(ack.bitmap, w).leading_zeros();
        if bits > 0 {
            return ack.floor.checked_add(64 * w as u64 + u64::from(bits));
        }
    }
    Some(ack.floor)
}

/// An ack tells of every seq up to here, set or not (PROTOCOL.md#duty-loss).
fn told(ack: &Ack<'_>) -> Seq {
    match ack.complete {
        true => Seq(u64::MAX),
        false => Seq(ack.floor.0.saturating_add((8 * ack.bitmap.len() as u64).max(1))),
    }
}

/// The seqs of which an ack says within its bitmap that they are not journaled, the lowest first. Without a bitmap that is
/// the one above the floor.
pub(super) fn told_missing<'a>(ack: &Ack<'a>) -> impl Iterator<Item = Seq> + use<'a> {
    let (floor, bitmap) = (ack.floor, ack.bitmap);
    (0..(bitmap.len() / 8).max(1)).flat_map(move |w| {
        let mut clear = if bitmap.is_empty() { 1 } else { !word(bitmap, w) };
        core::iter::from_fn(move || {
            let bit = (clear != 0).then(|| u64::from(clear.trailing_zeros()))?;
            clear &= clear - 1;
            floor.checked_add(64 * w as u64 + bit + 1)
        })
    })
}

/// Word `w` of a bitmap; 0 beyond its end.
fn word(bitmap: &[u8], w: usize) -> u64 {
    match bitmap.get(8 * w..).and_then(<[u8]>::first_chunk::<8>) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => 0,
    }
}
