//! When to try again: exponential backoff with jitter, on a clock that is passed in.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;

/// How often and when a record is presented again before it becomes a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// Attempts before a record becomes a dead letter, the first one included; 0 counts as 1.
    pub attempts_max: u16,
    /// The delay after the first failure. It doubles with each further one.
    pub first_delay: Duration,
    /// The delay does not grow beyond this.
    pub longest_delay: Duration,
}

impl Default for RetryPolicy {
    /// 10 attempts over about 40 seconds.
    fn default() -> Self {
        Self { attempts_max: 10, first_delay: Duration::from_millis(100), longest_delay: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
    /// Microseconds to wait after this many failures, from half the backoff to all of it: lanes that failed together do
    /// not come back together.
    pub(super) fn delay_us(&self, failures: u32, rng: &mut SmallRng) -> u64 {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let doubled = 2u64.checked_pow(failures.saturating_sub(1)).unwrap_or(u64::MAX);
        let backoff = micros(self.first_delay).saturating_mul(doubled).min(micros(self.longest_delay));
        rng.random_range(backoff / 2..=backoff)
    }
}

/// A time in which something does not work, from its first failure to its first success.
#[derive(Debug, Default)]
pub(super) struct Outage {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    since_us: u64,
    failures: u32,
    retry_at_us: u64,
}

impl Outage {
    /// Notes a failure; returns whether it is the first, which is the one to log. One that is `soon` over does not let the
    /// delay grow.
    pub(super) fn failed(&mut self, now_us: u64, soon: bool, policy: &RetryPolicy, rng: &mut SmallRng) -> bool {
        let is_first = self.current.is_none();
        let (since_us, before) = self.current.as_ref().map_or((now_us, 0), |c| (c.since_us, c.failures));
        let failures = if soon { 1 } else { before.saturating_add(1) };
        let retry_at_us = now_us.saturating_add(policy.delay_us(failures, rng));
        self.current = Some(Current { since_us, failures, retry_at_us });
        is_first
    }

    /// Notes a success; returns how long it was away, if it was.
    pub(super) fn over(&mut self, now_us: u64) -> Option<Duration> {
        self.current.take().map(|c| Duration::from_micros(now_us.saturating_sub(c.since_us)))
    }

    /// Until when to leave it alone, `None` when it may be tried.
    pub(super) fn wait_until(&self, now_us: u64) -> Option<u64> {
        self.current.as_ref().map(|c| c.retry_at_us).filter(|&at| at > now_us)
    }

    /// Whether the last try failed.
    pub(super) fn is_on(&self) -> bool {
        self.current.is_some()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts_max: 5,
            first_delay: Duration::from_millis(10),
            longest_delay: Duration::from_millis(70),
        }
    }

    #[test]
    fn delays_double_up_to_the_longest_and_keep_at_least_half() {
        let mut rng = SmallRng::seed_from_u64(7);
        for (failures, backoff_us) in
            [(1, 10_000), (2, 20_000), (3, 40_000), (4, 70_000), (64, 70_000), (u32::MAX, 70_000)]
        {
            let delays: Vec<u64> = (0..200).map(|_| policy().delay_us(failures, &mut rng)).collect();
            assert!(delays.iter().all(|d| (backoff_us / 2..=backoff_us).contains(d)), "{failures}: {delays:?}");
            let spread = delays.iter().max().unwrap() - delays.iter().min().unwrap();
            assert!(spread > backoff_us / 4, "no jitter after {failures} failures");
        }
    }

    #[test]
    fn an_outage_lasts_from_its_first_failure_to_its_first_success() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut outage = Outage::default();
        assert!(!outage.is_on());
        assert!(outage.failed(1_000_000, false, &policy(), &mut rng));
        let first = outage.wait_until(1_000_000).unwrap();
        assert!((1_005_000..=1_010_000).contains(&first));
        assert_eq!(outage.wait_until(first), None, "it may be tried at that time");
        assert!(!outage.failed(first, false, &policy(), &mut rng), "only the first failure is news");
        assert_eq!(outage.over(3_000_000), Some(Duration::from_secs(2)));
        assert_eq!(outage.over(3_000_000), None);
    }

    #[test]
    fn delays_do_not_grow_while_something_moves() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut outage = Outage::default();
        let mut now = 0;
        for round in 0..50 {
            outage.failed(now, round % 3 > 0, &policy(), &mut rng);
            let at = outage.wait_until(now).unwrap();
            assert!(at - now <= 20_000, "{} us after round {round}", at - now);
            now = at;
        }
        assert!(outage.over(now).unwrap() >= Duration::from_millis(250), "it is one outage all the same");
    }
}
