//! Inputs made from others, the same for the same seed.

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

const EDGES: [u8; 8] = [0, 1, 2, 7, 8, 0x7f, 0x80, 0xff];

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `bound`; 0 when that is 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Mostly one of the corpus with a few changes, one in eight new altogether.
    pub(super) fn input(&mut self, corpus: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
        if self.below(8) == 0 {
            let len = self.below(bytes_max);
            return (0..len).map(|_| self.byte()).collect();
        }
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(5) {
            self.change(&mut input, corpus);
        }
        input.truncate(bytes_max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        match self.below(9) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            2 if !input.is_empty() => input[at] = EDGES[self.below(EDGES.len())],
            3 if !input.is_empty() => input[at] = self.byte(),
            4 => input.truncate(at),
            5 => {
                let new: Vec<u8> = (0..=self.below(20)).map(|_| self.byte()).collect();
                input.splice(at..at, new);
            }
            6 => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at..end);
            }
            7 => {
                let end = (at + 1 + self.below(40)).min(input.len());
                let again = input[at..end].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, again);
            }
            _ => {
                let other = &corpus[self.below(corpus.len())];
                let cut = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[cut..]);
            }
        }
    }
}
