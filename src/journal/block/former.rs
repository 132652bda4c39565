//! Blocks of version 1, which directories of format 1 and 2 hold: read, and never written any more.
//!
//! The archive has all payloads, the entry headers of 40 bytes and the root of 36 bytes. A header holds all that is known of its
//! entry; all entries are of Duragram's own protocol.

use duragram_proto::{ClientId, Epoch, Seq};
use rkyv::Archive;
use rkyv::api::low::access;
use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::rancor::{self, Panic, ResultExt as _};
use rkyv::with::{ArchiveWith, InlineAsBox};

use super::{Attributes, BlockError, FLAG_ASK, FLAG_BATCH, FLAG_SEALED, FLAG_SKIP, Summary, content, end_of};
use crate::model::{DialectId, Entry, EntryMeta, Offset, SessionId};

/// The version that stands in their prefix.
pub(super) const VERSION: u32 = 1;

/// Blocks of version 1 hold this archive behind their prefix.
#[derive(Archive)]
#[cfg_attr(test, derive(rkyv::Serialize))]
#[allow(dead_code)] // only tests make one; others read its archived form
struct Body<'a> {
    /// Bytes of all payloads, which lie one after the other, without gaps, where the archive begins.
    #[rkyv(with = InPlace)]
    payloads: usize,
    #[rkyv(with = InlineAsBox)]
    headers: &'a [Header],
    first_offset: u64,
    committed_unix_us: u64,
    previous_checksum: u32,
}

/// The arena of a slice of bytes, given by its length.
struct InPlace;

impl ArchiveWith<usize> for InPlace {
    type Archived = ArchivedBox<[u8]>;
    type Resolver = BoxResolver;

    fn resolve_with(&len: &usize, resolver: BoxResolver, out: rkyv::Place<Self::Archived>) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        ArchivedBox::resolve_from_raw_parts(resolver, rkyv::primitive::ArchivedUsize::from_native(len), out);
    }
}

/// An entry beside its payload.
#[derive(Clone, Copy, Debug, Archive)]
#[cfg_attr(test, derive(rkyv::Serialize))]
#[repr(C)]
#[allow(dead_code)] // only tests make one; others read its archived form
struct Header {
    client: u64,
    seq: u64,
    received_unix_us: u64,
    epoch: u32,
    payload_end: u32,
    flags: u32,
    span: u16,
    channel: u16,
}

/// Verifies what the checksum cannot vouch for.
pub(super) fn verify(archive: &[u8]) -> Result<Summary, BlockError> {
    let body =
        access::<ArchivedBody<'_>, rancor::Error>(archive).map_err(|error| BlockError::Archive(error.to_string()))?;
    let first = body.first_offset.to_native();
    let end = end_of(first, body.headers.len())?;
    let arena: &[u8] = &body.payloads;
    let mut start = 0;
    for (index, header) in body.headers.iter().enumerate() {
        start = header.verify(arena, start).map_err(|problem| BlockError::Entry { index, problem })?;
    }
    if start != arena.len() {
        return Err(BlockError::Archive(format!("{} payload bytes belong to no entry", arena.len() - start)));
    }
    Ok(Summary {
        first: Offset(first),
        end,
        committed_unix_us: body.committed_unix_us.to_native(),
        previous_checksum: body.previous_checksum.to_native(),
        asks: false,
    })
}

impl ArchivedHeader {
    /// Returns where the payload ends, which is where the next one starts.
    fn verify(&self, arena: &[u8], start: usize) -> Result<usize, &'static str> {
        let end = self.payload_end.to_native() as usize;
        let payload = arena.get(start..end).ok_or("its payload lies outside the block")?;
        if self.epoch.to_native() == 0 {
            return Err("epoch 0");
        }
        let attributes = Attributes {
            flags: self.flags()?,
            seq: self.seq.to_native(),
            span: self.span.to_native(),
            channel: self.channel.to_native(),
        };
        attributes.verify(payload)?;
        Ok(end)
    }

    fn flags(&self) -> Result<u8, &'static str> {
        // Nothing asked when blocks of this version were written.
        let flags = u8::try_from(self.flags.to_native()).ok().filter(|flags| flags & FLAG_ASK == 0);
        flags.ok_or("unknown flags")
    }

    fn entry<'a>(&self, offset: Offset, payload: &'a [u8]) -> Entry<'a> {
        let flags = self.flags().expect("verified when the block was parsed");
        let seq = Seq(self.seq.to_native());
        let (kind, payload) = content(flags, seq, payload);
        let meta = EntryMeta {
            dialect: DialectId::DURAGRAM,
            session: SessionId {
                client: ClientId(self.client.to_native()),
                epoch: Epoch::new(self.epoch.to_native()).expect("verified when the block was parsed"),
            },
            seq,
            span: self.span.to_native(),
            skip: flags & FLAG_SKIP != 0,
            batch: flags & FLAG_BATCH != 0,
            asks: false,
            sealed: flags & FLAG_SEALED != 0,
            channel: self.channel.to_native(),
            received_unix_us: self.received_unix_us.to_native(),
        };
        Entry { offset, kind, meta, payload }
    }
}

/// The entries of a verified archive.
pub(super) struct Entries<'a> {
    arena: &'a [u8],
    headers: std::slice::Iter<'a, ArchivedHeader>,
    /// The offset of the next entry.
    offset: u64,
    /// Where the payload of the next entry starts.
    start: usize,
}

impl<'a> Entries<'a> {
    /// Those at or above an offset.
    pub(super) fn from(archive: &'a [u8], from: Offset) -> Self {
        let body = access::<ArchivedBody<'_>, Panic>(archive).always_ok();
        let first = Offset(body.first_offset.to_native());
        let headers: &[ArchivedHeader] = &body.headers;
        let skipped = usize::try_from(from.since(first)).unwrap_or(usize::MAX).min(headers.len());
        let start = skipped.checked_sub(1).map_or(0, |last| headers[last].payload_end.to_native() as usize);
        Self { arena: &body.payloads, headers: headers[skipped..].iter(), offset: first.plus(skipped as u64).0, start }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let header = self.headers.next()?;
        let end = header.payload_end.to_native() as usize;
        let payload = &self.arena[std::mem::replace(&mut self.start, end)..end];
        let offset = Offset(self.offset);
        self.offset += 1;
        Some(header.entry(offset, payload))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.headers.size_hint()
    }
}

/// The writer of such blocks, as it was: for directories of a former format, which tests make.
#[cfg(test)]
pub(in crate::journal) mod writer {
    use rkyv::api::low::LowSerializer;
    use rkyv::rancor::Fallible;
    use rkyv::ser::Serializer;
    use rkyv::ser::allocator::SubAllocator;
    use rkyv::with::SerializeWith;

    use super::super::{Block, FLAG_GAP, PREFIX_LEN, Place};
    use super::*;
    use crate::model::EntryKind;

    impl<S: Fallible + ?Sized> SerializeWith<usize, S> for InPlace {
        fn serialize_with(_: &usize, _: &mut S) -> Result<BoxResolver, S::Error> {
            Ok(BoxResolver::from_pos(PREFIX_LEN))
        }
    }

    /// The same entries as a block of version 1.
    pub(in crate::journal) fn rewrite(block: &Block, previous_checksum: u32) -> Block {
        let place = Place { first: block.first(), previous_checksum, committed_unix_us: block.committed_unix_us() };
        build(block.entries(), place)
    }

    /// These entries as a block of version 1; their offsets are those of the place.
    pub(in crate::journal) fn build<'a>(entries: impl Iterator<Item = Entry<'a>>, place: Place) -> Block {
        let (mut bytes, mut headers) = (vec![0; PREFIX_LEN], Vec::new());
        for Entry { kind, meta, payload, .. } in entries {
            match kind {
                EntryKind::Data => bytes.extend_from_slice(payload),
                EntryKind::Gap { from, .. } => bytes.extend_from_slice(&from.0.to_le_bytes()),
            }
            let flag = |set: bool, flag: u8| if set { u32::from(flag) } else { 0 };
            headers.push(Header {
                client: meta.session.client.0,
                seq: meta.seq.0,
                received_unix_us: meta.received_unix_us,
                epoch: meta.session.epoch.value(),
                payload_end: u32::try_from(bytes.len() - PREFIX_LEN).unwrap(),
                flags: flag(kind != EntryKind::Data, FLAG_GAP)
                    | flag(meta.skip, FLAG_SKIP)
                    | flag(meta.batch, FLAG_BATCH)
                    | flag(meta.sealed, FLAG_SEALED),
                span: meta.span,
                channel: meta.channel,
            });
        }
        let body = Body {
            payloads: bytes.len() - PREFIX_LEN,
            headers: &headers,
            first_offset: place.first.0,
            committed_unix_us: place.committed_unix_us,
            previous_checksum: place.previous_checksum,
        };
        let mut serializer = Serializer::new(bytes, SubAllocator::new(&mut []), ());
        let strategy: &mut LowSerializer<_, _, rancor::Error> = rancor::Strategy::wrap(&mut serializer);
        rkyv::api::serialize_using(&body, strategy).unwrap();
        let mut bytes = serializer.into_writer();
        let (length, checksum) = (u32::try_from(bytes.len()).unwrap(), crc32fast::hash(&bytes[PREFIX_LEN..]));
        bytes[..4].copy_from_slice(&VERSION.to_le_bytes());
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        Block::parse(bytes).unwrap()
    }
}
