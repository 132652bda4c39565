use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::journal::RocksJournal;
use crate::journal::dead_letter::tests::letter;
use crate::journal::rocksdb::preallocate::logs;
use crate::journal::testing::shared::{
    Replayed, failed, numbers, push, push_malformed, read_all, record, sealed_records, session,
};
use crate::journal::{BlockBuilder, Checkpoint, DeadLetterRoom, NoRoom, Records, RocksOptions};
use crate::journal::{Extent, OpenError, Opened};
use crate::model::{ClientRecord, FormerLanes, LaneMark};

/// A data directory of a test.
pub(in crate::journal) struct Place {
    dir: TempDir,
}

/// Small memtables, so that little data makes table files; no witness but at the start and at the end; logs that end
/// where their records do.
pub(in crate::journal) fn options() -> RocksOptions {
    let witness_interval = Duration::from_secs(3600);
    RocksOptions { memtable_bytes: 1 << 20, witness_interval, preallocate: false, ..RocksOptions::default() }
}

impl Place {
    pub(in crate::journal) fn new() -> Self {
        // In memory where there is such a file system: these tests are about bytes, and sync thousands of times.
        let memory = Path::new("/dev/shm");
        Self { dir: tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap() }
    }

    pub(in crate::journal) fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(in crate::journal) fn open(&self) -> (Opened<RocksJournal>, Replayed) {
        self.try_open(&options()).unwrap()
    }

    pub(in crate::journal) fn try_open(
        &self,
        options: &RocksOptions,
    ) -> Result<(Opened<RocksJournal>, Replayed), OpenError> {
        let mut replayed = Replayed::default();
        let opened = RocksJournal::open(&self.path(), options, &mut |replay| replayed.take(replay))?;
        Ok((opened, replayed))
    }

    /// What a power cut at this moment would leave: every write so far was synced.
    pub(in crate::journal) fn crash_copy(&self) -> Self {
        // RocksDB may be flushing: a copy counts only when nothing moved under it.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let copy = Self::new();
            let before = listing(&self.path());
            if copy_dir(&self.path(), &copy.path()).is_ok()
                && before.ok().is_some_and(|before| listing(&self.path()).is_ok_and(|after| before == after))
            {
                return copy;
            }
            assert!(Instant::now() < deadline, "the directory does not come to rest");
        }
    }
}

/// Names, sizes and times of all files.
fn listing(path: &Path) -> std::io::Result<Vec<(PathBuf, u64, std::time::SystemTime)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        if metadata.is_dir() {
            files.extend(listing(&path)?);
        } else {
            files.push((path, metadata.len(), metadata.modified()?));
        }
    }
    files.sort();
    Ok(files)
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if path.is_dir() {
            copy_dir(&path, &target)?;
        } else {
            std::fs::copy(path, target)?;
        }
    }
    Ok(())
}

/// The files of a directory, by their paths in it.
pub(in crate::journal) fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, at: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(root, &path, files),
                false => drop(files.insert(path.strip_prefix(root).unwrap().into(), std::fs::read(&path).unwrap())),
            }
        }
    }
    let mut files_found = BTreeMap::new();
    walk(path, path, &mut files_found);
    files_found
}

pub(in crate::journal) fn write_files(path: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (name, bytes) in files {
        let path = path.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Commits one block for each range of numbers.
pub(in crate::journal) fn commit(journal: &mut RocksJournal, blocks: impl IntoIterator<Item = std::ops::Range<u64>>) {
    let mut builder = BlockBuilder::default();
    for numbers in blocks {
        numbers.for_each(|seq| push(&mut builder, seq, 100));
        journal.commit(&mut builder, &[]).unwrap();
    }
}

/// A block of one entry.
pub(in crate::journal) fn one(number: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    std::iter::once(number..number + 1)
}

/// `n` blocks of ten entries, from seq `from` on.
pub(in crate::journal) fn tens(from: u64, n: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..n).map(move |i| from + 10 * i..from + 10 * i + 10)
}

pub(in crate::journal) fn checkpoint(journal: &mut RocksJournal, at: u64, trim_below: u64) {
    let lanes = vec![LaneMark { watermark: Offset(trim_below), sink_state: vec![7] }];
    let (at, trim_below) = (Offset(at), Offset(trim_below));
    let sessions = vec![record(1, at.0)];
    journal.checkpoint(&Checkpoint { at, sessions, lanes, trim_below, ..Checkpoint::default() }).unwrap();
}

#[test]
fn a_new_journal_is_empty_and_opens_again() {
    let place = Place::new();
    for _ in 0..2 {
        let (opened, replayed) = place.open();
        assert_eq!(replayed, Replayed::default());
        assert_eq!((opened.low, opened.checkpoint_at, opened.end), (Offset(0), Offset(0), Offset(0)));
        assert!(opened.lanes.is_empty() && opened.extents.is_empty() && opened.given_up.is_empty());
        assert_eq!(read_all(&*opened.reader, Offset(0)), [0; 0]);
    }
}

#[test]
fn where_little_is_sent_a_new_log_is_left_for_one_that_was_filled() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.try_open(&RocksOptions { preallocate: true, ..options() }).unwrap();
    let newest = || {
        let (_, name) = logs(&place.path().join("rocksdb")).unwrap().pop().unwrap();
        let len = std::fs::metadata(place.path().join("rocksdb").join(&name)).unwrap().len();
        (name, len)
    };
    let first = newest().0;
    let mut written = 0;
    let mut write = |journal: &mut RocksJournal, bytes: usize| {
        written += 1;
        let mut builder = BlockBuilder::default();
        push(&mut builder, written, bytes);
        journal.commit(&mut builder, &[]).unwrap();
    };
    while newest().0 == first {
        write(&mut journal, 50_000);
    }
    let (second, len) = newest();
    write(&mut journal, 10);
    assert!(newest().1 > len, "the second is new");
    let deadline = Instant::now() + Duration::from_secs(20);
    while newest().0 == second {
        assert!(Instant::now() < deadline, "and stays in use");
        journal.shared.tend_log().unwrap();
        write(&mut journal, 10);
    }
    let third = newest();
    for _ in 0..20 {
        write(&mut journal, 10);
        journal.shared.tend_log().unwrap();
    }
    assert_eq!(newest(), third, "this one does not grow");
    let everything: Vec<u64> = (1..=written).collect();
    let copy = place.crash_copy();
    drop(journal);
    for place in [copy, place] {
        assert_eq!(place.open().1.numbers, everything);
    }
}

#[test]
fn what_was_committed_survives_a_power_cut_and_a_shutdown() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    let mut builder = BlockBuilder::default();
    push(&mut builder, 1, 100);
    push(&mut builder, 2, 0);
    let receipt = journal.commit(&mut builder, &[record(5, 1)]).unwrap();
    assert!(builder.is_empty());
    assert_eq!((receipt.end(), receipt.block().map(|block| numbers(block))), (Offset(2), Some(vec![1, 2])));
    commit(&mut journal, one(3));
    let receipt = journal.commit(&mut builder, &[record(6, 1)]).unwrap();
    assert_eq!((receipt.end(), receipt.block().is_none()), (Offset(3), true));
    assert_eq!((journal.end(), journal.durable().end()), (Offset(3), Offset(3)));

    let copy = place.crash_copy();
    drop(journal);
    for place in [copy, place] {
        let (opened, replayed) = place.open();
        assert_eq!(
            replayed,
            Replayed { sessions: vec![record(5, 1), record(6, 1)], numbers: vec![1, 2, 3], ..Replayed::default() }
        );
        assert_eq!(opened.end, Offset(3));
    }
}

#[test]
fn epochs_and_the_counters_limit_are_kept_and_the_last_ones_count() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    let mut builder = BlockBuilder::default();
    let records = sealed_records();
    journal.write(&mut builder, &records, None).unwrap();
    commit(&mut journal, one(0));
    let later = ClientRecord { opened: 9, ..records.clients[0] };
    let limit = Records { counter_limit: Some(1 << 61), ..Records::default() };
    journal.write(&mut builder, &Records { clients: vec![later], ..Records::default() }, None).unwrap();
    journal.write(&mut builder, &limit, None).unwrap();
    // Nothing that a checkpoint trims takes them along.
    journal.checkpoint(&Checkpoint { at: Offset(1), trim_below: Offset(1), ..Checkpoint::default() }).unwrap();
    let copy = place.crash_copy();
    drop(journal);
    for place in [copy, place] {
        let (_, replayed) = place.open();
        assert_eq!((replayed.clients, replayed.counter_limit), (vec![later, records.clients[1]], Some(1 << 61)));
    }
}

#[test]
fn a_start_replays_from_the_block_of_the_checkpoint_and_keeps_lanes_and_sessions() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    commit(&mut journal, tens(1, 4));
    let lanes = vec![LaneMark { watermark: Offset(12), sink_state: vec![1, 2] }, LaneMark::default()];
    let sessions = vec![record(1, 10), record(2, 10)];
    let at = Offset(25);
    journal.checkpoint(&Checkpoint { at, sessions, lanes: lanes.clone(), ..Checkpoint::default() }).unwrap();
    let expired = vec![session(1)];
    journal.checkpoint(&Checkpoint { at, expired, lanes: lanes.clone(), ..Checkpoint::default() }).unwrap();
    drop(journal);

    let (opened, replayed) = place.open();
    assert_eq!(
        replayed,
        Replayed { sessions: vec![record(2, 10)], numbers: (21..41).collect(), ..Replayed::default() }
    );
    assert_eq!((opened.checkpoint_at, opened.lanes, opened.low), (at, lanes, Offset(0)));
    let bytes: u64 = opened.reader.read(Offset(0), 1 << 20).unwrap().iter().map(|block| block.size() as u64).sum();
    assert_eq!(opened.extents, [Extent { first: Offset(0), bytes }]);
}

#[test]
fn trimming_keeps_every_block_that_holds_an_entry_at_or_above_the_mark() {
    let place = Place::new();
    let (Opened { mut journal, reader, .. }, _) = place.open();
    commit(&mut journal, tens(0, 10));
    for (trim_below, low) in [(0, 0), (9, 0), (10, 10), (10, 10), (35, 30), (39, 30), (40, 40)] {
        checkpoint(&mut journal, 100, trim_below);
        assert_eq!(reader.read(Offset(0), 1).unwrap()[0].first(), Offset(low), "trimmed below {trim_below}");
        let copy = place.crash_copy();
        let (opened, _) = copy.open();
        assert_eq!((opened.low, opened.end), (Offset(low), Offset(100)));
        assert_eq!(read_all(&*opened.reader, Offset(0)), (low..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_journal_that_was_trimmed_to_nothing_goes_on_at_its_offset() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    commit(&mut journal, tens(0, 3));
    checkpoint(&mut journal, 30, 30);
    let copy = place.crash_copy();
    let (opened, _) = copy.open();
    assert_eq!((opened.low, opened.end), (Offset(30), Offset(30)));
    commit(&mut journal, tens(30, 1));
    drop((journal, opened));
    for _ in 0..2 {
        let (Opened { mut journal, low, end, .. }, replayed) = place.open();
        assert_eq!((low, replayed.numbers.first()), (Offset(30), Some(&30)));
        commit(&mut journal, one(end.0));
    }
    assert_eq!(place.open().1.numbers, (30..42).collect::<Vec<_>>());
}

#[test]
fn trimmed_blocks_stay_gone_through_flushes_and_compactions() {
    let place = Place::new();
    let (Opened { mut journal, reader, .. }, _) = place.open();
    // Half of it is trimmed before it reaches a table file, half after; enough for several files.
    for round in 0..40 {
        commit(&mut journal, tens(round * 1000, 100));
        let at = (round + 1) * 1000;
        checkpoint(&mut journal, at, at.saturating_sub(1500));
        if round % 3 == 0 {
            journal.shared.store.flush().unwrap();
        }
    }
    journal.shared.store.delete_files_below(Offset(38_500)).unwrap();
    assert_eq!(read_all(&*reader, Offset(0)), (38_500..40_000).collect::<Vec<_>>());
    let copy = place.crash_copy();
    let (opened, _) = copy.open();
    assert_eq!((opened.low, opened.end), (Offset(38_500), Offset(40_000)));
}

#[test]
fn a_reader_starts_in_the_block_that_holds_its_offset_and_stops_at_its_bytes() {
    let place = Place::new();
    let (Opened { mut journal, reader, .. }, _) = place.open();
    assert!(reader.read(Offset(0), 1 << 20).unwrap().is_empty());
    commit(&mut journal, tens(0, 5));
    let firsts = |from, bytes| -> Vec<u64> {
        reader.read(Offset(from), bytes).unwrap().iter().map(|block| block.first().0).collect()
    };
    assert_eq!(firsts(0, 1 << 20), [0, 10, 20, 30, 40]);
    assert_eq!(firsts(25, 1 << 20), [20, 30, 40]);
    assert_eq!(firsts(49, 0), [40], "at least one");
    assert_eq!(firsts(50, 1 << 20), [0; 0]);
    assert_eq!(firsts(u64::MAX, 1 << 20), [0; 0]);
    let size = reader.read(Offset(0), 1).unwrap()[0].size();
    assert_eq!(firsts(0, size), [0]);
    assert_eq!(firsts(0, size + 1), [0, 10]);
}

#[test]
fn readers_see_blocks_only_when_they_are_synced_and_whole_batches_of_them() {
    let place = Place::new();
    let (Opened { mut journal, reader, .. }, _) = place.open();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (reader, stop) = (reader.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut at = Offset(0);
                while !stop.load(Ordering::Relaxed) {
                    for block in reader.read(at, 4096).unwrap() {
                        // Trimming may overtake a reader; then it goes on at the lowest block kept.
                        assert!(block.first() >= at);
                        assert_eq!(numbers(&block), (block.first().0..block.end().0).collect::<Vec<_>>());
                        at = block.end();
                    }
                }
                at
            })
        })
        .collect();
    for round in 0..30 {
        commit(&mut journal, tens(round * 100, 10));
        checkpoint(&mut journal, (round + 1) * 100, (round * 100).saturating_sub(200));
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() <= Offset(3000));
    }
}

#[test]
fn dead_letters_are_kept_in_order_and_survive() {
    let place = Place::new();
    let (Opened { dead, .. }, _) = place.open();
    for (offset, index) in [(700, 1), (3, 0), (700, 0), (700, 1)] {
        dead.put(&letter(offset, index)).unwrap();
    }
    assert_eq!(dead.count(), 3);
    drop(dead);
    let (Opened { dead, journal, .. }, _) = place.open();
    drop(journal);
    assert_eq!(dead.count(), 3);
    assert_eq!(dead.list(DeadLetterId::FIRST, 2).unwrap(), [letter(3, 0), letter(700, 0)]);
    assert_eq!(dead.list(letter(700, 1).id, 9).unwrap(), [letter(700, 1)]);
    assert!(dead.delete(letter(700, 0).id).unwrap());
    assert!(!dead.delete(letter(700, 0).id).unwrap());
    assert_eq!((dead.get(letter(700, 0).id).unwrap(), dead.get(letter(3, 0).id).unwrap()), (None, Some(letter(3, 0))));
    assert_eq!(dead.count(), 2);
}

#[test]
fn dead_letters_are_put_together_or_not_at_all_and_a_checkpoint_deletes_those_that_were_retried() {
    let place = Place::new();
    let (Opened { mut journal, dead, .. }, _) = place.open();
    let letters: Vec<_> = (0..5).map(|offset| letter(offset, 0)).collect();
    let room = |letters_max| DeadLetterRoom { letters_max, ..DeadLetterRoom::ANY };
    let none = Err(NoRoom::Letters { kept: 0, letters_max: 4 });
    assert_eq!((dead.put_all(&letters, room(4)).unwrap(), dead.count()), (none, 0));
    assert_eq!((dead.put_all(&letters, room(5)).unwrap(), dead.count()), (Ok(()), 5));
    assert_eq!(dead.put_all(&letters[1..], room(5)).unwrap(), Ok(()), "those that are there take no more room");
    let no_space = DeadLetterRoom { reserve_bytes: u64::MAX, ..DeadLetterRoom::ANY };
    let refused = dead.put_all(&[letter(9, 9)], no_space).unwrap().unwrap_err();
    assert!(matches!(refused, NoRoom::Space { .. }) && dead.get(letter(9, 9).id).unwrap().is_none(), "{refused}");

    // One of them was discarded meanwhile.
    let retried = vec![letters[1].id, letters[2].id, letters[3].id];
    dead.delete(letters[2].id).unwrap();
    let former = vec![FormerLanes(vec![Offset(0), Offset(0)])];
    let checkpoint = Checkpoint { retried, former: former.clone(), ..Checkpoint::default() };
    journal.checkpoint(&checkpoint).unwrap();
    assert_eq!(dead.count(), 2);
    drop((journal, dead));
    let (opened, _) = place.open();
    assert_eq!((opened.dead.count(), opened.former), (2, former));
    assert_eq!(opened.dead.list(DeadLetterId::FIRST, 9).unwrap(), [letters[0].clone(), letters[4].clone()]);
}

#[test]
fn a_directory_is_free_when_its_last_user_is_gone() {
    let place = Place::new();
    let (Opened { journal, reader, dead, .. }, _) = place.open();
    let locked = OpenError::Locked { path: place.path() };
    assert_eq!(place.try_open(&options()).err(), Some(locked.clone()));
    drop(journal);
    assert_eq!(place.try_open(&options()).err(), Some(locked.clone()));
    drop(reader);
    assert_eq!(place.try_open(&options()).err(), Some(locked));
    drop(dead);
    place.open();
}

#[test]
fn free_space_is_that_of_the_file_system() {
    let place = Place::new();
    let (Opened { journal, .. }, _) = place.open();
    let free = journal.room(0).unwrap().free_bytes().unwrap();
    assert!(free > 1 << 20 && free < 1 << 60, "{free}");
    assert!(!journal.room(1 << 20).unwrap().is_full());
    assert!(journal.room(1 << 60).unwrap().is_full());
}

#[test]
fn the_witness_follows_the_journal_and_is_exact_after_a_shutdown() {
    let place = Place::new();
    let quick = RocksOptions { witness_interval: Duration::from_millis(1), ..options() };
    let (Opened { mut journal, .. }, _) = place.try_open(&quick).unwrap();
    let witness = || std::fs::read_to_string(place.path().join("witness")).unwrap();
    assert!(witness().starts_with("end 0 "));
    commit(&mut journal, tens(0, 2));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !witness().starts_with("end 20 ") {
        assert!(Instant::now() < deadline, "{}", witness());
        std::thread::yield_now();
    }
    drop(journal);
    let (Opened { mut journal, .. }, _) = place.open();
    commit(&mut journal, tens(20, 1));
    assert!(witness().starts_with("end 20 "));
    drop(journal);
    assert!(witness().starts_with("end 30 "));
}

mod answers;
mod failures;
mod sinks;
mod under_way;
