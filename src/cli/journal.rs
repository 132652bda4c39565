//! draft
use crate::journal::DeadLetters;
use std::path::Path;
use std::sync::Arc;
/// x
#[derive(Debug, clap::Args)]
pub(super) struct JournalArgs {}
pub(super) fn run(_: &JournalArgs) -> Result<(), super::Failure> {
    Ok(())
}
pub(super) fn open_dead_letters(_dir: &Path) -> Result<Arc<dyn DeadLetters>, super::Failure> {
    Err(super::Failure::usage("draft"))
}
