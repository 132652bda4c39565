use std::fs;

use super::*;
use crate::journal::database::{JOURNAL, META, block_key};
use crate::journal::dead_letter::tests::letter;
use crate::journal::meta::CHECKPOINT_KEY;
use crate::journal::rocksdb::open::tests::{
    block_of, damage, delete, plain_place, put, rich_place, tamper, unwitnessed_place,
};
use crate::journal::store::tests::{Place, commit, files, one, options, write_files};
use crate::journal::testing::shared::{read_all, record, sealed_records};
use crate::journal::{DeadLetterId, Opened, inspect};
use crate::model::LaneMark;

fn accepting() -> RocksOptions {
    RocksOptions { accept_loss: true, ..options() }
}

#[test]
fn with_accept_loss_all_that_is_good_is_kept_and_no_offset_is_used_twice() {
    let place = plain_place();
    tamper(&place, |store, batch| {
        delete(store, batch, JOURNAL, &block_key(Offset(60)));
        let mut block = block_of(store, 90);
        *block.last_mut().unwrap() ^= 1;
        put(store, batch, JOURNAL, &block_key(Offset(90)), &block);
    });
    let evidence = files(&place.path().join("rocksdb"));
    damage(&place);
    let (opened, replayed) = place.try_open(&accepting()).unwrap();
    let given_up: Vec<_> = opened.given_up.iter().map(ToString::to_string).collect();
    assert_eq!(given_up.len(), 3, "{given_up:#?}");
    assert!(given_up[0].starts_with("entries 60 to 69"), "{given_up:#?}");

    let kept: Vec<u64> = (20..60).chain(70..90).collect();
    assert_eq!(replayed.numbers, (50..60).chain(70..90).collect::<Vec<_>>());
    assert_eq!(replayed.sessions, [record(1, 50)]);
    assert_eq!((opened.low, opened.checkpoint_at), (Offset(20), Offset(50)));
    assert!(opened.end > Offset(100), "offset 90 to 99 were in use");
    assert_eq!(opened.lanes, [LaneMark { watermark: Offset(20), sink_state: vec![7] }]);
    assert_eq!(opened.dead.list(DeadLetterId::FIRST, 9).unwrap(), [letter(3, 0)]);
    assert_eq!(read_all(&*opened.reader, Offset(0)), kept);
    assert_eq!(read_all(&*opened.reader, Offset(65)), (70..90).collect::<Vec<_>>(), "an offset that was given up");

    let Opened { mut journal, end, .. } = opened;
    commit(&mut journal, one(end.0));
    drop((journal, opened.reader, opened.dead));
    // The evidence is where it was, under another name; the next start needs no flag, and with it nothing happens again.
    let aside = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains("rocksdb.damaged-")).collect();
    assert!(files(&aside[0]) == evidence);
    for options in [options(), accepting()] {
        let (opened, replayed) = place.try_open(&options).unwrap();
        assert_eq!(replayed.numbers, (50..60).chain(70..90).chain([end.0]).collect::<Vec<_>>());
        assert!(opened.given_up.is_empty());
    }
}

#[test]
fn losses_that_border_on_each_other_are_one_and_can_be_accepted_again_and_again() {
    let place = plain_place();
    let mut ends = Vec::new();
    for _ in 0..3 {
        // The last block of all: entries from the end of the block before it on are given up, up to where the last loss ended.
        let last = inspect::stats(&place.path()).unwrap();
        let lost = ends.last().copied().unwrap_or(Offset(90));
        tamper(&place, |store, batch| delete(store, batch, JOURNAL, &block_key(lost)));
        damage(&place);
        let (opened, _) = place.try_open(&accepting()).unwrap();
        assert!(opened.end > last.end);
        assert_eq!(read_all(&*opened.reader, Offset(0)), (20..90).collect::<Vec<_>>());
        assert_eq!(opened.reader.resume(Offset(95)), opened.end, "a reader goes on behind all that was given up");
        let Opened { mut journal, end, .. } = opened;
        commit(&mut journal, one(end.0));
        ends.push(end);
        drop((journal, opened.reader, opened.dead));
        let (again, _) = place.open();
        assert_eq!(read_all(&*again.reader, Offset(0)), (20..90).chain([end.0]).collect::<Vec<_>>());
    }
    let names = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let aside = names.filter(|name| name.to_string_lossy().starts_with("rocksdb.damaged-")).count();
    assert_eq!(aside, 3, "each damaged database is kept, also when two are set aside in one second");
}

#[test]
fn a_journal_that_lost_its_checkpoint_goes_on_with_the_blocks_that_are_left() {
    let place = plain_place();
    tamper(&place, |store, batch| delete(store, batch, META, CHECKPOINT_KEY));
    let (opened, _) = place.try_open(&accepting()).unwrap();
    let kept = read_all(&*opened.reader, Offset(0));
    drop(opened);
    assert_eq!(kept, (20..100).collect::<Vec<_>>(), "which blocks were processed is not known");
    assert_eq!(read_all(&*place.open().0.reader, Offset(0)), kept);
}

#[test]
fn with_accept_loss_a_journal_starts_whatever_file_is_gone_and_keeps_what_the_others_hold() {
    let place = rich_place();
    let good_files = files(&place.path());
    for name in good_files.keys().filter(|name| !name.ends_with("DURAGRAM")) {
        let place = Place::new();
        write_files(&place.path(), &good_files);
        fs::remove_file(place.path().join(name)).unwrap();
        let (opened, _) = place.try_open(&accepting()).unwrap();
        let (end, lossy) = (opened.end, !opened.given_up.is_empty());
        let kept = read_all(&*opened.reader, Offset(0)).len() as u64 + opened.dead.count();
        // Of 502 entries and 2 dead letters. The worst is the loss of a family's only table file: RocksDB's repair then
        // passes over the family's records in the log, too.
        let is_data = name.extension().is_some_and(|extension| extension == "sst" || extension == "log");
        assert!(kept == 504 || is_data && kept >= 2, "{}: {kept} kept, {:?}", name.display(), opened.given_up);
        assert!(end >= Offset(602), "{}", name.display());
        let mut journal = opened.journal;
        commit(&mut journal, one(end.0));
        drop((journal, opened.reader, opened.dead));
        let (again, replayed) = place.open();
        assert_eq!((again.end, replayed.numbers.last()), (end.plus(1), Some(&end.0)), "{}", name.display());
        assert_eq!(lossy, end > Offset(602), "{}", name.display());
        let names = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| name != "rocksdb.repair" && name != "rocksdb.new"));
    }
}

#[test]
fn good_records_behind_damage_in_the_log_are_kept_when_the_loss_is_accepted() {
    let (place, log) = unwitnessed_place(400);
    let mut bytes = fs::read(&log).unwrap();
    bytes[20_000] ^= 1;
    fs::write(&log, bytes).unwrap();
    let found = damage(&place);
    assert!(found.contains("damaged before byte") && found.contains(".log"), "{found}");
    let (opened, replayed) = place.try_open(&accepting()).unwrap();
    let lost = 4000 - replayed.numbers.len();
    assert!((10..400).contains(&lost), "of 4000 entries only those in the damaged page may be lost, not {lost}");
    assert_eq!(replayed.numbers.last(), Some(&3999));
    assert!(opened.end > Offset(4000));
}

#[test]
fn a_salvage_that_a_crash_interrupts_is_finished_or_begun_again() {
    let place = plain_place();
    tamper(&place, |store, batch| delete(store, batch, JOURNAL, &block_key(Offset(60))));
    // Before the damaged database is set aside: an unfinished copy counts for nothing.
    fs::create_dir(place.path().join("rocksdb.new")).unwrap();
    fs::write(place.path().join("rocksdb.new/CURRENT"), "half").unwrap();
    damage(&place);
    drop(place.try_open(&accepting()).unwrap());
    // After it: the copy was complete.
    fs::rename(place.path().join("rocksdb"), place.path().join("rocksdb.new")).unwrap();
    let (opened, replayed) = place.open();
    assert_eq!((opened.low, replayed.numbers.first(), replayed.numbers.len()), (Offset(20), Some(&50), 40));
}

/// Else what was recorded before could be played back.
#[test]
fn epochs_and_the_counters_limit_are_kept_when_a_loss_is_accepted() {
    let place = rich_place();
    tamper(&place, |store, batch| delete(store, batch, META, CHECKPOINT_KEY));
    let (_, replayed) = place.try_open(&accepting()).unwrap();
    let records = sealed_records();
    assert_eq!((replayed.clients, replayed.counter_limit), (records.clients, records.counter_limit));
}
