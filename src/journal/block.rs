//! The block: the entries of one group commit as one RocksDB value.
//!
//! On disk a block is a prefix and an archive:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | format version = 2, little-endian |
//! | 4 | 4 | length of the whole block in bytes, little-endian |
//! | 8 | 4 | CRC-32 (IEEE 802.3) of all bytes before and after it, little-endian |
//! | 12 | … | rkyv archive: all payloads, the session rows of 25 bytes, the entry headers of 16 bytes, the root of 44 bytes |
//!
//! What the entries of one session have in common stands in a session row, once a block, and their headers name it:
//!
//! | session row | size | | entry header | size |
//! |---|---|---|---|---|
//! | client id | 8 | | flags: 1 gap, 2 skip, 4 batch, 8 sealed, 16 asks | 1 |
//! | epoch | 4 | | which row, from 0 | 3 |
//! | upper 32 bits of the time of arrival | 4 | | where its payload ends in the arena | 4 |
//! | upper 48 bits of the seq | 6 | | lower 32 bits of the time of arrival, in microseconds since 1970 | 4 |
//! | channel | 2 | | lower 16 bits of the seq | 2 |
//! | dialect, 0 is Duragram's own protocol | 1 | | span | 2 |
//!
//! So an entry takes 16 bytes beside its payload, and 25 more where it is the only one of its session. An entry that differs from
//! a row in any of its bits has another row, also of the same session: whatever seq, channel or time comes, in whatever order, can be
//! stored. Rows stand in the order in which the entries first name them; two may be the same, since finding that out costs more
//! than it saves. Of a gap, seq is the last one; the first is its payload, a u64, little-endian.
//!
//! Building copies each payload once, to its place in the block; reading copies none. A block is verified once, when it is parsed: after that no reader can fail or panic on it, whoever wrote it.
//! The archive's layout follows from rkyv's features, which `Cargo.toml` pins; the golden bytes in the tests hold it.
//! This file knows nothing of RocksDB, nor of what the server does with entries.
//!
//! Blocks of version 1 are read too (`former`): those of a directory of format 1 or 2 stay as they are until they are trimmed.

mod archive;
mod builder;
pub(in crate::journal) mod former;

pub use builder::BlockBuilder;

use duragram_proto::Seq;

use crate::model::{Entry, EntryKind, Offset};

/// The format that this program writes.
pub const BLOCK_VERSION: u32 = 2;
/// The longest block, in bytes. Far above what a commit holds; it keeps every length within 32 bits.
pub const BLOCK_BYTES_MAX: usize = 256 << 20;

/// The archive begins after so many bytes.
const PREFIX_LEN: usize = 12;
/// Where the checksum stands in it.
const CHECKSUM_AT: usize = 8;

const FLAG_GAP: u8 = 1;
const FLAG_SKIP: u8 = 2;
const FLAG_BATCH: u8 = 4;
/// Since format 2 of the data directory.
const FLAG_SEALED: u8 = 8;
/// It came with format 5 of the data directory.
const FLAG_ASK: u8 = 16;
const FLAGS_KNOWN: u8 = FLAG_GAP | FLAG_SKIP | FLAG_BATCH | FLAG_SEALED | FLAG_ASK;

/// Why bytes are not a block of a format that this program reads.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// It is shorter than the prefix, or longer than [`BLOCK_BYTES_MAX`].
    #[error("{0} bytes cannot be a block")]
    Size(usize),
    /// It has another format version.
    #[error("block format version {0}, this program knows 1 to {BLOCK_VERSION}")]
    Version(u32),
    /// The prefix states another length than there is.
    #[error("the block states a length of {stated} bytes and has {actual}")]
    Length {
        /// What stands in the prefix.
        stated: u32,
        /// The length of the value in bytes.
        actual: usize,
    },
    /// The bytes are not those that were written.
    #[error("the block's checksum is {stated:08x} and its bytes give {actual:08x}")]
    Checksum {
        /// What stands in the prefix.
        stated: u32,
        /// The bytes as they are have this checksum.
        actual: u32,
    },
    /// The checksum fits, the archive is not one of this format.
    #[error("the block's archive is malformed: {0}")]
    Archive(String),
    /// A session row breaks a rule of the format.
    #[error("session row {index} of the block: {problem}")]
    Session {
        /// Its place in the block, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An entry breaks a rule of the format.
    #[error("entry {index} of the block: {problem}")]
    Entry {
        /// Its place in the block, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A committed block: verified bytes, and what is asked of it most.
#[derive(PartialEq, Eq)]
pub struct Block {
    bytes: Vec<u8>,
    summary: Summary,
}

/// What an archive says of its block as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Summary {
    /// The offset of the first entry.
    first: Offset,
    /// The offset after the last entry.
    end: Offset,
    committed_unix_us: u64,
    previous_checksum: u32,
    /// An entry's sender wants an answer.
    asks: bool,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({}..{}, {} bytes)", self.first(), self.end(), self.bytes.len())
    }
}

impl Block {
    /// Verifies all of it: prefix, checksum, archive and every entry's rules.
    ///
    /// # Errors
    /// [`BlockError`] says what is wrong first.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BlockError> {
        if !(PREFIX_LEN..=BLOCK_BYTES_MAX).contains(&bytes.len()) {
            return Err(BlockError::Size(bytes.len()));
        }
        let version = u32_at(&bytes, 0);
        if !(former::VERSION..=BLOCK_VERSION).contains(&version) {
            return Err(BlockError::Version(version));
        }
        let stated = u32_at(&bytes, 4);
        if usize::try_from(stated) != Ok(bytes.len()) {
            return Err(BlockError::Length { stated, actual: bytes.len() });
        }
        let stated = u32_at(&bytes, CHECKSUM_AT);
        let actual = checksum_of(&bytes);
        if stated != actual {
            return Err(BlockError::Checksum { stated, actual });
        }
        let summary = match version {
            former::VERSION => former::verify(&bytes[PREFIX_LEN..])?,
            _ => archive::verify(&bytes[PREFIX_LEN..])?,
        };
        Ok(Self { bytes, summary })
    }

    /// The offset of its first entry.
    pub fn first(&self) -> Offset {
        self.summary.first
    }

    /// The offset after its last entry.
    pub fn end(&self) -> Offset {
        self.summary.end
    }

    /// Its size on disk, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes as they are on disk.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The checksum in its prefix, which the next block repeats.
    pub fn checksum(&self) -> u32 {
        u32_at(&self.bytes, CHECKSUM_AT)
    }

    /// The checksum of the block before it, 0 in the first of all.
    pub fn previous_checksum(&self) -> u32 {
        self.summary.previous_checksum
    }

    /// When it was committed, in microseconds since 1970.
    pub fn committed_unix_us(&self) -> u64 {
        self.summary.committed_unix_us
    }

    /// Whether the sender of any of its entries wants an answer. Found out when the block was verified, so that nobody need look
    /// for asks where there are none.
    pub fn has_asks(&self) -> bool {
        self.summary.asks
    }

    /// Its entries, in offset order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries_from(self.first())
    }

    /// Its entries at or above `from`, in offset order.
    pub fn entries_from(&self, from: Offset) -> impl Iterator<Item = Entry<'_>> {
        let archive = &self.bytes[PREFIX_LEN..];
        match u32_at(&self.bytes, 0) {
            former::VERSION => Entries::Former(former::Entries::from(archive, from)),
            _ => Entries::Current(archive::Entries::from(archive, from)),
        }
    }
}

/// The entries of a block of either version.
enum Entries<'a> {
    Current(archive::Entries<'a>),
    Former(former::Entries<'a>),
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        match self {
            Self::Current(entries) => entries.next(),
            Self::Former(entries) => entries.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Current(entries) => entries.size_hint(),
            Self::Former(entries) => entries.size_hint(),
        }
    }
}

/// The checksum that belongs in the prefix. That of version 1 leaves the prefix out.
fn checksum_of(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if u32_at(bytes, 0) != former::VERSION {
        hasher.update(&bytes[..CHECKSUM_AT]);
    }
    hasher.update(&bytes[PREFIX_LEN..]);
    hasher.finalize()
}

/// The offset after the last of so many entries, if there are any and all of them have one.
fn end_of(first: u64, entries: usize) -> Result<Offset, BlockError> {
    let end = first.checked_add(entries as u64).filter(|_| entries > 0);
    end.map(Offset).ok_or_else(|| BlockError::Archive(format!("{entries} entries from offset {first}")))
}

/// What the rules of the format say of an entry, apart from where its payload lies.
struct Attributes {
    flags: u8,
    seq: u64,
    span: u16,
    channel: u16,
}

impl Attributes {
    fn verify(&self, payload: &[u8]) -> Result<(), &'static str> {
        let &Self { flags, seq, span, channel } = self;
        if flags & !FLAGS_KNOWN != 0 {
            return Err("unknown flags");
        }
        if u64::from(span) >= seq {
            return Err("seq 0 or span not below seq");
        }
        if flags & FLAG_GAP != 0 {
            let from = payload.try_into().map(u64::from_le_bytes).map_err(|_| "a gap without its first seq")?;
            if from == 0 || from > seq {
                return Err("a gap that ends before it starts");
            }
            if flags & !FLAG_SEALED != FLAG_GAP || span != 0 || channel != 0 {
                return Err("a gap with attributes of a datagram");
            }
        } else if flags & FLAG_BATCH != 0 {
            if flags & FLAG_ASK != 0 {
                return Err("a batch that asks");
            }
            if !is_run_of_records(payload) {
                return Err("its batch is not a run of records");
            }
        }
        Ok(())
    }
}

/// What an entry is, and its payload, of what lies in the arena for it.
fn content(flags: u8, seq: Seq, payload: &[u8]) -> (EntryKind, &[u8]) {
    match payload.first_chunk() {
        Some(from) if flags & FLAG_GAP != 0 => (EntryKind::Gap { from: Seq(u64::from_le_bytes(*from)), to: seq }, &[]),
        _ => (EntryKind::Data, payload),
    }
}

/// PROTOCOL.md#batch: at least one record, each `len` u16 and `len` bytes, ending exactly at the end.
fn is_run_of_records(mut payload: &[u8]) -> bool {
    let whole = !payload.is_empty();
    while let Some((len, rest)) = payload.split_first_chunk::<2>() {
        match rest.get(usize::from(u16::from_le_bytes(*len))..) {
            Some(rest) => payload = rest,
            None => return false,
        }
    }
    whole && payload.is_empty()
}

/// Where a block belongs in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::journal) struct Place {
    /// The offset of the first entry.
    pub(in crate::journal) first: Offset,
    /// The checksum of the block before it, 0 when it is the first of all.
    pub(in crate::journal) previous_checksum: u32,
    /// When it is committed, in microseconds since 1970.
    pub(in crate::journal) committed_unix_us: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
