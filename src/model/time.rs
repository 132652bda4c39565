//! Moments, and where they come from.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment, by both clocks: one that never steps, for durations, and one that people read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Microseconds since the clock's start; never steps back.
    pub mono_us: u64,
    /// Microseconds since 1970-01-01 UTC; may step either way.
    pub unix_us: u64,
}

/// Where stages take the time from; the simulator gives its own.
pub trait Clock {
    /// Returns the present moment on both clocks.
    fn now(&self) -> Now;
}

/// It reads the clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic part starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        Now {
            mono_us: micros(self.start.elapsed()),
            unix_us: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros),
        }
    }
}
