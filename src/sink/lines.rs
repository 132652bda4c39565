//! What the sinks that write lines have in common: a lane gathers lines, and hands them on whole when it flushes.
//!
//! Until then the lines are in memory alone, up to a bound. So a write that failed leaves nothing to find out: the lines are
//! still here, and the next flush writes them again.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits;
use crate::model::{Offset, Record};
use crate::process::handler::{Handler, HandlerError, Outcomes};
use crate::record_json::{Formatter, lost_line};

/// A line is shorter: a payload of 65,507 bytes, six for each when all are escaped, and the keys.
pub(super) const LINE_MAX: usize = 512 << 10;

/// Where lines go. Its lane writes whole lines; a FIFO is watched beside it.
pub(super) trait Output: Send {
    /// Writes the lines and makes them durable as far as the output can. Leaves in `lines` what is to be written again by
    /// the next call: after a success nothing.
    fn write(&mut self, lines: &mut Vec<u8>) -> Result<(), HandlerError>;

    /// Opens the path anew, if there is one. On error nothing has changed.
    fn reopen(&mut self) -> Result<(), HandlerError>;

    /// What the journal keeps to find out after a crash which later lines are there.
    fn state(&self) -> Result<Vec<u8>, HandlerError>;
}

/// A lane's handler that writes lines to an output.
pub(super) struct LineHandler {
    output: Arc<Mutex<dyn Output>>,
    formatter: Formatter,
    lines: Vec<u8>,
    replay: Option<Replay>,
}

impl LineHandler {
    pub(super) fn new(output: Arc<Mutex<dyn Output>>, replay: Option<Replay>) -> Self {
        Self { output, formatter: Formatter::default(), lines: Vec::new(), replay }
    }

    fn write(&mut self) -> Result<(), HandlerError> {
        lock(&self.output).write(&mut self.lines)
    }
}

fn lock<'a>(output: &'a Mutex<dyn Output>) -> MutexGuard<'a, dyn Output + 'static> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handler for LineHandler {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        for (i, record) in records.iter().enumerate() {
            // Written out before the flush, since the memory for lines is bounded; that a line is there already when its
            // records come again after a crash is found out then, as for any other.
            if self.lines.len() >= limits::SINK_LINES_BYTES
                && let Err(error) = self.write()
            {
                (0..i).for_each(|done| outcomes.done(done));
                return outcomes.unavailable_for(error);
            }
            let start = self.lines.len();
            self.formatter.line(record, &mut self.lines);
            if let Some(replay) = &mut self.replay {
                if replay.has(record, &self.lines[start..]) {
                    self.lines.truncate(start);
                }
                if replay.ends_with(record) {
                    self.replay = None;
                }
            }
        }
        outcomes.done_all();
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        self.write()?;
        match &self.replay {
            Some(replay) => Ok(replay.state.clone()),
            None => lock(&self.output).state(),
        }
    }

    /// Lines are in the order of the records, and none is behind an open record: what the file holds beyond the state that the
    /// journal keeps is found again after a crash, as after any other write.
    fn settle(&mut self) -> Result<bool, HandlerError> {
        self.write().map(|()| true)
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        lock(&self.output).reopen()
    }

    /// A line of its own tells of it, unless it is there since before a crash.
    fn lost(&mut self, from: Offset, to: Offset) {
        let start = self.lines.len();
        lost_line(from, to, &mut self.lines);
        if self.replay.as_ref().is_some_and(|replay| replay.has_lost(from, &self.lines[start..])) {
            self.lines.truncate(start);
        }
    }
}

/// Where a line that tells of a loss stands among those of records: no entry has so many of these.
const LOST: u16 = u16::MAX;

/// Lines that a lane wrote before a crash and that its watermark does not cover: their records come again.
///
/// A record is left out only when the very same line is there, every byte of it: a file with lines of another journal,
/// whose offsets mean other records, costs nothing.
pub(super) struct Replay {
    lines: HashMap<(Offset, u16), u64, RandomState>,
    last: (Offset, u16),
    /// Until the lane has passed these lines, a crash must find them again: the journal keeps the state that led to them.
    state: Vec<u8>,
}

impl Replay {
    /// Begins without lines; those that are found are added.
    pub(super) fn new(state: Vec<u8>) -> Self {
        Self { lines: HashMap::default(), last: Default::default(), state }
    }

    /// Adds a line that is in the output.
    pub(super) fn insert(&mut self, offset: Offset, index: u16, line: &[u8]) {
        self.lines.insert((offset, index), self.lines.hasher().hash_one(line));
        self.last = self.last.max((offset, index));
    }

    /// Adds a line that tells of a loss from this entry on.
    pub(super) fn insert_lost(&mut self, from: Offset, line: &[u8]) {
        self.lines.insert((from, LOST), self.lines.hasher().hash_one(line));
        self.last = self.last.max((from, LOST));
    }

    fn has_lost(&self, from: Offset, line: &[u8]) -> bool {
        self.lines.get(&(from, LOST)).is_some_and(|&hash| hash == self.lines.hasher().hash_one(line))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn has(&self, record: &Record<'_>, line: &[u8]) -> bool {
        let known = self.lines.get(&(record.offset, record.index));
        known.is_some_and(|&hash| hash == self.lines.hasher().hash_one(line))
    }

    fn ends_with(&self, record: &Record<'_>) -> bool {
        (record.offset, record.index) >= self.last
    }
}
