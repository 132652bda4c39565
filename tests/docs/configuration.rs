//! `docs/configuration.md` has every key as the program has it.

use std::collections::BTreeSet;

use bytesize::ByteSize;
use duragram::config::{Config, KEYS, Key, Sources};
use humantime_serde::re::humantime::parse_duration;

use super::CONFIGURATION;

/// A row of the table of keys.
struct Row {
    key: &'static str,
    names: &'static str,
    default: &'static str,
    range: &'static str,
    reloaded: &'static str,
}

fn rows() -> Vec<Row> {
    let table = CONFIGURATION.split("\n## Keys\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [key, names, _, default, range, reloaded, _] = cells[..] else { panic!("{line} has not seven cells") };
        Row { key: key.trim_matches('`'), names, default, range, reloaded }
    };
    table.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

fn row_of(key: &Key) -> Row {
    rows().into_iter().find(|row| row.key == key.name).unwrap_or_else(|| panic!("{} has no row", key.name))
}

#[test]
fn every_key_has_a_row_with_its_variable_and_its_flag_and_every_row_is_a_key() {
    let rows = rows();
    let keys: Vec<&str> = rows.iter().map(|row| row.key).collect();
    let unique: BTreeSet<&str> = keys.iter().copied().collect();
    assert_eq!(keys.len(), unique.len(), "a key stands twice");
    assert_eq!(unique, KEYS.iter().map(|key| key.name).collect());
    for key in KEYS {
        let row = row_of(key);
        assert_eq!(row.names, format!("`{}`, `--{}`", key.variable(), key.flag()));
        assert_eq!(row.reloaded, if key.name == "keys" { "SIGHUP" } else { "restart" }, "{}", key.name);
    }
}

#[test]
fn the_defaults_in_the_documents_are_those_of_the_program() {
    let defaults = Config::default();
    // The number of lanes is this machine's.
    for key in KEYS.iter().filter(|key| key.name != "lanes") {
        let default = match key.show_plain(&defaults) {
            none if none.is_empty() => "all".to_owned(),
            default => default,
        };
        assert_eq!(row_of(key).default, format!("`{default}`"), "{}", key.name);
    }
}

/// What the program says of a key's value, if it refuses it.
fn refusal(key: &'static Key, values: Vec<String>) -> Option<String> {
    let error = Sources { flags: vec![(key.name, values)], ..Sources::default() }.load().err()?;
    let problem = error.problems.into_iter().find(|problem| problem.key == key.name)?;
    Some(problem.message)
}

/// A bound as the table or a message writes it: a number, a size, or a time in milliseconds.
pub(super) fn bound(text: &str) -> u64 {
    let text = text.trim();
    let number = || text.parse::<u64>().ok();
    let size = || text.parse::<ByteSize>().ok().map(|size| size.as_u64());
    let time = || parse_duration(text).ok().and_then(|time| u64::try_from(time.as_millis()).ok());
    number().or_else(time).or_else(size).unwrap_or_else(|| panic!("{text:?} is no bound"))
}

#[test]
fn the_ranges_in_the_documents_are_those_that_the_program_keeps() {
    let mut bounded = 0;
    for key in KEYS {
        // Far beyond what any key takes, by number, size, time or length of the list.
        let absurd = match key.show_plain(&Config::default()) {
            _ if key.list => vec!["1".to_owned(); 2_000],
            time if parse_duration(&time).is_ok() => vec!["500years".to_owned()],
            _ => vec![u64::from(u32::MAX).pow(2).to_string()],
        };
        let absurd = match key.name {
            "listen" => vec!["127.0.0.1:0".to_owned(); 2_000],
            "sink" => (0..2_000).map(|n| format!("file:{n}")).collect(),
            _ => absurd,
        };
        let messages = [refusal(key, absurd), refusal(key, vec!["0".to_owned()])];
        let mut ranges = messages.iter().flatten().filter_map(|message| message.split_once(" is out of range: "));
        let Some((_, range)) = ranges.next() else { continue };
        let (from, to) = range.split_once(" to ").unwrap();
        // Of a number the unit follows.
        let to =
            to.split_once(' ').filter(|(number, _)| number.parse::<u64>().is_ok()).map_or(to, |(number, _)| number);
        let (documented_from, documented_to) = row_of(key).range.split_once(" to ").unwrap();
        assert_eq!((bound(documented_from), bound(documented_to)), (bound(from), bound(to)), "{}: {range}", key.name);
        bounded += 1;
    }
    assert!(bounded >= 20, "only {bounded} keys have said their range");
}
