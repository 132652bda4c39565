//! `duragram sink`: how far each sink has come, and what an operator tells it, through the admin API of a running server; of a
//! server that does not run, what its journal says of its sinks.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::api::{AdminArgs, Api};
use super::journal::{lost_entries, open_failure};
use super::{Failure, Report, age, complain, on_a_terminal, print, print_json};
use crate::host::resources;
use crate::journal::inspect::{self, Left};
use crate::model::SinkRecord;

/// List sinks, stop one for a while, let it go on elsewhere, or forget it.
///
/// Each sink has a place of its own in the journal. What is told to a sink outlives a restart, and is answered when that is certain.
/// Every change needs the running server and its admin token.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct SinkArgs {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  duragram sink list
  duragram sink list --json | jq -r '.sinks[] | select(.state == \"down\") | .name'
  duragram sink pause events
  duragram sink seek events oldest
  duragram sink remove file:/var/log/old.ndjson

Exit codes:
  0  done, and durable
  1  not done: no such sink, no server, no answer in time
  2  usage
  3  journal damaged
  4  storage failed";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List all: what each does and how far it is behind; below one that is away, why
    List {
        #[command(flatten)]
        admin: AdminArgs,
        /// Look into this data directory, of a server that does not run, instead
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// For programs: one JSON object with `sinks`, and for each its losses and its bound too
        #[arg(long)]
        json: bool,
    },
    /// Stop one until it is resumed, also over restarts. What it has not had waits in the journal, within its bound
    Pause {
        #[command(flatten)]
        which: Which,
    },
    /// Let one go on that was paused, where it stopped
    Resume {
        #[command(flatten)]
        which: Which,
    },
    /// Let one go on elsewhere: back, so that records come again, or forward, so that it passes over some. That is no loss, and none is
    /// recorded
    Seek {
        #[command(flatten)]
        which: Which,
        /// Where to: an offset, `oldest` (the lowest entry kept) or `now` (the journal's end)
        #[arg(value_name = "OFFSET|oldest|now")]
        to: Place,
    },
    /// Forget one: its place in the journal and its dead letters. One that is configured stops, and begins as a new sink at the next start
    Remove {
        #[command(flatten)]
        which: Which,
        /// Do not ask, where there is somebody to ask
        #[arg(long)]
        yes: bool,
    },
}

/// A sink of a running server.
#[derive(Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    admin: AdminArgs,
    /// Its name, as `list` shows it
    #[arg(value_name = "NAME")]
    name: String,
}

/// Where a sink is to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    At(u64),
    Oldest,
    Now,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oldest" => Ok(Self::Oldest),
            "now" => Ok(Self::Now),
            _ => text.parse().map(Self::At).map_err(|_| "write an offset, `oldest` or `now`".to_owned()),
        }
    }
}

/// Runs one of the commands.
pub(super) fn run(args: &SinkArgs) -> Result<(), Failure> {
    match &args.command {
        Command::List { admin, data, json } => {
            let all = match data {
                Some(dir) => offline(dir)?,
                None => Api::new(admin)?.get("/api/sinks")?,
            };
            if *json { print_json(&all) } else { list(&all) }
        }
        Command::Pause { which } => {
            Api::new(&which.admin)?.post("/api/sinks/pause", &which.query())?;
            which.report("is paused until `duragram sink resume`")
        }
        Command::Resume { which } => {
            Api::new(&which.admin)?.post("/api/sinks/resume", &which.query())?;
            which.report("goes on")
        }
        Command::Seek { which, to } => seek(which, *to),
        Command::Remove { which, yes } => remove(which, *yes),
    }
}

impl Which {
    fn query(&self) -> [(&str, &str); 1] {
        [("name", self.name.as_str())]
    }

    /// Tells of what is done, which a report that nobody can have does not undo.
    fn report(&self, what: &str) -> Result<(), Failure> {
        Report::default().tell(format_args!("{} {what}\n", on_a_terminal(&self.name)));
        Ok(())
    }
}

fn seek(which: &Which, to: Place) -> Result<(), Failure> {
    let offset = match to {
        Place::At(offset) => json!(offset),
        Place::Oldest => json!("oldest"),
        Place::Now => json!("now"),
    };
    let api = Api::new(&which.admin)?;
    let answer = api.post_json("/api/sinks/seek", &which.query(), &json!({ "offset": offset }))?;
    let number = |name: &str| answer[name].as_u64().ok_or_else(strange);
    let (at, oldest, end) = (number("offset")?, number("oldest")?, number("end")?);
    let why = match to {
        Place::At(asked) if asked < at => format!(", the lowest entry kept ({asked} is gone)"),
        Place::At(asked) if asked > at => format!(", the journal's end ({asked} is beyond it)"),
        _ => format!(" (kept are {oldest} up to {end})"),
    };
    which.report(&format!("goes on at entry {at}{why}"))
}

fn remove(which: &Which, yes: bool) -> Result<(), Failure> {
    let api = Api::new(&which.admin)?;
    if !yes && io::stdin().is_terminal() && !is_confirmed(&api, &which.name)? {
        return Err(Failure::not_done("nothing was removed"));
    }
    let answer = api.post("/api/sinks/remove", &which.query())?;
    let letters = answer["dead_letters"].as_u64().unwrap_or(0);
    which.report(&format!("is removed; {letters} of its dead letters are discarded"))
}

/// Asks on the terminal, where it says what would be forgotten.
fn is_confirmed(api: &Api, name: &str) -> Result<bool, Failure> {
    let all = api.get("/api/sinks")?;
    let sink = all["sinks"].as_array().and_then(|sinks| sinks.iter().find(|sink| sink["name"] == name));
    // What is not there the server refuses, and says what there is.
    let Some(sink) = sink else { return Ok(true) };
    let mut stderr = io::stderr().lock();
    let asked = write!(
        stderr,
        "Forget sink {} for good: its place (entry {}, {} entries to go) and its {} dead letters? [y/N] ",
        on_a_terminal(name),
        sink["watermark"],
        sink["lag"],
        sink["dead_letters"],
    );
    asked.and_then(|()| stderr.flush()).map_err(|error| Failure::not_done(format_args!("cannot ask: {error}")))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| Failure::not_done(format_args!("no answer: {error}")))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// What the journal of a server that does not run says of its sinks, in the words of the API.
fn offline(dir: &Path) -> Result<Value, Failure> {
    resources::provide_for_a_look().map_err(Failure::not_done)?;
    let Left { letters, sinks, end } = inspect::left(dir).map_err(open_failure)?;
    let show = |sink: &SinkRecord| {
        let state = match (sink.paused, sink.holds) {
            (true, _) => "paused",
            (false, false) => "detached",
            (false, true) => "no server",
        };
        json!({
            "name": sink.name,
            "id": sink.id.to_string(),
            "state": state,
            "watermark": sink.mark.watermark.0,
            "lag": end.since(sink.mark.watermark),
            "dead_letters": letters.iter().filter(|letter| letter.id.sink == sink.id).count(),
            "lost_entries": lost_entries(sink),
        })
    };
    Ok(json!({ "sinks": sinks.iter().map(show).collect::<Vec<_>>(), "end": end.0 }))
}

fn list(all: &Value) -> Result<(), Failure> {
    let sinks = all["sinks"].as_array().ok_or_else(strange)?;
    if sinks.is_empty() {
        complain("there are no sinks");
        return Ok(());
    }
    let text = |sink: &Value, name: &str| on_a_terminal(sink[name].as_str().unwrap_or_default());
    let width = sinks.iter().map(|sink| text(sink, "name").chars().count()).max().unwrap_or(0).max(4);
    print(format_args!(
        "{:<width$}  {:<14} {:>12} {:>11} {:>9} {:>8} {:>10}\n",
        "NAME", "STATE", "LAG", "HELD", "OLDEST", "DEAD", "LOST"
    ))?;
    for sink in sinks {
        let held = sink["held_bytes"].as_u64().map(|bytes| ByteSize(bytes).display().iec().to_string());
        let oldest = sink["oldest_seconds"].as_u64().map(age);
        let number = |name: &str| sink[name].as_u64().ok_or_else(strange);
        print(format_args!(
            "{:<width$}  {:<14} {:>12} {:>11} {:>9} {:>8} {:>10}\n",
            text(sink, "name"),
            text(sink, "state"),
            number("lag")?,
            held.as_deref().unwrap_or("-"),
            oldest.as_deref().unwrap_or("-"),
            number("dead_letters")?,
            number("lost_entries")?,
        ))?;
        if let Some(reason) = sink["reason"].as_str() {
            let since = sink["since"].as_str().map_or_else(String::new, |since| format!("since {since}: "));
            print(format_args!("  {since}{}\n", on_a_terminal(reason)))?;
        }
        if sink["backlog"]["blocks"] == true {
            print("  it holds as much of the journal as it may: new data is refused\n")?;
        }
    }
    Ok(())
}

fn strange() -> Failure {
    Failure::not_done("the server's answer is not understood; is it of another version?")
}
