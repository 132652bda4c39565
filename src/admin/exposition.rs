//! The two text formats of Prometheus, and which of them a scraper gets.
//!
//! The registry writes OpenMetrics 1.0. What every scraper reads is the older text format 0.0.4, in which a counter's
//! HELP and TYPE carry the name of its sample, `_total` included: a reader of one format loses the counters of the other.
//! So a scraper gets OpenMetrics only when it names that in its `Accept`, and likes it no less.

use std::fmt::Write as _;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// A format in which metrics are exposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exposition {
    /// Prometheus defines this text format: `text/plain; version=0.0.4`.
    Classic,
    /// OpenMetrics defines this format: `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Exposition {
    /// Returns the value of the header `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What these headers ask for (RFC 9110, section 12.5.1). Who asks for neither format gets the classic one, as from
    /// other Prometheus clients.
    pub(super) fn accepted_by(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<Range<'_>> = fields.flat_map(|field| field.split(',')).filter_map(Range::parse).collect();
        let classic = Wish::of(&ranges, "text", "plain", &["0.0.4"]);
        let open = Wish::of(&ranges, "application", "openmetrics-text", &["1.0.0", "0.0.1"]);
        let by_name = open.named && open.weight > 0 && open.weight >= classic.weight;
        if by_name || open.weight > classic.weight { Self::OpenMetrics } else { Self::Classic }
    }

    /// A registry's OpenMetrics text in this format.
    pub(super) fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Classic => classic(&open_metrics),
        }
    }
}

/// A media range of an `Accept` header.
#[derive(Debug)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    /// The client weighs it so, in thousandths from 0 to 1000.
    weight: u16,
}

impl<'a> Range<'a> {
    /// `None` for what is no media range: it asks for nothing.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self { kind, subtype, version: None, weight: 1000 };
        for parameter in parts.filter(|part| !part.is_empty()) {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("q") {
                range.weight = thousandths(value)?;
            } else if name.trim().eq_ignore_ascii_case("version") {
                range.version = Some(value);
            }
        }
        Some(range)
    }

    /// How exactly it names this type; `None` when it does not.
    fn fits(&self, kind: &str, subtype: &str, versions: &[&str]) -> Option<u8> {
        let is = |range: &str, name: &str| range.eq_ignore_ascii_case(name);
        match (is(self.kind, kind), self.subtype) {
            (true, named) if is(named, subtype) => match self.version {
                None => Some(2),
                Some(version) => versions.contains(&version).then_some(3),
            },
            (true, "*") => Some(1),
            (false, "*") if self.kind == "*" => Some(0),
            _ => None,
        }
    }
}

/// How much a format is wanted.
#[derive(Debug)]
struct Wish {
    /// The weight in thousandths; 0 when it is not accepted at all.
    weight: u16,
    /// It is accepted by its own name rather than by a wildcard.
    named: bool,
}

impl Wish {
    /// The most exact range that fits decides; of several, the one that wants it most.
    fn of(ranges: &[Range<'_>], kind: &str, subtype: &str, versions: &[&str]) -> Self {
        let fitting = ranges.iter().filter_map(|range| Some((range.fits(kind, subtype, versions)?, range.weight)));
        let (exactness, weight) = fitting.max().unwrap_or((0, 0));
        Self { weight, named: exactness >= 2 }
    }
}

/// A weight such as `0.5` or `1`.
fn thousandths(text: &str) -> Option<u16> {
    let weight: f64 = text.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    (0..=1000).rev().find(|&whole| f64::from(whole) / 1000.0 <= weight + 1e-9)
}

/// The classic text format of what the registry wrote as OpenMetrics.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // HELP comes first and TYPE after it, and only TYPE tells by which name the samples go.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                known => ("", known),
            };
            let told = help.take().and_then(|help: &str| help.split_once(' ')).filter(|(of, _)| *of == name);
            if let Some((_, help)) = told {
                // OpenMetrics escapes quotation marks too; here they stand for themselves.
                let _infallible = writeln!(text, "# HELP {name}{suffix} {}", help.replace("\\\"", "\""));
            }
            let _infallible = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::Metrics;

    fn asked(accept: &[&str]) -> Exposition {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        Exposition::accepted_by(&headers)
    }

    #[test]
    fn a_scraper_gets_the_format_that_it_asks_for_and_the_classic_one_when_it_does_not_care() {
        let open = [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0",
            "text/plain;version=0.0.4;q=0.5, */*;q=0.9",
            "text/plain;q=0, */*",
            "text/*;q=0.2, application/*;q=0.3",
        ];
        for accept in open {
            assert_eq!(asked(&[accept]), Exposition::OpenMetrics, "{accept}");
        }
        let classic = [
            "",
            "*/*",
            "text/plain",
            "text/*",
            "text/plain;version=0.0.4",
            "text/plain; version=0.0.4; charset=utf-8, */*;q=0.1",
            "application/openmetrics-text;q=0, */*",
            "application/openmetrics-text;q=0.3, text/plain;q=0.7",
            "application/openmetrics-text;version=2.0.0, text/plain;q=0.1",
            "application/openmetrics-text;q=nonsense",
            "application/openmetrics-text;q=7",
            "application/openmetrics-text;q=NaN",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3",
            "application/json",
            "no media range, ;;, =, /",
        ];
        for accept in classic {
            assert_eq!(asked(&[accept]), Exposition::Classic, "{accept}");
        }
        assert_eq!(asked(&[]), Exposition::Classic);
        assert_eq!(asked(&["text/plain;q=0.5", "application/openmetrics-text;q=0.6"]), Exposition::OpenMetrics);
    }

    /// As Go's expfmt reads it: a sample belongs to the TYPE in front of it by its name, or by what a histogram adds.
    #[test]
    fn in_the_classic_format_every_sample_stands_under_a_type_of_its_own_name() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.commit_seconds.observe(0.001);
        let mut open_metrics = String::new();
        encode(&mut open_metrics, &registry).unwrap();
        let text = Exposition::Classic.write(open_metrics.clone());
        let (mut name, mut kind, mut helped) = ("", "", "");
        let mut samples = 0;
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["#", "HELP", of, _, ..] => helped = of,
                ["#", "TYPE", of, type_] => {
                    assert_eq!(of, helped, "HELP and TYPE are of one name");
                    assert!(["counter", "gauge", "histogram"].contains(&type_), "{line}");
                    (name, kind) = (of, type_);
                }
                ["#", ..] => panic!("{line}"),
                _ => {
                    samples += 1;
                    let sample = line.split(['{', ' ']).next().unwrap();
                    let suffix = sample.strip_prefix(name).unwrap_or_else(|| panic!("{line} stands under {name}"));
                    match kind {
                        "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                        "counter" => assert!(suffix.is_empty() && name.ends_with("_total"), "{line}"),
                        _ => assert!(suffix.is_empty(), "{line}"),
                    }
                }
            }
        }
        let of_open_metrics = open_metrics.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples, of_open_metrics, "no sample is lost");
        assert!(text.contains("# TYPE duragram_commits_total counter\nduragram_commits_total 0\n"), "{text}");
        assert!(text.contains("# TYPE duragram_build_info gauge\nduragram_build_info{version="), "{text}");
        assert!(!text.contains("EOF") && !text.contains("UNIT"), "{text}");
    }
}
