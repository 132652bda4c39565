//! `duragram dead`: records that could not be processed, through the admin API of a running server or, where that is
//! possible, offline in a data directory.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::api::{AdminArgs, Api};
use super::journal::{open_failure, storage_failure};
use super::{Failure, Report, complain, output_failure, print};
use crate::journal::{DeadLetter, DeadLetterId, RocksJournal, RocksOptions, inspect};
use crate::model::{Offset, SinkId};
use crate::record_json;

/// List, show, retry or discard dead letters: records that could not be processed.
///
/// A record becomes a dead letter when its handler has failed `retry-attempts-max` times or has given it up. It stays on
/// disk, whatever is trimmed, until it is retried with success or discarded. At most `dead-letters-max` are kept; at the maximum,
/// or below `reserve-bytes` of free space, a lane with another one waits.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  duragram dead list
  duragram dead show 1042 --payload
  duragram dead retry 1042 1043/7
  duragram dead list --json | jq -r 'select(.channel == 9) | \"\\(.offset)/\\(.index)\"' | xargs duragram dead discard

Exit codes:
  0  done
  1  not done for at least one dead letter, or no server
  2  usage
  3  journal damaged
  4  storage failed";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List all, oldest first, without their payloads
    List {
        #[command(flatten)]
        place: Place,
        /// For programs: one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one with its payload, as JSON
    Show {
        #[command(flatten)]
        place: Place,
        /// Which: OFFSET or OFFSET/INDEX, as `list` shows it
        id: Id,
        /// Print the payload alone, byte for byte
        #[arg(long)]
        payload: bool,
    },
    /// Have some processed once more by the running server; each that succeeds is no dead letter any more. One comes to its turn when
    /// its lane has no other record open; one that was discarded before is not processed
    Retry {
        #[command(flatten)]
        admin: AdminArgs,
        #[command(flatten)]
        which: Which,
    },
    /// Delete some forever
    Discard {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
    },
}

/// Where the dead letters are.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    admin: AdminArgs,

    /// Work on this data directory, of a server that does not run, instead
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Some dead letters.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Which: OFFSET or OFFSET/INDEX, as `list` shows it
    #[arg(value_name = "ID")]
    ids: Vec<Id>,

    /// All of them
    #[arg(long)]
    all: bool,
}

/// `OFFSET` or `OFFSET/INDEX`, as `list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id(DeadLetterId);

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (offset, index) = text.split_once('/').unwrap_or((text, "0"));
        match (offset.parse(), index.parse()) {
            (Ok(offset), Ok(index)) => Ok(Self(DeadLetterId { offset: Offset(offset), index, sink: SinkId::EMBEDDED })),
            _ => Err("write OFFSET or OFFSET/INDEX, as `duragram dead list` shows it".to_owned()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.offset, self.0.index)
    }
}

/// Runs one of the commands.
pub(super) fn run(args: &DeadArgs) -> Result<(), Failure> {
    match &args.command {
        Command::List { place, json } => list(&Store::open(place)?, *json),
        Command::Show { place, id, payload } => show(&Store::open(place)?.show(*id)?, *payload),
        Command::Retry { admin, which } => {
            let api = Api::new(admin)?;
            let retry = |id| Ok(api.post(&format!("{}/retry", path(id))).map(drop)?);
            each(&which.ids(&Store::Running(Api::new(admin)?))?, "retried", retry)
        }
        Command::Discard { place, which } => {
            let ids = which.ids(&Store::open(place)?)?;
            let Some(dir) = &place.data else {
                let api = Api::new(&place.admin)?;
                return each(&ids, "discarded", |id| Ok(api.delete(&path(id)).map(drop)?));
            };
            let journal = RocksJournal::open(dir, &RocksOptions::default(), &mut |_| {}).map_err(open_failure)?;
            each(&ids, "discarded", |id| match journal.dead.delete(id.0).map_err(storage_failure)? {
                true => Ok(()),
                false => Err(unknown(id)),
            })
        }
    }
}

fn list(store: &Store, json: bool) -> Result<(), Failure> {
    let mut empty = true;
    store.for_each(|letter| {
        if json {
            return print(format_args!("{letter}\n"));
        }
        if std::mem::take(&mut empty) {
            print(format_args!(
                "{:<24} {:<16} {:>20} {:>7} {:<27} {:>8} ERROR\n",
                "ID", "CLIENT", "SEQ", "CHANNEL", "DEAD SINCE", "ATTEMPTS"
            ))?;
        }
        let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
        // What a handler says may hold anything; a terminal must not obey it.
        let error: String = text("error").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        print(format_args!(
            "{:<24} {:<16} {:>20} {:>7} {:<27} {:>8} {error}\n",
            id_of(letter)?.to_string(),
            text("client"),
            letter["seq"],
            letter["channel"],
            text("dead_since"),
            letter["attempts"],
        ))
    })?;
    if empty && !json {
        complain("there are no dead letters");
    }
    Ok(())
}

fn show(letter: &Value, payload: bool) -> Result<(), Failure> {
    if !payload {
        return print(format_args!("{letter:#}\n"));
    }
    let bytes = match (letter["payload"].as_str(), letter["payload_base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(coded)) => BASE64.decode(coded).map_err(|_| strange())?,
        (None, None) if letter["gap"].is_object() => {
            return Err(Failure::not_done("this is the news of a gap, which has no payload"));
        }
        (None, None) => return Err(strange()),
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(output_failure)
}

/// Does something with each; goes on after one that fails, and fails in the end.
fn each(ids: &[Id], done: &str, mut work: impl FnMut(Id) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut failed = 0;
    let mut report = Report::default();
    for &id in ids {
        match work(id) {
            Ok(()) => report.tell(format_args!("{id} {done}\n")),
            // Nothing of what is left can succeed.
            Err(Failure::Failed { code, message }) if code != super::EXIT_NOT_DONE => {
                return Err(Failure::Failed { code, message });
            }
            Err(Failure::Failed { message, .. }) => {
                complain(&format!("{id}: {message}"));
                failed += 1;
            }
            Err(closed @ Failure::OutputClosed) => return Err(closed),
        }
    }
    if failed > 0 {
        return Err(Failure::not_done(format_args!("{failed} of {} not {done}", ids.len())));
    }
    Ok(())
}

fn id_of(letter: &Value) -> Result<Id, Failure> {
    let index = letter["index"].as_u64().and_then(|index| u16::try_from(index).ok());
    let (Some(offset), Some(index)) = (letter["offset"].as_u64(), index) else { return Err(strange()) };
    Ok(Id(DeadLetterId { offset: Offset(offset), index, sink: SinkId::EMBEDDED }))
}

/// Where the next page of the list begins.
fn next_of(next: &Value) -> Result<DeadLetterId, Failure> {
    let sink = next["sink"].as_str().and_then(SinkId::parse).ok_or_else(strange)?;
    Ok(DeadLetterId { sink, ..id_of(next)?.0 })
}

fn strange() -> Failure {
    Failure::not_done("the server's answer is not understood; is it of another version?")
}

/// Dead letters of a running server or of a directory.
enum Store {
    Running(Api),
    Offline(Vec<DeadLetter>),
}

impl Store {
    fn open(place: &Place) -> Result<Self, Failure> {
        match &place.data {
            None => Ok(Self::Running(Api::new(&place.admin)?)),
            Some(dir) => inspect::dead_letters(dir).map(Self::Offline).map_err(open_failure),
        }
    }

    /// Gives every letter, without its payload, in the journal's order.
    fn for_each(&self, mut visit: impl FnMut(&Value) -> Result<(), Failure>) -> Result<(), Failure> {
        let api = match self {
            Self::Running(api) => api,
            Self::Offline(letters) => {
                return letters.iter().try_for_each(|letter| visit(&record_json::dead_letter(letter, false)));
            }
        };
        let mut next = Some(DeadLetterId::FIRST);
        while let Some(from) = next {
            let page = api.get(&format!("/api/dead?from={}&index={}&sink={}", from.offset, from.index, from.sink))?;
            page["dead"].as_array().ok_or_else(strange)?.iter().try_for_each(&mut visit)?;
            next = if page["next"].is_null() { None } else { Some(next_of(&page["next"])?) };
        }
        Ok(())
    }

    fn show(&self, id: Id) -> Result<Value, Failure> {
        match self {
            Self::Running(api) => Ok(api.get(&path(id))?),
            Self::Offline(letters) => {
                let letter = letters.iter().find(|letter| letter.id == id.0).ok_or_else(|| unknown(id))?;
                Ok(record_json::dead_letter(letter, true))
            }
        }
    }
}

impl Which {
    /// Those that are meant. All are found out before anything happens to one of them.
    fn ids(&self, store: &Store) -> Result<Vec<Id>, Failure> {
        if !self.all {
            return Ok(self.ids.clone());
        }
        let mut ids = Vec::new();
        store.for_each(|letter| {
            ids.push(id_of(letter)?);
            Ok(())
        })?;
        Ok(ids)
    }
}

fn path(id: Id) -> String {
    format!("/api/dead/{id}")
}

fn unknown(id: Id) -> Failure {
    Failure::not_done(format_args!("there is no dead letter {id}"))
}
