//! Runs over many seeds, and what they came to.

use std::time::{Duration, Instant};

use crate::asks::AskSeen;
use crate::core::{Counts, Sabotage};
use crate::sinks::Seen;
use crate::world::{Outcome, run};

/// The sum of many runs.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) runs: u64,
    pub(crate) simulated_us: u64,
    pub(crate) took: Duration,
    pub(crate) hash: u64,
    pub(crate) counts: Counts,
    pub(crate) seen: [u64; Seen::COUNT],
    pub(crate) asks_seen: [u64; AskSeen::COUNT],
    pub(crate) failures: Vec<(u64, String)>,
}

impl Sum {
    /// Runs these seeds until `until`.
    pub(crate) fn of(seeds: impl Iterator<Item = u64>, until: Option<Instant>, mut each: impl FnMut(&Self)) -> Self {
        let mut sum = Self::default();
        for seed in seeds {
            let began = Instant::now();
            let outcome = catch(seed);
            sum.took += began.elapsed();
            sum.add(seed, &outcome);
            each(&sum);
            if until.is_some_and(|until| Instant::now() > until) {
                break;
            }
        }
        sum
    }

    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.runs += 1;
        self.simulated_us += outcome.simulated_us;
        self.hash = self.hash.rotate_left(1) ^ outcome.hash;
        self.seen.iter_mut().zip(outcome.seen).for_each(|(sum, one)| *sum += one);
        self.asks_seen.iter_mut().zip(outcome.asks_seen).for_each(|(sum, one)| *sum += one);
        let (sum, one) = (&mut self.counts, &outcome.counts);
        sum.datagrams += one.datagrams;
        sum.writes += one.writes;
        sum.starts += one.starts;
        sum.refused_starts += one.refused_starts;
        sum.kills += one.kills;
        sum.power_cuts += one.power_cuts;
        sum.storage_failures += one.storage_failures;
        sum.damages += one.damages;
        sum.panics += one.panics;
        sum.acked += one.acked;
        sum.expired += one.expired;
        sum.epochs += one.epochs;
        if let Some(violation) = &outcome.violation {
            println!("\nSEED {seed} FAILS: {violation}\n    scripts/sim --seed {seed} --trace");
            self.failures.push((seed, violation.clone()));
        }
    }

    /// Simulated seconds in a real one.
    pub(crate) fn speed(&self) -> f64 {
        self.simulated_us as f64 / 1e6 / self.took.as_secs_f64().max(1e-9)
    }

    /// How often what happened to sinks.
    pub(crate) fn describe_sinks(&self) -> String {
        Seen::ALL.map(|seen| format!("{seen:?} {}", self.seen[seen as usize])).join(", ")
    }

    /// How often what happened to asks.
    pub(crate) fn describe_asks(&self) -> String {
        AskSeen::ALL.map(|seen| format!("{seen:?} {}", self.asks_seen[seen as usize])).join(", ")
    }

    pub(crate) fn describe(&self) -> String {
        let Counts { datagrams, writes, starts, refused_starts, kills, power_cuts, .. } = self.counts;
        let Counts { storage_failures, damages, panics, acked, expired, epochs, .. } = self.counts;
        format!(
            "{} runs, {} failed; {:.0} simulated s in {:.1} s: {:.0} times real time; {datagrams} datagrams, {acked} \
             messages acked, {writes} writes, {starts} starts, {kills} kills, {power_cuts} power cuts, {storage_failures} \
             failed writes, {damages} damages ({refused_starts} starts refused), {panics} panics of \
             handlers, {epochs} epochs, {expired} sessions expired",
            self.runs,
            self.failures.len(),
            self.simulated_us as f64 / 1e6,
            self.took.as_secs_f64(),
            self.speed(),
        )
    }
}

/// A panic anywhere in the server's parts is a violation too.
fn catch(seed: u64) -> Outcome {
    sabotaged(seed, None)
}

pub(crate) fn sabotaged(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    std::panic::catch_unwind(|| run(seed, sabotage, false)).unwrap_or_else(|_| Outcome {
        violation: Some("panic".into()),
        simulated_us: 0,
        hash: 0,
        counts: Counts::default(),
        seen: Default::default(),
        asks_seen: Default::default(),
    })
}
