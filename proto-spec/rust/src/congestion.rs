//! Congestion control like NewReno's (RFC 5681, RFC 9002 §7), counted in datagrams (PROTOCOL.md#duty-congestion).
//!
//! Transmissions are numbered in the order in which they were made, retransmissions too; it knows nothing of seqs.

/// After a loss the window is not made smaller than this (RFC 9002 §7.2), nor than what a short path bears.
const WINDOW_AFTER_LOSS_MIN: u32 = 2;
/// Where it begins again when the answer to a timeout's datagram shows losses: as at first (RFC 6928).
const WINDOW_AFTER_EXPIRY_MAX: u32 = 10;

/// How many datagrams may be in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    window: u32,
    /// Below it the window grows by one for each datagram acked, from it on by one for each window acked.
    threshold: u32,
    /// Datagrams acked towards the next growth above the threshold.
    acked: u32,
    /// Transmissions before this one belong to a loss episode that was answered already.
    episode_end: u64,
    window_initial: u32,
    window_max: u32,
}

impl Congestion {
    pub(crate) fn new(window_initial: u32, window_max: u32) -> Self {
        let window_max = window_max.max(1);
        let window_initial = window_initial.clamp(1, window_max);
        Self { window: window_initial, threshold: u32::MAX, acked: 0, episode_end: 0, window_initial, window_max }
    }

    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    /// Whether an ack of this transmission lets the window grow: not while it was cut for what was lost with it.
    pub(crate) fn grows_by(&self, transmission: u64) -> bool {
        transmission >= self.episode_end
    }

    /// `count` datagrams were acked while the window was the limit.
    pub(crate) fn acked(&mut self, count: u32) {
        let fast = count.min(self.threshold.saturating_sub(self.window));
        self.window = self.window.saturating_add(fast).min(self.window_max);
        self.acked = self.acked.saturating_add(count - fast);
        while self.acked >= self.window {
            self.acked -= self.window;
            self.window = (self.window + 1).min(self.window_max);
        }
    }

    /// A transmission was lost; `next` is the number of the next one, `short` the path's
    /// [`short_window`](crate::rtt::Rtt::short_window). Halves the window once an
    /// episode.
    pub(crate) fn lost(&mut self, transmission: u64, next: u64, short: u32) {
        if transmission < self.episode_end {
            return;
        }
        self.episode_end = next;
        self.threshold = (self.window / 2).max(short.max(WINDOW_AFTER_LOSS_MIN));
        self.window = self.window.min(self.threshold);
        self.acked = 0;
    }

    /// The answer to what was sent after a timeout shows that more is missing, for which [`lost`](Self::lost) was called:
    /// no acks have kept the pace, so it begins anew, up to where it was cut to by slow start.
    pub(crate) fn restart_after_expiry(&mut self, next: u64) {
        self.episode_end = next;
        self.window = self.window.min(WINDOW_AFTER_EXPIRY_MAX);
        self.acked = 0;
    }

    /// A second timeout in a row: nothing is known of the path any more. What is sent is one datagram, or on a short path what
    /// it bears even so, and no less: a small window does not grow where most is lost.
    pub(crate) fn collapse(&mut self, next: u64, short: u32) {
        self.episode_end = next;
        self.threshold = (self.window / 2).max(short.max(WINDOW_AFTER_LOSS_MIN));
        self.window = short.min(self.window_max);
        self.acked = 0;
    }

    /// And those after it: what was sent since is no reason for another cut.
    pub(crate) fn fall_silent(&mut self, next: u64) {
        self.episode_end = next;
        self.acked = 0;
    }

    /// Sending was suspended for a reason that is not the path's: starts with one datagram, and back up fast.
    pub(crate) fn resume(&mut self) {
        self.threshold = self.threshold.max(self.window);
        self.restart();
    }

    /// Begins anew, since the path is another one.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.window_initial, self.window_max);
    }

    fn restart(&mut self) {
        self.window = 1;
        self.acked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_each_round_trip_until_a_loss_then_grows_by_one() {
        let mut congestion = Congestion::new(10, 1_000);
        congestion.acked(10);
        congestion.acked(20);
        assert_eq!(congestion.window(), 40);
        congestion.lost(35, 50, 1);
        assert_eq!(congestion.window(), 20);
        congestion.acked(19);
        assert_eq!(congestion.window(), 20);
        congestion.acked(1);
        assert_eq!(congestion.window(), 21);
        congestion.acked(21 + 22 + 5);
        assert_eq!(congestion.window(), 23);
    }

    #[test]
    fn one_episode_halves_once() {
        let mut congestion = Congestion::new(64, 1_000);
        congestion.lost(10, 100, 1);
        congestion.lost(11, 101, 1);
        congestion.lost(99, 120, 1);
        assert_eq!(congestion.window(), 32);
        assert!(!congestion.grows_by(99));
        assert!(congestion.grows_by(100));
        congestion.lost(100, 130, 1);
        assert_eq!(congestion.window(), 16);
    }

    #[test]
    fn growth_that_crosses_the_threshold_is_fast_below_and_slow_above() {
        let mut congestion = Congestion::new(8, 1_000);
        congestion.collapse(1, 1);
        assert_eq!(congestion.window(), 1);
        congestion.acked(3 + 4);
        assert_eq!(congestion.window(), 5);
    }

    #[test]
    fn losses_that_a_timeouts_answer_shows_begin_it_anew_and_it_opens_fast_up_to_the_cut() {
        let mut congestion = Congestion::new(10, 1_000);
        congestion.acked(990);
        congestion.lost(1, 1_001, 1);
        assert_eq!(congestion.window(), 500);
        // More of the same flight: cut once.
        congestion.lost(2, 1_002, 1);
        congestion.restart_after_expiry(1_002);
        assert_eq!(congestion.window(), 10);
        assert!(!congestion.grows_by(1_001));
        congestion.acked(490);
        assert_eq!(congestion.window(), 500);
        congestion.acked(499);
        assert_eq!(congestion.window(), 500, "from there on slowly");
        congestion.collapse(2_000, 1);
        congestion.restart_after_expiry(2_000);
        assert_eq!(congestion.window(), 1, "it never raises the window");
    }

    #[test]
    fn on_a_short_path_a_window_keeps_what_finds_losses_without_a_timeout() {
        for (short, least) in [(1, 2), (2, 2), (4, 4), (10, 10)] {
            let mut congestion = Congestion::new(10, 1_000);
            for transmission in 0..20 {
                congestion.lost(transmission, transmission + 1, short);
            }
            assert_eq!(congestion.window(), least);
            congestion.acked(1_000);
            congestion.collapse(30, short);
            assert_eq!(congestion.window(), short);
            congestion.fall_silent(31);
            assert_eq!(congestion.window(), short);
            congestion.resume();
            congestion.collapse(32, short);
            assert_eq!(congestion.window(), short, "however small it was");
        }
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut congestion = Congestion::new(10, 4);
        assert_eq!(congestion.window(), 4);
        congestion.acked(1_000_000);
        assert_eq!(congestion.window(), 4);
        for transmission in 0..10 {
            congestion.lost(transmission, transmission + 1, 1);
        }
        assert_eq!(congestion.window(), 2);
        congestion.collapse(11, 1);
        assert_eq!(congestion.window(), 1);
        congestion.lost(20, 21, 1);
        assert_eq!(congestion.window(), 1, "a loss never raises it");
        let mut one = Congestion::new(10, 1);
        one.lost(0, 1, 1);
        one.acked(5);
        assert_eq!(one.window(), 1);
    }

    #[test]
    fn after_a_wait_that_the_server_asked_for_it_comes_back_fast() {
        let mut congestion = Congestion::new(64, 1_000);
        congestion.lost(1, 2, 1);
        congestion.resume();
        assert_eq!(congestion.window(), 1);
        congestion.acked(31);
        assert_eq!(congestion.window(), 32);
        congestion.reset();
        assert_eq!(congestion.window(), 64);
    }
}
