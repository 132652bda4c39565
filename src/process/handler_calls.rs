//! The calls of a handler, and the panics in which they may end: such a panic ends no thread, and costs no record but the one
//! that causes it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::handler::{Handler, HandlerError, Outcomes};
use super::lane_name::LaneName;
use super::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::model::{LaneMessage, Offset, Record};

/// A lane's handler, called so that its panics are caught.
pub(super) struct HandlerCalls {
    name: LaneName,
    handler: Box<dyn Handler>,
    metrics: Metrics,
    /// The handler answers, with up to so many bytes.
    answer_bytes_max: Option<usize>,
    /// What was said in the last call of [`process`](Self::process).
    pub(super) outcomes: Outcomes,
}

impl HandlerCalls {
    pub(super) fn new(
        name: LaneName,
        handler: Box<dyn Handler>,
        answering: Option<(usize, Arc<Mailbox<LaneMessage>>)>,
        metrics: &Metrics,
    ) -> Self {
        let mut outcomes = Outcomes::default();
        let answer_bytes_max = answering.map(|(bytes_max, mailbox)| {
            outcomes.tell_by(mailbox);
            bytes_max
        });
        Self { name, handler, metrics: metrics.clone(), answer_bytes_max, outcomes }
    }

    /// Presents records; returns what the handler said when it panicked. What it said before stands in `outcomes`. The sender of one of
    /// them `may_ask` for an answer.
    pub(super) fn process(&mut self, records: &[Record<'_>], may_ask: bool) -> Option<String> {
        self.present(records, may_ask, |handler, outcomes| handler.process(records, outcomes))
    }

    /// The same with one dead letter.
    pub(super) fn retry(&mut self, record: &Record<'_>) -> Option<String> {
        self.present(std::slice::from_ref(record), record.asks, |handler, outcomes| handler.retry(record, outcomes))
    }

    fn present(
        &mut self,
        records: &[Record<'_>],
        may_ask: bool,
        call: impl FnOnce(&mut dyn Handler, &mut Outcomes),
    ) -> Option<String> {
        self.outcomes.reset(records.len());
        if let Some(bytes_max) = self.answer_bytes_max.filter(|_| may_ask) {
            self.outcomes.are_asked_by(records, bytes_max);
        }
        // The handler is asked to stay valid when it panics; `outcomes` holds whole outcomes at any time.
        let panic = catch_unwind(AssertUnwindSafe(|| call(&mut *self.handler, &mut self.outcomes))).err()?;
        // "All done" may have been said before the work was.
        self.outcomes.withdraw_done_all();
        self.metrics.handler_panics.inc();
        let text = panic_text(&*panic);
        tracing::error!(
            sink = self.name.sink(), lane = self.name.number(), from = %records[0].offset, records = records.len(),
            "the handler panicked: {text}"
        );
        Some(text)
    }

    /// Another handler takes its place.
    pub(super) fn replace(&mut self, handler: Box<dyn Handler>) {
        self.handler = handler;
    }

    /// Tells the handler what it will not be shown. A panic is logged by the flush that follows, if it lasts.
    pub(super) fn lost(&mut self, from: Offset, to: Offset) {
        let told = self.caught(|handler| {
            handler.lost(from, to);
            Ok(())
        });
        if let Err(error) = told {
            tracing::error!(sink = self.name.sink(), %from, %to, "{error}, when it was told what is lost to it");
        }
    }

    /// What of the handler's state is true elsewhere; nothing, when it panics.
    pub(super) fn moved(&mut self) -> Vec<u8> {
        self.caught(|handler| Ok(handler.moved())).unwrap_or_else(|error| {
            let (sink, lane) = (self.name.sink(), self.name.number());
            tracing::error!(sink, lane, "{error}, when it was asked what it keeps elsewhere: it begins with nothing");
            Vec::new()
        })
    }

    /// Lets the handler make durable what it has done.
    pub(super) fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        self.caught(|handler| handler.flush())
    }

    /// Lets the handler make durable what it has done while records are open, if it can.
    pub(super) fn settle(&mut self) -> Result<bool, HandlerError> {
        self.caught(|handler| handler.settle())
    }

    /// Lets the handler open its files anew.
    pub(super) fn reopen(&mut self) -> Result<(), HandlerError> {
        self.caught(|handler| handler.reopen())
    }

    fn caught<T>(&mut self, call: impl FnOnce(&mut dyn Handler) -> Result<T, HandlerError>) -> Result<T, HandlerError> {
        catch_unwind(AssertUnwindSafe(|| call(&mut *self.handler))).unwrap_or_else(|panic| {
            self.metrics.handler_panics.inc();
            Err(HandlerError::new(format_args!("the handler panicked: {}", panic_text(&*panic))))
        })
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(no text)").to_owned()
}
