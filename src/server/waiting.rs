//! What processing waits for, as it is reported to operators: sinks that are away, and FIFOs that nobody reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::{Offset, Record};
use crate::process::{Handler, HandlerError, HandlerFactory, LaneStart, Outcomes};
use crate::sink::Fifos;

/// Shared by the lanes' handlers and the admin interface.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    fifos: Fifos,
    lanes: Mutex<BTreeMap<Whose, Reasons>>,
}

/// The configured sink, if it is one's, and the number of the lane.
type Whose = (Option<Arc<str>>, u16);

/// Why a lane does not go on.
#[derive(Debug, Default)]
struct Reasons {
    processing: Option<String>,
    flushing: Option<String>,
}

impl Waiting {
    /// Nothing is waited for yet. The FIFOs are looked at although no lane has anything for them.
    pub(super) fn new(fifos: Fifos) -> Arc<Self> {
        Arc::new(Self { fifos, lanes: Mutex::default() })
    }

    /// Gives each reason once, however many lanes wait for it; those of sinks only that are `at_work`. Touches no file system, and
    /// so cannot hang with one.
    pub(super) fn reasons(&self, at_work: impl Fn(&str) -> bool) -> Vec<String> {
        let mut reasons: Vec<String> = self.fifos.unread();
        for ((sink, _), lane) in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if sink.as_deref().is_some_and(|name| !at_work(name)) {
                continue;
            }
            let told = |reason: &String| match sink {
                Some(name) => format!("sink {name}: {reason}"),
                None => reason.clone(),
            };
            reasons.extend([&lane.processing, &lane.flushing].into_iter().flatten().map(told));
        }
        reasons.sort();
        reasons.dedup();
        reasons
    }

    /// What the configured sink of this name waits for.
    pub(super) fn of_sink(&self, name: &str) -> Option<String> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, reasons) = lanes.iter().find(|((sink, _), _)| sink.as_deref() == Some(name))?;
        reasons.processing.clone().or_else(|| reasons.flushing.clone())
    }

    /// Makes the same handlers, which report here when they have to wait, under the name of the configured sink.
    pub(super) fn watch(self: Arc<Self>, sink: Option<String>, mut factory: HandlerFactory) -> HandlerFactory {
        let sink: Option<Arc<str>> = sink.map(Into::into);
        Box::new(move |start: &LaneStart<'_>| {
            let whose = (sink.clone(), start.lane.0);
            let made = factory(start);
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            // What the handler before it waited for is over.
            lanes.remove(&whose);
            if let Err(error) = &made {
                lanes.entry(whose.clone()).or_default().processing = Some(error.to_string());
            }
            drop(lanes);
            let watched = Watched { handler: made?, whose, waiting: Arc::clone(&self), told: false };
            Ok(Box::new(watched))
        })
    }
}

/// A handler that reports when it has to wait.
struct Watched {
    handler: Box<dyn Handler>,
    whose: Whose,
    waiting: Arc<Waiting>,
    /// It has waited once; until then the lock is not touched.
    told: bool,
}

impl Watched {
    fn tell(&mut self, set: impl FnOnce(&mut Reasons), waits: bool) {
        if waits || self.told {
            self.told = true;
            let mut lanes = self.waiting.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            set(lanes.entry(self.whose.clone()).or_default());
        }
    }
}

impl Handler for Watched {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        self.handler.process(records, outcomes);
        let reason = outcomes.unavailable_reason().map(str::to_owned);
        let waits = reason.is_some();
        self.tell(|reasons| reasons.processing = reason, waits);
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        let flushed = self.handler.flush();
        let reason = flushed.as_ref().err().map(ToString::to_string);
        let waits = reason.is_some();
        self.tell(|reasons| reasons.flushing = reason, waits);
        flushed
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        self.handler.settle()
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.handler.reopen()
    }

    fn retry(&mut self, record: &Record<'_>, outcomes: &mut Outcomes) {
        self.handler.retry(record, outcomes);
    }

    fn lost(&mut self, from: Offset, to: Offset) {
        self.handler.lost(from, to);
    }

    fn moved(&mut self) -> Vec<u8> {
        self.handler.moved()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lane, LaneMark, SinkId};

    /// Fails as it is told to.
    struct Scripted(Arc<Mutex<Option<&'static str>>>);

    impl Handler for Scripted {
        fn process(&mut self, _: &[Record<'_>], outcomes: &mut Outcomes) {
            match *self.0.lock().unwrap() {
                Some(reason) => outcomes.unavailable(reason),
                None => outcomes.done_all(),
            }
        }

        fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
            self.0.lock().unwrap().map_or(Ok(Vec::new()), |reason| Err(HandlerError::new(reason)))
        }
    }

    #[test]
    fn what_several_lanes_wait_for_is_told_once_and_no_longer_than_they_wait() {
        let waiting = Waiting::new(Fifos::default());
        let script = Arc::new(Mutex::new(None));
        let mut handlers = [0, 1].map(|lane| Watched {
            handler: Box::new(Scripted(Arc::clone(&script))),
            whose: (None, lane),
            waiting: Arc::clone(&waiting),
            told: false,
        });
        let mut outcomes = Outcomes::new(0);
        for handler in &mut handlers {
            handler.process(&[], &mut outcomes);
            handler.flush().unwrap();
        }
        assert_eq!(waiting.reasons(|_| true), Vec::<String>::new());
        *script.lock().unwrap() = Some("the sink is away");
        for handler in &mut handlers {
            handler.process(&[], &mut outcomes);
            handler.flush().unwrap_err();
        }
        assert_eq!(waiting.reasons(|_| true), ["the sink is away"]);
        *script.lock().unwrap() = None;
        let mut outcomes = Outcomes::new(0);
        let [first, second] = &mut handlers;
        first.process(&[], &mut outcomes);
        first.flush().unwrap();
        second.flush().unwrap();
        assert_eq!(waiting.reasons(|_| true), ["the sink is away"], "the second lane could not process yet");
        second.process(&[], &mut outcomes);
        assert_eq!(waiting.reasons(|_| true), Vec::<String>::new());
    }

    #[test]
    fn what_a_handler_waited_for_is_over_when_another_takes_its_place_or_its_sink_is_gone() {
        let waiting = Waiting::new(Fifos::default());
        let script = Arc::new(Mutex::new(Some("the disk is full")));
        let scripted = Arc::clone(&script);
        let made = Arc::new(Mutex::new(true));
        let may_make = Arc::clone(&made);
        let make: HandlerFactory = Box::new(move |_| match *may_make.lock().unwrap() {
            true => Ok(Box::new(Scripted(Arc::clone(&scripted)))),
            false => Err(HandlerError::new("no directory")),
        });
        let mut watched = Arc::clone(&waiting).watch(Some("a".to_owned()), make);
        let mark = LaneMark::default();
        let start = LaneStart {
            journal: None,
            instance: None,
            sink: SinkId(1),
            lane: Lane(0),
            marks: std::slice::from_ref(&mark),
            durable_end: Offset(0),
            left: &[],
        };
        let mut handler = watched(&start).unwrap();
        handler.flush().unwrap_err();
        assert_eq!(waiting.reasons(|_| true), ["sink a: the disk is full"]);
        assert_eq!((waiting.of_sink("a").as_deref(), waiting.of_sink("b")), (Some("the disk is full"), None));
        assert_eq!(waiting.reasons(|name| name != "a"), Vec::<String>::new());
        *made.lock().unwrap() = false;
        assert!(watched(&start).is_err());
        assert_eq!(waiting.reasons(|_| true), ["sink a: no directory"]);
        *made.lock().unwrap() = true;
        let _handler = watched(&start).unwrap();
        assert_eq!(waiting.reasons(|_| true), Vec::<String>::new());
    }
}
