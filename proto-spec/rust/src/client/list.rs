//! Doubly linked lists threaded through the slots, so that ordering them needs no memory of its own. A slot is in at
//! most one list at a time.

use super::queue::Slot;

/// No slot.
const NONE: u32 = u32::MAX;

/// The two neighbours of a slot in the list that it is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    pub(super) const NONE: Self = Self { previous: NONE, next: NONE };
}

/// A list of slots, by index.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
    len: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE, len: 0 };

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn first(&self) -> Option<usize> {
        (self.first != NONE).then_some(self.first as usize)
    }

    pub(super) fn push_back(&mut self, slots: &mut [Slot], index: usize) {
        self.insert_after(slots, self.last, number(index));
    }

    /// Inserts where `is_before(slot)` becomes true, looked for from the back. The caller's order makes that near.
    pub(super) fn insert_from_back(&mut self, slots: &mut [Slot], index: usize, is_before: impl Fn(&Slot) -> bool) {
        let mut at = self.last;
        while at != NONE && !is_before(&slots[at as usize]) {
            at = slots[at as usize].links.previous;
        }
        self.insert_after(slots, at, number(index));
    }

    pub(super) fn remove(&mut self, slots: &mut [Slot], index: usize) {
        let links = core::mem::replace(&mut slots[index].links, Links::NONE);
        match links.previous {
            NONE => self.first = links.next,
            previous => slots[previous as usize].links.next = links.next,
        }
        match links.next {
            NONE => self.last = links.previous,
            next => slots[next as usize].links.previous = links.previous,
        }
        self.len -= 1;
    }

    fn insert_after(&mut self, slots: &mut [Slot], previous: u32, at: u32) {
        let next = match previous {
            NONE => core::mem::replace(&mut self.first, at),
            previous => core::mem::replace(&mut slots[previous as usize].links.next, at),
        };
        match next {
            NONE => self.last = at,
            next => slots[next as usize].links.previous = at,
        }
        slots[at as usize].links = Links { previous, next };
        self.len += 1;
    }
}

#[allow(clippy::cast_possible_truncation)] // an index is below SLOTS_MAX, 65,536
fn number(index: usize) -> u32 {
    index as u32
}
