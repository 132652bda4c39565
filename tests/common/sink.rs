//! The lines of the file sink (`docs/operations.md`, "Sinks"), read back.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// One line of a sink tells of one record or gap.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) offset: u64,
    pub(crate) index: u64,
    pub(crate) client: String,
    pub(crate) epoch: u32,
    pub(crate) seq: u64,
    pub(crate) channel: u16,
    pub(crate) received_at: String,
    /// Whether its sender waits for an answer.
    #[serde(default)]
    pub(crate) ask: bool,
    payload: Option<String>,
    payload_base64: Option<String>,
    pub(crate) gap: Option<Gap>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Gap {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Line {
    /// The record's bytes. Panics on a gap.
    pub(crate) fn payload(&self) -> Vec<u8> {
        match (&self.payload, &self.payload_base64, self.gap) {
            (Some(text), None, None) => text.clone().into_bytes(),
            (None, Some(text), None) => BASE64_STANDARD.decode(text).expect("base64"),
            _ => panic!("not a record: {self:?}"),
        }
    }
}

/// The whole lines of a file; a last line without its newline is still being written. Empty when there is no file.
pub(crate) fn read(path: &Path) -> Vec<Line> {
    let Ok(bytes) = fs::read(path) else { return Vec::new() };
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&bytes[..whole]).expect("the sink writes UTF-8");
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}
