//! What keeps the lane of a configured sink from going on where it is: an operator has stopped it, or wants it to go on
//! elsewhere, or what it is at is lost to it.

use std::mem;
use std::sync::{Arc, Mutex};

use super::{LaneStep, LaneWorker, Unflushed};
use crate::journal::StorageError;
use crate::limits;
use crate::model::{LaneMark, Now, Offset};
use crate::process::asked::Seek;
use crate::process::cursor::Cursor;
use crate::process::handler::HandlerFactory;
use crate::process::remade::Remade;

impl LaneWorker {
    /// Makes the handler by this whenever an operator lets the sink go on elsewhere.
    pub(in crate::process) fn remake_by(&mut self, factory: Arc<Mutex<HandlerFactory>>) {
        self.remake = Some(factory);
    }

    /// Does what comes before all work: `None` when there is nothing of the kind. Costs an embedded handler nothing.
    ///
    /// # Errors
    /// The journal cannot be read. The server must stop.
    pub(super) fn stop_or_jump(&mut self, now: Now) -> Result<Option<LaneStep>, StorageError> {
        let progress = Arc::clone(&self.progress);
        let Some(cursor) = progress.cursor() else { return Ok(None) };
        if let Some(Seek { to, cursors, replies }) = self.seek.take() {
            self.go_on_at(now, to)?;
            replies.into_iter().for_each(|reply| cursors.ask_for(reply));
            return Ok(Some(LaneStep::Worked));
        }
        if cursor.is_removed() || cursor.is_paused() {
            return Ok(Some(self.rest(now, limits::LANE_REST_US)));
        }
        let floor = cursor.floor();
        if cursor.loss_waits() {
            return Ok(Some(self.rest(now, limits::LANE_POST_AGAIN_US)));
        }
        // A batch that reaches behind it is finished first: what was answered of it must not come twice.
        if floor > self.batch_end.unwrap_or(self.cursor) {
            self.pass_over(floor);
        }
        if self.batch_end.is_none()
            && let Some((from, to)) = cursor.take_untold(self.cursor)
        {
            self.attempts.lost(from, to);
            self.flush(now);
            return Ok(Some(LaneStep::Worked));
        }
        Ok(None)
    }

    /// Does nothing but flush what was presented before, and looks about again after so many microseconds.
    fn rest(&mut self, now: Now, again_us: u64) -> LaneStep {
        let for_good = self.progress.cursor().is_some_and(Cursor::is_removed);
        if self.batch_end.is_none() && self.unflushed.records > 0 && !for_good {
            match self.attempts.flush_due(now) {
                Some(at) => return LaneStep::RetryAt(at),
                None => self.flush(now),
            }
            return LaneStep::Worked;
        }
        if !for_good {
            self.settle(now);
        }
        if for_good {
            // Whoever asked hears that the lane has ended.
            self.retries.clear();
            self.progress.cursor().iter().for_each(|cursor| cursor.set_stopped());
        }
        match self.drain_by_us {
            Some(_) => LaneStep::Finished { drained: for_good || self.watermark_is_at_the_end() },
            // Not idle: what comes meanwhile must not wake it.
            None => LaneStep::RetryAt(now.mono_us.saturating_add(again_us)),
        }
    }

    /// What is not finished below this is lost: it is not presented any more. What was finished is flushed as ever.
    fn pass_over(&mut self, floor: Offset) {
        self.open.reset(0);
        (self.batch_end, self.gathers_since_us) = (None, None);
        self.cursor = floor;
        self.blocks.jump(floor);
    }

    /// Goes on there with a handler that is made anew: what the one before had not flushed is forgotten, with what of its state
    /// is true at its place only. The rest is stored with the new place: what the target says of earlier starts must still be
    /// understood after a restart before the next record.
    fn go_on_at(&mut self, now: Now, to: Offset) -> Result<(), StorageError> {
        let to = self.blocks.seek(to.min(self.progress.durable_end()))?;
        self.open.reset(0);
        (self.batch_end, self.gathers_since_us) = (None, None);
        self.unflushed = Unflushed::default();
        self.attempts.answers.forget();
        self.note_oldest(None);
        let from = mem::replace(&mut self.cursor, to);
        let mark = LaneMark { watermark: to, sink_state: self.attempts.moved() };
        if let Some(factory) = &self.remake {
            let journal = self.blocks.journal();
            let (journal, end) = ((journal.id(), journal.instance()), self.progress.durable_end());
            let handler = Remade::new(Arc::clone(factory), journal, self.name.id(), mark.clone(), end);
            self.attempts.replace_handler(now, Box::new(handler));
        }
        self.progress.seek(mark);
        tracing::warn!(sink = self.name.sink(), %from, %to, "an operator lets the sink go on elsewhere");
        Ok(())
    }
}
