//! Several handlers as one: a record is done when each of them has it.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::{Offset, Record};
use crate::process::handler::{Answer, Handler, HandlerError, Outcomes};

/// Handlers that a [`Composite`] holds, at most.
pub const COMPOSITE_MAX: usize = 32;

/// Presents every record to several handlers.
///
/// - A record is done when each of them has answered *done*; a record that comes again goes only to those that lack it.
/// - A record that one of them gives up still goes to the others, and becomes a dead letter when all have answered.
/// - Who has a record is remembered until the next `flush`, before which each record that was presented is finished. So a dead
///   letter that is retried goes to all of them.
/// - The state that the journal keeps holds each one's under its name, so handlers can be added and removed between runs.
pub struct Composite {
    children: Vec<Child>,
    /// Records that some have and others lack, from calls since the last flush.
    partly: BTreeMap<Key, Partly>,
    /// The records of the call that is under way. Left behind when a handler panics: the next call picks it up.
    current: Vec<(Key, Partly)>,
    answers: Outcomes,
}

struct Child {
    name: String,
    handler: Box<dyn Handler>,
}

type Key = (Offset, u16);

/// Tells which handlers have a record already.
#[derive(Clone, Debug, Default)]
struct Partly {
    /// Bit n is set when the nth handler has answered for good.
    answered: u32,
    gave_up: Option<String>,
}

impl Composite {
    /// Makes one of handlers with names that are unique and stay the same from run to run.
    ///
    /// # Errors
    /// There is none at all, there are more than [`COMPOSITE_MAX`], or a name stands twice.
    pub fn new(children: Vec<(String, Box<dyn Handler>)>) -> Result<Self, HandlerError> {
        if children.is_empty() || children.len() > COMPOSITE_MAX {
            return Err(HandlerError::new(format_args!("{} sinks, and 1 to {COMPOSITE_MAX} can be", children.len())));
        }
        if let Some(n) = (1..children.len()).find(|&n| children[..n].iter().any(|(name, _)| *name == children[n].0)) {
            return Err(HandlerError::new(format_args!("sink {} is given twice", children[n].0)));
        }
        let children = children.into_iter().map(|(name, handler)| Child { name, handler }).collect();
        Ok(Self { children, partly: BTreeMap::new(), current: Vec::new(), answers: Outcomes::default() })
    }

    /// What the handler `name` of an earlier composite had returned from its `flush`, out of the composite's own state.
    pub fn state_of(name: &str, composite_state: &[u8]) -> Option<Vec<u8>> {
        let states: BTreeMap<String, String> = serde_json::from_slice(composite_state).ok()?;
        STANDARD.decode(states.get(name)?).ok()
    }

    /// Records of which it remembers who has them.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.partly.len()
    }

    /// Starts a call: what is known of each record, from calls that left it open or were cut short by a panic.
    fn begin(&mut self, records: &[Record<'_>]) {
        let key = |record: &Record<'_>| (record.offset, record.index);
        let open = |partly: &Partly| partly.answered != 0;
        self.partly.extend(self.current.drain(..).filter(|(_, partly)| open(partly)));
        let known = &mut self.partly;
        self.current.extend(records.iter().map(key).map(|key| (key, known.remove(&key).unwrap_or_default())));
    }

    /// Presents to the nth handler what it lacks.
    fn present(&mut self, nth: usize, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let bit = 1 << nth;
        let lacking: Vec<usize> = (0..records.len()).filter(|&i| self.current[i].1.answered & bit == 0).collect();
        if lacking.is_empty() {
            return;
        }
        let child = &mut self.children[nth];
        self.answers.reset(lacking.len());
        if lacking.len() == records.len() {
            child.handler.process(records, &mut self.answers);
        } else {
            let some: Vec<_> = lacking.iter().map(|&i| records[i]).collect();
            child.handler.process(&some, &mut self.answers);
        }
        for (answer, &i) in (0..).map(|n| self.answers.answer(n)).zip(&lacking) {
            let partly = &mut self.current[i].1;
            match answer {
                Answer::Unanswered => {}
                Answer::Done => partly.answered |= bit,
                Answer::Retry(reason) => outcomes.retry(i, format!("{}: {reason}", child.name)),
                Answer::GiveUp(reason) => {
                    partly.answered |= bit;
                    partly.gave_up.get_or_insert_with(|| format!("{}: {reason}", child.name));
                }
            }
        }
        if let Some(error) = self.answers.unavailable_error() {
            outcomes.unavailable_for(error.of(&child.name));
        }
    }
}

impl Handler for Composite {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        if let [only] = &mut self.children[..] {
            return only.handler.process(records, outcomes);
        }
        self.begin(records);
        for nth in 0..self.children.len() {
            self.present(nth, records, outcomes);
        }
        let all = u32::MAX >> (u32::BITS as usize - self.children.len());
        for (i, (key, partly)) in self.current.drain(..).enumerate() {
            match (partly.answered == all, partly.gave_up) {
                (true, None) => outcomes.done(i),
                (true, Some(reason)) => outcomes.give_up(i, reason),
                (false, gave_up) if partly.answered != 0 => {
                    self.partly.insert(key, Partly { answered: partly.answered, gave_up });
                }
                (false, _) => {}
            }
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        // Each record that was presented is finished. By the order of calls it could not be told: a dead letter that is retried
        // is an earlier record, or a later one than those that are open.
        self.partly.clear();
        self.current.clear();
        let mut states = BTreeMap::new();
        self.for_each(|name, handler| {
            states.insert(name.to_owned(), STANDARD.encode(handler.flush()?));
            Ok(())
        })?;
        serde_json::to_vec(&states).map_err(HandlerError::new)
    }

    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.for_each(|_, handler| handler.reopen())
    }
}

impl Composite {
    /// Does it with every handler, also when one fails: that one must not keep the others from it. Returns the first error.
    fn for_each(
        &mut self,
        mut action: impl FnMut(&str, &mut dyn Handler) -> Result<(), HandlerError>,
    ) -> Result<(), HandlerError> {
        let mut result = Ok(());
        for Child { name, handler } in &mut self.children {
            let error = action(name, &mut **handler).err().map(|error| error.of(name));
            result = match (result, error) {
                // While one of them moves, the delay does not grow.
                (Err(first), Some(error)) if error.is_soon() => Err(HandlerError::soon(first)),
                (result, error) => result.and(error.map_or(Ok(()), Err)),
            };
        }
        result
    }
}

impl fmt::Debug for Composite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.children.iter().map(|child| &child.name)).finish()
    }
}
