//! What `duragram serve` and systemd tell each other: sockets that are bound already (`LISTEN_FDS`), that the server is
//! ready, reads its configuration again or stops (`NOTIFY_SOCKET`), and that it is alive (`WATCHDOG_USEC`).
//!
//! None of it is there when the server was started otherwise; then nothing happens. A server that is embedded in another
//! program leaves all this to it.

use std::io;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::commit::{Liveness, LivenessProbe};

/// The sockets that were bound for this process. Takes them from the environment, so call it once, before other threads read
/// that.
///
/// # Errors
/// One is not a UDP socket.
pub(super) fn sockets() -> io::Result<Vec<UdpSocket>> {
    let mut given = ListenFd::from_env();
    let taken = (0..given.len()).filter_map(|index| given.take_udp_socket(index).transpose());
    taken.collect::<io::Result<_>>().map_err(|error| {
        io::Error::new(error.kind(), format!("taking over the sockets of LISTEN_FDS, which must be of UDP: {error}"))
    })
}

/// The server is not ready yet, for this reason; systemd may give the start up so much later than now, if that is later than
/// it would.
pub(super) fn starting(status: &str, extension: Option<Duration>) {
    let extension =
        extension.map(|time| NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)));
    tell(&[Some(NotifyState::Status(status)), extension].into_iter().flatten().collect::<Vec<_>>());
}

/// Tells systemd that datagrams are accepted.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The configuration is being read again; [`ready`] ends it.
pub(super) fn reloading() {
    // systemd from version 253 on wants the time.
    let now = NotifyState::monotonic_usec_now().ok();
    tell(&[Some(NotifyState::Reloading), now].into_iter().flatten().collect::<Vec<_>>());
}

/// The server stops in good order.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Tells systemd again and again that the server is alive, as long as the committer's thread goes round its loop.
pub(super) fn watch(committer: LivenessProbe) -> io::Result<()> {
    let Some(patience) = sd_notify::watchdog_enabled() else { return Ok(()) };
    // As sd_watchdog_enabled(3) recommends, and once more: a beat that comes late is no reason to kill.
    let interval = (patience / 4).max(Duration::from_millis(1));
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let mut committer = committer;
        loop {
            match committer.check() {
                Liveness::Stuck => {
                    tracing::error!(?interval, "the committer is stuck: systemd is not told that it is alive")
                }
                // What follows its end has deadlines of its own, and systemd its `TimeoutStopSec`.
                Liveness::Alive | Liveness::Ended => tell(&[NotifyState::Watchdog]),
            }
            thread::sleep(interval);
        }
    })?;
    Ok(())
}

/// Whoever does not hear it acts on its own: nothing is to be done here.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell systemd how the server is");
    }
}
