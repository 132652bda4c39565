//! `docs/operations.md` has every metric, and the data directory's format.

use std::collections::BTreeSet;
use std::fs;

use duragram::metrics::Metrics;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::{CONFIGURATION, GUARANTEES, OPERATIONS, README, quoted};
use crate::common::server::Home;

/// The words of the program's own names in a text, such as `duragram_commits_total`.
fn names<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(move |word| word.starts_with(prefix))
}

#[test]
fn every_metric_is_in_the_documents_and_every_one_there_exists() {
    let existing: BTreeSet<String> = Metrics::catalogue().into_iter().map(|metric| metric.name).collect();
    for name in &existing {
        assert!(quoted(OPERATIONS).any(|word| word == name), "{name} has no row");
    }
    for document in [README, OPERATIONS, GUARANTEES, CONFIGURATION] {
        // The crate of the client is named alike.
        for name in names(document, "duragram_").filter(|name| *name != "duragram_client") {
            let name = name.trim_end_matches("_bucket");
            assert!(existing.contains(name), "{name} is in the documents and not in {existing:?}");
        }
    }
}

#[test]
fn every_outcome_of_a_metric_is_in_the_documents() {
    let mut registry = Registry::default();
    let _metrics = Metrics::register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let outcomes: BTreeSet<&str> = text.split("outcome=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(outcomes.len() > 20, "{outcomes:?}");
    let missing: Vec<_> =
        outcomes.into_iter().filter(|outcome| !quoted(OPERATIONS).any(|word| word == *outcome)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_format_in_the_documents_is_that_of_a_new_directory() {
    let home = Home::new();
    let server = home.serve();
    let marker = fs::read_to_string(home.data().join("DURAGRAM")).unwrap();
    drop(server);
    let number = |text: &str, before: &str| {
        let rest = text.split_once(before).unwrap_or_else(|| panic!("{before:?} is not in {text}")).1;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>()
    };
    assert_eq!(number(OPERATIONS, "This version writes format "), number(&marker, "format "));
}
