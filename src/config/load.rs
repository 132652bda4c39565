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
use super::nearest::nearest;
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
            let place = figment.get_metadata(value.tag()).map(|source| {
                let path: Vec<&str> = key.name.split('.').collect();
                source.interpolate(&Profile::Default, &path)
            });
            if let Err(message) = (key.set)(&mut config, &value) {
                problems.push(Problem { key: key.name.to_owned(), place: place.clone(), message });
            }
            if let Some(place) = place {
                places.insert(key.name, place);
            }
        }
        // A value that could not be read stands at its default here: what validation says of that is not the operator's.
        if let Err(invalid) = config.validate() {
            let unread: BTreeSet<String> = problems.iter().map(|problem| problem.key.clone()).collect();
            let read = invalid.problems.into_iter().filter(|problem| !unread.contains(&problem.key));
            problems
                .extend(read.map(|problem| Problem { place: places.get(problem.key.as_str()).cloned(), ..problem }));
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
            Err(error) => fail(error.to_string().trim_end().to_owned()),
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
                    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
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
        Layer { name: "environment", data, place: Arc::new(|key| format!("{PREFIX}{}", key.join("_").to_uppercase())) }
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
        Layer { name: "flags", data, place: Arc::new(|key| format!("--{}", key.join("-").replace('_', "-"))) }
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
        if known.contains(name) {
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
            _ => report(&[name], unknown(name, &known)),
        }
    }
}

/// Says that a key is unknown and which known one is nearest.
fn unknown(name: &str, known: &[String]) -> String {
    match nearest(name, known) {
        Some(known) => format!("unknown key; did you mean {known}?"),
        None => "unknown key".to_owned(),
    }
}

/// The line, from 1, on which a key stands in a TOML text; for a key that the text writes in a way that this simple
/// search does not see, its table's line or nothing.
fn line_of(text: &str, key: &[&str]) -> Option<usize> {
    let mut table = String::new();
    let mut table_line = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = unspaced(header);
            if key.split_last().is_some_and(|(_, parents)| !parents.is_empty() && table == parents.join(".")) {
                table_line = Some(number);
            }
            if table == key.join(".") {
                return Some(number);
            }
        } else if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let name = unspaced(name);
            let full = if table.is_empty() { name } else { format!("{table}.{name}") };
            if full == key.join(".") {
                return Some(number);
            }
            if key.len() > 1 && full == key[0] {
                table_line = Some(number);
            }
        }
    }
    table_line
}

/// A key's text without blanks and quotes.
fn unspaced(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'')).collect()
}
