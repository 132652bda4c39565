//! TAKEs that are held until their answer is there: each is a voucher for one datagram. In memory alone: after a restart their
//! clients take again.

use std::collections::{BTreeMap, HashMap};

use crate::dialect::duragram::replier::ReplyTo;
use crate::limits;
use crate::model::AskId;
use crate::rate;

/// A TAKE that is held.
#[derive(Debug)]
pub(in crate::dialect::duragram) struct Held {
    /// Where its ANSWER goes, whatever comes meanwhile.
    pub(super) to: ReplyTo,
    /// The number of the commit that its ANSWER rests on, beside that of the ask.
    pub(super) rests_on: u64,
    deadline: Deadline,
}

/// When a hold ends, in monotonic microseconds, and a number that tells those apart that end together.
type Deadline = (u64, u64);

const _: () = {
    // A node of a tree is half full at least.
    let place = 2 * (size_of::<Deadline>() + size_of::<AskId>() + size_of::<u32>());
    assert!(size_of::<Held>() + place <= limits::HELD_TAKE_BYTES);
};

/// All that are held, by the time at which they end.
#[derive(Debug, Default)]
pub(in crate::dialect::duragram) struct HeldTakes {
    by_deadline: BTreeMap<Deadline, AskId>,
    /// How many each source has that sends plain.
    by_source: HashMap<u64, usize>,
    number: u64,
}

impl HeldTakes {
    /// Counts the TAKEs that are held now.
    pub(in crate::dialect::duragram) fn len(&self) -> usize {
        self.by_deadline.len()
    }

    /// Whether one more may be held for who sent this. Sealed ones are bounded by their sessions.
    pub(super) fn has_room(&self, to: &ReplyTo) -> bool {
        let held = source(to).and_then(|source| self.by_source.get(&source));
        held.is_none_or(|&held| held < limits::HELD_TAKES_PER_SOURCE)
    }

    /// Holds a TAKE for `wait_ms` from its arrival on, but never for longer than the server holds any.
    pub(super) fn hold(&mut self, id: AskId, to: ReplyTo, wait_ms: u32, rests_on: u64) -> Held {
        self.number += 1;
        let wait_us = u64::from(wait_ms.min(limits::TAKE_HOLD_MS)) * 1_000;
        let deadline = (to.arrived_us.saturating_add(wait_us), self.number);
        self.by_deadline.insert(deadline, id);
        if let Some(source) = source(&to) {
            *self.by_source.entry(source).or_default() += 1;
        }
        Held { to, rests_on, deadline }
    }

    /// The hold of this TAKE ends. Returns the TAKE.
    pub(in crate::dialect::duragram) fn release(&mut self, held: Held) -> Held {
        self.by_deadline.remove(&held.deadline);
        if let Some(source) = source(&held.to)
            && let Some(count) = self.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
        held
    }

    /// The ask of a TAKE that has been held for as long as it may, and is to be released. Each is named once.
    pub(in crate::dialect::duragram) fn pop_overdue(&mut self, mono_us: u64) -> Option<AskId> {
        let first = self.by_deadline.first_entry()?;
        (first.key().0 <= mono_us).then(|| first.remove())
    }
}

/// Whose places a held TAKE takes; `None` for what is sealed, and for the machine's own.
fn source(to: &ReplyTo) -> Option<u64> {
    if to.keys.is_some() { None } else { rate::source(to.peer.addr) }
}
