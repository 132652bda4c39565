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

/// What stands of commands in code: indented lines, and words between backticks.
fn commands(document: &str) -> Vec<String> {
    let indented = document.lines().filter_map(|line| line.strip_prefix("    "));
    let mut commands: Vec<String> = Vec::new();
    for text in indented.chain(quoted(document)) {
        let text = text.split(" #").next().unwrap_or_default();
        if let Some(rest) =
            text.trim().strip_prefix("duragram sink ").or_else(|| text.trim().strip_prefix("duragram dead "))
        {
            let group = if text.contains("duragram sink") { "sink" } else { "dead" };
            commands.push(format!("{group} {rest}"));
        }
    }
    commands
}

/// Run against an address where nothing answers: what the command line does not know would be exit code 2.
#[test]
fn the_commands_for_sinks_and_dead_letters_in_the_documents_are_commands() {
    let mut seen = BTreeSet::new();
    for command in [OPERATIONS, super::SINKS].into_iter().flat_map(commands) {
        let mut args: Vec<&str> = command.split_whitespace().filter(|word| !["or", "…"].contains(word)).collect();
        if args[1] == "seek" && args.len() == 4 && args[3] == "OFFSET" {
            args[3] = "7";
        }
        // Named as such, not as something to type.
        if args.len() == 2 && !["list"].contains(&args[1]) {
            continue;
        }
        seen.insert(args[1].to_owned());
        let output =
            crate::common::server::duragram().args(&args).env("DURAGRAM_ADMIN", "127.0.0.1:1").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let expected = ["discard", "list", "pause", "remove", "resume", "retry", "seek", "show"];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn the_commands_for_asks_in_the_documents_are_commands() {
    let mut seen = BTreeSet::new();
    for document in [OPERATIONS, include_str!("../../docs/answers.md")] {
        let indented = document.lines().filter_map(|line| line.strip_prefix("    "));
        for text in indented.chain(quoted(document)) {
            let text = text.split(" #").next().unwrap_or_default().trim();
            let Some(rest) = text.strip_prefix("duragram ask-status") else { continue };
            let args: Vec<&str> = rest.split_whitespace().collect();
            let mut command = crate::common::server::duragram();
            let output = command.arg("ask-status").args(&args).env("DURAGRAM_ADMIN", "127.0.0.1:1").output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{text}: {}", String::from_utf8_lossy(&output.stderr));
            seen.extend(args.first().map(|flag| (*flag).to_owned()));
        }
    }
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), ["--client", "--forget"]);
}
