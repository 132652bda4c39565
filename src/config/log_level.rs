//! What logs are kept: a level, or a filter of levels for parts of the program.
//!
//! The filter's own parser takes any word that is no level for the name of a part, and then logs that part alone: with
//! `warning` nothing is logged at all. So here each directive is looked at first.

use std::borrow::Cow;

use tracing_subscriber::EnvFilter;

/// The filter with its levels as tracing calls them, so that `Warning` is `warn`. An error names what may be written.
pub(crate) fn normal(filter: &str) -> Result<String, String> {
    let directives = directives(filter).map(directive).collect::<Result<Vec<_>, String>>()?;
    let normal = directives.join(",");
    match EnvFilter::try_new(&normal) {
        Ok(_) => Ok(normal),
        Err(error) => Err(format!("{filter:?} is no filter: {error}")),
    }
}

fn directive(text: &str) -> Result<Cow<'_, str>, String> {
    let text = text.trim();
    let none = |word: &str| {
        format!(
            "{word:?} is no level; write error, warn, info, debug, trace or off, or a filter such as \
             info,duragram::commit=debug"
        )
    };
    match outside(text, '=').last() {
        Some(at) => {
            let (part, word) = (text[..at].trim(), text[at + 1..].trim());
            if part.is_empty() || part.contains(char::is_whitespace) && !part.contains('[') {
                return Err(format!("{text:?} names no part of the program before the ="));
            }
            level(word).map(|level| format!("{part}={level}").into()).ok_or_else(|| none(word))
        }
        // Of a span everything.
        None if text.contains('[') => Ok(text.into()),
        None => level(text).map(Cow::from).ok_or_else(|| none(text)),
    }
}

/// Upper or lower case, by the names and numbers that tracing knows and by those that other programs use for the same.
fn level(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "off" | "0" => "off",
        "error" | "err" | "1" => "error",
        "warn" | "warning" | "2" => "warn",
        "info" | "information" | "3" => "info",
        "debug" | "4" => "debug",
        "trace" | "5" => "trace",
        _ => return None,
    })
}

fn directives(filter: &str) -> impl Iterator<Item = &str> {
    let ends: Vec<usize> = outside(filter, ',').chain([filter.len()]).collect();
    ends.into_iter().scan(0, |start, end| {
        let directive = &filter[*start..end];
        *start = end + 1;
        Some(directive)
    })
}

/// Where a character stands outside of a span's brackets.
fn outside(text: &str, wanted: char) -> impl Iterator<Item = usize> {
    let mut depth = 0_u32;
    text.char_indices().filter_map(move |(at, c)| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0 && c == wanted).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_understood_in_upper_and_lower_case_and_by_their_other_names() {
        for (written, meant) in [
            ("info", "info"),
            ("INFO", "info"),
            ("Information", "info"),
            ("warning", "warn"),
            ("Warning", "warn"),
            ("err", "error"),
            ("OFF", "off"),
            ("2", "warn"),
            (" debug ", "debug"),
            ("info,duragram=debug", "info,duragram=debug"),
            ("Warning, duragram::commit=TRACE", "warn,duragram::commit=trace"),
            ("duragram=warning", "duragram=warn"),
            ("warn,duragram[commit{offset=3}]=Debug", "warn,duragram[commit{offset=3}]=debug"),
            ("info,[commit]", "info,[commit]"),
        ] {
            assert_eq!(normal(written).as_deref(), Ok(meant), "{written}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_and_the_levels_are_named() {
        for (filter, word) in [
            ("notice", "\"notice\""),
            ("verbose", "\"verbose\""),
            ("loud", "\"loud\""),
            ("", "\"\""),
            ("6", "\"6\""),
            ("info,verbose", "\"verbose\""),
            ("info,", "\"\""),
            ("info,duragram", "\"duragram\""),
            ("duragram=loud", "\"loud\""),
            ("duragram=", "\"\""),
            ("info duragram=debug", "no part of the program"),
            ("=debug", "no part of the program"),
        ] {
            let problem = normal(filter).expect_err(filter);
            let named = problem.starts_with(word) && problem.contains("write error, warn, info, debug, trace or off");
            assert!(named || problem.contains("no part of") || problem.contains("no filter"), "{filter:?}: {problem}");
        }
    }
}
