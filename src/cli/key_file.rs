//! The key that a client of the command line seals with: from a file, never from an argument, which every user of the
//! machine sees in the list of processes.

use std::path::{Path, PathBuf};

use duragram_proto::ClientId;
use duragram_proto::seal::{ClientKey, FleetKey};

use super::Failure;
use crate::keys::{Keys, Lookup, file};

/// `--key-file`.
#[derive(Debug, clap::Args)]
pub(super) struct KeyFileArgs {
    /// File with the client's key, or with the fleet key (see `duragram keys --help`); speaks sealed mode alone then
    #[arg(long = "key-file", value_name = "FILE", env = "DURAGRAM_KEY_FILE")]
    path: Option<PathBuf>,
}

impl KeyFileArgs {
    /// Who sends and with which key: the client that was named, or else the only one of the file, or else `any`, whose key
    /// is derived. `None` without a key file.
    pub(super) fn client(
        &self,
        named: Option<ClientId>,
        any: impl FnOnce() -> ClientId,
    ) -> Result<Option<(ClientId, ClientKey)>, Failure> {
        let Some(path) = &self.path else { return Ok(None) };
        let keys = read(path)?;
        let fleet = keys.fleet().is_some();
        let Some(client) = named.or_else(|| keys.only_client()).or_else(|| fleet.then(any)) else {
            return Err(Failure::usage(format_args!("{} has keys of several clients: say --client", path.display())));
        };
        match keys.lookup(client) {
            Lookup::Key(found) => Ok(Some((client, found.key.clone()))),
            Lookup::Revoked => Err(Failure::usage(format_args!("{}: client {client} is revoked", path.display()))),
            Lookup::Unknown => Err(Failure::usage(format_args!("{} has no key for client {client}", path.display()))),
        }
    }

    /// The fleet key. `None` without a key file.
    pub(super) fn fleet(&self) -> Result<Option<FleetKey>, Failure> {
        let Some(path) = &self.path else { return Ok(None) };
        match read(path)?.fleet() {
            Some(fleet) => Ok(Some(fleet.clone())),
            None => Err(Failure::usage(format_args!(
                "{} has no fleet key, from which each client's could be derived",
                path.display()
            ))),
        }
    }
}

/// Reads a key file, or says what is wrong with it.
pub(super) fn read(path: &Path) -> Result<Keys, Failure> {
    file::read(path).map_err(Failure::usage)
}
