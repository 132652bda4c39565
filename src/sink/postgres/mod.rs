//! `postgres`: each record is a row of a table, exactly once.
//!
//! Beside the rows there is a position: one row for each (journal, sink, shard) in `duragram_positions`, moved by the very
//! statement that inserts rows. So rows and position are there together or not at all, and who reads the position knows which
//! records are there, whatever became of the answer. The order is always the same: claim, read the position, write.
//!
//! - A **claim** waits until no statement of an earlier connection is under way, and raises the position's epoch. A statement
//!   moves the position of its own epoch only: what an earlier connection still sends writes nothing.
//! - The position says which **start** of which directory has claimed it. A start that this directory does not know is that of
//!   a copy, or the directory is an older one put back: then nothing is written ([`judge`](judge::judge)).
//! - A record that the table refuses is found by halving the batch, and given up; what is before it is written, what is after
//!   it waits until the lane has dealt with it.
//!
//! It may not know the journal, nor who configures it.

mod connect;
mod errors;
mod judge;
mod position;
mod rows;
mod session;
mod setup;
mod state;
mod table;

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use self::connect::Server;
use self::errors::Trouble;
use self::position::Position;
use self::rows::{Rows, unfit};
use self::session::{Session, Write};
use self::setup::Known;
use self::state::State;
use self::table::Names;
use crate::limits;
use crate::model::{Content, JournalId, Lane, Offset, PostgresPayload, PostgresTarget, Record, SinkId};
use crate::process::handler::{Handler, HandlerError, LaneStart, Outcomes};

/// Whose position it is, and how the statements write it.
#[derive(Clone, Copy, Debug)]
struct Owner {
    journal: JournalId,
    sink: SinkId,
    lane: Lane,
}

/// The handler of one sink.
pub(super) struct Postgres {
    /// Carries the connection; only while a call is under way. `None` while it is dropped.
    runtime: Option<Runtime>,
    server: Server,
    names: Names,
    payload: PostgresPayload,
    owner: Owner,
    timeout: Duration,
    state: State,
    session: Option<Session>,
    /// No record from here on can be in the table.
    end: Offset,
    /// Records for one statement: fewer after one was refused or took too long, since the next may well be too.
    stride: usize,
}

impl Postgres {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The target's URL or table cannot be meant, the journal has no name, or what was kept of this sink is not its own.
    pub(super) fn new(target: &PostgresTarget, timeout: Duration, start: &LaneStart<'_>) -> Result<Self, HandlerError> {
        let Some(journal) = start.journal else {
            return Err(HandlerError::new("this journal has no name, by which PostgreSQL could know its records"));
        };
        // A name that takes long to resolve holds one thread, however often it is asked for.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
        let runtime = runtime.map_err(|error| HandlerError::new(format_args!("starting its connections: {error}")))?;
        Ok(Self {
            runtime: Some(runtime),
            server: Server::new(target, timeout)?,
            names: Names::parse(&target.table)?,
            payload: target.payload,
            owner: Owner { journal, sink: start.sink, lane: start.lane },
            timeout,
            state: State::resume(&start.mark().sink_state, start.instance)?,
            session: None,
            end: start.durable_end,
            stride: usize::MAX,
        })
    }

    /// Sees to it that there is a connection that may write from the position on.
    fn ready(&mut self) -> Result<(), Trouble> {
        let Some(runtime) = &self.runtime else { return Err(Trouble::Away("it is being stopped".into())) };
        if self.session.as_ref().is_some_and(|session| session.is_good(runtime, limits::SINK_CONNECTION_AGE)) {
            return Ok(());
        }
        self.disconnect();
        let opened = self.connect();
        if opened.is_err() {
            self.disconnect();
        }
        opened
    }

    fn connect(&mut self) -> Result<(), Trouble> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let link = self.server.connect(runtime)?;
        let known = Known { owner: self.owner, state: &self.state, end: self.end };
        let session = Session::open(runtime, link, &self.names, self.payload, &known, self.timeout)?;
        self.state.claimed(session.next());
        self.session = Some(session);
        Ok(())
    }

    /// Closes the connection, now: until the server notices, it holds the locks that the connection has left.
    fn disconnect(&mut self) {
        self.session = None;
        if let Some(runtime) = &self.runtime {
            runtime.block_on(tokio::task::yield_now());
        }
    }

    /// Writes the records and answers for them, up to the first that the table does not take.
    fn take(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) -> Result<(), Trouble> {
        if let Some(last) = records.last() {
            self.end = self.end.max(last.offset.plus(1));
        }
        self.ready()?;
        let next = self.state.next();
        let mut at = records.iter().take_while(|record| Position::of(record) < next).count();
        (0..at).for_each(|i| outcomes.done(i));
        let unfit_from = records.iter().position(|record| unfit(record, self.payload).is_some());
        let fit = unfit_from.unwrap_or(records.len()).max(at);
        // The records before here were refused together.
        let mut suspects: Option<usize> = None;
        while at < fit {
            let len = match suspects {
                Some(end) if end > at => ((end - at) / 2).max(1),
                _ => self.stride.min(fit - at),
            };
            let began = Instant::now();
            match self.write(Write::Batch, &records[at..at + len]) {
                Ok(()) => {
                    (at..at + len).for_each(|i| outcomes.done(i));
                    at += len;
                    if suspects.is_none_or(|end| at >= end) {
                        suspects = None;
                        // One of twice as many must have time.
                        if began.elapsed() < self.timeout / 4 {
                            self.stride = self.stride.saturating_mul(2);
                        }
                    }
                }
                Err(Trouble::Record(reason)) if len == 1 => {
                    self.stride = 1;
                    outcomes.give_up(at, reason);
                    return Ok(());
                }
                Err(Trouble::Record(_)) => suspects = Some(at + len),
                Err(Trouble::Slow(reason)) if len > 1 => {
                    self.stride = len / 2;
                    return Err(Trouble::Soon(reason));
                }
                Err(trouble) => return Err(trouble),
            }
        }
        if let Some(reason) = records.get(at).and_then(|record| unfit(record, self.payload)) {
            outcomes.give_up(at, reason);
        }
        Ok(())
    }

    /// Writes these records with one statement. After trouble that is no record's the connection is gone.
    fn write(&mut self, how: Write, records: &[Record<'_>]) -> Result<(), Trouble> {
        let (Some(runtime), Some(session)) = (&self.runtime, &mut self.session) else {
            return Err(Trouble::Soon("it is not connected".into()));
        };
        let rows = Rows::of(records, self.payload, session.takes_gaps());
        match session.write(runtime, how, records, &rows) {
            Ok(next) => {
                self.state.confirmed(next);
                records.iter().for_each(tell_gap);
                Ok(())
            }
            Err(trouble @ Trouble::Record(_)) => Err(trouble),
            Err(trouble) => {
                self.disconnect();
                Err(trouble)
            }
        }
    }

    fn retry_one(&mut self, record: &Record<'_>, outcomes: &mut Outcomes) -> Result<(), Trouble> {
        self.end = self.end.max(record.offset.plus(1));
        self.ready()?;
        if let Some(reason) = unfit(record, self.payload) {
            outcomes.give_up(0, reason);
            return Ok(());
        }
        match self.write(Write::Again, std::slice::from_ref(record)) {
            Ok(()) => outcomes.done(0),
            Err(Trouble::Record(reason)) => outcomes.give_up(0, reason),
            Err(trouble) => return Err(trouble),
        }
        Ok(())
    }
}

impl Handler for Postgres {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        if let Err(trouble) = self.take(records, outcomes) {
            outcomes.unavailable_for(trouble.into_error());
        }
    }

    /// What was answered *done* is committed already: nothing is left to do, and no connection needed.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        self.state.to_bytes()
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        Ok(true)
    }

    /// The next call connects anew, with the password and the certificates that are there then.
    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.disconnect();
        Ok(())
    }

    fn retry(&mut self, record: &Record<'_>, outcomes: &mut Outcomes) {
        if let Err(trouble) = self.retry_one(record, outcomes) {
            outcomes.unavailable_for(trouble.into_error());
        }
    }

    fn moved(&mut self) -> Vec<u8> {
        self.state.elsewhere().to_bytes().unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A name that is still being resolved must not hold up the end of the lane.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A row cannot say from which seq on messages are missing: the log does.
fn tell_gap(record: &Record<'_>) {
    if let Content::Gap { from, to } = record.content {
        tracing::warn!(
            offset = record.offset.0, session = %record.session, from = from.0, to = to.0,
            "messages of a client were lost before they came here; in PostgreSQL a row without payload stands for them, if the \
             column can be NULL"
        );
    }
}
