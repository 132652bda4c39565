//! What the README says of configuration and metrics is what the program has.

use std::collections::BTreeSet;

use duragram::config::{Config, KEYS};
use duragram::metrics::Metrics;

const README: &str = include_str!("../../README.md");

/// The first cells of the configuration's table.
fn keys_in_readme() -> Vec<&'static str> {
    let table = README.split("### Configuration").nth(1).unwrap().split("\n###").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_key_is_in_the_readme_and_every_key_there_exists() {
    let mut table = "";
    // `retry.attempts_max`, `.first_delay`: a row of one table names it once.
    let named: BTreeSet<String> = keys_in_readme()
        .into_iter()
        .map(|key| match key.split_once('.') {
            Some(("", rest)) => format!("{table}.{rest}"),
            Some((first, _)) => {
                table = first;
                key.to_owned()
            }
            None => key.to_owned(),
        })
        .collect();
    let existing: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(named, existing);
}

#[test]
fn defaults_in_the_readme_are_those_of_the_program() {
    let defaults = Config::default();
    for key in KEYS.iter().filter(|key| !["channels", "lanes"].contains(&key.name)) {
        let last = key.name.rsplit('.').next().unwrap();
        let row = README.lines().find(|line| line.starts_with("| `") && line.contains(&format!("{last}`")));
        let row = row.unwrap_or_else(|| panic!("{} has no row", key.name)).replace(' ', "");
        let default = key.show_plain(&defaults).replace("7days", "7d").replace(' ', "");
        assert!(default == "false" || row.contains(&default), "{}: {default} is not in {row}", key.name);
    }
}

#[test]
fn every_metric_that_the_readme_names_exists() {
    let metrics: BTreeSet<String> = Metrics::catalogue().into_iter().map(|metric| metric.name).collect();
    let named = README.split('`').filter(|word| word.starts_with("duragram_"));
    for name in named.map(|name| name.split('{').next().unwrap()) {
        assert!(metrics.contains(name), "{name} is in the README and not in {metrics:?}");
    }
}
