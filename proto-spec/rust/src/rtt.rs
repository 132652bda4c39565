//! The round-trip time and the retransmission timeout after RFC 6298, the server's delay taken out of the samples
//! (RFC 9002 §5; PROTOCOL.md#duty-retransmission).

/// The clock that the caller passes in may be coarse: RFC 6298's G, as RFC 9002 chooses it.
const GRANULARITY_US: u64 = 1_000;

/// A path with a shorter round trip bears more than one datagram at a time even where most are lost, and so many at most: where
/// 60 % are, 16 in flight are not all lost but once in 3,500 times.
const SHORT_US: u64 = 10_000;
const SHORT_WINDOW_MAX: u32 = 16;

/// What the acks told of the path and of the server's delay. Times in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    /// Smoothed RTT and its variance; `None` before the first sample.
    smoothed: Option<(u64, u64)>,
    min_us: u64,
    /// The shortest RTT without the server's delay: a queue that the client itself has filled is not in it.
    path_us: u64,
    /// The server has lately kept acks back for up to so many microseconds.
    delay_us: u64,
}

impl Rtt {
    /// An ACK came `elapsed_us` after the one transmission of what it covers; the server says that `delay_us` of it
    /// were its own.
    pub fn sample(&mut self, elapsed_us: u64, delay_us: u64) {
        // The server cannot have held it for longer than the whole took.
        let delay_us = delay_us.min(elapsed_us);
        self.delay_us = delay_us.max(self.delay_us - self.delay_us / 16);
        let Some((smoothed, variance)) = self.smoothed else {
            // Without the delay at once: no smallest RTT is known yet that would show it to be wrong.
            let rtt = elapsed_us - delay_us;
            self.min_us = elapsed_us;
            self.path_us = rtt;
            self.smoothed = Some((rtt, rtt / 2));
            return;
        };
        self.min_us = self.min_us.min(elapsed_us);
        let rtt = elapsed_us - delay_us;
        self.path_us = self.path_us.min(rtt);
        self.smoothed = Some(((7 * smoothed + rtt) / 8, (3 * variance + smoothed.abs_diff(rtt)) / 4));
    }

    /// The smoothed round-trip time without the server's delay; `None` before the first sample.
    pub fn smoothed_us(&self) -> Option<u64> {
        self.smoothed.map(|(smoothed, _)| smoothed)
    }

    /// How many datagrams leave in the shortest timeout at one a round trip, by the shortest round trip: no burden for such a path
    /// whatever it loses; 1 on most paths, and before the first sample (PROTOCOL.md#duty-congestion).
    pub(crate) fn short_window(&self) -> u32 {
        let fits = if self.smoothed.is_none() { 1 } else { SHORT_US / self.path_us.max(1) };
        u32::try_from(fits).unwrap_or(u32::MAX).clamp(1, SHORT_WINDOW_MAX)
    }

    /// The shortest that any answer took, the server's delay included; 0 before the first sample. An answer sooner
    /// than this after a retransmission is to an earlier transmission (RFC 8985 §6.2).
    pub fn min_us(&self) -> u64 {
        self.min_us
    }

    /// The timeout: `initial_us` before the first sample, else at least `min_us`. The server's delay is on top of it: a
    /// server that syncs slowly has not lost anything.
    pub fn timeout_us(&self, initial_us: u64, min_us: u64) -> u64 {
        match self.smoothed {
            None => initial_us,
            Some((smoothed, variance)) => {
                (smoothed + GRANULARITY_US.max(4 * variance)).max(min_us).saturating_add(self.delay_us)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: u64 = 1_000_000;

    #[test]
    fn the_first_sample_counts_alone_and_later_ones_by_an_eighth() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout_us(INITIAL, 0), INITIAL);
        rtt.sample(80_000, 0);
        assert_eq!((rtt.smoothed_us(), rtt.timeout_us(INITIAL, 0)), (Some(80_000), 80_000 + 4 * 40_000));
        rtt.sample(160_000, 0);
        // RFC 6298 (2.3): variance = 3/4 · 40 ms + 1/4 · 80 ms, then smoothed = 7/8 · 80 ms + 1/8 · 160 ms.
        assert_eq!((rtt.smoothed_us(), rtt.timeout_us(INITIAL, 0)), (Some(90_000), 90_000 + 4 * 50_000));
    }

    #[test]
    fn the_servers_delay_is_not_part_of_the_rtt_but_is_waited_for() {
        let mut rtt = Rtt::default();
        for _ in 0..100 {
            rtt.sample(25_000, 20_000);
        }
        assert_eq!(rtt.smoothed_us(), Some(5_000));
        let timeout = rtt.timeout_us(INITIAL, 0);
        assert!((25_000..30_000).contains(&timeout), "{timeout}");
        for _ in 0..200 {
            rtt.sample(5_000, 0);
        }
        assert!(rtt.timeout_us(INITIAL, 0) < 7_000, "the delay's peak is forgotten");
    }

    #[test]
    fn a_path_is_as_short_as_its_shortest_round_trip_without_delay_and_queue() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.short_window(), 1);
        for (elapsed_us, delay_us, window) in [(30_000, 0, 1), (9_000, 6_000, 3), (5_300, 5_000, 16), (90_000, 100, 16)]
        {
            rtt.sample(elapsed_us, delay_us);
            assert_eq!(rtt.short_window(), window);
        }
        assert!(rtt.smoothed_us() > Some(10_000));
        rtt.sample(5_000, 5_000);
        assert_eq!(rtt.short_window(), 16);
    }

    #[test]
    fn a_delay_longer_than_the_round_trip_is_cut() {
        let mut rtt = Rtt::default();
        rtt.sample(10_000, u64::from(u32::MAX));
        assert_eq!(rtt.smoothed_us(), Some(0));
        assert!(rtt.timeout_us(INITIAL, 0) <= 11_000);
    }

    #[test]
    fn the_timeout_is_never_below_the_minimum() {
        let mut rtt = Rtt::default();
        for _ in 0..100 {
            rtt.sample(50, 0);
        }
        assert_eq!(rtt.timeout_us(INITIAL, 100_000), 100_000);
        assert_eq!(rtt.timeout_us(INITIAL, 0), 50 + GRANULARITY_US);
    }
}
