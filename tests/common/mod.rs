//! What the tests share that run the real binary: starting and killing it, speaking its wire, a bad network.
#![allow(dead_code, reason = "every test file is a crate of its own and uses a part")]

pub(crate) mod fake;
pub(crate) mod lossy;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod sink;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Long, since the machine may be busy; no test waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `condition` until it gives a value. Panics with `what` after [`PATIENCE`].
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As [`wait_for`], within a runtime whose other tasks go on.
pub(crate) async fn wait_for_async<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
