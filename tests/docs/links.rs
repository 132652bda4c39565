//! The documents' links lead somewhere, and the README is short.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{README, files_below, root};

/// Lines of the README: it is for whoever looks at the project for the first time.
const README_LINES_MAX: usize = 150;

/// The documents whose links are looked at.
fn documents() -> Vec<PathBuf> {
    let mut files = vec![root().join("README.md")];
    for directory in ["docs", ".github", "proto-spec", "benches"] {
        files_below(&root().join(directory), "md", &mut files);
    }
    files
}

/// The anchors of a document: those that it names, and those that GitHub makes from headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let named = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let made = headings.map(|heading| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    });
    named.chain(made).collect()
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut dead = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let leads = match anchor {
                None => target.exists(),
                Some(anchor) => fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !leads {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_readme_is_short() {
    let lines = README.lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines: what is for operators or contributors belongs into docs/");
}
