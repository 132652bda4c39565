//! Doubly linked lists threaded through their slots, so that ordering them needs no memory of its own. A slot is in at
//! most one list at a time. What else a slot holds is not known here.

/// The place of no slot: the end of a list.
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

/// A slot that can be in a list.
pub(super) trait Linked {
    fn links(&self) -> Links;
    fn links_mut(&mut self) -> &mut Links;
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

    pub(super) fn push_back<S: Linked>(&mut self, slots: &mut [S], index: usize) {
        self.insert_after(slots, self.last, number(index));
    }

    /// Inserts behind all for which `is_before(slot)`, which come first. Looked for from both ends, as the caller's order
    /// makes one of them near.
    pub(super) fn insert_sorted<S: Linked>(&mut self, slots: &mut [S], index: usize, is_before: impl Fn(&S) -> bool) {
        let (mut front, mut back) = (self.first, self.last);
        let after = loop {
            if back == NONE || is_before(&slots[back as usize]) {
                break back;
            }
            if !is_before(&slots[front as usize]) {
                break slots[front as usize].links().previous;
            }
            back = slots[back as usize].links().previous;
            front = slots[front as usize].links().next;
        };
        self.insert_after(slots, after, number(index));
    }

    pub(super) fn remove<S: Linked>(&mut self, slots: &mut [S], index: usize) {
        let links = core::mem::replace(slots[index].links_mut(), Links::NONE);
        match links.previous {
            NONE => self.first = links.next,
            previous => slots[previous as usize].links_mut().next = links.next,
        }
        match links.next {
            NONE => self.last = links.previous,
            next => slots[next as usize].links_mut().previous = links.previous,
        }
        self.len -= 1;
    }

    fn insert_after<S: Linked>(&mut self, slots: &mut [S], previous: u32, at: u32) {
        let next = match previous {
            NONE => core::mem::replace(&mut self.first, at),
            previous => core::mem::replace(&mut slots[previous as usize].links_mut().next, at),
        };
        match next {
            NONE => self.last = at,
            next => slots[next as usize].links_mut().previous = at,
        }
        *slots[at as usize].links_mut() = Links { previous, next };
        self.len += 1;
    }
}

#[allow(clippy::cast_possible_truncation)] // an index is below SLOTS_MAX, 65,536
fn number(index: usize) -> u32 {
    index as u32
}
