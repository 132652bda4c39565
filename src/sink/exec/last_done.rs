//! The last record that a child has done, kept to find out whether a program that fails at the next one works at all.

use crate::model::{Content, Record};

/// A record with a payload of its own.
pub(super) struct LastDone {
    /// All of it but its payload, which is empty here.
    head: Record<'static>,
    payload: Vec<u8>,
}

impl LastDone {
    /// Keeps a copy of the record.
    pub(super) fn new(record: &Record<'_>) -> Self {
        let Record { offset, index, session, seq, channel, received_unix_us, content } = *record;
        let (content, payload) = match content {
            Content::Payload(payload) => (Content::Payload(&[][..]), payload.to_vec()),
            Content::Gap { from, to } => (Content::Gap { from, to }, Vec::new()),
        };
        Self { head: Record { offset, index, session, seq, channel, received_unix_us, content }, payload }
    }

    /// The record as it was.
    pub(super) fn record(&self) -> Record<'_> {
        let head: Record<'_> = self.head;
        match head.content {
            Content::Payload(_) => Record { content: Content::Payload(&self.payload), ..head },
            Content::Gap { .. } => head,
        }
    }
}
