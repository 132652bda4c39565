//! Damage in what a journal keeps of the configured sinks.

use rocksdb::WriteBatch;

use super::tests::{damage, place_with_sinks, put, state, tamper};
use super::*;
use crate::journal::database::{DEAD, META};
use crate::journal::dead_letter::tests::{letter, letter_of};
use crate::journal::meta::{self, CHECKPOINT_KEY, CheckpointState, MetaRecord};
use crate::journal::rocksdb::database::Store;
use crate::journal::store::tests::{commit, one, options};
use crate::journal::testing::shared::sinks;
use crate::journal::{DeadLetterId, Journal as _, inspect};
use crate::model::{LaneMark, Offset, SinkId, SinkRecord};

fn checkpoint_of(store: &Store) -> CheckpointState {
    let value = store.get(META, CHECKPOINT_KEY).unwrap().unwrap();
    let Ok(MetaRecord::Checkpoint(state)) = meta::decode(CHECKPOINT_KEY, &value) else { panic!("no checkpoint") };
    state
}

fn put_sinks(store: &Store, batch: &mut WriteBatch, change: impl FnOnce(&mut Vec<SinkRecord>)) {
    let mut state = checkpoint_of(store);
    change(&mut state.sinks);
    put(store, batch, META, CHECKPOINT_KEY, &state.encode());
}

#[test]
fn every_kind_of_damage_to_sinks_and_their_letters_is_found_and_named() {
    type Change = fn(&Store, &mut WriteBatch);
    let table: [(&str, Change); 9] = [
        ("missing: the watermark of sink `events` proves", |store, batch| {
            put_sinks(store, batch, |sinks| sinks[0].mark.watermark = Offset(603));
        }),
        ("missing: the watermark of sink `detached` proves", |store, batch| {
            put_sinks(store, batch, |sinks| sinks[2].mark.watermark = Offset(603));
        }),
        ("record 63 of `meta`: malformed: a sink with the id of the embedded handler", |store, batch| {
            put_sinks(store, batch, |sinks| sinks[1].id = SinkId::EMBEDDED);
        }),
        ("is there twice by its id or its name", |store, batch| {
            put_sinks(store, batch, |sinks| sinks[1].name = sinks[0].name.clone());
        }),
        ("65 losses of sink `detached`, of 64", |store, batch| {
            put_sinks(store, batch, |sinks| sinks[2].losses = vec![sinks[2].losses[0]; 65]);
        }),
        ("of `dead`: its checksum does not match", |store, batch| {
            put(store, batch, DEAD, &letter_of(2, 3, 0).id.key(), &letter_of(1, 3, 0).encode());
        }),
        ("of `dead`: its checksum does not match", |store, batch| {
            put(store, batch, DEAD, &letter_of(1, 3, 0).id.key(), &letter(3, 0).encode());
        }),
        ("of `dead`: malformed: its key is not that of a dead letter", |store, batch| {
            let key = [&letter(3, 0).id.key()[..], &[0; 16]].concat();
            put(store, batch, DEAD, &key, &letter(3, 0).encode());
        }),
        ("of `dead`: malformed: its key is not that of a dead letter", |store, batch| {
            let key = letter_of(1, 3, 0).id.key();
            put(store, batch, DEAD, &key[..25], &letter_of(1, 3, 0).encode());
        }),
    ];
    for (expected, change) in table {
        let place = place_with_sinks();
        tamper(&place, change);
        damage(&place);
        let found = inspect::verify(&place.path()).unwrap().damage;
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|damage| damage.contains(expected)), "{found:?} has no {expected:?}");
    }
}

fn accepting() -> RocksOptions {
    RocksOptions { accept_loss: true, ..options() }
}

#[test]
fn an_accepted_loss_keeps_the_sinks_and_their_letters() {
    let place = place_with_sinks();
    let good = state(place.crash_copy().open());
    let lost = letter_of(1, 3, 0);
    tamper(&place, |store, batch| put(store, batch, DEAD, &lost.id.key(), b"nothing"));
    damage(&place);
    let (opened, _) = place.try_open(&accepting()).unwrap();
    assert_eq!(opened.sinks, sinks(600));
    let left: Vec<_> = good.dead.iter().filter(|letter| letter.id != lost.id).cloned().collect();
    assert_eq!(opened.dead.list(DeadLetterId::FIRST, 9).unwrap(), left);
    drop(opened);
    assert_eq!(state(place.open()).sinks, sinks(600));
}

#[test]
fn no_offset_below_a_sinks_mark_is_used_again_when_the_loss_of_the_end_is_accepted() {
    let place = place_with_sinks();
    let far = Offset(1 << 40);
    tamper(&place, |store, batch| put_sinks(store, batch, |sinks| sinks[0].mark.watermark = far));
    damage(&place);
    let (opened, _) = place.try_open(&accepting()).unwrap();
    assert!(opened.end > far, "{}", opened.end);
    assert_eq!(opened.sinks[0].mark, LaneMark { watermark: far, ..sinks(600)[0].mark.clone() }, "it stays as it is");
    assert_eq!(opened.reader.resume(far), opened.end, "and the sink goes on behind what was given up");
    let Opened { mut journal, end, .. } = opened;
    commit(&mut journal, one(end.0));
    assert_eq!(journal.end(), end.plus(1));
}

#[test]
fn tools_tell_what_sinks_there_are() {
    let place = place_with_sinks();
    let stats = inspect::stats(&place.path()).unwrap();
    assert_eq!((stats.sinks, stats.dead_letters), (sinks(600), 4));
    assert_eq!(inspect::left(&place.path()).unwrap().letters, state(place.open()).dead);
}
