use std::time::{Duration, Instant};

use super::super::rocks::tests::{Place, checkpoint, commit, options, tens};
use super::super::rocks_db::RocksOptions;
use super::super::{Journal, Opened, RocksJournal};
use super::*;

/// A server's journal with table files, logs and all.
fn serving(place: &Place) -> RocksJournal {
    let Opened { mut journal, .. } = place.try_open(&watching()).unwrap().0;
    commit(&mut journal, tens(0, 30));
    checkpoint(&mut journal, 300, 0);
    journal.shared().store.flush().unwrap();
    commit(&mut journal, tens(300, 3));
    journal
}

fn watching() -> RocksOptions {
    RocksOptions { witness_interval: Duration::from_millis(100), ..options() }
}

fn wait_for_failure(journal: &RocksJournal) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(failure) = journal.failure() {
            return failure.to_string();
        }
        assert!(Instant::now() < deadline, "nothing is noticed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The highest of the database's files whose names begin and end so.
fn file(place: &Place, begin: &str, end: &str) -> PathBuf {
    let names = fs::read_dir(place.path().join("rocksdb")).unwrap().map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(begin) && name.ends_with(end)
    };
    names.filter(fits).max().unwrap()
}

/// Waits until every file was seen once.
fn seen(journal: &RocksJournal) {
    std::thread::sleep(super::super::rocks::LOOK_INTERVAL + Duration::from_millis(400));
    assert_eq!(journal.failure(), None);
}

#[test]
fn every_file_that_the_next_start_needs_is_missed_when_it_is_deleted() {
    for (begin, end) in [("", ".sst"), ("", ".log"), ("MANIFEST", ""), ("CURRENT", ""), ("LOCK", "")] {
        let place = Place::new();
        let mut journal = serving(&place);
        seen(&journal);
        let path = file(&place, begin, end);
        fs::remove_file(&path).unwrap();
        let told = wait_for_failure(&journal);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(told.contains(&name) && told.contains("was deleted") && told.contains("must be left alone"), "{told}");
        let mut block = super::super::BlockBuilder::default();
        super::super::testing::push(&mut block, 330, 10);
        assert!(journal.commit(&mut block, &[]).is_err(), "nothing is committed any more");
    }
}

#[test]
fn every_such_file_is_missed_when_it_is_replaced_or_cut() {
    let replace = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path.with_extension("other"), bytes).unwrap();
        fs::rename(path.with_extension("other"), path).unwrap();
    };
    let cut = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(1).unwrap();
    let change = |path: &Path| fs::write(path, "MANIFEST-999999\n").unwrap();
    type Change<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, &str, Change<'_>); 8] = [
        ("", ".sst", &replace),
        ("", ".sst", &cut),
        ("", ".log", &replace),
        ("", ".log", &cut),
        ("MANIFEST", "", &replace),
        ("MANIFEST", "", &cut),
        ("LOCK", "", &replace),
        ("CURRENT", "", &change),
    ];
    for (at, (begin, end, change)) in cases.into_iter().enumerate() {
        let place = Place::new();
        let journal = serving(&place);
        seen(&journal);
        let path = file(&place, begin, end);
        change(&path);
        let told = wait_for_failure(&journal);
        assert!(told.contains("rocksdb"), "{at}: {told}");
    }
}

#[test]
fn the_whole_directory_is_missed_and_nothing_is_written_to_one_that_takes_its_place() {
    for replaced in [false, true] {
        let place = Place::new();
        let mut journal = serving(&place);
        fs::rename(place.path(), place.path().with_extension("away")).unwrap();
        if replaced {
            fs::create_dir(place.path()).unwrap();
        }
        let told = wait_for_failure(&journal);
        assert!(told.contains("the data directory") && told.contains("Nothing more is acked"), "{told}");
        let mut block = super::super::BlockBuilder::default();
        super::super::testing::push(&mut block, 330, 10);
        assert!(journal.commit(&mut block, &[]).is_err());
        drop(journal);
        assert_eq!(place.path().exists(), replaced);
        if replaced {
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "the witness neither");
        }
    }
}

#[test]
fn work_that_makes_and_removes_files_all_the_time_is_no_loss() {
    let place = Place::new();
    let Opened { mut journal, .. } = place.try_open(&watching()).unwrap().0;
    let deadline = Instant::now() + Duration::from_secs(4);
    let mut number = 0;
    // Memtables of a mebibyte: logs and tables come and go, tables are merged, and trimming removes them.
    while Instant::now() < deadline {
        commit(&mut journal, tens(number, 60));
        number += 600;
        checkpoint(&mut journal, number, number.saturating_sub(3000));
        if number % 6000 == 0 {
            journal.shared().store.flush().unwrap();
        }
        assert_eq!(journal.failure(), None, "after {number}");
    }
    assert!(number > 12_000, "{number}");
}
