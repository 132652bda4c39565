//! Randomness from a seed (SplitMix64), the same on every machine and with every version of every crate.

#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Makes another source, with a seed of its own.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Below `n`; 0 for 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// From `low` to `high`, both included.
    pub(crate) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// The same where each order of magnitude is as likely as another. `low` is above 0.
    pub(crate) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let steps = u64::from((high / low).max(1).ilog2());
        let from = low << self.below(steps + 1);
        self.within(from, (from * 2).min(high).max(from))
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// True `n` times in a million.
    pub(crate) fn ppm(&mut self, n: u64) -> bool {
        n > 0 && self.below(1_000_000) < n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Around `mean`, like the time to the next of independent events: at most eight times as long.
    pub(crate) fn wait(&mut self, mean: u64) -> u64 {
        // Sum of two uniform numbers, now and then much longer.
        let base = self.below(mean + 1) + self.below(mean + 1);
        if self.one_in(20) { base * 4 } else { base }
    }
}

/// SplitMix64's finalizer.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
