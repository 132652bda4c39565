//! Bytes from the disk into the reader of blocks: as they come, under a right prefix, and as entries that go through a
//! block and come back.

use duragram::journal::block::BLOCK_VERSION;
use duragram::journal::testing::memory::MemoryDisk;
use duragram::journal::{Block, BlockBuilder, Journal};
use duragram::model::{DialectId, EntryKind, EntryMeta, Offset, SessionId};
use duragram_proto::codec::is_batch;
use duragram_proto::{ClientId, Epoch, Seq};

use super::input::Input;

pub(crate) fn block(input: &[u8]) {
    read(input.to_vec());
    (1..=BLOCK_VERSION).for_each(|version| read(under_a_right_prefix(version, input.to_vec())));
    written(Input(input));
}

/// As a writer would leave it that is wrong or hostile.
fn under_a_right_prefix(version: u32, mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= 12 {
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        let length = u32::try_from(bytes.len()).expect("short");
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum_of(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

/// As the format has it: that of version 1 leaves the prefix out.
fn checksum_of(bytes: &[u8]) -> u32 {
    let prefix = if bytes[..4] == [1, 0, 0, 0] { &[][..] } else { &bytes[..8] };
    crc32fast::hash(&[prefix, &bytes[12..]].concat())
}

/// It is refused, or all of it can be read and keeps the format's rules.
fn read(bytes: Vec<u8>) {
    let Ok(block) = Block::parse(bytes.clone()) else { return };
    assert_eq!((block.bytes(), block.size()), (&bytes[..], bytes.len()));
    assert!((1..=BLOCK_VERSION).any(|version| bytes[..4] == version.to_le_bytes()));
    assert_eq!(bytes[4..8], u32::try_from(bytes.len()).expect("short").to_le_bytes());
    assert_eq!(block.checksum(), checksum_of(&bytes));
    let entries: Vec<_> = block.entries().collect();
    assert!(!entries.is_empty());
    assert_eq!(entries.len() as u64, block.end().since(block.first()));
    for (entry, offset) in entries.iter().zip(block.first().0..) {
        assert_eq!(entry.offset, Offset(offset));
        assert!(u64::from(entry.meta.span) < entry.meta.seq.0);
        let records: usize = entry.records().map(|record| record.len() + if entry.meta.batch { 2 } else { 0 }).sum();
        match entry.kind {
            EntryKind::Gap { from, to } => {
                assert!(from > Seq::ZERO && from <= to && to == entry.meta.seq && records == 0);
            }
            EntryKind::Data => assert_eq!(records, entry.payload.len()),
        }
    }
    let payloads: usize = entries.iter().map(|entry| entry.payload.len()).sum();
    assert!(payloads <= bytes.len(), "no byte is in two payloads");
    let middle = block.first().plus(entries.len() as u64 / 2);
    assert!(block.entries_from(middle).eq(entries[entries.len() / 2..].iter().copied()));
    let (previous, committed) = (block.previous_checksum(), block.committed_unix_us());
    let again = Block::parse(bytes).expect("it was good before");
    assert_eq!((again.previous_checksum(), again.committed_unix_us()), (previous, committed));
}

/// What a committer pushes comes back as it was pushed; what breaks a rule is refused as a whole.
fn written(mut input: Input<'_>) {
    let mut builder = BlockBuilder::default();
    let mut pushed = Vec::new();
    let mut lawful = true;
    while let Some(flags) = input.byte() {
        let (Some(client), Some(seq)) = (input.u64(), input.u64()) else { break };
        let few = input.byte().unwrap_or(0);
        let seq = if flags & 8 == 0 { u64::from(few) } else { seq };
        let session = SessionId { client: ClientId(client), epoch: Epoch::new(u32::from(flags) + 1).expect("above 0") };
        if flags & 1 != 0 {
            let from = seq.wrapping_sub(u64::from(few & 15));
            builder.push_gap(session, flags & 128 != 0, Seq(from), Seq(seq), client);
            lawful &= from > 0 && from <= seq;
            pushed.push((EntryKind::Gap { from: Seq(from), to: Seq(seq) }, None, &[][..]));
        } else {
            let meta = EntryMeta {
                dialect: DialectId::DURAGRAM,
                session,
                seq: Seq(seq),
                span: u16::from(flags >> 4),
                skip: flags & 2 != 0,
                batch: flags & 4 != 0,
                asks: false,
                sealed: flags & 128 != 0,
                channel: u16::from(few),
                received_unix_us: client,
            };
            let payload = input.bytes(usize::from(few));
            builder.push(&meta, payload);
            lawful &= u64::from(meta.span) < seq && (!meta.batch || is_batch(payload));
            pushed.push((EntryKind::Data, Some(meta), payload));
        }
    }
    let size = builder.size();
    let mut opened = MemoryDisk::default().open(&mut |_| {});
    let Ok(receipt) = opened.journal.commit(&mut builder, &[]) else {
        return assert!(!lawful, "refused: {pushed:?}");
    };
    assert!(lawful, "taken: {pushed:?}");
    assert_eq!(receipt.block().is_some(), !pushed.is_empty());
    let Some(block) = receipt.block() else { return };
    assert_eq!(block.size(), size);
    read(block.bytes().to_vec());
    assert_eq!(block.entries().count(), pushed.len());
    for (entry, (kind, meta, payload)) in block.entries().zip(pushed) {
        assert_eq!((entry.kind, entry.payload), (kind, payload));
        assert!(meta.is_none_or(|meta| meta == entry.meta));
    }
}
