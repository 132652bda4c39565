//! `null`: takes everything and keeps nothing, for measuring and for journals that are only followed by `tail`.

use crate::model::Record;
use crate::process::handler::{Handler, HandlerError, Outcomes};

#[derive(Debug)]
pub(super) struct Null;

impl Handler for Null {
    fn process(&mut self, _records: &[Record<'_>], outcomes: &mut Outcomes) {
        outcomes.done_all();
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        Ok(true)
    }
}
