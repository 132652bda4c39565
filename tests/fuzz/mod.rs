//! The fuzz targets, run on the stable tool chain: from the inputs in `corpus`, the golden datagrams and the golden block, each mutated
//! from a fixed seed. `scripts/fuzz TARGET` runs one for as long as one likes. A failing input is cut down and printed as a
//! line for `corpus/TARGET.txt`, one input in hexadecimal a line.

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use mutate::Random;

/// A target, and the number of inputs that `scripts/test` gives it: a few seconds' worth.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    inputs: u64,
    /// The longest that mutation makes, in bytes.
    bytes_max: usize,
}

static TARGETS: [Target; 5] = [
    Target { name: "decoder", run: targets::decoder, inputs: 200_000, bytes_max: 2000 },
    Target { name: "session", run: targets::session, inputs: 10_000, bytes_max: 1000 },
    Target { name: "block", run: targets::block, inputs: 50_000, bytes_max: 1000 },
    Target { name: "keys", run: targets::keys, inputs: 50_000, bytes_max: 1000 },
    // Few: `tests/damage` has its own run of the same.
    Target { name: "recovery", run: targets::recovery, inputs: 60, bytes_max: 200 },
];

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("there is no target {name}"))
}

#[test]
fn the_decoder_takes_any_bytes() {
    fuzz(target("decoder"), 0x5eed, target("decoder").inputs, None);
}

#[test]
fn a_server_keeps_its_promises_whatever_comes_and_whenever_it_dies() {
    fuzz(target("session"), 0x5eed, target("session").inputs, None);
}

#[test]
fn the_block_reader_takes_any_bytes_and_gives_back_what_was_written() {
    fuzz(target("block"), 0x5eed, target("block").inputs, None);
}

#[test]
fn the_reader_of_key_files_takes_any_bytes_and_finds_what_was_meant() {
    fuzz(target("keys"), 0x5eed, target("keys").inputs, None);
}

#[test]
fn a_directory_hurt_as_the_bytes_say_is_as_it_was_or_refused() {
    fuzz(target("recovery"), 0x5eed, target("recovery").inputs, None);
}

/// For `scripts/fuzz`.
#[test]
#[ignore = "as long as one likes"]
fn one_target() {
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let number = |name: &str| var(name).parse().unwrap_or_else(|_| panic!("{name} is no number"));
    let until = Instant::now() + Duration::from_secs(number("DURAGRAM_FUZZ_SECONDS"));
    let seed = number("DURAGRAM_FUZZ_SEED");
    let inputs = fuzz(target(&var("DURAGRAM_FUZZ_TARGET")), seed, u64::MAX, Some(until));
    eprintln!("{inputs} inputs, no failure");
}

/// The corpus as it is, then mutations of it. Returns how many inputs there were.
fn fuzz(target: &Target, seed: u64, inputs: u64, until: Option<Instant>) -> u64 {
    let corpus = corpus(target.name);
    for input in &corpus {
        attempt(target, input);
    }
    let mut random = Random(seed);
    let mut shown = Instant::now();
    for done in 0..inputs {
        // The clock costs as much as a short input.
        if done.is_multiple_of(64)
            && let Some(until) = until
        {
            if Instant::now() >= until {
                return done;
            }
            if shown.elapsed() > Duration::from_secs(10) {
                eprintln!("{}: {done} inputs", target.name);
                shown = Instant::now();
            }
        }
        attempt(target, &random.input(&corpus, target.bytes_max));
    }
    inputs
}

fn attempt(target: &Target, input: &[u8]) {
    let fails = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| (target.run)(input))).err();
    let Some(panic) = fails(input) else { return };
    // The shortest that fails still, by leaving out ever smaller pieces.
    let mut shortest = input.to_vec();
    let mut piece = shortest.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < shortest.len() {
            let mut shorter = shortest.clone();
            shorter.drain(at..(at + piece).min(shorter.len()));
            if fails(&shorter).is_some() {
                shortest = shorter;
            } else {
                at += piece;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    eprintln!("add this line to tests/fuzz/corpus/{}.txt:\n{}", target.name, hex(&shortest));
    resume_unwind(panic);
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut corpus: Vec<Vec<u8>> = read(&format!("tests/fuzz/corpus/{name}.txt"))
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(bytes)
        .collect();
    match name {
        "decoder" => {
            let golden: serde_json::Value =
                serde_json::from_str(&read("proto-spec/vectors/datagrams.json")).expect("valid JSON");
            let golden = golden["datagrams"].as_array().expect("a list");
            corpus.extend(golden.iter().map(|vector| bytes(vector["hex"].as_str().expect("a text"))));
        }
        "block" => corpus.push(include_bytes!("../../src/journal/testdata/block_v1.bin").to_vec()),
        _ => {}
    }
    assert!(!corpus.is_empty());
    corpus
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
