//! Dead letters: from a record that its handler gave up to what is kept, and back.

use crate::journal::{DeadLetter, DeadLetterId};
use crate::model::{Content, Record};

/// The letter for a record that was given up at `since_unix_us`.
pub(super) fn letter(record: &Record<'_>, error: String, attempts: u16, since_unix_us: u64) -> DeadLetter {
    let (payload, gap_from) = match record.content {
        Content::Payload(payload) => (payload.to_vec(), None),
        Content::Gap { from, .. } => (Vec::new(), Some(from)),
    };
    DeadLetter {
        id: DeadLetterId { offset: record.offset, index: record.index },
        session: record.session,
        seq: record.seq,
        channel: record.channel,
        received_unix_us: record.received_unix_us,
        payload,
        gap_from,
        error,
        attempts: attempts.into(),
        since_unix_us,
    }
}

/// The record as its handler saw it.
pub(super) fn record(letter: &DeadLetter) -> Record<'_> {
    Record {
        offset: letter.id.offset,
        index: letter.id.index,
        session: letter.session,
        seq: letter.seq,
        channel: letter.channel,
        received_unix_us: letter.received_unix_us,
        content: match letter.gap_from {
            Some(from) => Content::Gap { from, to: letter.seq },
            None => Content::Payload(&letter.payload),
        },
    }
}
