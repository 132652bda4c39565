//! `docs/configuration.md` has every key of a sink as the program has it, and its examples are configurations.

use std::collections::BTreeSet;
use std::fs;

use duragram::config::{Config, SINK_KEYS, Sources};
use duragram::model::SinkConfig;

use super::configuration::bound;
use super::{CONFIGURATION, SINKS};

fn section() -> &'static str {
    CONFIGURATION.split("\n## Sinks\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap()
}

/// Key, types, default, range.
fn rows() -> Vec<[&'static str; 4]> {
    let table = section().split("| key | types |").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [key, types, default, range, _] = cells[..] else { panic!("{line} has not five cells") };
        [key.trim_matches('`'), types, default, range]
    };
    table.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

fn load(toml: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("d.toml");
    fs::write(&file, toml).unwrap();
    let sources = Sources { file: Some(file), ..Sources::default() };
    sources.load().map(|loaded| loaded.config).map_err(|error| error.to_string())
}

#[test]
fn every_key_of_a_sink_has_a_row_with_its_types_and_default() {
    let rows = rows();
    let keys: Vec<&str> = rows.iter().map(|[key, ..]| *key).collect();
    assert_eq!(keys, SINK_KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
    for (key, [_, types, default, _]) in SINK_KEYS.iter().zip(rows) {
        let documented = if types == "all" { Vec::new() } else { types.split(", ").collect() };
        assert_eq!(documented, key.types, "{}", key.name);
        let default = default.replace('`', "");
        assert_eq!(default, if key.default.is_empty() { "must be given" } else { key.default }, "{}", key.name);
    }
}

#[test]
fn every_range_of_a_sink_in_the_documents_is_the_one_that_the_program_keeps() {
    for (key, absurd) in [
        ("timeout", "\"5h\""),
        ("batch.records_max", "1_000_000"),
        ("batch.bytes_max", "\"1 GiB\""),
        ("batch.delay_max", "\"5h\""),
        ("retry.attempts_max", "0"),
        ("backlog.bytes_max", "1"),
        ("entries_max", "0"),
        ("in_flight_max", "0"),
    ] {
        let kind = if key == "in_flight_max" { "http" } else { "redis" };
        let key_of_redis = if kind == "redis" { "key = \"k\"\n" } else { "" };
        let toml = format!(
            "[[sink]]\nname = \"a\"\ntype = \"{kind}\"\nurl = \"{kind}://h\"\n{key_of_redis}{key} = {absurd}\n"
        );
        let error = load(&toml).unwrap_err();
        let (_, range) = error.split_once(" is out of range: ").unwrap_or_else(|| panic!("{key}: {error}"));
        let (from, to) = range.lines().next().unwrap().split_once(" to ").unwrap();
        let to = to.split_once(' ').filter(|(number, _)| number.parse::<u64>().is_ok()).map_or(to, |(to, _)| to);
        let row = rows().into_iter().find(|row| row[0] == key).unwrap();
        let (documented_from, documented_to) = row[3].split_once(" to ").unwrap();
        assert_eq!((bound(documented_from), bound(documented_to)), (bound(from), bound(to)), "{key}: {range}");
    }
}

fn examples(text: &str) -> impl Iterator<Item = &str> {
    text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

#[test]
fn the_examples_of_each_sinks_own_page_are_configurations() {
    for example in examples(SINKS) {
        load(example).unwrap_or_else(|error| panic!("{example}\n{error}"));
    }
    // The table of all sinks gives each a short form that is one.
    let rows = SINKS.lines().skip_while(|line| !line.starts_with("| sink | short form |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let mut kinds = 0;
    for line in rows {
        let mut words = super::quoted(line);
        let (kind, form) = (words.next().unwrap(), words.next().unwrap());
        let sink: SinkConfig = form.parse().unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(sink.target.kind(), kind, "{form}");
        kinds += 1;
    }
    assert_eq!(kinds, 9);
}

#[test]
fn the_examples_are_configurations_and_there_is_one_of_each_type() {
    let mut kinds = BTreeSet::new();
    for example in examples(section()) {
        let config = load(example).unwrap_or_else(|error| panic!("{example}\n{error}"));
        kinds.extend(config.sink.iter().map(|sink| sink.target.kind()));
    }
    let types = rows().into_iter().find(|row| row[0] == "type").unwrap()[3].replace('`', "");
    assert_eq!(kinds, types.split(", ").collect());
}

#[test]
fn every_short_form_in_the_documents_is_one() {
    let table = section().split("| short form |").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    // Where a word stands for a number there is one.
    let filled = |text: &str| text.replace("PORT", "1").replace("/DB?", "/0?").replace("max=N", "max=1");
    let kind = |form: &str| match form.parse::<SinkConfig>() {
        Ok(sink) => sink.target.kind(),
        Err(error) => panic!("{form}: {error}"),
    };
    let mut kinds = BTreeSet::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let (forms, meaning) = line.trim_start_matches('|').split_once('|').unwrap();
        let form = filled(super::quoted(forms).next().unwrap());
        kinds.insert(kind(&form));
        for parameter in super::quoted(meaning).filter(|word| word.starts_with('&')) {
            let joint = if form.contains('?') { "&" } else { "?" };
            kind(&format!("{form}{joint}{}", filled(&parameter[1..])));
        }
    }
    assert_eq!(kinds.len(), 9, "{kinds:?}");
}
