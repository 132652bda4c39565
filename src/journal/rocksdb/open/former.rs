//! Directories of former formats: taken over by a start, whatever interrupts it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use duragram_proto::Seq;
use rocksdb::WriteBatch;
use serde_json::{Value, json};

use super::tests::{rich_place, state};
use super::*;
use crate::journal::block::former::writer::rewrite;
use crate::journal::database::{JOURNAL, META, block_key};
use crate::journal::dead_letter::tests::letter_of;
use crate::journal::inspect;
use crate::journal::meta::{self, CHECKPOINT_KEY, MetaRecord};
use crate::journal::recovery::Witness;
use crate::journal::rocksdb::database::is_of_a_journal;
use crate::journal::store::tests::{Place, checkpoint, commit, files, one, options, write_files};
use crate::journal::testing::shared::{answered, answers, open_ask, sinks};
use crate::journal::{BlockBuilder, Checkpoint, Journal as _, Records};
use crate::model::{Content, DialectId, Offset, records_of};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What version 0.1.0 left when it was killed: two clients whose datagrams came plain, one in batches, one sealed; two lanes, then
/// three; four entries that the checkpoint does not include. RocksDB's files for people are left out.
fn written_by_an_earlier_version() -> Files {
    let mut rest = &include_bytes!("../../testdata/directory_v2.bin")[..];
    let mut files = Files::new();
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (name, bytes) = str::from_utf8(&rest[..end]).unwrap().split_once(' ').unwrap();
        let (content, after) = rest[end + 1..].split_at(bytes.parse().unwrap());
        files.insert(name.into(), content.into());
        rest = after;
    }
    files
}

/// What that version's `journal dump` said of it.
fn dumped_by_an_earlier_version() -> Vec<Value> {
    let lines = include_str!("../../testdata/directory_v2.ndjson").lines();
    let mut lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let received: jiff::Timestamp = line["received_at"].as_str().unwrap().parse().unwrap();
        line["received_at"] = received.as_microsecond().into();
    }
    lines
}

fn place_of(files: &Files) -> Place {
    let place = Place::new();
    write_files(&place.path(), files);
    place
}

/// All files but the lock, which a start makes.
fn but_the_lock(place: &Place) -> Files {
    let mut files = files(&place.path());
    files.remove(Path::new("lock"));
    files
}

/// Every record as it is dumped, but for the time of its arrival, which is a number here.
fn dump(reader: &dyn crate::journal::ReadJournal, low: Offset) -> Vec<Value> {
    let mut lines = Vec::new();
    let blocks = reader.read(low, usize::MAX).unwrap();
    for entry in blocks.iter().flat_map(|block| block.entries()) {
        assert_eq!(entry.meta.dialect, DialectId::DURAGRAM);
        for record in records_of(&entry) {
            let Content::Payload(payload) = record.content else { panic!("no gap was written") };
            lines.push(json!({
                "offset": record.offset.0,
                "index": record.index,
                "client": format!("{:016x}", record.session.client.0),
                "epoch": record.session.epoch.value(),
                "seq": record.seq.0,
                "channel": record.channel,
                "received_at": record.received_unix_us,
                "payload": str::from_utf8(payload).unwrap(),
            }));
        }
    }
    lines
}

/// Opens it, and says what is there: a summary of the start, and every record. The replay is not [`state`]'s, since these entries
/// are a server's and not a test's.
fn start(place: &Place) -> Result<(String, Vec<Value>), OpenError> {
    let mut replayed = Vec::new();
    let opened = RocksJournal::open(&place.path(), &options(), &mut |replay| match replay {
        Replay::Session(session) => replayed.push(format!("{session:?}")),
        Replay::Client(client) => replayed.push(format!("{client:?}")),
        Replay::Ask(ask) => replayed.push(format!("{ask:?}")),
        Replay::Answers(answers) => replayed.push(format!("{answers:?}")),
        Replay::CounterLimit(limit) => replayed.push(format!("counter {limit}")),
        Replay::Block(block) => replayed.push(format!("{block:?} {:?}", block.entries().collect::<Vec<_>>())),
    })?;
    let Opened { lanes, former, checkpoint_at, low, end, given_up, reader, .. } = &opened;
    let told = format!("{lanes:?} {former:?} {checkpoint_at} {low} {end} {given_up:?} {replayed:?}");
    Ok((told, dump(&**reader, *low)))
}

fn marker(place: &Place) -> String {
    fs::read_to_string(place.path().join("DURAGRAM")).unwrap()
}

const FORMAT_2: &str = "duragram data directory, format 2 ";
const FORMAT_3: &str = "duragram data directory, format 3 ";
const FORMAT_4: &str = "duragram data directory, format 4 crc32 df1005ec\n";
const THIS_FORMAT: &str = "duragram data directory, format 5 ";

#[test]
fn a_directory_that_an_earlier_version_wrote_is_taken_over_and_goes_on() {
    let place = place_of(&written_by_an_earlier_version());
    assert!(marker(&place).starts_with(FORMAT_2));
    let before = but_the_lock(&place);
    let verified = inspect::verify(&place.path()).unwrap();
    assert_eq!((verified.damage, verified.stats.end, verified.stats.entries), (vec![], Offset(34), 34));
    let name = verified.stats.id.unwrap();
    assert_eq!((name.to_string().as_str(), verified.stats.instance), ("6344b4daa210def0d89846d94631acd7", None));
    assert_eq!(inspect::dump(&place.path(), Offset(0)).unwrap().count(), 21);
    assert!(but_the_lock(&place) == before, "looking changes nothing");

    let dumped = dumped_by_an_earlier_version();
    let (told, records) = start(&place).unwrap();
    assert!(records == dumped, "all records are as the earlier version dumped them");
    assert_eq!(told.matches("Block(").count(), 2, "what the checkpoint does not include is replayed: {told}");
    assert_eq!(told.matches("LaneMark { watermark: Offset(30)").count(), 3, "{told}");
    assert_eq!(told.matches("SessionRecord").count(), 5, "{told}");
    assert!(told.contains("ClientRecord") && told.contains("counter "), "{told}");
    assert!(marker(&place).starts_with(THIS_FORMAT));
    let stats = inspect::stats(&place.path()).unwrap();
    assert_eq!((stats.id, stats.instance.unwrap().number), (Some(name), 1), "the journal keeps its name");

    // New blocks of version 2 follow old ones, checkpoints replace those of version 1, and trimming takes both.
    let opened = RocksJournal::open(&place.path(), &options(), &mut |_| {}).unwrap();
    let mut journal = opened.journal;
    commit(&mut journal, one(34));
    let mut builder = BlockBuilder::default();
    crate::journal::testing::shared::push(&mut builder, 35, 10);
    journal.commit(&mut builder, &[]).unwrap();
    let versions = |reader: &dyn crate::journal::ReadJournal, low| -> Vec<u8> {
        reader.read(low, usize::MAX).unwrap().iter().map(|block| block.bytes()[0]).collect()
    };
    assert_eq!(versions(&*opened.reader, Offset(0)), [vec![1; 21], vec![2; 2]].concat());
    checkpoint(&mut journal, 36, 30);
    drop((journal, opened.reader, opened.dead));
    let opened = RocksJournal::open(&place.path(), &options(), &mut |_| {}).unwrap();
    assert_eq!((opened.low, opened.end, opened.lanes.len()), (Offset(30), Offset(36), 1));
    let last_seqs: Vec<_> = opened.reader.read(opened.low, usize::MAX).unwrap();
    let last_seqs: Vec<_> = last_seqs.iter().flat_map(|block| block.entries()).map(|entry| entry.meta.seq).collect();
    assert_eq!(last_seqs, [1, 2, 3, 4, 35, 36].map(Seq));
    drop(opened);
    assert_eq!(inspect::verify(&place.path()).unwrap().damage, []);
    assert_eq!(inspect::stats(&place.path()).unwrap().instance.unwrap().number, 3);
}

#[test]
fn a_taking_over_that_is_interrupted_anywhere_is_finished_by_the_next_start() {
    let old = written_by_an_earlier_version();
    let expected = start(&place_of(&old)).unwrap();
    let done = place_of(&old);
    start(&done).unwrap();
    let new = |name: &str| fs::read(done.path().join(name)).unwrap();
    // In the order in which a start writes them: each file beside the one it replaces, cut anywhere, and then in its place.
    let mut left = old.clone();
    for name in ["DURAGRAM", "journal-id"] {
        let text = new(name);
        for cut in [0, 1, text.len() / 2, text.len() - 1, text.len()] {
            let mut interrupted = left.clone();
            interrupted.insert(format!("{name}.new").into(), text[..cut].into());
            let place = place_of(&interrupted);
            assert!(start(&place).unwrap() == expected, "{name}.new of {cut} bytes");
            assert!(marker(&place).starts_with(THIS_FORMAT));
        }
        left.insert(name.into(), text);
        let place = place_of(&left);
        assert!(start(&place).unwrap() == expected, "{name} is replaced, and nothing after it");
        assert_eq!(inspect::verify(&place.path()).unwrap().damage, []);
    }
    let instance = |place: &Place| inspect::stats(&place.path()).unwrap().instance.unwrap().number;
    assert_eq!(instance(&place_of(&left)), 1, "an interrupted start counts");
    let place = place_of(&left);
    start(&place).unwrap();
    assert_eq!(instance(&place), 2);
}

#[test]
fn nothing_of_this_format_is_written_before_the_marker_says_so() {
    let old = written_by_an_earlier_version();
    let plain = options();
    let accepting = RocksOptions { accept_loss: true, ..options() };
    let open =
        |place: &Place, options: &RocksOptions| RocksJournal::open(&place.path(), options, &mut |_| {}).map(drop);
    // A marker that cannot be written, in a sound directory, in one whose loss an operator accepts, and in one that never came into service.
    let mut hurt = old.clone();
    hurt.get_mut(Path::new("rocksdb/000013.sst")).unwrap()[100] ^= 1;
    let marked = || old.iter().filter(|(name, _)| **name == *Path::new("DURAGRAM"));
    let unused: Files = marked().map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    for (name, files, options) in
        [("sound", &old, &plain), ("hurt", &hurt, &accepting), ("unused", &unused, &accepting)]
    {
        let place = place_of(files);
        fs::create_dir(place.path().join("DURAGRAM.new")).unwrap();
        let error = open(&place, options).unwrap_err();
        assert!(error.to_string().contains("marking the directory's format"), "{name}: {error}");
        assert!(but_the_lock(&place) == *files, "{name}: nothing may change");
        fs::remove_dir(place.path().join("DURAGRAM.new")).unwrap();
        open(&place, options).unwrap();
        assert!(marker(&place).starts_with(THIS_FORMAT), "{name}");
        open(&place, &plain).unwrap();
    }
}

/// Makes what is in a directory what an earlier version would have written.
fn as_format_2(place: &Place) {
    let dir = DataDir::claim(&place.path(), is_of_a_journal).unwrap();
    let store = Store::open(&dir.database(), &options()).unwrap();
    let mut batch = WriteBatch::default();
    let value = store.get(META, CHECKPOINT_KEY).unwrap().unwrap();
    let Ok(MetaRecord::Checkpoint(state)) = meta::decode(CHECKPOINT_KEY, &value) else { panic!("no checkpoint") };
    store.put(&mut batch, META, CHECKPOINT_KEY, &state.encode_for_format_2(), &mut Vec::new());
    let (mut previous, mut blocks) =
        (state.low_previous_checksum, store.iterate(JOURNAL, &block_key(state.low), &[0xff; 8]));
    blocks.seek_to_first();
    let mut end = state.low;
    while let Some((key, value)) = blocks.item() {
        let block = rewrite(&crate::journal::Block::parse(crate::journal::mask::unmask(value)).unwrap(), previous);
        store.put(&mut batch, JOURNAL, key, block.bytes(), &mut Vec::new());
        (previous, end) = (block.checksum(), block.end());
        blocks.next();
    }
    drop(blocks);
    store.write(batch).unwrap();
    dir.write_witness(Witness::Durable { end, changes: store.sequence() }).unwrap();
    drop(store);
    let [marker, name] =
        ["DURAGRAM", "journal-id"].map(|name| written_by_an_earlier_version().remove(Path::new(name)).unwrap());
    fs::write(place.path().join("DURAGRAM"), marker).unwrap();
    fs::write(place.path().join("journal-id"), name).unwrap();
}

#[test]
fn a_directory_of_format_2_with_a_bit_of_everything_is_the_same_after_it() {
    let place = rich_place();
    let good = state(place.crash_copy().open());
    as_format_2(&place);
    assert_eq!(inspect::verify(&place.path()).unwrap().damage, []);
    assert_eq!(state(place.crash_copy().open()), good);
    assert_eq!(state(place.open()), good);
    assert!(marker(&place).starts_with(THIS_FORMAT));
    let (Opened { mut journal, .. }, _) = place.open();
    let end = journal.end();
    commit(&mut journal, one(end.0));
    drop(journal);
    let (opened, _) = place.open();
    assert_eq!((opened.low, opened.end), (good.low, end.plus(1)));
}

/// Makes what is in a directory without sinks what format 3 has in its place: the checkpoint and the marker are all that differs.
fn as_format_3(place: &Place) {
    let dir = DataDir::claim(&place.path(), is_of_a_journal).unwrap();
    let store = Store::open(&dir.database(), &options()).unwrap();
    let mut batch = WriteBatch::default();
    let value = store.get(META, CHECKPOINT_KEY).unwrap().unwrap();
    let Ok(MetaRecord::Checkpoint(state)) = meta::decode(CHECKPOINT_KEY, &value) else { panic!("no checkpoint") };
    store.put(&mut batch, META, CHECKPOINT_KEY, &state.encode_for_format_3(), &mut Vec::new());
    store.write(batch).unwrap();
    drop((store, dir));
    fs::write(place.path().join("DURAGRAM"), "duragram data directory, format 3 crc32 4174904f\n").unwrap();
}

#[test]
fn a_directory_of_format_3_is_taken_over_and_has_sinks_then() {
    let place = rich_place();
    let good = state(place.crash_copy().open());
    as_format_3(&place);
    let before = but_the_lock(&place);
    assert_eq!(inspect::verify(&place.path()).unwrap().damage, []);
    assert!(but_the_lock(&place) == before, "looking changes nothing");
    assert_eq!(state(place.crash_copy().open()), good);
    let (Opened { mut journal, dead, checkpoint_at: at, lanes, .. }, _) = place.open();
    assert!(marker(&place).starts_with(THIS_FORMAT));
    dead.put(&letter_of(7, 5, 0)).unwrap();
    journal.checkpoint(&Checkpoint { at, lanes, sinks: sinks(600), ..Checkpoint::default() }).unwrap();
    drop((journal, dead));
    let after = state(place.open());
    assert_eq!((after.sinks, after.dead.len(), after.low), (sinks(600), good.dead.len() + 1, good.low));
    assert_eq!(inspect::stats(&place.path()).unwrap().sinks, sinks(600));
}

/// In a directory in which nothing asks, only the marker differs from what format 4 has.
fn as_format_4(place: &Place) {
    fs::write(place.path().join("DURAGRAM"), FORMAT_4).unwrap();
}

#[test]
fn a_directory_of_format_4_is_taken_over_and_has_asks_then() {
    let place = rich_place();
    let good = state(place.crash_copy().open());
    as_format_4(&place);
    let before = but_the_lock(&place);
    assert_eq!(inspect::verify(&place.path()).unwrap().damage, []);
    assert!(but_the_lock(&place) == before, "looking changes nothing");
    assert_eq!(state(place.crash_copy().open()), good);
    let (Opened { mut journal, .. }, _) = place.open();
    assert!(marker(&place).starts_with(THIS_FORMAT));
    let records =
        Records { asks: vec![open_ask(1)], answers: Some(answers(0, [answered(2, true, b"")])), ..Records::default() };
    journal.write(&mut BlockBuilder::default(), &records, None).unwrap();
    drop(journal);
    let after = state(place.open()).replayed;
    assert_eq!((after.asks, after.answers), (records.asks, vec![records.answers.unwrap()]));
    assert_eq!(after.numbers, good.replayed.numbers);
}

#[test]
fn a_directory_of_format_4_whose_marker_cannot_be_replaced_stays_as_it_is() {
    let place = rich_place();
    as_format_4(&place);
    let before = but_the_lock(&place);
    fs::create_dir(place.path().join("DURAGRAM.new")).unwrap();
    assert!(place.try_open(&options()).is_err());
    assert!(but_the_lock(&place) == before && marker(&place) == FORMAT_4);
}

#[test]
fn a_directory_of_format_3_whose_marker_cannot_be_replaced_stays_as_it_is() {
    let place = rich_place();
    as_format_3(&place);
    let before = but_the_lock(&place);
    fs::create_dir(place.path().join("DURAGRAM.new")).unwrap();
    assert!(place.try_open(&options()).is_err());
    assert!(but_the_lock(&place) == before && marker(&place).starts_with(FORMAT_3));
}

#[test]
fn damage_in_a_directory_of_format_2_is_refused_and_nothing_changes_the_marker_neither() {
    let place = place_of(&written_by_an_earlier_version());
    let table = place.path().join("rocksdb/000013.sst");
    let mut bytes = fs::read(&table).unwrap();
    bytes[100] ^= 1;
    fs::write(&table, bytes).unwrap();
    let before = but_the_lock(&place);
    assert!(matches!(start(&place), Err(OpenError::Damaged(_))));
    assert!(but_the_lock(&place) == before);
    assert!(marker(&place).starts_with(FORMAT_2));
}
