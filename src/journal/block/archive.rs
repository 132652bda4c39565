//! The archive of a block: how it is laid out, verified and read.

use duragram_proto::{ClientId, Epoch, Seq};
use rkyv::api::low::access;
use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::rancor::{self, Fallible, Panic, ResultExt as _};
use rkyv::with::{ArchiveWith, InlineAsBox, SerializeWith};
use rkyv::{Archive, Serialize};

use super::{
    Attributes, BlockError, FLAG_ASK, FLAG_BATCH, FLAG_SEALED, FLAG_SKIP, PREFIX_LEN, Summary, content, end_of,
};
use crate::model::{DialectId, Entry, EntryMeta, Offset, SessionId};

/// Bytes of the archive's root.
pub(super) const ROOT_LEN: usize = size_of::<ArchivedBody<'static>>();
/// Bytes of one session row.
pub(super) const ROW_LEN: usize = size_of::<ArchivedSessionRow>();
/// Bytes of one entry beside its payload and its session's row.
pub(super) const HEADER_LEN: usize = size_of::<ArchivedHeader>();
const _: () = assert!(ROOT_LEN == 44 && ROW_LEN == 25 && HEADER_LEN == 16);

/// What the archive holds. The arena comes first, the rows and the headers after it: rkyv writes in the fields' order.
#[derive(Archive, Serialize)]
pub(super) struct Body<'a> {
    /// Bytes of all payloads, which lie one after the other, without gaps, where the archive begins.
    #[rkyv(with = InPlace)]
    pub(super) payloads: usize,
    #[rkyv(with = InlineAsBox)]
    pub(super) sessions: &'a [SessionRow],
    #[rkyv(with = InlineAsBox)]
    pub(super) headers: &'a [Header],
    /// The offset of the first entry; the others follow.
    pub(super) first_offset: u64,
    /// When it was committed, in microseconds since 1970.
    pub(super) committed_unix_us: u64,
    /// The checksum of the block before this one; 0 in the first of all. It makes the blocks a chain.
    pub(super) previous_checksum: u32,
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

/// What entries of one session have in common. Numbers are little-endian bytes, so that there is no padding and rkyv copies the
/// array in one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize)]
#[repr(C)]
pub(super) struct SessionRow {
    client: [u8; 8],
    epoch: [u8; 4],
    /// The upper half of the time of arrival, which changes every 71 minutes.
    received_high: [u8; 4],
    /// All but the lowest 16 bits of the seq.
    seq_high: [u8; 6],
    channel: [u8; 2],
    dialect: u8,
}

/// An entry beside its payload and its session's row. No padding, so that rkyv copies the array in one piece.
#[derive(Clone, Copy, Debug, Archive, Serialize)]
#[repr(C)]
pub(super) struct Header {
    /// The flags in the lowest eight bits, the row above them.
    row_and_flags: u32,
    /// Where the payload ends in the arena; it starts where the one before it ends.
    payload_end: u32,
    received_low: u32,
    seq_low: u16,
    span: u16,
}

impl SessionRow {
    /// The row that an entry has to name.
    pub(super) fn of(meta: &EntryMeta) -> Self {
        let [_, _, _, _, received_high @ ..] = meta.received_unix_us.to_le_bytes();
        let [_, _, seq_high @ ..] = meta.seq.0.to_le_bytes();
        Self {
            client: meta.session.client.0.to_le_bytes(),
            epoch: meta.session.epoch.value().to_le_bytes(),
            received_high,
            seq_high,
            channel: meta.channel.to_le_bytes(),
            dialect: meta.dialect.0,
        }
    }
}

impl Header {
    /// The header of an entry whose payload ends at `payload_end`. A row beyond 24 bits is one of a block beyond
    /// [`super::BLOCK_BYTES_MAX`], which is refused as a whole.
    pub(super) fn of(meta: &EntryMeta, flags: u8, row: u32, payload_end: u32) -> Self {
        let [r0, r1, r2, r3, ..] = meta.received_unix_us.to_le_bytes();
        let [s0, s1, ..] = meta.seq.0.to_le_bytes();
        Self {
            row_and_flags: row << 8 | u32::from(flags),
            payload_end,
            received_low: u32::from_le_bytes([r0, r1, r2, r3]),
            seq_low: u16::from_le_bytes([s0, s1]),
            span: meta.span,
        }
    }
}

/// Verifies what the checksum cannot vouch for: a writer that was wrong.
pub(super) fn verify(archive: &[u8]) -> Result<Summary, BlockError> {
    let body =
        access::<ArchivedBody<'_>, rancor::Error>(archive).map_err(|error| BlockError::Archive(error.to_string()))?;
    let first = body.first_offset.to_native();
    let end = end_of(first, body.headers.len())?;
    let rows: &[ArchivedSessionRow] = &body.sessions;
    for (index, row) in rows.iter().enumerate() {
        row.verify().map_err(|problem| BlockError::Session { index, problem })?;
    }
    let arena: &[u8] = &body.payloads;
    let (mut start, mut named, mut flags) = (0, 0, 0);
    for (index, header) in body.headers.iter().enumerate() {
        let problem = |problem| BlockError::Entry { index, problem };
        let row = header.row();
        // Every row is named, the first time in its turn.
        if row > named || row >= rows.len() {
            return Err(problem("its session's row is not the next one, nor one before it"));
        }
        named = named.max(row + 1);
        start = header.verify(&rows[row], arena, start).map_err(problem)?;
        flags |= header.flags();
    }
    if named != rows.len() {
        return Err(BlockError::Archive(format!("{} session rows belong to no entry", rows.len() - named)));
    }
    if start != arena.len() {
        return Err(BlockError::Archive(format!("{} payload bytes belong to no entry", arena.len() - start)));
    }
    Ok(Summary {
        first: Offset(first),
        end,
        committed_unix_us: body.committed_unix_us.to_native(),
        previous_checksum: body.previous_checksum.to_native(),
        asks: flags & FLAG_ASK != 0,
    })
}

impl ArchivedSessionRow {
    fn verify(&self) -> Result<(), &'static str> {
        if self.epoch == [0; 4] {
            return Err("epoch 0");
        }
        if !DialectId(self.dialect).is_known() {
            return Err("a dialect that this program does not know");
        }
        Ok(())
    }
}

impl ArchivedHeader {
    fn flags(&self) -> u8 {
        self.row_and_flags.to_native().to_le_bytes()[0]
    }

    fn row(&self) -> usize {
        (self.row_and_flags.to_native() >> 8) as usize
    }

    fn seq(&self, row: &ArchivedSessionRow) -> u64 {
        let [s0, s1] = self.seq_low.to_native().to_le_bytes();
        let [s2, s3, s4, s5, s6, s7] = row.seq_high;
        u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7])
    }

    /// Returns where the payload ends, which is where the next one starts.
    fn verify(&self, row: &ArchivedSessionRow, arena: &[u8], start: usize) -> Result<usize, &'static str> {
        let end = self.payload_end.to_native() as usize;
        let payload = arena.get(start..end).ok_or("its payload lies outside the block")?;
        let attributes = Attributes {
            flags: self.flags(),
            seq: self.seq(row),
            span: self.span.to_native(),
            channel: u16::from_le_bytes(row.channel),
        };
        attributes.verify(payload)?;
        Ok(end)
    }

    fn entry<'a>(&self, row: &ArchivedSessionRow, offset: Offset, payload: &'a [u8]) -> Entry<'a> {
        let flags = self.flags();
        let seq = Seq(self.seq(row));
        let (kind, payload) = content(flags, seq, payload);
        let received_high = u64::from(u32::from_le_bytes(row.received_high));
        let meta = EntryMeta {
            dialect: DialectId(row.dialect),
            session: SessionId {
                client: ClientId(u64::from_le_bytes(row.client)),
                epoch: Epoch::new(u32::from_le_bytes(row.epoch)).expect("verified when the block was parsed"),
            },
            seq,
            span: self.span.to_native(),
            skip: flags & FLAG_SKIP != 0,
            batch: flags & FLAG_BATCH != 0,
            asks: flags & FLAG_ASK != 0,
            sealed: flags & FLAG_SEALED != 0,
            channel: u16::from_le_bytes(row.channel),
            received_unix_us: received_high << 32 | u64::from(self.received_low.to_native()),
        };
        Entry { offset, kind, meta, payload }
    }
}

/// The entries of a verified archive.
pub(super) struct Entries<'a> {
    arena: &'a [u8],
    rows: &'a [ArchivedSessionRow],
    headers: std::slice::Iter<'a, ArchivedHeader>,
    /// The offset of the next entry.
    offset: u64,
    /// Where the payload of the next entry starts.
    start: usize,
}

impl<'a> Entries<'a> {
    /// Those at or above an offset. rkyv checks the few pointers again each time, which costs nanoseconds; it cannot fail after
    /// [`verify`].
    pub(super) fn from(archive: &'a [u8], from: Offset) -> Self {
        let body = access::<ArchivedBody<'_>, Panic>(archive).always_ok();
        let first = Offset(body.first_offset.to_native());
        let headers: &[ArchivedHeader] = &body.headers;
        let skipped = usize::try_from(from.since(first)).unwrap_or(usize::MAX).min(headers.len());
        let start = skipped.checked_sub(1).map_or(0, |last| headers[last].payload_end.to_native() as usize);
        Self {
            arena: &body.payloads,
            rows: &body.sessions,
            headers: headers[skipped..].iter(),
            offset: first.plus(skipped as u64).0,
            start,
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let header = self.headers.next()?;
        let end = header.payload_end.to_native() as usize;
        let payload = &self.arena[std::mem::replace(&mut self.start, end)..end];
        let offset = Offset(self.offset);
        // The offset after the last one was verified to be one.
        self.offset += 1;
        Some(header.entry(&self.rows[header.row()], offset, payload))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.headers.size_hint()
    }
}
