use super::*;
use crate::journal::testing::shared::{sink, sinks};

type Change = fn(&mut Vec<SinkRecord>);

#[test]
fn a_list_of_sinks_that_no_checkpoint_may_keep_is_refused() {
    let with = |change: Change| {
        let mut list = sinks(5);
        change(&mut list);
        verify_sinks(&list)
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(verify_sinks(&[]), Ok(()));
    let many = |n: usize| (1..).take(n).map(|id| sink(id, &id.to_string(), 5)).collect::<Vec<_>>();
    assert_eq!(verify_sinks(&many(SINKS_REMEMBERED)), Ok(()));
    assert!(verify_sinks(&many(SINKS_REMEMBERED + 1)).unwrap_err().contains("65 sinks"));
    assert_eq!(with(|list| list[0].name = "n".repeat(SINK_NAME_BYTES)), Ok(()));
    let table: [(&str, Change); 11] = [
        ("the embedded handler", |list| list[0].id = SinkId::EMBEDDED),
        ("is there twice", |list| list[0].id = list[1].id),
        ("is there twice", |list| list[0].name = list[1].name.clone()),
        ("not printable text", |list| list[0].name = String::new()),
        ("not printable text", |list| list[0].name = "n".repeat(SINK_NAME_BYTES + 1)),
        ("not printable text", |list| list[0].name = "two\nlines".into()),
        ("losses of sink `events`", |list| list[0].losses = vec![list[2].losses[0]; SINK_LOSSES + 1]),
        ("no run of entries", |list| list[2].losses[0].to = list[2].losses[0].from),
        ("no run of entries", |list| list[2].losses[0].from = Offset(10)),
        ("no run of entries", |list| list[2].losses[0].entries = 0),
        ("no run of entries", |list| list[2].losses[0].entries = 3),
    ];
    for (expected, change) in table {
        let problem = with(change).unwrap_err();
        assert!(problem.contains(expected), "{problem:?} is not {expected:?}");
    }
    assert_eq!(with(|list| list[0].losses = vec![list[2].losses[0]; SINK_LOSSES]), Ok(()));
}
