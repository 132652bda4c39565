//! GONE: which rule lets the server forget an ask, or never have it.

use super::Voucher;
use crate::asks::{Answerer, AskSeen};
use crate::oracle::{Oracle, RUDE, RecordKey, Sid, index};

/// Times are kept in whole seconds.
const INEXACT_US: u64 = 2_000_000;

/// Why an ask may be gone.
enum Why {
    NeverAsked,
    Had,
    SessionEnded,
    Expired,
    GaveWay,
    Passed,
}

impl Oracle {
    pub(super) fn told_gone(&mut self, sid: Sid, seq: u64, voucher: &Voucher) {
        let Some(why) = self.may_be_gone(sid, seq, voucher.number) else {
            let of = self.asks.latest(sid, seq).map(|(offset, ask)| {
                let places: Vec<_> = self.truth.all_known().map(|known| known.place_at(offset)).collect();
                format!(
                    "entry {offset}, answered {:?}, taken before {}; {}",
                    ask.answer,
                    voucher.number,
                    places.join("; ")
                )
            });
            return self
                .fail(|| format!("seq {seq} of {sid:?} is told to be gone, and nothing lets it be forgotten: {of:?}"));
        };
        let life = self.asks.life;
        let offset = self.asks.latest(sid, seq).map(|(offset, _)| offset);
        if let (Some(ask), false) =
            (offset.and_then(|offset| self.asks.durable.get_mut(&offset)), matches!(why, Why::NeverAsked))
        {
            ask.gone = Some((voucher.number, life));
        }
        let seen = match why {
            Why::NeverAsked | Why::SessionEnded => return,
            Why::Had => AskSeen::GoneHad,
            Why::Expired => AskSeen::GoneByTtl,
            Why::GaveWay => AskSeen::GoneByEpoch,
            Why::Passed => AskSeen::GoneByLostEntry,
        };
        self.asks.saw(seen);
    }

    /// `taken`: the number of the TAKE that is told so.
    fn may_be_gone(&self, sid: Sid, seq: u64, taken: u64) -> Option<Why> {
        let Some((offset, ask)) = self.asks.latest(sid, seq).filter(|_| sid.0 < RUDE) else {
            return Some(Why::NeverAsked);
        };
        let asked = self.asks.delivered.get(&(sid, seq)).copied().unwrap_or(0);
        if taken < asked {
            return Some(Why::NeverAsked);
        }
        let mut had = self.asks.had.get(&sid).into_iter().flatten();
        if had.any(|&(number, base)| number > asked && base > seq) {
            return Some(Why::Had);
        }
        let expired = ask.finished_us.is_some_and(|at| self.now_us + INEXACT_US >= at + self.asks.ttl_us);
        if ask.answer.is_some() && expired {
            return Some(Why::Expired);
        }
        let newer = (sid.0, sid.1.saturating_add(1));
        let is_newer = self.asks.delivered.range((newer, 0)..=((sid.0, u32::MAX), u64::MAX)).next().is_some();
        if is_newer && self.asks.may_be_full(sid.0) {
            return Some(Why::GaveWay);
        }
        if ask.answer.is_none() && self.may_be_passed(offset) {
            return Some(Why::Passed);
        }
        let session = self.sessions.get(&sid)?;
        let idle = self.now_us - session.known_us > self.ttl_us / 2;
        let ended = idle || session.forgettable.is_some_and(|end| end > offset);
        ended.then_some(Why::SessionEnded)
    }

    /// Whether whoever was to answer may be beyond this entry without having processed it.
    fn may_be_passed(&self, offset: u64) -> bool {
        let channel = self.entries[index(offset)].channel;
        match self.asks.answerer {
            None | Some(Answerer::Embedded) => false,
            Some(Answerer::Sink(n)) => {
                self.is_orphan(offset)
                    || self.truth.in_place(n).any(|known| !known.takes(channel) || known.is_lost_or_skipped(offset))
            }
            Some(Answerer::Receipts) => {
                self.is_orphan(offset) || self.truth.at_work().any(|known| known.is_lost_or_skipped(offset))
            }
        }
    }

    fn is_orphan(&self, offset: u64) -> bool {
        self.asks.durable.get(&offset).is_some_and(|ask| ask.is_orphan)
    }

    /// Nobody will answer what is open while who answers is gone, durably.
    pub(in crate::oracle) fn note_orphans(&mut self) {
        let is_gone = match self.asks.answerer {
            None | Some(Answerer::Embedded) => false,
            Some(Answerer::Sink(n)) => self.truth.is_removed_in_place(n),
            Some(Answerer::Receipts) => self.truth.nobody_holds(),
        };
        if is_gone {
            self.orphan_below(u64::MAX);
        }
    }

    /// Nobody will say what became of the asks below `mark` that are open, as where a start finds other sinks than the one before, and
    /// all of these that hold anything are beyond them.
    pub(in crate::oracle) fn orphan_below(&mut self, mark: u64) {
        let open = self.asks.durable.range_mut(..mark).filter(|(_, ask)| ask.answer.is_none());
        open.for_each(|(_, ask)| ask.is_orphan = true);
    }

    /// Whether a record is a dead letter of some sink.
    pub(super) fn is_dead_letter(&self, key: RecordKey) -> bool {
        self.truth.all_known().any(|known| known.has_letter(key))
    }
}
