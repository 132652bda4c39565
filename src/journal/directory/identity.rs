//! Which journal this is, and which of its starts: what its records are named by elsewhere.
//!
//! The name is drawn at random when the directory is made, and again when it is lost. The instance is raised, durably, at each start
//! before the database is opened for writing, so before any entry: no two starts have the same one, also when one of them is of a copy of the directory, since
//! a nonce belongs to it.

use std::fs;
use std::io;
use std::path::Path;

use super::DataDir;
use super::files::{checked, replace_file, with_checksum};
use crate::model::{Instance, JournalId};

pub(super) const IDENTITY: &str = "journal-id";
/// In front of the journal's name, of the number of its starts, and of the last start's nonce.
const NAME_TEXT: &str = "journal ";
const INSTANCE_TEXT: &str = " instance ";
const NONCE_TEXT: &str = " nonce ";

/// The identity file says which journal this is, and how often it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) id: JournalId,
    /// `None`: no version of format 3 or later has started on it.
    pub(super) instance: Option<Instance>,
}

impl DataDir {
    /// Begins another instance, durably. Gives the journal a name too, if it has none that can be read.
    pub(in crate::journal) fn begin_instance(&mut self) -> io::Result<(JournalId, Instance)> {
        let id = self.identity.map_or_else(JournalId::random, |identity| identity.id);
        let instance = Instance::after(self.identity.and_then(|identity| identity.instance));
        let identity = Identity { id, instance: Some(instance) };
        replace_file(&self.root, &self.path, IDENTITY, &with_checksum(&text_of(identity)))?;
        self.identity = Some(identity);
        Ok((id, instance))
    }
}

fn text_of(Identity { id, instance }: Identity) -> String {
    let instance =
        instance.map(|Instance { number, nonce }| format!("{INSTANCE_TEXT}{number}{NONCE_TEXT}{nonce:016x}"));
    format!("{NAME_TEXT}{id}{}", instance.unwrap_or_default())
}

/// Which journal is there; `None` when nothing says so, or not what was written.
pub(super) fn read_identity(path: &Path) -> Option<Identity> {
    let text = fs::read(path.join(IDENTITY)).ok()?;
    parse(checked(&text)?)
}

fn parse(text: &str) -> Option<Identity> {
    let text = text.strip_prefix(NAME_TEXT)?;
    let Some((id, instance)) = text.split_once(INSTANCE_TEXT) else {
        return Some(Identity { id: JournalId::parse(text)?, instance: None });
    };
    let (number, nonce) = instance.split_once(NONCE_TEXT)?;
    let instance = Instance { number: number.parse().ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? };
    Some(Identity { id: JournalId::parse(id)?, instance: Some(instance) })
}
