//! What was found in a data directory, reduced to what decides.

/// The inputs of the decision table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Facts {
    /// The format of the directory, by its marker.
    pub format: Format,
    /// Whether there is one, and whether it can be read.
    pub database: DatabaseFact,
    /// How far the witness says that the journal reaches.
    pub witness: WitnessFact,
    /// The last thing that was written.
    pub last: LastWrite,
    /// Blocks that are there and not what was written.
    pub bad: Bad,
    /// Entries are missing between two that are there, and no operator has given them up.
    pub hole: bool,
    /// A block does not name the one before it, or holds entries that were there already.
    pub chain_broken: bool,
    /// Recovery starts from the checkpoint, if that is whole.
    pub checkpoint: CheckpointFact,
    /// A session, a dead letter or a note of a loss is not what was written.
    pub record_bad: bool,
}

/// The format of a data directory: it stands for the formats of everything in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// A format that this program reads: its own, or an earlier one.
    Known,
    /// The marker is gone or says nothing sensible, in a directory that is otherwise this program's.
    Unreadable,
    /// A format that no version has written, or that this program does not read.
    Older(u32),
    /// A format of a later version.
    Newer(u32),
}

/// Whether there is a database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DatabaseFact {
    /// There is none of it.
    Absent,
    /// The storage itself cannot make sense of it.
    Unreadable,
    /// It was read from end to end.
    Readable,
}

/// The witness outlives the database, and says what must be in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WitnessFact {
    /// There is none of it.
    Missing,
    /// It is not what was written.
    Damaged,
    /// All that it says was durable is there.
    Reached,
    /// The journal ends below it.
    Beyond,
}

/// The last thing that was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LastWrite {
    /// The last block is whole, and nothing is begun behind it.
    Whole,
    /// Writes were begun behind it that a crash interrupted before any of them was acked: the first is not whole.
    Torn,
    /// The journal holds no block at all.
    Absent,
}

/// Blocks that are there and not what was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bad {
    /// Every block is what was written.
    None,
    /// The last one, although the storage says that it was written as a whole.
    Last,
    /// One with a good one after it.
    BeforeGood,
}

/// The checkpoint, and the watermarks that it holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CheckpointFact {
    /// There is none, or it is not what was written.
    Missing,
    /// Up to the journal's end, or below it: the blocks from there on are replayed.
    Older,
    /// It knows of entries above the journal's end.
    Newer,
}

impl Default for Facts {
    /// The facts of a journal in which all is well.
    fn default() -> Self {
        Self {
            format: Format::Known,
            database: DatabaseFact::Readable,
            witness: WitnessFact::Reached,
            last: LastWrite::Whole,
            bad: Bad::None,
            hole: false,
            chain_broken: false,
            checkpoint: CheckpointFact::Older,
            record_bad: false,
        }
    }
}
