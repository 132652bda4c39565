//! The house's order: which part may know which, no circles, no file that is too long. See `parts` for the rules.
//!
//! A program of its own that needs nothing but the standard library, so that it is there in a second, without RocksDB:
//! `rustc -O --test --edition 2024 -o /tmp/architecture tests/architecture/main.rs && /tmp/architecture`, in the project's folder.

mod graph;
mod known;
mod parts;
mod rules;
mod source;
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The project, or another tree that is to be looked at.
fn root() -> PathBuf {
    let named = std::env::var_os("DURAGRAM_TREE").map(PathBuf::from);
    named.unwrap_or_else(|| option_env!("CARGO_MANIFEST_DIR").unwrap_or(".").into())
}

#[test]
fn every_part_knows_only_what_it_may_and_no_two_make_a_circle() {
    let findings = rules::findings(&root());
    let news: Vec<String> = findings
        .iter()
        .filter(|finding| !known::KNOWN.contains(&finding.what.as_str()))
        .map(|finding| format!("{}\n{}", finding.what, finding.explained))
        .collect();
    assert!(news.is_empty(), "the architecture's rules are broken {} times:\n\n{}\n", news.len(), news.join("\n\n"));
}

#[test]
fn what_was_mended_is_no_known_finding_any_more() {
    let findings = rules::findings(&root());
    let gone: Vec<&&str> =
        known::KNOWN.iter().filter(|known| !findings.iter().any(|finding| finding.what == **known)).collect();
    assert!(gone.is_empty(), "remove from tests/architecture/known.rs, since it was mended:\n{gone:#?}");
}

#[test]
fn the_document_has_the_same_table() {
    // Before it is written there is nothing to compare.
    let Ok(document) = fs::read_to_string(root().join("docs/architecture.md")) else { return };
    let table = parts::table();
    let begin = document.lines().position(|line| line == table[0]);
    let shown: Vec<&str> =
        document.lines().skip(begin.unwrap_or(usize::MAX)).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(shown, table, "docs/architecture.md must have this table:\n\n{}\n", table.join("\n"));
}

/// For the record: `DURAGRAM_TREE=… cargo test --test architecture figures -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures, and holds nothing against a rule"]
fn figures_of_a_tree() {
    let root = root();
    let findings = rules::findings(&root);
    let count = |what: &dyn Fn(&str) -> bool| findings.iter().filter(|finding| what(&finding.what)).count();
    let files = rules::rust_files(&root);
    let lines = |file: &PathBuf| fs::read_to_string(root.join(file)).map_or(0, |text| text.lines().count());
    let over = |most: usize| files.iter().filter(|file| lines(file) > most).count();
    let mut folders: BTreeMap<&Path, usize> = BTreeMap::new();
    for folder in files.iter().filter_map(|file| file.parent()) {
        *folders.entry(folder).or_default() += 1;
    }
    let (largest, most) = folders.iter().max_by_key(|(_, count)| **count).expect("a tree has files");
    eprintln!("files of Rust: {}", files.len());
    eprintln!("files over 400 lines: {}; over 500: {}", over(400), over(500));
    eprintln!("circles: {}", count(&|what| what.starts_with("circle")));
    eprintln!("forbidden arrows, from a file to a part: {}", count(&|what| what.contains(" knows ")));
    eprintln!("files with doc comments of a few words: {}", count(&|what| what.contains(" has comments ")));
    eprintln!("the largest folder: {} with {most} files", largest.display());
}
