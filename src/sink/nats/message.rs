//! A record as a message: its headers, and what a message of the stream says of its record.

use std::fmt::Write as _;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};

use crate::model::{Content, JournalId, Record};
use crate::record_json::Formatter;
use crate::sink::claim::Claim;
use crate::sink::position::EntryId;

const RECORD: HeaderName = HeaderName::from_static("Duragram-Record");
/// Where the record comes from, in one header: each takes time here and at the server, which looks through all of them for its own.
const SOURCE: HeaderName = HeaderName::from_static("Duragram-Source");
/// The sink that has written the message, and the start of the server, where no id says it.
const WRITER: HeaderName = HeaderName::from_static("Duragram-Writer");
/// The message is a dead letter that was retried: it stands behind later ones.
const RETRIED: HeaderName = HeaderName::from_static("Duragram-Retried");
/// Bytes of the values that are made for each record, as a rule: so that they need not grow.
const VALUE_BYTES: usize = 128;

/// A record as it is published.
pub(super) struct Message {
    pub(super) headers: HeaderMap,
    /// What the next message of a chain names as the one before it.
    pub(super) id: Option<HeaderValue>,
    pub(super) payload: Vec<u8>,
}

/// It makes messages of records, with the names by which NATS tells them apart.
pub(super) struct Messages {
    /// A record's name up to its offset, which is also its id on a stream that others write to.
    name: String,
    /// A message's id up to the record's offset on a stream of our own.
    id: String,
    stream: String,
    writer: String,
    formatter: Formatter,
    time: Vec<u8>,
}

impl Messages {
    pub(super) fn new(journal: JournalId, stream: &str, claim: Claim) -> Self {
        Self {
            name: format!("{journal}-"),
            id: format!("{claim}-"),
            stream: stream.to_owned(),
            writer: claim.to_string(),
            formatter: Formatter::default(),
            time: Vec::new(),
        }
    }

    /// A message to a stream of our own. Its id names the sink that writes it and the start: what another has written in the
    /// record's place, or a start on a copy of the journal, is another message.
    pub(super) fn own(&mut self, record: &Record<'_>) -> Message {
        let mut headers = self.common(record);
        let id = HeaderValue::from(placed(&self.id, record));
        headers.insert(NATS_MESSAGE_ID, id.clone());
        Message { headers, id: Some(id), payload: payload(record) }
    }

    /// A dead letter that comes behind later records. It has no id: the server may still know the record's.
    pub(super) fn retried(&mut self, record: &Record<'_>) -> Message {
        let mut headers = self.common(record);
        headers.insert(WRITER, self.writer.as_str());
        headers.insert(RETRIED, "1");
        Message { headers, id: None, payload: payload(record) }
    }

    /// A message to a stream that others write to as well: its id is the record's name.
    pub(super) fn shared(&mut self, record: &Record<'_>) -> Message {
        let mut headers = self.common(record);
        headers.insert(NATS_MESSAGE_ID, placed(&self.name, record));
        headers.insert(NATS_EXPECTED_STREAM, self.stream.as_str());
        Message { headers, id: None, payload: payload(record) }
    }

    fn common(&mut self, record: &Record<'_>) -> HeaderMap {
        let mut source = String::with_capacity(VALUE_BYTES);
        write_session(record, &mut source);
        self.time.clear();
        self.formatter.time(record.received_unix_us, &mut self.time);
        let time = String::from_utf8_lossy(&self.time);
        // Writing to a string cannot fail.
        let _infallible = write!(source, "channel={};received_at={time}", record.channel);
        if let Content::Gap { from, to } = record.content {
            let _infallible = write!(source, ";gap={}-{}", from.0, to.0);
        }
        let mut headers = HeaderMap::new();
        headers.insert(RECORD, placed(&self.name, record));
        headers.insert(SOURCE, source);
        headers
    }
}

/// The record's offset and index behind what they are relative to.
fn placed(before: &str, record: &Record<'_>) -> String {
    let mut text = String::with_capacity(VALUE_BYTES);
    text.push_str(before);
    let _infallible = write!(text, "{}-{}", record.offset.0, record.index);
    text
}

/// What tells one record from another of the same name.
fn write_session(record: &Record<'_>, out: &mut String) {
    let (session, seq) = (record.session, record.seq.0);
    let _infallible = write!(out, "client={};epoch={};seq={seq};", session.client, session.epoch.value());
}

/// What a message carries beside its headers.
fn payload(record: &Record<'_>) -> Vec<u8> {
    match record.content {
        Content::Payload(payload) => payload.to_vec(),
        Content::Gap { .. } => Vec::new(),
    }
}

/// How long headers are as they are sent.
pub(super) fn headers_len(headers: &HeaderMap) -> usize {
    let pairs = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let line = |(name, value): (&HeaderName, &async_nats::HeaderValue)| {
        AsRef::<[u8]>::as_ref(name).len() + AsRef::<[u8]>::as_ref(value).len() + ": \r\n".len()
    };
    "NATS/1.0\r\n\r\n".len() + pairs.map(line).sum::<usize>()
}

/// What a message of a stream says of its record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Said {
    journal: JournalId,
    pub(super) id: EntryId,
    source: String,
    pub(super) claim: Option<Claim>,
    pub(super) retried: bool,
}

impl Said {
    /// Reads the headers; `None`: nobody like us has written the message.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).map(|value| value.as_str().to_owned());
        let name = text(RECORD)?;
        let mut parts = name.split('-');
        let (journal, offset, index) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            journal: JournalId::parse(journal)?,
            id: EntryId::at(offset.parse().ok()?, index.parse().ok()?),
            source: text(SOURCE).unwrap_or_default(),
            claim: text(WRITER).or_else(|| writer_in(&text(NATS_MESSAGE_ID)?)).and_then(|text| Claim::parse(&text)),
            retried: headers.get(RETRIED).is_some(),
        })
    }

    pub(super) fn is_of(&self, journal: JournalId) -> bool {
        self.journal == journal
    }

    /// Whether the record of this name is the one that was written. A message without a source is an operator's mark.
    pub(super) fn is(&self, record: &Record<'_>) -> bool {
        let mut session = String::with_capacity(VALUE_BYTES);
        write_session(record, &mut session);
        self.source.starts_with(&session) || self.is_a_mark()
    }

    /// Whether an operator has published it, to say how far the stream has come.
    pub(super) fn is_a_mark(&self) -> bool {
        self.source.is_empty()
    }
}

/// The claim that an id names, before offset and index.
fn writer_in(id: &str) -> Option<String> {
    id.rsplitn(3, '-').nth(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use duragram_proto::{ClientId, Epoch, Seq};

    use super::*;
    use crate::model::{Instance, Offset, SessionId, SinkId};

    fn record(content: Content<'_>) -> Record<'_> {
        Record {
            offset: Offset(7),
            index: 2,
            session: SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() },
            seq: Seq(9),
            channel: 4,
            received_unix_us: 1_767_323_045_678_901,
            asks: false,
            content,
        }
    }

    #[test]
    fn a_message_tells_which_record_it_is_and_who_has_written_it() {
        let journal = JournalId::parse("0000000000000000000000000000000a").unwrap();
        let claim = Claim::of(Some(Instance { number: 5, nonce: 6 }), SinkId(7));
        let mut messages = Messages::new(journal, "S", claim);
        let record = record(Content::Payload(b"x"));
        let said = Said::read(&messages.own(&record).headers).unwrap();
        assert_eq!((said.id, said.claim, said.retried), (EntryId::of(&record), Some(claim), false));
        assert!(said.is_of(journal) && said.is(&record));
        assert!(!said.is(&Record { seq: Seq(10), ..record }));
        assert!(Said::read(&messages.retried(&record).headers).unwrap().retried);
        assert_eq!(Said::read(&HeaderMap::new()), None);
        let mut other = HeaderMap::new();
        other.insert(RECORD, "not a name");
        assert_eq!(Said::read(&other), None);
        let shared = messages.shared(&record).headers;
        let id = shared.get(NATS_MESSAGE_ID).unwrap().as_str();
        assert_eq!(id, "0000000000000000000000000000000a-7-2");
        let said = Said::read(&shared).unwrap();
        assert!(said.claim.is_none() && !said.is_a_mark(), "it says nothing of those before it");
    }

    #[test]
    fn a_gap_is_a_message_without_a_payload_that_names_what_is_missing() {
        let journal = JournalId::parse("0000000000000000000000000000000a").unwrap();
        let gap = record(Content::Gap { from: Seq(5), to: Seq(9) });
        let message = Messages::new(journal, "S", Claim::of(None, SinkId(7))).own(&gap);
        assert!(message.headers.get(SOURCE).unwrap().as_str().ends_with(";gap=5-9"));
        assert_eq!(message.payload, b"");
    }
}
