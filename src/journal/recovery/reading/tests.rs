use super::*;

fn tables(tables: &[(u64, u64)]) -> Vec<Table> {
    tables.iter().map(|&(last, bytes)| Table { last: last.to_be_bytes().to_vec(), bytes }).collect()
}

fn checkpoint(low: u64, at: u64) -> CheckpointState {
    CheckpointState { at: Offset(at), low: Offset(low), ..CheckpointState::default() }
}

#[test]
fn what_the_checkpoint_does_not_include_and_the_newest_before_it_is_read() {
    let tables = tables(&[(100, 10), (200, 10), (300, 10), (400, 10), (500, 10)]);
    let below = |low, at, newest| Later::of(&tables, &checkpoint(low, at), newest).map(|later| later.below.0);
    assert_eq!(below(0, 450, 0), Some(400));
    assert_eq!(below(0, 400, 0), Some(300), "the last block of that table may go on beyond the checkpoint");
    assert_eq!(below(0, 450, 10), Some(400), "the checkpoint lies in the table that is read anyway");
    assert_eq!(below(0, 450, 11), Some(300));
    assert_eq!(below(0, 450, 30), Some(200));
    assert_eq!(below(0, 450, u64::MAX), None);
    assert_eq!(below(0, 50, 0), None);
    assert_eq!(below(150, 450, 30), Some(200));
    assert_eq!(below(250, 450, 30), None, "nothing is kept below");
}

#[test]
fn what_is_read_later_is_summed_up_in_extents_that_rise() {
    let tables = tables(&[(90, 5 << 20), (1000, (3 << 20) + 7), (1001, 2 << 20), (5000, 1)]);
    let later = Later::of(&tables, &checkpoint(10, 4000), 0).unwrap();
    assert_eq!(later.below, Offset(1001));
    assert!(later.extents.is_sorted_by(|a, b| a.first < b.first), "{:?}", later.extents);
    assert_eq!(later.extents[0].first, Offset(10));
    assert_eq!(later.extents.iter().map(|extent| extent.bytes).sum::<u64>(), (10 << 20) + 7);
}
