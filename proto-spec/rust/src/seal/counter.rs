//! Counters that never give a number twice: with one key, a number used twice gives the key's protection away.

use core::ops::RangeInclusive;

/// Where a client's counter begins in each of its epochs, and where it must stop (PROTOCOL.md#sealed-counter).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterStart {
    first: u64,
    last: u64,
    taking_first: u64,
}

/// Numbers that start at random start below this one.
const RANDOM_END: u64 = 1 << 63;
/// How many numbers a millisecond has, as a power of two. 42 bits of milliseconds remain: 139 years.
const MILLISECOND_BITS: u32 = 21;

impl CounterStart {
    /// From a count of the device's starts, stored before it is used: 2³² transmissions for each. The only one that allows
    /// to go on with an epoch after a restart.
    pub const fn boot_count(count: u32) -> Self {
        let first = (count as u64) << 32;
        Self { first, last: first | u32::MAX as u64, taking_first: first }
    }

    /// From 64 random bits, drawn anew at every start. Answers of earlier runs are heard after some tries, since the server
    /// replies to who used the highest number: [`random_at`](Self::random_at) is better where the time is known.
    pub const fn random(bits: u64) -> Self {
        Self { first: bits >> 1, last: u64::MAX, taking_first: bits >> 1 }
    }

    /// The same at a start of which the Unix time in milliseconds is known: TAKEs in sessions of earlier runs have numbers
    /// above all that start at random and, as far as the clock goes on, above those of the runs before. Two runs that begin in one
    /// millisecond are kept apart by chance.
    pub const fn random_at(bits: u64, unix_ms: u64) -> Self {
        let in_millisecond = bits & ((1 << MILLISECOND_BITS) - 1);
        let taking_first = RANDOM_END | (unix_ms << MILLISECOND_BITS) & (RANDOM_END - 1) | in_millisecond;
        Self { taking_first, ..Self::random(bits) }
    }

    /// So few that a test can use them up.
    #[cfg(test)]
    pub(crate) const fn between(first: u64, last: u64) -> Self {
        Self { first, last, taking_first: first }
    }

    /// The numbers that it allows.
    pub const fn range(self) -> RangeInclusive<u64> {
        self.first..=self.last
    }

    /// The first number for TAKEs in sessions that this run did not open.
    pub(crate) const fn taking_first(self) -> u64 {
        self.taking_first
    }
}

/// The counter for all that a server seals: larger each time, whatever becomes of the clock and of the process
/// (PROTOCOL.md#sealed-server-counter).
///
/// It follows the clock, and gives only numbers below a limit that the caller has on disk. Call [`take`](Self::take) for
/// each datagram; [`limit_due`](Self::limit_due) now and then, and when it gives a limit, sync that to the disk and then
/// call [`limit_stored`](Self::limit_stored).
///
/// ```
/// use duragram_proto::seal::ServerCounter;
///
/// # let (stored, unix_ns) = (0, 1_790_000_000_000_000_000);
/// let mut counter = ServerCounter::resume(stored, unix_ns);
/// assert_eq!(counter.take(unix_ns), None, "nothing before a limit is on disk");
/// let limit = counter.limit_due(unix_ns).expect("the first limit");
/// // Sync `limit` to the disk here.
/// counter.limit_stored(limit);
/// assert_eq!(counter.take(unix_ns), Some(unix_ns));
/// assert_eq!(counter.take(unix_ns - 5), Some(unix_ns + 1));
/// assert_eq!(counter.limit_due(unix_ns), None);
/// ```
#[derive(Debug)]
pub struct ServerCounter {
    /// All below were given, or are never to be.
    next: u64,
    /// All below may be given.
    limit: u64,
}

/// How far a limit lies ahead, in numbers and in nanoseconds: about 73 minutes.
const RESERVE: u64 = 1 << 42;

impl ServerCounter {
    /// Goes on from the limit that was stored last, 0 if none ever was. `unix_ns`: Unix time in nanoseconds.
    pub const fn resume(stored: u64, unix_ns: u64) -> Self {
        let next = if stored > unix_ns { stored } else { unix_ns };
        Self { next, limit: 0 }
    }

    /// The next number; `None` while no limit that allows it is stored: then nothing may be sealed. That is also so when the
    /// clock has passed the limit, by a step or since the machine's memory was set back to an old snapshot: numbers below
    /// the time of day may have been given since.
    pub const fn take(&mut self, unix_ns: u64) -> Option<u64> {
        let number = if self.next < unix_ns { unix_ns } else { self.next };
        if number >= self.limit {
            return None;
        }
        self.next = number + 1;
        Some(number)
    }

    /// The limit to be stored, when less than half of the last one's reserve is left.
    pub const fn limit_due(&self, unix_ns: u64) -> Option<u64> {
        let now = if self.next < unix_ns { unix_ns } else { self.next };
        if self.limit.saturating_sub(now) >= RESERVE / 2 {
            return None;
        }
        // The last number stays out of use, so that `next` never wraps.
        Some(now.saturating_add(RESERVE))
    }

    /// The limit is on disk.
    pub const fn limit_stored(&mut self, limit: u64) {
        if limit > self.limit {
            self.limit = limit;
        }
    }
}
