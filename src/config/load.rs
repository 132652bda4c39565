//! The layers of a configuration, in rising order: defaults, TOML file, `DURAGRAM_*` environment, flags.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::environment;
use super::keys::PREFIX;
use super::lines::line_of;
use super::nearest::nearest;
use super::sinks;
use super::{Config, ConfigError, KEYS, Problem};

/// Else it would stay where it was set, and hide the next damage.
const ACCEPT_LOSS_IS_A_FLAG: &str = "can only be given as the flag --accept-loss, for one start";

/// What to make a configuration from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file, if one was named. It must exist then.
    pub file: Option<PathBuf>,
    /// The environment, all of it; only `DURAGRAM_*` is looked at. An empty variable counts as unset.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags that were given, by key, with their values.
    pub flags: Vec<(&'static str, Vec<String>)>,
}

/// A validated configuration and where its values come from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, valid as a whole.
    pub config: Config,
    /// For each key that is not at its default, the place of its value, such as `duragram.toml:12`.
    pub places: BTreeMap<&'static str, String>,
}

impl Sources {
    /// Reads the layers, puts them over each other and validates the result.
    ///
    /// An error names everything that is wrong: unknown keys of every layer, values that cannot be read, values out of
    /// bounds, contradictions. Only a file that is no TOML at all hides what is in it.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut problems = Vec::new();
        let mut figment = Figment::new();
        let file = self.file_layer(&mut problems);
        let layers = [self.environment_layer(&mut problems), self.flag_layer()];
        for layer in file.into_iter().chain(layers) {
            unknown_keys(&layer, &mut problems);
            figment = figment.merge(layer);
        }
        let mut config = Config::default();
        let mut places = BTreeMap::new();
        for key in KEYS {
            let Ok(value) = figment.find_value(key.name) else { continue };
            let source = figment.get_metadata(value.tag());
            let place_of = |below: &[String]| {
                let path: Vec<&str> = key.name.split('.').chain(below.iter().map(String::as_str)).collect();
                source.map(|source| source.interpolate(&Profile::Default, &path))
            };
            if let Err(wrongs) = (key.set)(&mut config, &value) {
                problems.extend(wrongs.0.into_iter().map(|wrong| Problem {
                    key: format!("{}{}", key.name, wrong.below),
                    place: place_of(&wrong.path),
                    message: wrong.message,
                }));
            }
            if let Some(place) = place_of(&[]) {
                places.insert(key.name, place);
            }
        }
        // A value that could not be read stands at its default here: what validation says of that is not the operator's.
        if let Err(invalid) = config.validate() {
            let unread: BTreeSet<String> = problems.iter().map(|problem| problem.key.clone()).collect();
            let read = invalid.problems.into_iter().filter(|problem| !unread.contains(&problem.key));
            let place_of = |key: &str| match sinks::path_of(key, &config.sink) {
                Some(path) => figment.find_metadata("sink").map(|source| source.interpolate(&Profile::Default, &path)),
                None => places.get(key).cloned(),
            };
            problems.extend(read.map(|problem| Problem { place: place_of(&problem.key), ..problem }));
        }
        if problems.is_empty() { Ok(Loaded { config, places }) } else { Err(ConfigError { problems }) }
    }

    /// A line for the operator that names the variables which begin like settings and are none, if there are any: of a
    /// service of that name, or misspelt.
    pub fn strangers(&self) -> Option<String> {
        environment::strangers(&self.environment)
    }

    fn file_layer(&self, problems: &mut Vec<Problem>) -> Option<Layer> {
        let path = self.file.as_deref()?;
        let mut fail = |message| {
            problems.push(Problem { key: String::new(), place: Some(path.display().to_string()), message });
            None
        };
        let text: Arc<str> = match fs::read_to_string(path) {
            Ok(text) => text.into(),
            Err(error) => return fail(format!("cannot be read: {error}")),
        };
        match Toml::string(&text).data() {
            Ok(mut data) => {
                let path: Arc<Path> = path.into();
                let place = move |key: &[&str]| match line_of(&text, key) {
                    Some(line) => format!("{}:{line}", path.display()),
                    None => path.display().to_string(),
                };
                Some(Layer {
                    name: "file",
                    data: data.remove(&Profile::Default).unwrap_or_default(),
                    place: Arc::new(place),
                })
            }
            Err(error) => fail(without_the_line(&error.to_string())),
        }
    }

    fn environment_layer(&self, problems: &mut Vec<Problem>) -> Layer {
        let mut data = Dict::new();
        for (name, value) in &self.environment {
            let Some(name) = name.to_str().filter(|_| environment::is_set(value)) else { continue };
            let mut fail = |key: &str, message: &str| {
                problems.push(Problem {
                    key: key.to_owned(),
                    place: Some(name.to_owned()),
                    message: message.to_owned(),
                });
            };
            if name == environment::ACCEPT_LOSS {
                fail("accept_loss", ACCEPT_LOSS_IS_A_FLAG);
            }
            let Some(key) = environment::key_of(name) else { continue };
            match value.to_str() {
                Some(value) if key.list => {
                    let parts = if key.name == "sink" { sinks::split(value) } else { value.split(',').collect() };
                    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
                    match parts.map(Value::from).collect::<Vec<_>>() {
                        // Of channels none would mean all.
                        none if none.is_empty() => fail(key.name, "names no value between its commas"),
                        values => insert(&mut data, key.name, values.into()),
                    }
                }
                Some(value) => insert(&mut data, key.name, value.into()),
                None => fail(key.name, "is not UTF-8"),
            }
        }
        let place = |key: &[&str]| format!("{PREFIX}{}", whole(key).join("_").to_uppercase());
        Layer { name: "environment", data, place: Arc::new(place) }
    }

    fn flag_layer(&self) -> Layer {
        let mut data = Dict::new();
        for (name, values) in &self.flags {
            let list = KEYS.iter().any(|key| key.name == *name && key.list);
            match values.last() {
                _ if list => insert(&mut data, name, values.clone().into()),
                Some(value) => insert(&mut data, name, value.as_str().into()),
                None => {}
            }
        }
        let place = |key: &[&str]| format!("--{}", whole(key).join("-").replace('_', "-"));
        Layer { name: "flags", data, place: Arc::new(place) }
    }
}

/// The values of one layer and where in it a key stands.
struct Layer {
    name: &'static str,
    data: Dict,
    place: Place,
}

/// The place of a key, given as its parts.
type Place = Arc<dyn Fn(&[&str]) -> String + Send + Sync>;

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let place = Arc::clone(&self.place);
        Metadata::named(self.name).interpolater(move |_, keys| place(keys))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.data.clone()))
    }
}

/// Puts a value at a dotted key; keys are at most two deep.
fn insert(data: &mut Dict, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            data.insert(name.to_owned(), value);
        }
        Some((table, name)) => match data.entry(table.to_owned()).or_insert_with(|| Dict::new().into()) {
            Value::Dict(_, inner) => {
                inner.insert(name.to_owned(), value);
            }
            other => *other = Dict::from([(name.to_owned(), value)]).into(),
        },
    }
}

fn unknown_keys(layer: &Layer, problems: &mut Vec<Problem>) {
    let known: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    let mut report = |path: &[&str], message: String| {
        problems.push(Problem { key: path.join("."), place: Some((layer.place)(path)), message });
    };
    for (name, value) in &layer.data {
        // A dot within quotes makes another key of it, which nothing reads.
        if known.contains(name) && !name.contains('.') {
            continue;
        }
        let is_table = known.iter().any(|key| key.split_once('.').is_some_and(|(table, _)| table == name));
        match value {
            Value::Dict(_, inner) if is_table => {
                for inner_name in inner.keys() {
                    let full = format!("{name}.{inner_name}");
                    if !known.contains(&full) {
                        report(&[name, inner_name], unknown(&full, &known));
                    }
                }
            }
            _ if is_table => report(&[name], format!("is a table; write [{name}] and its keys below")),
            _ if name == "accept_loss" => {
                report(&[name], ACCEPT_LOSS_IS_A_FLAG.to_owned());
            }
            _ => report(&name.split('.').collect::<Vec<_>>(), unknown(name, &known)),
        }
    }
}

/// The key alone, of the way to something below it: a variable or flag has no lines.
fn whole<'a, 'b>(key: &'b [&'a str]) -> &'b [&'a str] {
    let end = key.iter().position(|part| part.bytes().all(|byte| byte.is_ascii_digit())).unwrap_or(key.len());
    &key[..end]
}

/// What a parser says, without the line that it quotes: a secret may stand in it.
fn without_the_line(message: &str) -> String {
    let quoted = |line: &str| line.split_once('|').is_some_and(|(number, _)| number.trim().parse::<u64>().is_ok());
    let told = message.lines().filter(|line| !quoted(line) && !line.trim_start().starts_with('|'));
    told.collect::<Vec<_>>().join(": ")
}

/// Says that a key is unknown and which known one is nearest.
fn unknown(name: &str, known: &[String]) -> String {
    match nearest(name, known) {
        Some(known) => format!("unknown key; did you mean {known}?"),
        None => "unknown key".to_owned(),
    }
}
