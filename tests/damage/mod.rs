//! Damage at rest: data directories that the real journal has made are hurt at random, and opened.
//!
//! Whatever was hurt, one of two things must come of it: everything is there as it was, or the start is refused as damaged
//! (exit code 3) and not a byte has changed. Where a directory's witness is older than its end, as a power cut leaves it,
//! what came after the witness may be missing too, but only from the end on, whole commits.
//!
//! `scripts/test` runs a few hundred rounds; `scripts/damage --rounds N --seed S` as many as one likes. A failing round says
//! its seed and keeps the directory as it was hurt: journals draw masks and times of their own, so the same seed hurts in the
//! same way but not the same bytes.

mod hurt;
mod shapes;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use duragram::journal::{OpenError, inspect};

use hurt::hurt;
use shapes::Shape;
use state::{Files, Random, State, accepting, commit_one, in_memory, open, plain, read_files, write_files};

/// What became of a hurt directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    Identical,
    /// What came after the witness is missing.
    Shorter,
    Refused,
}

/// Hurts a copy of the shape by this seed, and looks what becomes of it. An error says what is wrong.
fn round(shape: &Shape, seed: u64) -> Result<(String, Outcome), String> {
    hurt_and_look(shape, Random::new(seed), &format!("seed {seed}"))
}

/// A round by a fuzzer's bytes: which shape, then how it is hurt.
pub(crate) fn chosen_round(input: &[u8]) {
    static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(shapes::all);
    let Some((&shape, how)) = input.split_first() else { return };
    let shape = &SHAPES[usize::from(shape) % SHAPES.len()];
    if let Err(failure) = hurt_and_look(shape, Random::chosen(how), "fuzzed") {
        panic!("{failure}");
    }
}

fn hurt_and_look(shape: &Shape, mut random: Random, from: &str) -> Result<(String, Outcome), String> {
    let mut files = shape.files.clone();
    let what = hurt(&mut files, &shape.older, &mut random);
    let home = in_memory();
    let path = home.path().join("data");
    write_files(&path, &files);
    let attempt = catch_unwind(AssertUnwindSafe(|| check(shape, &path, &files, &mut random)));
    let failure = match attempt {
        Ok(Ok(outcome)) => return Ok((what, outcome)),
        Ok(Err(problem)) => problem,
        Err(panic) => format!("panicked: {:?}", panic.downcast_ref::<String>()),
    };
    let kept = std::env::temp_dir().join(format!("duragram-damage-{}-{}", shape.name, from.replace(' ', "-")));
    write_files(&kept, &files);
    Err(format!("shape {}, {from}: {what}: {failure}\n  the directory is kept in {}", shape.name, kept.display()))
}

fn check(shape: &Shape, path: &Path, files: &Files, random: &mut Random) -> Result<Outcome, String> {
    let verified = random.one_in(8).then(|| inspect::verify(path).map(|verified| verified.damage.len()));
    if verified.is_some() {
        unchanged(path, files).map_err(|problem| format!("`journal verify` has changed {problem}"))?;
    }
    let refused = match open(path, &plain()) {
        Ok(mut opened) => {
            let state = State::of(&opened);
            if let Some(Ok(found @ 1..)) = verified {
                return Err(format!("it starts, and `journal verify` finds {found} damages"));
            }
            let outcome = match shape.states.iter().position(|good| *good == state) {
                Some(0) => Outcome::Identical,
                Some(_) => Outcome::Shorter,
                None => {
                    return Err(format!("it starts, and is not what it was: {}", state.difference(&shape.states[0])));
                }
            };
            if random.one_in(8) {
                let end = commit_one(&mut opened.opened.journal);
                drop(opened);
                let again = open(path, &plain()).map_err(|error| format!("the start after it: {error}"))?;
                if again.opened.end != end {
                    return Err(format!("what was committed after it is gone: {} is not {end}", again.opened.end));
                }
            }
            return Ok(outcome);
        }
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => return Err(format!("neither a start nor exit code 3: {other}")),
    };
    unchanged(path, files).map_err(|problem| format!("refused ({refused}), but changed: {problem}"))?;
    match verified {
        None | Some(Ok(1..) | Err(OpenError::Damaged(_))) => {}
        Some(other) => return Err(format!("refused ({refused}), and `journal verify` says {other:?}")),
    }
    if random.one_in(8) {
        accept(shape, path, &refused.to_string(), random)?;
    }
    Ok(Outcome::Refused)
}

/// What an operator does then. All that is kept was there, and the journal serves on, also when more is lost.
fn accept(shape: &Shape, path: &Path, refused: &str, random: &mut Random) -> Result<(), String> {
    for again in 0..3 {
        let mut opened =
            open(path, &accepting()).map_err(|error| format!("{refused}; accepted {again} times: {error}"))?;
        let state = State::of(&opened);
        if let Some(stranger) = state.stranger_to(&shape.states[0]) {
            return Err(format!("{refused}; accepted, and there is {stranger}, which was not"));
        }
        if opened.opened.end < shape.states[0].end {
            return Err(format!("{refused}; accepted, and offsets from {} on are used again", opened.opened.end));
        }
        let end = commit_one(&mut opened.opened.journal);
        drop(opened);
        let sound =
            open(path, &plain()).map_err(|error| format!("{refused}; the start after accepting it: {error}"))?;
        if sound.opened.end != end {
            return Err(format!("{refused}; accepted, and what came after it is gone"));
        }
        drop(sound);
        let mut files = read_files(path);
        hurt(&mut files, &[], random);
        fs::remove_dir_all(path).map_err(|error| error.to_string())?;
        write_files(path, &files);
    }
    Ok(())
}

/// A missing lock may have been made.
fn unchanged(path: &Path, before: &Files) -> Result<(), String> {
    let mut after = read_files(path);
    if !before.contains_key("lock") {
        after.remove("lock");
    }
    let names = before.keys().chain(after.keys());
    match names.into_iter().find(|name| before.get(*name) != after.get(*name)) {
        Some(name) => Err(name.clone()),
        None => Ok(()),
    }
}

/// How many rounds, by what was hurt and what became of it.
type Sums = BTreeMap<(String, Outcome), u64>;

/// Rounds on all shapes in turn. The sums, by what was hurt and what became of it.
fn rounds(count: u64, seed: u64, progress: bool) -> Sums {
    let shapes = shapes::all();
    let workers = 2;
    let start = Instant::now();
    let work = |worker: u64| {
        let mut sums = Sums::new();
        let mut failures = Vec::new();
        for number in (worker..count).step_by(2) {
            let shape = &shapes[usize::try_from(number).unwrap() % shapes.len()];
            match round(shape, Random::new(seed.wrapping_add(number)).next()) {
                Ok(key) => *sums.entry(key).or_default() += 1,
                Err(failure) => {
                    eprintln!("{failure}");
                    failures.push(failure);
                }
            }
            if progress && worker == 0 && number % 1000 == 0 && number > 0 {
                eprintln!("{number} of {count} rounds in {} s", start.elapsed().as_secs());
            }
            if failures.len() > 20 {
                break;
            }
        }
        (sums, failures)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = Sums::new();
    let mut failed = Vec::new();
    for (sums, failures) in results {
        for (key, n) in sums {
            *all.entry(key).or_default() += n;
        }
        failed.extend(failures);
    }
    assert!(failed.is_empty(), "{} rounds failed; the first: {}", failed.len(), failed[0]);
    all
}

#[test]
fn a_directory_hurt_at_random_is_as_it_was_or_refused_and_left_alone() {
    let sums = rounds(400, 0x0001_5eed, false);
    let refused: u64 = sums.iter().filter(|((_, outcome), _)| *outcome == Outcome::Refused).map(|(_, n)| n).sum();
    assert!(refused > 100, "{sums:?}");
}

/// For `scripts/damage`.
#[test]
#[ignore = "as long as one likes"]
fn many_directories_hurt_at_random() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let sums = rounds(number("DURAGRAM_DAMAGE_ROUNDS", 10_000), number("DURAGRAM_DAMAGE_SEED", 1), true);
    let mut table = BTreeMap::<&str, BTreeMap<Outcome, u64>>::new();
    for ((what, outcome), n) in &sums {
        *table.entry(what).or_default().entry(*outcome).or_default() += n;
    }
    for (what, outcomes) in table {
        eprintln!("{what:<40} {outcomes:?}");
    }
}

/// One round by its shape and seed, as a failing one prints them.
#[test]
#[ignore = "for one seed"]
fn one_round() {
    let shape = std::env::var("DURAGRAM_DAMAGE_SHAPE").unwrap();
    let seed = std::env::var("DURAGRAM_DAMAGE_SEED").unwrap().parse().unwrap();
    let shapes = shapes::all();
    let shape = shapes.iter().find(|other| other.name == shape).unwrap();
    eprintln!("{:?}", round(shape, seed));
}
