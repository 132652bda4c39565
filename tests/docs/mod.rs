//! What the documents say is what the program does: configuration, metrics, the tests that guarantees rest on, the data
//! directory's format, the architecture's walks, citations of the protocol, links.

use std::fs;
use std::path::{Path, PathBuf};

mod architecture;
mod citations;
mod configuration;
mod guarantees;
mod links;
mod operations;
mod sinks;

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const GUARANTEES: &str = include_str!("../../docs/guarantees.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const SINKS: &str = include_str!("../../docs/sinks.md");
const README: &str = include_str!("../../README.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backticks in a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn files_below(directory: &Path, kind: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, kind, found);
        } else if path.extension().is_some_and(|extension| extension == kind) {
            found.push(path);
        }
    }
}
