//! Properties of keys and counters. The published vectors are in `tests/sealed_vectors.rs`.

use std::collections::BTreeSet;
use std::format;
use std::vec::Vec;

use proptest::prelude::*;

use super::{ClientKey, CounterStart, Direction, FleetKey, ServerCounter, SessionKeys};
use crate::{ClientId, Epoch};

fn tag(keys: &SessionKeys, direction: Direction) -> [u8; 16] {
    keys.seal(direction, 7, b"clear", &mut []).unwrap()
}

/// Each of fleet key, client, epoch and direction changes the key; the same ones give the same.
#[test]
fn keys_are_separate() {
    let mut tags = BTreeSet::new();
    for fleet in [1, 2] {
        for client in [1, 2] {
            for epoch in [0, 1, 2] {
                let key = FleetKey::new([fleet; 32]).client_key(ClientId(client));
                let keys = key.keys(ClientId(client), Epoch::new(epoch));
                assert!(tags.insert(tag(&keys, Direction::ToServer)));
                assert!(tags.insert(tag(&keys, Direction::ToClient)));
                let again = key.clone().keys(ClientId(client), Epoch::new(epoch));
                assert_eq!(tag(&keys, Direction::ToClient), tag(&again, Direction::ToClient));
            }
        }
    }
    // A key that two clients share by mistake still gives each its own session keys.
    let shared = ClientKey::new([9; 32]);
    let of = |client| tag(&shared.keys(ClientId(client), Epoch::new(1)), Direction::ToServer);
    assert_ne!(of(1), of(2));
}

#[test]
fn no_key_is_shown() {
    // 0xab as decimal, hexadecimal and as it would stand in a list.
    let fleet = FleetKey::new([0xab; 32]);
    let client = ClientKey::new([0xab; 32]);
    let keys = client.keys(ClientId(1), None);
    let shown = format!("{fleet:?} {client:?} {keys:?} {fleet:#?} {client:#?} {keys:#?}");
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab, ") && !shown.contains("abab"), "{shown}");
    assert!(shown.starts_with("FleetKey(..) ClientKey(..) SessionKeys(..)"), "{shown}");
}

#[test]
fn a_fingerprint_tells_keys_apart_and_is_not_part_of_them() {
    let (one, other) = (ClientKey::new([1; 32]), ClientKey::new([2; 32]));
    assert_ne!(one.fingerprint(), other.fingerprint());
    assert_eq!(one.fingerprint(), FleetKey::new([1; 32]).fingerprint());
    assert!(!one.expose().windows(8).any(|part| part == one.fingerprint()));
}

#[test]
fn what_is_opened_with_a_wrong_tag_or_in_the_other_direction_is_not_changed() {
    let keys = ClientKey::new([1; 32]).keys(ClientId(1), None);
    let mut text = *b"twenty bytes of text";
    let tag = keys.seal(Direction::ToServer, 7, b"clear", &mut text).unwrap();
    let sealed = text;
    let mut wrong = tag;
    wrong[15] ^= 0x80;
    assert!(!keys.open(Direction::ToServer, 7, b"clear", &mut text, &wrong));
    assert!(!keys.open(Direction::ToClient, 7, b"clear", &mut text, &tag));
    assert!(!keys.open(Direction::ToServer, 8, b"clear", &mut text, &tag));
    assert!(!keys.open(Direction::ToServer, 7, b"cleaR", &mut text, &tag));
    assert_eq!(text, sealed);
    assert!(keys.open(Direction::ToServer, 7, b"clear", &mut text, &tag));
    assert_eq!(&text, b"twenty bytes of text");
}

#[test]
fn boot_counts_have_ranges_that_do_not_meet() {
    let range = |count| CounterStart::boot_count(count).range();
    assert_eq!(range(0), 0..=0xffff_ffff);
    assert_eq!(range(1), 0x1_0000_0000..=0x1_ffff_ffff);
    assert_eq!(*range(u32::MAX).end(), u64::MAX);
    // However large the random number, more remain than can ever be sent.
    assert_eq!(CounterStart::random(u64::MAX).range(), u64::MAX >> 1..=u64::MAX);
}

#[test]
fn who_knows_the_time_takes_what_earlier_runs_asked_above_all_random_starts_and_above_runs_before() {
    let at = |bits, unix_ms| CounterStart::random_at(bits, unix_ms);
    let mut before = *CounterStart::random(u64::MAX).range().start();
    for unix_ms in [0, 1, 1_790_000_000_000, 1_790_000_000_001, 4_000_000_000_000] {
        for bits in [0, u64::MAX] {
            assert!(at(bits, unix_ms).taking_first() > before, "{unix_ms} {bits}");
            before = at(bits, unix_ms).taking_first();
            assert_eq!(at(bits, unix_ms).range(), CounterStart::random(bits).range());
        }
    }
    // Without the time, and with a stored count, they are in the range of the run.
    assert_eq!((CounterStart::random(10).taking_first(), CounterStart::boot_count(1).taking_first()), (5, 1 << 32));
}

/// Each of these befalls a server in some order.
#[derive(Clone, Debug)]
enum Step {
    Take(u8),
    /// Looks after the limit; `synced`: it reaches the disk, `told`: the counter learns of it.
    Store {
        synced: bool,
        told: bool,
    },
    Restart,
    /// The clock steps, forwards or back.
    Clock(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let far = prop_oneof![-10..10i64, -(1i64 << 44)..1i64 << 44, Just(-(1i64 << 55))];
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Take),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(synced, told)| Step::Store { synced, told }),
        1 => Just(Step::Restart),
        2 => far.prop_map(Step::Clock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Restarts, limits that did or did not reach the disk, and a clock that steps: no number comes twice, and each is
    /// larger than all before.
    #[test]
    fn a_server_never_seals_with_a_number_twice(steps in prop::collection::vec(step(), 1..100)) {
        let (mut now, mut disk, mut last) = (1u64 << 60, 0, None);
        let mut counter = ServerCounter::resume(disk, now);
        for step in steps {
            match step {
                Step::Take(count) => for _ in 0..count {
                    let Some(number) = counter.take(now) else { break };
                    prop_assert!(last.is_none_or(|last| last < number));
                    prop_assert!(number < disk, "above the limit on disk");
                    last = Some(number);
                },
                Step::Store { synced, told } => if let Some(limit) = counter.limit_due(now) && synced {
                    disk = limit;
                    if told {
                        counter.limit_stored(limit);
                        let number = counter.take(now);
                        prop_assert!(number > last, "{:?} after {:?}", number, last);
                        last = number;
                        prop_assert_eq!(counter.limit_due(now), None);
                    }
                },
                Step::Restart => counter = ServerCounter::resume(disk, now),
                Step::Clock(by) => now = now.saturating_add_signed(by),
            }
        }
    }
}

/// The disk with the limit was lost, or the machine was set back to a snapshot: the clock has gone on.
#[test]
fn the_counter_follows_the_clock_without_a_restart() {
    let begun = 1 << 60;
    let mut counter = ServerCounter::resume(0, begun);
    counter.limit_stored(counter.limit_due(begun).unwrap());
    let numbers: Vec<u64> = [begun, begun, begun + 1_000, begun + 999].map(|now| counter.take(now).unwrap()).into();
    assert_eq!(numbers, [begun, begun + 1, begun + 1_000, begun + 1_001]);
    // What was given since an old snapshot is unknown: nothing is, until a limit above the time is stored.
    let later = begun + (1 << 50);
    assert_eq!(counter.take(later), None);
    counter.limit_stored(counter.limit_due(later).unwrap());
    assert_eq!(counter.take(later), Some(later));
}
