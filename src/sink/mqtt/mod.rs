//! `mqtt`: each record is a message to a broker, QoS 1. A record is done when the broker acknowledges its message; what it has not
//! acknowledged when a connection ends is sent again on the next one. So a message arrives at least once, and its user property
//! `duragram-record` names the record, by which a receiver knows a repetition.
//!
//! MQTT 5 alone is spoken: 3.1.1 has no place for that name, and a broker cannot say in it why it refuses a message. Of the
//! crate `rumqttc` the codec is used, and not its event loop: that reconnects and sends again by itself, and hands out packet ids
//! whose record cannot be known for sure. Nothing runs between calls: a connection that was idle is made anew.
//!
//! The client id is the same at every start, so that the broker ends the connection of a process that has been left behind.

mod address;
mod connection;
mod reply;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use address::Address;
use connection::Connection;
use reply::{Class, Reply};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use topic::Topic;

use super::name::RecordName;
use crate::limits;
use crate::model::{Content, JournalId, MqttTarget, Record, SinkConfig, SinkId};
use crate::process::handler::{Handler, HandlerError, LaneStart, Outcomes};

/// The handler of one `mqtt` sink.
pub(super) struct Mqtt {
    sink: String,
    target: MqttTarget,
    address: Address,
    topic: Topic,
    journal: JournalId,
    client_id: String,
    timeout: Duration,
    connection: Option<Connection>,
    /// One message at a time is under way: the broker has ended a connection because of one of several.
    careful: bool,
    /// The open records that the broker has refused while it took later ones: (offset, index).
    blamed: BTreeSet<(u64, u16)>,
}

impl Mqtt {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The configuration cannot be meant: its URL, its topic or its client id.
    pub(super) fn new(config: &SinkConfig, target: &MqttTarget, start: &LaneStart<'_>) -> Result<Self, HandlerError> {
        let failed = |error: String| HandlerError::new(format_args!("{}: {error}", config.name));
        let journal =
            start.journal.ok_or_else(|| failed("the journal has no name, which every message holds".to_owned()))?;
        let client_id = target.client_id.clone().unwrap_or_else(|| client_id(journal, start.sink));
        if client_id.is_empty()
            || client_id.len() > limits::SINK_CLIENT_ID_BYTES
            || client_id.contains(char::is_control)
        {
            let expected = limits::SINK_CLIENT_ID_BYTES;
            return Err(failed(format!("client_id: 1 to {expected} bytes without control characters are expected")));
        }
        Ok(Self {
            sink: config.name.clone(),
            address: Address::parse(&target.url).map_err(failed)?,
            topic: Topic::parse(&target.topic).map_err(failed)?,
            target: target.clone(),
            journal,
            client_id,
            timeout: config.timeout,
            connection: None,
            careful: false,
            blamed: BTreeSet::new(),
        })
    }

    /// The connection there is, if it is still good, or else a new one.
    fn connect(&mut self) -> Result<Connection, String> {
        if let Some(mut connection) = self.connection.take() {
            match connection.look() {
                Ok(()) => return Ok(connection),
                Err(reason) => tracing::debug!(sink = self.sink, reason, "connecting to the broker anew"),
            }
        }
        Connection::open(&self.target, &self.address, &self.client_id, self.timeout)
    }

    /// The record's message, still without its packet id.
    fn message(&self, record: &Record<'_>) -> Publish {
        let name = RecordName::of(self.journal, record).to_string();
        let mut user_properties = vec![("duragram-record".to_owned(), name)];
        let payload = match record.content {
            Content::Payload(payload) => payload.to_vec(),
            Content::Gap { from, to } => {
                user_properties.push(("duragram-gap".to_owned(), format!("{}-{}", from.0, to.0)));
                Vec::new()
            }
        };
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        Publish::new(self.topic.of(self.journal, record), QoS::AtLeastOnce, payload, Some(properties))
    }

    /// Sends the records and takes the broker's answers. What has none when this fails is still open.
    fn publish(
        &mut self,
        connection: &mut Connection,
        records: &[Record<'_>],
        outcomes: &mut Outcomes,
    ) -> Result<(), Stop> {
        let in_flight_max = if self.careful { 1 } else { connection.in_flight_max };
        let mut exchange =
            Exchange { outcomes, open: BTreeMap::new(), unclear: Vec::new(), refused: None, last_taken: None };
        let mut next = 0;
        let mut last_id = 0;
        let mut deadline = Instant::now() + self.timeout;
        loop {
            while next < records.len() && exchange.open.len() < in_flight_max && exchange.refused.is_none() {
                let mut message = self.message(&records[next]);
                // Nothing is open between two calls, and the oldest that is open now is not 65,535 messages old.
                last_id = if last_id == u16::MAX { 1 } else { last_id + 1 };
                message.pkid = last_id;
                let bytes = message.size();
                if bytes > connection.packet_bytes_max {
                    let max = connection.packet_bytes_max;
                    let reason = format!("its message has {bytes} bytes, and the broker takes at most {max}");
                    exchange.outcomes.give_up(next, reason);
                } else if let Err(error) = connection.queue(&message) {
                    exchange.outcomes.give_up(next, format!("it cannot be made a message: {error}"));
                } else {
                    exchange.open.insert(last_id, next);
                }
                next += 1;
                if connection.queued_bytes() >= limits::MQTT_WRITE_BYTES {
                    connection.send().map_err(Stop::broken)?;
                }
            }
            if exchange.open.is_empty() {
                return exchange.end(records, &mut self.blamed);
            }
            if connection.queued_bytes() > 0 {
                connection.send().map_err(Stop::broken)?;
            }
            let before = exchange.open.len();
            let mut reply = connection.wait(deadline).map_err(Stop::broken)?;
            while let Some(said) = reply {
                exchange.take(said)?;
                reply = connection.reply().map_err(Stop::broken)?;
            }
            if exchange.open.len() < before {
                deadline = Instant::now() + self.timeout;
            }
        }
    }
}

/// Why nothing more is sent for now.
struct Stop {
    reason: String,
    /// The connection can be used again.
    goes_on: bool,
    /// One of several messages is to blame, and it is not known which.
    blames_one: bool,
}

impl Stop {
    fn broken(reason: String) -> Self {
        Self { reason, goes_on: false, blames_one: false }
    }
}

/// The messages of one call.
struct Exchange<'a> {
    outcomes: &'a mut Outcomes,
    /// What is sent and not acknowledged: packet ids, and the records' indexes.
    open: BTreeMap<u16, usize>,
    /// What the broker refuses without saying whose fault it is.
    unclear: Vec<(usize, String)>,
    /// Why the broker takes nothing for now.
    refused: Option<String>,
    /// The last of the records that the broker has taken.
    last_taken: Option<usize>,
}

impl Exchange<'_> {
    /// Takes what the broker says.
    fn take(&mut self, reply: Reply) -> Result<(), Stop> {
        let (id, reason) = match reply {
            Reply::Other => return Ok(()),
            Reply::Ack(id, reason) => (id, reason),
            Reply::Disconnect(reason) => {
                let mut open = self.open.values();
                let is_records = reason.class() == Class::Records;
                let text = format!("the broker has ended the connection: {reason}");
                if let (true, Some(&i), None) = (is_records, open.next(), open.next()) {
                    self.outcomes.give_up(i, text.clone());
                    return Err(Stop::broken(text));
                }
                return Err(Stop { reason: text, goes_on: false, blames_one: is_records });
            }
        };
        let Some(i) = self.open.remove(&id) else {
            return Err(Stop::broken(format!("the broker acknowledges a message that was not sent (packet id {id})")));
        };
        match reason.class() {
            Class::Taken => {
                self.last_taken = self.last_taken.max(Some(i));
                self.outcomes.done(i);
            }
            Class::Records => self.outcomes.give_up(i, format!("the broker refuses it: {reason}")),
            Class::Unclear => self.unclear.push((i, format!("the broker refuses it: {reason}"))),
            Class::Sinks => self.refused = Some(format!("the broker refuses messages: {reason}")),
        }
        Ok(())
    }

    /// Judges what is unclear: a broker that has taken a later record of this call has something against these, and that is
    /// remembered, since it may be presented alone next time. A broker that takes nothing any more is away.
    fn end(self, records: &[Record<'_>], blamed: &mut BTreeSet<(u64, u16)>) -> Result<(), Stop> {
        let mut refused = self.refused;
        let before = std::mem::take(blamed);
        for (i, reason) in self.unclear {
            let name = (records[i].offset.0, records[i].index);
            if self.last_taken > Some(i) || before.contains(&name) {
                blamed.insert(name);
                self.outcomes.retry(i, reason);
            } else {
                refused.get_or_insert(reason);
            }
        }
        match refused {
            None => Ok(()),
            Some(reason) => Err(Stop { reason, goes_on: true, blames_one: false }),
        }
    }
}

/// A client id that every broker must take (letters and digits, 23 of them), of this sink of this journal alone.
fn client_id(journal: JournalId, sink: SinkId) -> String {
    let journal = u128::from_str_radix(&journal.to_string(), 16).unwrap_or_default();
    format!("duragram{:015x}", (journal ^ sink.0) & ((1 << 60) - 1))
}

impl Handler for Mqtt {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let mut connection = match self.connect() {
            Ok(connection) => connection,
            Err(reason) => return outcomes.unavailable(reason),
        };
        let published = self.publish(&mut connection, records, outcomes);
        self.careful = published.as_ref().is_err_and(|stop| stop.blames_one);
        match published {
            Ok(()) => self.connection = Some(connection),
            Err(stop) => {
                if stop.goes_on {
                    self.connection = Some(connection);
                }
                outcomes.unavailable(stop.reason);
            }
        }
    }

    /// What the broker has acknowledged is the broker's.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }

    fn settle(&mut self) -> Result<bool, HandlerError> {
        Ok(true)
    }

    /// The next call connects anew: the password and the certificates may have changed.
    fn reopen(&mut self) -> Result<(), HandlerError> {
        self.connection = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
