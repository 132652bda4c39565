//! `exec`: records go as lines to a child process, which answers each with a line. So any language is a handler.
//!
//! A record is outstanding while the child has it and has not answered. None ever is between two calls: a call ends when each is
//! answered, or with the child. So whatever a child says unasked can be told from an answer, and nothing is at two children.
//!
//! A child that ends, falls silent, or writes what is no answer has failed as a whole: it is replaced, the lane waits longer each
//! time, and what it left unanswered comes again. One record alone may be the cause. So after a failure records are given one at
//! a time, in order. When a child fails at one of them, the record before it, which was done, is given to another child: if that
//! is done again, the program works, the failure is the record's own, and it becomes a dead letter after the usual attempts. Else
//! the sink is away, and no record is blamed. So no record passes one that is open, and an outage makes no dead letters.

mod answer;
mod child;
mod exchange;
mod last_done;
mod last_words;

use std::time::Duration;

use child::Child;
use exchange::{Exchange, Failure};
use last_done::LastDone;

use crate::limits;
use crate::model::{ExecTarget, Record, SinkConfig};
use crate::process::handler::{Handler, HandlerError, LaneStart, Outcome, Outcomes};
use crate::record_json::Formatter;

/// What names a record within a journal.
type Name = (u64, u16);

/// A child has failed, and is not used any more.
struct Failed {
    reason: String,
    /// It had answered all that earlier calls gave it, and nothing of this one's.
    in_between: bool,
}

/// The handler of one `exec` sink.
pub(super) struct Exec {
    sink: String,
    command: String,
    environment: Vec<(&'static str, String)>,
    /// Variables of the server's environment that it does not get.
    withheld: Vec<String>,
    timeout: Duration,
    child: Option<Child>,
    formatter: Formatter,
    /// Records are given one at a time.
    careful: bool,
    /// What was done last, with nothing open before it.
    last_done: Option<LastDone>,
}

impl Exec {
    /// No child is started before there is a record for it.
    pub(super) fn new(config: &SinkConfig, target: &ExecTarget, start: &LaneStart<'_>) -> Self {
        let mut environment = vec![("DURAGRAM_SINK_NAME", config.name.clone())];
        if let Some(journal) = start.journal {
            environment.push(("DURAGRAM_JOURNAL", journal.to_string()));
        }
        if let Some(instance) = start.instance {
            environment.push(("DURAGRAM_SINK_INSTANCE", instance.number.to_string()));
        }
        Self {
            sink: config.name.clone(),
            command: target.command.clone(),
            environment,
            withheld: target.withheld.clone(),
            timeout: config.timeout,
            child: None,
            formatter: Formatter::default(),
            careful: false,
            last_done: LastDone::from_state(&start.mark().sink_state),
        }
    }

    /// Gives these records to the child, and takes its answers. A child may end whenever it has answered: when it does so just
    /// now, another gets the records.
    fn give(&mut self, records: &[Record<'_>], indexes: &[usize], outcomes: &mut Outcomes) -> Result<(), String> {
        match self.give_once(records, indexes, outcomes) {
            Err(Failed { in_between: true, .. }) => self.give_once(records, indexes, outcomes),
            given => given,
        }
        .map_err(|failed| failed.reason)
    }

    /// Gives these records to the child that is there, or else to one that is started.
    fn give_once(&mut self, records: &[Record<'_>], indexes: &[usize], outcomes: &mut Outcomes) -> Result<(), Failed> {
        if let Some(child) = self.child.as_mut().filter(|child| child.has_ended()) {
            let ending = child.stop(Duration::ZERO);
            tracing::info!(sink = self.sink, %ending, "the sink's child has ended; another is started");
            self.child = None;
        }
        let child = match &mut self.child {
            Some(child) => child,
            none => {
                let started = Child::start(&self.command, &self.sink, &self.environment, &self.withheld);
                none.insert(started.map_err(|error| Failed {
                    reason: format!("the sink's child cannot be started: {error}"),
                    in_between: false,
                })?)
            }
        };
        let mut exchange = Exchange::new(records, indexes, &mut self.formatter, outcomes);
        let failure = match exchange.run(child, self.timeout) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let has_answers = exchange.has_answers();
        let (patience, has_left) = match failure {
            // It may be about to end: how it ends tells more than that it was killed.
            Failure::Ended => (limits::EXEC_LAST_MOMENT, true),
            Failure::Silent | Failure::Babble(_) | Failure::Io(_) => (Duration::ZERO, false),
        };
        let in_between = has_left && child.has_answered && !has_answers;
        let ending = child.stop(patience);
        self.child = None;
        let reason = match failure {
            Failure::Ended if ending.by_itself => format!("the sink's child {ending}"),
            Failure::Ended => format!("the sink's child has closed its standard input or output, and {ending}"),
            Failure::Silent => format!("the sink's child gave no answer for {:?}, and {ending}", self.timeout),
            Failure::Babble(what) => format!("the sink's child wrote to its standard output {what}, and {ending}"),
            Failure::Io(error) => format!("the sink's child cannot be talked to: {error}; it {ending}"),
        };
        Err(Failed { reason, in_between })
    }

    /// Gives the records one at a time, in order.
    fn give_carefully(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) -> Result<(), String> {
        let mut works = false;
        for i in 0..records.len() {
            let Err(reason) = self.give(records, &[i], outcomes) else {
                works = true;
                continue;
            };
            let (offset, index) = name(&records[i]);
            let reason = format!("{reason}; it had record {offset}-{index} alone");
            if *outcomes.outcome(i) != Outcome::Unanswered {
                return Err(reason);
            }
            self.remember(records, outcomes);
            if !works && !self.works() {
                return Err(reason);
            }
            // Those after it wait for it.
            outcomes.retry(i, reason);
            return Ok(());
        }
        self.careful = false;
        Ok(())
    }

    /// Whether the program answers at all: it is given once more what it has done last. When nothing is known
    /// to be done, nobody can tell.
    fn works(&mut self) -> bool {
        let Some(last) = self.last_done.take() else { return false };
        let answered = self.give(&[last.record()], &[0], &mut Outcomes::new(1)).is_ok();
        self.last_done = Some(last);
        answered
    }

    /// Keeps the last record that is done and has nothing open before it.
    fn remember(&mut self, records: &[Record<'_>], outcomes: &Outcomes) {
        let settled = |i: &usize| matches!(outcomes.outcome(*i), Outcome::Done | Outcome::GiveUp(_));
        let settled = (0..records.len()).take_while(settled);
        if let Some(i) = settled.filter(|&i| *outcomes.outcome(i) == Outcome::Done).last() {
            self.last_done = Some(LastDone::new(&records[i]));
        }
    }
}

fn name(record: &Record<'_>) -> Name {
    (record.offset.0, record.index)
}

impl Handler for Exec {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let given = if self.careful {
            self.give_carefully(records, outcomes)
        } else {
            let all: Vec<usize> = (0..records.len()).collect();
            let given = self.give(records, &all, outcomes);
            self.careful = given.is_err();
            given
        };
        self.remember(records, outcomes);
        if let Err(reason) = given {
            outcomes.unavailable(reason);
        }
    }

    /// What the child has answered *done* it has made durable: that is what the answer says. The journal keeps what tells a
    /// record that no child survives from a program that does not work.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(self.last_done.as_ref().map(LastDone::to_state).unwrap_or_default())
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        Ok(true)
    }

    /// The child is asked to end, and the next record starts another: so a changed program is taken.
    fn reopen(&mut self) -> Result<(), HandlerError> {
        if let Some(mut child) = self.child.take() {
            let ending = child.stop(limits::EXEC_END_WAIT);
            tracing::info!(sink = self.sink, %ending, "the sink's child was asked to end, and is started anew with the next record");
        }
        Ok(())
    }
}
