//! The end of the lanes: in good order, or after an error.

use std::time::Duration;

use crossbeam_channel::{Receiver as Events, never, select};

use crate::journal::{JournalError, StorageError};
use crate::limits;
use crate::model::{Clock, SystemClock};
use crate::process::{LaneControl, LaneEnd};
use crate::server::Error;

/// How long lanes are waited for after an error.
const LANES_END: Duration = Duration::from_secs(2);

/// Lets the lanes process what is durable, until the deadline or a second request to stop. No lane that obeys is left at the
/// database. `commit` is called again and again meanwhile: what the lanes say of asks becomes durable and is told, and a lane goes on
/// only when there is room for what it has to say.
pub(super) fn drain(
    lanes: &LaneControl,
    ends: &Events<LaneEnd>,
    stops: &Events<()>,
    clock: SystemClock,
    timeout: Duration,
    mut commit: impl FnMut() -> Result<(), JournalError>,
) -> Result<(), Error> {
    let timeout_us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
    lanes.drain(clock.now().mono_us.saturating_add(timeout_us));
    // A lane looks at its deadline between two calls of its handler; one that hangs is left behind.
    let patience = crossbeam_channel::after(timeout + Duration::from_secs(1));
    let mut second = stops.clone();
    loop {
        select! {
            recv(ends) -> end => match end {
                Ok(LaneEnd { lane, drained }) => {
                    if !drained? {
                        tracing::warn!(%lane, "stopped before all was processed; the rest follows after the next start");
                    }
                }
                // All have ended.
                Err(_) => break,
            },
            recv(second) -> stop => match stop {
                Ok(()) => {
                    tracing::warn!("told to stop again: the lanes end where they are");
                    return Ok(end_lanes(lanes, ends, clock)?);
                }
                Err(_) => second = never(),
            },
            recv(patience) -> _ => {
                tracing::warn!("lanes are still busy at the deadline; what they have not finished follows after the next start");
                break;
            }
            default(Duration::from_micros(limits::LANE_POST_AGAIN_US)) => commit()?,
        }
    }
    Ok(())
}

/// After an error, or a second request to stop: lets the lanes stop where they are. One that is still at the database when the process ends would find
/// RocksDB torn down, and abort the process in place of its exit code.
///
/// # Errors
/// The first that a lane has met, when all have ended.
pub(super) fn end_lanes(lanes: &LaneControl, ends: &Events<LaneEnd>, clock: SystemClock) -> Result<(), StorageError> {
    lanes.drain(clock.now().mono_us);
    // A lane whose handler hangs is left behind.
    let patience = crossbeam_channel::after(LANES_END);
    let mut met = Ok(());
    loop {
        select! {
            recv(ends) -> end => match end {
                Ok(LaneEnd { drained, .. }) => met = met.and(drained.map(drop)),
                Err(_) => return met,
            },
            recv(patience) -> _ => return met,
        }
    }
}

#[cfg(test)]
mod tests;
