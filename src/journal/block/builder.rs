//! Building a block from the entries of a commit.

use duragram_proto::Seq;
use rkyv::api::low::LowSerializer;
use rkyv::rancor;
use rkyv::ser::Serializer;
use rkyv::ser::allocator::SubAllocator;

use super::archive::{self, Body, HEADER_LEN, Header, ROOT_LEN, ROW_LEN, SessionRow};
use super::{BLOCK_BYTES_MAX, BLOCK_VERSION, Block, BlockError, CHECKSUM_AT, PREFIX_LEN, Place, Summary, checksum_of};
use super::{FLAG_ASK, FLAG_BATCH, FLAG_GAP, FLAG_SEALED, FLAG_SKIP};
use crate::model::{DialectId, EntryMeta, SessionId};

/// Capacity that a builder keeps from one block to the next, in entries, and that it takes anew, in bytes of a block.
const KEEP_ENTRIES_MAX: usize = 64 << 10;
pub(super) const KEEP_BLOCK_BYTES_MAX: usize = 16 << 20;
/// Rows that are found again at once, as a power of two: some more than a commit has sessions.
const RECENT_BITS: u32 = 13;

/// A block being built. Reused from commit to commit; offsets are given when it is committed.
#[derive(Debug)]
pub struct BlockBuilder {
    sessions: Vec<SessionRow>,
    recent: RecentRows,
    headers: Vec<Header>,
    /// Room for the prefix, then all payloads: the block as it will be, up to the session rows.
    pub(super) bytes: Vec<u8>,
    newest_arrival_unix_us: u64,
    /// So many bytes a new block gets room for: as much as one of the largest of late has taken, else what is there already would be
    /// copied while it grows.
    room_bytes: usize,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self {
            sessions: Vec::new(),
            recent: RecentRows::default(),
            headers: Vec::new(),
            bytes: vec![0; PREFIX_LEN],
            newest_arrival_unix_us: 0,
            room_bytes: 0,
        }
    }
}

impl BlockBuilder {
    /// Adds a datagram. The caller commits before [`size`](Self::size) reaches [`BLOCK_BYTES_MAX`].
    pub fn push(&mut self, meta: &EntryMeta, payload: &[u8]) {
        let flags = if meta.skip { FLAG_SKIP } else { 0 }
            | if meta.batch { FLAG_BATCH } else { 0 }
            | if meta.asks { FLAG_ASK } else { 0 };
        self.add(meta, flags, payload);
    }

    /// Adds a gap: seqs `from..=to` of the session, which is a sealed one or not. Only Duragram's own protocol has them.
    pub fn push_gap(&mut self, session: SessionId, sealed: bool, from: Seq, to: Seq, received_unix_us: u64) {
        let meta = EntryMeta {
            dialect: DialectId::DURAGRAM,
            session,
            seq: to,
            span: 0,
            skip: false,
            batch: false,
            asks: false,
            sealed,
            channel: 0,
            received_unix_us,
        };
        self.add(&meta, FLAG_GAP, &from.0.to_le_bytes());
    }

    fn add(&mut self, meta: &EntryMeta, flags: u8, payload: &[u8]) {
        let flags = flags | if meta.sealed { FLAG_SEALED } else { 0 };
        self.bytes.extend_from_slice(payload);
        let row = self.recent.index_of(meta, &mut self.sessions);
        // A block beyond this is beyond BLOCK_BYTES_MAX too, and refused as a whole.
        let payload_end = u32::try_from(self.bytes.len() - PREFIX_LEN).unwrap_or(u32::MAX);
        self.headers.push(Header::of(meta, flags, row, payload_end));
        self.newest_arrival_unix_us = self.newest_arrival_unix_us.max(meta.received_unix_us);
    }

    /// Counts the entries that were added since the block was begun.
    pub fn len(&self) -> usize {
        self.headers.len()
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// The size of the block on disk so far, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.sessions.len() * ROW_LEN + self.headers.len() * HEADER_LEN + ROOT_LEN
    }

    /// Forgets all entries and keeps the memory, up to a bound.
    pub fn clear(&mut self) {
        self.sessions.clear();
        self.sessions.shrink_to(KEEP_ENTRIES_MAX);
        self.headers.clear();
        self.headers.shrink_to(KEEP_ENTRIES_MAX);
        self.bytes.truncate(PREFIX_LEN);
        self.bytes.shrink_to(KEEP_BLOCK_BYTES_MAX);
        self.newest_arrival_unix_us = 0;
    }

    /// The newest arrival among the entries, in microseconds since 1970; 0 without entries.
    pub(in crate::journal) fn newest_arrival_unix_us(&self) -> u64 {
        self.newest_arrival_unix_us
    }

    /// The block with its place; the builder is empty then.
    ///
    /// It is verified as if it had been read, so that nothing is written which recovery would refuse.
    ///
    /// # Errors
    /// [`BlockError`]: no entries, too large, or an entry that breaks the format's rules. Nothing has changed.
    pub(in crate::journal) fn build(&mut self, place: Place) -> Result<Block, BlockError> {
        let size = self.size();
        if size > BLOCK_BYTES_MAX {
            return Err(BlockError::Size(size));
        }
        let payloads = self.bytes.len() - PREFIX_LEN;
        let mut bytes = std::mem::take(&mut self.bytes);
        match self.finish(&mut bytes, payloads, place) {
            Ok(summary) => {
                self.room_bytes = size.max(self.room_bytes - self.room_bytes / 16).min(KEEP_BLOCK_BYTES_MAX);
                self.bytes.reserve_exact(self.room_bytes);
                self.bytes.resize(PREFIX_LEN, 0);
                self.clear();
                bytes.shrink_to_fit();
                Ok(Block { bytes, summary })
            }
            Err(error) => {
                bytes.truncate(PREFIX_LEN + payloads);
                self.bytes = bytes;
                Err(error)
            }
        }
    }

    /// Puts rows, headers, root and prefix to the payloads in `bytes`.
    fn finish(&self, bytes: &mut Vec<u8>, payloads: usize, place: Place) -> Result<Summary, BlockError> {
        bytes.reserve_exact(self.sessions.len() * ROW_LEN + self.headers.len() * HEADER_LEN + ROOT_LEN);
        let body = Body {
            payloads,
            sessions: &self.sessions,
            headers: &self.headers,
            first_offset: place.first.0,
            committed_unix_us: place.committed_unix_us,
            previous_checksum: place.previous_checksum,
        };
        // Nothing here needs scratch space: rows and headers are copied whole.
        let mut serializer = Serializer::new(std::mem::take(bytes), SubAllocator::new(&mut []), ());
        let strategy: &mut LowSerializer<_, _, rancor::Error> = rancor::Strategy::wrap(&mut serializer);
        let serialized = rkyv::api::serialize_using(&body, strategy);
        *bytes = serializer.into_writer();
        serialized.map_err(|error| BlockError::Archive(error.to_string()))?;
        let length = u32::try_from(bytes.len()).map_err(|_| BlockError::Size(bytes.len()))?;
        bytes[..4].copy_from_slice(&BLOCK_VERSION.to_le_bytes());
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum_of(bytes);
        bytes[CHECKSUM_AT..PREFIX_LEN].copy_from_slice(&checksum.to_le_bytes());
        archive::verify(&bytes[PREFIX_LEN..])
    }
}

/// Where the rows are that were used last. A guess that is checked: what it has forgotten, or what strangers who choose their client
/// ids push out of it, costs a row more, and nothing has to be cleared from block to block.
#[derive(Debug, Default)]
struct RecentRows {
    /// The row that the last entry named: datagrams of one client come in runs.
    last: u32,
    /// The row last named by an entry whose session comes to this place. Empty until it is needed: some builders never are.
    slots: Box<[u32]>,
}

impl RecentRows {
    /// The row of an entry, which is put there if it is not found.
    fn index_of(&mut self, meta: &EntryMeta, rows: &mut Vec<SessionRow>) -> u32 {
        let row = SessionRow::of(meta);
        let is_at = |rows: &[SessionRow], index: u32| rows.get(index as usize) == Some(&row);
        if is_at(rows, self.last) {
            return self.last;
        }
        if self.slots.is_empty() {
            self.slots = vec![0; 1 << RECENT_BITS].into();
        }
        let slot = &mut self.slots[slot_of(meta)];
        if !is_at(rows, *slot) {
            // A block with so many rows is beyond BLOCK_BYTES_MAX, and refused as a whole.
            *slot = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            rows.push(row);
        }
        self.last = *slot;
        self.last
    }
}

/// Spreads sessions, and the channels of one session, over the places.
fn slot_of(meta: &EntryMeta) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let session = meta.session.client.0 ^ u64::from(meta.session.epoch.value()).rotate_left(32);
    let mixed = (session ^ u64::from(meta.channel).rotate_left(16) ^ meta.seq.0 >> 16).wrapping_mul(ODD);
    usize::try_from(mixed >> (u64::BITS - RECENT_BITS)).unwrap_or(0)
}
