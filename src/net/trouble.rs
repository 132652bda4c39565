//! What a receiver does when its socket fails: most failures pass, and the server must outlive them.

use std::time::Duration;

use nix::errno::Errno;

use crate::limits;
use crate::model::Now;

/// Failures of one socket's receives, in a row.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    in_a_row: u32,
    /// When the first of them was, in monotonic microseconds.
    since_us: u64,
    /// Until when the socket is left alone.
    until_us: u64,
}

impl Trouble {
    /// The socket works, whether or not something was there.
    pub(super) fn is_over(&mut self) {
        self.in_a_row = 0;
    }

    /// How long the socket is still to be left alone. `now` is asked for only after a failure.
    pub(super) fn pause(&self, now: impl FnOnce() -> Now) -> Option<Duration> {
        if self.in_a_row <= limits::RECEIVE_FAILURES_AT_ONCE {
            return None;
        }
        let left_us = self.until_us.saturating_sub(now().mono_us);
        (left_us > 0).then(|| Duration::from_micros(left_us))
    }

    /// A receive failed. Returns whether that cannot pass; else it is tried again, at once or after a pause that grows.
    pub(super) fn met(&mut self, errno: Errno, now: Now) -> bool {
        if self.in_a_row == 0 {
            self.since_us = now.mono_us;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let beyond = self.in_a_row.saturating_sub(limits::RECEIVE_FAILURES_AT_ONCE);
        let pause_us = limits::RECEIVE_PAUSE_US.min(1_000 << beyond.min(16));
        self.until_us = now.mono_us.saturating_add(pause_us);
        match errno {
            // The descriptor is none, or none of a socket that can do this; the buffers are not ours; a filter of system
            // calls forbids it.
            Errno::EBADF | Errno::ENOTSOCK | Errno::EOPNOTSUPP | Errno::EFAULT | Errno::ENOSYS => true,
            Errno::EINVAL => now.mono_us.saturating_sub(self.since_us) >= limits::RECEIVE_DOUBT_US,
            _ => false,
        }
    }
}

/// Whether an error tells of an earlier reply that did not arrive (ICMP), and so nothing of the receive that returns it.
pub(super) fn concerns_a_reply(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EMSGSIZE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_us: u64) -> Now {
        Now { mono_us, unix_us: 0 }
    }

    #[test]
    fn a_failure_that_passes_costs_no_time_and_one_that_lasts_is_not_tried_in_a_tight_loop() {
        let mut trouble = Trouble::default();
        let (mut now, mut tries) = (0, 0);
        while now < 1_000_000 {
            assert!(!trouble.met(Errno::ENOMEM, at(now)));
            tries += 1;
            let pause = trouble.pause(|| at(now)).unwrap_or_default();
            assert_eq!(pause.is_zero(), tries <= limits::RECEIVE_FAILURES_AT_ONCE, "{tries}");
            assert!(pause <= Duration::from_micros(limits::RECEIVE_PAUSE_US));
            now += u64::try_from(pause.as_micros()).unwrap();
        }
        assert!((20..40).contains(&tries), "{tries}");
        assert_eq!(trouble.pause(|| at(now)), None, "the pause is over");
        trouble.is_over();
        assert!(!trouble.met(Errno::ENOMEM, at(now)));
        assert_eq!(trouble.pause(|| at(now)), None);
    }

    #[test]
    fn only_what_cannot_pass_is_final() {
        use Errno::*;
        let passing = [
            ENOMEM,
            ENOBUFS,
            ENETDOWN,
            EPERM,
            EIO,
            ECONNREFUSED,
            EHOSTUNREACH,
            EMSGSIZE,
            ENETUNREACH,
            EACCES,
            EMFILE,
            ENFILE,
            ETIMEDOUT,
            ENODEV,
            ENXIO,
            EPIPE,
            ECONNRESET,
            ENOTCONN,
        ];
        for errno in passing {
            let mut trouble = Trouble::default();
            assert!((0..100).all(|minute| !trouble.met(errno, at(minute * 60_000_000))), "{errno}");
        }
        for errno in [EBADF, ENOTSOCK, EFAULT, EOPNOTSUPP, ENOSYS] {
            assert!(Trouble::default().met(errno, at(0)), "{errno}");
        }
        let mut trouble = Trouble::default();
        assert!(!trouble.met(EINVAL, at(5)));
        assert!(!trouble.met(EINVAL, at(limits::RECEIVE_DOUBT_US)));
        assert!(trouble.met(EINVAL, at(limits::RECEIVE_DOUBT_US + 5)), "nothing was received in between");
    }
}
