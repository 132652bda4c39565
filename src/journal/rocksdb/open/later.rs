//! A backlog so long that a start does not read all of it.

use super::tests::{delete, put, refused, tamper};
use super::*;
use crate::journal::block::Place as BlockPlace;
use crate::journal::database::{JOURNAL, block_key};
use crate::journal::inspect;
use crate::journal::store::tests::{Place, checkpoint, commit, options, tens};
use crate::journal::testing::shared::{failed, push, read_all};
use crate::journal::{BlockBuilder, Checkpoint, DamageKind, DamagePlace, Journal as _, ReadJournal};
use crate::model::{LaneMark, Offset};

/// Four table files of 300 entries, and a few entries behind them; nothing is processed.
fn long_place() -> Place {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    for from in [0, 300, 600, 900] {
        commit(&mut journal, tens(from, 30));
        journal.shared().store.flush().unwrap();
    }
    commit(&mut journal, tens(1200, 2));
    checkpoint(&mut journal, 1210, 0);
    commit(&mut journal, tens(1220, 1));
    place
}

/// Reads no more of the backlog than it must.
fn soon() -> RocksOptions {
    RocksOptions { start_read_bytes: 0, ..options() }
}

fn opened(place: &Place) -> Opened<RocksJournal> {
    place.try_open(&soon()).unwrap().0
}

/// What is reported to a lane that comes to `from`.
fn damage_at(reader: &dyn ReadJournal, from: u64) -> crate::journal::Damage {
    let error = reader.read(Offset(from), 1).unwrap_err();
    assert!(
        error.to_string().contains("the journal is damaged") && error.to_string().contains("journal verify"),
        "{error}"
    );
    assert_eq!(crate::server::Error::from(error.clone()).exit_code(), 3, "as a start that finds it");
    *error.damage.expect("it is damage")
}

#[test]
fn a_start_that_leaves_the_older_backlog_for_later_gives_the_same_journal() {
    let place = long_place();
    let read_in_full = place.crash_copy();
    let (all, all_replayed) = read_in_full.open();
    let options = soon();
    let copy = place.crash_copy();
    let (later, replayed) = copy.try_open(&options).unwrap();
    assert_eq!(replayed, all_replayed);
    assert_eq!((later.low, later.end, later.checkpoint_at), (all.low, all.end, all.checkpoint_at));
    assert_eq!(later.lanes, all.lanes);
    assert_eq!(read_all(&*later.reader, Offset(0)), (0..1230).collect::<Vec<_>>());
    let (read, total) = options.progress.bytes();
    assert!(read == total && 0 < read, "{read} of {total}");
    assert!(later.extents[0].first == all.low && later.extents.is_sorted_by(|a, b| a.first < b.first));
    let sum = |extents: &[crate::journal::Extent]| extents.iter().map(|extent| extent.bytes).sum::<u64>();
    assert!(
        sum(&later.extents).abs_diff(sum(&all.extents)) < sum(&all.extents) / 4,
        "{later_sum}",
        later_sum = sum(&later.extents)
    );
    drop(later);
    drop(all);
    // It really was not read: damage there does not stop such a start, and stops one that reads all.
    tamper(&place, |store, batch| put(store, batch, JOURNAL, &block_key(Offset(150)), b"nothing"));
    assert!(matches!(refused(&place), OpenError::Damaged(_)));
    let (later, replayed) = place.try_open(&soon()).unwrap();
    assert_eq!((later.end, replayed.sessions), (Offset(1230), all_replayed.sessions));
}

#[test]
fn damage_in_what_was_left_for_later_is_found_by_whoever_reads_it_and_never_skipped() {
    let place = long_place();
    tamper(&place, |store, batch| {
        put(store, batch, JOURNAL, &block_key(Offset(150)), b"nothing");
        delete(store, batch, JOURNAL, &block_key(Offset(400)));
        // Whole, of the right offsets, and of another history.
        let mut builder = BlockBuilder::default();
        (500..510).for_each(|number| push(&mut builder, number, 100));
        let of_another = BlockPlace { first: Offset(500), previous_checksum: 7, committed_unix_us: 0 };
        put(store, batch, JOURNAL, &block_key(Offset(500)), builder.build(of_another).unwrap().bytes());
    });
    let found = inspect::verify(&place.path()).unwrap().damage;
    assert_eq!(found.len(), 4, "a look at everything finds it all: {found:?}");
    let journal = opened(&place);
    let reader = &*journal.reader;
    for from in [150, 155, 159] {
        let damage = damage_at(reader, from);
        assert_eq!(damage.kind, DamageKind::GoodAfterBad, "{from}: {damage}");
        assert!(!damage.files.is_empty(), "{damage}");
    }
    let whole = reader.read(Offset(140), 1).unwrap();
    assert_eq!((whole.len(), whole[0].first()), (1, Offset(140)), "what is good in front of it is given");
    assert!(reader.read(Offset(140), usize::MAX).is_err());
    for from in [400, 405] {
        let place = DamagePlace::Entries { from: Offset(from), to: Some(Offset(410)) };
        assert_eq!(damage_at(reader, from).place, place);
    }
    assert_eq!(damage_at(reader, 500).kind, DamageKind::Chain);
    // The one behind it names the one that was there.
    assert_eq!(damage_at(reader, 510).kind, DamageKind::Chain);
    assert_eq!(reader.read(Offset(520), usize::MAX).unwrap().last().unwrap().end(), Offset(1230));
}

#[test]
fn the_lowest_entries_and_all_since_the_checkpoint_are_read_by_every_start() {
    type Change<'a> = &'a dyn Fn(&Store, &mut rocksdb::WriteBatch);
    let damaged: [Change<'_>; 4] = [
        &|store, batch| put(store, batch, JOURNAL, &block_key(Offset(0)), b"nothing"),
        &|store, batch| delete(store, batch, JOURNAL, &block_key(Offset(0))),
        &|store, batch| put(store, batch, JOURNAL, &block_key(Offset(1210)), b"nothing"),
        &|store, batch| delete(store, batch, JOURNAL, &block_key(Offset(1210))),
    ];
    for (at, change) in damaged.into_iter().enumerate() {
        let place = long_place();
        tamper(&place, |store, batch| change(store, batch));
        let refusal = place.try_open(&soon()).err();
        assert!(matches!(refusal, Some(OpenError::Damaged(_))), "{at}: {refusal:?}");
    }
}

#[test]
fn a_break_in_the_older_backlog_that_was_accepted_is_passed_by_readers_that_begin_there() {
    let place = long_place();
    tamper(&place, |store, batch| {
        let mut builder = BlockBuilder::default();
        (500..510).for_each(|number| push(&mut builder, number, 100));
        let of_another = BlockPlace { first: Offset(500), previous_checksum: 7, committed_unix_us: 0 };
        put(store, batch, JOURNAL, &block_key(Offset(500)), builder.build(of_another).unwrap().bytes());
    });
    let accepting = RocksOptions { accept_loss: true, ..soon() };
    let (Opened { mut journal, given_up, end, .. }, _) = place.try_open(&accepting).unwrap();
    assert!(!given_up.is_empty());
    // Another table, behind which the checkpoint lies.
    commit(&mut journal, tens(end.0, 30));
    journal.shared().store.flush().unwrap();
    checkpoint(&mut journal, end.0 + 300, 0);
    drop(journal);
    let journal = opened(&place);
    assert!(journal.journal.shared().unread_below > Offset(510), "{}", journal.journal.shared().unread_below);
    for from in [490, 500, 505, 510] {
        let read = journal.reader.read(Offset(from), 1);
        assert!(read.is_ok(), "from {from}: {read:?}");
    }
    let before_the_end = journal.reader.read(Offset(0), usize::MAX).unwrap();
    assert_eq!(before_the_end.iter().map(|block| block.end().since(block.first())).sum::<u64>(), 1530);
}

#[test]
fn damage_that_trimming_meets_is_damage() {
    let place = long_place();
    tamper(&place, |store, batch| put(store, batch, JOURNAL, &block_key(Offset(150)), b"nothing"));
    let mut opened = opened(&place);
    let checkpoint = Checkpoint {
        at: Offset(1210),
        lanes: vec![LaneMark { watermark: Offset(155), ..LaneMark::default() }],
        trim_below: Offset(155),
        ..Checkpoint::default()
    };
    let error = failed(opened.journal.checkpoint(&checkpoint).unwrap_err());
    assert!(error.damage.is_some(), "{error}");
    let told = crate::server::Error::from(error);
    assert_eq!(told.exit_code(), 3);
    assert!(!told.to_string().contains("storage failed"), "{told}");
    assert!(opened.journal.failure().is_some_and(|failure| failed(failure).damage.is_some()));
}

#[test]
fn an_accepted_loss_in_the_older_backlog_reads_everything_and_ends_the_damage() {
    let place = long_place();
    tamper(&place, |store, batch| put(store, batch, JOURNAL, &block_key(Offset(150)), b"nothing"));
    let accepting = RocksOptions { accept_loss: true, ..soon() };
    let (opened, _) = place.try_open(&accepting).unwrap();
    assert_eq!(opened.given_up.len(), 1, "{:?}", opened.given_up);
    let reader = &*opened.reader;
    assert_eq!(reader.resume(Offset(150)), Offset(160));
    let mut entries = read_all(reader, Offset(0));
    entries.retain(|number| *number < 1230);
    assert_eq!(entries.len(), 1220);
}
