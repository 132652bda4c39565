//! How much of the journal a sink may hold, and what happens at that bound.
//!
//! Pure functions on numbers: who holds what they are told, and what follows they return. A sink that blocks makes the server
//! refuse new data until it has come further; one that drops loses its oldest entries; one that detaches holds nothing any
//! more. Near the reserve of free space those that may lose something yield first, as far as they hold more than those that may
//! not: so that a sink that nobody waits for does not stop what others rely on.

use super::Backlog;
use crate::limits;
use crate::model::{BacklogConfig, Offset, WhenFull};

/// What a sink holds of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Every entry below is processed.
    pub mark: Offset,
    /// Trimming stops at the mark.
    pub holds: bool,
    /// It has made the server refuse new data.
    pub blocks: bool,
    /// How much it may hold.
    pub backlog: BacklogConfig,
}

/// What follows from what a sink holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Bytes from the mark to the journal's end.
    pub held_bytes: u64,
    /// It holds more than 80 % of what it may.
    pub is_near: bool,
    /// New data is to be refused.
    pub blocks: bool,
    /// Trimming is to stop at the mark.
    pub holds: bool,
    /// What is below and not processed is lost to it.
    pub lose_below: Option<Offset>,
}

/// How much room the disk has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// There is enough room for new data.
    Enough,
    /// Free space is near its reserve, and what was lost a moment ago is not free yet: nobody loses more for that.
    Near,
    /// Free space is near its reserve: those that may lose something are to yield.
    Wanted,
}

/// From this share of its bound on a sink is warned of.
pub(super) const NEAR_PERCENT: u64 = 80;
/// A sink that has come to its bound is as before when it holds less than this share of it, and no more is left to one that
/// drops.
pub(super) const AGAIN_PERCENT: u64 = 90;

/// What follows for each of them, in their order, when the journal ends at `end`.
pub(super) fn judge(holdings: &[Holding], backlog: &Backlog, end: Offset, room: Room) -> Vec<Verdict> {
    let held = |holding: &Holding| backlog.bytes_from(holding.mark, end);
    let of_blocking = holdings.iter().filter(|holding| holding.holds && holding.backlog.when_full == WhenFull::Block);
    // What a sink is about to process frees nothing worth its loss.
    let blocking_bytes = of_blocking.map(held).max().unwrap_or(0).max(limits::SINK_YIELDS_BYTES);
    let verdict = |holding: &Holding| {
        let held_bytes = held(holding);
        judge_one(holding, held_bytes, (room, blocking_bytes), |bytes| backlog.keeping(bytes, end))
    };
    holdings.iter().map(verdict).collect()
}

/// The same for one that holds so many bytes. Near the reserve it yields as far as `floor`, in bytes. `keeping` gives the entry
/// from which on there are no more than so many bytes.
fn judge_one(
    holding: &Holding,
    held_bytes: u64,
    (room, floor): (Room, u64),
    keeping: impl Fn(u64) -> Offset,
) -> Verdict {
    let Holding { backlog: BacklogConfig { bytes_max, when_full }, .. } = *holding;
    let max = bytes_max.unwrap_or(u64::MAX);
    let is_full = held_bytes > max;
    let is_again = bytes_max.is_none() || held_bytes < percent(max, AGAIN_PERCENT);
    let within = Verdict {
        held_bytes,
        is_near: held_bytes > percent(max, NEAR_PERCENT),
        blocks: false,
        holds: holding.holds,
        lose_below: None,
    };
    match when_full {
        WhenFull::Block => Verdict { blocks: is_full || (holding.blocks && !is_again), holds: true, ..within },
        WhenFull::DropOldest => {
            let at_bound = is_full.then(|| percent(max, AGAIN_PERCENT));
            let yields =
                (room == Room::Wanted && held_bytes > floor).then(|| percent(held_bytes, AGAIN_PERCENT).max(floor));
            let kept = at_bound.into_iter().chain(yields).min();
            let lose_below = kept.map(keeping).filter(|&below| below > holding.mark);
            Verdict { holds: true, lose_below, ..within }
        }
        WhenFull::Detach => {
            let is_near = room != Room::Enough;
            let holds = if holding.holds {
                !(is_full || is_near && held_bytes > floor)
            } else {
                is_again && !(is_near && held_bytes >= percent(floor, AGAIN_PERCENT))
            };
            Verdict { holds, ..within }
        }
    }
}

fn percent(bytes: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::EXTENT_BYTES;

    const END: Offset = Offset(1000);

    /// A hundred extents of ten entries each.
    fn backlog() -> Backlog {
        let mut backlog = Backlog::default();
        (0..100).for_each(|extent| backlog.push(Offset(extent * 10), EXTENT_BYTES));
        backlog
    }

    fn holding(mark: u64, bytes_max: Option<u64>, when_full: WhenFull) -> Holding {
        let bytes_max = bytes_max.map(|extents| extents * EXTENT_BYTES);
        Holding { mark: Offset(mark), holds: true, blocks: false, backlog: BacklogConfig { bytes_max, when_full } }
    }

    fn one(holding: Holding, is_short: bool) -> Verdict {
        judge(&[holding], &backlog(), END, if is_short { Room::Wanted } else { Room::Enough })[0]
    }

    #[test]
    fn a_sink_without_a_bound_may_hold_all() {
        for when_full in [WhenFull::Block, WhenFull::DropOldest, WhenFull::Detach] {
            let verdict = one(holding(0, None, when_full), false);
            let all = 100 * EXTENT_BYTES;
            let expected = Verdict { held_bytes: all, is_near: false, blocks: false, holds: true, lose_below: None };
            assert_eq!(verdict, expected);
        }
    }

    #[test]
    fn a_sink_is_warned_of_before_it_comes_to_its_bound() {
        assert!(!one(holding(920, Some(10), WhenFull::Block), false).is_near);
        assert!(one(holding(910, Some(10), WhenFull::Block), false).is_near);
    }

    #[test]
    fn one_that_blocks_does_so_above_its_bound_and_until_it_is_well_below() {
        let mut sink = holding(900, Some(10), WhenFull::Block);
        assert!(!one(sink, false).blocks, "it holds as much as it may");
        sink.mark = Offset(899);
        assert!(one(sink, false).blocks);
        sink.blocks = true;
        sink.mark = Offset(905);
        assert!(one(sink, false).blocks, "9.5 of 10");
        sink.mark = Offset(911);
        assert!(!one(sink, false).blocks);
        assert_eq!(one(sink, true).lose_below, None, "it loses nothing, however short space is");
    }

    #[test]
    fn one_that_drops_loses_its_oldest_entries_and_no_more_than_it_must() {
        assert_eq!(one(holding(900, Some(10), WhenFull::DropOldest), false).lose_below, None);
        let verdict = one(holding(500, Some(10), WhenFull::DropOldest), false);
        assert_eq!(verdict.lose_below, Some(Offset(910)), "nine of ten extents are left");
        assert!(verdict.holds && !verdict.blocks);
    }

    #[test]
    fn one_that_detaches_holds_nothing_until_it_has_come_near() {
        let mut sink = holding(899, Some(10), WhenFull::Detach);
        assert!(!one(sink, false).holds);
        sink.holds = false;
        sink.mark = Offset(905);
        assert!(!one(sink, false).holds);
        sink.mark = Offset(911);
        assert!(one(sink, false).holds);
        assert_eq!(one(sink, false).lose_below, None, "what is lost is what is trimmed");
    }

    #[test]
    fn near_the_reserve_those_that_may_lose_yield_as_far_as_they_hold_more_than_those_that_may_not() {
        let blocking = holding(700, None, WhenFull::Block);
        let holdings = [
            blocking,
            holding(100, None, WhenFull::DropOldest),
            holding(690, None, WhenFull::DropOldest),
            holding(800, None, WhenFull::DropOldest),
            holding(600, Some(99), WhenFull::Detach),
            holding(800, Some(99), WhenFull::Detach),
        ];
        let verdicts = judge(&holdings, &backlog(), END, Room::Wanted);
        assert_eq!(verdicts[0].lose_below, None);
        assert_eq!(verdicts[1].lose_below, Some(Offset(190)), "a tenth of what it holds, and more a little later");
        assert_eq!(verdicts[2].lose_below, Some(Offset(700)), "no more than the one that may lose nothing");
        assert_eq!(verdicts[3].lose_below, None, "what it holds is held anyway");
        assert!(!verdicts[4].holds);
        assert!(verdicts[5].holds);
        let calm = judge(&holdings, &backlog(), END, Room::Enough);
        assert!(calm.iter().all(|verdict| verdict.holds && verdict.lose_below.is_none() && !verdict.blocks));
    }

    #[test]
    fn near_the_reserve_a_sink_that_keeps_up_loses_nothing() {
        for when_full in [WhenFull::DropOldest, WhenFull::Detach] {
            let verdict = one(holding(990, None, when_full), true);
            assert!(verdict.holds && verdict.lose_below.is_none(), "{verdict:?}");
        }
    }

    #[test]
    fn while_what_was_lost_is_not_free_yet_nothing_more_is_lost_for_the_disk() {
        let dropping = holding(100, None, WhenFull::DropOldest);
        let near = |holding| judge(&[holding], &backlog(), END, Room::Near)[0];
        assert!(one(dropping, true).lose_below.is_some());
        assert_eq!(near(dropping).lose_below, None);
        let beyond_its_bound = holding(500, Some(10), WhenFull::DropOldest);
        assert_eq!(near(beyond_its_bound).lose_below, Some(Offset(910)), "its own bound holds as ever");
    }

    #[test]
    fn near_the_reserve_a_sink_that_was_let_go_of_does_not_hold_again_before_it_is_well_below_what_others_hold() {
        let blocking = holding(700, None, WhenFull::Block);
        for room in [Room::Near, Room::Wanted] {
            for (mark, holds, expected) in
                [(699, true, false), (701, true, true), (701, false, false), (729, false, false), (731, false, true)]
            {
                let sink = Holding { holds, ..holding(mark, None, WhenFull::Detach) };
                let verdict = judge(&[blocking, sink], &backlog(), END, room)[1];
                assert_eq!(verdict.holds, expected, "{room:?}, {mark}, {holds}");
                assert!(judge(&[blocking, sink], &backlog(), END, Room::Enough)[1].holds);
            }
        }
    }

    #[test]
    fn a_bound_smaller_than_an_extent_leaves_what_fits() {
        let mut sink = holding(0, Some(1), WhenFull::DropOldest);
        sink.backlog.bytes_max = Some(EXTENT_BYTES / 2);
        assert_eq!(one(sink, false).lose_below, Some(END));
    }
}
