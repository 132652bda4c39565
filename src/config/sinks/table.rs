//! A table `[[sink]]` while it is read: every key is asked for by its dotted name, and what is wrong is gathered.

use figment::value::{Dict, Value};

use super::super::nearest::nearest;
use super::super::values::text;
use super::foreign;
use super::known::{SINK_KEYS, is_table};
use crate::model::Secret;

/// What is wrong with a sink: the key below it, and the message.
pub(super) type Problems = Vec<(String, String)>;

pub(super) struct Table<'a> {
    dict: &'a Dict,
    pub(super) problems: Problems,
}

impl<'a> Table<'a> {
    pub(super) fn new(dict: &'a Dict) -> Self {
        Self { dict, problems: Vec::new() }
    }

    pub(super) fn wrong(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push((key.to_owned(), message.into()));
    }

    pub(super) fn find(&self, key: &str) -> Option<&'a Value> {
        let mut parts = key.split('.');
        let mut value = self.dict.get(parts.next()?)?;
        for part in parts {
            value = value.as_dict()?.get(part)?;
        }
        Some(value)
    }

    /// The value of a key, if it is there and can be read.
    pub(super) fn read<T>(&mut self, key: &str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        match parse(self.find(key)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(key, message);
                None
            }
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.read(key, text)
    }

    /// The same of a key whose text is read further.
    pub(super) fn parsed<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.read(key, |value| parse(&text(value)?))
    }

    /// The text of a key without which there is no sink; `such` is an example.
    pub(super) fn needed(&mut self, key: &str, such: &str) -> String {
        if self.find(key).is_none() {
            self.wrong(key, format!("must be given, such as {key} = \"{such}\""));
        }
        self.text(key).unwrap_or_default()
    }

    /// Reads a key that takes one of several words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
                format!("{text:?} is none of {}", words.join(", "))
            })
        })
    }

    /// Where a secret is read from. What stands in its place is never repeated.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        self.read(key, |value| secret(key, value))
    }

    /// Reports every key that a sink of this type does not have; of an unknown type, those that none has.
    pub(super) fn unknown(&mut self, kind: Option<&str>) {
        for (name, value) in self.dict {
            match value {
                Value::Dict(_, inner) if is_table(name) => {
                    for inner_name in inner.keys() {
                        self.judge(&format!("{name}.{inner_name}"), inner_name.contains('.'), kind);
                    }
                }
                _ if is_table(name) => {
                    let first = SINK_KEYS.iter().find(|key| key.name.starts_with(&format!("{name}.")));
                    let such = first.map_or("", |key| key.name);
                    self.wrong(name, format!("is a table: write its keys with its name before them, such as {such}"));
                }
                Value::Dict(_, inner) if SINK_KEYS.iter().all(|key| key.name != *name) => {
                    // A table of another program's, whose keys have their places here.
                    let mut told: Vec<_> = inner
                        .keys()
                        .map(|inner| format!("{name}.{inner}"))
                        .filter(|name| foreign::told(name).is_some())
                        .collect();
                    if told.is_empty() {
                        told.push(name.clone());
                    }
                    told.iter().for_each(|name| self.judge(name, false, kind));
                }
                _ => self.judge(name, name.contains('.'), kind),
            }
        }
    }

    fn judge(&mut self, name: &str, quoted: bool, kind: Option<&str>) {
        match SINK_KEYS.iter().find(|key| key.name == name) {
            Some(_) if quoted => {
                self.wrong(name, "unknown key; write it without quotes: the dot separates a table from its key")
            }
            Some(key) => {
                let Some(kind) = kind.filter(|kind| !key.is_of(kind)) else { return };
                self.wrong(name, format!("is no key of type {kind}: {}", not_of(name, kind, key.types)));
            }
            None => {
                let known: Vec<String> = SINK_KEYS
                    .iter()
                    .filter(|key| kind.is_none_or(|kind| key.is_of(kind)))
                    .map(|key| key.name.to_owned())
                    .collect();
                let message = foreign::told(name).unwrap_or_else(|| match nearest(name, &known) {
                    Some(near) => format!("unknown key; did you mean {near}?"),
                    None => match kind {
                        Some(kind) => format!("unknown key; type {kind} has {}", known.join(", ")),
                        None => "unknown key".to_owned(),
                    },
                });
                self.wrong(name, message);
            }
        }
    }
}

/// What is to be said of a key that only other types have.
fn not_of(name: &str, kind: &str, types: &[&str]) -> String {
    let instead = match (name, kind) {
        ("user", "postgres") => Some("the user stands in the URL, postgres://USER@HOST/DATABASE"),
        ("stream", "redis") => Some("the stream is named by key"),
        ("topic", "nats") => Some("it is called subject here"),
        ("subject", "mqtt") => Some("it is called topic here"),
        ("token", "http") => Some("it is called bearer here"),
        ("bearer", "nats") => Some("it is called token here"),
        ("bearer" | "token", _) => Some("it has user and password"),
        ("password", _) => Some("it connects to nothing"),
        _ => None,
    };
    match (instead, types) {
        (Some(instead), _) => instead.to_owned(),
        (None, [one]) => format!("type {one} has it"),
        (None, types) => format!("types {} have it", types.join(", ")),
    }
}

/// A secret's place. The error says how one is written and nothing of what stood there.
fn secret(key: &str, value: &Value) -> Result<Secret, String> {
    let how = format!(
        "write {key} = {{ file = \"/etc/duragram/{key}\" }}, {{ env = \"NAME\" }} or {{ credential = \"NAME\" }} (systemd's \
         LoadCredential=)"
    );
    let Some(dict) = value.as_dict() else {
        return Err(format!("a secret must not stand in the configuration, which is shown: {how}"));
    };
    let mut entries = dict.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(format!("a secret comes from one place: {how}"));
    };
    let place = value.as_str().filter(|place| !place.is_empty());
    match (name.as_str(), place) {
        ("file", Some(place)) => Ok(Secret::File(place.into())),
        ("env", Some(place)) if !place.contains(['=', '\0']) => Ok(Secret::Env(place.to_owned())),
        ("credential", Some(place)) if !place.contains('/') && place != ".." => {
            Ok(Secret::Credential(place.to_owned()))
        }
        ("file" | "env" | "credential", _) => Err(format!("{name} must name one: {how}")),
        _ => Err(format!("a secret is not given as {name:?}: {how}")),
    }
}
