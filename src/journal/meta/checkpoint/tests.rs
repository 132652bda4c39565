use super::*;

fn refused(change: impl FnOnce(&mut Vec<StoredMark>)) -> String {
    let lanes = vec![LaneMark::default(); 2];
    let mark = |(shard, _)| StoredMark {
        sink: LANES,
        shard,
        watermark: 5,
        sealed_end: None,
        filter: 0,
        instance: 0,
        mode: HOLDING,
        state: Vec::new(),
    };
    let mut marks: Vec<_> = (0..).zip(&lanes).map(mark).collect();
    change(&mut marks);
    let stored = StoredCheckpoint { at: 9, low: 5, low_previous_checksum: 0, marks, former: Vec::new() };
    decode_checkpoint(&envelope::encode(CHECKPOINT_KEY, &stored)).unwrap_err().to_string()
}

#[test]
fn a_mark_that_says_more_than_this_program_understands_is_refused() {
    assert!(refused(|marks| marks[1].sink = 1 << 100).contains("a sink that this program does not know"));
    assert!(refused(|marks| marks.swap(0, 1)).contains("not in their order"));
    assert!(refused(|marks| marks[0].sealed_end = Some(7)).contains("of a kind"));
    assert!(refused(|marks| marks[0].filter = 1).contains("of a kind"));
    assert!(refused(|marks| marks[0].instance = 1).contains("of a kind"));
    assert!(refused(|marks| marks[0].mode = 1).contains("of a kind"));
}
