//! Whose fault a status is: the record's, which becomes a dead letter, or the server's or the configuration's, which waits.

use std::time::Duration;

use jiff::Timestamp;

use super::reply::{Hidden, Reply};
use super::retry_after;

/// What an answer means for the records of its request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The server has taken the records.
    Taken(Reply),
    /// It will never take them as they are.
    Refused {
        reason: String,
        /// There were too many bytes of them.
        too_large: bool,
    },
    /// No record is to blame.
    Fault(Fault),
}

/// Why a request came to nothing, for which no record is to blame.
#[derive(Debug)]
pub(super) struct Fault {
    /// What happened, and what to do.
    pub(super) reason: String,
    /// How long the server wants to be left alone.
    pub(super) pause: Option<Duration>,
}

impl Fault {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), pause: None }
    }
}

/// Judges an answer of the server at `origin` by its status.
///
/// The record's fault are 400, 413 and 422 alone: they speak of the content. All other refusals are the same for every record, so that
/// dead letters would be made of all of them for a mistake in one line of a configuration: they wait until somebody mends it.
pub(super) fn judge(origin: &str, reply: Reply, hidden: &Hidden) -> Verdict {
    let status = reply.status;
    if (200..300).contains(&status) {
        return Verdict::Taken(reply);
    }
    let said = match hidden.printable(&reply.body) {
        said if said.is_empty() => String::new(),
        said => format!(" ({said})"),
    };
    if matches!(status, 400 | 413 | 422) {
        return Verdict::Refused { reason: format!("{origin} answered {status}{said}"), too_large: status == 413 };
    }
    let advice = match status {
        300..=399 => match &reply.location {
            Some(location) => {
                // What follows the question mark may be a token.
                let place = location.split(['?', '#']).next().unwrap_or_default();
                format!("redirects are not followed: it points to {}; check `url`", hidden.printable(place.as_bytes()))
            }
            None => "redirects are not followed: check `url`".to_owned(),
        },
        401 => "check `auth`: its secret is read anew before the next try".to_owned(),
        403 => "check what this sink's user may do there, and `auth`".to_owned(),
        404 | 410 => "nothing is at this path: check `url`".to_owned(),
        407 => "a proxy wants to know who asks, which is not supported: check `url`".to_owned(),
        408 | 409 | 423 | 424 | 425 | 429 => "it is asked again later".to_owned(),
        501 | 505 => "it does not know such requests: check `url`".to_owned(),
        500..=599 => "it is asked again later".to_owned(),
        _ => "it takes no such requests: check `url`, `mode`, `content_type` and `headers`".to_owned(),
    };
    let waits = reply.retry_after.as_deref();
    let pause = waits.and_then(|value| retry_after::delay(value, reply.date.as_deref(), Timestamp::now()));
    Verdict::Fault(Fault { reason: format!("{origin} answered {status}{said}: {advice}"), pause })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16) -> Reply {
        let body = b"because".to_vec();
        let (content_type, retry_after, date, location) = (None, None, None, None);
        Reply { status, content_type, retry_after, date, location, body, complete: true }
    }

    #[test]
    fn only_three_statuses_are_a_records_fault_and_only_2xx_is_success() {
        for status in 100..1000 {
            let verdict = judge("http://h", reply(status), &Hidden::default());
            let as_it_should = match status {
                200..300 => matches!(verdict, Verdict::Taken(_)),
                413 => matches!(verdict, Verdict::Refused { too_large: true, .. }),
                400 | 422 => matches!(verdict, Verdict::Refused { too_large: false, .. }),
                _ => matches!(verdict, Verdict::Fault(_)),
            };
            assert!(as_it_should, "{status}: {verdict:?}");
        }
    }

    #[test]
    fn a_fault_names_the_server_the_status_what_it_said_and_what_to_do() {
        let Verdict::Fault(fault) = judge("http://h:1", reply(404), &Hidden::default()) else { panic!() };
        assert_eq!(fault.reason, "http://h:1 answered 404 (because): nothing is at this path: check `url`");
        assert_eq!(fault.pause, None);
    }

    #[test]
    fn a_redirect_names_its_target_without_the_query() {
        let redirect = Reply { location: Some("https://new/path?token=s3cret".to_owned()), ..reply(308) };
        let Verdict::Fault(fault) = judge("http://h", redirect, &Hidden::default()) else { panic!() };
        assert!(fault.reason.contains("https://new/path;") && !fault.reason.contains("s3cret"), "{}", fault.reason);
    }

    #[test]
    fn a_server_that_asks_for_a_pause_gets_it_whatever_its_status_is() {
        for status in [429, 500, 503, 403] {
            let busy = Reply { retry_after: Some("3".to_owned()), ..reply(status) };
            let Verdict::Fault(fault) = judge("http://h", busy, &Hidden::default()) else { panic!() };
            assert_eq!(fault.pause, Some(Duration::from_secs(3)), "{status}");
        }
    }
}
