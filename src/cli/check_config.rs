//! `duragram check-config`: what a configuration comes to, and the memory that it allows.

use std::fmt::Write as _;

use bytesize::ByteSize;
use serde_json::{Map, Value, json};

use super::config_args::ConfigArgs;
use super::{Failure, print, print_json};
use crate::config::{KEYS, Loaded};
use crate::limits::memory_bound;

/// Check a configuration without running it; show every value, where it comes from, and the memory that it allows.
///
/// Takes the file, variables and flags of `serve`. The output is itself a valid configuration file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Exit codes:\n  0  valid\n  2  not valid: each problem with its key and place on stderr")]
pub(super) struct CheckConfigArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// For programs: one JSON object with `config`, `places` and `memory`
    #[arg(long)]
    json: bool,
}

/// Checks and shows.
pub(super) fn run(args: &CheckConfigArgs) -> Result<(), Failure> {
    let loaded = args.config.load()?;
    if args.json { print_json(&as_json(&loaded)) } else { print(as_toml(&loaded)) }
}

fn as_json(loaded: &Loaded) -> Value {
    let config: Map<String, Value> = KEYS.iter().map(|key| (key.name.to_owned(), key.show(&loaded.config))).collect();
    json!({ "config": config, "places": loaded.places, "memory": memory_bound(&loaded.config) })
}

fn as_toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    for key in KEYS {
        let place = loaded.places.get(key.name).map_or("default", String::as_str);
        let setting = format!("{} = {}", key.name, key.show(&loaded.config));
        let _infallible = writeln!(text, "{setting:<44} # {place}");
    }
    let bound = memory_bound(&loaded.config);
    let _infallible =
        writeln!(text, "\n# Memory at most {} (ordinary use is far below), of which:", mib(bound.total_bytes));
    for item in &bound.items {
        let _infallible = writeln!(text, "# {:>12}  {}: {}", mib(item.bytes), item.what, item.formula);
    }
    text
}

fn mib(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}
