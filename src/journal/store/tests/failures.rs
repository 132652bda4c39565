//! What is refused, and what follows after something has failed.

use super::*;

#[test]
fn what_recovery_would_refuse_is_not_written_and_stops_the_writer_for_good() {
    let place = Place::new();
    let (Opened { mut journal, dead, .. }, _) = place.open();
    commit(&mut journal, tens(0, 1));
    let mut builder = BlockBuilder::default();
    push_malformed(&mut builder);
    let error = failed(journal.commit(&mut builder, &[]).unwrap_err());
    assert!(error.action.contains("offset 10"), "{error}");
    builder.clear();
    push(&mut builder, 1, 1);
    assert_eq!(failed(journal.commit(&mut builder, &[]).unwrap_err()), error);
    assert_eq!(failed(journal.commit(&mut BlockBuilder::default(), &[]).unwrap_err()), error);
    assert_eq!(failed(journal.checkpoint(&Checkpoint::default()).unwrap_err()), error);
    assert_eq!(dead.put(&letter(1, 0)).unwrap_err(), error);
    drop((journal, dead));
    assert_eq!(place.open().1.numbers, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_checkpoint_that_would_delete_what_is_needed_is_refused() {
    let lanes = vec![LaneMark { watermark: Offset(9), ..LaneMark::default() }];
    for wrong in [
        Checkpoint { at: Offset(11), ..Checkpoint::default() },
        Checkpoint { at: Offset(9), trim_below: Offset(10), ..Checkpoint::default() },
        Checkpoint { at: Offset(10), trim_below: Offset(10), lanes, ..Checkpoint::default() },
    ] {
        let place = Place::new();
        let (Opened { mut journal, .. }, _) = place.open();
        commit(&mut journal, tens(0, 1));
        assert!(journal.checkpoint(&wrong).is_err());
        assert_eq!(place.crash_copy().open().1.numbers, (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn a_failed_write_poisons_writer_and_dead_letters_and_loses_nothing_that_was_acked() {
    let place = Place::new();
    let (Opened { mut journal, dead, reader, .. }, _) = place.open();
    commit(&mut journal, tens(1, 2));
    journal.shared.fail("commit of the block at offset 20".into(), "Input/output error");
    let mut builder = BlockBuilder::default();
    push(&mut builder, 21, 1);
    let error = failed(journal.commit(&mut builder, &[]).unwrap_err());
    assert_eq!(error.to_string(), "commit of the block at offset 20: Input/output error");
    assert_eq!(dead.put(&letter(1, 0)).unwrap_err(), error);
    journal.shared.fail("later".into(), "other");
    assert_eq!(failed(journal.checkpoint(&Checkpoint::default()).unwrap_err()), error, "the first cause stays");
    assert_eq!(read_all(&*reader, Offset(0)).len(), 20, "what is durable can still be read");
    drop((journal, dead, reader));
    assert_eq!(place.open().1.numbers.len(), 20);
}

#[test]
fn a_disk_that_fails_stops_the_writer_for_good() {
    let place = Place::new();
    let (Opened { mut journal, dead, .. }, _) = place.open();
    // What is open can still be written; the next file cannot be made.
    std::fs::rename(place.path().join("rocksdb"), place.path().join("gone")).unwrap();
    let mut builder = BlockBuilder::default();
    let mut synced = 0;
    let error = loop {
        push(&mut builder, synced, 50_000);
        match journal.commit(&mut builder, &[]) {
            Ok(receipt) => synced = receipt.end().0,
            Err(error) => break failed(error),
        }
        assert!(synced < 1000, "fifty times what a memtable holds");
    };
    // Whoever looks after the files may have been faster.
    let by_commit = error.action.starts_with("commit of the block at offset") && error.cause.contains("No such file");
    assert!(by_commit || error.cause.contains("was deleted or renamed"), "{error}");
    std::fs::rename(place.path().join("gone"), place.path().join("rocksdb")).unwrap();
    assert_eq!(failed(journal.commit(&mut builder, &[]).unwrap_err()), error, "also when the disk is back");
    assert_eq!(failed(journal.checkpoint(&Checkpoint::default()).unwrap_err()), error);
    assert_eq!(dead.put(&letter(1, 0)).unwrap_err(), error);
    drop((journal, dead));
    let replayed = place.open().1.numbers;
    assert!(replayed.len() as u64 >= synced, "all that was acked is there");
}
