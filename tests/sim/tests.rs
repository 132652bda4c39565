//! The short run, and the proof that the oracles can fail.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::asks::{AskSeen, AsksPlan};
use crate::core::Sabotage;
use crate::runs::{Sum, sabotaged};
use crate::sinks::{Seen, SinksPlan};
use crate::world::run;

/// Of these at most, a quarter has sinks,
const SINK_SEEDS: u64 = 1_200;
/// and of these three of thirteen have asks.
const ASK_SEEDS: u64 = 4_000;

#[test]
fn nothing_acked_is_lost_over_many_seeds() {
    let until = Instant::now() + Duration::from_secs(20);
    let sum = Sum::of(0..1_000_000, Some(until), |_| {});
    println!("{}; of sinks: {}; of asks: {}", sum.describe(), sum.describe_sinks(), sum.describe_asks());
    assert!(sum.failures.is_empty(), "{:?}", sum.failures);
}

/// The seeds that have found a defect once.
#[test]
fn what_once_failed_does_not_fail_again() {
    for (seed, what) in [
        (1_054_119, "a client was heard, the server crashed, and the session expired too early"),
        (1_299_943, "the same"),
        (1_089_278, "the simulator put a copy of the disk back though the start had gone on from what it found"),
        (1_553_628, "the byte that was missing from a failed write happened to stand there: it was whole"),
        (2_026_349, "a session of which nothing was ever acked expired, and the oracle took it for one at work"),
        (2_046_209, "a repeated HELLO was answered before one that came earlier and was given a lower epoch"),
        (2_072_209, "the same"),
        (8_765, "after a wait with others in flight nothing was sent, and an outage was taken for a round trip"),
        (82, "a detached sink that was not configured any more lost what was trimmed, and no loss was stored"),
        (
            1_346,
            "a sink that had gone back over an old loss held too much, and the oracle counted from the new loss on",
        ),
        (
            1_778,
            "a lane waited for the checkpoint with its sink's loss, and the oracle took it for one that waits for nothing",
        ),
        (770_776, "a message waited for a timeout that a datagram on its way for seconds had made long"),
        (10, "a sink that was paused at a start was let go on elsewhere with a state that was true at its old place"),
        (43, "the same"),
        (
            258,
            "a sink that was paused at a start had no handler yet, and the oracle took it for one that lacks entries",
        ),
        (324, "asks that were forgotten came back with a start, so that there were more than there may be"),
        (818, "the same"),
        (100_866, "the oracle's clock stood still while the server was being stopped"),
        (100_947, "the same"),
        (
            441,
            "a recorded TAKE of an ended session was answered to where it came from, and the oracle reckoned another for it",
        ),
    ] {
        assert_eq!(run(seed, None, false).violation, None, "seed {seed}: {what}");
    }
}

/// A share of the runs has several sinks: before long everything that may happen to them does.
#[test]
fn whatever_may_happen_to_sinks_happens_and_no_oracle_minds() {
    let never = |sum: &Sum| Seen::ALL.into_iter().filter(|&seen| sum.seen[seen as usize] == 0).collect::<Vec<_>>();
    let all_seen = Cell::new(false);
    let seeds = (0..SINK_SEEDS).filter(|&seed| SinksPlan::has(seed)).take_while(|_| !all_seen.get());
    let sum = Sum::of(seeds, None, |sum| all_seen.set(sum.runs >= 50 && never(sum).is_empty()));
    println!("{}; of sinks: {}", sum.describe(), sum.describe_sinks());
    assert!(sum.failures.is_empty(), "{:?}", sum.failures);
    let never = never(&sum);
    assert!(never.is_empty(), "these happened in no run: {never:?}");
}

/// Three runs of thirteen have clients that ask: before long everything that may happen to asks does.
#[test]
fn whatever_may_happen_to_asks_happens_and_no_oracle_minds() {
    let never =
        |sum: &Sum| AskSeen::ALL.into_iter().filter(|&seen| sum.asks_seen[seen as usize] == 0).collect::<Vec<_>>();
    let all_seen = Cell::new(false);
    let seeds = (0..ASK_SEEDS).filter(|&seed| AsksPlan::has(seed)).take_while(|_| !all_seen.get());
    let sum = Sum::of(seeds, None, |sum| all_seen.set(sum.runs >= 50 && never(sum).is_empty()));
    println!("{}; of asks: {}", sum.describe(), sum.describe_asks());
    assert!(sum.failures.is_empty(), "{:?}", sum.failures);
    let never = never(&sum);
    assert!(never.is_empty(), "these happened in no run: {never:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..40 {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        assert_eq!((first.hash, first.simulated_us), (second.hash, second.simulated_us), "seed {seed}");
    }
}

/// Each defect is found within so many seeds.
#[test]
fn a_defect_in_any_part_is_found() {
    use Sabotage::*;
    let all = [
        LyingSync,
        ForgottenSessions,
        ForgottenBlocks,
        ForgedPayload,
        AcksBeyond,
        DoubleReply,
        FloorsBack,
        SinkForgets,
        LaneSkips,
        DamageSkipped,
        AcksAfterFailure,
        Starved,
        OneATimeout,
        ForgottenEpochs,
        ForgottenLimit,
        TargetForgets,
        LossesHidden,
        HolderIgnored,
        AnswerEarly,
        MarkBeforeAnswer,
        ForgottenAnswers,
        ForgottenAsks,
        AnswerToNewest,
        HeldBeyond,
        AnswerTooLong,
    ];
    for sabotage in all {
        let found = (0..200).find_map(|seed| sabotaged(seed, Some(sabotage)).violation.map(|what| (seed, what)));
        let (seed, what) = found.unwrap_or_else(|| panic!("{sabotage:?} goes unnoticed"));
        println!("{sabotage:?}: seed {seed}: {what}");
    }
}

/// `scripts/sim` runs this with its arguments in the environment.
#[test]
#[ignore = "run by scripts/sim"]
fn as_told() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    if let Some(seed) = number("SIM_SEED") {
        let outcome = run(seed, None, std::env::var_os("SIM_TRACE").is_some());
        println!("seed {seed}: trace {:016x}, {:?}", outcome.hash, outcome.counts);
        assert_eq!(outcome.violation, None);
        return;
    }
    let (from, seeds) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(10_000));
    let until = number("SIM_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut said = Instant::now();
    let sum = Sum::of(from..from + seeds, until, |sum| {
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            println!(
                "{} of {seeds} seeds, {} failed, {:.0} times real time",
                sum.runs,
                sum.failures.len(),
                sum.speed()
            );
        }
    });
    println!("seeds from {from}: {}; of asks: {}; trace {:016x}", sum.describe(), sum.describe_asks(), sum.hash);
    assert!(sum.failures.is_empty(), "{:?}", sum.failures);
}
