use super::*;

const BYTES: usize = 100;

/// What a target holds after two records of one client.
fn all() -> (Vec<Found>, Vec<Heard>) {
    let found = |offset| {
        let seq = offset + 1;
        Found { offset, index: 0, client: 1, epoch: EPOCH, seq, payload: payload(1, seq, BYTES) }
    };
    (vec![found(0), found(1)], vec![Heard { floor: 2, sent: 2, ..Heard::default() }])
}

/// What the oracle says of the records after they were changed.
fn after(kind: Kind, dead: u64, change: impl FnOnce(&mut Vec<Found>)) -> Result<Counts, String> {
    let (mut found, heard) = all();
    change(&mut found);
    judge(kind, &found, &heard, BYTES, dead)
}

#[test]
fn a_target_with_a_record_less_more_or_changed_is_found_out() {
    assert_eq!(after(Kind::Nats, 0, |_| {}), Ok(Counts { acked: 2, found: 2, ..Counts::default() }));
    type Change = fn(&mut Vec<Found>);
    let cases: [(Change, &str); 7] = [
        (|found| drop(found.pop()), "1 records are missing"),
        (|found| found.push(found[0].clone()), "1 records are there again"),
        (|found| found.push(Found { seq: 3, ..found[0].clone() }), "nobody sent this"),
        (|found| found[1].payload.push(0), "nobody sent this"),
        (|found| found[1].offset = 0, "0-0 names"),
        (|found| found.push(Found { offset: 7, ..found[0].clone() }), "has two names"),
        (|found| found.swap(0, 1), "0-0 came after"),
    ];
    for (change, wrong) in cases {
        let told = after(Kind::Nats, 0, change).unwrap_err();
        assert!(told.contains(wrong), "{told} for {wrong}");
    }
}

#[test]
fn a_sink_that_promises_at_least_once_may_repeat_and_a_dead_letter_may_be_missing() {
    let twice = after(Kind::Mqtt, 0, |found| found.push(found[0].clone()));
    assert_eq!(twice, Ok(Counts { acked: 2, found: 2, doubled: 1, ..Counts::default() }));
    let dead = after(Kind::Postgres, 1, |found| drop(found.pop()));
    assert_eq!(dead, Ok(Counts { acked: 2, found: 1, missing: 1, dead: 1, ..Counts::default() }));
}
