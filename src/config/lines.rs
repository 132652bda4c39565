//! On which line of a TOML text a key stands.

/// The line, from 1, of a key that is given as its parts; an element of an array of tables is its number, from 0. For a key
/// that the text writes in a way that this simple search does not see, the line of the innermost table around it that it does
/// see, or nothing.
pub(super) fn line_of(text: &str, key: &[&str]) -> Option<usize> {
    let mut table: Vec<String> = Vec::new();
    let mut arrays: Vec<(Vec<String>, usize)> = Vec::new();
    let mut nearest: Option<(usize, usize)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        let full = if let Some(header) = line.strip_prefix("[[").and_then(|rest| rest.split("]]").next()) {
            let name = within(&arrays, parts(header));
            let index = match arrays.iter_mut().find(|(array, _)| *array == name) {
                Some((_, index)) => {
                    *index += 1;
                    *index
                }
                None => {
                    arrays.push((name.clone(), 0));
                    0
                }
            };
            table = name;
            table.push(index.to_string());
            table.clone()
        } else if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = within(&arrays, parts(header));
            table.clone()
        } else if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            table.iter().cloned().chain(parts(name)).collect()
        } else {
            continue;
        };
        let common = full.iter().zip(key).take_while(|(a, b)| a == b).count();
        if common == key.len() {
            return Some(number);
        }
        // A table around the key, and no neighbour of it; of several tables the innermost, of one table its first line.
        if common == full.len() && nearest.is_none_or(|(known, _)| common > known) {
            nearest = Some((common, number));
        }
    }
    nearest.map(|(_, number)| number)
}

/// The path of a table, with the number of the last element of each array of tables on its way.
fn within(arrays: &[(Vec<String>, usize)], parts: Vec<String>) -> Vec<String> {
    let count = parts.len();
    let mut path = Vec::new();
    for (n, part) in parts.into_iter().enumerate() {
        path.push(part);
        if let Some((_, index)) = arrays.iter().find(|(array, _)| *array == path).filter(|_| n + 1 < count) {
            path.push(index.to_string());
        }
    }
    path
}

/// The parts of a dotted key, without blanks and quotes.
fn parts(name: &str) -> Vec<String> {
    let unspaced: String = name.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'')).collect();
    unspaced.split('.').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
lanes = 1
[[sink]]
name = \"a\"
batch.records_max = 5
[sink.tls]
ca_file = \"x\"
[[sink]] # the second
name = \"b\"
tls = { ca_file = \"y\" }
[log]
level = \"info\"
";

    #[test]
    fn keys_of_tables_in_an_array_are_found_in_the_right_one() {
        for (key, line) in [
            (&["sink"][..], Some(2)),
            (&["sink", "0"], Some(2)),
            (&["sink", "0", "name"], Some(3)),
            (&["sink", "0", "batch", "records_max"], Some(4)),
            (&["sink", "0", "batch"], Some(4)),
            (&["sink", "0", "tls", "ca_file"], Some(6)),
            (&["sink", "1", "name"], Some(8)),
            (&["sink", "1", "url"], Some(7)),
            (&["sink", "1", "tls", "ca_file"], Some(9)),
            (&["log", "level"], Some(11)),
            (&["log", "format"], Some(10)),
            (&["sink", "2"], None),
            (&["window"], None),
        ] {
            assert_eq!(line_of(TEXT, key), line, "{key:?}");
        }
    }
}
