//! Waiting for what another thread has to say, without a thread that waits: a lane that is stuck must not keep those from their
//! answers who ask for something else.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// How long an operator waits for an answer. Shorter than the command line waits for ours: it is to hear why.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);
/// How often it is looked for the answer meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is looked for; `None` when it does not come in time.
pub(super) async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let looks = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, looks).await.ok()
}
