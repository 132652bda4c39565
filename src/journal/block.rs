//! The block: the entries of one group commit as one RocksDB value.
//!
//! On disk a block is a prefix and an archive:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 4 | format version = 1, little-endian |
//! | 4 | 4 | length of the whole block in bytes, little-endian |
//! | 8 | 4 | CRC-32 (IEEE 802.3) of all bytes after it, little-endian |
//! | 12 | … | rkyv archive: all payloads, all entry headers of 40 bytes, the root of 36 bytes |
//!
//! Building copies each payload once, to its place in the block; reading copies none. A block is verified once, when it is parsed: after that no reader can fail or panic on it, whoever wrote it.
//! The archive's layout follows from rkyv's features, which `Cargo.toml` pins; the golden bytes in the tests hold it.
//! This file knows nothing of RocksDB, nor of what the server does with entries.

use duragram_proto::{ClientId, Epoch, Seq};
use rkyv::api::low::{LowSerializer, access};
use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::rancor::{self, Fallible, Panic, ResultExt as _};
use rkyv::ser::Serializer;
use rkyv::ser::allocator::SubAllocator;
use rkyv::with::{ArchiveWith, InlineAsBox, SerializeWith};
use rkyv::{Archive, Serialize};

use crate::model::{Entry, EntryKind, EntryMeta, Offset, SessionId};

/// The format that this program writes, and the only one that it reads.
pub const BLOCK_VERSION: u32 = 1;
/// The longest block, in bytes. Far above what a commit holds; it keeps every length within 32 bits.
pub const BLOCK_BYTES_MAX: usize = 256 << 20;

/// Bytes before the archive.
const PREFIX_LEN: usize = 12;
/// Bytes of the archive's root.
const ROOT_LEN: usize = size_of::<ArchivedBody<'static>>();
/// Bytes of one entry beside its payload.
const HEADER_LEN: usize = size_of::<ArchivedHeader>();
/// Capacity that a builder keeps from one block to the next, in entries, and that it takes anew, in bytes of a block.
const KEEP_ENTRIES_MAX: usize = 64 << 10;
const KEEP_BLOCK_BYTES_MAX: usize = 16 << 20;

const FLAG_GAP: u32 = 1;
const FLAG_SKIP: u32 = 2;
const FLAG_BATCH: u32 = 4;
/// Since format 2 of the data directory.
const FLAG_SEALED: u32 = 8;
const FLAGS_KNOWN: u32 = FLAG_GAP | FLAG_SKIP | FLAG_BATCH | FLAG_SEALED;

/// What the archive holds. The arena comes first and the headers after it: rkyv writes in the fields' order.
#[derive(Archive, Serialize)]
struct Body<'a> {
    /// Bytes of all payloads, which lie one after the other, without gaps, where the archive begins.
    #[rkyv(with = InPlace)]
    payloads: usize,
    #[rkyv(with = InlineAsBox)]
    headers: &'a [Header],
    /// The offset of the first entry; the others follow.
    first_offset: u64,
    /// Microseconds since 1970.
    committed_unix_us: u64,
    /// The checksum of the block before this one; 0 in the first of all. It makes the blocks a chain.
    previous_checksum: u32,
}

/// The arena, given by its length, is written before rkyv begins: right behind the prefix. In the archive it is what
/// [`InlineAsBox`] makes of a slice of bytes.
struct InPlace;

impl ArchiveWith<usize> for InPlace {
    type Archived = ArchivedBox<[u8]>;
    type Resolver = BoxResolver;

    fn resolve_with(&len: &usize, resolver: BoxResolver, out: rkyv::Place<Self::Archived>) {
        // A block beyond 32 bits is refused before it comes to this.
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        ArchivedBox::resolve_from_raw_parts(resolver, rkyv::primitive::ArchivedUsize::from_native(len), out);
    }
}

impl<S: Fallible + ?Sized> SerializeWith<usize, S> for InPlace {
    fn serialize_with(_: &usize, _: &mut S) -> Result<BoxResolver, S::Error> {
        Ok(BoxResolver::from_pos(PREFIX_LEN))
    }
}

/// An entry beside its payload. No padding, so that rkyv copies the array in one piece.
#[derive(Clone, Copy, Debug, Archive, Serialize)]
#[repr(C)]
struct Header {
    client: u64,
    /// Of a gap: the last seq; the first is its payload, a u64, little-endian.
    seq: u64,
    received_unix_us: u64,
    epoch: u32,
    /// Where the payload ends in the arena; it starts where the one before it ends.
    payload_end: u32,
    flags: u32,
    span: u16,
    channel: u16,
}

/// Why bytes are not a block of this format.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// Shorter than the prefix, or longer than [`BLOCK_BYTES_MAX`].
    #[error("{0} bytes cannot be a block")]
    Size(usize),
    /// Another format version.
    #[error("block format version {0}, this program knows {BLOCK_VERSION}")]
    Version(u32),
    /// The prefix states another length than there is.
    #[error("the block states a length of {stated} bytes and has {actual}")]
    Length {
        /// In the prefix.
        stated: u32,
        /// Of the value.
        actual: usize,
    },
    /// The bytes are not those that were written.
    #[error("the block's checksum is {stated:08x} and its bytes give {actual:08x}")]
    Checksum {
        /// In the prefix.
        stated: u32,
        /// Of the bytes.
        actual: u32,
    },
    /// The checksum fits, the archive is not one of this format.
    #[error("the block's archive is malformed: {0}")]
    Archive(String),
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
    first: Offset,
    end: Offset,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({}..{}, {} bytes)", self.first, self.end, self.bytes.len())
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
        if version != BLOCK_VERSION {
            return Err(BlockError::Version(version));
        }
        let stated = u32_at(&bytes, 4);
        if usize::try_from(stated) != Ok(bytes.len()) {
            return Err(BlockError::Length { stated, actual: bytes.len() });
        }
        let stated = u32_at(&bytes, 8);
        let actual = crc32fast::hash(&bytes[PREFIX_LEN..]);
        if stated != actual {
            return Err(BlockError::Checksum { stated, actual });
        }
        let (first, end) = Self::verify_archive(&bytes)?;
        Ok(Self { bytes, first, end })
    }

    /// Verifies what the checksum cannot vouch for: a writer that was wrong. Returns the offsets of the first entry and
    /// after the last.
    fn verify_archive(bytes: &[u8]) -> Result<(Offset, Offset), BlockError> {
        let body = access::<ArchivedBody<'_>, rancor::Error>(&bytes[PREFIX_LEN..])
            .map_err(|error| BlockError::Archive(error.to_string()))?;
        let entries = body.headers.len() as u64;
        let first = body.first_offset.to_native();
        let (Some(end), true) = (first.checked_add(entries), entries > 0) else {
            return Err(BlockError::Archive(format!("{entries} entries from offset {first}")));
        };
        let arena: &[u8] = &body.payloads;
        let mut start = 0;
        for (index, header) in body.headers.iter().enumerate() {
            start = header.verify(arena, start).map_err(|problem| BlockError::Entry { index, problem })?;
        }
        if start != arena.len() {
            return Err(BlockError::Archive(format!("{} payload bytes belong to no entry", arena.len() - start)));
        }
        Ok((Offset(first), Offset(end)))
    }

    /// The offset of its first entry.
    pub fn first(&self) -> Offset {
        self.first
    }

    /// The offset after its last entry.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Its size on disk, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// As it is on disk.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The checksum in its prefix, which the next block repeats.
    pub fn checksum(&self) -> u32 {
        u32_at(&self.bytes, 8)
    }

    /// The checksum of the block before it, 0 in the first of all.
    pub fn previous_checksum(&self) -> u32 {
        self.body().previous_checksum.to_native()
    }

    /// When it was committed, in microseconds since 1970.
    pub fn committed_unix_us(&self) -> u64 {
        self.body().committed_unix_us.to_native()
    }

    /// Its entries, in offset order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries_from(self.first)
    }

    /// Its entries at or above `from`, in offset order.
    pub fn entries_from(&self, from: Offset) -> impl Iterator<Item = Entry<'_>> {
        let body = self.body();
        let arena: &[u8] = &body.payloads;
        let headers: &[ArchivedHeader] = &body.headers;
        let skipped = usize::try_from(from.since(self.first)).unwrap_or(usize::MAX).min(headers.len());
        let mut start = skipped.checked_sub(1).map_or(0, |last| headers[last].payload_end.to_native() as usize);
        headers[skipped..].iter().zip(self.first.plus(skipped as u64).0..).map(move |(header, offset)| {
            let end = header.payload_end.to_native() as usize;
            let payload = &arena[std::mem::replace(&mut start, end)..end];
            header.entry(Offset(offset), payload)
        })
    }

    /// rkyv checks the few pointers again each time, which costs nanoseconds; it cannot fail after `parse`.
    fn body(&self) -> &ArchivedBody<'_> {
        access::<_, Panic>(&self.bytes[PREFIX_LEN..]).always_ok()
    }
}

impl ArchivedHeader {
    /// Returns where the payload ends, which is where the next one starts.
    fn verify(&self, arena: &[u8], start: usize) -> Result<usize, &'static str> {
        let end = self.payload_end.to_native() as usize;
        let payload = arena.get(start..end).ok_or("its payload lies outside the block")?;
        let flags = self.flags.to_native();
        if flags & !FLAGS_KNOWN != 0 {
            return Err("unknown flags");
        }
        if self.epoch.to_native() == 0 {
            return Err("epoch 0");
        }
        if u64::from(self.span.to_native()) >= self.seq.to_native() {
            return Err("seq 0 or span not below seq");
        }
        if flags & FLAG_GAP != 0 {
            let from = payload.try_into().map(u64::from_le_bytes).map_err(|_| "a gap without its first seq")?;
            if from == 0 || from > self.seq.to_native() {
                return Err("a gap that ends before it starts");
            }
            if flags & !FLAG_SEALED != FLAG_GAP || self.span.to_native() != 0 || self.channel.to_native() != 0 {
                return Err("a gap with attributes of a datagram");
            }
        } else if flags & FLAG_BATCH != 0 && !is_run_of_records(payload) {
            return Err("its batch is not a run of records");
        }
        Ok(end)
    }

    fn entry<'a>(&self, offset: Offset, payload: &'a [u8]) -> Entry<'a> {
        let flags = self.flags.to_native();
        let seq = Seq(self.seq.to_native());
        let (kind, payload) = match payload.first_chunk() {
            Some(from) if flags & FLAG_GAP != 0 => {
                (EntryKind::Gap { from: Seq(u64::from_le_bytes(*from)), to: seq }, &[][..])
            }
            _ => (EntryKind::Data, payload),
        };
        let meta = EntryMeta {
            session: SessionId {
                client: ClientId(self.client.to_native()),
                epoch: Epoch::new(self.epoch.to_native()).expect("verified when the block was parsed"),
            },
            seq,
            span: self.span.to_native(),
            skip: flags & FLAG_SKIP != 0,
            batch: flags & FLAG_BATCH != 0,
            sealed: flags & FLAG_SEALED != 0,
            channel: self.channel.to_native(),
            received_unix_us: self.received_unix_us.to_native(),
        };
        Entry { offset, kind, meta, payload }
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
    /// In microseconds since 1970.
    pub(in crate::journal) committed_unix_us: u64,
}

/// A block being built. Reused from commit to commit; offsets are given when it is committed.
#[derive(Debug)]
pub struct BlockBuilder {
    headers: Vec<Header>,
    /// Room for the prefix, then all payloads: the block as it will be, up to the headers.
    bytes: Vec<u8>,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self { headers: Vec::new(), bytes: vec![0; PREFIX_LEN] }
    }
}

impl BlockBuilder {
    /// Adds a datagram. The caller commits before [`size`](Self::size) reaches [`BLOCK_BYTES_MAX`].
    pub fn push(&mut self, meta: &EntryMeta, payload: &[u8]) {
        let flags = if meta.skip { FLAG_SKIP } else { 0 } | if meta.batch { FLAG_BATCH } else { 0 };
        self.add(meta, flags, payload);
    }

    /// Adds a gap: seqs `from..=to` of the session, which is a sealed one or not.
    pub fn push_gap(&mut self, session: SessionId, sealed: bool, from: Seq, to: Seq, received_unix_us: u64) {
        let meta =
            EntryMeta { session, seq: to, span: 0, skip: false, batch: false, sealed, channel: 0, received_unix_us };
        self.add(&meta, FLAG_GAP, &from.0.to_le_bytes());
    }

    fn add(&mut self, meta: &EntryMeta, flags: u32, payload: &[u8]) {
        let flags = flags | if meta.sealed { FLAG_SEALED } else { 0 };
        self.bytes.extend_from_slice(payload);
        self.headers.push(Header {
            client: meta.session.client.0,
            seq: meta.seq.0,
            received_unix_us: meta.received_unix_us,
            epoch: meta.session.epoch.value(),
            // A block beyond this is beyond BLOCK_BYTES_MAX too, and refused as a whole.
            payload_end: u32::try_from(self.bytes.len() - PREFIX_LEN).unwrap_or(u32::MAX),
            flags,
            span: meta.span,
            channel: meta.channel,
        });
    }

    /// Entries so far.
    pub fn len(&self) -> usize {
        self.headers.len()
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// The size of the block on disk so far, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.headers.len() * HEADER_LEN + ROOT_LEN
    }

    /// Forgets all entries and keeps the memory, up to a bound.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.headers.shrink_to(KEEP_ENTRIES_MAX);
        self.bytes.truncate(PREFIX_LEN);
        self.bytes.shrink_to(KEEP_BLOCK_BYTES_MAX);
    }

    /// The newest arrival among the entries, in microseconds since 1970; 0 without entries.
    pub(in crate::journal) fn newest_arrival_unix_us(&self) -> u64 {
        self.headers.iter().map(|header| header.received_unix_us).max().unwrap_or(0)
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
        let built = self.finish(&mut bytes, payloads, place);
        match built {
            Ok((first, end)) => {
                // The next block may well be as large.
                self.bytes.reserve_exact(size.min(KEEP_BLOCK_BYTES_MAX));
                self.bytes.resize(PREFIX_LEN, 0);
                self.clear();
                bytes.shrink_to_fit();
                Ok(Block { bytes, first, end })
            }
            Err(error) => {
                bytes.truncate(PREFIX_LEN + payloads);
                self.bytes = bytes;
                Err(error)
            }
        }
    }

    /// Puts headers, root and prefix to the payloads in `bytes`.
    fn finish(&self, bytes: &mut Vec<u8>, payloads: usize, place: Place) -> Result<(Offset, Offset), BlockError> {
        bytes.reserve_exact(self.headers.len() * HEADER_LEN + ROOT_LEN);
        let body = Body {
            payloads,
            headers: &self.headers,
            first_offset: place.first.0,
            committed_unix_us: place.committed_unix_us,
            previous_checksum: place.previous_checksum,
        };
        // Nothing here needs scratch space: the headers are copied whole.
        let mut serializer = Serializer::new(std::mem::take(bytes), SubAllocator::new(&mut []), ());
        let strategy: &mut LowSerializer<_, _, rancor::Error> = rancor::Strategy::wrap(&mut serializer);
        let serialized = rkyv::api::serialize_using(&body, strategy);
        *bytes = serializer.into_writer();
        serialized.map_err(|error| BlockError::Archive(error.to_string()))?;
        let length = u32::try_from(bytes.len()).map_err(|_| BlockError::Size(bytes.len()))?;
        let checksum = crc32fast::hash(&bytes[PREFIX_LEN..]);
        bytes[..4].copy_from_slice(&BLOCK_VERSION.to_le_bytes());
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        Block::verify_archive(bytes)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
