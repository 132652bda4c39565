//! Flows over a simulated bad path against a server with the rules of a session.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use duragram_proto::Seq;
use duragram_proto::codec::{Ack, Durability, RejectCode};
use duragram_proto::window::{DedupWindow, Verdict};
use proptest::prelude::*;

use super::super::{MS, Outgoing};
use super::{CLIENT, Rig, SECOND, next};

/// What is under way, by arrival and number.
type Path<T> = BTreeMap<(u64, Reverse<u64>), T>;

/// A server's session behind a path that loses, repeats and delays.
struct World {
    rig: Rig,
    random: TestRandom,
    loss_percent: u32,
    window: u16,
    journal: Option<DedupWindow>,
    to_server: Path<Outgoing>,
    to_client: Path<(Option<u64>, u64, Vec<u8>)>,
    number: u64,
    highest: u64,
}

struct TestRandom(u64);

impl TestRandom {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

impl World {
    fn arrivals(&mut self) -> Vec<(u64, Reverse<u64>)> {
        let mut copies = 0;
        if self.random.below(100) >= u64::from(self.loss_percent) {
            copies = 1 + u64::from(self.random.below(50) == 0);
        }
        (0..copies)
            .map(|_| {
                self.number += 1;
                let late_us = if self.random.below(10) == 0 { self.random.below(5_000) } else { self.random.below(20) };
                (self.rig.now_ns + 1_000 * (100 + late_us), Reverse(self.number))
            })
            .collect()
    }

    /// Until all is acked. Returns whether that came to pass in ten simulated minutes.
    fn run(&mut self) -> bool {
        let messages = self.rig.flow.released;
        let mut next_look_ns = 0;
        while self.rig.tally.acked < messages {
            while let Some(outgoing) = next(&mut self.rig.flow, self.rig.now_ns, &mut self.rig.tally) {
                for at in self.arrivals() {
                    self.to_server.insert(at, outgoing);
                }
            }
            next_look_ns = next_look_ns.max(self.rig.now_ns / (10 * MS) * (10 * MS) + 10 * MS);
            let first = |path: Option<&(u64, Reverse<u64>)>| path.map_or(u64::MAX, |(at_ns, _)| *at_ns);
            let to_server_ns = first(self.to_server.keys().next());
            let to_client_ns = first(self.to_client.keys().next());
            self.rig.now_ns = to_server_ns.min(to_client_ns).min(next_look_ns).max(self.rig.now_ns);
            if self.rig.now_ns > 601 * SECOND {
                return false;
            }
            if to_server_ns <= self.rig.now_ns {
                let (_, outgoing) = self.to_server.pop_first().unwrap();
                self.serve(outgoing);
            } else if to_client_ns <= self.rig.now_ns {
                let (_, (refused, floor, bitmap)) = self.to_client.pop_first().unwrap();
                self.answer(refused, floor, &bitmap);
            } else {
                self.rig.flow.handle_time(self.rig.now_ns);
            }
        }
        true
    }

    fn serve(&mut self, outgoing: Outgoing) {
        let mut refused = None;
        if let Outgoing::Data { seq, span, .. } = outgoing {
            let base = seq - u64::from(span);
            let journal = self.journal.get_or_insert_with(|| DedupWindow::new(Seq(base - 1)));
            assert!(base - 1 <= journal.floor().0, "it claims acks that were never sent: base {base}");
            match journal.classify(Seq(seq), self.window) {
                Verdict::New => assert!(journal.insert(Seq(seq))),
                Verdict::Duplicate => {}
                Verdict::BeyondWindow => refused = Some(seq),
            }
            self.highest = self.highest.max(seq);
        }
        let mut bitmap = [0; 96];
        let (mut floor, mut len) = (0, 0);
        if let Some(journal) = &self.journal {
            floor = journal.floor().0;
            len = journal.write_bitmap(&mut bitmap);
        }
        for at in self.arrivals() {
            self.to_client.insert(at, (refused, floor, bitmap[..len].to_vec()));
        }
    }

    fn answer(&mut self, refused: Option<u64>, floor: u64, bitmap: &[u8]) {
        if let Some(seq) = refused {
            assert!(self.rig.reject(seq, RejectCode::BeyondWindow, 0).is_ok());
            return;
        }
        let ack = Ack {
            client: CLIENT,
            epoch: self.rig.flow.epoch,
            floor: Seq(floor),
            credit: self.window,
            durability: Durability::Synced,
            duplicate: false,
            complete: bitmap.len() < 96,
            ready: false,
            delay_us: 0,
            bitmap,
        };
        assert!(self.rig.flow.handle_ack(self.rig.now_ns, &ack, &mut self.rig.tally));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the path does, each message is journaled and counted as acked exactly once, with seqs from 1 on, and no
    /// ack is claimed that did not come.
    #[test]
    fn every_message_arrives_over_a_bad_path(
        seed: u64,
        window in prop_oneof![Just(1), 2..50u16, Just(1_500)],
        server_window in prop_oneof![1..20u16, Just(4_096)],
        messages in 1..3_000u64,
        loss_percent in prop_oneof![Just(0), 1..40u32],
    ) {
        // With a short window most losses cost a timeout.
        let messages = if window.min(server_window) < 50 { messages / 20 + 1 } else { messages };
        let mut world = World {
            rig: Rig::new(window, messages),
            random: TestRandom(seed),
            loss_percent,
            window: server_window,
            journal: None,
            to_server: Path::new(),
            to_client: Path::new(),
            number: 0,
            highest: 0,
        };
        prop_assert!(world.run(), "not done in ten minutes: {:?}", world.rig.flow);
        let tally = &world.rig.tally;
        prop_assert_eq!((tally.acked, tally.started, world.highest), (messages, messages, messages));
        let journal = world.journal.unwrap();
        prop_assert_eq!((journal.floor(), journal.highest()), (Seq(messages), Seq(messages)));
        if loss_percent >= 10 && messages > 500 {
            prop_assert!(tally.resent > 0);
        }
    }
}
