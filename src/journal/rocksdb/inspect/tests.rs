use super::*;
use crate::journal::dead_letter::tests::letter;
use crate::journal::rocksdb::database::is_of_a_journal;
use crate::journal::store::tests::{Place, checkpoint, commit, files, options, tens};
use crate::journal::testing::shared::numbers;
use crate::journal::{Opened, RocksJournal, RocksOptions};

fn place() -> Place {
    let place = Place::new();
    let (Opened { mut journal, dead, .. }, _) = place.open();
    commit(&mut journal, tens(0, 10));
    checkpoint(&mut journal, 50, 20);
    dead.put(&letter(3, 0)).unwrap();
    place
}

#[test]
fn tools_change_nothing_and_tell_what_is_there() {
    let place = place();
    let before = files(&place.path());
    let stats = stats(&place.path()).unwrap();
    assert_eq!((stats.low, stats.end, stats.checkpoint_at), (Offset(20), Offset(100), Offset(50)));
    assert_eq!((stats.witness, stats.entries, stats.blocks), (Some(Offset(100)), 80, 8));
    assert_eq!((stats.sessions, stats.dead_letters, stats.lanes.len()), (1, 1, 1));
    assert!(stats.block_bytes > 8000 && stats.disk.logs > stats.block_bytes && stats.disk.set_aside == 0);
    let total: u64 = before.values().map(|bytes| bytes.len() as u64).sum();
    assert_eq!(stats.disk.tables + stats.disk.logs + stats.disk.other, total);

    let Verified { damage, stats: verified, torn } = verify(&place.path()).unwrap();
    assert_eq!((damage, verified, torn), (vec![], stats, None));
    assert_eq!(left(&place.path()).unwrap().letters, [letter(3, 0)]);
    let dumped = |from| -> Vec<u64> {
        dump(&place.path(), Offset(from)).unwrap().flat_map(|block| numbers(&block.unwrap())).collect()
    };
    assert_eq!(dumped(0), (20..100).collect::<Vec<_>>());
    assert_eq!(dumped(95), (90..100).collect::<Vec<_>>());
    assert_eq!(dumped(100), [0; 0]);
    assert!(files(&place.path()) == before);
}

#[test]
fn a_dump_reads_on_where_it_stopped() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    let mut builder = crate::journal::BlockBuilder::default();
    for number in 0..5 {
        crate::journal::testing::shared::push(&mut builder, number, DUMP_BYTES / 2);
        crate::journal::Journal::commit(&mut journal, &mut builder, &[]).unwrap();
    }
    drop(journal);
    let dumped: Vec<_> = dump(&place.path(), Offset(1)).unwrap().flat_map(|block| numbers(&block.unwrap())).collect();
    assert_eq!(dumped, [1, 2, 3, 4]);
}

#[test]
fn verify_lists_every_damage_and_the_others_refuse() {
    let place = place();
    fs::remove_file(place.path().join("witness")).unwrap();
    let (name, mut log) =
        files(&place.path()).into_iter().rfind(|(name, _)| name.extension().is_some_and(|ext| ext == "log")).unwrap();
    log[3000] ^= 1;
    fs::write(place.path().join(name), log).unwrap();
    let before = files(&place.path());
    let Verified { damage, .. } = verify(&place.path()).unwrap();
    assert!(damage.len() >= 2, "{damage:?}");
    assert!(matches!(stats(&place.path()), Err(OpenError::Damaged(_))));
    assert!(matches!(dump(&place.path(), Offset(0)).err(), Some(OpenError::Damaged(_))));
    assert!(matches!(left(&place.path()), Err(OpenError::Damaged(_))));
    assert!(files(&place.path()) == before);

    let accepting = RocksOptions { accept_loss: true, ..options() };
    drop(RocksJournal::open(&place.path(), &accepting, &mut |_| {}).unwrap());
    let Verified { damage, stats, .. } = verify(&place.path()).unwrap();
    assert!(damage.is_empty() && stats.losses.len() > 2 && stats.disk.set_aside > 0, "{stats:?}");
}

#[test]
fn a_running_server_is_not_looked_at_and_a_tool_keeps_a_server_from_starting() {
    let place = place();
    let (opened, _) = place.open();
    let locked = OpenError::Locked { path: place.path() };
    assert_eq!(verify(&place.path()).err(), Some(locked.clone()));
    assert_eq!(dump(&place.path(), Offset(0)).err(), Some(locked.clone()));
    drop(opened);
    let dump = dump(&place.path(), Offset(0)).unwrap();
    assert_eq!(place.try_open(&options()).err(), Some(locked));
    drop(dump);
    place.open();
}

#[test]
fn a_directory_without_a_journal_has_nothing_to_show() {
    let place = Place::new();
    assert_eq!(verify(&place.path()).err(), Some(OpenError::Missing { path: place.path() }));
    drop(DataDir::claim(&place.path(), is_of_a_journal).unwrap());
    assert_eq!(verify(&place.path()).unwrap().stats.end, Offset(0));
    assert_eq!(dump(&place.path(), Offset(0)).unwrap().count(), 0);
}
