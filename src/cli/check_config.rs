//! `duragram check-config`: what a configuration comes to, and the memory that it allows.

use std::fmt::Write as _;

use bytesize::ByteSize;
use serde_json::{Map, Value, json};

use super::config_args::ConfigArgs;
use super::{Failure, complain, print, print_json};
use crate::admin::{KeysStatus, Token};
use crate::config::memory::memory_bound;
use crate::config::{KEYS, Loaded, promise_of};
use crate::keys::KeyRing;
use crate::server;

/// Check a configuration without running it; show every value, where it comes from, and the memory that it allows.
///
/// Takes the file, variables and flags of `serve`, and reads the key file and a named file of the admin token. The output is itself a valid configuration file,
/// says of each sink what it promises, and tells of keys no more than how many there are and the fleet key's fingerprint.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Exit codes:\n  0  valid\n  1  a file that it names cannot be read\n  2  not valid: each problem with its key and place on stderr"
)]
pub(super) struct CheckConfigArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// For programs: one JSON object with `config`, `places`, `memory`, `sinks` and `keys`
    #[arg(long)]
    json: bool,
}

/// Checks the configuration, and shows what a server would do with it.
pub(super) fn run(args: &CheckConfigArgs) -> Result<(), Failure> {
    let (loaded, strangers) = args.config.load()?;
    if let Some(strangers) = strangers {
        complain(&strangers);
    }
    let keys = loaded.config.keys.as_deref().map_or_else(|| Ok(KeyRing::none()), KeyRing::load);
    let keys = keys.map_err(Failure::usage)?;
    if let (Some(_), Some(file)) = (loaded.config.admin, &loaded.config.admin_token_file) {
        let refused = |error| server::Error::from(error);
        Token::read(file)
            .map_err(refused)
            .map_err(|error| Failure::Failed { code: error.exit_code(), message: error.to_string() })?;
    }
    if args.json { print_json(&as_json(&loaded, &keys)) } else { print(as_toml(&loaded, &keys)) }
}

fn as_json(loaded: &Loaded, keys: &KeyRing) -> Value {
    let config: Map<String, Value> = KEYS.iter().map(|key| (key.name.to_owned(), key.show(&loaded.config))).collect();
    let sinks: Vec<Value> = loaded
        .config
        .sink
        .iter()
        .map(|sink| {
            json!({ "name": sink.name, "type": sink.target.kind(), "promise": promise_of(sink),
                "answers": loaded.config.answers_by() == Some(sink.name.as_str()) })
        })
        .collect();
    json!({ "config": config, "places": loaded.places, "memory": memory_bound(&loaded.config), "sinks": sinks,
        "keys": KeysStatus::of(keys) })
}

fn as_toml(loaded: &Loaded, keys: &KeyRing) -> String {
    let mut text = String::new();
    for key in KEYS {
        let place = loaded.places.get(key.name).map_or("default", String::as_str);
        let setting = format!("{} = {}", key.name, key.show_toml(&loaded.config));
        let _infallible = writeln!(text, "{setting:<44} # {place}");
    }
    let _infallible = writeln!(text, "\n# What each sink promises of a record, whatever crashes (docs/guarantees.md):");
    for sink in &loaded.config.sink {
        // A command may have several lines, a comment has one.
        let name = sink.name.replace(char::is_control, " ");
        let _infallible = writeln!(text, "# {name}: {}", promise_of(sink));
    }
    let answers = match loaded.config.answers_by() {
        Some(name) if loaded.config.sink.len() > 1 => {
            format!("sink {} answers; the others only store", name.replace(char::is_control, " "))
        }
        Some(name) => format!("sink {} answers", name.replace(char::is_control, " ")),
        None => "no sink answers alone: a client hears that its message is processed when all of them have it (answering_sink)".into(),
    };
    let _infallible = writeln!(text, "\n# Clients that ask what came of a message (docs/sinks.md): {answers}");
    if let Some((summary, _)) = keys.summary() {
        let _infallible = writeln!(text, "\n# Keys: {summary}");
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
