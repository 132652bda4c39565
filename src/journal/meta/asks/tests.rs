use super::*;
use crate::journal::meta::{MetaRecord, decode};
use crate::journal::testing::shared::{answered, answers};

fn row(epoch: u32, seq: u64, body_bytes: u32) -> StoredRow {
    StoredRow { client: 1, epoch, seq, offset: 3, outcome: DONE, body_bytes, answered_s: 7 }
}

fn decoded(rows: Vec<StoredRow>, bodies: &[u8]) -> Result<MetaRecord, RecordError> {
    let key = answers_key(9);
    decode(&key, &envelope::encode(&key, &StoredAnswers { rows, bodies: bodies.to_vec() }))
}

#[test]
fn answers_that_no_commit_can_have_written_are_refused() {
    assert!(decoded(vec![row(1, 1, 2), row(1, 2, 1)], b"abc").is_ok());
    for (rows, bodies) in [
        (vec![row(1, 1, 2), row(1, 2, 1)], &b"ab"[..]),
        (vec![row(1, 1, 2), row(1, 2, 1)], b"abcd"),
        (vec![row(1, 1, u32::MAX)], b"a"),
        (vec![], b"a"),
        (vec![row(0, 1, 1)], b"a"),
        (vec![row(1, 0, 1)], b"a"),
    ] {
        assert!(matches!(decoded(rows, bodies), Err(RecordError::Malformed(_))), "{bodies:?}");
    }
}

#[test]
fn each_answer_gets_its_own_body_back_whatever_the_others_are() {
    let bodies = [&b""[..], b"valve: open", b"", &[0xff; 1024], b"x"];
    let record = answers(u64::MAX, (1..).zip(bodies).map(|(seq, body)| answered(seq, seq % 2 == 0, body)));
    let (key, value) = record.encode();
    assert_eq!(decode(&key, &value), Ok(MetaRecord::Answers(record.clone())));
    assert!((record.size()..record.size() + 100).contains(&value.len()), "{} of {}", record.size(), value.len());
    let empty = answers(0, []);
    let (key, value) = empty.encode();
    assert_eq!(decode(&key, &value), Ok(MetaRecord::Answers(empty)));
}

#[test]
fn answers_are_stored_in_the_order_of_their_numbers_and_between_the_keys_of_their_kind() {
    let keys = [0, 1, 255, 256, 1 << 32, u64::MAX].map(answers_key);
    assert!(keys.is_sorted());
    let (from, to) = ANSWERS_KEYS;
    assert!(keys.iter().all(|key| key[..] >= from[..] && key[..] < to[..]));
}

#[test]
fn what_is_forgotten_is_kept_in_its_place_among_the_answers_and_no_other_outcome_is_read() {
    let forgotten = || StoredRow { outcome: FORGOTTEN, answered_s: 0, ..row(1, 2, 0) };
    let Ok(MetaRecord::Answers(record)) = decoded(vec![row(1, 2, 1), forgotten(), row(1, 3, 0)], b"x") else {
        panic!("not the answers that were stored")
    };
    assert_eq!(record.answers.iter().map(|ask| ask.answer.is_some()).collect::<Vec<_>>(), [true, false, true]);
    let (key, value) = record.encode();
    let again = crate::journal::meta::decode(&key, &value);
    assert!(matches!(again, Ok(MetaRecord::Answers(again)) if again == record));
    assert!(decoded(vec![StoredRow { outcome: 3, ..forgotten() }], b"").is_err());
    assert!(decoded(vec![StoredRow { body_bytes: 1, ..forgotten() }], b"x").is_err(), "it has no body");
}
