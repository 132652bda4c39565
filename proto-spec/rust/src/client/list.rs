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

    /// Inserts behind all for which `is_before(slot)`, which come first. Looked for from both ends, as the caller's order
    /// makes one of them near.
    pub(super) fn insert_sorted(&mut self, slots: &mut [Slot], index: usize, is_before: impl Fn(&Slot) -> bool) {
        let (mut front, mut back) = (self.first, self.last);
        let after = loop {
            if back == NONE || is_before(&slots[back as usize]) {
                break back;
            }
            if !is_before(&slots[front as usize]) {
                break slots[front as usize].links.previous;
            }
            back = slots[back as usize].links.previous;
            front = slots[front as usize].links.next;
        };
        self.insert_after(slots, after, number(index));
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
