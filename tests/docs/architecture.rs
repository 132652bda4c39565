//! The architecture page leads a reader to what is there: every file that it names exists, and holds the function it is named
//! with. What each part may know is held by `tests/architecture`.

use std::path::Path;

use super::quoted;

const PAGE: &str = include_str!("../../docs/architecture.md");

fn source(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("docs/architecture.md names {path}: {error}"))
}

/// `Session::receive` and `receive` are the same function; a type is looked for by its name.
fn defines(source: &str, name: &str) -> bool {
    let name = name.rsplit("::").next().unwrap_or(name);
    ["fn ", "struct ", "trait ", "enum "].iter().any(|kind| {
        source.match_indices(&format!("{kind}{name}")).any(|(at, found)| {
            !source[at + found.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
        })
    })
}

#[test]
fn every_step_of_a_datagrams_way_is_a_function_of_the_file_that_is_named() {
    let mut steps = 0;
    for row in PAGE.lines().filter(|line| line.starts_with("| ") && line.contains("| `src/")) {
        let mut names = quoted(row.rsplit_once("| `src/").map_or(row, |(left, _)| left)).collect::<Vec<_>>();
        let file = quoted(row).last().unwrap();
        let Some(function) = names.pop() else { continue };
        assert!(defines(&source(file), function), "`{function}` is not in {file}: {row}");
        steps += 1;
    }
    assert!(steps >= 18, "only {steps} steps were found in the tables");
}

#[test]
fn each_of_the_five_walks_ends_where_it_says() {
    let walks = PAGE.split("## Five walks").nth(1).unwrap().split("\n## ").next().unwrap();
    let walks: Vec<&str> = walks.split("\n**").skip(1).collect();
    assert_eq!(walks.len(), 5);
    for walk in walks {
        // A function and, in brackets behind it, its file.
        let mut found = 0;
        let names: Vec<&str> = quoted(walk).collect();
        for pair in names.windows(2).filter(|pair| pair[1].ends_with(".rs") && !pair[0].contains('/')) {
            assert!(defines(&source(pair[1]), pair[0]), "`{}` is not in {}", pair[0], pair[1]);
            found += 1;
        }
        assert!(found > 0, "a walk that leads to no function: {walk}");
    }
}

#[test]
fn every_file_that_the_page_names_is_there() {
    for name in quoted(PAGE).filter(|name| name.starts_with("src/") || name.starts_with("tests/")) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        assert!(path.exists(), "docs/architecture.md names {name}");
    }
}
