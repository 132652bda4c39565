//! `duragram journal`: looks into the data directory of a server that does not run. Changes nothing.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::{EXIT_DAMAGED, EXIT_STORAGE, Failure, Report, output_failure, print, print_json};
use crate::host::resources;
use crate::journal::inspect::{self, Stats};
use crate::journal::{Damage, DamagePlace, OpenError, StorageError};
use crate::model::{Offset, SinkRecord, records_of};
use crate::record_json::{Formatter, timestamp};
use crate::server;

/// Verify, sum up or print the journal of a server that does not run. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct JournalArgs {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  duragram journal verify --data /var/lib/duragram
  duragram journal stats --json | jq .disk
  duragram journal dump --from 1000 --to 2000 > part.ndjson

Exit codes:
  0  done; verify: nothing is damaged
  1  not done: no such directory, another program's, of a newer version, in use by a running server
  2  usage
  3  journal damaged
  4  storage failed";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Verify all that a start of the server verifies, and go on past damage: kind, offsets, file and byte of each finding
    Verify {
        #[command(flatten)]
        place: Place,
        /// For programs: one JSON object with `damage`, `torn` and `stats`
        #[arg(long)]
        json: bool,
    },
    /// Tell what the journal holds: offsets, entries, sessions, asks, lanes, sinks, bytes on disk
    Stats {
        #[command(flatten)]
        place: Place,
        /// For programs: one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print entries as JSON lines, as the sinks and `duragram tail` do
    Dump {
        #[command(flatten)]
        place: Place,
        /// Begin with this offset [default: the lowest that is kept]
        #[arg(long, value_name = "OFFSET", default_value_t = 0, hide_default_value = true)]
        from: u64,
        /// End before this offset [default: the journal's end]
        #[arg(long, value_name = "OFFSET")]
        to: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The journal's directory
    #[arg(long, value_name = "DIR", env = "DURAGRAM_DATA", default_value = "./duragram-data")]
    data: PathBuf,
}

/// Runs one of the commands.
pub(super) fn run(args: &JournalArgs) -> Result<(), Failure> {
    resources::provide_for_a_look().map_err(Failure::not_done)?;
    match &args.command {
        Command::Verify { place, json } => verify(&place.data, *json),
        Command::Stats { place, json } => {
            let stats = inspect::stats(&place.data).map_err(open_failure)?;
            if *json { print_json(&as_json(&stats)) } else { print(as_text(&stats)) }
        }
        Command::Dump { place, from, to } => dump(&place.data, Offset(*from), to.map(Offset)),
    }
}

fn verify(dir: &Path, json: bool) -> Result<(), Failure> {
    let inspect::Verified { damage, torn, stats } = inspect::verify(dir).map_err(open_failure)?;
    let mut report = Report::default();
    if json {
        let damage: Vec<Value> = damage.iter().map(damage_as_json).collect();
        let torn = torn.map(|torn| json!({ "file": torn.file, "byte": torn.at, "whole": torn.whole }));
        report.tell_json(&json!({ "damage": damage, "torn": torn, "stats": as_json(&stats) }));
    } else {
        damage.iter().for_each(|damage| report.tell(damage_as_text(damage)));
        if let Some(inspect::Torn { file, at, whole }) = torn {
            let others = if whole > 0 { format!(", and {whole} behind it") } else { String::new() };
            report.tell(format_args!(
                "torn          {file}, byte {at}: a write that a crash interrupted{others}; nothing of it was ever acked\n"
            ));
        }
        report.tell(as_text(&stats));
    }
    match damage.len() {
        0 => Ok(()),
        n => Err(Failure::Failed {
            code: EXIT_DAMAGED,
            message: format!("{} is damaged in {n} {}; nothing was changed", dir.display(), plural(n, "place")),
        }),
    }
}

fn dump(dir: &Path, from: Offset, to: Option<Offset>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut formatter, mut text) = (Formatter::default(), Vec::new());
    for block in inspect::dump(dir, from).map_err(open_failure)? {
        let block = block.map_err(storage_failure)?;
        for entry in block.entries_from(from) {
            if to.is_some_and(|to| entry.offset >= to) {
                return out.flush().map_err(output_failure);
            }
            for record in records_of(&entry) {
                text.clear();
                formatter.line(&record, &mut text);
                out.write_all(&text).map_err(output_failure)?;
            }
        }
    }
    out.flush().map_err(output_failure)
}

fn damage_as_json(damage: &Damage) -> Value {
    let entries = match damage.place {
        DamagePlace::Entries { from, to } => json!({ "from": from.0, "to": to.map(|to| to.0) }),
        _ => Value::Null,
    };
    json!({
        "kind": damage.kind.name(),
        "meaning": damage.kind.describe(),
        "place": damage.place.to_string(),
        "entries": entries,
        "problem": damage.problem,
        "files": damage.files,
        "byte": damage.byte,
    })
}

fn damage_as_text(damage: &Damage) -> String {
    let mut text = format!("damage        {}\n", damage.kind.describe());
    let mut detail = |name: &str, what: String| text.push_str(&format!("  {name:<12}{what}\n"));
    detail("kind", damage.kind.name().into());
    detail("where", damage.place.to_string());
    detail("problem", damage.problem.to_string());
    if !damage.files.is_empty() {
        let byte = damage.byte.map_or_else(String::new, |byte| format!(", byte {byte}"));
        detail("in", format!("{}{byte}", damage.files.join(", ")));
    }
    text
}

fn as_json(stats: &Stats) -> Value {
    let lanes: Vec<Value> = (0u16..)
        .zip(&stats.lanes)
        .map(|(lane, mark)| {
            let lag = stats.end.since(mark.watermark);
            json!({ "lane": lane, "watermark": mark.watermark.0, "lag": lag })
        })
        .collect();
    let losses: Vec<Value> = stats
        .losses
        .iter()
        .map(|loss| {
            let entries = loss.entries.map(|(from, to)| json!({ "from": from.0, "to": to.0 }));
            json!({ "entries": entries, "accepted_at": timestamp(loss.accepted_unix_us), "what": loss.what })
        })
        .collect();
    json!({
        "journal": stats.id.map(|id| id.to_string()),
        "instance": stats.instance.map(|instance| instance.to_string()),
        "offsets": { "low": stats.low.0, "checkpoint": stats.checkpoint_at.0, "end": stats.end.0 },
        "witness": stats.witness.map(|witness| witness.0),
        "lanes": lanes,
        "sinks": stats.sinks.iter().map(|sink| sink_as_json(sink, stats.end)).collect::<Vec<_>>(),
        "entries": stats.entries,
        "blocks": stats.blocks,
        "block_bytes": stats.block_bytes,
        "sessions": stats.sessions,
        "asks": { "kept": stats.asks, "answered": stats.asks_answered, "answers_waiting": stats.answers },
        "dead_letters": stats.dead_letters,
        "losses": losses,
        "disk": {
            "tables_bytes": stats.disk.tables,
            "logs_bytes": stats.disk.logs,
            "set_aside_bytes": stats.disk.set_aside,
            "other_bytes": stats.disk.other,
        },
    })
}

fn as_text(stats: &Stats) -> String {
    let size = |bytes| ByteSize(bytes).display().iec().to_string();
    let mut lines = vec![
        format!("journal       {}", stats.id.map_or_else(|| "without a name yet".to_owned(), |id| id.to_string())),
        format!(
            "instance      {}",
            stats.instance.map_or_else(|| "starts not counted yet".to_owned(), |instance| instance.to_string())
        ),
        match stats.entries {
            0 => format!("entries       none kept; the next gets offset {}", stats.end),
            n => format!(
                "entries       {n}, offsets {} to {}, in {} {} of {}",
                stats.low,
                stats.end.0.saturating_sub(1),
                stats.blocks,
                plural(usize::try_from(stats.blocks).unwrap_or(usize::MAX), "block"),
                size(stats.block_bytes)
            ),
        },
        format!(
            "checkpoint    {}; a start replays {} entries",
            stats.checkpoint_at,
            stats.end.since(stats.checkpoint_at)
        ),
        stats.witness.map_or_else(
            || "witness       missing".to_owned(),
            |witness| format!("witness       every entry below {witness} was durable"),
        ),
        format!("sessions      {}", stats.sessions),
        format!(
            "asks          {} kept, {} of them answered; {} answers wait for the next checkpoint",
            stats.asks, stats.asks_answered, stats.answers
        ),
    ];
    for (lane, mark) in stats.lanes.iter().enumerate() {
        let lag = stats.end.since(mark.watermark);
        lines.push(format!("lane {lane:<8} processed below {}; {lag} entries to go", mark.watermark));
    }
    lines.extend(stats.sinks.iter().map(|sink| sink_as_text(sink, stats.end)));
    lines.push(format!("dead letters  {}", stats.dead_letters));
    for loss in &stats.losses {
        let entries = loss
            .entries
            .map_or_else(String::new, |(from, to)| format!("entries {from} to {}: ", to.0.saturating_sub(1)));
        let when = timestamp(loss.accepted_unix_us);
        lines.push(format!("loss          accepted at {when}: {entries}{}", loss.what));
    }
    let disk = &stats.disk;
    lines.push(format!(
        "on disk       tables {}, logs {}, set aside {}, other {}",
        size(disk.tables),
        size(disk.logs),
        size(disk.set_aside),
        size(disk.other)
    ));
    lines.push(String::new());
    lines.join("\n")
}

fn sink_as_json(sink: &SinkRecord, end: Offset) -> Value {
    json!({
        "name": sink.name,
        "id": sink.id.to_string(),
        "watermark": sink.mark.watermark.0,
        "lag": end.since(sink.mark.watermark),
        "holds": sink.holds,
        "paused": sink.paused,
        "lost_entries": lost_entries(sink),
    })
}

fn sink_as_text(sink: &SinkRecord, end: Offset) -> String {
    let SinkRecord { id, name, mark, .. } = sink;
    let lag = end.since(mark.watermark);
    let mut text = format!("sink          {name} ({id}): processed below {}; {lag} entries to go", mark.watermark);
    if !sink.holds {
        text.push_str("; detached: what it has not processed may be trimmed");
    }
    if sink.paused {
        text.push_str("; paused");
    }
    match lost_entries(sink) {
        0 => {}
        lost => text.push_str(&format!("; {lost} entries are lost to it")),
    }
    text
}

pub(super) fn lost_entries(sink: &SinkRecord) -> u64 {
    sink.losses.iter().fold(0, |sum, loss| sum.saturating_add(loss.entries))
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 { word.to_owned() } else { format!("{word}s") }
}

/// With the exit code that the server would give.
pub(super) fn open_failure(error: OpenError) -> Failure {
    let error = server::Error::from(error);
    Failure::Failed { code: error.exit_code(), message: error.to_string() }
}

pub(super) fn storage_failure(error: StorageError) -> Failure {
    let code = if error.damage.is_some() { EXIT_DAMAGED } else { EXIT_STORAGE };
    Failure::Failed { code, message: error.to_string() }
}
