//! The rules by example, and recovery by the same code.

mod model;

use duragram_proto::{ClientId, Epoch, Seq};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::limits;
use crate::model::SessionId;

const WINDOW: u16 = 100;

fn id(client: u64, epoch: u32) -> SessionId {
    SessionId { client: ClientId(client), epoch: Epoch::new(epoch).unwrap() }
}

fn session(floor: u64) -> Session {
    Session::new(id(1, 1), Seq(floor), None)
}

/// Receives `seq` from a client that holds everything from `base` unacked.
fn receive(session: &mut Session, seq: u64, base: u64, skip: bool) -> Judgement {
    session.receive(Seq(seq), Seq(base), skip, WINDOW)
}

fn unmoved() -> FloorMove {
    FloorMove::default()
}

#[test]
fn a_seq_is_new_once_and_a_duplicate_ever_after() {
    let mut s = session(0);
    assert_eq!(receive(&mut s, 1, 1, false), Judgement::New(unmoved()));
    assert_eq!(receive(&mut s, 1, 1, false), Judgement::Duplicate(unmoved()));
    assert_eq!(receive(&mut s, 3, 2, false), Judgement::New(unmoved()));
    assert_eq!(receive(&mut s, 3, 2, false), Judgement::Duplicate(unmoved()));
    assert_eq!(s.floor(), Seq(1));
    assert_eq!(receive(&mut s, 2, 2, false), Judgement::New(unmoved()));
    assert_eq!(s.floor(), Seq(3));
}

#[test]
fn a_seq_beyond_the_window_is_refused_and_the_last_within_it_is_not() {
    let mut s = session(0);
    assert_eq!(receive(&mut s, 101, 1, false), Judgement::BeyondWindow(unmoved()));
    assert_eq!(receive(&mut s, 100, 1, false), Judgement::New(unmoved()));
    assert_eq!(s.floor(), Seq(0));
}

#[test]
fn the_floor_moves_before_the_window_is_judged() {
    let mut s = session(0);
    assert_eq!(
        receive(&mut s, 150, 51, true),
        Judgement::New(FloorMove { abandoned: 50, lost: vec![] }),
        "150 lies beyond 0 + 100 and within 50 + 100",
    );
    assert_eq!(s.floor(), Seq(50));
}

#[test]
fn skip_counts_only_what_was_not_journaled_as_abandoned() {
    let mut s = session(0);
    receive(&mut s, 2, 1, false);
    assert_eq!(receive(&mut s, 4, 4, true), Judgement::New(FloorMove { abandoned: 2, lost: vec![] }));
    assert_eq!(s.floor(), Seq(4));
}

#[test]
fn without_skip_each_missing_run_is_a_loss() {
    let mut s = session(4);
    receive(&mut s, 6, 5, false);
    assert_eq!(
        receive(&mut s, 9, 9, false),
        Judgement::New(FloorMove { abandoned: 0, lost: vec![(Seq(5), Seq(5)), (Seq(7), Seq(8))] }),
    );
    assert_eq!(s.floor(), Seq(9));
}

#[test]
fn a_duplicate_moves_the_floor_too() {
    let mut s = session(0);
    receive(&mut s, 1, 1, false);
    receive(&mut s, 3, 2, false);
    assert_eq!(receive(&mut s, 3, 3, true), Judgement::Duplicate(FloorMove { abandoned: 1, lost: vec![] }));
    assert_eq!(s.floor(), Seq(3));
}

#[test]
fn a_floor_that_no_client_of_this_journal_can_have_reached_is_refused_and_changes_nothing() {
    for skip in [false, true] {
        let mut s = session(0);
        receive(&mut s, 2, 1, false);
        assert_eq!(receive(&mut s, 200, 102, skip), Judgement::Stale);
        assert_eq!(s.floor(), Seq(0));
        assert_eq!(receive(&mut s, 101, 101, skip).moved(), 99, "base - 1 = floor + window is still allowed");
    }
}

#[test]
fn a_seq_near_the_end_of_its_space_does_not_overflow() {
    let mut s = session(u64::MAX - 2);
    assert_eq!(receive(&mut s, u64::MAX, u64::MAX - 1, false), Judgement::New(unmoved()));
    assert_eq!(receive(&mut s, u64::MAX - 1, u64::MAX - 1, false), Judgement::New(unmoved()));
    assert_eq!(s.floor(), Seq(u64::MAX));
    assert_eq!(receive(&mut s, u64::MAX, u64::MAX, true), Judgement::Duplicate(unmoved()));
}

#[test]
fn a_session_survives_its_record() {
    let mut s = session(7);
    for seq in [9, 10, 80] {
        receive(&mut s, seq, 8, false);
    }
    let mut restored = Session::restore(&s.record()).unwrap();
    assert_eq!(restored.record(), s.record());
    for seq in [9, 10, 80] {
        assert_eq!(receive(&mut restored, seq, 8, false), Judgement::Duplicate(unmoved()));
    }
    assert_eq!(receive(&mut restored, 8, 8, false), Judgement::New(unmoved()));
    assert_eq!(restored.floor(), Seq(10));
}

#[test]
fn a_full_table_refuses_new_sessions_and_keeps_the_old() {
    let mut table = SessionTable::new(2);
    let first = table.open(id(1, 1), Seq(5), None).unwrap();
    table.open(id(2, 1), Seq(0), None).unwrap();
    assert_eq!(table.open(id(3, 1), Seq(0), None), Err(TableFull));
    assert_eq!(table.find(id(1, 1)), Some(first));
    assert_eq!(table.at(first).floor(), Seq(5));
    assert_eq!(table.len(), 2);
}

#[test]
fn sessions_expire_when_idle_and_their_place_is_used_again() {
    let mut table = SessionTable::new(2);
    for (client, active_s) in [(1, 10), (2, 20)] {
        let index = table.open(id(client, 1), Seq(0), None).unwrap();
        table.touch(index, active_s);
    }
    assert_eq!(table.expire(100, 10), [], "what the next checkpoint must write is not forgotten before");
    table.take_touched(usize::MAX, usize::MAX);
    assert_eq!(table.expire(15, 10), [id(1, 1)]);
    assert_eq!(table.find(id(1, 1)), None);
    assert!(table.find(id(2, 1)).is_some());
    let again = table.open(id(3, 1), Seq(9), None).unwrap();
    assert_eq!(table.at(again).floor(), Seq(9));
    assert_eq!(table.len(), 2);
}

#[test]
fn a_session_that_is_heard_does_not_expire_though_it_does_not_change() {
    let mut table = SessionTable::new(2);
    let index = table.open(id(1, 1), Seq(0), None).unwrap();
    table.touch(index, 10);
    table.take_touched(usize::MAX, usize::MAX);
    table.keep_alive(index, 15, 5);
    assert!(table.touched() == 0, "in steps");
    table.keep_alive(index, 16, 5);
    assert!(table.touched() > 0);
    table.take_touched(usize::MAX, usize::MAX);
    assert_eq!(table.expire(16, 10), []);
}

#[test]
fn a_client_with_as_many_sealed_sessions_as_it_may_gives_up_its_oldest_for_a_new_one() {
    let mut table = SessionTable::new(1000);
    let most = u32::try_from(limits::SEALED_SESSIONS_PER_CLIENT).unwrap();
    table.open_sealed(id(2, 1), Seq(0), 0).unwrap();
    for epoch in 1..=most {
        assert_eq!(table.open_sealed(id(1, epoch), Seq(0), 0).unwrap().1, None);
    }
    let oldest = table.find(id(1, 1)).unwrap();
    table.touch(oldest, 5);
    assert_eq!(table.open_sealed(id(1, most + 1), Seq(0), 0), Err(TableFull), "the next checkpoint is to hold it");
    table.take_touched(usize::MAX, usize::MAX);
    for epoch in 1..=3 {
        assert_eq!(table.open_sealed(id(1, most + epoch), Seq(0), 0).unwrap().1, Some(id(1, epoch)));
    }
    assert_eq!(table.len(), most as usize + 1);
    assert!(table.find(id(2, 1)).is_some());
    assert_eq!(table.sealed_of(ClientId(1)).len(), most as usize);
}

#[test]
fn a_clients_sealed_sessions_are_found_whatever_came_and_went() {
    let mut rng = SmallRng::seed_from_u64(5);
    for _ in 0..200 {
        let mut table = SessionTable::new(1000);
        let mut alive = std::collections::BTreeSet::new();
        let mut next = 1;
        for _ in 0..60 {
            let client = rng.random_range(1..=3);
            match rng.random_range(0..6) {
                0 => {
                    // As recovery does it: in any order, some again, plain ones of the time before the key beside them.
                    let epoch = rng.random_range(1..60);
                    let sealed = rng.random_ratio(3, 4);
                    let known = |sealed| alive.contains(&(client, epoch, sealed));
                    if !known(!sealed) {
                        let session =
                            if sealed { Session::new_sealed } else { |id, floor| Session::new(id, floor, None) };
                        table.restore(&session(id(client, epoch), Seq(0)).record());
                        alive.insert((client, epoch, sealed));
                    }
                }
                1 => {
                    for gone in table.expire(1, rng.random_range(0..3)) {
                        let (client, epoch) = (gone.client.0, gone.epoch.value());
                        assert!(alive.remove(&(client, epoch, true)) | alive.remove(&(client, epoch, false)));
                    }
                }
                _ => {
                    next += 1;
                    table.open_sealed(id(client, 60 + next), Seq(0), 0).unwrap();
                    alive.insert((client, 60 + next, true));
                }
            }
            for client in 1..=3 {
                let found: Vec<_> = table.sealed_of(ClientId(client)).iter().map(|epoch| epoch.value()).collect();
                let all = alive.iter().filter(|&&(of, _, sealed)| of == client && sealed).map(|&(_, epoch, _)| epoch);
                assert_eq!(found, all.rev().collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_session_takes_no_more_memory_than_the_documented_sum_says() {
    let mut table = SessionTable::new(1_000_000);
    let mut peak = 0;
    for client in 0..1_000_000 {
        let index = table.open(id(client, 1), Seq(0), None).unwrap();
        table.touch(index, 1);
        if client >= 4_096 {
            // Each time that one of its tables grows, what it holds for a session is at its highest.
            peak = peak.max(table.bytes() / table.len());
        }
    }
    assert!(peak <= limits::SESSION_BYTES, "{peak} bytes");
    let all = table.bytes() / table.len();
    assert!(all <= 130, "{all} bytes for each of a million");
}

#[test]
fn touched_sessions_are_taken_in_pieces_of_bounded_size() {
    let mut table = SessionTable::new(1000);
    for client in 0..1000 {
        let index = table.open(id(client, 1), Seq(client), None).unwrap();
        table.touch(index, 1);
    }
    let mut taken = std::collections::BTreeSet::new();
    while table.touched() > 0 {
        let (_, piece) = table.take_touched(usize::MAX, 10_000);
        assert!(piece.len() < 200);
        taken.extend(piece.into_iter().map(|record| record.id));
    }
    assert_eq!(taken.len(), 1000);
}

#[test]
fn the_search_for_an_unused_epoch_is_short() {
    let mut table = SessionTable::new(1000);
    table.open(id(1, u32::MAX), Seq(0), None).unwrap();
    for epoch in 500..700 {
        table.open(id(1, epoch), Seq(0), None).unwrap();
    }
    assert_eq!(table.unused_epoch(ClientId(1), 500), None);
}

#[test]
fn near_the_last_epoch_one_from_the_time_of_day_on_will_do_as_long_as_time_goes_on() {
    let mut table = SessionTable::new(1000);
    table.open(id(1, u32::MAX - 1), Seq(0), None).unwrap();
    assert_eq!(table.unused_epoch(ClientId(1), 500).unwrap().value(), u32::MAX);
    table.open(id(1, u32::MAX), Seq(0), None).unwrap();
    for second in 500..800 {
        let epoch = table.unused_epoch(ClientId(1), second).unwrap();
        assert_eq!(u64::from(epoch.value()), second);
        table.open(SessionId { client: ClientId(1), epoch }, Seq(0), None).unwrap();
    }
}

#[test]
fn the_session_in_which_nothing_has_come_is_found_and_gives_its_place_to_another_of_its_client() {
    let mut table = SessionTable::new(10);
    let first = table.open(id(1, 5), Seq(0), Some(77)).unwrap();
    table.touch(first, 1);
    assert_eq!((table.unused_of(ClientId(1)), table.unused_of(ClientId(2))), (Some(first), None));
    assert_eq!(table.renew(first, Epoch::new(9).unwrap(), 78), id(1, 5));
    assert_eq!((table.find(id(1, 5)), table.find(id(1, 9)), table.len()), (None, Some(first), 1));
    assert_eq!(table.newest_of(ClientId(1)), Some(first));
    assert!(table.at(first).is_fresh_from(78));
    // What comes in the old epoch opens it again.
    let again = table.open(id(1, 5), Seq(0), None).unwrap();
    assert_eq!((table.newest_of(ClientId(1)), table.unused_of(ClientId(1))), (Some(first), Some(first)));
    assert_eq!(receive(table.at(again), 1, 1, false), Judgement::New(unmoved()));
    assert_eq!(receive(table.at(first), 1, 1, false), Judgement::New(unmoved()));
    table.touch(first, 2);
    assert_eq!(table.unused_of(ClientId(1)), None, "it is in use");
    let next = table.open(id(1, 10), Seq(0), Some(79)).unwrap();
    assert_eq!(table.unused_of(ClientId(1)), Some(next));
    table.take_touched(usize::MAX, usize::MAX);
    assert_eq!(table.expire(1, 100).len(), 2);
    assert_eq!(table.unused_of(ClientId(1)), None, "it was forgotten");
}

#[test]
fn an_epoch_that_was_given_is_not_given_again_when_its_place_has_gone_to_another() {
    for highest in [None, Some(u32::MAX)] {
        let mut table = SessionTable::new(100);
        highest.map(|highest| table.open(id(1, highest), Seq(0), None).unwrap());
        let mut given = std::collections::BTreeSet::new();
        for nonce in 0..40 {
            let epoch = table.unused_epoch(ClientId(1), 1000).unwrap();
            assert!(given.insert(epoch), "{epoch} is given again, beside {highest:?}");
            let session = SessionId { client: ClientId(1), epoch };
            if let Some(index) = table.unused_of(ClientId(1)) {
                table.renew(index, epoch, nonce);
            } else {
                table.open(session, Seq(0), Some(nonce)).unwrap();
            }
            // In each seventh something comes: it keeps its place.
            if nonce % 7 == 6 {
                let index = table.find(session).unwrap();
                receive(table.at(index), 1, 1, false);
                table.touch(index, 1);
            }
        }
    }
}

#[test]
fn after_a_restart_the_newest_unused_session_is_the_one_that_gives_way() {
    let mut table = SessionTable::new(10);
    for epoch in [6, 9, 7] {
        table.open(id(1, epoch), Seq(0), Some(u64::from(epoch))).unwrap();
    }
    let records = table.take_touched(10, usize::MAX).1;
    assert!(records.is_empty(), "they were not touched");
    let records = [6, 9, 7].map(|epoch| table.record_of(id(1, epoch)).unwrap());
    let mut restored = SessionTable::new(10);
    records.iter().for_each(|record| assert!(restored.restore(record)));
    let unused = restored.unused_of(ClientId(1)).unwrap();
    assert_eq!(restored.at(unused).id(), id(1, 9));
}

#[test]
fn expiry_gets_round_the_whole_table_in_small_steps() {
    let mut table = SessionTable::new(1000);
    for client in 0..1000 {
        table.open(id(client, 1), Seq(0), None).unwrap();
    }
    let expired: usize = (0..10).map(|_| table.expire(1, 100).len()).sum();
    assert_eq!(expired, 1000);
    assert!(table.is_empty());
}

#[test]
fn an_unused_epoch_is_above_the_clients_highest_and_the_time_of_day() {
    let mut table = SessionTable::new(10);
    assert_eq!(table.unused_epoch(ClientId(1), 1000).unwrap().value(), 1000);
    table.open(id(1, 5000), Seq(0), None).unwrap();
    table.open(id(1, 7), Seq(0), None).unwrap();
    assert_eq!(table.unused_epoch(ClientId(1), 1000).unwrap().value(), 5001);
    assert_eq!(table.unused_epoch(ClientId(2), 0).unwrap().value(), 1, "a clock before 1970 gives a valid epoch");
    table.open(id(1, u32::MAX), Seq(0), None).unwrap();
    table.open(id(1, 1000), Seq(0), None).unwrap();
    assert_eq!(
        table.unused_epoch(ClientId(1), 1000).unwrap().value(),
        1001,
        "past the last epoch any unused one will do"
    );
}

impl Judgement {
    /// Seqs that the floor passed without an entry.
    fn moved(&self) -> u64 {
        match self {
            Self::New(m) | Self::Duplicate(m) | Self::BeyondWindow(m) => {
                m.abandoned + m.lost.iter().map(|(from, to)| to.0 - from.0 + 1).sum::<u64>()
            }
            Self::Stale => 0,
        }
    }
}
