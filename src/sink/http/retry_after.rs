//! `Retry-After`: how long a server wants to be left alone (RFC 9110, section 10.2.3).

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use crate::limits;

/// The three forms of a date in HTTP (RFC 9110, section 5.6.7): today's, and two that old servers send.
const DATES: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// How long to wait: seconds, or the time up to a date. That is measured from the server's own `Date`, where it tells one, since
/// its clock need not be ours. No longer than [`limits::HTTP_RETRY_AFTER_S`]; `None` when it says nothing that is understood.
pub(super) fn delay(value: &str, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let longest = Duration::from_secs(limits::HTTP_RETRY_AFTER_S);
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit()) {
        // More digits than a number has: far beyond the longest.
        return Some(value.parse().map_or(longest, Duration::from_secs).min(longest));
    }
    let until = parse(value)?;
    let from = date.and_then(parse).unwrap_or(now);
    // A date that has passed asks for no wait.
    let seconds = u64::try_from(until.as_second().saturating_sub(from.as_second())).unwrap_or(0);
    Some(Duration::from_secs(seconds).min(longest))
}

fn parse(date: &str) -> Option<Timestamp> {
    DATES.iter().find_map(|format| {
        let time = strtime::parse(format, date.trim()).and_then(|parsed| parsed.to_datetime()).ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: &str, date: Option<&str>) -> Option<u64> {
        // 1994-11-06, 08:49:37 in UTC.
        delay(value, date, Timestamp::from_second(784_111_777).unwrap()).map(|delay| delay.as_secs())
    }

    #[test]
    fn seconds_are_waited_and_never_more_than_ten_minutes() {
        for (value, expected) in [("0", 0), ("7", 7), (" 120 ", 120), ("601", 600), ("99999999999999999999999", 600)] {
            assert_eq!(seconds(value, None), Some(expected), "{value}");
        }
    }

    #[test]
    fn a_date_in_each_form_is_waited_for_and_never_more_than_ten_minutes() {
        for (value, expected) in [
            ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
            ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
            ("Sun Nov  6 08:50:37 1994", 60),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
            ("Sun, 06 Nov 1994 07:00:00 GMT", 0),
            ("Mon, 07 Nov 1994 08:49:37 GMT", 600),
        ] {
            assert_eq!(seconds(value, None), Some(expected), "{value}");
        }
    }

    #[test]
    fn a_date_counts_from_the_servers_own_clock() {
        let an_hour_ahead = Some("Sun, 06 Nov 1994 09:49:37 GMT");
        assert_eq!(seconds("Sun, 06 Nov 1994 09:49:47 GMT", an_hour_ahead), Some(10));
    }

    #[test]
    fn what_is_no_time_is_ignored() {
        for value in ["", "-1", "1.5", "soon", "Sun, 99 Nov 1994 08:50:37 GMT", "Sun, 06 Nov 1994", "\u{665}"] {
            assert_eq!(seconds(value, None), None, "{value}");
        }
    }
}
