//! A record as an entry of a stream: its id, and its fields.

use std::fmt;

use ::redis::Cmd;

use crate::model::{Content, Record};
use crate::record_json::Formatter;
use crate::sink::position::EntryId;

/// A record goes to one of these places.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Into the journal's stream, under its own id. The stream is made by it.
    First,
    /// Likewise, and the stream is there: it is not made anew, since without what it held nobody could tell what is missing.
    Own,
    /// Into the stream of what was retried, under the server's next id: its own lies below what was written since.
    Retried,
}

/// Writes records as commands, with memory that is used again.
#[derive(Default)]
pub(super) struct Commands {
    formatter: Formatter,
    command: Cmd,
    text: Vec<u8>,
}

impl Commands {
    /// Appends the XADD of a record.
    pub(super) fn add(
        &mut self,
        record: &Record<'_>,
        (key, entries_max, place): (&str, Option<u64>, Place),
        out: &mut Vec<u8>,
    ) {
        let command = &mut self.command;
        command.clear();
        command.arg("XADD").arg(key);
        if matches!(place, Place::Own) {
            command.arg("NOMKSTREAM");
        }
        if let Some(entries_max) = entries_max {
            command.arg("MAXLEN").arg("~").arg(entries_max);
        }
        self.text.clear();
        match place {
            Place::First | Place::Own => {
                write_to(&mut self.text, format_args!("{}", EntryId::of(record)));
                command.arg(&self.text[..]);
            }
            Place::Retried => {
                command.arg("*").arg("offset").arg(record.offset.0).arg("index").arg(record.index);
            }
        }
        let session = record.session;
        self.text.clear();
        write_to(&mut self.text, format_args!("{}", session.client));
        command.arg("client").arg(&self.text[..]);
        command.arg("epoch").arg(session.epoch.value()).arg("seq").arg(record.seq.0);
        command.arg("channel").arg(record.channel);
        self.text.clear();
        self.formatter.time(record.received_unix_us, &mut self.text);
        command.arg("received_at").arg(&self.text[..]);
        match record.content {
            Content::Payload(payload) => command.arg("payload").arg(payload),
            Content::Gap { from, to } => {
                self.text.clear();
                write_to(&mut self.text, format_args!("{}-{}", from.0, to.0));
                command.arg("gap").arg(&self.text[..])
            }
        };
        command.write_packed_command(out);
    }
}

fn write_to(text: &mut Vec<u8>, arguments: fmt::Arguments<'_>) {
    // A vector takes all bytes.
    let _never_fails = std::io::Write::write_fmt(text, arguments);
}

#[cfg(test)]
mod tests {
    use duragram_proto::{ClientId, Epoch, Seq};

    use super::*;
    use crate::model::{Offset, SessionId};

    fn record(offset: u64, index: u16) -> Record<'static> {
        Record {
            offset: Offset(offset),
            index,
            session: SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() },
            seq: Seq(9),
            channel: 7,
            received_unix_us: 1_767_323_045_678_901,
            asks: false,
            content: Content::Payload(b"\x00\r\n\xff"),
        }
    }

    #[test]
    fn a_gap_names_what_is_missing_in_place_of_a_payload() {
        let mut out = Vec::new();
        let gap = Record { content: Content::Gap { from: Seq(5), to: Seq(9) }, ..record(4, 0) };
        Commands::default().add(&gap, ("k", Some(100), Place::First), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("*18\r\n$4\r\nXADD\r\n$1\r\nk\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$3\r\n100\r\n$3\r\n4-1\r\n"),
            "{text}"
        );
        assert!(text.ends_with("$3\r\ngap\r\n$3\r\n5-9\r\n"), "{text}");
        assert!(!text.contains("payload"), "{text}");
    }

    #[test]
    fn only_the_first_entry_makes_the_stream() {
        for (place, expected) in [(Place::First, false), (Place::Own, true), (Place::Retried, false)] {
            let mut out = Vec::new();
            Commands::default().add(&record(4, 0), ("k", None, place), &mut out);
            let refuses = out.windows(10).any(|bytes| bytes == b"NOMKSTREAM");
            assert_eq!(refuses, expected, "{place:?}");
        }
    }
}
