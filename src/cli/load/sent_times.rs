//! When a flow's latest transmissions were made: coarsely, so that no datagram has to keep its own.

/// The transmissions of some round trips, in steps of half a round trip.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SentTimes {
    /// The steps, the newest first.
    steps: [Step; 4],
}

/// The last transmission made between two times.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    from_ns: u64,
    to_ns: u64,
    transmission: u64,
}

impl SentTimes {
    /// A transmission is made; `rtt_ns` is the shortest round trip.
    pub(super) fn note(&mut self, now_ns: u64, transmission: u64, rtt_ns: u64) {
        if now_ns >= self.steps[0].from_ns + rtt_ns / 2 {
            self.steps.rotate_right(1);
            self.steps[0].from_ns = now_ns;
        }
        self.steps[0].to_ns = now_ns;
        self.steps[0].transmission = transmission;
    }

    /// The newest transmission that is known to have been made by `at_ns`; 0 when none is.
    pub(super) fn by(&self, at_ns: u64) -> u64 {
        self.steps.iter().find(|step| step.to_ns <= at_ns).map_or(0, |step| step.transmission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_a_round_trip_ago_is_known_and_nothing_newer_is_taken_for_it() {
        let mut sent = SentTimes::default();
        let rtt_ns = 1_000;
        for transmission in 1..10_000 {
            // One each 10 ns.
            let now_ns = transmission * 10;
            sent.note(now_ns, transmission, rtt_ns);
            let answerable = sent.by(now_ns.saturating_sub(rtt_ns));
            assert!(answerable <= transmission.saturating_sub(100));
            assert!(answerable + 100 + 50 >= transmission);
        }
        assert_eq!(sent.by(10_000 * 10 + rtt_ns), 9_999);
    }
}
