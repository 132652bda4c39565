//! The witness: what is known to be durable, in a file beside the database.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::DataDir;
use super::files::{checked, replace_file, with_checksum};
use super::watch;
use crate::journal::recovery::Witness;
use crate::model::Offset;

pub(super) const WITNESS: &str = "witness";
/// The text of a directory that was never in service.
const WITNESS_UNUSED: &str = "not in service";

impl DataDir {
    /// The last witness; `None` when there is none, an error when it is not what was written.
    pub(in crate::journal) fn witness(&self) -> Result<Option<Witness>, String> {
        let text = match fs::read(self.path.join(WITNESS)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let witness = checked(&text).and_then(parse_witness);
        match witness {
            Some(witness) => Ok(Some(witness)),
            None => Err("it is not what was written".into()),
        }
    }

    /// Replaces the witness, and returns when the new one is on the disk.
    pub(super) fn replace_witness(&self, witness: Witness) -> io::Result<()> {
        replace_file(&self.root, &self.path, WITNESS, &with_checksum(&witness_text(witness)))
    }

    /// What became of the witness, when this was written last; `None` when it is there.
    pub(super) fn lost_witness_file(&self, written: Witness) -> Option<String> {
        let what = match fs::read(self.path.join(WITNESS)) {
            Ok(text) if text == with_checksum(&witness_text(written)).as_bytes() => return None,
            Ok(_) => watch::CHANGED,
            Err(error) if watch::is_gone(&error) => watch::GONE,
            Err(_) => return None,
        };
        Some(format!("`{WITNESS}` in {} {what}", self.path.display()))
    }
}

pub(super) fn has_witness(path: &Path) -> bool {
    fs::read(path.join(WITNESS)).is_ok_and(|text| checked(&text).and_then(parse_witness).is_some())
}

fn witness_text(witness: Witness) -> String {
    match witness {
        Witness::NotInService => WITNESS_UNUSED.into(),
        Witness::Durable { end, changes } => format!("end {end} changes {changes}"),
    }
}

fn parse_witness(text: &str) -> Option<Witness> {
    if text == WITNESS_UNUSED {
        return Some(Witness::NotInService);
    }
    let rest = text.strip_prefix("end ")?;
    // Version 0.1.0 did not count changes.
    let (end, changes) = rest.split_once(" changes ").unwrap_or((rest, "0"));
    Some(Witness::Durable { end: Offset(end.parse().ok()?), changes: changes.parse().ok()? })
}
