//! The sinks of a configuration: tables `[[sink]]` and short forms, how they are read, held against their bounds, and shown.
//!
//! Nothing here shows a secret, since a configuration never holds one: it says where each is read from, and whatever else
//! stands in its place is refused without being repeated.

mod check;
mod foreign;
mod known;
mod read;
mod show;
mod table;
mod targets;
#[cfg(test)]
mod tests;

use figment::value::Value;

pub(super) use check::check;
pub use known::{SINK_KEYS, SinkKey};
pub(super) use show::show;

use super::wrong::{Wrong, Wrongs};
use crate::model::SinkConfig;

/// Reads the value of the key `sink`: short forms, tables, or both. Beside what is wrong stand the sinks as far as they could
/// be read, so that their bounds can be told at once.
pub(super) fn read(value: &Value) -> Result<(Vec<SinkConfig>, Wrongs), String> {
    let one = [value.clone()];
    let values = match value {
        Value::Array(_, values) => values.as_slice(),
        Value::Dict(..) => return Err("is a list: write [[sink]], with two brackets, and its keys below".to_owned()),
        _ => &one,
    };
    let mut wrongs = Vec::new();
    let mut sinks = Vec::new();
    for (n, value) in values.iter().enumerate() {
        let at = n.to_string();
        match (value.as_str(), value.as_dict()) {
            (Some(text), _) => match text.parse::<SinkConfig>() {
                Ok(sink) => sinks.push(sink),
                Err(error) => {
                    wrongs.push(Wrong { below: String::new(), path: vec![at], message: error.to_string() });
                    sinks.push(read::unreadable(n));
                }
            },
            (None, Some(dict)) => {
                let (sink, problems) = read::sink(dict);
                let label = label(n, &sink);
                wrongs.extend(problems.into_iter().map(|(key, message)| {
                    let path = std::iter::once(at.clone()).chain(key.split('.').map(str::to_owned));
                    Wrong { below: format!("[{label}].{key}"), path: path.collect(), message }
                }));
                sinks.push(sink);
            }
            (None, None) => {
                let message = "takes texts such as \"stdout\", and tables [[sink]]".to_owned();
                wrongs.push(Wrong { below: String::new(), path: vec![at], message });
                sinks.push(read::unreadable(n));
            }
        }
    }
    Ok((sinks, Wrongs(wrongs)))
}

/// How problems call a sink: by its name, or by its number where it has none that could be said.
fn label(n: usize, sink: &SinkConfig) -> String {
    if check::is_name(&sink.name) { sink.name.clone() } else { format!("#{}", n + 1) }
}

/// The way from the root of the configuration to what a problem's key names, if it is something of a sink.
pub(super) fn path_of(key: &str, sinks: &[SinkConfig]) -> Option<Vec<String>> {
    let (label, rest) = key.strip_prefix("sink[")?.split_once(']')?;
    let index = match label.strip_prefix('#') {
        Some(number) => number.parse::<usize>().ok()?.checked_sub(1)?,
        None => sinks.iter().position(|sink| sink.name == label)?,
    };
    let below = rest.split('.').filter(|part| !part.is_empty()).map(str::to_owned);
    Some(["sink".to_owned(), index.to_string()].into_iter().chain(below).collect())
}

/// The short forms in the text of a variable, at its commas: those within a URL or a command belong to it.
pub(super) fn split(text: &str) -> Vec<&str> {
    let begins = |part: &str| {
        let part = part.trim();
        part.is_empty()
            || ["stdout", "null"].contains(&part)
            || ["file:", "exec:"].iter().any(|form| part.starts_with(form))
            || part.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    let mut parts: Vec<&str> = Vec::new();
    let mut start = 0;
    for (comma, _) in text.match_indices(',').chain([(text.len(), "")]) {
        let so_far = &text[start..comma];
        let takes_commas = so_far.contains("://") || so_far.trim_start().starts_with("exec:");
        let next = text.get(comma + 1..).unwrap_or_default().split(',').next().unwrap_or_default();
        if comma == text.len() || !takes_commas || begins(next) {
            parts.push(so_far);
            start = comma + 1;
        }
    }
    parts
}
