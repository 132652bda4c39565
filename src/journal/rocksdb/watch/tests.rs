use std::time::{Duration, Instant};

use super::*;
use crate::journal::database::Database as _;
use crate::journal::rocksdb::settings::RocksOptions;
use crate::journal::store::Housekeeping;
use crate::journal::store::tests::{Place, checkpoint, commit, options, tens};
use crate::journal::{Journal, Opened, RocksJournal};

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
    std::thread::sleep(crate::journal::store::LOOK_INTERVAL + Duration::from_millis(400));
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
        let mut block = crate::journal::BlockBuilder::default();
        crate::journal::testing::shared::push(&mut block, 330, 10);
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
        let mut block = crate::journal::BlockBuilder::default();
        crate::journal::testing::shared::push(&mut block, 330, 10);
        assert!(journal.commit(&mut block, &[]).is_err());
        drop(journal);
        assert_eq!(place.path().exists(), replaced);
        if replaced {
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "the witness neither");
        }
    }
}

#[test]
fn what_is_gone_for_a_moment_only_is_no_loss() {
    let place = Place::new();
    let journal = serving(&place);
    seen(&journal);
    let shared = journal.shared();
    let mut housekeeping = Housekeeping::begin(&shared).unwrap();
    assert!(housekeeping.is_all_there(&shared, true));
    for (begin, end) in [("", ".sst"), ("", ".log"), ("MANIFEST", ""), ("CURRENT", ""), ("LOCK", "")] {
        let path = file(&place, begin, end);
        let away = path.with_file_name("away");
        fs::rename(&path, &away).unwrap();
        let there = housekeeping.is_all_there(&shared, true);
        fs::rename(&away, &path).unwrap();
        assert!(!there, "nothing is written meanwhile");
        assert!(housekeeping.is_all_there(&shared, true), "{}", path.display());
        assert_eq!(journal.failure(), None);
    }
    fs::rename(file(&place, "CURRENT", ""), place.path().join("away")).unwrap();
    assert!(!housekeeping.is_all_there(&shared, true) && !housekeeping.is_all_there(&shared, true));
    assert!(journal.failure().is_some());
}

/// What RocksDB says that it needs, by hand.
struct Needed(std::cell::RefCell<Vec<u64>>, Vec<(String, u64)>);

impl Needs for Needed {
    fn first_log(&self) -> Option<u64> {
        let mut answers = self.0.borrow_mut();
        if answers.len() > 1 { Some(answers.remove(0)) } else { answers.first().copied() }
    }

    fn tables(&self) -> Option<Vec<(String, u64)>> {
        Some(self.1.clone())
    }
}

/// A directory that looks like a database, with these logs.
fn looks_like_a_database(logs: &[u64]) -> (tempfile::TempDir, DatabaseWatch) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("LOCK", ""), ("CURRENT", "MANIFEST-000004\n"), ("MANIFEST-000004", "it")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    for &number in logs {
        fs::write(dir.path().join(log_name(number)), format!("log {number}")).unwrap();
    }
    let watch = DatabaseWatch::start(dir.path()).unwrap();
    (dir, watch)
}

#[test]
fn a_log_that_is_lost_while_another_is_let_go_of_is_missed() {
    let (dir, mut watch) = looks_like_a_database(&[5, 6, 7]);
    let needs = |first: &[u64]| Needed(std::cell::RefCell::new(first.to_vec()), Vec::new());
    assert_eq!(watch.lost(&needs(&[5]), true), None);
    fs::remove_file(dir.path().join(log_name(5))).unwrap();
    fs::remove_file(dir.path().join(log_name(7))).unwrap();
    // Whether RocksDB lets go of the first before the look or in the middle of it.
    for first in [&[6][..], &[5, 6]] {
        let lost = watch.lost(&needs(first), true);
        assert!(lost.as_ref().is_some_and(|lost| lost.contains("000007.log")), "{lost:?}");
    }
    fs::write(dir.path().join(log_name(7)), "log 7 again").unwrap();
    assert!(watch.lost(&needs(&[6]), true).is_some(), "it is another one");
    assert_eq!(watch.lost(&needs(&[8]), true), None, "nobody needs it any more");
}

#[test]
fn a_log_that_is_closed_may_get_another_inode_number_and_the_one_that_is_written_may_not() {
    let (dir, mut watch) = looks_like_a_database(&[5, 6]);
    let needs = Needed(std::cell::RefCell::new(vec![5]), Vec::new());
    assert_eq!(watch.lost(&needs, true), None);
    // What a file system does that makes numbers up as it goes: the very file under another number.
    let renumber = |number: u64| {
        let path = dir.path().join(log_name(number));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::copy(&path, path.with_extension("copy")).unwrap();
        File::options().write(true).open(path.with_extension("copy")).unwrap().set_modified(modified).unwrap();
        fs::rename(path.with_extension("copy"), path).unwrap();
    };
    renumber(5);
    assert_eq!(watch.lost(&needs, true), None);
    renumber(6);
    assert!(watch.lost(&needs, true).is_some_and(|lost| lost.contains("000006.log")));
}

/// `DURAGRAM_WATCH_STRESS_S` makes it longer than a few seconds.
#[test]
fn work_at_full_speed_is_no_loss_to_a_watch_that_looks_all_the_time() {
    let place = Place::new();
    let options = RocksOptions { memtable_bytes: 64 << 10, witness_interval: Duration::from_millis(2), ..options() };
    let Opened { mut journal, .. } = place.try_open(&options).unwrap().0;
    let seconds = std::env::var("DURAGRAM_WATCH_STRESS_S").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let done = std::sync::atomic::AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let shared = journal.shared();
        // Without the second look that forgives one alarm.
        let looking = scope.spawn(|| {
            let shared = shared;
            let mut looks = 0_u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(shared.store.lost(true), None, "after {looks} looks");
                looks += 1;
            }
            looks
        });
        let mut number = 0;
        while Instant::now() < deadline && !looking.is_finished() {
            commit(&mut journal, tens(number, 30));
            number += 300;
            checkpoint(&mut journal, number, number.saturating_sub(2000));
            if number % 900 == 0 {
                journal.shared().store.flush().unwrap();
            }
            if number % 3000 == 0 {
                journal.shared().store.compact();
            }
            assert_eq!(journal.failure(), None, "after {number}");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(number > 3000, "{number}");
        looking.join().unwrap()
    });
    assert!(looks > 100, "{looks}");
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
