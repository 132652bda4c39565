use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::WriteBatch;

use super::*;
use crate::journal::database::{DEAD, JOURNAL, META, block_key};
use crate::journal::dead_letter::tests::{letter, letter_of};
use crate::journal::meta::{CHECKPOINT_KEY, CheckpointState, session_key};
use crate::journal::recovery::Witness;
use crate::journal::rocksdb::database::is_of_a_journal;
use crate::journal::rocksdb::preallocate::FILL;
use crate::journal::store::tests::{Place, checkpoint, commit, files, one, options, tens, write_files};
use crate::journal::testing::shared::{Replayed, push, read_all, record, sealed_records, session, sinks};
use crate::journal::{Block, BlockBuilder, Checkpoint, DeadLetter, DeadLetterId, Journal, Records};
use crate::model::{LaneMark, Offset, SinkRecord};

/// Everything that a start gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) replayed: Replayed,
    lanes: Vec<LaneMark>,
    pub(super) sinks: Vec<SinkRecord>,
    checkpoint_at: Offset,
    pub(super) low: Offset,
    end: Offset,
    entries: Vec<u64>,
    pub(super) dead: Vec<DeadLetter>,
}

pub(super) fn state((opened, replayed): (Opened<RocksJournal>, Replayed)) -> State {
    State {
        replayed,
        lanes: opened.lanes,
        sinks: opened.sinks,
        checkpoint_at: opened.checkpoint_at,
        low: opened.low,
        end: opened.end,
        entries: read_all(&*opened.reader, Offset(0)),
        dead: opened.dead.list(DeadLetterId::FIRST, 100).unwrap(),
    }
}

/// The error of a start that must not change anything, but for the empty lock file.
pub(in crate::journal) fn refused(place: &Place) -> OpenError {
    let before = files(&place.path());
    let error = place.try_open(&options()).err().expect("must be refused");
    let mut after = files(&place.path());
    after.retain(|name, _| name != Path::new("lock") || before.contains_key(name));
    assert!(before == after, "nothing may change when a start is refused: {error}");
    error
}

pub(in crate::journal) fn damage(place: &Place) -> String {
    match refused(place) {
        OpenError::Damaged(damage) => damage.to_string(),
        other => panic!("{other}"),
    }
}

/// A journal with a bit of everything, shut down: table files, log, sessions, lanes, dead letters, trimmed blocks.
pub(in crate::journal) fn rich_place() -> Place {
    let place = Place::new();
    let (Opened { mut journal, dead, .. }, _) = place.open();
    commit(&mut journal, tens(0, 30));
    dead.put(&letter(3, 0)).unwrap();
    checkpoint(&mut journal, 300, 55);
    journal.shared().store.flush().unwrap();
    commit(&mut journal, tens(300, 30));
    dead.put(&letter(4, 0)).unwrap();
    checkpoint(&mut journal, 400, 100);
    let mut builder = BlockBuilder::default();
    push(&mut builder, 600, 50_000); // over several pages of the log
    journal.write(&mut builder, &Records { sessions: vec![record(7, 7)], ..sealed_records() }, None).unwrap();
    commit(&mut journal, one(601));
    place
}

/// The same with sinks, some of whose letters are in a table file and some in the log.
pub(in crate::journal) fn place_with_sinks() -> Place {
    let place = rich_place();
    let (Opened { mut journal, dead, lanes, checkpoint_at: at, .. }, _) = place.open();
    dead.put(&letter_of(1, 3, 0)).unwrap();
    journal.shared().store.flush().unwrap();
    dead.put(&letter_of(u128::MAX, 3, 0)).unwrap();
    journal.checkpoint(&Checkpoint { at, lanes, sinks: sinks(600), ..Checkpoint::default() }).unwrap();
    place
}

#[test]
fn damage_anywhere_is_refused_or_does_no_harm_and_never_loses_in_silence() {
    let place = place_with_sinks();
    let good_files = files(&place.path());
    let good = state(place.crash_copy().open());
    assert_eq!((good.low, good.end, good.entries.len(), good.dead.len()), (Offset(100), Offset(602), 502, 4));
    assert_eq!(good.sinks, sinks(600));

    let mut refused_in = BTreeMap::<String, usize>::new();
    let mut check = |name: &PathBuf, bytes: Option<&[u8]>, what: &str| {
        let place = Place::new();
        write_files(&place.path(), &good_files);
        match bytes {
            Some(bytes) => fs::write(place.path().join(name), bytes).unwrap(),
            None => fs::remove_file(place.path().join(name)).unwrap(),
        }
        match place.try_open(&options()) {
            Ok(opened) => assert_eq!(state(opened), good, "{} {what}", name.display()),
            Err(OpenError::Damaged(_)) => {
                let kind = name.extension().unwrap_or(name.file_name().unwrap()).to_string_lossy().into_owned();
                *refused_in.entry(kind.split('-').next().unwrap().into()).or_default() += 1;
                // What was refused must have been left as it was: whoever looks again sees the same.
                assert!(matches!(refused(&place), OpenError::Damaged(_)));
            }
            Err(OpenError::NotOurs { .. } | OpenError::NewerFormat { .. }) if name == Path::new("DURAGRAM") => {}
            Err(other) => panic!("{} {what}: {other}", name.display()),
        }
    };
    for (name, bytes) in &good_files {
        check(name, None, "deleted");
        for cut in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            check(name, Some(&bytes[..cut]), &format!("cut to {cut} bytes"));
        }
        // The text that RocksDB writes for people is long and read by nobody.
        let positions = if name.to_string_lossy().contains("OPTIONS") || name.ends_with("LOG") { 3 } else { 25 };
        for at in (0..bytes.len()).step_by((bytes.len() / positions).max(1)) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            check(name, Some(&bad), &format!("byte {at} changed"));
        }
    }
    for kind in ["log", "sst", "MANIFEST", "CURRENT", "witness"] {
        assert!(refused_in.get(kind).is_some_and(|&n| n > 0), "{kind} must be guarded: {refused_in:?}");
    }
}

/// A journal whose witness is of its start, as when the power fails within the first second.
pub(in crate::journal) fn unwitnessed_place(blocks: u64) -> (Place, PathBuf) {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    commit(&mut journal, tens(0, blocks));
    let copy = place.crash_copy();
    let logs = files(&copy.path())
        .into_iter()
        .filter(|(name, bytes)| name.extension().is_some_and(|ext| ext == "log") && !bytes.is_empty());
    let logs: Vec<_> = logs.map(|(name, _)| copy.path().join(name)).collect();
    assert_eq!(logs.len(), 1);
    (copy, logs[0].clone())
}

#[test]
fn a_change_anywhere_in_the_log_before_the_last_commit_is_found_without_the_witness() {
    let (place, log) = unwitnessed_place(7);
    let good = fs::read(&log).unwrap();
    let good_files = files(&place.path());
    let (mut refusals, mut torn) = (0, 0);
    for at in (0..good.len()).step_by(37) {
        let place = Place::new();
        write_files(&place.path(), &good_files);
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(place.path().join(log.strip_prefix(log.parent().unwrap().parent().unwrap()).unwrap()), bad).unwrap();
        match place.try_open(&options()) {
            // The last commit: no one can tell that from a torn one, which was not acked.
            Ok((opened, replayed)) => {
                assert_eq!((opened.end, replayed.numbers), (Offset(60), (0..60).collect()), "byte {at}");
                torn += 1;
            }
            Err(OpenError::Damaged(_)) => refusals += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refusals > 4 * torn && torn > 0, "{refusals} refused, {torn} taken for torn");
}

#[test]
fn a_torn_last_commit_is_dropped_as_a_whole_and_its_offsets_are_used_again() {
    let (place, log) = unwitnessed_place(3);
    let len = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(len - 1).unwrap();
    let (Opened { mut journal, end, .. }, replayed) = place.open();
    assert_eq!((end, replayed.numbers), (Offset(20), (0..20).collect()));
    commit(&mut journal, tens(20, 2));
    drop(journal);
    assert_eq!(place.open().1.numbers, (0..40).collect::<Vec<_>>());
}

/// What a crash leaves of a preallocated log: records, and filling behind them.
#[test]
fn a_log_that_was_preallocated_ends_where_its_records_end_and_damage_in_it_is_found() {
    let preallocating = RocksOptions { preallocate: true, ..options() };
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.try_open(&preallocating).unwrap();
    let empty = place.crash_copy();
    assert_eq!(empty.try_open(&preallocating).unwrap().0.end, Offset(0), "nothing was written to it");
    commit(&mut journal, tens(0, 3));
    let copy = place.crash_copy();
    let good_files = files(&copy.path());
    let (name, good) = good_files
        .iter()
        .find(|(name, bytes)| name.extension().is_some_and(|extension| extension == "log") && !bytes.is_empty())
        .unwrap();
    let end = good.iter().rposition(|&byte| byte != FILL).unwrap() + 1;
    assert!(end < 20_000 && good.len() > 1 << 20, "{end} of {}", good.len());
    // A crash within the last commit leaves its first bytes, and filling.
    for cut in [end, end - 1, end - 100] {
        let place = Place::new();
        write_files(&place.path(), &good_files);
        let mut torn = good.clone();
        torn[cut..].fill(FILL);
        fs::write(place.path().join(name), torn).unwrap();
        let entries = if cut == end { 30 } else { 20 };
        let (Opened { mut journal, end, .. }, replayed) = place.try_open(&preallocating).unwrap();
        assert_eq!((end, replayed.numbers), (Offset(entries), (0..entries).collect()), "cut at {cut}");
        commit(&mut journal, tens(entries, 1));
        drop(journal);
        assert_eq!(place.try_open(&preallocating).unwrap().0.end, Offset(entries + 10));
    }
    // A write that the disk has lost reads as filling; what came after it proves that it was synced.
    for lost in [0..end / 3, end / 3..2 * end / 3] {
        let place = Place::new();
        write_files(&place.path(), &good_files);
        let mut bad = good.clone();
        bad[lost.clone()].fill(FILL);
        fs::write(place.path().join(name), bad).unwrap();
        assert!(matches!(place.try_open(&preallocating), Err(OpenError::Damaged(_))), "lost {lost:?}");
    }
}

#[test]
fn an_end_below_the_witness_is_refused() {
    let (place, log) = unwitnessed_place(3);
    DataDir::claim(&place.path(), is_of_a_journal)
        .unwrap()
        .write_witness(Witness::Durable { end: Offset(30), changes: 0 })
        .unwrap();
    let len = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(len - 1).unwrap();
    let found = damage(&place);
    assert!(found.contains("entries 20 to 29") && found.contains("witness"), "{found}");
}

/// Changes the database by hand, behind the journal's back.
pub(in crate::journal) fn tamper(place: &Place, change: impl FnOnce(&Store, &mut WriteBatch)) {
    let store = Store::open(&place.path().join("rocksdb"), &options()).unwrap();
    let mut batch = WriteBatch::default();
    change(&store, &mut batch);
    store.write(batch).unwrap();
}

/// Ten blocks of ten entries with a checkpoint in the middle.
pub(in crate::journal) fn plain_place() -> Place {
    let place = Place::new();
    let (Opened { mut journal, dead, .. }, _) = place.open();
    dead.put(&letter(3, 0)).unwrap();
    commit(&mut journal, tens(0, 10));
    checkpoint(&mut journal, 50, 20);
    place
}

pub(in crate::journal) fn delete(store: &Store, batch: &mut WriteBatch, family: &str, key: &[u8]) {
    batch.delete_cf(store.family(family), key);
}

pub(in crate::journal) fn put(store: &Store, batch: &mut WriteBatch, family: &'static str, key: &[u8], value: &[u8]) {
    store.put(batch, family, key, value, &mut Vec::new());
}

pub(in crate::journal) fn block_of(store: &Store, first: u64) -> Vec<u8> {
    store.get(JOURNAL, &block_key(Offset(first))).unwrap().unwrap()
}

#[test]
fn every_kind_of_damage_in_the_database_is_found_and_named() {
    type Change = fn(&Store, &mut WriteBatch);
    let table: [(&str, Change); 15] = [
        ("entries 60 to 69: missing", |store, batch| delete(store, batch, JOURNAL, &block_key(Offset(60)))),
        ("entries 20 to 29: missing", |store, batch| delete(store, batch, JOURNAL, &block_key(Offset(20)))),
        ("entries 90 to 99: missing: the witness", |store, batch| {
            delete(store, batch, JOURNAL, &block_key(Offset(90)));
        }),
        ("entries 30 to 39: the block's checksum", |store, batch| {
            let mut block = block_of(store, 30);
            *block.last_mut().unwrap() ^= 1;
            put(store, batch, JOURNAL, &block_key(Offset(30)), &block);
        }),
        ("entries from 90 on: the block's checksum", |store, batch| {
            let mut block = block_of(store, 90);
            *block.last_mut().unwrap() ^= 1;
            put(store, batch, JOURNAL, &block_key(Offset(90)), &block);
        }),
        ("entries 40 to 49: the block belongs under another key", |store, batch| {
            put(store, batch, JOURNAL, &block_key(Offset(40)), &block_of(store, 50));
        }),
        ("record 0000000000000023 of `journal`: 0 bytes cannot be a block", |store, batch| {
            batch.put_cf(store.family(JOURNAL), block_key(Offset(35)), b"short");
        }),
        ("entries 35 to 40: a block that overlaps", |store, batch| {
            let mut builder = BlockBuilder::default();
            (35..41).for_each(|number| push(&mut builder, number, 1));
            let place = crate::journal::block::Place { first: Offset(35), previous_checksum: 0, committed_unix_us: 0 };
            put(store, batch, JOURNAL, &block_key(Offset(35)), builder.build(place).unwrap().bytes());
        }),
        ("at entry 60: the block here was not written after the one before it", |store, batch| {
            let mut builder = BlockBuilder::default();
            (60..70).for_each(|number| push(&mut builder, number, 1));
            let place = crate::journal::block::Place { first: Offset(60), previous_checksum: 7, committed_unix_us: 0 };
            put(store, batch, JOURNAL, &block_key(Offset(60)), builder.build(place).unwrap().bytes());
        }),
        ("record 63 of `meta`: there is no good checkpoint", |store, batch| delete(store, batch, META, CHECKPOINT_KEY)),
        ("entries 100 to 100: missing: the checkpoint", |store, batch| {
            let state = CheckpointState { at: Offset(101), low: Offset(20), ..CheckpointState::default() };
            let chain = Block::parse(block_of(store, 20)).unwrap().previous_checksum();
            put(
                store,
                batch,
                META,
                CHECKPOINT_KEY,
                &CheckpointState { low_previous_checksum: chain, ..state }.encode(),
            );
        }),
        ("missing: the watermark of lane 1", |store, batch| {
            let ahead = LaneMark { watermark: Offset(107), ..LaneMark::default() };
            let lanes = vec![LaneMark::default(), ahead];
            let chain = Block::parse(block_of(store, 20)).unwrap().previous_checksum();
            let (at, low, former) = (Offset(50), Offset(20), Vec::new());
            let sinks = Vec::new();
            let state = CheckpointState { at, low, low_previous_checksum: chain, lanes, former, sinks };
            put(store, batch, META, CHECKPOINT_KEY, &state.encode());
        }),
        ("of `meta`: its checksum does not match", |store, batch| {
            let (_, value) = record(2, 1).encode();
            put(store, batch, META, &session_key(session(1)), &value);
        }),
        ("record 7a of `meta`: malformed: a key of no known kind", |store, batch| put(store, batch, META, b"z", b"")),
        ("of `dead`: its checksum does not match", |store, batch| {
            put(store, batch, DEAD, &letter(5, 0).id.key(), &letter(3, 0).encode());
        }),
    ];
    for (expected, change) in table {
        let place = plain_place();
        tamper(&place, change);
        let found = damage(&place);
        assert!(found.replace("entry 100", "entries 100 to 100").contains(expected), "{found:?} is not {expected:?}");
    }
}

#[test]
fn damage_names_the_files_that_hold_it() {
    let place = plain_place();
    tamper(&place, |store, batch| {
        let mut block = block_of(store, 30);
        *block.last_mut().unwrap() ^= 1;
        put(store, batch, JOURNAL, &block_key(Offset(30)), &block);
    });
    let found = damage(&place);
    assert!(found.contains("(in rocksdb/") && found.contains(".log"), "{found}");
    tamper(&place, |store, _| store.flush().unwrap());
    let found = damage(&place);
    assert!(found.contains(".sst"), "{found}");
}

#[test]
fn an_interrupted_first_start_leaves_a_directory_that_the_second_takes() {
    // What lies there after each step of a first start, none of it complete.
    let place = Place::new();
    drop(DataDir::claim(&place.path(), is_of_a_journal).unwrap());
    fs::create_dir(place.path().join("rocksdb.new")).unwrap();
    fs::write(place.path().join("rocksdb.new/CURRENT"), "half").unwrap();
    assert_eq!(place.crash_copy().open().0.end, Offset(0));
    DataDir::claim(&place.path(), is_of_a_journal).unwrap().write_witness(Witness::NotInService).unwrap();
    // It must outlive the journal in it.
    let copy = place.crash_copy();
    let (Opened { mut journal, .. }, _) = copy.open();
    commit(&mut journal, tens(0, 1));
}

#[test]
fn a_database_that_is_gone_is_not_taken_for_a_first_start() {
    let place = plain_place();
    fs::remove_dir_all(place.path().join("rocksdb")).unwrap();
    assert!(damage(&place).contains("entries below 100 were durable"));
    let (opened, replayed) = place.try_open(&RocksOptions { accept_loss: true, ..options() }).unwrap();
    assert_eq!((replayed, opened.given_up.len()), (Replayed::default(), 2), "{:?}", opened.given_up);
    assert!(opened.end > Offset(100));
}

#[test]
fn a_payload_cannot_pose_as_a_record_of_the_log() {
    use crate::journal::rocksdb::write_ahead_log::tests::fragment;
    // Records that would delete the checkpoint, of any log number and sequence number that may come: `default` has column
    // family 0, `journal`, `meta` and `dead` follow.
    let forged: Vec<u8> = (1..60)
        .flat_map(|log| {
            let delete = [&(1u64 << 30).to_le_bytes()[..], &1u32.to_le_bytes(), &[4, 2, 1], CHECKPOINT_KEY].concat();
            fragment(5, log, &delete)
        })
        .collect();
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    let mut builder = BlockBuilder::default();
    let meta = crate::model::EntryMeta {
        dialect: crate::model::DialectId::DURAGRAM,
        session: session(1),
        seq: duragram_proto::Seq(1),
        span: 0,
        skip: false,
        batch: false,
        asks: false,
        sealed: false,
        channel: 0,
        received_unix_us: 0,
    };
    // Several logs full, so that what is written now lies over what was sent before; then a crash at every so many bytes.
    for round in 0..120 {
        (0..64).for_each(|_| builder.push(&meta, &forged));
        journal.commit(&mut builder, &[]).unwrap();
        if round > 60 && round % 10 == 0 {
            for _ in 0..6 {
                builder.push(&meta, &forged[..round]);
                journal.commit(&mut builder, &[]).unwrap();
                let copy = place.crash_copy();
                let opened = RocksJournal::open(&copy.path(), &options(), &mut |_| {}).unwrap();
                assert_eq!(opened.end, journal.end());
            }
        }
        let at = journal.end();
        journal.checkpoint(&crate::journal::Checkpoint { at, trim_below: at, ..Default::default() }).unwrap();
    }
    for bytes in files(&place.crash_copy().path()).values() {
        assert!(!bytes.windows(24).any(|window| window == &forged[..24]), "a payload lies on the disk as it was sent");
    }
}

#[test]
fn a_directory_of_format_1_is_opened_and_is_of_this_format_then() {
    let place = rich_place();
    let good = state(place.open());
    let marker = place.path().join("DURAGRAM");
    let marked = fs::read(&marker).unwrap();
    fs::write(&marker, "duragram data directory, format 1\n").unwrap();
    assert_eq!(crate::journal::inspect::verify(&place.path()).unwrap().damage, []);
    assert_eq!(fs::read(&marker).unwrap(), b"duragram data directory, format 1\n", "a look changes nothing");
    assert_eq!(state(place.open()), good);
    assert_eq!(fs::read(&marker).unwrap(), marked);
}

#[test]
fn an_opening_tells_how_far_it_has_come() {
    let place = rich_place();
    let options = options();
    let mut seen = Vec::new();
    let opened = RocksJournal::open(&place.path(), &options, &mut |replay| {
        if let Replay::Block(_) = replay {
            seen.push(options.progress.bytes());
        }
    });
    drop(opened.unwrap());
    assert!(seen.len() > 10 && seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "{seen:?}");
    let (read, total) = options.progress.bytes();
    assert!(read > 50_000 && read <= total, "{read} of {total}");
}
