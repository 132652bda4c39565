//! Records and dead letters as JSON: what sinks write, the admin interface answers and the command line prints. The keys and
//! their order are a contract with programs that read them.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duragram_proto::Epoch;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::model::{Content, DeadLetter, Offset, Record};

/// The bytes with which every line starts.
pub(crate) const LINE_START: &[u8] = b"{\"offset\":";

/// The bytes with which a line starts that tells of a loss.
pub(crate) const LOST_START: &[u8] = b"{\"lost\":{\"from\":";

/// Appends the line that tells that the entries from `from` up to `to` are lost to the reader, with its newline.
pub(crate) fn lost_line(from: Offset, to: Offset, out: &mut Vec<u8>) {
    out.extend_from_slice(LOST_START);
    write_json(from.0, out);
    out.extend_from_slice(b",\"to\":");
    write_json(to.0, out);
    out.extend_from_slice(b"}}\n");
}

/// The entries of which a line tells that they are lost, if it is such a line.
pub(crate) fn parse_lost(line: &[u8]) -> Option<(Offset, Offset)> {
    let (from, rest) = number(line.strip_prefix(LOST_START)?)?;
    let (to, rest) = number(rest.strip_prefix(b",\"to\":")?)?;
    rest.starts_with(b"}}").then_some((Offset(from), Offset(to)))
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// It writes each record as one line of JSON, with memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct Formatter {
    /// The second that `stamp` shows, since 1970: records that come in a row mostly share it.
    second: Option<u64>,
    /// A time without its fraction, such as `2026-01-02T03:04:05`.
    stamp: Vec<u8>,
    base64: String,
}

impl Formatter {
    /// Appends the record's line, with its newline.
    pub(crate) fn line(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(LINE_START);
        write_json(record.offset.0, out);
        out.extend_from_slice(b",\"index\":");
        write_json(record.index, out);
        out.extend_from_slice(b",\"client\":\"");
        hex(record.session.client.0, out);
        out.extend_from_slice(b"\",\"epoch\":");
        write_json(record.session.epoch.value(), out);
        out.extend_from_slice(b",\"seq\":");
        write_json(record.seq.0, out);
        out.extend_from_slice(b",\"channel\":");
        write_json(record.channel, out);
        out.extend_from_slice(b",\"received_at\":\"");
        self.time(record.received_unix_us, out);
        out.push(b'"');
        if record.asks {
            out.extend_from_slice(b",\"ask\":true");
        }
        match record.content {
            Content::Payload(payload) => match str::from_utf8(payload) {
                Ok(text) => {
                    out.extend_from_slice(b",\"payload\":");
                    write_json(text, out);
                    out.extend_from_slice(b"}\n");
                }
                Err(_) => {
                    out.extend_from_slice(b",\"payload_base64\":\"");
                    self.base64.clear();
                    STANDARD.encode_string(payload, &mut self.base64);
                    out.extend_from_slice(self.base64.as_bytes());
                    out.extend_from_slice(b"\"}\n");
                }
            },
            Content::Gap { from, to } => {
                out.extend_from_slice(b",\"gap\":{\"from\":");
                write_json(from.0, out);
                out.extend_from_slice(b",\"to\":");
                write_json(to.0, out);
                out.extend_from_slice(b"}}\n");
            }
        }
    }

    /// RFC 3339 in UTC with six digits after the point.
    pub(crate) fn time(&mut self, unix_us: u64, out: &mut Vec<u8>) {
        let second = unix_us / 1_000_000;
        if self.second != Some(second) {
            self.second = Some(second);
            // The clock can be wrong, but a line has to be written: past the year 9999 it stays there.
            let time =
                i64::try_from(second).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or(Timestamp::MAX);
            self.stamp.clear();
            self.stamp.write_fmt(format_args!("{time:.0}")).expect("a vector takes all bytes");
            self.stamp.truncate("2026-01-02T03:04:05".len());
        }
        out.extend_from_slice(&self.stamp);
        out.push(b'.');
        let micros = unix_us % 1_000_000;
        for unit in [100_000, 10_000, 1_000, 100, 10, 1] {
            out.push(DIGITS[usize::try_from(micros / unit % 10).unwrap_or(0)]);
        }
        out.push(b'Z');
    }
}

/// A dead letter: its record, by the names and values of a line, and why it is one. Without the payload it still tells how
/// long that is. `sink` is what the sink is called whose letter it is; `None` for a handler of a program, which has no name.
pub(crate) fn dead_letter(letter: &DeadLetter, sink: Option<&str>, with_payload: bool) -> Value {
    let mut value = json!({
        "offset": letter.id.offset.0,
        "index": letter.id.index,
        "client": letter.session.client.to_string(),
        "epoch": letter.session.epoch.value(),
        "seq": letter.seq.0,
        "channel": letter.channel,
        "received_at": timestamp(letter.received_unix_us),
        "dead_since": timestamp(letter.since_unix_us),
        "attempts": letter.attempts,
        "error": letter.error,
        "payload_bytes": letter.payload.len(),
    });
    if letter.told_failed {
        value["told_failed"] = true.into();
    }
    if let Some(name) = sink {
        value["sink"] = name.into();
        value["sink_id"] = letter.id.sink.to_string().into();
    }
    match (letter.gap_from, str::from_utf8(&letter.payload)) {
        (Some(from), _) => value["gap"] = json!({ "from": from.0, "to": letter.seq.0 }),
        (None, _) if !with_payload => {}
        (None, Ok(text)) => value["payload"] = text.into(),
        (None, Err(_)) => value["payload_base64"] = STANDARD.encode(&letter.payload).into(),
    }
    value
}

/// A time as lines show it: RFC 3339 in UTC, with microseconds.
pub(crate) fn timestamp(unix_us: u64) -> String {
    let mut text = Vec::new();
    Formatter::default().time(unix_us, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Offset and index of the record, from the start of a line that [`Formatter::line`] has written; `None` for any other.
pub(crate) fn parse_key(line: &[u8]) -> Option<(Offset, u16)> {
    let (offset, rest) = number(line.strip_prefix(LINE_START)?)?;
    let (index, rest) = number(rest.strip_prefix(b",\"index\":")?)?;
    let (client, rest) = rest.strip_prefix(b",\"client\":\"")?.split_at_checked(16)?;
    u64::from_str_radix(str::from_utf8(client).ok()?, 16).ok()?;
    let (epoch, _) = number(rest.strip_prefix(b"\",\"epoch\":")?)?;
    Epoch::new(u32::try_from(epoch).ok()?)?;
    Some((Offset(offset), u16::try_from(index).ok()?))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    Some((str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

fn write_json(value: impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &value).expect("numbers and strings are JSON, and a vector takes all bytes");
}

fn hex(value: u64, out: &mut Vec<u8>) {
    for byte in value.to_be_bytes() {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use duragram_proto::{ClientId, Seq};
    use proptest::prelude::*;

    use super::*;
    use crate::model::{DeadLetterId, SessionId, SinkId};

    fn record(content: Content<'_>) -> Record<'_> {
        Record {
            offset: Offset(7),
            index: 0,
            session: SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() },
            seq: Seq(9),
            channel: 0,
            received_unix_us: 1_767_323_045_678_901,
            asks: false,
            content,
        }
    }

    fn line(record: &Record<'_>) -> String {
        let mut out = Vec::new();
        Formatter::default().line(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_those_of_the_contract() {
        assert_eq!(
            line(&record(Content::Payload(b"text"))),
            "{\"offset\":7,\"index\":0,\"client\":\"00000000000000a1\",\"epoch\":3,\"seq\":9,\"channel\":0,\
             \"received_at\":\"2026-01-02T03:04:05.678901Z\",\"payload\":\"text\"}\n"
        );
        assert_eq!(
            line(&record(Content::Gap { from: Seq(5), to: Seq(8) })),
            "{\"offset\":7,\"index\":0,\"client\":\"00000000000000a1\",\"epoch\":3,\"seq\":9,\"channel\":0,\
             \"received_at\":\"2026-01-02T03:04:05.678901Z\",\"gap\":{\"from\":5,\"to\":8}}\n"
        );
        assert_eq!(
            line(&Record { asks: true, ..record(Content::Payload(b"text")) }),
            "{\"offset\":7,\"index\":0,\"client\":\"00000000000000a1\",\"epoch\":3,\"seq\":9,\"channel\":0,\
             \"received_at\":\"2026-01-02T03:04:05.678901Z\",\"ask\":true,\"payload\":\"text\"}\n"
        );
        let extreme = Record {
            offset: Offset(u64::MAX),
            index: 32_752,
            session: SessionId { client: ClientId(u64::MAX), epoch: Epoch::new(u32::MAX).unwrap() },
            seq: Seq(u64::MAX),
            channel: 65_535,
            received_unix_us: 1_767_323_045_000_001,
            asks: false,
            content: Content::Payload(b"\xff\x00\xfe\x01"),
        };
        assert_eq!(
            line(&extreme),
            "{\"offset\":18446744073709551615,\"index\":32752,\"client\":\"ffffffffffffffff\",\"epoch\":4294967295,\
             \"seq\":18446744073709551615,\"channel\":65535,\"received_at\":\"2026-01-02T03:04:05.000001Z\",\
             \"payload_base64\":\"/wD+AQ==\"}\n"
        );
    }

    #[test]
    fn whatever_breaks_a_line_or_a_string_is_escaped() {
        for (payload, expected) in [
            (&b"a\nb\r\tc"[..], r#""payload":"a\nb\r\tc""#),
            (b"say \"hi\" \\ bye", r#""payload":"say \"hi\" \\ bye""#),
            (b"\x00\x1f\x7f", "\"payload\":\"\\u0000\\u001f\u{7f}\""),
            ("grün 🦀 \u{2028}".as_bytes(), "\"payload\":\"grün 🦀 \u{2028}\""),
            (b"", r#""payload":"""#),
        ] {
            let line = line(&record(Content::Payload(payload)));
            assert!(line.ends_with(&format!("{expected}}}\n")), "{line}");
        }
    }

    #[test]
    fn any_clock_gives_a_time() {
        for (unix_us, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (999_999, "1970-01-01T00:00:00.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (u64::MAX, "9999-12-30T22:00:00.551615Z"),
        ] {
            let line = line(&Record { received_unix_us: unix_us, ..record(Content::Payload(b"")) });
            assert!(line.contains(&format!("\"received_at\":\"{expected}\"")), "{line}");
        }
    }

    #[test]
    fn the_second_is_formatted_anew_when_it_changes() {
        let mut formatter = Formatter::default();
        let mut out = Vec::new();
        for second in [5, 6, 5] {
            formatter.line(&Record { received_unix_us: second * 1_000_000, ..record(Content::Payload(b"")) }, &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        let seconds: Vec<_> = text.lines().map(|line| &line[line.find("00:00:0").unwrap() + 7..][..1]).collect();
        assert_eq!(seconds, ["5", "6", "5"]);
    }

    proptest! {
        #[test]
        fn any_record_is_one_line_of_json_that_gives_it_back(
            offset: u64, index: u16, client: u64, epoch in 1u32.., seq: u64, channel: u16,
            received_unix_us in 0u64..253_000_000_000_000_000,
            payload in prop_oneof![any::<Vec<u8>>(), ".*".prop_map(String::into_bytes)],
        ) {
            let session = SessionId { client: ClientId(client), epoch: Epoch::new(epoch).unwrap() };
            let content = Content::Payload(&payload);
            let record =
                Record { offset: Offset(offset), index, session, seq: Seq(seq), channel, received_unix_us, asks: false, content };
            let line = line(&record);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let back = match (value["payload"].as_str(), value["payload_base64"].as_str()) {
                (Some(text), None) => text.as_bytes().to_vec(),
                (None, Some(text)) => STANDARD.decode(text).unwrap(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(back, payload);
            let time: Timestamp = value["received_at"].as_str().unwrap().parse().unwrap();
            prop_assert_eq!(u64::try_from(time.as_microsecond()).unwrap(), received_unix_us);
            prop_assert_eq!((value["seq"].as_u64(), value["channel"].as_u64()), (Some(seq), Some(channel.into())));
            prop_assert_eq!(parse_key(line.as_bytes()), Some((Offset(offset), index)));
        }
    }

    #[test]
    fn a_line_that_tells_of_a_loss_is_read_as_one_and_as_no_record() {
        let mut line = Vec::new();
        lost_line(Offset(7), Offset(u64::MAX), &mut line);
        assert_eq!(line, b"{\"lost\":{\"from\":7,\"to\":18446744073709551615}}\n");
        assert_eq!(parse_lost(&line), Some((Offset(7), Offset(u64::MAX))));
        assert_eq!(parse_key(&line), None);
        (0..line.len() - 1).for_each(|end| assert_eq!(parse_lost(&line[..end]), None));
    }

    #[test]
    fn a_dead_letter_tells_of_its_record_what_the_line_of_it_tells() {
        let contents = [
            Content::Payload(b"text"),
            Content::Payload(b"\xff\x00"),
            Content::Payload(b""),
            Content::Gap { from: Seq(5), to: Seq(9) },
        ];
        for content in contents {
            let (payload, gap_from) = match content {
                Content::Payload(payload) => (payload.to_vec(), None),
                Content::Gap { from, .. } => (Vec::new(), Some(from)),
            };
            let record = Record { index: 3, channel: 4, ..record(content) };
            let letter = DeadLetter {
                id: DeadLetterId { offset: record.offset, index: record.index, sink: SinkId::EMBEDDED },
                session: record.session,
                seq: record.seq,
                channel: record.channel,
                received_unix_us: record.received_unix_us,
                payload,
                gap_from,
                error: "the printer is on fire".into(),
                attempts: 10,
                since_unix_us: 1_767_323_046_000_000,
                told_failed: false,
            };
            let shown = dead_letter(&letter, None, true);
            assert!(shown.get("sink").is_none(), "a handler of a program has no name");
            assert_eq!(dead_letter(&letter, Some("events"), false)["sink"], "events");
            let line: serde_json::Map<String, Value> = serde_json::from_str(&line(&record)).unwrap();
            for (name, value) in &line {
                assert_eq!(&shown[name], value, "{name}");
            }
            assert_eq!(shown["payload_bytes"], letter.payload.len());
            assert_eq!((&shown["attempts"], &shown["error"]), (&json!(10), &json!("the printer is on fire")));
            assert_eq!(shown["dead_since"], "2026-01-02T03:04:06.000000Z");
            assert!(shown.get("told_failed").is_none(), "only where its sender has asked");
            let told = DeadLetter { told_failed: true, ..letter.clone() };
            assert_eq!(dead_letter(&told, None, false)["told_failed"], true);
            let brief = dead_letter(&letter, None, false);
            assert!(brief.get("payload").is_none() && brief.get("payload_base64").is_none());
            assert_eq!(brief.get("gap"), line.get("gap"), "without a payload the news is the gap");
        }
    }

    #[test]
    fn lines_of_other_programs_have_no_key() {
        let ours = line(&record(Content::Payload(b"text")));
        assert!(parse_key(ours.as_bytes()).is_some());
        for end in 0..ours.find(",\"seq\"").unwrap() - 1 {
            assert_eq!(parse_key(&ours.as_bytes()[..end]), None, "{}", &ours[..end]);
        }
        for line in [
            "",
            "hello",
            "{}",
            "{\"offset\":-1,\"index\":0",
            &ours.replace("000a1", "000g1"),
            &ours.replace(":3,", ":0,"),
        ] {
            assert_eq!(parse_key(line.as_bytes()), None, "{line}");
        }
    }
}
