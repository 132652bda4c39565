//! What a journal keeps of the configured sinks, and their dead letters.

use super::*;
use crate::journal::dead_letter::tests::letter_of;
use crate::journal::testing::shared::{sink, sinks};
use crate::limits::DEAD_LETTERS_AT_ONCE;
use crate::model::{SinkId, SinkRecord};

/// What becomes of a checkpoint at entry 100 that trims up to there, of a journal that ends there.
fn trimmed(lanes: &[u64], sinks: Vec<SinkRecord>) -> Result<Offset, String> {
    let place = Place::new();
    let (Opened { mut journal, reader, .. }, _) = place.open();
    commit(&mut journal, tens(0, 10));
    let lanes = lanes.iter().map(|&below| LaneMark { watermark: Offset(below), ..LaneMark::default() }).collect();
    let (at, trim_below) = (Offset(100), Offset(100));
    let checkpoint = Checkpoint { at, trim_below, lanes, sinks, ..Checkpoint::default() };
    journal.checkpoint(&checkpoint).map_err(|error| failed(error).to_string())?;
    assert_eq!(reader.read(Offset(0), 1).unwrap().len(), 0);
    drop((journal, reader));
    Ok(place.open().0.low)
}

fn holding(id: u128, watermark: u64) -> SinkRecord {
    SinkRecord { holds: true, ..sink(id, &id.to_string(), watermark) }
}

fn detached(id: u128, watermark: u64) -> SinkRecord {
    SinkRecord { holds: false, ..holding(id, watermark) }
}

#[test]
fn nothing_is_trimmed_that_a_sink_holds_which_has_not_processed_it() {
    let refusal = |lanes: &[u64], sinks| trimmed(lanes, sinks).unwrap_err();
    assert!(refusal(&[], vec![holding(1, 99)]).contains("above the lowest watermark 99"));
    assert!(refusal(&[], vec![holding(1, 100), holding(2, 7), detached(3, 1)]).contains("the lowest watermark 7"));
    assert!(refusal(&[100], vec![holding(1, 50)]).contains("the lowest watermark 50"));
    assert!(refusal(&[60], vec![holding(1, 100)]).contains("the lowest watermark 60"));
    assert_eq!(trimmed(&[100], vec![holding(1, 100), holding(2, 100)]), Ok(Offset(100)));
}

#[test]
fn a_paused_sink_holds_what_it_has_not_processed() {
    let paused = SinkRecord { paused: true, ..holding(1, 99) };
    assert!(trimmed(&[], vec![paused]).is_err());
}

#[test]
fn a_detached_sink_does_not_keep_anything_from_being_trimmed() {
    assert_eq!(trimmed(&[], vec![detached(1, 0)]), Ok(Offset(100)));
    assert_eq!(trimmed(&[100], vec![detached(1, 5), holding(2, 100)]), Ok(Offset(100)));
}

#[test]
fn sinks_that_a_start_would_take_for_damage_are_never_written() {
    let wrong = [
        ("sink `1` claims entries that are not durable", vec![holding(1, 101)]),
        ("the embedded handler", vec![detached(0, 100)]),
        ("twice", vec![holding(1, 100), holding(1, 100)]),
        ("not printable", vec![SinkRecord { name: "\u{1b}[2J".into(), ..holding(1, 100) }]),
    ];
    for (expected, sinks) in wrong {
        let error = trimmed(&[], sinks).unwrap_err();
        assert!(error.contains(expected), "{error:?} is not {expected:?}");
    }
}

#[test]
fn a_start_gives_the_sinks_of_the_last_checkpoint() {
    let place = Place::new();
    let (Opened { mut journal, sinks: none, .. }, _) = place.open();
    assert_eq!(none, []);
    commit(&mut journal, tens(0, 1));
    for watermark in [5, 7] {
        journal.checkpoint(&Checkpoint { sinks: sinks(watermark), ..Checkpoint::default() }).unwrap();
    }
    let copy = place.crash_copy();
    drop(journal);
    for place in [&copy, &place] {
        assert_eq!(place.open().0.sinks, sinks(7));
    }
    let (Opened { mut journal, .. }, _) = place.open();
    journal.checkpoint(&Checkpoint::default()).unwrap();
    drop(journal);
    assert_eq!(place.open().0.sinks, [], "they were removed");
}

#[test]
fn sinks_have_their_own_letters_of_the_same_record() {
    let place = Place::new();
    let (Opened { mut journal, dead, .. }, _) = place.open();
    let of_record: Vec<_> = [0, 1, u128::MAX].map(|sink| letter_of(sink, 7, 1)).into();
    let (before, after) = (letter_of(5, 7, 0), letter_of(0, 7, 2));
    dead.put_all(&of_record, DeadLetterRoom::ANY).unwrap().unwrap();
    dead.put_all(&[after.clone(), before.clone()], DeadLetterRoom::ANY).unwrap().unwrap();
    let all = [vec![before.clone()], of_record.clone(), vec![after.clone()]].concat();
    assert_eq!(dead.list(DeadLetterId::FIRST, 9).unwrap(), all);
    assert_eq!(dead.list(of_record[1].id, 2).unwrap(), of_record[1..]);
    assert_eq!(dead.list(of_record[1].id.next().unwrap(), 1).unwrap(), of_record[2..], "it goes on behind one of them");
    assert_eq!(dead.get(of_record[1].id).unwrap().as_ref(), Some(&of_record[1]));
    assert_eq!(dead.get(letter_of(2, 7, 1).id).unwrap(), None);

    // One of them is retried, and one discarded: those of the other sinks stay.
    let retried = vec![of_record[2].id];
    journal.checkpoint(&Checkpoint { retried, ..Checkpoint::default() }).unwrap();
    assert!(dead.delete(of_record[0].id).unwrap() && !dead.delete(of_record[0].id).unwrap());
    assert_eq!(dead.count(), 3);
    drop((journal, dead));
    let (opened, _) = place.open();
    assert_eq!(opened.dead.list(DeadLetterId::FIRST, 9).unwrap(), [before, of_record[1].clone(), after]);
    assert_eq!(opened.dead.count(), 3);
}

#[test]
fn all_letters_of_a_sink_that_is_removed_are_forgotten_and_no_others() {
    let place = Place::new();
    let (Opened { journal, dead, .. }, _) = place.open();
    let records = 2 * DEAD_LETTERS_AT_ONCE as u64;
    let letters = |sink| (0..records).map(move |offset| letter_of(sink, offset, 0));
    let all: Vec<_> = [0, 7, 8].into_iter().flat_map(letters).collect();
    dead.put_all(&all, DeadLetterRoom::ANY).unwrap().unwrap();
    assert_eq!(dead.delete_of(SinkId(7)).unwrap(), records);
    assert_eq!(dead.delete_of(SinkId(7)).unwrap(), 0);
    assert_eq!(dead.count(), 2 * records);
    drop((journal, dead));
    let (opened, _) = place.open();
    let left = opened.dead.list(DeadLetterId::FIRST, usize::MAX).unwrap();
    assert_eq!((left.len() as u64, opened.dead.count()), (2 * records, 2 * records));
    assert!(left.iter().all(|letter| letter.id.sink != SinkId(7)));
}

#[test]
fn letters_that_are_named_twice_or_not_there_are_counted_once_or_not_at_all() {
    let place = Place::new();
    let (Opened { dead, .. }, _) = place.open();
    let letters: Vec<_> = (0..3).map(|offset| letter_of(7, offset, 0)).collect();
    dead.put_all(&letters[..2], DeadLetterRoom::ANY).unwrap().unwrap();
    let named = [0, 0, 2].map(|number: usize| letters[number].id);
    assert_eq!(dead.delete_all(&named).unwrap(), 1);
    assert_eq!((dead.count(), dead.delete_all(&[]).unwrap()), (1, 0));
}
