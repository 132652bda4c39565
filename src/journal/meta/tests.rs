use super::*;
use crate::journal::testing::shared::{answered, answers, open_ask, record, session as session_of, sinks};
use crate::model::{AnswerRecord, AskId, FormerLanes, LaneMark};

fn samples() -> Vec<(Vec<u8>, Vec<u8>, MetaRecord)> {
    let session = record(0xa1, 5);
    let sealed = SessionRecord { sealed: true, ..record(0xa2, 6) };
    let lanes = vec![LaneMark { watermark: Offset(8), sink_state: vec![1, 2] }, LaneMark::default()];
    let checkpoint = CheckpointState {
        at: Offset(9),
        low: Offset(7),
        low_previous_checksum: 0xdead_beef,
        lanes,
        ..CheckpointState::default()
    };
    let with_sinks = CheckpointState {
        former: vec![FormerLanes(vec![Offset(3), Offset(8)])],
        sinks: sinks(7),
        ..checkpoint.clone()
    };
    let loss = Loss { entries: Some((Offset(3), Offset(5))), accepted_unix_us: 42, what: "a hole".into() };
    let answer = AnswerRecord { failed: false, body: b"valve: open"[..].into(), answered_s: 77 };
    let id = |seq| AskId { session: session_of(0xa1), seq: Seq(seq) };
    let ask = |seq, answer| AskRecord { id: id(seq), offset: Offset(7), answer };
    let (open, answer) = (ask(5, None), ask(6, Some(answer)));
    let of_a_commit = answers(1 << 40, [answered(6, false, b"valve: open"), answered(7, true, b"")]);
    let recent = RecentRecord { dialect: DialectId::DURAGRAM, key: 1 << 100 | 3, offset: Offset(8), expires_s: 300 };
    let client = ClientRecord { client: ClientId(0xa2), opened: 3, given: u32::MAX };
    let session_sample = |session: SessionRecord| {
        let (key, value) = session.encode();
        (key.to_vec(), value, MetaRecord::Session(session))
    };
    vec![
        session_sample(session),
        session_sample(sealed),
        (CHECKPOINT_KEY.to_vec(), checkpoint.encode(), MetaRecord::Checkpoint(checkpoint)),
        (loss_key(1).to_vec(), loss.encode(1), MetaRecord::Loss(loss)),
        (client.encode().0.to_vec(), client.encode().1, MetaRecord::Client(client)),
        (COUNTER_KEY.to_vec(), encode_counter_limit(1 << 61), MetaRecord::CounterLimit(1 << 61)),
        (open.encode().0.to_vec(), open.encode().1, MetaRecord::Ask(open)),
        (answer.encode().0.to_vec(), answer.encode().1, MetaRecord::Ask(answer)),
        (recent.encode().0.to_vec(), recent.encode().1, MetaRecord::Recent(recent)),
        (CHECKPOINT_KEY.to_vec(), with_sinks.encode(), MetaRecord::Checkpoint(with_sinks)),
        (of_a_commit.encode().0.to_vec(), of_a_commit.encode().1, MetaRecord::Answers(of_a_commit)),
    ]
}

#[test]
fn records_come_back_as_they_were_stored() {
    for (key, value, stored) in samples() {
        assert_eq!(decode(&key, &value), Ok(stored));
    }
}

#[test]
fn a_checkpoint_keeps_how_far_lanes_of_another_number_had_come() {
    let former = vec![FormerLanes(vec![Offset(3), Offset(8)]), FormerLanes(vec![Offset(5)])];
    let checkpoint = CheckpointState { at: Offset(9), former, ..CheckpointState::default() };
    let value = checkpoint.encode();
    assert_eq!(decode(CHECKPOINT_KEY, &value), Ok(MetaRecord::Checkpoint(checkpoint)));
    for at in 0..value.len() {
        let mut bad = value.clone();
        bad[at] ^= 1;
        assert!(decode(CHECKPOINT_KEY, &bad).is_err(), "byte {at}");
    }
}

#[test]
fn a_change_of_any_byte_of_key_or_value_is_detected() {
    for (key, value, _) in samples() {
        let key_len = key.len();
        let whole = [key, value].concat();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bad = whole.clone();
                bad[at] ^= 1 << bit;
                let (key, value) = bad.split_at(key_len);
                assert!(decode(key, value).is_err(), "bit {bit} of byte {at}");
            }
        }
        for at in key_len..whole.len() {
            assert!(decode(&whole[..key_len], &whole[key_len..at]).is_err(), "cut to {at} bytes");
        }
    }
}

/// The format on disk: whoever changes these bytes must raise the record's version.
#[test]
fn the_format_is_that_of_the_golden_records() {
    let values: Vec<_> = samples().into_iter().flat_map(|(_, value, _)| value).collect();
    assert_eq!(values, include_bytes!("../testdata/meta_v5.bin"));
    assert!(samples().iter().all(|(key, ..)| key.len() <= ASK_KEY_LEN));
}

/// Holds the first records of a former format against what was written in it: of these, only the checkpoint is written in another
/// way since.
fn golden_records(golden: &[u8], count: usize, checkpoint: fn(&CheckpointState) -> Vec<u8>) {
    let mut golden = golden;
    for (key, value, record) in samples().into_iter().take(count) {
        let written = match &record {
            MetaRecord::Checkpoint(state) => checkpoint(state),
            _ => value,
        };
        let (stored, rest) = golden.split_at(written.len());
        assert_eq!(stored, written, "{record:?}");
        assert_eq!(decode(&key, stored), Ok(record));
        golden = rest;
    }
    assert!(golden.is_empty());
}

#[test]
fn records_of_format_4_are_read() {
    golden_records(include_bytes!("../testdata/meta_v4.bin"), 10, CheckpointState::encode);
}

#[test]
fn records_of_format_3_are_read() {
    golden_records(include_bytes!("../testdata/meta_v3.bin"), 9, CheckpointState::encode_for_format_3);
    let former = vec![FormerLanes(vec![Offset(3), Offset(8)])];
    let state = CheckpointState { at: Offset(9), former, ..CheckpointState::default() };
    assert_eq!(decode(CHECKPOINT_KEY, &state.encode_for_format_3()), Ok(MetaRecord::Checkpoint(state)));
}

#[test]
fn records_of_format_2_are_read() {
    golden_records(include_bytes!("../testdata/meta_v2.bin"), 6, CheckpointState::encode_for_format_2);
    let former = vec![FormerLanes(vec![Offset(3), Offset(8)])];
    let state = CheckpointState { at: Offset(9), former, ..CheckpointState::default() };
    assert_eq!(decode(CHECKPOINT_KEY, &state.encode_for_format_2()), Ok(MetaRecord::Checkpoint(state)));
}

/// Session, checkpoint and loss, as version 0.1.0 wrote them: what a directory of format 1 holds.
#[test]
fn records_of_format_1_are_read() {
    let golden = include_bytes!("../testdata/meta_v1.bin");
    let samples = samples();
    let (checkpoint, loss) = (&samples[2], &samples[3]);
    let MetaRecord::Checkpoint(state) = &checkpoint.2 else { panic!("the order of the samples") };
    let (rest, golden_loss) = golden.split_at(golden.len() - loss.1.len());
    let (golden_session, golden_checkpoint) = rest.split_at(rest.len() - state.encode_for_format_2().len());
    assert_eq!(decode(&samples[0].0, golden_session).as_ref(), Ok(&samples[0].2));
    assert_eq!(decode(&checkpoint.0, golden_checkpoint).as_ref(), Ok(&checkpoint.2));
    assert_eq!(decode(&loss.0, golden_loss).as_ref(), Ok(&loss.2));
}

#[test]
fn a_record_of_an_unknown_kind_or_dialect_is_refused() {
    let recent = RecentRecord { dialect: DialectId(1), key: 3, offset: Offset(8), expires_s: 300 };
    let (key, value) = recent.encode();
    assert!(matches!(decode(&key, &value), Err(RecordError::Malformed(_))));
    let (key, value) = open_ask(0).encode();
    assert!(matches!(decode(&key, &value), Err(RecordError::Malformed(_))));
    for key in [&b"q"[..], b"a", b"k", b"", b"aa", b"c\0", b"r", &[b'r'; 10], &[b'a'; 22]] {
        assert!(matches!(decode(key, &value), Err(RecordError::Malformed(_))), "{key:?}");
    }
}
