//! What can be wrong with a journal, in words for the operator who has to act.

use std::fmt;
use std::path::PathBuf;

use crate::model::Offset;

/// The storage failed. Whether the last write is on disk is unknown; the journal is poisoned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{action}: {cause}")]
pub struct StorageError {
    /// What was attempted, such as "commit of the block at offset 7".
    pub action: String,
    /// The storage gave this as the reason.
    pub cause: String,
    /// Something that was durable is not what it was: what a start would have refused, had it read so far.
    pub damage: Option<Box<Damage>>,
}

impl StorageError {
    pub(crate) fn new(action: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { action: action.into(), cause: cause.to_string(), damage: None }
    }

    /// Damage that was found while the server runs.
    pub(in crate::journal) fn damaged(action: impl Into<String>, damage: Damage) -> Self {
        let cause = format!("the journal is damaged: {damage}. {}", damage.remedy);
        Self { damage: Some(Box::new(damage)), ..Self::new(action, cause) }
    }
}

/// Why a journal takes nothing any more. Each is final while this process lives: nothing is acked any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JournalError {
    /// Another server has taken the journal over, and writes it from now on. Nothing that was acked is lost.
    #[error(
        "the journal has another owner now ({owner}): this server acks nothing more, and its clients send again what it has \
         not acked. Nothing is lost. Leave the journal to its new owner, or stop that one before this server is started again"
    )]
    Fenced {
        /// Who has taken it over, as the journal names it.
        owner: String,
    },
    /// Entries that were acked are not there any more. Nothing was written after them.
    #[error(
        "entries that were acked are missing: the journal held all below {acked_end}, and now it ends at {end}. Nothing more \
         is acked, and nothing was changed. Bring back the storage that holds them before the next start"
    )]
    Lost {
        /// Every entry below had landed.
        acked_end: Offset,
        /// Where the journal was found to end.
        end: Offset,
    },
    /// The storage has failed. Whether the commits that were under way are durable is unknown.
    #[error(transparent)]
    Failed(#[from] StorageError),
}

impl JournalError {
    /// The same for those who cannot do their own work on the journal because of it.
    pub(crate) fn stops(&self, action: impl Into<String>) -> StorageError {
        match self {
            Self::Failed(error) => error.clone(),
            final_answer => StorageError::new(action, final_answer),
        }
    }
}

/// Why a journal was not opened. Nothing in it was changed, unless the variant says otherwise. Those with a path are of
/// journals in a data directory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory that should hold the data directory does not exist.
    #[error("cannot create the data directory {}: its parent directory does not exist", path.display())]
    MissingParent {
        /// The data directory asked for.
        path: PathBuf,
    },
    /// The offline tools only look; they do not create.
    #[error("there is no data directory {}", path.display())]
    Missing {
        /// The data directory asked for.
        path: PathBuf,
    },
    /// The directory holds something else than a journal. It was not changed.
    #[error("{} is not a data directory of Duragram ({found}); choose an empty or new directory", path.display())]
    NotOurs {
        /// The data directory asked for.
        path: PathBuf,
        /// This stands there instead, in words for the operator.
        found: String,
    },
    /// A later version of this program wrote it.
    #[error("{} has format {found}, this program knows format {known}: start a newer version of Duragram", path.display())]
    NewerFormat {
        /// The open was asked for this directory.
        path: PathBuf,
        /// The format in the directory.
        found: u32,
        /// The newest format of this program.
        known: u32,
    },
    /// A running server owns it, or an offline tool is reading it.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The open was asked for this directory.
        path: PathBuf,
    },
    /// No right to write, or a file system mounted read-only.
    #[error("cannot write to the data directory {}: {cause}", path.display())]
    NotWritable {
        /// The data directory, or what in it cannot be written.
        path: PathBuf,
        /// What the operating system said.
        cause: String,
    },
    /// Data that was acked is damaged or missing.
    #[error("the journal is damaged: {0}. Nothing was changed. {remedy}", remedy = .0.remedy)]
    Damaged(Damage),
    /// While it was being opened, the journal has answered that it takes nothing.
    #[error(transparent)]
    Refused(#[from] JournalError),
    /// The operating system or RocksDB refused something that has nothing to do with damage. Opening may have begun to
    /// write: RocksDB's own recovery, which keeps all data.
    #[error("{action}: {cause}")]
    Storage {
        /// The open failed while it did this.
        action: String,
        /// The system or the database gave this as the reason.
        cause: String,
    },
}

/// What to do about damage in a data directory.
const REMEDY: &str = "Look closer with `duragram journal verify`; then restore the data directory from a backup, or start once \
                      with `--accept-loss`, which keeps all that is good and sets the damaged database aside";

impl OpenError {
    pub(in crate::journal) fn storage(action: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self::Storage { action: action.into(), cause: cause.to_string() }
    }
}

/// One finding: something that was durable and is not what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Of which kind it is.
    pub kind: DamageKind,
    /// The part of the journal that is concerned.
    pub place: DamagePlace,
    /// It says what was found, and what should be there.
    pub problem: Box<str>,
    /// Files that are concerned; none where the journal is not in files, or where that is not known.
    pub files: Vec<String>,
    /// Where in the file, in bytes, when it is one file and that is known.
    pub byte: Option<u64>,
    /// What an operator does about it, in a sentence or two.
    pub remedy: &'static str,
}

/// The kinds of damage, each a row of the decision table of recovery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DamageKind {
    /// The marker `DURAGRAM` is gone or damaged.
    Marker,
    /// The marker names a format that no version has written.
    Format,
    /// There is no database where there must be one.
    DatabaseMissing,
    /// The storage cannot make sense of the database.
    DatabaseUnreadable,
    /// Something was damaged that was durable: what was written after it is whole.
    GoodAfterBad,
    /// The last block is damaged, although the storage says that it was written as a whole.
    LastBlock,
    /// Entries are missing between two that are there.
    Hole,
    /// A block does not follow the one before it.
    Chain,
    /// The witness is gone or damaged.
    Witness,
    /// The journal ends below the witness.
    BelowWitness,
    /// The checkpoint is gone or damaged.
    Checkpoint,
    /// The journal ends below its checkpoint.
    BelowCheckpoint,
    /// A session, a dead letter or a note of a loss is damaged.
    Record,
}

impl DamageKind {
    /// The name of this kind for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Marker => "marker",
            Self::Format => "format",
            Self::DatabaseMissing => "database-missing",
            Self::DatabaseUnreadable => "database-unreadable",
            Self::GoodAfterBad => "good-after-bad",
            Self::LastBlock => "last-block",
            Self::Hole => "hole",
            Self::Chain => "chain",
            Self::Witness => "witness",
            Self::BelowWitness => "below-witness",
            Self::Checkpoint => "checkpoint",
            Self::BelowCheckpoint => "below-checkpoint",
            Self::Record => "record",
        }
    }

    /// What this kind of damage means, for operators.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Marker => "the marker is gone or damaged",
            Self::Format => "the marker names a format that no version has written",
            Self::DatabaseMissing => "there is no database where there must be one",
            Self::DatabaseUnreadable => "RocksDB cannot make sense of the database",
            Self::GoodAfterBad => "durable data is damaged: what was written after it is whole",
            Self::LastBlock => "the last block is damaged, although it was written as a whole",
            Self::Hole => "entries are missing between two that are there",
            Self::Chain => "a block does not follow the one before it",
            Self::Witness => "the witness is gone or damaged: nothing says whether the journal's end is missing",
            Self::BelowWitness => "the journal's end is missing: the witness knows of more",
            Self::Checkpoint => "the checkpoint is gone or damaged: sessions and watermarks are unknown",
            Self::BelowCheckpoint => "the journal's end is missing: its checkpoint knows of more",
            Self::Record => "a session, a dead letter or a note of a loss is damaged",
        }
    }
}

/// A finding concerns this part of the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DamagePlace {
    /// Entries `from..to` of the journal; without `to`, all from `from` on; the place itself when they are the same.
    Entries {
        /// The first entry that is concerned.
        from: Offset,
        /// The first good one after them.
        to: Option<Offset>,
    },
    /// One record of a column family.
    Record {
        /// The column family that holds it.
        family: &'static str,
        /// The key under which it is stored.
        key: Vec<u8>,
    },
    /// One file beside the database.
    File(&'static str),
    /// The database as a whole.
    Database,
}

impl Damage {
    pub(crate) fn new(kind: DamageKind, place: DamagePlace, problem: impl fmt::Display) -> Self {
        Self { kind, place, problem: problem.to_string().into(), files: Vec::new(), byte: None, remedy: REMEDY }
    }

    pub(in crate::journal) fn in_files(self, files: Vec<String>) -> Self {
        Self { files, ..self }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)?;
        if !self.files.is_empty() {
            write!(f, " (in {})", self.files.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for DamagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries { from, to: Some(to) } if to <= from => write!(f, "at entry {from}"),
            Self::Entries { from, to: Some(to) } if to.since(*from) == 1 => write!(f, "entry {from}"),
            Self::Entries { from, to: Some(to) } => write!(f, "entries {from} to {}", to.0.saturating_sub(1)),
            Self::Entries { from, to: None } => write!(f, "entries from {from} on"),
            Self::Record { family, key } => {
                write!(f, "record ")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, " of `{family}`")
            }
            Self::File(name) => write!(f, "file `{name}`"),
            Self::Database => write!(f, "the database"),
        }
    }
}
