//! These tests check that every metric is counted, shown and described.

use std::collections::BTreeSet;

use super::*;

#[test]
fn every_metric_has_a_name_of_its_own_a_type_and_help() {
    let catalogue = Metrics::catalogue();
    let names: BTreeSet<&str> = catalogue.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names.len(), catalogue.len());
    for metric in &catalogue {
        assert!(metric.name.starts_with("duragram_") || metric.name.starts_with("process_"), "{metric:?}");
        assert!(!metric.kind.is_empty() && metric.help.len() > 6, "{metric:?}");
    }
    for name in ["duragram_commits_total", "duragram_build_info", "duragram_lane_lag_entries", "process_open_fds"] {
        assert!(names.contains(name), "{name} is missing in {names:?}");
    }
}

/// A field that is not registered would count in silence.
#[test]
fn every_field_is_registered() {
    let source = include_str!("../metrics.rs");
    let fields = source.split("pub struct Metrics {").nth(1).unwrap().split("\n}").next().unwrap();
    for field in fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
        let name = field.split(':').next().unwrap();
        assert!(source.contains(&format!("m.{name}.clone()")), "{name} is not registered");
    }
}

/// The words in quotation marks.
fn words(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_outcome_that_is_counted_is_there_from_the_start_with_0() {
    let mut registry = Registry::default();
    Metrics::register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let mut counted = Vec::new();
    let files = ["commit", "commit/committer", "dialect/duragram", "dialect/duragram/admission"]
        .into_iter()
        .flat_map(|dir| fs::read_dir(format!("{}/src/{dir}", env!("CARGO_MANIFEST_DIR"))).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
        .filter(|path| !path.to_string_lossy().ends_with("tests.rs"));
    for source in files.map(|path| fs::read_to_string(path).unwrap()) {
        for line in source.lines() {
            for (call, family) in
                [(".count(", "datagrams"), (".replies_sent(", "replies"), (".replies_withheld(", "replies_withheld")]
            {
                let words = line.split_once(call).map(|(_, rest)| words(rest)).unwrap_or_default();
                counted.extend(words.into_iter().map(|word| (family, word.to_owned())));
            }
        }
        // Of refusals by their codes.
        let names = source.split_once("const NAMES").and_then(|(_, rest)| rest.split_once("];"));
        let words = names.map(|(names, _)| words(names)).unwrap_or_default();
        counted.extend(words.into_iter().map(|word| ("datagrams", word.to_owned())));
    }
    assert!(counted.len() >= DATAGRAMS.len() + REPLIES.len() + WITHHELD.len(), "{counted:?}");
    counted.extend(RELOADS.map(|outcome| ("key_reloads", outcome.to_owned())));
    for (family, outcome) in counted {
        let line = format!("duragram_{family}_total{{outcome=\"{outcome}\"}} 0\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    for counter in [
        "lost_seqs",
        "reply_errors",
        "kernel_drops",
        "sink_failures",
        "dead_letters",
        "handler_panics",
        "answers_too_long",
    ] {
        assert!(text.contains(&format!("duragram_{counter}_total 0\n")), "{counter}");
    }
}

#[test]
fn the_process_tells_its_memory_and_files() {
    let mut registry = Registry::default();
    Metrics::register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e5);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_start_time_seconds") > 1.7e9);
    assert!(text.contains(concat!("duragram_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn free_space_is_told_of_only_while_it_is_known() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let told = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let line = text.lines().find(|line| line.starts_with("duragram_free_bytes ")).map(str::to_owned);
        assert_eq!(text.contains("duragram_free"), line.is_some(), "{text}");
        line
    };
    assert_eq!(told(), None);
    metrics.free_bytes.set(Some(7));
    assert_eq!(told().as_deref(), Some("duragram_free_bytes 7"));
    metrics.free_bytes.set(None);
    assert_eq!(told(), None);
}
