use duragram_proto::{ClientId, Epoch};
use proptest::prelude::*;

use super::archive::{HEADER_LEN, ROOT_LEN, ROW_LEN};
use super::builder::KEEP_BLOCK_BYTES_MAX;
use super::*;
use crate::model::{DialectId, EntryMeta, SessionId};

fn session(client: u64, epoch: u32) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(epoch).unwrap() }
}

fn meta(seq: u64) -> EntryMeta {
    EntryMeta {
        dialect: DialectId::DURAGRAM,
        session: session(0xa1, 3),
        seq: Seq(seq),
        span: 0,
        skip: false,
        batch: false,
        asks: false,
        sealed: false,
        channel: 0,
        received_unix_us: 1_700_000_000_000_000,
    }
}

const PLACE: Place =
    Place { first: Offset(7), previous_checksum: 0xdead_beef, committed_unix_us: 1_700_000_000_000_123 };

/// One of each: a plain datagram, an empty one, a batch of two records with all attributes, a gap.
fn sample() -> BlockBuilder {
    let mut builder = BlockBuilder::default();
    builder.push(&meta(1), b"hello");
    builder.push(&meta(2), b"");
    let batch = EntryMeta { span: 2, skip: true, batch: true, channel: 513, ..meta(9) };
    builder.push(&batch, b"\x02\x00ab\x00\x00");
    builder.push_gap(session(u64::MAX, u32::MAX), false, Seq(5), Seq(8), 42);
    builder
}

#[test]
fn entries_come_back_as_they_were_pushed() {
    let block = Block::parse(sample().build(PLACE).unwrap().bytes().to_vec()).unwrap();
    assert_eq!((block.first(), block.end()), (Offset(7), Offset(11)));
    assert_eq!(block.previous_checksum(), 0xdead_beef);
    assert_eq!(block.committed_unix_us(), 1_700_000_000_000_123);
    let entries: Vec<_> = block.entries().collect();
    assert_eq!(entries[0], Entry { offset: Offset(7), kind: EntryKind::Data, meta: meta(1), payload: b"hello" });
    assert_eq!(entries[0].records().collect::<Vec<_>>(), [b"hello"]);
    assert_eq!(entries[1].records().collect::<Vec<_>>(), [b""], "an empty datagram is one empty record");
    assert_eq!(entries[2].meta, EntryMeta { span: 2, skip: true, batch: true, channel: 513, ..meta(9) });
    assert_eq!(entries[2].records().collect::<Vec<_>>(), [&b"ab"[..], b""]);
    assert_eq!(entries[3].kind, EntryKind::Gap { from: Seq(5), to: Seq(8) });
    assert_eq!(entries[3].meta.session, session(u64::MAX, u32::MAX));
    assert_eq!((entries[3].meta.seq, entries[3].meta.received_unix_us), (Seq(8), 42));
    assert_eq!((entries[3].payload, entries[3].records().count()), (&b""[..], 0));
    assert_eq!(entries.len(), 4);
    for from in 0..13 {
        let expected: Vec<_> = entries.iter().copied().filter(|entry| entry.offset.0 >= from).collect();
        assert_eq!(block.entries_from(Offset(from)).collect::<Vec<_>>(), expected, "from {from}");
    }
}

/// The format on disk: whoever changes these bytes must raise [`BLOCK_VERSION`].
#[test]
fn the_format_is_that_of_the_golden_block() {
    let golden = include_bytes!("../testdata/block_v2.bin");
    let built = sample().build(PLACE).unwrap();
    assert_eq!(built.bytes(), golden);
    assert_eq!(Block::parse(golden.to_vec()).unwrap(), built);
}

/// As a directory of format 1 or 2 holds them.
#[test]
fn a_block_of_version_1_gives_the_same_entries() {
    let golden = include_bytes!("../testdata/block_v1.bin");
    let (former, built) = (Block::parse(golden.to_vec()).unwrap(), sample().build(PLACE).unwrap());
    assert_eq!(former::writer::rewrite(&built, PLACE.previous_checksum).bytes(), golden);
    assert_eq!(former.summary, built.summary);
    for from in 0..13 {
        assert!(former.entries_from(Offset(from)).eq(built.entries_from(Offset(from))), "from {from}");
    }
    let next = Place { first: former.end(), previous_checksum: former.checksum(), ..PLACE };
    assert_eq!(sample().build(next).unwrap().previous_checksum(), former.checksum(), "the chain goes on");
}

/// Since format 2 of the data directory.
#[test]
fn what_came_sealed_is_marked_so() {
    let mut builder = BlockBuilder::default();
    builder.push(&EntryMeta { sealed: true, ..meta(1) }, b"hello");
    builder.push_gap(session(1, 1), true, Seq(5), Seq(8), 42);
    builder.push(&meta(2), b"plain");
    let block = Block::parse(builder.build(PLACE).unwrap().bytes().to_vec()).unwrap();
    let sealed = |block: &Block| block.entries().map(|entry| entry.meta.sealed).collect::<Vec<_>>();
    assert_eq!(sealed(&block), [true, true, false]);
    assert_eq!(block.entries().nth(1).unwrap().kind, EntryKind::Gap { from: Seq(5), to: Seq(8) });
    assert_eq!(sealed(&former::writer::rewrite(&block, 0)), [true, true, false]);
    // Bit 3 of the flags: whoever changes that must raise the directory's format.
    let headers = PREFIX_LEN + 18 + 2 * ROW_LEN;
    let flags: Vec<u8> = (0..3).map(|entry| block.bytes()[headers + entry * HEADER_LEN]).collect();
    assert_eq!(flags, [8, 8 | 1, 0]);
}

/// Since format 5 of the data directory.
#[test]
fn an_entry_that_asks_is_marked_so_and_its_block_tells_that_there_is_one() {
    let ask = EntryMeta { asks: true, ..meta(1) };
    let mut builder = BlockBuilder::default();
    builder.push(&ask, b"open valve 7");
    builder.push(&EntryMeta { sealed: true, skip: true, ..ask }, b"");
    builder.push(&meta(2), b"plain");
    let block = Block::parse(builder.build(PLACE).unwrap().bytes().to_vec()).unwrap();
    assert_eq!(block.entries().map(|entry| entry.meta.asks).collect::<Vec<_>>(), [true, true, false]);
    assert!(block.has_asks() && !sample().build(PLACE).unwrap().has_asks());
    // Bit 4 of the flags: whoever changes that must raise the directory's format.
    let headers = PREFIX_LEN + 17 + ROW_LEN;
    let flags: Vec<u8> = (0..3).map(|entry| block.bytes()[headers + entry * HEADER_LEN]).collect();
    assert_eq!(flags, [16, 16 | 8 | 2, 0]);
}

/// The size of a block of these entries, without payloads, prefix and root.
fn overhead(entries: &[EntryMeta]) -> usize {
    let mut builder = BlockBuilder::default();
    entries.iter().for_each(|meta| builder.push(meta, b""));
    let block = Block::parse(builder.build(PLACE).unwrap().bytes().to_vec()).unwrap();
    assert!(block.entries().map(|entry| entry.meta).eq(entries.iter().copied()));
    block.size() - PREFIX_LEN - ROOT_LEN
}

#[test]
fn an_entry_takes_16_bytes_and_a_session_25_once_a_block() {
    let of = |client, seq| EntryMeta { session: session(client, 3), ..meta(seq) };
    let one: Vec<_> = (1..=2048).map(|seq| of(1, seq)).collect();
    assert_eq!(overhead(&one), 2048 * 16 + 25);
    let eight_in_turn: Vec<_> = (0..2048).map(|n| of(n % 8, 1 + n / 8)).collect();
    assert_eq!(overhead(&eight_in_turn), 2048 * 16 + 8 * 25);
    let each_its_own: Vec<_> = (0..2048).map(|n| of(n, 1)).collect();
    assert_eq!(overhead(&each_its_own), 2048 * (16 + 25));
}

#[test]
fn whatever_seq_channel_and_time_come_in_whatever_order_comes_back() {
    let seqs = [1, u64::MAX, 65_535, 65_536, 1 << 32, 7, u64::MAX - 1, 1 << 48];
    let times = [u64::MAX, 0, 1 << 32, (1 << 32) - 1, 1_700_000_000_000_000, 1_699_999_999_999_999, 1, u64::MAX - 1];
    let channels = [0, u16::MAX, 256, 255, 0, 1, 2, 0];
    let entry = |at: usize| {
        let span = u16::try_from(seqs[at % 8] - 1).unwrap_or(u16::MAX);
        EntryMeta {
            seq: Seq(seqs[at % 8]),
            span,
            received_unix_us: times[at / 8 % 8],
            channel: channels[at / 64],
            ..meta(1)
        }
    };
    overhead(&(0..512).map(entry).collect::<Vec<_>>());
}

#[test]
fn sessions_that_push_each_other_out_of_the_builders_memory_cost_bytes_alone() {
    // More than it remembers, in turn, so that most are forgotten before they come again.
    let entries: Vec<_> =
        (0..40_000).map(|n| EntryMeta { session: session(n % 20_000, 3), ..meta(1 + n / 20_000) }).collect();
    let bytes = overhead(&entries);
    assert!((40_000 * 16 + 20_000 * 25..40_000 * (16 + 25)).contains(&bytes), "{bytes}");
}

#[test]
fn a_change_of_any_byte_or_of_the_length_is_detected() {
    every_change_is_detected(sample().build(PLACE).unwrap().bytes().to_vec());
    every_change_is_detected(include_bytes!("../testdata/block_v1.bin").to_vec());
}

fn every_change_is_detected(good: Vec<u8>) {
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(Block::parse(bad).is_err(), "bit {bit} of byte {at}");
        }
        assert!(Block::parse(good[..at].to_vec()).is_err(), "cut to {at} bytes");
    }
    for version in (0..4).filter(|version| *version != u32_at(&good, 0)) {
        let mut other = good.clone();
        other[..4].copy_from_slice(&version.to_le_bytes());
        let error = Block::parse(other).unwrap_err();
        assert!(matches!(error, BlockError::Version(_) | BlockError::Checksum { .. }), "{error}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(Block::parse(longer), Err(BlockError::Length { .. })));
}

/// Gives bytes a fitting prefix, as a writer would that is wrong or hostile.
fn forge(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum_of(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads all that can be read.
fn read_all(block: &Block) {
    let entries = block.entries().inspect(|entry| entry.records().for_each(drop)).count();
    assert_eq!(entries as u64, block.end().since(block.first()));
}

#[test]
fn a_forged_block_with_a_good_checksum_is_refused_or_reads_without_panic() {
    forge_all(sample().build(PLACE).unwrap().bytes());
    forge_all(include_bytes!("../testdata/block_v1.bin"));
}

fn forge_all(good: &[u8]) {
    let mut refused = 0;
    for at in PREFIX_LEN..good.len() {
        for value in [0, 1, 2, 4, 8, 0x7f, 0x80, 0xff] {
            let mut bad = good.to_vec();
            bad[at] ^= value;
            match Block::parse(forge(bad)) {
                Ok(block) => read_all(&block),
                Err(_) => refused += 1,
            }
        }
        // An archive that is too short for its pointers.
        refused += usize::from(Block::parse(forge(good[..at].to_vec())).map(|block| read_all(&block)).is_err());
    }
    assert!(refused > good.len(), "pointers, lengths and flags must have been among them: {refused}");
}

/// Where the session rows of a sample begin, and where its headers do.
const ROWS: usize = PREFIX_LEN + 5 + 6 + 8;
const HEADERS: usize = ROWS + 3 * ROW_LEN;

#[test]
fn a_row_or_a_header_that_breaks_a_rule_is_named() {
    let good = sample().build(PLACE).unwrap().bytes().to_vec();
    let forged = |change: &dyn Fn(&mut [u8])| {
        let mut bad = good.clone();
        change(&mut bad);
        Block::parse(forge(bad)).unwrap_err().to_string()
    };
    let said = [
        (
            forged(&|bytes| bytes[ROWS + 24] = 1),
            "session row 0 of the block: a dialect that this program does not know",
        ),
        (forged(&|bytes| bytes[ROWS + ROW_LEN + 8] = 0), "session row 1 of the block: epoch 0"),
        (forged(&|bytes| bytes[HEADERS + 1] = 1), "entry 0 of the block: its session's row is not the next one, nor"),
        (forged(&|bytes| bytes[HEADERS + 3 * HEADER_LEN + 3] = 1), "entry 3 of the block: its session's row is not"),
        (forged(&|bytes| bytes[HEADERS + 3 * HEADER_LEN + 1] = 0), "entry 3 of the block: a gap with attributes"),
        (forged(&|bytes| bytes[HEADERS] = 32), "entry 0 of the block: unknown flags"),
        (forged(&|bytes| bytes[HEADERS + 2 * HEADER_LEN] |= 16), "entry 2 of the block: a batch that asks"),
        (forged(&|bytes| bytes[HEADERS + 3 * HEADER_LEN] |= 16), "entry 3 of the block: a gap with attributes"),
        (forged(&|bytes| bytes[HEADERS + HEADER_LEN + 4] = 4), "entry 1 of the block: its payload lies outside"),
        (forged(&|bytes| bytes[HEADERS + 12] = 0), "entry 0 of the block: seq 0 or span not below seq"),
    ];
    for (said, expected) in &said[..4] {
        assert!(said.starts_with(expected), "{said:?} instead of {expected:?}");
    }
    for (said, expected) in &said[5..] {
        assert!(said.starts_with(expected), "{said:?} instead of {expected:?}");
    }
    // The gap under another session's row still is one, or breaks a rule; the row that nobody names is noticed either way.
    assert!(said[4].0.contains("session rows belong to no entry") || said[4].0.starts_with("entry 3"), "{}", said[4].0);
}

#[test]
fn a_builder_refuses_what_recovery_would_refuse() {
    let refused = |meta: EntryMeta, payload: &[u8]| {
        let mut builder = BlockBuilder::default();
        builder.push(&meta, payload);
        builder.build(PLACE).unwrap_err()
    };
    let batch = EntryMeta { batch: true, ..meta(1) };
    for broken in [&b""[..], b"\x01", b"\x02\x00a", b"\x01\x00ab"] {
        assert!(matches!(refused(batch, broken), BlockError::Entry { index: 0, .. }), "{broken:?}");
    }
    assert!(matches!(refused(EntryMeta { asks: true, ..batch }, b"\x01\x00a"), BlockError::Entry { .. }));
    assert!(matches!(refused(meta(0), b""), BlockError::Entry { .. }));
    assert!(matches!(refused(EntryMeta { span: 4, ..meta(4) }, b""), BlockError::Entry { .. }));
    let mut gap = BlockBuilder::default();
    gap.push_gap(session(1, 1), false, Seq(3), Seq(2), 0);
    assert!(matches!(gap.build(PLACE), Err(BlockError::Entry { .. })));
    assert!(matches!(BlockBuilder::default().build(PLACE), Err(BlockError::Archive(_))));
    assert!(sample().build(Place { first: Offset(u64::MAX - 3), ..PLACE }).is_err(), "offsets would wrap");
}

#[test]
fn a_builder_keeps_its_memory_up_to_a_bound() {
    let mut builder = BlockBuilder::default();
    let payload = vec![0; 60_000];
    for seq in 1..=1000 {
        builder.push(&meta(seq), &payload);
    }
    assert_eq!(builder.size(), builder.build(PLACE).unwrap().size());
    assert_eq!((builder.len(), builder.size()), (0, BlockBuilder::default().size()));
    assert!(builder.bytes.capacity() >= payload.len() && builder.bytes.capacity() <= 2 * KEEP_BLOCK_BYTES_MAX);
}

fn any_entry() -> impl Strategy<Value = (EntryMeta, Vec<u8>)> {
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    let records = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..8);
    (any::<(u64, u32, u64, u16, bool, bool, bool, u16, u64)>(), payload, records).prop_map(
        |((client, epoch, seq, span, skip, batch, asks, channel, received_unix_us), payload, records)| {
            let seq = seq.max(1);
            let meta = EntryMeta {
                dialect: DialectId::DURAGRAM,
                session: session(client, epoch.max(1)),
                seq: Seq(seq),
                span: span.min(u16::try_from(seq - 1).unwrap_or(u16::MAX)),
                skip,
                batch,
                asks: asks && !batch,
                sealed: false,
                channel,
                received_unix_us,
            };
            let run = |record: &Vec<u8>| [&u16::try_from(record.len()).unwrap().to_le_bytes()[..], record].concat();
            (meta, if batch { records.iter().flat_map(run).collect() } else { payload })
        },
    )
}

proptest! {
    #[test]
    fn any_entries_survive_the_way_through_a_block(
        entries in proptest::collection::vec(any_entry(), 1..40),
        first in 0..u64::MAX / 2,
        previous_checksum: u32,
        committed_unix_us: u64,
    ) {
        let mut builder = BlockBuilder::default();
        for (meta, payload) in &entries {
            builder.push(meta, payload);
        }
        let size = builder.size();
        let place = Place { first: Offset(first), previous_checksum, committed_unix_us };
        let block = Block::parse(builder.build(place).unwrap().bytes().to_vec()).unwrap();
        prop_assert_eq!(block.size(), size);
        prop_assert_eq!((block.previous_checksum(), block.committed_unix_us()), (previous_checksum, committed_unix_us));
        prop_assert_eq!(block.end(), Offset(first + entries.len() as u64));
        for (at, (entry, (meta, payload))) in block.entries().zip(&entries).enumerate() {
            let offset = Offset(first + at as u64);
            prop_assert_eq!(entry, Entry { offset, kind: EntryKind::Data, meta: *meta, payload });
            let joined: usize = entry.records().map(|record| record.len() + if meta.batch { 2 } else { 0 }).sum();
            prop_assert_eq!(joined, payload.len(), "the records make up the payload");
        }
        prop_assert_eq!(block.has_asks(), entries.iter().any(|(meta, _)| meta.asks));
        let former = former::writer::rewrite(&block, previous_checksum);
        let silent = |entry: Entry<'_>| EntryMeta { asks: false, ..entry.meta };
        prop_assert!(former.entries().zip(block.entries()).all(|(former, entry)| former.meta == silent(entry)));
        prop_assert!(former.entries().map(|entry| entry.payload).eq(block.entries().map(|entry| entry.payload)));
        prop_assert_eq!((former.first(), former.end()), (block.first(), block.end()));
        prop_assert_eq!(block.entries().count(), entries.len());
    }

    #[test]
    fn arbitrary_bytes_are_never_taken_for_a_block(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Block::parse(bytes.clone()).is_err());
        for version in former::VERSION..=BLOCK_VERSION {
            if bytes.len() > PREFIX_LEN {
                let mut bytes = bytes.clone();
                bytes[..4].copy_from_slice(&version.to_le_bytes());
                if let Ok(block) = Block::parse(forge(bytes)) {
                    read_all(&block);
                }
            }
        }
    }
}
