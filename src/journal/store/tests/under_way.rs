//! Commits between their append and their landing.

use std::sync::mpsc::channel;

use super::*;
use crate::journal::Commit;
use crate::journal::database::JOURNAL;
use crate::limits::LAUNCH_BYTES;

/// A commit of one entry.
fn one_of(number: u64, bytes: usize) -> Commit {
    let mut block = BlockBuilder::default();
    push(&mut block, number, bytes);
    Commit { block, ..Commit::default() }
}

#[test]
fn a_large_commit_is_written_by_the_journals_threads_and_a_small_one_by_the_caller_when_it_lands_it() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    let (tell, told) = channel();
    let notify = move || tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
    journal.notify_landings(Box::new(notify)).unwrap();
    journal.append(one_of(0, LAUNCH_BYTES)).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap().as_deref(), Some("sync"));
    assert!(journal.landed());
    let landed = journal.land().unwrap();
    assert_eq!((landed.receipt.end(), landed.block.is_empty()), (Offset(1), true));
    assert_eq!(landed.receipt.block().map(|block| numbers(block)), Some(vec![0]));

    journal.append(one_of(1, 10)).unwrap();
    assert!(journal.landed(), "it is time to land it");
    assert_eq!(journal.end(), Offset(1), "nothing is written before");
    assert_eq!(journal.land().unwrap().receipt.end(), Offset(2));
    assert!(told.try_recv().is_err(), "no other thread had it");
    assert!(!journal.landed(), "nothing is under way");
}

#[test]
fn a_journal_that_is_dropped_waits_for_the_commit_under_way_and_its_last_witness_knows_of_it() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    journal.notify_landings(Box::new(|| {})).unwrap();
    journal.append(one_of(0, LAUNCH_BYTES)).unwrap();
    drop(journal);
    assert!(std::fs::read_to_string(place.path().join("witness")).unwrap().starts_with("end 1 "));
    assert_eq!(place.open().1.numbers, [0]);
}

#[test]
fn more_commits_than_may_be_under_way_are_refused_and_nothing_is_written_after_that() {
    for bytes in [10, LAUNCH_BYTES] {
        let place = Place::new();
        let (Opened { mut journal, .. }, _) = place.open();
        assert_eq!(journal.under_way_max(), 1, "nobody writes beside the caller");
        journal.notify_landings(Box::new(|| {})).unwrap();
        let most = if bytes < LAUNCH_BYTES { 1 } else { journal.under_way_max() as u64 };
        (0..most).for_each(|number| journal.append(one_of(number, bytes)).unwrap());
        let error = journal.append(one_of(most, bytes)).unwrap_err();
        assert!(error.to_string().contains("appending a commit"), "{error}");
        assert_eq!(journal.append(one_of(most, bytes)).unwrap_err(), error);
        (0..most).for_each(|_| drop(journal.land()));
        assert_eq!(journal.append(one_of(most, bytes)).unwrap_err(), error, "a wrong caller is stopped for good");
        drop(journal);
        let found = place.open().1.numbers;
        assert!((0..=most).any(|there| found == (0..there).collect::<Vec<_>>()), "{found:?}");
    }
}

#[test]
fn a_second_commit_has_a_place_beside_a_large_one_if_it_is_large_itself() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    assert!(journal.has_place(1), "nothing is under way");
    journal.notify_landings(Box::new(|| {})).unwrap();
    journal.append(one_of(0, 10)).unwrap();
    assert!(!journal.has_place(LAUNCH_BYTES), "the caller writes the first");
    journal.land().unwrap();
    journal.append(one_of(1, LAUNCH_BYTES)).unwrap();
    assert!(!journal.has_place(LAUNCH_BYTES - 1), "it would wait for two syncs in place of one");
    assert!(journal.has_place(LAUNCH_BYTES));
    journal.append(one_of(2, 10)).unwrap();
    assert!(!journal.has_place(LAUNCH_BYTES), "two are under way");
    let ends: Vec<_> = (0..2).map(|_| journal.land().unwrap().receipt.end()).collect();
    assert_eq!(ends, [Offset(2), Offset(3)], "in the order in which they were appended");
    drop(journal);
    assert_eq!(place.open().1.numbers, [0, 1, 2]);
}

#[test]
fn what_is_written_and_not_synced_is_neither_read_nor_witnessed_nor_trimmed() {
    let place = Place::new();
    let (Opened { journal, reader, .. }, _) = place.open();
    let shared = journal.shared();
    let mut writer = journal.writer.lock().unwrap();
    let landed = |writer: &mut StoredWriter<_>, commit| {
        let before = (shared.end(), shared.witness(), shared.trimmed());
        let written = writer.write_ahead(commit).unwrap();
        assert_eq!((shared.end(), shared.witness(), shared.trimmed()), before);
        shared.land(written, shared.sync().unwrap()).unwrap().receipt.end()
    };
    assert_eq!(landed(&mut writer, one_of(0, 10)), Offset(1));
    assert_eq!(read_all(&*reader, Offset(0)), [0]);
    let checkpoint = Checkpoint { at: Offset(1), trim_below: Offset(1), ..Checkpoint::default() };
    let trims = Commit { checkpoint: Some(checkpoint), ..one_of(1, 10) };
    assert_eq!(landed(&mut writer, trims), Offset(2));
    assert_eq!(shared.trimmed(), Offset(1));
    assert_eq!(read_all(&*reader, Offset(0)), [1]);
}

#[test]
fn table_files_stay_until_the_trim_that_has_emptied_them_is_synced() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    commit(&mut journal, tens(0, 100));
    let shared = journal.shared();
    shared.store.flush().unwrap();
    commit(&mut journal, tens(1000, 100));
    shared.store.flush().unwrap();
    let mut housekeeping = Housekeeping::begin(&shared).unwrap();
    let tables = || shared.store.tables(JOURNAL).len();
    assert_eq!(tables(), 2);
    shared.store.compact();
    let mut writer = journal.writer.lock().unwrap();
    let checkpoint = Checkpoint { at: Offset(2000), trim_below: Offset(2000), ..Checkpoint::default() };
    let written = writer.write_ahead(Commit { checkpoint: Some(checkpoint), ..Commit::default() }).unwrap();
    let before = tables();
    housekeeping.run(&shared);
    assert_eq!(tables(), before, "a power cut may still bring back what is in them");
    shared.land(written, shared.sync().unwrap()).unwrap();
    housekeeping.run(&shared);
    assert!(tables() < before, "{before} tables");
}

#[test]
fn a_sync_that_began_before_a_commit_was_written_lands_it_not() {
    let place = Place::new();
    let (Opened { journal, .. }, _) = place.open();
    let shared = journal.shared();
    let mut writer = journal.writer.lock().unwrap();
    let before = shared.sync().unwrap();
    let written = writer.write_ahead(one_of(0, 10)).unwrap();
    let error = shared.land(written, before).unwrap_err();
    assert!(error.to_string().contains("no sync has covered it"), "{error}");
    assert_eq!((shared.end(), shared.failure()), (Offset(0), Some(error.into())));
}

#[test]
fn no_log_is_begun_while_anything_in_the_one_before_is_not_synced() {
    let place = Place::new();
    let (Opened { journal, dead, .. }, _) = place.try_open(&RocksOptions { preallocate: true, ..options() }).unwrap();
    let shared = journal.shared();
    let mut writer = journal.writer.lock().unwrap();
    let newest = || logs(&place.path().join("rocksdb")).unwrap().last().unwrap().0;
    let (mut log, mut begun, mut entries, mut overtaken) = (newest(), 0, 0, 0);
    for number in 0..400 {
        let before = shared.store.sequence();
        if number % 7 == 6 {
            dead.put(&letter(number, 0)).unwrap();
        } else {
            let sessions = (0..200).map(|client| record(client, number)).collect();
            let records = Records { sessions, ..Records::default() };
            drop(writer.write_ahead(Commit { records, ..one_of(entries, 20_000) }).unwrap());
            entries += 1;
            overtaken += u32::from(shared.log.synced() < before);
        }
        if newest() != log {
            assert!(shared.log.synced() >= before, "log {} is begun, and not all of log {log} is synced", newest());
            (log, begun) = (newest(), begun + 1);
        }
        if number % 50 == 49 {
            shared.sync().unwrap();
        }
    }
    assert!(begun > 5 && overtaken > 20, "{begun} logs, and {overtaken} writes beside others");
}

#[test]
fn in_a_log_that_grows_no_write_overtakes_one_that_is_not_synced() {
    for preallocate in [true, false] {
        let place = Place::new();
        let (Opened { journal, .. }, _) = place.try_open(&RocksOptions { preallocate, ..options() }).unwrap();
        let shared = journal.shared();
        let mut writer = journal.writer.lock().unwrap();
        let mut overtaken = 0;
        for number in 0..10 {
            let before = shared.store.sequence();
            drop(writer.write_ahead(one_of(number, 10_000)).unwrap());
            overtaken += u32::from(shared.log.synced() < before);
        }
        // Of the first two it is not known yet whether they have grown.
        let expected = if preallocate { 7..=9 } else { 0..=0 };
        assert!(expected.contains(&overtaken), "{overtaken} writes of 10, laid out: {preallocate}");
    }
}

/// An operator who hears that a letter is not there must not find it there after a power cut.
#[test]
fn a_letter_that_an_unsynced_commit_has_deleted_is_gone_for_good_once_an_operator_hears_that_it_is() {
    let place = Place::new();
    let (Opened { journal, dead, .. }, _) = place.try_open(&RocksOptions { preallocate: true, ..options() }).unwrap();
    let shared = journal.shared();
    let mut writer = journal.writer.lock().unwrap();
    drop(writer.write(one_of(0, 10)).unwrap());
    dead.put(&letter(0, 0)).unwrap();
    let checkpoint = Checkpoint { retried: vec![letter(0, 0).id], ..Checkpoint::default() };
    drop(writer.write_ahead(Commit { checkpoint: Some(checkpoint), ..Commit::default() }).unwrap());
    let before = shared.store.sequence();
    assert!(shared.log.synced() < before);
    assert_eq!(dead.delete_all(&[letter(0, 0).id]).unwrap(), 0);
    assert!(shared.log.synced() >= before);
}

#[test]
fn a_failure_under_way_is_told_by_the_landing_and_by_every_append_after_it() {
    for bytes in [10, LAUNCH_BYTES] {
        let place = Place::new();
        let (Opened { mut journal, .. }, _) = place.open();
        journal.notify_landings(Box::new(|| {})).unwrap();
        let mut malformed = one_of(0, bytes);
        push_malformed(&mut malformed.block);
        journal.append(malformed).unwrap();
        let error = journal.land().unwrap_err();
        assert_eq!(journal.failure(), Some(error.clone()));
        assert_eq!(journal.append(one_of(0, bytes)).unwrap_err(), error);
        assert_eq!(journal.end(), Offset(0));
    }
}
