//! Each row of the decision table that refuses, shown by a real directory.

use std::fs;

use rocksdb::WriteBatch;

use super::tests::{block_of, delete, plain_place, put, refused, tamper};
use super::*;
use crate::journal::database::{JOURNAL, META, block_key};
use crate::journal::error::DamageKind;
use crate::journal::meta::{CHECKPOINT_KEY, CheckpointState, session_key};
use crate::journal::recovery::Witness;
use crate::journal::rocksdb::database::is_of_a_journal;
use crate::journal::store::tests::{Place, files};
use crate::journal::testing::shared::{record, session};
use crate::journal::{Block, inspect};
use crate::model::Offset;

fn remove(place: &Place, name: &str) {
    fs::remove_file(place.path().join(name)).unwrap();
}

fn in_database(change: fn(&Store, &mut WriteBatch)) -> impl Fn(&Place) {
    move |place| tamper(place, change)
}

fn spoil_block(store: &Store, batch: &mut WriteBatch, first: u64) {
    let mut block = block_of(store, first);
    *block.last_mut().unwrap() ^= 1;
    put(store, batch, JOURNAL, &block_key(Offset(first)), &block);
}

#[test]
fn every_row_that_refuses_is_shown_by_a_directory_and_says_its_kind() {
    type Do = Box<dyn Fn(&Place)>;
    let witness = |end, changes| -> Do {
        Box::new(move |place: &Place| {
            let dir = DataDir::claim(&place.path(), is_of_a_journal).unwrap();
            dir.write_witness(Witness::Durable { end: Offset(end), changes }).unwrap();
        })
    };
    let of_format = |number: u32| -> Do {
        let line = format!("duragram data directory, format {number}");
        let line = format!("{line} crc32 {:08x}\n", crc32fast::hash(line.as_bytes()));
        Box::new(move |place: &Place| fs::write(place.path().join("DURAGRAM"), &line).unwrap())
    };
    let table: Vec<(DamageKind, Do)> = vec![
        (DamageKind::Marker, Box::new(|place| remove(place, "DURAGRAM"))),
        (DamageKind::Format, of_format(0)),
        (DamageKind::DatabaseMissing, Box::new(|place| fs::remove_dir_all(place.path().join("rocksdb")).unwrap())),
        (DamageKind::DatabaseUnreadable, Box::new(|place| remove(place, "rocksdb/CURRENT"))),
        (DamageKind::GoodAfterBad, Box::new(in_database(|store, batch| spoil_block(store, batch, 30)))),
        (DamageKind::LastBlock, Box::new(in_database(|store, batch| spoil_block(store, batch, 90)))),
        (DamageKind::Hole, Box::new(in_database(|store, batch| delete(store, batch, JOURNAL, &block_key(Offset(60)))))),
        (
            DamageKind::Chain,
            Box::new(in_database(|store, batch| {
                let mut builder = crate::journal::BlockBuilder::default();
                (60..70).for_each(|number| crate::journal::testing::shared::push(&mut builder, number, 1));
                let place =
                    crate::journal::block::Place { first: Offset(60), previous_checksum: 7, committed_unix_us: 0 };
                put(store, batch, JOURNAL, &block_key(Offset(60)), builder.build(place).unwrap().bytes());
            })),
        ),
        (DamageKind::Witness, Box::new(|place| remove(place, "witness"))),
        (DamageKind::BelowWitness, witness(101, 0)),
        (DamageKind::BelowWitness, witness(100, 1000)),
        (DamageKind::Checkpoint, Box::new(in_database(|store, batch| delete(store, batch, META, CHECKPOINT_KEY)))),
        (
            DamageKind::BelowCheckpoint,
            Box::new(in_database(|store, batch| {
                let low_previous_checksum = Block::parse(block_of(store, 20)).unwrap().previous_checksum();
                let (at, low) = (Offset(101), Offset(20));
                let state = CheckpointState { at, low, low_previous_checksum, ..CheckpointState::default() };
                put(store, batch, META, CHECKPOINT_KEY, &state.encode());
            })),
        ),
        (
            DamageKind::Record,
            Box::new(in_database(|store, batch| {
                put(store, batch, META, &session_key(session(1)), &record(2, 1).encode().1);
            })),
        ),
    ];
    for (kind, hurt) in table {
        let place = plain_place();
        hurt(&place);
        match refused(&place) {
            OpenError::Damaged(damage) => assert_eq!(damage.kind, kind, "{damage}"),
            other => panic!("{kind:?}: {other}"),
        }
        let before = files(&place.path());
        let found = inspect::verify(&place.path()).unwrap().damage;
        assert!(found.iter().any(|damage| damage.kind == kind), "{kind:?}: {found:?}");
        assert!(files(&place.path()) == before);
    }
    let place = plain_place();
    of_format(DIRECTORY_FORMAT + 1)(&place);
    let error = refused(&place);
    assert!(matches!(error, OpenError::NewerFormat { found, .. } if found == DIRECTORY_FORMAT + 1), "{error}");
}

#[test]
fn a_change_behind_the_last_block_that_is_missing_is_found_by_the_witness() {
    use crate::journal::dead_letter::tests::letter;
    let place = plain_place();
    let (Opened { journal, dead, .. }, _) = place.open();
    dead.put(&letter(5, 0)).unwrap();
    drop((journal, dead));
    let good = files(&place.path());
    // The last record of the log is the dead letter.
    let (name, log) = good
        .iter()
        .rfind(|(name, bytes)| name.extension().is_some_and(|extension| extension == "log") && !bytes.is_empty())
        .unwrap();
    fs::write(place.path().join(name), &log[..log.len() - 1]).unwrap();
    match refused(&place) {
        OpenError::Damaged(damage) => assert_eq!(damage.kind, DamageKind::BelowWitness, "{damage}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_fragment_of_the_manifest_that_rocksdb_would_never_pass_is_refused_at_once_also_when_the_loss_is_accepted() {
    let place = plain_place();
    let name = fs::read_to_string(place.path().join("rocksdb/CURRENT")).unwrap();
    let path = place.path().join("rocksdb").join(name.trim_end());
    let mut manifest = fs::read(&path).unwrap();
    let second = 7 + usize::from(u16::from_le_bytes([manifest[4], manifest[5]]));
    // The type of a whole record in a recycled log.
    manifest[second + 6] = 5;
    fs::write(&path, manifest).unwrap();
    match refused(&place) {
        OpenError::Damaged(damage) => {
            assert_eq!((damage.kind, damage.byte), (DamageKind::DatabaseUnreadable, Some(second as u64)), "{damage}");
        }
        other => panic!("{other}"),
    }
    let accepting = RocksOptions { accept_loss: true, ..crate::journal::store::tests::options() };
    let (opened, _) = place.try_open(&accepting).unwrap();
    assert!(opened.end > Offset(100) && !opened.given_up.is_empty(), "{:?}", opened.given_up);
}
