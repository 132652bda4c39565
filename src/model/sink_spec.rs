//! The name of a sink, as the configuration and the command line write it. Which handler it stands for only the sinks know.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A sink as it is named on the command line and in the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SinkSpec {
    /// `null` takes every record and keeps none.
    Null,
    /// `stdout` writes each record as a line of JSON to standard output.
    Stdout,
    /// `file:PATH` writes each record as a line of JSON to what is at the path.
    File(PathBuf),
}

/// Why a text names no sink, or several texts cannot stand beside each other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SinkSpecError {
    /// There is no sink of this name.
    #[error("unknown sink \"{0}\": there are stdout, file:PATH and null")]
    Unknown(String),
    /// It is `file:` alone.
    #[error("sink \"file:\" lacks its path: write file:PATH, such as file:/var/log/duragram.ndjson")]
    NoPath,
    /// The same sink is named a second time: its lines would be mixed up, or written twice.
    #[error("sink {0} is given twice")]
    Twice(String),
}

impl SinkSpec {
    /// Reads several names, each of another sink.
    ///
    /// # Errors
    /// A text names no sink, or the same one is named twice.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>, SinkSpecError> {
        let specs: Vec<Self> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        match (1..specs.len()).find(|&n| specs[..n].contains(&specs[n])) {
            Some(n) => Err(SinkSpecError::Twice(specs[n].to_string())),
            None => Ok(specs),
        }
    }
}

impl FromStr for SinkSpec {
    type Err = SinkSpecError;

    fn from_str(text: &str) -> Result<Self, SinkSpecError> {
        match (text, text.strip_prefix("file:")) {
            ("null", _) => Ok(Self::Null),
            ("stdout", _) => Ok(Self::Stdout),
            (_, Some("")) => Err(SinkSpecError::NoPath),
            (_, Some(path)) => Ok(Self::File(path.into())),
            (_, None) => Err(SinkSpecError::Unknown(text.to_owned())),
        }
    }
}

impl TryFrom<String> for SinkSpec {
    type Error = SinkSpecError;

    fn try_from(text: String) -> Result<Self, SinkSpecError> {
        text.parse()
    }
}

impl From<SinkSpec> for String {
    fn from(spec: SinkSpec) -> Self {
        spec.to_string()
    }
}

impl fmt::Display for SinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_read_and_errors_name_what_is_wrong() {
        for (text, spec) in [
            ("null", SinkSpec::Null),
            ("stdout", SinkSpec::Stdout),
            ("file:/var/log/x.ndjson", SinkSpec::File("/var/log/x.ndjson".into())),
            ("file:a:b", SinkSpec::File("a:b".into())),
        ] {
            assert_eq!(text.parse(), Ok(spec.clone()));
            assert_eq!(spec.to_string(), text);
        }
        for (text, message) in [
            ("", "unknown sink \"\": there are stdout, file:PATH and null"),
            ("nul", "unknown sink \"nul\": there are stdout, file:PATH and null"),
            ("Stdout", "unknown sink \"Stdout\": there are stdout, file:PATH and null"),
            ("/var/log/x", "unknown sink \"/var/log/x\": there are stdout, file:PATH and null"),
            ("file:", "sink \"file:\" lacks its path: write file:PATH, such as file:/var/log/duragram.ndjson"),
        ] {
            assert_eq!(text.parse::<SinkSpec>().unwrap_err().to_string(), message);
        }
        let twice = SinkSpec::parse_all(&["null".into(), "file:x".into(), "file:x".into()]).unwrap_err();
        assert_eq!(twice.to_string(), "sink file:x is given twice");
    }
}
