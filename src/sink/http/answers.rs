//! What a server says of each record of a batch, where it does: lines or an array of
//! `{"offset":7,"index":0,"done":true}`, with `"retry":"reason"` or `"give_up":"reason"` in place of `"done"`; beside `"done"` an
//! `"answer"` or `"answer_base64"` for who has asked.
//!
//! A response of another kind (`{"status":"ok"}`, a page, nothing) answers for the whole batch by its status. One that begins
//! like such answers and goes on as something else is refused as a whole: it could mean anything.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Deserializer;

use crate::process::handler::Outcome;
use crate::sink::answer_body;

/// What became of a record, which its offset and its index name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Judged {
    pub(super) name: (u64, u16),
    pub(super) outcome: Outcome,
    /// What is said to who has asked.
    pub(super) body: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct Line {
    offset: u64,
    index: u16,
    done: Option<bool>,
    retry: Option<String>,
    give_up: Option<String>,
    answer: Option<String>,
    answer_base64: Option<String>,
}

/// Tells an answer from another object.
#[derive(Deserialize)]
struct Probe {
    offset: Option<IgnoredAny>,
    index: Option<IgnoredAny>,
}

/// What a response may hold, by its `Content-Type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The body holds answers, one on each line.
    Lines,
    /// The body may hold answers, or JSON that means something else.
    Json,
    /// What holds no answers in any case.
    Other,
}

impl Kind {
    fn of(content_type: Option<&str>) -> Self {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Lines,
            "application/json" => Self::Json,
            _ => Self::Other,
        }
    }
}

/// Whether a response of this type may hold answers: then it must be read to its end.
pub(super) fn may_be_in(content_type: Option<&str>) -> bool {
    Kind::of(content_type) != Kind::Other
}

/// Reads the answers; `None` when there are none, so that the status speaks for all.
///
/// # Errors
/// There are answers, and one of them cannot be understood: which, and why.
pub(super) fn read(content_type: Option<&str>, body: &[u8]) -> Result<Option<Vec<Judged>>, String> {
    let body = body.trim_ascii();
    let is_for_each = match Kind::of(content_type) {
        Kind::Lines => true,
        Kind::Json => begins_like_answers(body),
        Kind::Other => false,
    };
    if body.is_empty() || !is_for_each {
        return Ok(None);
    }
    let parsed: Vec<Line> = if body.starts_with(b"[") {
        serde_json::from_slice(body).map_err(|error| error.to_string())?
    } else {
        Deserializer::from_slice(body).into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())?
    };
    parsed.into_iter().map(answered).collect::<Result<_, _>>().map(Some)
}

fn begins_like_answers(body: &[u8]) -> bool {
    let first = body.strip_prefix(b"[").unwrap_or(body);
    let probe = Probe::deserialize(&mut Deserializer::from_slice(first));
    probe.is_ok_and(|probe| probe.offset.is_some() && probe.index.is_some())
}

fn answered(line: Line) -> Result<Judged, String> {
    let Line { offset, index, done, retry, give_up, answer, answer_base64 } = line;
    let of = format_args!("the answer for offset {offset}, index {index}");
    let outcome = match (done, retry, give_up) {
        (Some(true), None, None) => Outcome::Done,
        (None, Some(reason), None) => Outcome::Retry(reason),
        (None, None, Some(reason)) => Outcome::GiveUp(reason),
        _ => {
            return Err(format!("{of} must have one of \"done\":true, \"retry\" and \"give_up\""));
        }
    };
    let body = answer_body::read(answer.map(Cow::Owned), answer_base64.map(Cow::Owned));
    let body = body.map_err(|error| format!("{of}: {error}"))?.map(Cow::into_owned);
    // One that does not know "answer" beside others meant something else by it before.
    let body = body.filter(|_| outcome == Outcome::Done);
    Ok(Judged { name: (offset, index), outcome, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: Option<&str> = Some("application/json; charset=utf-8");
    const LINES: Option<&str> = Some("application/x-ndjson");

    fn three() -> Vec<Judged> {
        let outcomes = [Outcome::Done, Outcome::Retry("busy".into()), Outcome::GiveUp("bad".into())];
        let bodies = [Some(b"thanks".to_vec()), None, None];
        let judged = |(offset, (outcome, body))| Judged { name: (offset, 0), outcome, body };
        (7..).zip(outcomes.into_iter().zip(bodies)).map(judged).collect()
    }

    #[test]
    fn lines_and_an_array_say_the_same() {
        let items = [
            r#"{"offset":7,"index":0,"done":true,"answer":"thanks"}"#,
            r#"{"offset":8,"index":0,"retry":"busy"}"#,
            r#"{"index":0,"offset":9,"give_up":"bad"}"#,
        ];
        let (lines, array) = (items.join("\n"), format!(" [{}] ", items.join(",\n")));
        for (content_type, body) in [(LINES, &lines), (JSON, &lines), (LINES, &array), (JSON, &array)] {
            assert_eq!(read(content_type, body.as_bytes()), Ok(Some(three())), "{body}");
        }
    }

    #[test]
    fn a_response_of_another_kind_answers_for_none() {
        for (content_type, body) in [
            (JSON, r#"{"status":"ok"}"#),
            (JSON, r#"{"inserted":1000,"offset":3}"#),
            (JSON, "[]"),
            (JSON, "[1,2]"),
            (JSON, "\"fine\""),
            (JSON, "no JSON at all"),
            (JSON, " \n"),
            (LINES, ""),
            (None, r#"{"offset":7,"index":0,"done":true}"#),
            (Some("text/html"), "<p>Thanks</p>"),
        ] {
            assert_eq!(read(content_type, body.as_bytes()), Ok(None), "{body}");
        }
    }

    #[test]
    fn answers_that_go_on_as_something_else_are_refused_as_a_whole() {
        let good = r#"{"offset":7,"index":0,"done":true}"#;
        for (content_type, body) in [
            (LINES, format!("{good}\n{{\"off")),
            (LINES, format!("{good}\nOK")),
            (LINES, "OK".to_owned()),
            (JSON, format!("[{good},3]")),
            (JSON, format!("[{good}")),
            (JSON, r#"{"offset":7,"index":0}"#.to_owned()),
            (JSON, r#"{"offset":7,"index":0,"done":false}"#.to_owned()),
            (JSON, r#"{"offset":7,"index":0,"done":true,"retry":"x"}"#.to_owned()),
            (JSON, r#"{"offset":7,"index":0,"done":true,"answer_base64":"no base64"}"#.to_owned()),
            (JSON, r#"{"offset":7,"index":0,"done":true,"answer":"x","answer_base64":"eA=="}"#.to_owned()),
            (JSON, r#"{"offset":-7,"index":0,"done":true}"#.to_owned()),
            (JSON, r#"{"offset":7,"index":65536,"done":true}"#.to_owned()),
        ] {
            assert!(read(content_type, body.as_bytes()).is_err(), "{body}");
        }
    }
}
