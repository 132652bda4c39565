//! Asks and answers: what a start finds of them, after a checkpoint and between two.

use super::*;
use crate::journal::database::META;
use crate::journal::inspect;
use crate::journal::meta::answers_key;
use crate::journal::rocksdb::database::Store;
use crate::journal::testing::memory::MemoryDisk;
use crate::journal::testing::shared::{answered, answers, open_ask};
use crate::journal::testing::simulated::{Fate, SimulatedDisk};
use crate::journal::{Journal, Replay};
use crate::model::{AnswersRecord, AskId, AskRecord};

fn records(asks: Vec<AskRecord>, forgotten: Vec<AskId>, answers: Option<AnswersRecord>) -> Records {
    Records { asks, forgotten, answers, ..Records::default() }
}

/// One of each that a start must tell apart: before the checkpoint and after it, answered in its record, beside it, and not at all.
fn write(journal: &mut impl Journal) {
    let mut block = BlockBuilder::default();
    let mut write = |block: &mut BlockBuilder, records, checkpoint| {
        journal.write(block, &records, checkpoint).unwrap();
    };
    (0..4).for_each(|number| push(&mut block, number, 10));
    write(&mut block, records(vec![], vec![], Some(answers(7, [answered(1, false, b"first")]))), None);
    write(&mut block, records(vec![], vec![], Some(answers(8, [answered(2, true, b"")]))), None);
    let checkpoint = Checkpoint { at: Offset(4), answers_below: 8, trim_below: Offset(4), ..Checkpoint::default() };
    let asks = vec![answered(1, false, b"first"), open_ask(2), open_ask(3), open_ask(4)];
    let answers_9 = answers(9, [answered(3, false, b"third"), answered(4, false, b"")]);
    write(&mut block, records(asks, vec![], Some(answers_9)), Some(&checkpoint));
    push(&mut block, 4, 10);
    // A session between the keys of answers and the end of the family.
    let gone = records(vec![open_ask(6)], vec![open_ask(4).id, open_ask(5).id], None);
    write(&mut block, Records { sessions: vec![record(1, 1)], ..gone }, None);
}

fn verify(replayed: &Replayed, order: &[&str]) {
    assert_eq!(replayed.asks, [answered(1, false, b"first"), open_ask(2), open_ask(3), open_ask(6)]);
    let answers_9 = answers(9, [answered(3, false, b"third"), answered(4, false, b"")]);
    assert_eq!(replayed.answers, [answers(8, [answered(2, true, b"")]), answers_9]);
    assert_eq!((&replayed.numbers[..], &replayed.sessions[..]), (&[4][..], &[record(1, 1)][..]));
    assert_eq!(order, ["ask", "ask", "ask", "ask", "block", "answers", "answers"]);
}

/// Takes what is replayed, and in which order.
fn order(replayed: &mut Replayed, order: &mut Vec<&'static str>, replay: Replay<'_>) {
    match &replay {
        Replay::Ask(_) => order.push("ask"),
        Replay::Block(_) => order.push("block"),
        Replay::Answers(_) => order.push("answers"),
        _ => {}
    }
    replayed.take(replay);
}

#[test]
fn asks_come_before_blocks_and_answers_after_them_as_they_were_written() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    write(&mut journal);
    let crashed = place.crash_copy();
    journal.shared.store.flush().unwrap();
    drop(journal);
    for place in [crashed, place] {
        let (mut replayed, mut seen) = (Replayed::default(), Vec::new());
        RocksJournal::open(&place.path(), &options(), &mut |replay| order(&mut replayed, &mut seen, replay)).unwrap();
        verify(&replayed, &seen);
        let stats = inspect::stats(&place.path()).unwrap();
        assert_eq!((stats.asks, stats.asks_answered, stats.answers), (4, 1, 3));
    }
}

#[test]
fn the_journals_of_the_tests_keep_asks_and_answers_as_the_one_on_disk_does() {
    let memory = MemoryDisk::default();
    write(&mut memory.open(&mut |_| {}).journal);
    let (mut replayed, mut seen) = (Replayed::default(), Vec::new());
    memory.open(&mut |replay| order(&mut replayed, &mut seen, replay));
    verify(&replayed, &seen);
    assert_eq!(memory.ask(open_ask(1).id), Some(answered(1, false, b"first")));
    assert_eq!((memory.ask(open_ask(4).id), memory.answers()), (None, replayed.answers));

    let disk = SimulatedDisk::new(Box::new(|_| Fate::Synced));
    write(&mut disk.open(&mut |_| {}).unwrap().0.journal);
    disk.cut_power(1);
    let (mut replayed, mut seen) = (Replayed::default(), Vec::new());
    disk.open(&mut |replay| order(&mut replayed, &mut seen, replay)).unwrap();
    verify(&replayed, &seen);
}

/// Numbers begin anew where a start has found no answers; what an earlier run has deleted must not take them along.
#[test]
fn answers_that_are_numbered_like_deleted_ones_are_kept() {
    let place = Place::new();
    let mut block = BlockBuilder::default();
    for round in 0..3 {
        let (Opened { mut journal, .. }, replayed) = place.open();
        assert_eq!(replayed.answers, [], "round {round}");
        for number in 0..3 {
            let told = answers(number, [answered(round + 1, false, b"told")]);
            journal.write(&mut block, &records(vec![], vec![], Some(told)), None).unwrap();
        }
        let crashed = place.crash_copy().open().1.answers;
        assert_eq!(crashed.iter().map(|answers| answers.number).collect::<Vec<_>>(), [0, 1, 2], "round {round}");
        journal.checkpoint(&Checkpoint { answers_below: 2, ..Checkpoint::default() }).unwrap();
        let crashed = place.crash_copy().open().1.answers;
        assert_eq!(crashed.iter().map(|answers| answers.number).collect::<Vec<_>>(), [2], "round {round}");
        journal.checkpoint(&Checkpoint { answers_below: 3, ..Checkpoint::default() }).unwrap();
    }
}

#[test]
fn what_a_record_of_answers_is_damaged_by_is_found() {
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    write(&mut journal);
    drop(journal);
    let stored = Store::open(&place.path().join("rocksdb"), &options()).unwrap();
    let mut batch = stored.batch(100, 0);
    let (_, value) = answers(8, [answered(2, false, b"another")]).encode();
    stored.put(&mut batch, META, &answers_key(9), &value, &mut Vec::new());
    stored.write(batch).unwrap();
    drop(stored);
    match place.try_open(&options()) {
        Err(OpenError::Damaged(damage)) => {
            assert!(damage.to_string().contains("of `meta`: its checksum does not match"), "{damage}");
        }
        _ => panic!("it must be refused"),
    }
    // An operator who accepts the loss keeps all the others.
    let (_, replayed) = place.try_open(&RocksOptions { accept_loss: true, ..options() }).unwrap();
    assert_eq!(replayed.answers, [answers(8, [answered(2, true, b"")])]);
    assert_eq!(replayed.asks, [answered(1, false, b"first"), open_ask(2), open_ask(3), open_ask(6)]);
}

/// What an answer costs on disk, and by the way how long encoding takes and a synced write, shown with `--nocapture`.
#[test]
fn an_answer_takes_its_body_and_less_than_fifty_bytes() {
    const ANSWERS: u64 = 1_000;
    let place = Place::new();
    let (Opened { mut journal, .. }, _) = place.open();
    for body in [&b""[..], &[7; 100], &[7; 1024]] {
        let record = |number| answers(number, (1..=ANSWERS).map(|seq| answered(seq, false, body)));
        let begun = Instant::now();
        let (_, value) = record(0).encode();
        let encoded = begun.elapsed();
        assert!(value.len() as u64 <= ANSWERS * (50 + body.len() as u64), "{} bytes", value.len());
        let commits: Vec<_> = (0..20).map(|number| records(vec![], vec![], Some(record(number)))).collect();
        let begun = Instant::now();
        for records in &commits {
            journal.write(&mut BlockBuilder::default(), records, None).unwrap();
        }
        eprintln!(
            "{ANSWERS} answers of {} bytes: encoded in {encoded:?}, written in {:?}",
            body.len(),
            begun.elapsed() / 20
        );
    }
}
