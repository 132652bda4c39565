//! What is wrong with a record, or with the configuration: the first costs that record, the second costs time.

use std::thread;
use std::time::Duration;

use super::drive::{NAME, PLAN, Siege, view};
use super::judge::judge;
use super::target::{Found, Kind, LONG, PASSWORD, REFUSED, write_secret};
use super::targets::file::found_of;
use crate::common::wait_for;
use crate::common::wire::Wire;

const PATIENCE: Duration = Duration::from_secs(60);

/// Whose one record every target refuses that can.
const BAD: u64 = 99;

/// A record that its target refuses, among thousands.
fn a_bad_record(kind: Kind) -> Result<(), String> {
    let mut siege = Siege::begin(kind, 3);
    let crowd = siege.crowd();
    assert!(crowd.wait_acked(500, PATIENCE), "{kind}: nothing is acked");
    let wire = Wire::new(siege.server(), BAD);
    wire.ask_ack(&wire.data(1, REFUSED.repeat(2 * LONG / REFUSED.len()).as_bytes()));
    assert!(crowd.wait_acked(500, PATIENCE), "{kind}: nothing is acked");
    siege.settle(crowd)?;
    let (this, beside) = (view(siege.server(), NAME), view(siege.server(), "beside"));
    if this["dead_letters"] != 1 || beside["dead_letters"] != 0 {
        return Err(format!("{this}\n{beside}"));
    }
    let acked: u64 = siege.heard.iter().map(|heard| heard.acked()).sum();
    let found = siege.target.found(usize::try_from(acked).expect("they fit into memory"));
    let counts = judge(kind, &found, &siege.heard, PLAN.bytes_max, 0)?;
    eprintln!("{kind}: one of {} records was bad, {} are there", acked + 1, counts.found);
    let beside: Vec<Found> = siege.home.lines().iter().map(found_of).collect();
    let bad = beside.iter().filter(|found| found.client == BAD).count();
    if bad == 1 { Ok(()) } else { Err(format!("the sink beside it has the bad record {bad} times")) }
}

#[test]
fn one_record_that_the_target_refuses_costs_one_dead_letter_of_that_sink_and_nothing_else() {
    in_parallel(Kind::refuses, a_bad_record);
}

/// A sink that is not let in, until it is.
fn a_wrong_password(kind: Kind) -> Result<(), String> {
    let mut siege = Siege::begin_knowing("wrong-s3cret", kind, 4);
    let (crowd, pid) = (siege.crowd(), siege.server().pid());
    let reason = wait_for("a reason", || {
        let ready = siege.server().get("/readyz");
        ready.contains("sink besieged: ").then_some(ready)
    });
    let up = || siege.server().metric("duragram_sink_up", "sink=\"besieged\"");
    wait_for("the metric to say so", || (up() == 0.0).then_some(()));
    assert!(crowd.wait_acked(200, PATIENCE), "{kind}: without its target nothing is acked");
    if reason.contains("s3cret") || siege.server().log().contains("s3cret") {
        return Err(format!("the password is shown: {reason}"));
    }
    write_secret(&super::drive::password(&siege.home), PASSWORD);
    siege.settle(crowd)?;
    wait_for("the metric to say that it is up again", || {
        (siege.server().metric("duragram_sink_up", "sink=\"besieged\"") == 1.0).then_some(())
    });
    let ready = siege.server().get("/readyz");
    if ready.contains("besieged") || siege.server().pid() != pid {
        return Err(format!("it goes on without a restart, and says so: {ready}"));
    }
    let acked: u64 = siege.heard.iter().map(|heard| heard.acked()).sum();
    let found = siege.target.found(usize::try_from(acked).expect("they fit into memory"));
    let counts = judge(kind, &found, &siege.heard, PLAN.bytes_max, 0)?;
    eprintln!("{kind}: {} records are there after {reason}", counts.found);
    Ok(())
}

#[test]
fn a_wrong_password_is_named_by_readyz_and_when_it_is_mended_the_sink_goes_on_without_a_restart() {
    in_parallel(Kind::has_password, a_wrong_password);
}

fn in_parallel(concerns: impl Fn(Kind) -> bool, work: fn(Kind) -> Result<(), String>) {
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| concerns(*kind)).collect();
    thread::scope(|scope| {
        for kind in kinds {
            scope.spawn(move || work(kind).unwrap_or_else(|error| panic!("{kind}: {error}")));
        }
    });
}
