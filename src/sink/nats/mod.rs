//! `nats`: messages of a JetStream stream.
//!
//! On a stream of our own (`exclusive`) each record is there exactly once. The messages of a batch are a chain: the first is stored
//! only behind the message that is expected to be the last of the stream, and each other only directly behind the one before it,
//! by that one's id. So what is stored of a batch is its beginning, however late and through which connection a message comes, and
//! one answer, to the last of them, speaks for all. (Of a stream with replicas one that catches up does not learn which id was the
//! last, so there a batch is an atomic one: slower, and stored whole or not at all.) Each message names its record, the sink and the
//! start of the server that wrote it, so the last one tells how far the stream has come, and whose turn it is. That is compared with
//! all that is known here ([`Known`]); where it does not fit the sink stops with a reason.
//!
//! On a stream that others write to as well a record's name is the message's id, by which JetStream recognises a repetition for a
//! while (two minutes, if the stream says nothing else).

mod connection;
mod message;
mod publish;
mod stream;
mod trouble;

use std::time::Duration;

use async_nats::Subject;

use connection::Connection;
use message::{Message, Messages, Said, headers_len};
use publish::Behind;
use stream::Found;
use trouble::Refused;

use crate::limits;
use crate::model::{Content, JournalId, NatsTarget, Record, SinkConfig};
use crate::process::handler::{Handler, HandlerError, LaneStart, Outcomes};
use crate::sink::claim::Claim;
use crate::sink::position::{EntryId, Known, Refusal};

/// Bytes of headers that a chain adds to a message, at most.
const CHAIN_HEADERS: usize = 256;
/// Bytes of all headers of a message, at most: what is shorter by so much than the server allows need not be measured.
const HEADERS_MAX: usize = 1024;

/// Writes the records of one journal to a stream.
pub(super) struct NatsSink {
    target: NatsTarget,
    subject: Subject,
    timeout: Duration,
    journal: JournalId,
    claim: Claim,
    connection: Option<Connection>,
    /// What the stream said when that was opened, moved on by what was written since.
    found: Found,
    known: Known,
    messages: Messages,
    /// Records for one chain: fewer after one broke, since only its last message is answered, and the next one's answer is to tell
    /// why.
    stride: usize,
    batches: u64,
}

/// Why records could not be written.
enum Stop {
    /// The record at this index can never be written, for this reason.
    At(usize, String),
    /// The sink is away, and no record is to blame.
    Away(HandlerError),
}

impl From<HandlerError> for Stop {
    fn from(error: HandlerError) -> Self {
        Self::Away(error)
    }
}

impl NatsSink {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The journal has no name.
    pub(super) fn new(config: &SinkConfig, target: &NatsTarget, start: &LaneStart<'_>) -> Result<Self, HandlerError> {
        let journal = start.journal.ok_or_else(|| HandlerError::new("the journal has no id to name records by"))?;
        let claim = Claim::of(start.instance, start.sink);
        Ok(Self {
            target: target.clone(),
            subject: Subject::from(target.subject.as_str()),
            timeout: config.timeout,
            journal,
            claim,
            connection: None,
            found: Found::default(),
            known: Known::restore(&start.mark().sink_state, &target.stream, start.durable_end),
            messages: Messages::new(journal, &target.stream, claim),
            stride: usize::MAX,
            batches: 0,
        })
    }

    /// Writes to a stream of our own what is not there yet, and counts in `done` how many records are.
    fn write_own(&mut self, records: &[Record<'_>], done: &mut usize) -> Result<(), Stop> {
        for some in records.chunks(limits::SINK_NATS_RECORDS) {
            self.connect()?;
            let there = some.partition_point(|record| Some(EntryId::of(record)) <= self.found.last);
            self.compare_last(&some[..there])?;
            if let Some(record) = some[..there].last() {
                self.known.has_written(EntryId::of(record));
                self.note_sequence();
            }
            *done += there;
            let rest = &some[there..];
            let too_long = self.first_too_long(rest);
            let fit = too_long.as_ref().map_or(rest.len(), |(i, _)| *i);
            self.send_all(&rest[..fit], done)?;
            if let Some((_, reason)) = too_long {
                return Err(Stop::At(*done, reason));
            }
        }
        Ok(())
    }

    /// Sends records in chains, shorter ones after one that broke.
    fn send_all(&mut self, mut records: &[Record<'_>], done: &mut usize) -> Result<(), Stop> {
        while let Some((some, rest)) =
            records.split_at_checked(self.stride.min(records.len())).filter(|(some, _)| !some.is_empty())
        {
            match self.send(some) {
                Ok(()) => {
                    *done += some.len();
                    self.stride = self.stride.saturating_mul(2);
                    records = rest;
                }
                Err(refused) => {
                    let is_alone = some.len() == 1;
                    self.stride = 1;
                    return Err(match refused {
                        Refused::Never(reason) if is_alone => Stop::At(*done, reason),
                        // How many of them are stored the stream itself tells.
                        Refused::Moved | Refused::Never(_) | Refused::Full(_) if !is_alone => self.moved(),
                        Refused::Moved => self.moved(),
                        Refused::Never(reason) | Refused::Full(reason) | Refused::Other(reason) => {
                            self.fail(&reason).into()
                        }
                    });
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, records: &[Record<'_>]) -> Result<(), Refused> {
        let Some(last) = records.last().map(EntryId::of) else { return Ok(()) };
        self.known.sends(last);
        self.found.sequence = self.publish(records, Messages::own)?;
        (self.found.last, self.found.said, self.found.retried) = (Some(last), None, None);
        self.known.has_written(last);
        self.note_sequence();
        Ok(())
    }

    /// The number of the last message tells how far the stream has come only while nothing in it is still to be presented.
    fn note_sequence(&mut self) {
        self.known.sequence = if self.known.written == self.found.last { self.found.sequence } else { 0 };
    }

    /// Publishes records behind the last message.
    fn publish(
        &mut self,
        records: &[Record<'_>],
        message: impl Fn(&mut Messages, &Record<'_>) -> Message,
    ) -> Result<u64, Refused> {
        self.batches += 1;
        let batch = || format!("{}-{:x}-{:x}", self.claim.short(), std::process::id(), self.batches);
        let batch = self.found.is_replicated.then(batch);
        let behind = Behind { subject: self.subject.clone(), sequence: self.found.sequence, batch };
        let Some(connection) = &mut self.connection else {
            return Err(Refused::Other("there is no connection".into()));
        };
        let client = connection.client.clone();
        let messages = records.iter().map(|record| message(&mut self.messages, record));
        connection.run(publish::chain(&client, &behind, messages))
    }

    /// The last message must be the record of its name: on a copy of the journal other records have the same names.
    fn compare_last(&mut self, there: &[Record<'_>]) -> Result<(), HandlerError> {
        let Some(said) = &self.found.said else { return Ok(()) };
        match there.iter().find(|record| EntryId::of(record) == said.id) {
            Some(record) if !said.is(record) => {
                let reason = format!(
                    "the last message of the stream {} is another record {}-{} than this journal's: a server on a copy of the data \
                     directory has written to it; configure another stream",
                    self.target.stream, record.offset.0, record.index
                );
                Err(self.fail(&reason))
            }
            _ => Ok(()),
        }
    }

    /// The first record that the server cannot take since it is too long, and why.
    fn first_too_long(&mut self, records: &[Record<'_>]) -> Option<(usize, String)> {
        let server_max = self.connection.as_ref().map_or(usize::MAX, |connection| connection.client.max_payload());
        let bytes_max = server_max.min(self.found.message_max.unwrap_or(usize::MAX));
        records.iter().enumerate().find_map(|(i, record)| {
            let Content::Payload(payload) = record.content else { return None };
            if payload.len() + HEADERS_MAX <= bytes_max {
                return None;
            }
            let headers = match self.target.exclusive {
                true => headers_len(&self.messages.own(record).headers) + CHAIN_HEADERS,
                false => headers_len(&self.messages.shared(record).headers),
            };
            let bytes = headers + payload.len();
            let reason = || {
                format!(
                    "with its headers the message has {bytes} bytes, and the server takes {bytes_max} (max_payload, or \
                     max_msg_size of the stream)"
                )
            };
            (bytes > bytes_max).then(|| (i, reason()))
        })
    }

    /// Writes to a stream that others write to as well.
    fn write_shared(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) -> Result<(), Stop> {
        self.connect()?;
        for (from, some) in (0..).step_by(limits::SINK_NATS_RECORDS).zip(records.chunks(limits::SINK_NATS_RECORDS)) {
            let too_long = self.first_too_long(some);
            let fit = too_long.as_ref().map_or(some.len(), |(i, _)| *i);
            let Some(connection) = &mut self.connection else { return Err(self.fail("there is no connection").into()) };
            let (context, messages) = (connection.context.clone(), &mut self.messages);
            let published = connection.run(async {
                let messages = some[..fit].iter().map(|record| messages.shared(record));
                let done = |i| outcomes.done(from + i);
                let published = publish::one_by_one(&context, &self.subject, messages, done).await;
                published.map_err(|(i, refused)| Failed(Some(i), refused))
            });
            match published {
                Ok(()) => {}
                Err(Failed(Some(i), Refused::Never(reason))) => return Err(Stop::At(from + i, reason)),
                Err(Failed(_, Refused::Full(reason) | Refused::Never(reason) | Refused::Other(reason))) => {
                    return Err(self.fail(&reason).into());
                }
                Err(Failed(_, Refused::Moved)) => {
                    return Err(self.fail("the stream does not take messages in order").into());
                }
            }
            if let Some((i, reason)) = too_long {
                return Err(Stop::At(from + i, reason));
            }
        }
        Ok(())
    }

    /// Sees to a connection, and to what the stream holds.
    fn connect(&mut self) -> Result<(), HandlerError> {
        if self.connection.as_ref().is_some_and(Connection::is_old) {
            self.connection = None;
        }
        if self.connection.is_some() {
            return Ok(());
        }
        let mut connection =
            Connection::open(&self.target, self.timeout).map_err(|error| self.named(&error.to_string()))?;
        let context = connection.context.clone();
        if !self.target.exclusive {
            let looked = connection.run(stream::find_shared(&context, &self.target));
            let message_max = looked.map_err(|reason: String| self.named(&reason))?;
            self.found = Found { message_max, ..Found::default() };
            self.connection = Some(connection);
            return Ok(());
        }
        let looked = connection.run(stream::find_own(&context, &self.target, (self.journal, &self.known)));
        let found = looked.map_err(|reason: String| self.named(&reason))?;
        if let Some(reason) = found.said.as_ref().and_then(|said| self.why_not_behind(said)) {
            return Err(self.named(&reason));
        }
        self.known.compare(found.last).map_err(|refusal| self.named(&self.refusal(refusal, found.last)))?;
        self.found = found;
        self.connection = Some(connection);
        Ok(())
    }

    /// Why nothing is written behind the message that tells how far the stream has come.
    fn why_not_behind(&self, last: &Said) -> Option<String> {
        let stream = &self.target.stream;
        match last.claim {
            None if last.is_a_mark() => None,
            None => Some(format!(
                "the last message of the stream {stream} was not written with exclusive = true, so records before it may be missing: \
                 give this sink a stream of its own, or set exclusive = false"
            )),
            Some(other) if !self.claim.is_of_the_sink_of(other) => Some(format!(
                "the stream {stream} belongs to another sink of this journal, or to one that was removed, and what that one has written \
                 cannot be told from what this one has: give this sink a stream of its own, or, if the other one is gone, delete the \
                 stream"
            )),
            Some(other) if other != self.claim && !self.claim.replaces(other) => Some(format!(
                "the stream {stream} was written to by start {other} of this journal, and this is start {}: another server runs on \
                 its data, or on a copy of them; stop it, and restart this one, or configure another stream",
                self.claim
            )),
            Some(_) => None,
        }
    }

    fn refusal(&self, refusal: Refusal, last: Option<EntryId>) -> String {
        let stream = &self.target.stream;
        let found = last.map_or("nothing is in it".to_owned(), |last| format!("its last record is {last}"));
        match refusal {
            Refusal::Lost { written, restart_helps: true } => format!(
                "the stream {stream} has lost messages: record {written} was written, and {found}; restart this server, which \
                 writes them again"
            ),
            Refusal::Lost { written, restart_helps: false } => format!(
                "the stream {stream} has lost messages: record {written} was written, and {found}; restore it, or accept the loss by \
                 publishing a message with the header Duragram-Record: {} to it, or configure another stream",
                written.name(self.journal)
            ),
            Refusal::Ahead => format!(
                "the stream {stream} holds more than this journal has written: {found}; the journal is an older copy; configure \
                 another stream"
            ),
        }
    }

    /// Reads whether all that was confirmed is still there.
    fn verify(&mut self) -> Result<(), HandlerError> {
        self.connect()?;
        let Some(connection) = &mut self.connection else { return Err(HandlerError::new("there is no connection")) };
        let (context, name) = (connection.context.clone(), self.target.stream.clone());
        let looked = connection.run(async move {
            let stream = context.get_stream(&name).await.map_err(|error| trouble::of_getting(&error))?;
            Ok::<_, String>(stream.cached_info().state.last_sequence)
        });
        match looked {
            Ok(sequence) if sequence == self.found.sequence => Ok(()),
            Ok(sequence) => {
                let reason =
                    format!("the stream ends with message {sequence}, and {} was written", self.found.sequence);
                Err(self.fail(&reason).soon())
            }
            Err(reason) => Err(self.fail(&reason)),
        }
    }

    /// Puts a dead letter behind what was written since.
    fn write_retried(&mut self, record: &Record<'_>) -> Result<(), Stop> {
        self.connect()?;
        if self.found.retried == Some(EntryId::of(record)) {
            // It is the last message: an earlier try has arrived.
            return Ok(());
        }
        let record = std::slice::from_ref(record);
        if let Some((_, reason)) = self.first_too_long(record) {
            return Err(Stop::At(0, reason));
        }
        match self.publish(record, Messages::retried) {
            Ok(sequence) => {
                self.found.sequence = sequence;
                self.found.retried = record.first().map(EntryId::of);
                self.note_sequence();
                Ok(())
            }
            Err(Refused::Never(reason)) => Err(Stop::At(0, reason)),
            Err(Refused::Full(reason) | Refused::Other(reason)) => Err(self.fail(&reason).into()),
            Err(Refused::Moved) => Err(self.moved()),
        }
    }

    fn moved(&mut self) -> Stop {
        self.fail("the stream has moved on: looking at it again").soon().into()
    }

    fn named(&self, reason: &str) -> HandlerError {
        HandlerError::new(format_args!("writing to {}: {reason}", self.target.url))
    }

    /// The connection is given up: the next one finds out anew what is there.
    fn fail(&mut self, reason: &str) -> HandlerError {
        self.connection = None;
        self.named(reason)
    }
}

impl Handler for NatsSink {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let mut done = 0;
        let written = match self.target.exclusive {
            true => self.write_own(records, &mut done),
            false => self.write_shared(records, outcomes),
        };
        (0..done).for_each(|i| outcomes.done(i));
        match written {
            Ok(()) => outcomes.done_all(),
            Err(Stop::At(i, reason)) => outcomes.give_up(i, reason),
            Err(Stop::Away(error)) => outcomes.unavailable_for(error),
        }
    }

    /// A server that came back without what it had confirmed is noticed here: then the watermark stays, and a restart writes the
    /// records again.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        if !self.target.exclusive {
            return Ok(Vec::new());
        }
        if self.known.is_dirty() {
            self.verify()?;
        }
        Ok(self.known.store(&self.target.stream))
    }

    /// What was written counts as flushed only when the journal keeps it.
    fn settle(&mut self) -> Result<bool, HandlerError> {
        if self.target.exclusive && self.known.is_dirty() {
            self.verify()?;
        }
        Ok(true)
    }

    fn retry(&mut self, record: &Record<'_>, outcomes: &mut Outcomes) {
        if !self.target.exclusive {
            return self.process(std::slice::from_ref(record), outcomes);
        }
        if let Err(error) = self.connect() {
            return outcomes.unavailable_for(error);
        }
        if Some(EntryId::of(record)) > self.found.last {
            return self.process(std::slice::from_ref(record), outcomes);
        }
        match self.write_retried(record) {
            Ok(()) => outcomes.done(0),
            Err(Stop::At(_, reason)) => outcomes.give_up(0, reason),
            Err(Stop::Away(error)) => outcomes.unavailable_for(error),
        }
    }

    fn moved(&mut self) -> Vec<u8> {
        if self.target.exclusive { self.known.elsewhere(&self.target.stream) } else { Vec::new() }
    }
}

/// Which message was refused, if it was one, and why.
struct Failed(Option<usize>, Refused);

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self(None, Refused::Other(reason))
    }
}
