//! The rules, as data: the parts of the server and which of them may know which. `docs/architecture.md` has the same table.

/// A part of the server: a file or folder of `src`.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// The parts that it may name. `proto` and `client` are the crates duragram-proto and duragram-client.
    pub(crate) knows: &'static [&'static str],
    /// What it may not know, in a sentence.
    pub(crate) may_not_know: &'static str,
}

const fn part(name: &'static str, knows: &'static [&'static str], may_not_know: &'static str) -> Part {
    Part { name, knows, may_not_know }
}

/// All parts, from the ground up.
pub(crate) const PARTS: &[Part] = &[
    part("model", &["proto"], "What every part speaks of; it knows none of them."),
    part("limits", &["proto"], "Constants alone: neither what they bound nor the configuration."),
    part("metrics", &[], "What can be counted; not who counts."),
    part("rate", &["model"], "How often something may happen; neither the clock nor who asks."),
    part("host", &["client", "limits"], "What surrounds the process; not what the server does, nor its configuration."),
    part("record_json", &["model"], "A record as JSON; not who shows it."),
    part(
        "keys",
        &["host", "limits", "model", "proto"],
        "The clients' keys; no sockets, no sessions, no configuration.",
    ),
    part(
        "config",
        &["client", "host", "limits", "model", "proto"],
        "Values and their bounds; not what they configure.",
    ),
    part(
        "net",
        &["limits", "metrics", "model", "rate"],
        "Bytes in, bytes out; no protocol, no keys, no sessions, no journal.",
    ),
    part("journal", &["host", "limits", "model"], "What is on disk; no protocol, no sockets, not who reads it."),
    part(
        "dialect",
        &["journal", "keys", "limits", "metrics", "model", "net", "proto", "rate"],
        "What a protocol's datagrams mean and are answered with: of the journal the block, the receipt and the replay alone; no threads.",
    ),
    part(
        "commit",
        &["dialect", "journal", "limits", "metrics", "model", "net", "rate"],
        "How entries become durable and are answered then; no protocol's bytes, no keys, not who processes.",
    ),
    part(
        "process",
        &["journal", "limits", "metrics", "model"],
        "How records get to handlers; no sink, no socket, no commit.",
    ),
    part(
        "sink",
        &["host", "limits", "model", "process", "record_json"],
        "The handlers that ship: of process the handler's trait alone; no journal, no cursors.",
    ),
    part(
        "admin",
        &["config", "host", "journal", "keys", "limits", "model", "record_json"],
        "What operators ask by HTTP; no sinks, no sessions, no datagrams.",
    ),
    part(
        "server",
        &[
            "admin",
            "client",
            "commit",
            "config",
            "dialect",
            "host",
            "journal",
            "keys",
            "limits",
            "metrics",
            "model",
            "net",
            "process",
            "proto",
            "rate",
            "record_json",
            "sink",
        ],
        "The one place that knows all parts but the command line.",
    ),
    part(
        "cli",
        &["admin", "client", "config", "host", "journal", "keys", "limits", "model", "proto", "record_json", "server"],
        "Arguments in, text out; no sinks, nothing of committing or processing.",
    ),
];

/// Walls within a part: from where, to where, and why not.
pub(crate) const WALLS: &[(&str, &str, &str)] = &[
    ("journal/store", "journal/rocksdb", "the store is generic over its database"),
    ("journal/store", "journal/testing", "what is for tests is no part of what they test"),
    ("journal/recovery", "journal/rocksdb", "recovery judges what it is shown, whichever database shows it"),
];

/// Crates that are named in few places only, so that another can take their place.
pub(crate) const NAMED_ONLY_IN: &[(&str, &[&str])] =
    &[("rocksdb", &["journal/rocksdb"]), ("socket2", &["net", "cli/load"]), ("ring", &["keys/seal"])];

/// The longest file, in lines.
pub(crate) const LINES_MAX: usize = 500;

/// Crates of the project: a name for their modules, where they stand, and their first file.
pub(crate) const CRATES: &[(&str, &str)] = &[
    ("src", "src/lib.rs"),
    ("proto-spec/rust/src", "proto-spec/rust/src/lib.rs"),
    ("proto-spec/client/src", "proto-spec/client/src/lib.rs"),
];

/// The table of parts as `docs/architecture.md` has it, a line each, its head included.
pub(crate) fn table() -> Vec<String> {
    let mut lines =
        vec!["| part | may know | what it is, and what it may not know |".to_owned(), "|---|---|---|".to_owned()];
    for part in PARTS {
        let knows: Vec<String> = part.knows.iter().map(|name| format!("`{name}`")).collect();
        let knows = if knows.is_empty() { "nothing".to_owned() } else { knows.join(", ") };
        lines.push(format!("| `{}` | {knows} | {} |", part.name, part.may_not_know));
    }
    lines
}
