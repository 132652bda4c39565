//! The rules of a session against a set of numbers, which knows nothing of words, bits and bounds.

use std::collections::BTreeSet;

use duragram_proto::{ClientId, Epoch, Seq};
use proptest::prelude::*;

use crate::dialect::duragram::session::{FloorMove, Judgement, Session};
use crate::model::SessionId;

/// Everything up to `floor` is accounted for, and what is in `above`.
struct Model {
    floor: u64,
    above: BTreeSet<u64>,
}

impl Model {
    fn receive(&mut self, seq: u64, base: u64, skip: bool, window: u64) -> Judgement {
        if base - 1 > self.floor + window {
            return Judgement::Stale;
        }
        let passed = (self.floor + 1..base).filter(|seq| !self.above.contains(seq)).collect::<Vec<_>>();
        self.floor = self.floor.max(base - 1);
        self.settle();
        let moved = if skip {
            FloorMove { abandoned: passed.len() as u64, lost: Vec::new() }
        } else {
            let runs = passed.chunk_by(|a, b| a + 1 == *b);
            FloorMove { abandoned: 0, lost: runs.map(|run| (Seq(run[0]), Seq(run[run.len() - 1]))).collect() }
        };
        if self.holds(seq) {
            Judgement::Duplicate(moved)
        } else if seq > self.floor + window {
            Judgement::BeyondWindow(moved)
        } else {
            self.above.insert(seq);
            self.settle();
            Judgement::New(moved)
        }
    }

    fn settle(&mut self) {
        while self.above.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
        self.above.retain(|seq| *seq > self.floor);
    }

    fn holds(&self, seq: u64) -> bool {
        seq <= self.floor || self.above.contains(&seq)
    }
}

proptest! {
    #[test]
    fn a_session_judges_as_a_set_of_numbers_does(
        start in prop_oneof![Just(0_u64), 0_u64..300, Just(u64::MAX / 2)],
        datagrams in prop::collection::vec((1_u64..200, 0_u64..80, any::<bool>(), 1_u16..150, any::<bool>()), 1..120),
    ) {
        let id = SessionId { client: ClientId(1), epoch: Epoch::new(1).unwrap() };
        let mut session = Session::new(id, Seq(start), None);
        let mut model = Model { floor: start, above: BTreeSet::new() };
        for (ahead, span, skip, window, restart) in datagrams {
            if restart {
                session = Session::restore(&session.record()).expect("a session made it");
            }
            // Around the floor, where the rules meet.
            let seq = (model.floor + ahead).saturating_sub(60).max(1);
            let base = seq - span.min(seq - 1);
            let judged = session.receive(Seq(seq), Seq(base), skip, window);
            prop_assert_eq!(judged, model.receive(seq, base, skip, window.into()));
            prop_assert_eq!(session.floor(), Seq(model.floor));
            prop_assert_eq!(session.has_gaps(), !model.above.is_empty());
            for seq in model.floor.saturating_sub(2)..model.floor + 300 {
                prop_assert_eq!(session.holds(Seq(seq)), model.holds(seq), "{}", seq);
            }
            let mut bitmap = [0; 128];
            let len = session.write_bitmap(&mut bitmap);
            let bits: BTreeSet<u64> = (0..len * 8).filter(|i| bitmap[i / 8] >> (i % 8) & 1 == 1).map(|i| model.floor + 1 + i as u64).collect();
            prop_assert_eq!(bits, model.above.clone());
        }
    }
}
