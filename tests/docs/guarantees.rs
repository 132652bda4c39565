//! `docs/guarantees.md` names tests that exist.

use std::collections::BTreeSet;
use std::fs;

use super::{GUARANTEES, files_below, quoted, root};

#[test]
fn every_test_that_a_guarantee_rests_on_exists() {
    let mut files = Vec::new();
    ["src", "tests", "proto-spec"].iter().for_each(|directory| files_below(&root().join(directory), "rs", &mut files));
    let code: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let is_name = |word: &&str| word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    let tests: BTreeSet<&str> =
        quoted(GUARANTEES).filter(is_name).filter(|word| word.matches('_').count() > 3).collect();
    assert!(tests.len() > 40, "{tests:?}");
    let missing: Vec<_> = tests.into_iter().filter(|test| !code.contains(&format!("fn {test}("))).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:#?}");
}
