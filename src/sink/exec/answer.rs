//! What a child says of a record, in one line.

use std::borrow::Cow;

use serde::Deserialize;

use crate::sink::answer_body;

/// A line of a child's standard output.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Answer<'a> {
    pub(super) offset: u64,
    pub(super) index: u16,
    pub(super) verdict: Verdict<'a>,
}

/// What became of the record.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Verdict<'a> {
    /// With what it says to who has asked.
    Done(Option<Cow<'a, [u8]>>),
    Retry(Cow<'a, str>),
    GiveUp(Cow<'a, str>),
}

/// The keys of a line. Unknown ones are refused: `giveup` must not pass for nothing at all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys<'a> {
    offset: u64,
    index: u16,
    done: Option<bool>,
    #[serde(borrow)]
    retry: Option<Cow<'a, str>>,
    #[serde(borrow)]
    give_up: Option<Cow<'a, str>>,
    #[serde(borrow)]
    answer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    answer_base64: Option<Cow<'a, str>>,
}

impl<'a> Answer<'a> {
    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// It says something else, which the text names.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, String> {
        let keys: Keys<'a> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let body = answer_body::read(keys.answer, keys.answer_base64)?;
        let verdict = match (keys.done, keys.retry, keys.give_up) {
            (Some(true), None, None) => Verdict::Done(body),
            (None, _, _) if body.is_some() => return Err("an answer can stand beside \"done\" alone".into()),
            (None, Some(reason), None) => Verdict::Retry(reason),
            (None, None, Some(reason)) => Verdict::GiveUp(reason),
            _ => return Err("exactly one of \"done\":true, \"retry\":REASON and \"give_up\":REASON is expected".into()),
        };
        Ok(Self { offset: keys.offset, index: keys.index, verdict })
    }
}

/// The beginning of a line for an error to show, without what a terminal would obey.
pub(super) fn excerpt(line: &[u8]) -> String {
    const SHOWN: usize = 120;
    let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
    let mut text: String = shown.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > SHOWN {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn each_verdict_is_read_with_its_reason_and_keys_in_any_order() {
        let cases: [(&str, Verdict<'_>); 6] = [
            (r#"{"offset":7,"index":2,"done":true}"#, Verdict::Done(None)),
            (r#"{"done":true,"index":2,"offset":7}"#, Verdict::Done(None)),
            (r#"{"offset":7,"index":2,"done":true,"answer":"thanks\u0021"}"#, Verdict::Done(Some(b"thanks!".into()))),
            (r#"{"offset":7,"index":2,"done":true,"answer_base64":"AP8="}"#, Verdict::Done(Some(b"\x00\xff".into()))),
            (r#"{"offset":7,"index":2,"retry":"b\u00fcsy"}"#, Verdict::Retry("büsy".into())),
            (r#" {"offset":7,"index":2,"give_up":"no such user"} "#, Verdict::GiveUp("no such user".into())),
        ];
        for (line, verdict) in cases {
            assert_eq!(Answer::parse(line.as_bytes()), Ok(Answer { offset: 7, index: 2, verdict }), "{line}");
        }
    }

    #[test]
    fn what_is_not_exactly_one_verdict_is_refused() {
        for line in [
            "",
            "hello",
            "7",
            "[7,0]",
            r#"{"offset":7,"index":0}"#,
            r#"{"offset":7,"index":0,"done":false}"#,
            r#"{"offset":7,"index":0,"done":true,"retry":"x"}"#,
            r#"{"offset":7,"index":0,"giveup":"x"}"#,
            r#"{"offset":7,"index":70000,"done":true}"#,
            r#"{"offset":-7,"index":0,"done":true}"#,
            r#"{"index":0,"done":true}"#,
            r#"{"offset":7,"offset":8,"index":0,"done":true}"#,
            r#"{"offset":7,"index":0,"retry":"x","answer":"y"}"#,
            r#"{"offset":7,"index":0,"done":true,"answer":"x","answer_base64":"eA=="}"#,
            r#"{"offset":7,"index":0,"done":true,"answer_base64":"not base64"}"#,
            r#"{"offset":7,"index":0,"done":true}{"offset":8,"index":0,"done":true}"#,
        ] {
            assert!(Answer::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Answer::parse(b"{\"offset\":7,\"index\":0,\"retry\":\"\xff\"}").is_err());
    }

    #[test]
    fn the_longest_answer_that_may_be_configured_fits_into_a_line_however_it_is_written() {
        let bytes = usize::try_from(*crate::limits::ANSWER_BYTES.end()).unwrap();
        let text = format!(r#"{{"offset":7,"index":0,"done":true,"answer":"{}"}}"#, "\\u0001".repeat(bytes));
        let base64 =
            format!(r#"{{"offset":7,"index":0,"done":true,"answer_base64":"{}"}}"#, STANDARD.encode(vec![0xff; bytes]));
        for (line, body) in [(text, vec![1; bytes]), (base64, vec![0xff; bytes])] {
            assert!(line.len() < crate::limits::EXEC_LINE_BYTES);
            let answer = Answer::parse(line.as_bytes()).unwrap();
            assert_eq!(answer.verdict, Verdict::Done(Some(body.into())));
        }
    }

    #[test]
    fn an_excerpt_is_short_and_cannot_steer_a_terminal() {
        assert_eq!(excerpt(b"\x1b[31mred\r\n"), " [31mred");
        assert_eq!(excerpt(&[b'x'; 1000]).chars().count(), 121);
    }
}
