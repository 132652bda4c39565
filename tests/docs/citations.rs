//! Code and tests cite the sections of `proto-spec/PROTOCOL.md` that they fulfil, as `PROTOCOL.md` and an anchor. Every
//! anchor cited must exist, and every rule of the server and duty of the client must be cited.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PROTOCOL: &str = include_str!("../../proto-spec/PROTOCOL.md");
/// Where citations are looked for.
const ROOTS: [&str; 5] = ["src", "tests", "benches", "examples", "proto-spec"];
/// What kinds of files can cite.
const KINDS: [&str; 10] = ["rs", "md", "py", "c", "h", "lua", "toml", "json", "sh", "js"];
/// What follows in a citation, before the anchor.
const CITES: &str = "PROTOCOL.md#";

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|kind| KINDS.iter().any(|known| kind == *known)) {
            found.push(path);
        }
    }
}

/// The anchor that begins a text: lower-case letters, digits and hyphens.
fn leading_anchor(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')).unwrap_or(text.len());
    text[..end].trim_end_matches('-')
}

fn anchors_after<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
    text.match_indices(marker).map(|(at, _)| leading_anchor(&text[at + marker.len()..])).collect()
}

/// The explicit anchors, `<a id="...">`. Those that GitHub makes from headings change with the wording.
fn anchors() -> BTreeSet<&'static str> {
    let all = anchors_after(PROTOCOL, "<a id=\"");
    let unique: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), unique.len(), "an anchor stands twice: {all:?}");
    unique
}

/// Each cited anchor, and where.
fn citations() -> BTreeMap<String, Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ROOTS {
        files_below(&root.join(directory), &mut files);
    }
    assert!(files.len() > 20, "the sources are not where this test looks for them: {files:?}");
    let mut citations: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        // What is not text cites nothing.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        // This file names what it looks for.
        if file.ends_with("tests/docs/citations.rs") {
            continue;
        }
        // An empty one is put together when the program runs.
        for anchor in anchors_after(&text, CITES).into_iter().filter(|anchor| !anchor.is_empty()) {
            citations.entry(anchor.to_owned()).or_default().push(file.clone());
        }
    }
    citations
}

#[test]
fn every_section_that_is_cited_exists() {
    let anchors = anchors();
    let unknown: Vec<_> = citations().into_iter().filter(|(anchor, _)| !anchors.contains(anchor.as_str())).collect();
    assert!(unknown.is_empty(), "no such section in PROTOCOL.md: {unknown:#?}");
}

#[test]
fn every_link_within_the_protocol_leads_somewhere() {
    let anchors = anchors();
    let dead: Vec<_> = anchors_after(PROTOCOL, "](#").into_iter().filter(|anchor| !anchors.contains(anchor)).collect();
    assert!(dead.is_empty(), "{dead:?}");
}

#[test]
fn every_rule_of_the_server_and_duty_of_the_client_is_cited_by_code_or_a_test() {
    let citations = citations();
    let is_code = |file: &PathBuf| file.extension().is_some_and(|kind| kind != "md");
    let is_cited = |anchor: &str| citations.get(anchor).is_some_and(|files| files.iter().any(is_code));
    let anchors = anchors();
    let binding: Vec<_> =
        anchors.iter().filter(|anchor| anchor.starts_with("rule-") || anchor.starts_with("duty-")).collect();
    assert!(binding.len() >= 16, "the rules and duties have lost their anchors: {binding:?}");
    let uncited: Vec<_> = binding.into_iter().filter(|anchor| !is_cited(anchor)).collect();
    assert!(uncited.is_empty(), "nothing says that it fulfils {uncited:?}");
}

#[test]
fn an_anchor_ends_where_its_characters_end() {
    assert_eq!(leading_anchor("rule-4)."), "rule-4");
    assert_eq!(leading_anchor("ack`"), "ack");
    assert_eq!(leading_anchor("silence, #other"), "silence");
    assert_eq!(leading_anchor(""), "");
}
