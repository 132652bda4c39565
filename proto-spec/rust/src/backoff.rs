//! How long to wait before the next try: doubling, bounded, and spread so that a fleet whose server comes back does not
//! come back as one (PROTOCOL.md#duty-retransmission).

use crate::random::Random;

/// The wait before try number `tries` (0 is the first), in microseconds: `base_us` doubled `tries` times, at most
/// `max_us`, and up to a quarter more at random.
pub(crate) fn interval_us(base_us: u64, tries: u32, max_us: u64, random: &mut Random) -> u64 {
    let doubled = 1u64.checked_shl(tries).map_or(u64::MAX, |factor| base_us.saturating_mul(factor));
    jittered_us(doubled.min(max_us), 4, random)
}

/// `wait_us` and up to one `part`-th more at random. Never less: the wait may be one that the server asked for.
pub(crate) fn jittered_us(wait_us: u64, part: u64, random: &mut Random) -> u64 {
    wait_us.saturating_add(random.up_to(wait_us / part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_the_maximum_and_are_spread_upwards_only() {
        let mut random = Random::new(7);
        for (tries, least) in [(0, 100), (1, 200), (4, 1_600), (5, 2_000), (63, 2_000), (64, 2_000), (u32::MAX, 2_000)]
        {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..200 {
                let interval = interval_us(100, tries, 2_000, &mut random);
                assert!((least..=least + least / 4).contains(&interval), "try {tries}: {interval}");
                seen.insert(interval);
            }
            assert!(seen.len() > 10, "try {tries}: not spread: {seen:?}");
        }
    }

    #[test]
    fn nothing_overflows_at_the_ends() {
        let mut random = Random::new(7);
        assert!(interval_us(u64::MAX, 63, u64::MAX, &mut random) == u64::MAX);
        assert_eq!(interval_us(0, 9, 0, &mut random), 0);
    }
}
