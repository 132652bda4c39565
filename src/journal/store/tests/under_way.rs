//! Commits between their append and their landing.

use std::sync::mpsc::channel;

use super::*;
use crate::journal::Commit;
use crate::limits::LAUNCH_BYTES;

/// A commit of one entry.
fn one_of(number: u64, bytes: usize) -> Commit {
    let mut block = BlockBuilder::default();
    push(&mut block, number, bytes);
    Commit { block, ..Commit::default() }
}

#[test]
fn a_large_commit_is_written_by_the_journals_thread_and_a_small_one_by_the_caller_when_it_lands_it() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    let (tell, told) = channel();
    let notify = move || tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
    journal.notify_landings(Box::new(notify)).unwrap();
    journal.append(one_of(0, LAUNCH_BYTES)).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap().as_deref(), Some("write"));
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
        journal.notify_landings(Box::new(|| {})).unwrap();
        assert_eq!(journal.under_way_max(), 1);
        journal.append(one_of(0, bytes)).unwrap();
        let error = journal.append(one_of(1, bytes)).unwrap_err();
        assert!(error.to_string().contains("appending a commit"), "{error}");
        assert_eq!(journal.append(one_of(1, bytes)).unwrap_err(), error);
        drop(journal.land());
        assert_eq!(journal.append(one_of(1, bytes)).unwrap_err(), error, "a wrong caller is stopped for good");
        drop(journal);
        let found = place.open().1.numbers;
        assert!(found.is_empty() || found == [0], "{found:?}");
    }
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
