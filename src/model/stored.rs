//! What is kept on disk beside the entries: which journal it is, sessions, epochs of clients, how far lanes have come.

use std::fmt;

use duragram_proto::window::DedupWindow;
use duragram_proto::{ClientId, Seq};

use super::{Lane, Offset, SessionId, SinkId};

/// Which journal it is: made at random with its directory. An offset means something only together with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JournalId(u128);

impl JournalId {
    /// Makes a name for a new journal, which no other has.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    /// Reads it as it is shown.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalId({self})")
    }
}

/// One start of a journal: all that is written between two starts belongs to the first of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Instance {
    /// How many starts there were, with this one.
    pub number: u64,
    /// A number drawn at random, by which two starts with the same number are told apart: one of them is of a copy.
    pub nonce: u64,
}

impl Instance {
    /// The start after this one; the first, if there was none.
    pub(crate) fn after(last: Option<Self>) -> Self {
        Self { number: last.map_or(0, |last| last.number).saturating_add(1), nonce: rand::random() }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.nonce)
    }
}

/// A session as it is kept on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionRecord {
    /// The record is kept under this id.
    pub id: SessionId,
    /// Every seq up to here is accounted for.
    pub floor: Seq,
    /// Bit i of word w stands for seq `floor + 1 + 64 w + i`. No trailing zero words.
    pub above: Vec<u64>,
    /// When its last datagram came, in seconds of service (the time that the server has run, over all its runs).
    pub last_active_s: u64,
    /// The nonce of the HELLO that opened it.
    pub hello_nonce: Option<u64>,
    /// It was opened by a sealed datagram, and takes no others.
    pub sealed: bool,
}

impl SessionRecord {
    /// Whether a session can have such seqs: none lies further beyond the floor than any window reaches.
    pub(crate) fn fits_a_window(&self) -> bool {
        DedupWindow::from_words(self.floor, &self.above).is_some()
    }
}

/// What is never forgotten of a client that speaks in sealed mode (PROTOCOL.md#sealed-epoch).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientRecord {
    /// The client whose epochs these are.
    pub client: ClientId,
    /// The highest epoch that it has opened; 0 for none.
    pub opened: u32,
    /// The highest epoch that was given to it by WELCOME; 0 for none.
    pub given: u32,
}

/// How far a lane has come, as it is kept on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneMark {
    /// Every entry of the lane below is processed, and its sink has made that durable.
    pub watermark: Offset,
    /// What the lane's sink needs to find out after a crash which later records it already has. Opaque here.
    pub sink_state: Vec<u8>,
}

/// How far the lanes of an earlier run had come, when there were so many of them. Each session may be in another lane since:
/// what lies below is processed already, and the lanes of today pass over it. Kept until they have all come as far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FormerLanes(pub Vec<Offset>);

impl FormerLanes {
    /// Whether the lane that had the session then has processed this entry.
    pub fn have_passed(&self, session: SessionId, offset: Offset) -> bool {
        let lanes = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        lanes > 0 && offset < self.0[usize::from(Lane::of(session, lanes).0)]
    }

    /// No entry from here on was processed by any of them.
    pub fn end(&self) -> Offset {
        self.0.iter().copied().max().unwrap_or_default()
    }
}

/// A configured sink as it is kept on disk: its name, what it was when its cursor began, and how far it has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkRecord {
    /// The record is kept under this id, which does not change with the name.
    pub id: SinkId,
    /// The name that the configuration gives it.
    pub name: String,
    /// A hash of where it writes to and what it takes. A sink that has become another under its old name is refused.
    pub identity: u64,
    /// How far it has come. There is one shard.
    pub mark: LaneMark,
    /// The start of the journal in which the mark was last moved.
    pub instance: u64,
    /// It holds what it has not processed: trimming stops there. Else it has been detached.
    pub holds: bool,
    /// An operator has stopped it for a while.
    pub paused: bool,
    /// What it has lost, the oldest first. Neighbours are one.
    pub losses: Vec<SinkLoss>,
    /// Of what it has lost the entries, from the first up to another, of which its handler has not been told yet.
    pub untold: Option<(Offset, Offset)>,
    /// Of an older journal, in which all sinks went on together: how far the lanes had come that it goes on from.
    pub former: Vec<FormerLanes>,
}

impl SinkRecord {
    /// A sink that holds all from its mark on, has lost nothing, and is not paused.
    pub fn new(id: SinkId, name: impl Into<String>, identity: u64, mark: LaneMark, instance: u64) -> Self {
        Self {
            id,
            name: name.into(),
            identity,
            mark,
            instance,
            holds: true,
            paused: false,
            losses: Vec::new(),
            untold: None,
            former: Vec::new(),
        }
    }
}

/// Entries that a sink will never see, because it had fallen too far behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SinkLoss {
    /// The lost entries begin with this one.
    pub from: Offset,
    /// The lost entries end before this one.
    pub to: Offset,
    /// How many of the entries between the two are lost: all, unless records of losses were put together.
    pub entries: u64,
    /// When the last of them was lost, in microseconds since 1970.
    pub unix_us: u64,
}
