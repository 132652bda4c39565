//! Token buckets: how often something may be asked for, by whom.
//!
//! The buckets are as many as there are at the beginning, and whoever asks is hashed to one of them, by a hash that nobody
//! outside can foresee: memory is bounded however many ask, at the price that a few share a bucket.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

/// A fixed number of token buckets.
#[derive(Debug)]
pub(crate) struct Buckets {
    limiter: RateLimiter<usize, Cells, Told, NoOpMiddleware<Nanos>>,
    hasher: RandomState,
    buckets: usize,
}

/// The stages of the server are told the time.
#[derive(Clone, Debug)]
struct Told(Arc<AtomicU64>);

impl Clock for Told {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

#[derive(Debug)]
struct Cells(Box<[InMemoryState]>);

impl StateStore for Cells {
    type Key = usize;

    fn measure_and_replace<T, F, E>(&self, key: &usize, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0[*key].measure_and_replace(&NotKeyed::NonKey, f)
    }
}

impl Buckets {
    /// `buckets` full ones of `burst` tokens, to each of which `per_s` come back a second. `buckets` is not 0.
    pub(crate) fn new(buckets: usize, per_s: NonZeroU32, burst: NonZeroU32) -> Self {
        let cells = (0..buckets).map(|_| InMemoryState::default()).collect();
        let quota = Quota::per_second(per_s).allow_burst(burst);
        let limiter = RateLimiter::new(quota, Cells(cells), Told(Arc::default()));
        Self { limiter, hasher: RandomState::new(), buckets }
    }

    /// Takes a token of who asks, at `mono_us` by the monotonic clock; false when there is none.
    pub(crate) fn allows(&self, who: impl Hash, mono_us: u64) -> bool {
        self.limiter.clock().0.store(mono_us.saturating_mul(1_000), Ordering::Relaxed);
        #[allow(clippy::cast_possible_truncation)] // the remainder is below a usize
        let bucket = (self.hasher.hash_one(who) % self.buckets as u64) as usize;
        self.limiter.check_key(&bucket).is_ok()
    }
}

/// Whose a datagram is, as far as its address tells: an IPv4 address, or the 64 bits of IPv6 that a site has. `None` for
/// the machine's own: who sends from there is bounded by other means, and may be a proxy for many.
pub(crate) fn source(address: SocketAddr) -> Option<u64> {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip == std::net::Ipv4Addr::LOCALHOST => None,
        IpAddr::V4(ip) => Some(u64::from(u32::from(ip))),
        IpAddr::V6(ip) if ip.is_loopback() => None,
        // Never the same as that of an IPv4 address: those of the first 32 bits 0 are not given out.
        IpAddr::V6(ip) => Some((u128::from(ip) >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_what_comes_back() {
        let buckets = Buckets::new(1, number(10), number(5));
        let taken = |mono_us| (0..100).filter(|_| buckets.allows(1, mono_us)).count();
        assert_eq!(taken(0), 5);
        assert_eq!(taken(99_999), 0);
        assert_eq!(taken(300_000), 3);
        assert_eq!(taken(100_000_000), 5, "no more than it holds");
    }

    #[test]
    fn who_asks_too_often_leaves_the_others_theirs() {
        let buckets = Buckets::new(1 << 16, number(1), number(4));
        let greedy = (0..1_000).filter(|_| buckets.allows(0, 0)).count();
        assert_eq!(greedy, 4);
        let served = (1..1_000).filter(|who| buckets.allows(who, 0)).count();
        assert!(served > 980, "{served}");
    }

    #[test]
    fn a_source_is_an_address_without_its_port_or_a_site() {
        let of = |address: &str| source(address.parse().unwrap());
        assert_eq!(of("10.0.0.1:1"), of("10.0.0.1:2"));
        assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
        assert_eq!(of("[2001:db8:1:2::3]:1"), of("[2001:db8:1:2:ffff::4]:2"));
        assert_ne!(of("[2001:db8:1:2::3]:1"), of("[2001:db8:1:3::3]:1"));
        assert_eq!((of("127.0.0.1:1"), of("[::1]:1")), (None, None));
        assert!(of("127.0.0.2:1").is_some());
    }

    #[test]
    fn an_ipv4_address_within_ipv6_is_that_address() {
        let of = |address: &str| source(address.parse().unwrap());
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:1"));
        assert_ne!(of("[::ffff:10.0.0.1]:1"), of("[::ffff:10.0.0.2]:1"));
        assert_eq!(of("[::ffff:127.0.0.1]:1"), None);
    }
}
