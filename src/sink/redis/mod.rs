//! `redis`: entries of a stream of Redis or Valkey, each exactly once as long as the key lives.
//!
//! Three keys, on one node of a cluster since they share a hash tag:
//! - `KEY:{JOURNAL}`, the stream. A record's id is its name in the journal, and Redis refuses an id that is not higher than all
//!   before it, also after XDEL and XTRIM: what is there already cannot be written again.
//! - `KEY:{JOURNAL}:writer` names the sink that writes, and the start of the server ([`Claim`]). A transaction depends on it, and each
//!   connection sets it anew. Where it names another sink of the journal nothing is written: that one's ids say nothing of ours.
//! - `KEY:{JOURNAL}:retried`, dead letters that were retried after later records had been written.
//!
//! A batch is one MULTI … EXEC in one round trip: Redis takes all of it or nothing, so no record is ever missing below one that
//! is there, and EXEC fails when somebody else has claimed the stream. Behind it the next WATCH and GET travel along.
//!
//! When an answer is missing, the next connection reads how far the stream has come, which tells what arrived. That number is also
//! compared with all that is known here ([`Known`]): a key that was deleted, a server that came back without its latest data, or
//! a stranger's entry stops the sink with a reason; nothing is doubled or left out in silence.

mod connection;
mod entry;
mod trouble;

use std::time::Duration;

use ::redis::{Cmd, RedisError, ServerError, Value, cmd};

use connection::{Connection, Found};
use entry::{Commands, Place};

use crate::limits;
use crate::model::{JournalId, Record, RedisTarget, SinkConfig};
use crate::process::handler::{Handler, HandlerError, LaneStart, Outcomes};
use crate::sink::claim::Claim;
use crate::sink::position::{EntryId, Known, Refusal};

/// Writes the records of one journal to its stream.
pub(super) struct RedisSink {
    target: RedisTarget,
    timeout: Duration,
    stream: String,
    writer: String,
    retried: String,
    claim: Claim,
    /// The claim that the last one of ours has replaced.
    replaced: Option<String>,
    /// Open, claimed, and watching the claim.
    connection: Option<Connection>,
    /// What the stream said when that was opened, moved on by what was written since.
    found: Option<Found>,
    known: Known,
    /// Somebody wrote between our entries: nobody can tell any more what arrived.
    spoilt: Option<String>,
    commands: Commands,
    packed: Vec<u8>,
}

impl RedisSink {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The journal has no name.
    pub(super) fn new(config: &SinkConfig, target: &RedisTarget, start: &LaneStart<'_>) -> Result<Self, HandlerError> {
        let journal: JournalId =
            start.journal.ok_or_else(|| HandlerError::new("the journal has no id to name a stream by"))?;
        let stream = format!("{}:{{{journal}}}", target.key);
        Ok(Self {
            target: target.clone(),
            timeout: config.timeout,
            writer: format!("{stream}:writer"),
            retried: format!("{stream}:retried"),
            claim: Claim::of(start.instance, start.sink),
            replaced: None,
            connection: None,
            found: None,
            known: Known::restore(&start.mark().sink_state, &stream, start.durable_end),
            spoilt: None,
            commands: Commands::default(),
            packed: Vec::new(),
            stream,
        })
    }

    /// Writes the records that are not there yet, and counts in `done` how many are.
    fn write(&mut self, records: &[Record<'_>], done: &mut usize) -> Result<(), HandlerError> {
        for some in records.chunks(limits::SINK_REDIS_RECORDS) {
            self.connect()?;
            let last = self.found.as_ref().map(|found| found.last);
            let there = some.partition_point(|record| Some(EntryId::of(record)) <= last);
            self.compare_last(&some[..there])?;
            if let Some(record) = some.get(..there).and_then(<[_]>::last) {
                self.known.has_written(EntryId::of(record));
            }
            *done += there;
            if let Some(record) = some[there..].last() {
                self.known.sends(EntryId::of(record));
                let place = if self.found.is_some() { Place::Own } else { Place::First };
                self.send(&some[there..], place)?;
                self.known.has_written(EntryId::of(record));
                self.found = Some(Found { last: EntryId::of(record), entry: None });
                self.replaced = None;
                *done += some.len() - there;
            }
        }
        Ok(())
    }

    /// The last entry of the stream must be the record of its name: on a copy of the journal other records have the same names.
    fn compare_last(&mut self, there: &[Record<'_>]) -> Result<(), HandlerError> {
        let Some((id, [client, epoch, seq])) = self.found.as_ref().and_then(|found| found.entry.as_ref()) else {
            return Ok(());
        };
        let same = |record: &Record<'_>| {
            *client == record.session.client.to_string()
                && *epoch == record.session.epoch.value().to_string()
                && *seq == record.seq.0.to_string()
        };
        match there.iter().find(|record| EntryId::of(record) == *id) {
            Some(record) if !same(record) => {
                let reason = format!(
                    "entry {id} of {} is another record than this journal's: a server on a copy of the data directory has \
                     written to it; configure another key",
                    self.stream
                );
                self.give_back();
                Err(self.fail(reason))
            }
            _ => Ok(()),
        }
    }

    /// Lets the server go on that had the claim before: this one has written nothing under its own. What fails is nobody's loss: a later
    /// start of that server replaces the claim.
    fn give_back(&mut self) {
        if let (Some(connection), Some(replaced)) = (&mut self.connection, self.replaced.take()) {
            let mut set = cmd("SET");
            set.arg(&self.writer).arg(replaced);
            // Watched: it comes to nothing where somebody else has claimed the stream since.
            drop(connection.ask_all([&cmd("MULTI"), &set, &cmd("EXEC")]));
        }
    }

    /// Writes the records in one transaction: all of them or, with an error, none, unless the connection broke.
    fn send(&mut self, records: &[Record<'_>], place: Place) -> Result<(), HandlerError> {
        let key = match place {
            Place::First | Place::Own => &self.stream,
            Place::Retried => &self.retried,
        };
        self.packed.clear();
        cmd("MULTI").write_packed_command(&mut self.packed);
        for some in records.chunks(limits::SINK_REDIS_SENT_AT_ONCE) {
            for record in some {
                self.commands.add(record, (key, self.target.entries_max, place), &mut self.packed);
            }
            // Redis queues them while the next are made. Until EXEC it carries out none.
            let Some(connection) = &mut self.connection else {
                return Err(HandlerError::new("there is no connection"));
            };
            if let Err(error) = connection.send(&self.packed) {
                return Err(self.fail_by(&error));
            }
            self.packed.clear();
        }
        for command in [&cmd("EXEC"), &watch(&self.writer), &get(&self.writer)] {
            command.write_packed_command(&mut self.packed);
        }
        let Some(connection) = &mut self.connection else { return Err(HandlerError::new("there is no connection")) };
        let answers = match connection.ask(&self.packed, records.len() + 4) {
            Ok(answers) => answers,
            Err(error) => return Err(self.fail_by(&error)),
        };
        let (queued, [exec, watch, get]) = match answers.split_last_chunk::<3>() {
            Some((queued, last)) => (queued, last),
            None => return Err(self.fail_by(&trouble::strange("MULTI"))),
        };
        // What was refused before EXEC made the whole of it void, and is the reason that says most.
        let refused = queued.iter().chain([exec, watch]).find_map(server_error);
        if let Some(error) = refused {
            return Err(self.fail(trouble::of_server(error)));
        }
        match exec {
            Value::Nil => return Err(self.fail_softly("somebody has changed who writes to the stream".to_owned())),
            Value::Array(taken) if taken.len() == records.len() => {
                if let Some(error) = taken.iter().find_map(server_error) {
                    return Err(self.refused(error));
                }
                if taken.contains(&Value::Nil) {
                    return Err(self.gone());
                }
            }
            _ => return Err(self.fail_by(&trouble::strange("EXEC"))),
        }
        if text(get).and_then(Claim::parse) != Some(self.claim) {
            // What was sent is written; who may go on is found out by the next call.
            self.connection = None;
        }
        Ok(())
    }

    /// The stream was there and is not any more, so no entry was taken. The next connection says what to do.
    fn gone(&mut self) -> HandlerError {
        if let Some(found) = self.found.as_ref().filter(|found| found.last > EntryId::BEFORE_ALL) {
            self.known.has_written(found.last);
        }
        self.fail_softly(format!("{} is not there any more: it was deleted, or evicted", self.stream))
    }

    /// A transaction was carried out, and an entry of it was refused.
    fn refused(&mut self, error: &ServerError) -> HandlerError {
        if trouble::is_unknown_word(error) {
            let said = trouble::of_server(error);
            return self
                .fail(format!("it does not know NOMKSTREAM ({said}): Redis 6.2 or later, or Valkey, is needed"));
        }
        if !trouble::is_too_low_an_id(error) {
            // The same for each of them: nothing was written.
            return self.fail(trouble::of_server(error));
        }
        let reason = format!(
            "somebody else has added entries to {} while records were written, and some of these were refused: see which are \
             missing, and configure another key",
            self.stream
        );
        self.spoilt = Some(reason.clone());
        self.fail(reason)
    }

    /// Sees to a connection through which this start may write, and to what the stream holds.
    fn connect(&mut self) -> Result<(), HandlerError> {
        if let Some(reason) = &self.spoilt {
            return Err(HandlerError::new(reason));
        }
        if self.connection.as_ref().is_some_and(Connection::is_old) {
            self.connection = None;
        }
        if self.connection.is_some() {
            return Ok(());
        }
        let mut connection = Connection::open(&self.target, self.timeout).map_err(|e| self.named(&e.to_string()))?;
        let found = match self.look(&mut connection) {
            Ok((found, replaced)) => {
                self.replaced = replaced.or(self.replaced.take());
                found
            }
            Err(Trouble::Said(error)) => return Err(self.fail_by(&error)),
            Err(Trouble::Race) => {
                return Err(self.fail_softly("another start of the server claims the stream".to_owned()));
            }
            Err(Trouble::Refused(reason)) => return Err(self.fail(reason)),
        };
        let last = found.as_ref().map(|found| found.last);
        if let Err(refusal) = self.known.compare(last) {
            let reason = self.refusal(refusal, last);
            return Err(self.fail(reason));
        }
        self.found = found;
        self.connection = Some(connection);
        Ok(())
    }

    /// Claims the stream, and only then reads how far it has come: after the claim nobody else moves it.
    /// Returns that, and the claim which it has replaced.
    fn look(&self, connection: &mut Connection) -> Result<(Option<Found>, Option<String>), Trouble> {
        let [watched, current] = connection.ask_all([&watch(&self.writer), &get(&self.writer)])?;
        watched.extract_error()?;
        let current = current.extract_error()?;
        let ours = self.claim.to_string();
        match text(&current) {
            Some(other) if *other != ours => self.may_replace(other)?,
            None if self.known.has_never_written() => self.must_be_new(connection)?,
            _ => {}
        }
        let before = text(&current).map(str::to_owned);
        // Also where it is ours already: what is still on its way through an earlier connection of ours comes to nothing by it.
        let mut set = cmd("SET");
        set.arg(&self.writer).arg(&ours);
        let [_, queued, exec] = connection.ask_all([&cmd("MULTI"), &set, &cmd("EXEC")])?;
        queued.extract_error()?;
        if exec.extract_error()? == Value::Nil {
            return Err(Trouble::Race);
        }
        let [watched, current, info] =
            connection.ask_all([&watch(&self.writer), &get(&self.writer), &info(&self.stream)])?;
        watched.extract_error()?;
        if text(&current.extract_error()?) != Some(&ours) {
            return Err(Trouble::Race);
        }
        let replaced = before.filter(|before| *before != ours);
        Ok((connection::found(info)?, replaced))
    }

    /// Where nobody is named, a sink that has never written writes to no stream but a new one.
    fn must_be_new(&self, connection: &mut Connection) -> Result<(), Trouble> {
        let [info] = connection.ask_all([&info(&self.stream)])?;
        match connection::found(info)?.filter(|found| found.last > EntryId::BEFORE_ALL) {
            None => Ok(()),
            Some(_) => Err(Trouble::Refused(format!(
                "{0} holds entries, this sink knows of none that it has written, and {1} does not say who has: give this sink a key                  of its own, or delete {0}; if the entries are this sink's, say so by redis-cli SET '{1}' {2}",
                self.stream,
                self.writer,
                self.claim.earliest()
            ))),
        }
    }

    fn may_replace(&self, other: &str) -> Result<(), Trouble> {
        match Claim::parse(other) {
            Some(other) if !self.claim.is_of_the_sink_of(other) => Err(Trouble::Refused(format!(
                "{0} belongs to another sink of this journal, or to one that was removed, and what that one has written cannot be told                  from what this one has: give this sink a key of its own, or, if the other one is gone, delete {0} and {1}",
                self.stream, self.writer
            ))),
            Some(other) if self.claim.replaces(other) => Ok(()),
            Some(other) => Err(Trouble::Refused(format!(
                "{} is claimed by start {other} of this journal, and this is start {}: another server runs on its data, or on a \
                 copy of them; stop it, and restart this one, or configure another key",
                self.stream, self.claim
            ))),
            None => Err(Trouble::Refused(format!(
                "the key {} holds no name of a start: configure another key",
                self.writer
            ))),
        }
    }

    fn refusal(&self, refusal: Refusal, last: Option<EntryId>) -> String {
        let stream = &self.stream;
        let found = last.map_or("it is not there".to_owned(), |last| format!("its last id is {last}"));
        match refusal {
            Refusal::Lost { written, restart_helps: true } => format!(
                "{stream} has lost entries: {written} was written, and {found}; restart this server, which writes them again"
            ),
            Refusal::Lost { written, restart_helps: false } => format!(
                "{stream} has lost entries: {written} was written, and {found}; restore it, or accept the loss by redis-cli XADD \
                 '{stream}' {written} lost 1, or configure another key"
            ),
            Refusal::Ahead => format!(
                "{stream} holds more than this journal has written: {found}; somebody else writes to it, or the journal is an older \
                 copy; configure another key"
            ),
        }
    }

    /// Reads whether all that was confirmed is still there.
    fn verify(&mut self) -> Result<(), HandlerError> {
        self.connect()?;
        let info = info(&self.stream);
        let Some(connection) = &mut self.connection else { return Err(HandlerError::new("there is no connection")) };
        let answer = connection.ask_all([&info]).and_then(|[info]| connection::found(info));
        let last = match answer {
            Ok(found) => found.map(|found| found.last),
            Err(error) => return Err(self.fail_by(&error)),
        };
        self.known.compare(last).map_err(|refusal| {
            let reason = self.refusal(refusal, last);
            self.fail(reason)
        })
    }

    fn named(&self, reason: &str) -> HandlerError {
        HandlerError::new(format_args!("writing to {}: {reason}", self.target.url))
    }

    /// The connection is given up: the next one finds out anew what is there.
    fn fail(&mut self, reason: String) -> HandlerError {
        self.connection = None;
        self.named(&reason)
    }

    fn fail_by(&mut self, error: &RedisError) -> HandlerError {
        self.fail(trouble::of_connection(error))
    }

    fn fail_softly(&mut self, reason: String) -> HandlerError {
        self.fail(reason).soon()
    }
}

impl Handler for RedisSink {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let mut done = 0;
        match self.write(records, &mut done) {
            Ok(()) => outcomes.done_all(),
            Err(error) => {
                (0..done).for_each(|i| outcomes.done(i));
                outcomes.unavailable_for(error);
            }
        }
    }

    /// A server that came back without what it had confirmed is noticed here: then the watermark stays, and a restart writes the
    /// records again.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        if self.known.is_dirty() {
            self.verify()?;
        }
        Ok(self.known.store(&self.stream))
    }

    /// What was written counts as flushed only when the journal keeps it.
    fn settle(&mut self) -> Result<bool, HandlerError> {
        if self.known.is_dirty() {
            self.verify()?;
        }
        Ok(true)
    }

    /// A record that lies below what was written since can have no place in the stream any more: it goes to one beside it, at least
    /// once.
    fn retry(&mut self, record: &Record<'_>, outcomes: &mut Outcomes) {
        if let Err(error) = self.connect() {
            return outcomes.unavailable_for(error);
        }
        if Some(EntryId::of(record)) > self.found.as_ref().map(|found| found.last) {
            return self.process(std::slice::from_ref(record), outcomes);
        }
        match self.send(std::slice::from_ref(record), Place::Retried) {
            Ok(()) => outcomes.done(0),
            Err(error) => outcomes.unavailable_for(error),
        }
    }
}

/// Why the stream could not be claimed.
enum Trouble {
    /// The connection or the server.
    Said(RedisError),
    /// Somebody changed the claim at the same time.
    Race,
    /// The claim is refused, for this reason.
    Refused(String),
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        Self::Said(error)
    }
}

fn watch(key: &str) -> Cmd {
    let mut command = cmd("WATCH");
    command.arg(key);
    command
}

fn info(stream: &str) -> Cmd {
    let mut command = cmd("XINFO");
    command.arg("STREAM").arg(stream);
    command
}

fn get(key: &str) -> Cmd {
    let mut command = cmd("GET");
    command.arg(key);
    command
}

fn server_error(value: &Value) -> Option<&ServerError> {
    match value {
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
