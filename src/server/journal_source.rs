//! Where the server's journal comes from.

use std::sync::Arc;

use crate::commit::{Recovered, Recovery};
use crate::config::Config;
use crate::dialect::duragram::Duragram;
use crate::journal::recovery::ReadProgress;
use crate::journal::{Damage, DamageKind, DamagePlace, Journal, OpenError, Opened, Replay, RocksJournal, RocksOptions};
use crate::server::error::Error;
use crate::server::starting::StartProgress;

/// Opens the journal that a server writes.
pub trait JournalSource {
    /// The server writes a journal of this type.
    type Journal: Journal + 'static;

    /// Opens it, and gives `replay` what it holds. `progress` tells others how far that is.
    ///
    /// # Errors
    /// [`OpenError`] says what stands in the way, and whether anything was changed.
    fn open(
        self,
        config: &Config,
        progress: &Arc<ReadProgress>,
        replay: &mut dyn FnMut(Replay<'_>),
    ) -> Result<Opened<Self::Journal>, OpenError>;
}

/// The journal on RocksDB in the configured data directory.
#[derive(Clone, Copy, Debug)]
pub struct DataDirectory;

impl JournalSource for DataDirectory {
    type Journal = RocksJournal;

    fn open(
        self,
        config: &Config,
        progress: &Arc<ReadProgress>,
        replay: &mut dyn FnMut(Replay<'_>),
    ) -> Result<Opened<RocksJournal>, OpenError> {
        let options = RocksOptions {
            accept_loss: config.accept_loss,
            reserve_bytes: config.reserve_bytes,
            progress: Arc::clone(progress),
            ..RocksOptions::default()
        };
        RocksJournal::open(&config.data, &options, replay)
    }
}

/// Opens the journal, and rebuilds the sessions from it.
pub(super) fn open<S: JournalSource>(
    source: S,
    config: &Config,
    start: &StartProgress,
    dialect: Duragram,
) -> Result<(Opened<S::Journal>, Recovered<Duragram>), Error> {
    let mut recovery = Recovery::new(dialect);
    let opened = source.open(config, &start.journal, &mut |replay| recovery.apply(replay))?;
    for damage in &opened.given_up {
        tracing::error!(%damage, "acked data was given up, as --accept-loss says");
    }
    let recovered = recovery.finish(&opened).map_err(|invalid| {
        OpenError::Damaged(Damage::new(DamageKind::Record, DamagePlace::Database, invalid.to_string()))
    })?;
    Ok((opened, recovered))
}
