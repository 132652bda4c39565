use std::fs;
use std::thread;
use std::time::Duration;

use crate::journal::database::Database as _;
use crate::journal::rocksdb::preallocate::logs;
use crate::journal::store::tests::{Place, options};
use crate::journal::testing::shared::push;
use crate::journal::{BlockBuilder, Journal as _, Opened, RocksJournal, RocksOptions};

/// So many bytes are journaled before the quiet.
const BYTES: usize = 25 << 20;

fn write(journal: &mut RocksJournal, number: u64, bytes: usize) {
    let mut builder = BlockBuilder::default();
    push(&mut builder, number, bytes);
    journal.commit(&mut builder, &[]).unwrap();
}

/// Name and length of the log that is written.
fn newest(place: &Place) -> (String, u64) {
    let path = place.path().join("rocksdb");
    let (_, name) = logs(&path).unwrap().pop().unwrap();
    let len = fs::metadata(path.join(&name)).unwrap().len();
    (name, len)
}

#[test]
fn after_a_quiet_while_memtables_are_empty_and_the_next_commits_find_a_log_that_is_laid_out() {
    let place = Place::new();
    let options = RocksOptions { memtable_bytes: 3 * BYTES, preallocate: true, ..options() };
    let (Opened { mut journal, .. }, _) = place.try_open(&options).unwrap();
    let first = newest(&place);
    for number in 1..=200 {
        write(&mut journal, number, BYTES / 200);
    }
    let shared = journal.shared();
    let held = || shared.store.memtables_bytes();
    assert!(newest(&place) == first && held() >= BYTES as u64, "one log holds it all: {}", held());
    while shared.store.rest().unwrap() {
        thread::sleep(Duration::from_millis(100));
    }
    assert!(held() < 1 << 20, "{} bytes are in memtables", held());
    let laid_out = newest(&place);
    assert!(laid_out.0 != first.0 && laid_out.1 >= BYTES as u64, "{laid_out:?}");
    for number in 201..=220 {
        write(&mut journal, number, 10);
    }
    assert_eq!(newest(&place), laid_out, "it does not grow");
    assert!(!shared.store.rest().unwrap());
    assert_eq!(newest(&place), laid_out, "so little may stay in memory");
    drop(shared);
    let copy = place.crash_copy();
    drop(journal);
    for place in [copy, place] {
        assert_eq!(place.open().1.numbers, (1..=220).collect::<Vec<u64>>());
    }
}
