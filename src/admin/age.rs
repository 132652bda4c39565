//! How old entries are, which only the journal can tell.

use std::time::{SystemTime, UNIX_EPOCH};

use super::state::AdminState;
use crate::journal::StorageError;
use crate::model::Offset;

/// The oldest entry that is kept from an offset on, and how many seconds ago it came; `None` when there is none.
///
/// # Errors
/// The journal cannot be read.
pub(super) fn oldest_from(state: &dyn AdminState, from: Offset) -> Result<Option<(Offset, u64)>, StorageError> {
    let blocks = state.journal().read(from, 1)?;
    let Some(entry) = blocks.first().and_then(|block| block.entries_from(from).next()) else { return Ok(None) };
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let now_us = u64::try_from(now_us).unwrap_or(u64::MAX);
    Ok(Some((entry.offset, now_us.saturating_sub(entry.meta.received_unix_us) / 1_000_000)))
}
