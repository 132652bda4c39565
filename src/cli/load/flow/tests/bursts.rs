//! A burst of losses in a flow's window is made good in a bounded number of round trips, as the protocol crate's client does
//! it (`client/tests/bursts.rs` there).

use super::super::*;
use super::{Near, Rig};

const WINDOW: u16 = 4_096;
/// What a burst may cost beside the timeout.
const ROUND_TRIPS_MAX: u64 = 12;
/// The timeout, and up to a quarter more at random, in milliseconds.
const TIMEOUT_MS: u64 = (RTO_MIN_NS + RTO_MIN_NS / 4) / MS;

/// A burst of `len`, of which the path loses a share, or whose answers it loses, with `more` after it: how many milliseconds,
/// each a round trip, pass until all of it is acked, and how many datagrams were sent again.
fn ms_to_recover(room: u64, len: u64, share_percent: u64, answers: bool, more: u64) -> (u64, u64) {
    let mut near = Near::warm_with(WINDOW, 20, room);
    let (began_ns, resent) = (near.rig.now_ns, near.rig.tally.resent);
    near.rig.flow.released += len + more;
    let end = near.rig.flow.next + len;
    let (mut sent, mut state) = (0, 0x9e37_79b9 + len * share_percent);
    let mut is_lost = move || {
        state = u64::wrapping_add(state.wrapping_mul(6_364_136_223_846_793_005), 1_442_695_040_888_963_407);
        (state >> 33) % 100 < share_percent
    };
    while near.rig.flow.base < end {
        let before = sent;
        let arrived = near.deliver(|_, _| {
            sent += 1;
            !answers && sent <= len && is_lost()
        });
        // One answer to a flight.
        if arrived && !(answers && before < len && is_lost()) {
            near.ack();
        }
        near.rig.flow.handle_time(near.rig.now_ns);
        if near.rig.now_ns > began_ns + 30_000 * MS {
            break;
        }
    }
    ((near.rig.now_ns - began_ns) / MS, near.rig.tally.resent - resent)
}

#[test]
fn a_burst_of_losses_is_made_good_within_twelve_round_trips_and_a_timeout() {
    let mut late = Vec::new();
    for answers in [false, true] {
        for room in [0, 64, 128, 768, 1_024] {
            for more in [0, 6_000] {
                for len in [64, 1_500, 3_500, 4_096] {
                    for share_percent in [5, 30, 60, 100] {
                        let (ms, resent) = ms_to_recover(room, len, share_percent, answers, more);
                        if ms > ROUND_TRIPS_MAX + TIMEOUT_MS {
                            late.push(format!(
                                "{share_percent} % of {len} {}, room for {room} bits, {more} more: {ms} ms, {resent} sent again",
                                if answers { "answers" } else { "datagrams" },
                            ));
                        }
                    }
                }
            }
        }
    }
    assert!(late.is_empty(), "{} are late:\n{}", late.len(), late.join("\n"));
}

/// Milliseconds that 12,000 datagrams take of which, and of what makes them good, the first `len` are lost to a share. `slow_ms`
/// is what answers took before.
fn ms_through_a_stretch(len: u64, share_percent: u64, slow_ms: u64, seed: u64) -> u64 {
    let mut near = Near::warm_with(WINDOW, 20, 768);
    near.rig.flow.rtt = Rtt::default();
    near.rig.flow.rtt.sample(slow_ms * MS / US, 0);
    let began_ns = near.rig.now_ns;
    near.rig.flow.released += 12_000;
    let end = near.rig.flow.next + 12_000;
    let (mut sent, mut state) = (0, seed);
    while near.rig.flow.base < end && near.rig.now_ns < began_ns + 60_000 * MS {
        let arrived = near.deliver(|_, _| {
            sent += 1;
            state = u64::wrapping_add(state.wrapping_mul(6_364_136_223_846_793_005), 1_442_695_040_888_963_407);
            sent <= len && (state >> 33) % 100 < share_percent
        });
        if arrived {
            near.ack();
        }
        near.rig.flow.handle_time(near.rig.now_ns);
    }
    (near.rig.now_ns - began_ns) / MS
}

#[test]
fn a_lossy_stretch_longer_than_the_window_is_passed_without_falling_silent() {
    let mut late = Vec::new();
    for slow_ms in [1, 3] {
        for (len, share_percent, most_ms) in [(700, 60, 100), (6_000, 30, 200), (6_000, 60, 600), (12_000, 60, 1_000)] {
            let mut all: Vec<u64> =
                (1..=9).map(|seed| ms_through_a_stretch(len, share_percent, slow_ms, seed * 77_777)).collect();
            all.sort_unstable();
            if all[4] > most_ms || all[8] > 3 * most_ms {
                late.push(format!("{share_percent} % of {len}, answers after {slow_ms} ms before: {all:?} ms"));
            }
        }
    }
    assert!(late.is_empty(), "{}", late.join("\n"));
}

#[test]
fn the_answer_to_a_timeouts_datagram_shows_the_loss_of_as_few_as_one_other() {
    for complete in [false, true] {
        for count in 2..=5 {
            let mut rig = Rig::new(10, count);
            assert_eq!(rig.seqs().len() as u64, count);
            let (seqs, _) = rig.wait();
            assert_eq!(seqs, [1]);
            rig.now_ns += 50 * MS;
            rig.ack_with(1, &[], 100, complete);
            assert_eq!(rig.seqs(), (2..=count).collect::<Vec<_>>());
        }
    }
}
