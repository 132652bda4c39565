//! Tests of where configured sinks go on in a journal.

use std::time::Duration;

use super::*;
use crate::model::{HttpMode, HttpTarget, TlsConfig};

fn spec(text: &str) -> SinkConfig {
    text.parse().unwrap()
}

fn http(url: &str) -> SinkConfig {
    let target = HttpTarget {
        url: url.into(),
        mode: HttpMode::Record,
        content_type: "application/octet-stream".into(),
        headers: Vec::new(),
        auth: None,
        tls: TlsConfig::default(),
        gzip: false,
        in_flight_max: 1,
    };
    SinkConfig { name: "web".into(), target: SinkTarget::Http(target), ..spec("null") }
}

/// A journal that holds the entries from 10 to 100, and knows of nobody.
fn empty() -> Known<'static> {
    Known { sinks: &[], lanes: &[], former: &[], low: Offset(10), end: Offset(100), instance: 3 }
}

fn mark(watermark: u64, sink_state: &[u8]) -> LaneMark {
    LaneMark { watermark: Offset(watermark), sink_state: sink_state.to_vec() }
}

/// The sinks of a journal after these were configured and have come to entry 50.
fn known(configs: &[SinkConfig]) -> Vec<SinkRecord> {
    let planned = plan(configs, empty()).unwrap().0;
    planned.into_iter().map(|planned| SinkRecord { mark: mark(50, b"state"), ..planned.record }).collect()
}

#[test]
fn a_new_sink_begins_where_it_is_told_to() {
    let begin = |start| {
        let (planned, _) = plan(&[SinkConfig { start, ..spec("null") }], empty()).unwrap();
        assert_eq!(planned[0].renumbered.marks, [planned[0].record.mark.clone()]);
        assert!(planned[0].record.holds && !planned[0].record.paused && planned[0].record.id != SinkId::EMBEDDED);
        planned[0].record.mark.watermark.0
    };
    assert_eq!(begin(SinkStart::Oldest), 10);
    assert_eq!(begin(SinkStart::Now), 100);
    for (at, begins) in [(3, 10), (42, 42), (1000, 100)] {
        assert_eq!(begin(SinkStart::At(Offset(at))), begins);
    }
}

#[test]
fn a_known_name_goes_on_at_its_mark_and_one_that_is_gone_is_kept() {
    let sinks = known(&[spec("null"), spec("file:/srv/a")]);
    let again = SinkConfig { start: SinkStart::Now, ..spec("file:/srv/a") };
    let (planned, gone) = plan(&[spec("stdout"), again], Known { sinks: &sinks, ..empty() }).unwrap();
    assert_eq!(planned[1].record, sinks[1]);
    assert_eq!(planned[1].renumbered, Renumbered { marks: vec![mark(50, b"state")], ..Renumbered::default() });
    assert_eq!(planned[0].record.mark.watermark, Offset(10));
    assert_eq!(gone, sinks[..1]);
}

#[test]
fn a_name_that_has_come_to_mean_something_else_is_refused_with_the_ways_out() {
    let sinks = known(&[http("http://one/path")]);
    let with = |config: SinkConfig| plan(&[config], Known { sinks: &sinks, ..empty() });
    let slower = SinkConfig { timeout: Duration::from_secs(1), attempts_max: 3, ..http("http://me@one/path") };
    assert!(with(slower).is_ok(), "how fast and as whom is not where to");
    for other in [
        http("http://two/path"),
        http("http://one/other"),
        SinkConfig { channels: vec![1..=2], ..http("http://one/path") },
        SinkConfig { name: "web".into(), ..spec("null") },
    ] {
        let refusal = with(other).unwrap_err();
        assert_eq!(refusal, SinkRefusal::Changed { name: "web".into(), at: Offset(50) });
        let text = refusal.to_string();
        assert!(
            text.contains("\"web\"") && text.contains("new name") && text.contains("duragram sink remove"),
            "{text}"
        );
    }
}

#[test]
fn how_a_connection_is_protected_may_change_under_a_name() {
    for (plain, encrypted) in [
        ("redis://h:1?key=k", "rediss://h:1?key=k"),
        ("mqtt://h:1/t", "mqtts://h:1/t"),
        ("http://h:1/x", "https://h:1/x"),
        ("postgres://u@h:1/d?table=t", "postgresql://u@h:1/d?table=t&sslmode=require"),
    ] {
        let named = |text: &str| SinkConfig { name: "web".into(), ..spec(text) };
        let sinks = known(&[named(plain)]);
        assert!(plan(&[named(encrypted)], Known { sinks: &sinks, ..empty() }).is_ok(), "{encrypted}");
    }
}

#[test]
fn names_that_cannot_be_kept_apart_or_kept_at_all_are_refused() {
    let twice = plan(&[spec("null"), spec("stdout"), spec("null")], empty()).unwrap_err();
    assert_eq!(twice, SinkRefusal::Twice("null".into()));
    let long = plan(&[spec(&format!("file:/{}", "x".repeat(300)))], empty()).unwrap_err();
    assert!(matches!(&long, SinkRefusal::Unnamable(_)) && long.to_string().contains("[[sink]]"), "{long}");
    let many: Vec<_> =
        (0..limits::SINKS_REMEMBERED).map(|n| SinkConfig { name: n.to_string(), ..spec("null") }).collect();
    let sinks = known(&many);
    let many_known = Known { sinks: &sinks, ..empty() };
    assert!(plan(&many, many_known).is_ok());
    let refusal = plan(&[many[0].clone(), spec("null")], many_known).unwrap_err();
    assert_eq!(refusal, SinkRefusal::TooMany { configured: 2, kept: limits::SINKS_REMEMBERED - 1 });
}

/// What `null` and a file that went on together have left in a lane.
fn together(file_state: &str) -> Vec<u8> {
    use base64::Engine as _;
    let state = base64::engine::general_purpose::STANDARD.encode(file_state);
    format!("{{\"file:/srv/a\":\"{state}\",\"null\":\"\"}}").into_bytes()
}

#[test]
fn sinks_that_went_on_together_go_on_each_with_its_own_state() {
    let lanes = [mark(40, &together("first")), mark(60, &together("second"))];
    let shared = Known { lanes: &lanes, ..empty() };
    let named = SinkConfig { name: "lines".into(), ..spec("file:/srv/a") };
    let (planned, gone) = plan(&[named, spec("null"), spec("stdout")], shared).unwrap();
    assert_eq!(gone, []);
    let lines = &planned[0];
    assert_eq!(lines.renumbered.marks, [mark(40, b"")]);
    assert_eq!(lines.renumbered.left, [mark(40, b"first"), mark(60, b"second")]);
    assert_eq!(lines.record.former, [FormerLanes(vec![Offset(40), Offset(60)])], "nothing comes twice");
    assert_eq!(planned[1].renumbered.left, [mark(40, b""), mark(60, b"")]);
    assert_eq!(planned[2].renumbered, Renumbered { marks: vec![mark(10, b"")], ..Renumbered::default() });
    let (now, _) = plan(&[SinkConfig { start: SinkStart::Now, ..spec("stdout") }], shared).unwrap();
    assert_eq!(now[0].record.mark.watermark, Offset(10), "what nobody has processed must not be lost");
}

#[test]
fn the_only_lane_of_sinks_that_went_on_together_is_gone_on_from_as_it_was() {
    let lanes = [mark(40, &together("state"))];
    let (planned, _) = plan(&[spec("file:/srv/a")], Known { lanes: &lanes, ..empty() }).unwrap();
    assert_eq!(planned[0].renumbered, Renumbered { marks: vec![mark(40, b"state")], ..Renumbered::default() });
}
