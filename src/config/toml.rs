//! Values as TOML that reads back: of JSON, tables alone are written in another way.

use serde_json::Value as Json;

/// A value in one line.
pub(super) fn of(value: &Json) -> String {
    match value {
        Json::Object(entries) => {
            let mut entries: Vec<(&String, &Json)> = entries.iter().collect();
            // What it is stands before what it is like.
            entries
                .sort_by_key(|(key, _)| ["name", "type"].iter().position(|first| first == key).unwrap_or(usize::MAX));
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{} = {}", name(key), of(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Json::Array(values) => format!("[{}]", values.iter().map(of).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

/// A key, in quotes if it needs them.
fn name(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if bare { key.to_owned() } else { Json::from(key).to_string() }
}
