//! The window against a plain set, over random operations.

use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;

use super::{DedupWindow, Verdict};
use crate::Seq;

/// What the window must be: a floor and a set.
#[derive(Clone, Debug)]
struct Model {
    floor: u64,
    set: BTreeSet<u64>,
}

impl Model {
    fn classify(&self, seq: u64, window: u16) -> Verdict {
        if seq <= self.floor || self.set.contains(&seq) {
            Verdict::Duplicate
        } else if seq - self.floor > u64::from(window) {
            Verdict::BeyondWindow
        } else {
            Verdict::New
        }
    }

    fn insert(&mut self, seq: u64) -> bool {
        let new = seq > self.floor && self.set.insert(seq);
        self.absorb();
        new
    }

    fn advance_to(&mut self, floor: u64) -> u64 {
        if floor <= self.floor {
            return 0;
        }
        let missing = (self.floor + 1..=floor).filter(|seq| !self.set.contains(seq)).count();
        self.floor = floor;
        self.set.retain(|seq| *seq > floor);
        self.absorb();
        missing as u64
    }

    fn absorb(&mut self) {
        while self.floor < u64::MAX && self.set.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
    }

    fn words(&self) -> Vec<u64> {
        let mut words = Vec::new();
        for seq in &self.set {
            let bit = seq - self.floor - 1;
            words.resize(words.len().max((bit / 64) as usize + 1), 0);
            words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        words
    }
}

#[derive(Clone, Debug)]
enum Operation {
    /// Seq `floor + n`, if the window accepts it.
    Insert(u64),
    /// Inserts seq `floor − n`, which was accounted for before.
    InsertBelow(u64),
    /// Seqs `floor + n ..`, many of them.
    InsertRun(u64, u64),
    /// Moves the floor up to `floor + n`.
    Advance(u64),
    Shrink,
    PersistAndRestore,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let near = prop_oneof![4 => 0..8u64, 4 => 0..200u64, 1 => 0..5_000u64, 1 => 65_000..65_536u64];
    let operation = prop_oneof![
        10 => near.clone().prop_map(Operation::Insert),
        1 => (0..100u64).prop_map(Operation::InsertBelow),
        2 => (near.clone(), 1..200u64).prop_map(|(at, n)| Operation::InsertRun(at, n)),
        2 => near.prop_map(Operation::Advance),
        1 => Just(Operation::Shrink),
        1 => Just(Operation::PersistAndRestore),
    ];
    prop::collection::vec(operation, 1..120)
}

fn check_same(window: &DedupWindow, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(window.floor(), Seq(model.floor));
    prop_assert_eq!(window.highest().0, model.set.last().copied().unwrap_or(model.floor));
    let words: Vec<u64> = window.words().collect();
    prop_assert_eq!(&words, &model.words());
    for room in [0, 7, 8, 23, 128, 300] {
        let mut out = [0xee; 300];
        let len = window.write_bitmap(&mut out[..room]);
        let mut expected: Vec<u64> = model.words();
        expected.truncate(room.min(128) / 8);
        while expected.last() == Some(&0) {
            expected.pop();
        }
        let expected: Vec<u8> = expected.iter().flat_map(|word| word.to_le_bytes()).collect();
        prop_assert_eq!(&out[..len], &expected[..]);
        prop_assert!(out[room..].iter().all(|byte| *byte == 0xee), "wrote beyond the room given");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn it_answers_as_a_plain_set_does(
        floor in prop_oneof![0..200u64, any::<u64>().prop_map(|n| n / 2)],
        window in prop_oneof![Just(1u16), Just(64), Just(1_000), Just(u16::MAX)],
        operations in operations(),
    ) {
        let mut model = Model { floor, set: BTreeSet::new() };
        let mut real = DedupWindow::new(Seq(floor));
        for operation in operations {
            match operation {
                Operation::Insert(n) => {
                    let seq = model.floor + n;
                    prop_assert_eq!(real.classify(Seq(seq), window), model.classify(seq, window));
                    if model.classify(seq, window) != Verdict::BeyondWindow {
                        prop_assert_eq!(real.insert(Seq(seq)), model.insert(seq));
                        prop_assert!(real.contains(Seq(seq)));
                    }
                }
                Operation::InsertBelow(n) => {
                    let seq = Seq(model.floor.saturating_sub(n));
                    prop_assert_eq!(real.classify(seq, window), Verdict::Duplicate);
                    prop_assert!(!real.insert(seq));
                }
                Operation::InsertRun(at, n) => {
                    let first = model.floor + at;
                    for seq in first..first + n {
                        if model.classify(seq, window) == Verdict::New {
                            prop_assert!(real.insert(Seq(seq)));
                            model.insert(seq);
                        }
                    }
                }
                Operation::Advance(n) => {
                    let to = model.floor + n;
                    prop_assert_eq!(real.advance_to(Seq(to)), model.advance_to(to));
                }
                Operation::Shrink => real.shrink(),
                Operation::PersistAndRestore => {
                    let words: Vec<u64> = real.words().collect();
                    real = DedupWindow::from_words(real.floor(), &words).expect("its own words");
                }
            }
            check_same(&real, &model)?;
        }
    }
}

#[test]
fn a_session_in_order_holds_no_heap() {
    let mut window = DedupWindow::new(Seq(41));
    for seq in 42..10_000 {
        assert!(window.insert(Seq(seq)));
        assert_eq!(window.floor(), Seq(seq));
    }
    assert_eq!(window.heap_bytes(), 0);
    assert_eq!(window.advance_to(Seq(20_000)), 10_001);
    assert_eq!(window.heap_bytes(), 0);
}

#[test]
fn shrinking_gives_back_what_reordering_took() {
    let mut window = DedupWindow::new(Seq(0));
    window.insert(Seq(60_000));
    assert!(window.heap_bytes() >= 60_000 / 8);
    window.insert(Seq(59_999));
    window.advance_to(Seq(59_998));
    assert_eq!(window.floor(), Seq(60_000));
    window.shrink();
    assert_eq!(window.heap_bytes(), 0);
    window.insert(Seq(60_002));
    window.shrink();
    assert_eq!(window.heap_bytes(), 8);
    assert_eq!(window.classify(Seq(60_002), 10), Verdict::Duplicate);
}

#[test]
fn its_memory_is_bounded_by_the_widest_window() {
    for floor in [0, 1, 63, 64, 12_345] {
        let mut window = DedupWindow::new(Seq(floor));
        window.insert(Seq(floor + u64::from(u16::MAX)));
        assert!(window.heap_bytes() <= 16 * 1024);
    }
}

#[test]
fn it_works_up_to_the_last_seq() {
    let mut window = DedupWindow::new(Seq(u64::MAX - 3));
    assert!(window.insert(Seq(u64::MAX)));
    assert!(window.insert(Seq(u64::MAX - 2)));
    assert_eq!(window.floor(), Seq(u64::MAX - 2));
    assert_eq!(window.words().collect::<Vec<_>>(), [0b10]);
    assert!(window.insert(Seq(u64::MAX - 1)));
    assert_eq!(window.floor(), Seq(u64::MAX));
    assert_eq!(window.classify(Seq(u64::MAX), u16::MAX), Verdict::Duplicate);
    assert_eq!(window.words().count(), 0);
}

#[test]
fn words_that_no_window_can_have_written_are_refused() {
    assert_eq!(DedupWindow::from_words(Seq(u64::MAX - 1), &[0b10]), None);
    let mut words = [0; 1_025];
    words[1_023] = 1 << 63;
    assert_eq!(DedupWindow::from_words(Seq(5), &words), None, "65,536 above the floor");
    words[1_023] = 1 << 62;
    let window = DedupWindow::from_words(Seq(5), &words).expect("65,535 above the floor");
    assert_eq!(window.highest(), Seq(5 + 65_535));
}

#[test]
fn what_is_missing_is_told_in_runs_as_a_walk_over_all_seqs_finds_it() {
    let walk = |window: &DedupWindow, to: u64| {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for seq in window.floor().0 + 1..=to {
            match runs.last_mut() {
                _ if window.contains(Seq(seq)) => {}
                Some((_, last)) if *last + 1 == seq => *last = seq,
                _ => runs.push((seq, seq)),
            }
        }
        runs
    };
    // The last as near to the end as what is looked at allows.
    for floor in [0, 1, 63, 64, 1000, u64::MAX / 2, u64::MAX - 900] {
        for step in [1, 2, 3, 63, 64, 65, 200] {
            let mut window = DedupWindow::new(Seq(floor));
            for above in (2..700).filter(|above| above / step % 2 == 1) {
                window.insert(Seq(floor + above));
            }
            for to in (0..900).step_by(7) {
                let runs: Vec<_> = window.missing_up_to(Seq(floor + to)).into_iter().map(|(a, b)| (a.0, b.0)).collect();
                assert_eq!(runs, walk(&window, floor + to), "floor {floor}, step {step}, to {to}");
            }
        }
    }
}

#[test]
fn what_is_missing_up_to_the_last_seq_is_told_without_a_walk_to_it() {
    let window = DedupWindow::new(Seq(3));
    assert_eq!(window.missing_up_to(Seq(u64::MAX)), [(Seq(4), Seq(u64::MAX))]);
    let mut window = DedupWindow::new(Seq(u64::MAX - 5));
    window.insert(Seq(u64::MAX));
    window.insert(Seq(u64::MAX - 2));
    let missing = [(Seq(u64::MAX - 4), Seq(u64::MAX - 3)), (Seq(u64::MAX - 1), Seq(u64::MAX - 1))];
    assert_eq!(window.missing_up_to(Seq(u64::MAX)), missing);
    assert_eq!(DedupWindow::new(Seq(u64::MAX)).missing_up_to(Seq(u64::MAX)), []);
    // The last seq alone in a word of the bitmap, in its last place, and in others.
    for below in 1..200 {
        let floor = u64::MAX - below;
        let mut window = DedupWindow::new(Seq(floor));
        if below > 1 {
            window.insert(Seq(u64::MAX));
            assert_eq!(window.missing_up_to(Seq(u64::MAX)), [(Seq(floor + 1), Seq(u64::MAX - 1))], "{below}");
        }
    }
}
