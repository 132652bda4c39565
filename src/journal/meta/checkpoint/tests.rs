use super::*;
use crate::journal::testing::shared::{sink, sinks};
use crate::model::SinkId;

fn refused(change: impl FnOnce(&mut Vec<StoredMarkV3>)) -> String {
    let mark = |shard| StoredMarkV3 {
        sink: 0,
        shard,
        watermark: 5,
        sealed_end: None,
        filter: 0,
        instance: 0,
        mode: 0,
        state: Vec::new(),
    };
    let mut marks: Vec<_> = (0..2).map(mark).collect();
    change(&mut marks);
    let stored = StoredCheckpointV3 { at: 9, low: 5, low_previous_checksum: 0, marks, former: Vec::new() };
    decode_checkpoint(&envelope::encode(CHECKPOINT_KEY, &stored)).unwrap_err().to_string()
}

#[test]
fn a_mark_of_format_3_that_says_more_than_any_version_wrote_is_refused() {
    assert!(refused(|marks| marks[1].sink = 1 << 100).contains("a sink that this program does not know"));
    assert!(refused(|marks| marks.swap(0, 1)).contains("not in their order"));
    assert!(refused(|marks| marks[0].sealed_end = Some(7)).contains("of a kind"));
    assert!(refused(|marks| marks[0].filter = 1).contains("of a kind"));
    assert!(refused(|marks| marks[0].instance = 1).contains("of a kind"));
    assert!(refused(|marks| marks[0].mode = 1).contains("of a kind"));
}

#[test]
fn sinks_come_back_as_they_were_stored_and_a_checkpoint_with_wrong_ones_is_refused() {
    let state = CheckpointState { at: Offset(9), sinks: sinks(7), ..CheckpointState::default() };
    assert_eq!(decode_checkpoint(&state.encode()), Ok(state.clone()));
    for (id, name) in [(0, "other"), (1, "other"), (2, "events"), (2, "")] {
        let sinks = [sinks(7), vec![sink(id, name, 7)]].concat();
        let wrong = CheckpointState { sinks, ..state.clone() }.encode();
        assert!(matches!(decode_checkpoint(&wrong), Err(RecordError::Malformed(_))), "{id} {name}");
    }
    let other = [sinks(7), vec![SinkRecord { id: SinkId(2), ..sink(2, "other", 7) }]].concat();
    let right = CheckpointState { sinks: other, ..state };
    assert_eq!(decode_checkpoint(&right.encode()), Ok(right));
}

#[test]
fn a_checkpoint_of_a_former_format_has_no_sinks() {
    let lanes = vec![LaneMark { watermark: Offset(8), sink_state: vec![1, 2] }, LaneMark::default()];
    let former = vec![FormerLanes(vec![Offset(3), Offset(8)])];
    let state = CheckpointState { at: Offset(9), lanes, former, sinks: sinks(7), ..CheckpointState::default() };
    let without = CheckpointState { sinks: Vec::new(), ..state.clone() };
    assert_eq!(decode_checkpoint(&state.encode_for_format_3()), Ok(without.clone()));
    assert_eq!(decode_checkpoint(&state.encode_for_format_2()), Ok(without));
}
