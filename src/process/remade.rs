//! A handler that is made when it is first needed, and again as long as that fails: a sink that an operator lets go on elsewhere,
//! or has paused before the start, must not end the server because its target cannot be opened just then.

use std::sync::{Arc, Mutex, PoisonError};

use super::handler::{Handler, HandlerError, HandlerFactory, LaneStart, Outcomes};
use crate::model::{Instance, JournalId, Lane, LaneMark, Offset, Record, SinkId};

/// Stands for the handler of a sink's only lane.
pub(super) struct Remade {
    factory: Arc<Mutex<HandlerFactory>>,
    journal: Option<JournalId>,
    instance: Option<Instance>,
    sink: SinkId,
    mark: LaneMark,
    durable_end: Offset,
    /// The state of its mark is true anywhere: it came from [`Handler::moved`].
    is_true_anywhere: bool,
    handler: Option<Box<dyn Handler>>,
    /// What it is to be told when it is there.
    lost: Vec<(Offset, Offset)>,
}

impl Remade {
    /// A handler to begin at this mark, made by the factory later. The one before must be gone by then.
    pub(super) fn new(
        factory: Arc<Mutex<HandlerFactory>>,
        (journal, instance): (Option<JournalId>, Option<Instance>),
        sink: SinkId,
        mark: LaneMark,
        durable_end: Offset,
    ) -> Self {
        Self {
            factory,
            journal,
            instance,
            sink,
            mark,
            durable_end,
            is_true_anywhere: true,
            handler: None,
            lost: Vec::new(),
        }
    }

    /// The same at a start, where the state that was stored with the mark is one that a flush returned.
    pub(super) fn at_start(self) -> Self {
        Self { is_true_anywhere: false, ..self }
    }

    fn handler(&mut self) -> Result<&mut dyn Handler, HandlerError> {
        if self.handler.is_none() {
            let start = LaneStart {
                journal: self.journal,
                instance: self.instance,
                sink: self.sink,
                lane: Lane(0),
                marks: std::slice::from_ref(&self.mark),
                durable_end: self.durable_end,
                left: &[],
            };
            let mut made = (self.factory.lock().unwrap_or_else(PoisonError::into_inner))(&start)?;
            self.lost.drain(..).for_each(|(from, to)| made.lost(from, to));
            self.handler = Some(made);
        }
        match &mut self.handler {
            Some(handler) => Ok(&mut **handler),
            None => Err(HandlerError::new("the handler is not made yet")),
        }
    }
}

impl Handler for Remade {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        match self.handler() {
            Ok(handler) => handler.process(records, outcomes),
            Err(error) => outcomes.unavailable_for(error),
        }
    }

    /// One that was not made yet has nothing to flush, unless it is to hear of a loss.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        match self.handler.is_none() && self.lost.is_empty() {
            true => Ok(self.mark.sink_state.clone()),
            false => self.handler()?.flush(),
        }
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        self.handler.as_mut().map_or(Ok(true), |handler| handler.settle())
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.handler.as_mut().map_or(Ok(()), |handler| handler.reopen())
    }

    fn retry(&mut self, record: &Record<'_>, outcomes: &mut Outcomes) {
        match self.handler() {
            Ok(handler) => handler.retry(record, outcomes),
            Err(error) => outcomes.unavailable_for(error),
        }
    }

    fn lost(&mut self, from: Offset, to: Offset) {
        match &mut self.handler {
            Some(handler) => handler.lost(from, to),
            None => self.lost.push((from, to)),
        }
    }

    /// One that was not made yet has seen nothing. What it was to begin with is true elsewhere already; or, at a start, at the mark
    /// alone, and a handler has to say what of it is true elsewhere, if one can be made just now.
    fn moved(&mut self) -> Vec<u8> {
        if self.handler.is_none() && self.is_true_anywhere {
            return self.mark.sink_state.clone();
        }
        self.handler().map(|handler| handler.moved()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its flushes return what is true at one place, and what it says when it is moved is true at any.
    struct Knows;

    impl Handler for Knows {
        fn process(&mut self, _records: &[Record<'_>], outcomes: &mut Outcomes) {
            outcomes.done_all();
        }

        fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
            Ok(b"there".to_vec())
        }

        fn moved(&mut self) -> Vec<u8> {
            b"anywhere".to_vec()
        }
    }

    fn remade(factory: HandlerFactory, state: &[u8]) -> Remade {
        let mark = LaneMark { watermark: Offset(101), sink_state: state.to_vec() };
        Remade::new(Arc::new(Mutex::new(factory)), (None, None), SinkId(7), mark, Offset(200))
    }

    #[test]
    fn what_was_true_at_the_mark_of_a_start_does_not_go_along_to_another_place() {
        let made = || -> HandlerFactory { Box::new(|_| Ok(Box::new(Knows))) };
        assert_eq!(remade(made(), b"there").at_start().moved(), b"anywhere");
        assert_eq!(remade(made(), b"anywhere still").moved(), b"anywhere still");
        let away: HandlerFactory = Box::new(|_| Err(HandlerError::new("the target is away")));
        assert_eq!(remade(away, b"there").at_start().moved(), b"");
    }
}
