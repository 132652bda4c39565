//! The last record that a child has done, kept to find out whether a program that fails at the next one works at all. It
//! outlives a restart beside the sink's place: else a record that no child survives would hold up a server that was started anew.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duragram_proto::{ClientId, Epoch, Seq};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::model::{Content, Offset, Record, SessionId};

/// A record with a payload of its own.
#[derive(Debug)]
pub(super) struct LastDone {
    /// All of it but its payload, which is empty here.
    head: Record<'static>,
    payload: Vec<u8>,
}

/// What the journal keeps of it.
#[derive(Serialize, Deserialize)]
struct Stored {
    offset: u64,
    index: u16,
    client: u64,
    epoch: u32,
    seq: u64,
    channel: u16,
    received_unix_us: u64,
    /// What an earlier version has left does not say it: nothing asked then.
    #[serde(default)]
    asks: bool,
    payload_base64: String,
    /// In place of a payload: what is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gap: Option<(u64, u64)>,
}

impl LastDone {
    /// Keeps a copy of the record.
    pub(super) fn new(record: &Record<'_>) -> Self {
        let Record { offset, index, session, seq, channel, received_unix_us, asks, content } = *record;
        let (content, payload) = match content {
            Content::Payload(payload) => (Content::Payload(&[][..]), payload.to_vec()),
            Content::Gap { from, to } => (Content::Gap { from, to }, Vec::new()),
        };
        Self { head: Record { offset, index, session, seq, channel, received_unix_us, asks, content }, payload }
    }

    /// The record as it was.
    pub(super) fn record(&self) -> Record<'_> {
        let head: Record<'_> = self.head;
        match head.content {
            Content::Payload(_) => Record { content: Content::Payload(&self.payload), ..head },
            Content::Gap { .. } => head,
        }
    }

    /// What the journal is to keep: nothing of a record that is large.
    pub(super) fn to_state(&self) -> Vec<u8> {
        if self.payload.len() > limits::EXEC_KEPT_BYTES {
            return Vec::new();
        }
        let Record { offset, index, session, seq, channel, received_unix_us, asks, content } = self.head;
        let stored = Stored {
            offset: offset.0,
            index,
            client: session.client.0,
            epoch: session.epoch.value(),
            seq: seq.0,
            channel,
            received_unix_us,
            asks,
            payload_base64: STANDARD.encode(&self.payload),
            gap: match content {
                Content::Payload(_) => None,
                Content::Gap { from, to } => Some((from.0, to.0)),
            },
        };
        // A list of numbers and texts always becomes JSON.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    /// What the journal has kept; `None` when it has nothing, or what another version has left.
    pub(super) fn from_state(state: &[u8]) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(state).ok()?;
        let head = Record {
            offset: Offset(stored.offset),
            index: stored.index,
            session: SessionId { client: ClientId(stored.client), epoch: Epoch::new(stored.epoch)? },
            seq: Seq(stored.seq),
            channel: stored.channel,
            received_unix_us: stored.received_unix_us,
            asks: stored.asks,
            content: match stored.gap {
                None => Content::Payload(&[]),
                Some((from, to)) => Content::Gap { from: Seq(from), to: Seq(to) },
            },
        };
        Some(Self { head, payload: STANDARD.decode(&stored.payload_base64).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: Content<'_>) -> Record<'_> {
        let session = SessionId { client: ClientId(7), epoch: Epoch::new(3).unwrap() };
        Record {
            offset: Offset(5),
            index: 2,
            session,
            seq: Seq(9),
            channel: 4,
            received_unix_us: 11,
            asks: false,
            content,
        }
    }

    #[test]
    fn what_was_done_last_comes_back_as_it_was_after_a_restart() {
        for content in [Content::Payload(b"\xff text"), Content::Gap { from: Seq(3), to: Seq(6) }] {
            let kept = LastDone::new(&record(content));
            assert_eq!(kept.record(), record(content));
            let back = LastDone::from_state(&kept.to_state()).unwrap();
            assert_eq!(back.record(), record(content));
        }
    }

    #[test]
    fn nothing_is_kept_of_a_large_record_and_what_is_no_state_is_none() {
        let large = vec![b'x'; limits::EXEC_KEPT_BYTES + 1];
        assert!(LastDone::new(&record(Content::Payload(&large))).to_state().is_empty());
        for state in [&b""[..], b"{}", b"garbage"] {
            assert!(LastDone::from_state(state).is_none());
        }
    }
}
