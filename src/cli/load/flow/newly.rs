//! What an ACK tells that no one before it has told.

use super::Tally;

/// What an ACK acked that was not acked before; runs of the same latency are counted together.
#[derive(Default)]
pub(super) struct Newly {
    pub(super) count: u64,
    /// The newest of its first transmissions.
    pub(super) newest: u64,
    /// The newest of its later ones that can have been answered.
    pub(super) newest_again: u64,
    /// How many were sent last since the window was cut.
    pub(super) fresh: u64,
    /// Whether what a timeout has sent is among them.
    pub(super) answers_probe: bool,
    latency_ns: u64,
    run: u64,
}

impl Newly {
    pub(super) fn add(&mut self, latency_ns: u64, tally: &mut Tally) {
        self.count += 1;
        if latency_ns != self.latency_ns {
            self.tell(tally);
            self.latency_ns = latency_ns;
        }
        self.run += 1;
    }

    pub(super) fn tell(&mut self, tally: &mut Tally) {
        tally.acked(self.latency_ns, std::mem::take(&mut self.run));
    }
}

/// The bitmap in words of 64 bits, least significant bit first.
pub(super) fn words(bitmap: &[u8]) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + '_ {
    bitmap.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
}

/// The highest set bit of a bitmap, counted from 1; 0 when none is set.
pub(super) fn highest_bit(bitmap: &[u8]) -> u64 {
    let last = words(bitmap).enumerate().rfind(|(_, word)| *word != 0);
    last.map_or(0, |(at, word)| at as u64 * 64 + u64::from(64 - word.leading_zeros()))
}
