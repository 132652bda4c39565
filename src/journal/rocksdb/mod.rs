//! The journal on RocksDB: the database and its settings, opening it, and what RocksDB does not tell by itself.

pub(super) mod database;
pub mod inspect;
mod manifest;
pub(super) mod open;
pub(super) mod preallocate;
mod quiet;
mod salvage;
pub(super) mod settings;
mod watch;
mod write_ahead_log;

use crate::journal::store::StoredJournal;

/// The server runs on this journal; RocksDB is under it.
pub type RocksJournal = StoredJournal<database::Store>;
