//! These tests drive a flow by hand, one datagram at a time.

use duragram_proto::Seq;
use duragram_proto::codec::{BITMAP_LEN_MAX, Durability, Reject};
use duragram_proto::window::DedupWindow;

use super::*;

mod asks;
mod bad_path;
mod bursts;

const CLIENT: ClientId = ClientId(7);
const SECOND: u64 = 1_000 * MS;

pub(super) struct Rig {
    pub(super) flow: Flow,
    pub(super) tally: Tally,
    pub(super) now_ns: u64,
}

/// What a flow sends next, be it a TAKE.
pub(super) fn next(flow: &mut Flow, now_ns: u64, tally: &mut Tally) -> Option<Outgoing> {
    flow.next(now_ns, |_| now_ns, tally).or_else(|| flow.next_take(now_ns).map(Outgoing::Take))
}

impl Rig {
    /// With so many messages to send.
    pub(super) fn new(window: u16, messages: u64) -> Self {
        let mut flow = Flow::new(CLIENT, Epoch::new(5).unwrap(), window, 1);
        flow.released = messages;
        Self { flow, tally: Tally::new(), now_ns: SECOND }
    }

    /// What it sends now: seq, span and attempt of each; a PING as seq 0.
    pub(super) fn send(&mut self) -> Vec<(u64, u16, u8)> {
        let now_ns = self.now_ns;
        std::iter::from_fn(|| next(&mut self.flow, now_ns, &mut self.tally))
            .map(|outgoing| match outgoing {
                Outgoing::Data { seq, span, attempt } => (seq, span, attempt),
                Outgoing::Ping => (0, 0, 0),
                Outgoing::Take(taking) => panic!("{taking:?}, and nothing has asked"),
            })
            .collect()
    }

    pub(super) fn seqs(&mut self) -> Vec<u64> {
        self.send().into_iter().map(|(seq, ..)| seq).collect()
    }

    fn ack(&mut self, floor: u64, above: &[u64], credit: u16) -> bool {
        self.ack_with(floor, above, credit, false)
    }

    pub(super) fn ack_with(&mut self, floor: u64, above: &[u64], credit: u16, complete: bool) -> bool {
        self.ack_as(floor, above, credit, complete, false)
    }

    fn ack_as(&mut self, floor: u64, above: &[u64], credit: u16, complete: bool, duplicate: bool) -> bool {
        let mut bitmap = [0; BITMAP_LEN_MAX];
        for seq in above {
            let bit = usize::try_from(seq - floor - 1).unwrap();
            bitmap[bit / 8] |= 1 << (bit % 8);
        }
        let bitmap = if above.is_empty() { &[][..] } else { &bitmap };
        let epoch = self.flow.epoch;
        let (floor, durability) = (Seq(floor), Durability::Synced);
        let ack = Ack {
            client: CLIENT,
            epoch,
            floor,
            credit,
            durability,
            duplicate,
            complete,
            ready: false,
            delay_us: 0,
            bitmap,
        };
        self.flow.handle_ack(self.now_ns, &ack, &mut self.tally)
    }

    fn reject(&mut self, refused: u64, code: RejectCode, retry_after_ms: u32) -> Result<bool, Refused> {
        let epoch = self.flow.epoch.value();
        self.flow.handle_reject(
            self.now_ns,
            &Reject { client: CLIENT, epoch, code, refused, retry_after_ms },
            &mut self.tally,
        )
    }

    /// Looks at the clock each millisecond until something is sent; returns that and how long it took, in milliseconds.
    pub(super) fn wait(&mut self) -> (Vec<u64>, u64) {
        for ms in 1..100_000 {
            self.now_ns += MS;
            self.flow.handle_time(self.now_ns);
            let seqs = self.seqs();
            if !seqs.is_empty() {
                return (seqs, ms);
            }
        }
        panic!("nothing was sent in 100 s");
    }
}

#[test]
fn the_window_is_what_was_asked_for_and_moves_with_the_acks() {
    let mut rig = Rig::new(3, 6);
    assert_eq!(rig.send(), [(1, 0, 0), (2, 1, 0), (3, 2, 0)]);
    assert!(rig.ack(2, &[], 100));
    assert_eq!(rig.send(), [(4, 1, 0), (5, 2, 0)]);
    assert!(rig.ack(5, &[], 100));
    assert_eq!(rig.send(), [(6, 0, 0)]);
    assert!(rig.ack(6, &[], 100));
    assert_eq!(rig.send(), []);
    assert_eq!((rig.tally.started, rig.tally.acked, rig.tally.resent), (6, 6, 0));
}

#[test]
fn latency_counts_from_when_a_datagram_was_due() {
    let mut rig = Rig::new(100, 100);
    let (now_ns, mut asked) = (rig.now_ns, Vec::new());
    let mut due_ns = |n| {
        asked.push(n);
        now_ns - n * MS
    };
    while rig.flow.next(now_ns, &mut due_ns, &mut rig.tally).is_some() {}
    assert_eq!(asked, (0..100).collect::<Vec<_>>());
    rig.now_ns += 50 * MS;
    rig.ack(100, &[], 100);
    let about = |us: f64, ms: f64| assert!((us / 1_000.0 - ms).abs() < 0.1, "{us} us, expected {ms} ms");
    about(rig.tally.quantile_us(0.5).unwrap(), 99.0);
    about(rig.tally.quantile_us(0.01).unwrap(), 50.0);
    about(rig.tally.max_us().unwrap(), 149.0);
}

#[test]
fn a_hole_is_filled_when_three_later_ones_have_arrived_and_not_again() {
    let mut rig = Rig::new(100, 20);
    assert_eq!(rig.seqs().len(), 20);
    rig.ack(1, &[3, 4], 100);
    assert_eq!(rig.send(), [], "two later ones: they may have overtaken it");
    rig.ack(1, &[3, 4, 5, 8], 100);
    assert_eq!(rig.send(), [(2, 0, 1)], "6 and 7 may only be late");
    rig.ack(1, &[3, 4, 5, 8, 9, 10], 100);
    assert_eq!(rig.send(), [(6, 4, 1), (7, 5, 1)]);
    rig.ack(20, &[], 100);
    assert_eq!(rig.send(), []);
    assert_eq!((rig.tally.acked, rig.tally.resent), (20, 3));
}

#[test]
fn silence_is_met_with_one_datagram_after_ever_longer_waits_and_an_answer_ends_it() {
    let mut rig = Rig::new(10, 10);
    assert_eq!(rig.seqs().len(), 10);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let (seqs, ms) = rig.wait();
        assert_eq!(seqs, [1]);
        waits.push(ms);
    }
    for (at, (ms, expected)) in waits.iter().zip([1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 5_000, 5_000]).enumerate() {
        assert!((expected..=expected * 5 / 4 + 1).contains(ms), "wait {at}: {waits:?}");
    }
    rig.ack(1, &[], 100);
    assert_eq!(rig.seqs(), [2, 3]);
    rig.ack(3, &[], 100);
    assert_eq!(rig.seqs(), [4, 5, 6, 7]);
    rig.ack(7, &[], 100);
    assert_eq!(rig.seqs(), [8, 9, 10]);
}

#[test]
fn the_timeout_follows_the_round_trip_time() {
    let mut rig = Rig::new(1, 100);
    for seq in 1..=50 {
        assert_eq!(rig.seqs(), [seq]);
        rig.now_ns += 400 * MS;
        rig.ack(seq, &[], 100);
    }
    assert_eq!(rig.seqs(), [51]);
    let (seqs, ms) = rig.wait();
    assert_eq!(seqs, [51]);
    assert!((400..=501).contains(&ms), "{ms} ms");
}

#[test]
fn an_answer_to_what_the_server_had_before_gives_no_round_trip_time() {
    let mut rig = Rig::new(10, 2);
    assert_eq!(rig.seqs(), [1, 2]);
    rig.now_ns += 30 * SECOND;
    rig.ack_as(2, &[], 100, false, true);
    assert_eq!((rig.flow.rtt.smoothed_us(), rig.tally.acked), (None, 2));
}

#[test]
fn without_credit_it_asks_by_ping_and_goes_on_when_there_is_some() {
    let mut rig = Rig::new(10, 10);
    assert_eq!(rig.seqs().len(), 10);
    rig.ack(4, &[], 0);
    for seq in 5..=10 {
        assert_eq!(rig.reject(seq, RejectCode::BeyondWindow, 0), Ok(true));
    }
    assert_eq!(rig.send(), []);
    for _ in 0..3 {
        assert_eq!(rig.wait().0, [0], "a PING");
        rig.ack(4, &[], 0);
        assert_eq!(rig.send(), []);
    }
    assert_eq!(rig.wait().0, [0]);
    rig.ack(4, &[], 2);
    assert_eq!(rig.seqs(), [5, 6]);
    rig.ack(6, &[], 100);
    assert_eq!(rig.seqs(), [7, 8, 9, 10]);
    rig.ack(10, &[], 100);
    assert_eq!((rig.tally.acked, rig.tally.started), (10, 10));
}

#[test]
fn credit_bounds_new_datagrams_too() {
    let mut rig = Rig::new(10, 100);
    assert_eq!(rig.seqs().len(), 10);
    rig.ack(10, &[], 3);
    assert_eq!(rig.seqs(), [11, 12, 13]);
    rig.ack(13, &[], 0);
    assert_eq!(rig.wait().0, [0], "nothing in flight: a PING");
    rig.ack(13, &[], 1);
    assert_eq!(rig.seqs(), [14]);
}

#[test]
fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    for code in [RejectCode::Busy, RejectCode::Storage, RejectCode::Unknown(99)] {
        let mut rig = Rig::new(4, 4);
        assert_eq!(rig.seqs().len(), 4);
        for seq in 1..=4 {
            assert_eq!(rig.reject(seq, code, 3_000), Ok(true));
        }
        let (seqs, ms) = rig.wait();
        assert_eq!(seqs, [1, 2, 3, 4]);
        assert!((3_000..=3_751).contains(&ms), "{code:?}: {ms} ms");
    }
}

#[test]
fn a_stale_epoch_is_left_and_what_is_unacked_is_sent_in_the_next_without_holes() {
    let mut rig = Rig::new(8, 9);
    assert_eq!(rig.seqs().len(), 8);
    rig.ack(2, &[4, 6], 100);
    assert_eq!(rig.send().last(), Some(&(9, 6, 0)));
    assert_eq!(rig.reject(9, RejectCode::StaleEpoch, 0), Ok(true));
    assert_eq!(rig.flow.epoch, Epoch::new(6).unwrap());
    // 3, 5, 7, 8 and 9 are numbered anew.
    assert_eq!(rig.send(), [(1, 0, 0), (2, 1, 0), (3, 2, 0), (4, 3, 0), (5, 4, 0)]);
    rig.ack(5, &[], 100);
    assert_eq!((rig.tally.acked, rig.tally.started), (9, 9));
    assert_eq!(rig.send(), []);
}

#[test]
fn a_server_that_calls_every_epoch_stale_refuses_the_load() {
    let mut rig = Rig::new(1, 1);
    for _ in 0..FRUITLESS_EPOCHS_MAX {
        assert_eq!(rig.seqs(), [1]);
        assert_eq!(rig.reject(1, RejectCode::StaleEpoch, 0), Ok(true));
    }
    assert_eq!(rig.seqs(), [1]);
    assert_eq!(rig.reject(1, RejectCode::StaleEpoch, 0), Err(Refused(RejectCode::StaleEpoch)));
}

#[test]
fn what_the_server_will_never_take_ends_the_load() {
    for code in [
        RejectCode::Version,
        RejectCode::Unsupported,
        RejectCode::TooLarge,
        RejectCode::Channel,
        RejectCode::SealedOnly,
    ] {
        let mut rig = Rig::new(4, 4);
        assert_eq!(rig.seqs().len(), 4);
        assert_eq!(rig.reject(2, code, 0), Err(Refused(code)));
    }
}

#[test]
fn what_does_not_fit_what_was_sent_is_ignored() {
    let mut rig = Rig::new(4, 10);
    assert_eq!(rig.seqs().len(), 4);
    assert!(!rig.ack(5, &[], 100), "5 was never sent");
    assert!(!rig.ack(2, &[4, 5], 100));
    assert!(!rig.ack(u64::MAX, &[], 100));
    assert_eq!(rig.reject(5, RejectCode::TooLarge, 0), Ok(false));
    assert_eq!(rig.reject(0, RejectCode::Busy, 9_000), Ok(false), "no PING is unanswered");
    rig.ack(2, &[], 100);
    assert_eq!(rig.reject(2, RejectCode::TooLarge, 0), Ok(false), "acked already");
    rig.flow.epoch = Epoch::new(6).unwrap();
    let of_another_epoch =
        Reject { client: CLIENT, epoch: 5, code: RejectCode::TooLarge, refused: 3, retry_after_ms: 0 };
    assert_eq!(rig.flow.handle_reject(rig.now_ns, &of_another_epoch, &mut rig.tally), Ok(false));
    assert_eq!(rig.tally.acked, 2);
}

#[test]
fn an_ack_that_was_overtaken_adds_what_it_knows_and_takes_nothing_back() {
    let mut rig = Rig::new(8, 100);
    assert_eq!(rig.seqs().len(), 8);
    rig.ack(4, &[], 100);
    assert_eq!(rig.seqs(), [9, 10, 11, 12]);
    assert!(rig.ack(1, &[5, 6], 0), "from before, when credit was short");
    assert_eq!(rig.send(), [(13, 6, 0), (14, 7, 0)], "5 and 6 count, the old credit does not");
    assert_eq!(rig.tally.acked, 6);
}

/// A server one millisecond away (both ways) that journals what arrives in a window, and what of it is lost.
pub(super) struct Near {
    pub(super) rig: Rig,
    journal: DedupWindow,
    /// The bits of a bitmap that its acks have room for.
    room: u64,
}

impl Near {
    /// A flow that has filled its window `rounds` times, so that it knows the round-trip time.
    fn warm(window: u16, rounds: u64) -> Self {
        Self::warm_with(window, rounds, 1_024)
    }

    pub(super) fn warm_with(window: u16, rounds: u64, room: u64) -> Self {
        let rig = Rig::new(window, u64::from(window) * rounds);
        let mut near = Self { rig, journal: DedupWindow::new(Seq(0)), room };
        for _ in 0..rounds {
            near.round(|_, _| false);
        }
        assert_eq!((near.rig.tally.acked, near.rig.tally.resent), (u64::from(window) * rounds, 0));
        near
    }

    /// One round trip: what is sent now, less what is lost (by seq and attempt), and one ack, if anything arrived.
    fn round(&mut self, lost: impl FnMut(u64, u8) -> bool) {
        if self.deliver(lost) {
            self.ack();
        } else {
            self.rig.flow.handle_time(self.rig.now_ns);
        }
    }

    /// What is sent now, less what is lost, arrives, and a millisecond passes. Returns whether anything arrived.
    pub(super) fn deliver(&mut self, mut lost: impl FnMut(u64, u8) -> bool) -> bool {
        let mut arrived = false;
        for (seq, _, attempt) in self.rig.send() {
            if !lost(seq, attempt) {
                self.journal.insert(Seq(seq));
                arrived = true;
            }
        }
        self.rig.now_ns += MS;
        arrived
    }

    pub(super) fn ack(&mut self) {
        let (floor, highest) = (self.journal.floor().0, self.journal.highest().0);
        let told = highest.min(floor + self.room);
        let above: Vec<u64> = (floor + 1..=told).filter(|&s| self.journal.contains(Seq(s))).collect();
        self.rig.ack_with(floor, &above, u16::MAX, told == highest);
    }

    /// Sends `count` more and loses the first transmission of some; returns how many milliseconds pass until all are acked.
    fn ms_to_recover(&mut self, count: u64, lost: impl Fn(u64, u8) -> bool) -> u64 {
        let begin = self.rig.flow.next;
        self.rig.flow.released += count;
        let (started_ns, all) = (self.rig.now_ns, self.rig.tally.acked + count);
        while self.rig.tally.acked < all {
            self.round(|seq, attempt| lost(seq - begin, attempt));
            assert!(self.rig.now_ns < started_ns + 100 * SECOND, "not acked in 100 s: {:?}", self.rig.flow);
        }
        (self.rig.now_ns - started_ns) / MS
    }
}

#[test]
fn a_lost_tail_is_recovered_in_a_few_round_trips_after_one_timeout() {
    for lost in [1, 64, 500, 1_024] {
        let mut near = Near::warm(1_024, 20);
        let ms = near.ms_to_recover(1_024, |n, attempt| n >= 1_024 - lost && attempt == 0);
        // The timeout, up to a quarter more, then a round trip for each doubling.
        assert!((10..=13 + 14).contains(&ms), "{lost} lost: {ms} ms");
        assert_eq!(near.rig.tally.resent, lost);
    }
}

#[test]
fn a_retransmission_that_is_lost_is_missed_when_later_ones_have_arrived() {
    let mut near = Near::warm(1_024, 20);
    let ms = near.ms_to_recover(1_024, |n, attempt| n >= 500 && (attempt == 0 || attempt == 1 && n % 100 >= 90));
    assert!((10..=13 + 20).contains(&ms), "{ms} ms");
    assert!(near.rig.tally.resent <= 524 + 10 * 5 + 20, "{}", near.rig.tally.resent);
}

#[test]
fn after_a_stall_of_the_server_what_it_had_all_along_is_not_sent_again() {
    let mut near = Near::warm(1_000, 20);
    near.rig.flow.released += 1_000;
    let begin = near.rig.flow.next;
    assert_eq!(near.rig.seqs().len(), 1_000);
    // Half a second: five timeouts, each twice as long as the one before, and one datagram each, but ten for the second.
    let mut sent = Vec::new();
    for _ in 0..500 {
        near.rig.now_ns += MS;
        near.rig.flow.handle_time(near.rig.now_ns);
        sent.extend(Some(near.rig.seqs().len()).filter(|&sent| sent > 0));
    }
    assert_eq!(sent, [1, 10, 1, 1, 1]);
    assert_eq!(near.rig.tally.resent, 14);
    for seq in begin..begin + 1_000 {
        near.journal.insert(Seq(seq));
        if (seq - begin) % 100 == 99 {
            near.rig.now_ns += MS;
            near.ack();
            assert!(near.rig.seqs().len() <= 1, "the originals are arriving");
        }
    }
    assert_eq!(near.rig.tally.acked, 21_000);
}
