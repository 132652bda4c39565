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
use super::{Failure, Report, complain, on_a_terminal, output_failure, print};
use crate::journal::inspect::Left;
use crate::journal::{DeadLetter, DeadLetterId, RocksJournal, RocksOptions, inspect};
use crate::model::{Offset, SinkId};
use crate::record_json;

/// List, show, retry or discard dead letters: records that could not be processed.
///
/// A record becomes a dead letter when its sink has failed `retry-attempts-max` times or has given it up: a letter of that
/// sink, and of no other. It stays on disk, whatever is trimmed, until it is retried with success or discarded. At most `dead-letters-max` are kept; at the maximum,
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
  duragram dead retry --all --sink events
  duragram dead list --json | jq -r 'select(.channel == 9) | \"\\(.offset)/\\(.index)\"' | xargs duragram dead discard

TOLD is FAILED where the sender asked and hears that its message failed. It hears nothing more: not of a retry that succeeds either.

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
        #[command(flatten)]
        whose: Whose,
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
        #[command(flatten)]
        whose: Whose,
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
        #[command(flatten)]
        whose: Whose,
    },
    /// Delete some forever
    Discard {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        whose: Whose,
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

/// Whose dead letters are meant.
#[derive(Debug, clap::Args)]
struct Whose {
    /// Of this sink alone: its name, or the id of one that is gone. Needed where several sinks have a letter of one record
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
}

/// An operator names one dead letter, or all of them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Which: OFFSET or OFFSET/INDEX, as `list` shows it
    #[arg(value_name = "ID")]
    ids: Vec<Id>,

    /// All of them, or all of the sink
    #[arg(long)]
    all: bool,
}

/// `OFFSET` or `OFFSET/INDEX`, as `list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id {
    offset: Offset,
    index: u16,
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (offset, index) = text.split_once('/').unwrap_or((text, "0"));
        match (offset.parse(), index.parse()) {
            (Ok(offset), Ok(index)) => Ok(Self { offset: Offset(offset), index }),
            _ => Err("write OFFSET or OFFSET/INDEX, as `duragram dead list` shows it".to_owned()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.offset, self.index)
    }
}

/// A letter that is meant, and whose it is where that was said.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Wanted {
    id: Id,
    /// The name or the id of its sink.
    sink: Option<String>,
    /// What the sink is called, where the letter was found by looking for all.
    called: Option<String>,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.called {
            Some(sink) => write!(f, "{} of {sink}", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

impl Wanted {
    fn path(&self) -> String {
        format!("/api/dead/{}", self.id)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        self.sink.iter().map(|sink| ("sink", sink.as_str())).collect()
    }
}

/// What is said of a letter that is retried with success, and whose sender hears nothing of it.
const RETRIED_UNTOLD: &str = "retried; its sender asked and was told that it failed, and is told nothing more";

/// Runs one of the commands.
pub(super) fn run(args: &DeadArgs) -> Result<(), Failure> {
    match &args.command {
        Command::List { place, whose, json } => list(&Store::open(place)?, whose, *json),
        Command::Show { place, id, whose, payload } => {
            let wanted = Wanted { id: *id, sink: whose.sink.clone(), called: None };
            show(&Store::open(place)?.show(&wanted)?, *payload)
        }
        Command::Retry { admin, which, whose } => {
            let api = Api::new(admin)?;
            let retry = |wanted: &Wanted| {
                let told = api.post(&format!("{}/retry", wanted.path()), &wanted.query())?;
                Ok(if told["told_failed"] == true { RETRIED_UNTOLD } else { "retried" })
            };
            each(&which.wanted(&Store::Running(Api::new(admin)?), whose)?, "retried", retry)
        }
        Command::Discard { place, which, whose } => {
            let store = Store::open(place)?;
            let wanted = which.wanted(&store, whose)?;
            let (Some(dir), Store::Offline(left)) = (&place.data, &store) else {
                let api = Api::new(&place.admin)?;
                let discard = |wanted: &Wanted| Ok(api.delete(&wanted.path(), &wanted.query()).map(|_| "discarded")?);
                return each(&wanted, "discarded", discard);
            };
            let journal = RocksJournal::open(dir, &RocksOptions::default(), &mut |_| {}).map_err(open_failure)?;
            each(&wanted, "discarded", |wanted| {
                let id = find(left, wanted)?.id;
                match journal.dead.delete(id).map_err(storage_failure)? {
                    true => Ok("discarded"),
                    false => Err(unknown(wanted)),
                }
            })
        }
    }
}

fn list(store: &Store, whose: &Whose, json: bool) -> Result<(), Failure> {
    let mut empty = true;
    store.for_each(whose.sink.as_deref(), |letter| {
        if json {
            empty = false;
            return print(format_args!("{letter}\n"));
        }
        if std::mem::take(&mut empty) {
            print(format_args!(
                "{:<24} {:<16} {:<16} {:>20} {:>7} {:<27} {:>8} {:<6} ERROR\n",
                "ID", "SINK", "CLIENT", "SEQ", "CHANNEL", "DEAD SINCE", "ATTEMPTS", "TOLD"
            ))?;
        }
        let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
        print(format_args!(
            "{:<24} {:<16} {:<16} {:>20} {:>7} {:<27} {:>8} {:<6} {}\n",
            id_of(letter)?.to_string(),
            letter["sink"].as_str().unwrap_or("-"),
            text("client"),
            letter["seq"].as_u64().unwrap_or_default(),
            letter["channel"].as_u64().unwrap_or_default(),
            text("dead_since"),
            letter["attempts"].as_u64().unwrap_or_default(),
            if letter["told_failed"] == true { "FAILED" } else { "-" },
            on_a_terminal(&text("error")),
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

/// Does something with each, which gives what is to be said of it; goes on after one that fails, and fails in the end.
fn each(
    ids: &[Wanted],
    done: &str,
    mut work: impl FnMut(&Wanted) -> Result<&'static str, Failure>,
) -> Result<(), Failure> {
    let mut failed = 0;
    let mut report = Report::default();
    for id in ids {
        match work(id) {
            Ok(said) => report.tell(format_args!("{id} {said}\n")),
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
    Ok(Id { offset: Offset(offset), index })
}

/// Where the next page of the list begins.
fn next_of(next: &Value) -> Result<DeadLetterId, Failure> {
    let sink = next["sink"].as_str().and_then(SinkId::parse).ok_or_else(strange)?;
    let Id { offset, index } = id_of(next)?;
    Ok(DeadLetterId { offset, index, sink })
}

fn strange() -> Failure {
    Failure::not_done("the server's answer is not understood; is it of another version?")
}

/// Dead letters of a running server or of a directory.
enum Store {
    Running(Api),
    Offline(Left),
}

impl Store {
    fn open(place: &Place) -> Result<Self, Failure> {
        match &place.data {
            None => Ok(Self::Running(Api::new(&place.admin)?)),
            Some(dir) => inspect::left(dir).map(Self::Offline).map_err(open_failure),
        }
    }

    /// Gives every letter of a sink, or of all, without its payload, in the journal's order.
    fn for_each(
        &self,
        sink: Option<&str>,
        mut visit: impl FnMut(&Value) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let api = match self {
            Self::Running(api) => api,
            Self::Offline(left) => {
                let id = sink.map(|name| id_of_sink(left, name)).transpose()?;
                let letters = left.letters.iter().filter(|letter| id.is_none_or(|id| letter.id.sink == id));
                return letters.map(|letter| as_json(left, letter, false)).try_for_each(|letter| visit(&letter));
            }
        };
        let mut next = Some(DeadLetterId::FIRST);
        while let Some(DeadLetterId { offset, index, sink: at }) = next {
            let (from, index, at) = (offset.to_string(), index.to_string(), at.to_string());
            let mut query = vec![("from", from.as_str()), ("index", &index), ("sink", &at)];
            query.extend(sink.map(|name| ("name", name)));
            let page = api.get_by("/api/dead", &query)?;
            page["dead"].as_array().ok_or_else(strange)?.iter().try_for_each(&mut visit)?;
            next = if page["next"].is_null() { None } else { Some(next_of(&page["next"])?) };
        }
        Ok(())
    }

    fn show(&self, wanted: &Wanted) -> Result<Value, Failure> {
        match self {
            Self::Running(api) => Ok(api.get_by(&wanted.path(), &wanted.query())?),
            Self::Offline(left) => Ok(as_json(left, find(left, wanted)?, true)),
        }
    }
}

impl Which {
    /// Those that are meant. All are found out before anything happens to one of them.
    fn wanted(&self, store: &Store, whose: &Whose) -> Result<Vec<Wanted>, Failure> {
        if !self.all {
            let wanted = |id: &Id| Wanted { id: *id, sink: whose.sink.clone(), called: None };
            return Ok(self.ids.iter().map(wanted).collect());
        }
        let mut all = Vec::new();
        store.for_each(whose.sink.as_deref(), |letter| {
            // One of a handler of a program has no name, and the id of none.
            let sink = letter["sink_id"].as_str().map_or_else(|| SinkId::EMBEDDED.to_string(), str::to_owned);
            let called = letter["sink"].as_str().map(str::to_owned);
            all.push(Wanted { id: id_of(letter)?, sink: Some(sink), called });
            Ok(())
        })?;
        Ok(all)
    }
}

/// What the sink of a letter is called: by its id when the journal does not know it any more; `None` for a handler of a program.
fn called(left: &Left, sink: SinkId) -> Option<String> {
    let name = left.sinks.iter().find(|record| record.id == sink).map(|record| record.name.clone());
    (sink != SinkId::EMBEDDED).then(|| name.unwrap_or_else(|| sink.to_string()))
}

fn id_of_sink(left: &Left, name: &str) -> Result<SinkId, Failure> {
    let named = left.sinks.iter().find(|record| record.name == name).map(|record| record.id);
    named.or_else(|| SinkId::parse(name)).ok_or_else(|| {
        let known: Vec<&str> = left.sinks.iter().map(|record| record.name.as_str()).collect();
        Failure::not_done(format_args!("there is no sink \"{name}\"; there are: {}", known.join(", ")))
    })
}

/// The letter that is meant, of a directory.
fn find<'a>(left: &'a Left, wanted: &Wanted) -> Result<&'a DeadLetter, Failure> {
    let Id { offset, index } = wanted.id;
    let sink = wanted.sink.as_deref().map(|name| id_of_sink(left, name)).transpose()?;
    let of_record = left.letters.iter().filter(|letter| (letter.id.offset, letter.id.index) == (offset, index));
    let found: Vec<_> = of_record.filter(|letter| sink.is_none_or(|sink| letter.id.sink == sink)).collect();
    match found[..] {
        [] => Err(unknown(wanted)),
        [only] => Ok(only),
        _ => {
            let called =
                |letter: &&DeadLetter| called(left, letter.id.sink).unwrap_or_else(|| SinkId::EMBEDDED.to_string());
            Err(Failure::not_done(format_args!(
                "several sinks have a dead letter {}: name one of them (--sink NAME): {}",
                wanted.id,
                found.iter().map(called).collect::<Vec<_>>().join(", ")
            )))
        }
    }
}

fn as_json(left: &Left, letter: &DeadLetter, with_payload: bool) -> Value {
    record_json::dead_letter(letter, called(left, letter.id.sink).as_deref(), with_payload)
}

fn unknown(wanted: &Wanted) -> Failure {
    Failure::not_done(format_args!("there is no dead letter {wanted}"))
}
