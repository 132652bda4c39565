//! The topic of a message: a text with the record's own numbers in it.

use std::fmt::Write as _;

use crate::limits;
use crate::model::{JournalId, Record};

/// The gaps of a topic are filled with each record's own numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Topic {
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Number(Number),
}

/// A gap is filled with this number of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Client,
    Epoch,
    Channel,
    Journal,
    Offset,
    Index,
    Seq,
}

const NUMBERS: [(&str, Number); 7] = [
    ("client", Number::Client),
    ("epoch", Number::Epoch),
    ("channel", Number::Channel),
    ("journal", Number::Journal),
    ("offset", Number::Offset),
    ("index", Number::Index),
    ("seq", Number::Seq),
];

impl Topic {
    /// Reads a topic as it is configured.
    ///
    /// # Errors
    /// It cannot become a topic; the text says why.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > limits::SINK_TOPIC_BYTES {
            return Err(format!(
                "topic: has {} bytes; between 1 and {} are possible",
                text.len(),
                limits::SINK_TOPIC_BYTES
            ));
        }
        if let Some(wrong) = text.chars().find(|c| matches!(c, '+' | '#') || c.is_control()) {
            return Err(format!("topic: {wrong:?} cannot stand in the topic of a message"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, gap) = rest.split_at(open);
            let name = gap.strip_prefix('{').and_then(|gap| gap.split_once('}'));
            let known = name.and_then(|(name, _)| NUMBERS.iter().find(|(known, _)| *known == name));
            let (Some((_, after)), Some((_, number))) = (name, known) else {
                let known: Vec<String> = NUMBERS.iter().map(|(name, _)| format!("{{{name}}}")).collect();
                return Err(format!("topic: {gap:?} begins with none of {}", known.join(", ")));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Number(*number));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The topic of this record.
    pub(super) fn of(&self, journal: JournalId, record: &Record<'_>) -> String {
        let mut topic = String::new();
        for part in &self.parts {
            // A string takes all that is written to it.
            let _it_does = match part {
                Part::Text(text) => topic.write_str(text),
                Part::Number(Number::Client) => write!(topic, "{}", record.session.client),
                Part::Number(Number::Epoch) => write!(topic, "{}", record.session.epoch.value()),
                Part::Number(Number::Channel) => write!(topic, "{}", record.channel),
                Part::Number(Number::Journal) => write!(topic, "{journal}"),
                Part::Number(Number::Offset) => write!(topic, "{}", record.offset.0),
                Part::Number(Number::Index) => write!(topic, "{}", record.index),
                Part::Number(Number::Seq) => write!(topic, "{}", record.seq.0),
            };
        }
        topic
    }
}

#[cfg(test)]
mod tests {
    use duragram_proto::{ClientId, Epoch, Seq};

    use super::*;
    use crate::model::{Content, Offset, SessionId};

    #[test]
    fn a_topic_holds_the_records_own_numbers() {
        let record = Record {
            offset: Offset(7),
            index: 2,
            session: SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() },
            seq: Seq(u64::MAX),
            channel: 9,
            received_unix_us: 0,
            asks: false,
            content: Content::Payload(b""),
        };
        let journal = JournalId::parse(&format!("{:032x}", 0xabc)).unwrap();
        for (text, topic) in [
            ("plain", "plain".to_owned()),
            ("a/{channel}/b", "a/9/b".to_owned()),
            ("{client}/{epoch}/{seq}", "00000000000000a1/3/18446744073709551615".to_owned()),
            ("{journal}{offset}-{index}", format!("{:032x}7-2", 0xabc)),
        ] {
            assert_eq!(Topic::parse(text).unwrap().of(journal, &record), topic);
        }
        for (name, _) in NUMBERS {
            let gap = format!("{{{name}}}");
            let longest = Topic::parse(&gap.repeat(limits::SINK_TOPIC_BYTES / gap.len())).unwrap();
            assert!(longest.of(journal, &record).len() <= usize::from(u16::MAX));
        }
    }

    #[test]
    fn what_cannot_be_a_topic_is_refused_with_what_is_wrong() {
        for (text, wrong) in [
            ("", "has 0 bytes"),
            (&*"x".repeat(limits::SINK_TOPIC_BYTES + 1), "has 4097 bytes"),
            ("a/+/b", "'+'"),
            ("a/#", "'#'"),
            ("a\0b", "'\\0'"),
            ("a/{chanel}", "\"{chanel}\" begins with none of {client}, "),
            ("a/{channel", "\"{channel\""),
            ("a}/b", "\"}/b\""),
        ] {
            let error = Topic::parse(text).unwrap_err();
            assert!(error.starts_with("topic: ") && error.contains(wrong), "{error}");
        }
    }
}
